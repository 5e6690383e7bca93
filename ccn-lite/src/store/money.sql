-- What happened to the credits of accounts; the lots are what is left of them.
CREATE TABLE credit_history (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL COLLATE NOCASE,
    amount INTEGER NOT NULL,
    credit_ref TEXT NOT NULL,
    credit_index INTEGER NOT NULL,
    price TEXT,
    bonus_amount TEXT,
    tx_hash TEXT,
    token TEXT,
    chain TEXT,
    provider TEXT,
    origin TEXT,
    origin_ref TEXT,
    payment_method TEXT,
    expiration REAL,
    message_time REAL NOT NULL,
    expense_count INTEGER,
    expense_size_mib REAL
);
CREATE UNIQUE INDEX credit_history_ref ON credit_history (credit_ref, credit_index);
CREATE INDEX credit_history_address ON credit_history (address, message_time, id);
CREATE INDEX credit_history_resource ON credit_history (coalesce(origin, origin_ref))
    WHERE payment_method = 'credit_expense';
INSERT INTO credit_history (address, amount, credit_ref, credit_index, payment_method, expiration, message_time)
    SELECT address, amount, credit_ref, credit_index, payment_method, expiration, message_time FROM credit_lots;

-- Lots whose expiry has still to be acted upon.
CREATE INDEX credit_lots_expiration ON credit_lots (expiration) WHERE expiration IS NOT NULL AND remaining > 0;

-- Messages whose owner can no longer pay, and when they go for good.
CREATE TABLE removing (
    item_hash TEXT PRIMARY KEY REFERENCES messages (item_hash) ON DELETE CASCADE,
    delete_by REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX removing_due ON removing (delete_by);

-- What each account pays in one way: the sum over its costs.
CREATE TABLE cost_totals (
    owner TEXT NOT NULL COLLATE NOCASE,
    payment_type TEXT NOT NULL,
    total TEXT NOT NULL,
    PRIMARY KEY (owner, payment_type)
) WITHOUT ROWID;
CREATE INDEX costs_payment ON costs (payment_type, id);
