-- What is left of messages that were forgotten or no longer paid.
CREATE TABLE gone (
    item_hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    chain TEXT NOT NULL,
    sender TEXT NOT NULL,
    signature TEXT,
    item_type TEXT NOT NULL,
    time REAL NOT NULL,
    channel TEXT,
    owner TEXT NOT NULL,
    payment_type TEXT NOT NULL,
    size INTEGER,
    gone_at REAL NOT NULL,
    forgotten_by TEXT
) WITHOUT ROWID;
INSERT INTO gone SELECT item_hash, 'forgotten', type, chain, sender, signature, item_type, time, channel, owner,
    payment_type, size, forgotten_at, forgotten_by FROM forgotten;
DROP TABLE forgotten;
CREATE INDEX gone_at ON gone (status, gone_at);
