CREATE TABLE statuses (
    item_hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    reception_time REAL NOT NULL
) WITHOUT ROWID;

-- Messages in force: status processed or removing.
CREATE TABLE messages (
    item_hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    chain TEXT NOT NULL,
    sender TEXT NOT NULL,
    signature TEXT,
    item_type TEXT NOT NULL,
    item_content TEXT,
    content TEXT NOT NULL,
    time REAL NOT NULL,
    channel TEXT,
    size INTEGER NOT NULL,
    reception_time REAL NOT NULL,
    owner TEXT NOT NULL,
    content_type TEXT,
    content_ref TEXT,
    content_key TEXT,
    content_item_hash TEXT,
    payment_type TEXT,
    tags TEXT
);
CREATE INDEX messages_time ON messages (time DESC, item_hash);
CREATE INDEX messages_type_time ON messages (type, time DESC, item_hash);
CREATE INDEX messages_owner_time ON messages (owner, time DESC, item_hash);
CREATE INDEX messages_sender_time ON messages (sender, time DESC, item_hash);
CREATE INDEX messages_channel_time ON messages (channel, time DESC, item_hash);
CREATE INDEX messages_ref ON messages (content_ref) WHERE content_ref IS NOT NULL;
CREATE INDEX messages_content_hash ON messages (content_item_hash) WHERE content_item_hash IS NOT NULL;

CREATE TABLE pending (
    item_hash TEXT PRIMARY KEY,
    envelope TEXT NOT NULL,
    reception_time REAL NOT NULL,
    retries INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL,
    error_code INTEGER,
    details TEXT
) WITHOUT ROWID;
CREATE INDEX pending_due ON pending (next_attempt);

-- What a pending message waits for: message hashes, file hashes or file tags.
CREATE TABLE pending_dependencies (
    dependency TEXT NOT NULL,
    item_hash TEXT NOT NULL REFERENCES pending (item_hash) ON DELETE CASCADE,
    PRIMARY KEY (dependency, item_hash)
) WITHOUT ROWID;
CREATE INDEX pending_dependencies_item ON pending_dependencies (item_hash);

CREATE TABLE rejected (
    item_hash TEXT PRIMARY KEY,
    envelope TEXT NOT NULL,
    error_code INTEGER NOT NULL,
    details TEXT
) WITHOUT ROWID;

CREATE TABLE forgotten (
    item_hash TEXT PRIMARY KEY,
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
    forgotten_at REAL NOT NULL,
    forgotten_by TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE aggregate_elements (
    item_hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE INDEX aggregate_elements_key ON aggregate_elements (owner, key, created, item_hash);

CREATE TABLE aggregates (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,
    created REAL NOT NULL,
    last_updated REAL NOT NULL,
    first_hash TEXT NOT NULL,
    last_hash TEXT NOT NULL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;

CREATE TABLE posts (
    item_hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    type TEXT,
    ref TEXT,
    amends TEXT,
    channel TEXT,
    content TEXT NOT NULL,
    created REAL NOT NULL,
    latest_amend TEXT,
    last_updated REAL NOT NULL
);
CREATE INDEX posts_amends ON posts (amends) WHERE amends IS NOT NULL;
CREATE INDEX posts_owner ON posts (owner, last_updated DESC);
CREATE INDEX posts_type ON posts (type, last_updated DESC);

CREATE TABLE files (
    hash TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    type TEXT NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;

-- Why a file is kept: a STORE message, the content of a message, or grace until delete_by.
CREATE TABLE file_pins (
    id INTEGER PRIMARY KEY,
    file_hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    item_hash TEXT,
    owner TEXT,
    ref TEXT,
    created REAL NOT NULL,
    delete_by REAL
);
CREATE INDEX file_pins_file ON file_pins (file_hash);
CREATE UNIQUE INDEX file_pins_item ON file_pins (item_hash, kind) WHERE item_hash IS NOT NULL;
CREATE INDEX file_pins_owner ON file_pins (owner, created DESC) WHERE kind = 'store';
CREATE INDEX file_pins_grace ON file_pins (delete_by) WHERE delete_by IS NOT NULL;

CREATE TABLE file_tags (
    tag TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    file_hash TEXT NOT NULL,
    last_updated REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE vms (
    item_hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    type TEXT NOT NULL,
    payment_type TEXT NOT NULL,
    persistent INTEGER NOT NULL,
    allow_amend INTEGER NOT NULL,
    replaces TEXT,
    created REAL NOT NULL
);
CREATE INDEX vms_replaces ON vms (replaces) WHERE replaces IS NOT NULL;

CREATE TABLE vm_volumes (
    vm TEXT NOT NULL REFERENCES vms (item_hash) ON DELETE CASCADE,
    ref TEXT NOT NULL,
    PRIMARY KEY (ref, vm)
) WITHOUT ROWID;
CREATE INDEX vm_volumes_vm ON vm_volumes (vm);

CREATE TABLE vm_versions (
    vm TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    current TEXT NOT NULL,
    last_updated REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE balances (
    address TEXT NOT NULL COLLATE NOCASE,
    chain TEXT NOT NULL,
    dapp TEXT NOT NULL DEFAULT '',
    balance TEXT NOT NULL,
    height INTEGER NOT NULL,
    PRIMARY KEY (address, chain, dapp)
) WITHOUT ROWID;

CREATE TABLE credit_lots (
    address TEXT NOT NULL COLLATE NOCASE,
    credit_ref TEXT NOT NULL,
    credit_index INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    expiration REAL,
    message_time REAL NOT NULL,
    payment_method TEXT,
    PRIMARY KEY (credit_ref, credit_index)
) WITHOUT ROWID;
CREATE INDEX credit_lots_address ON credit_lots (address, message_time, credit_ref, credit_index);

CREATE TABLE costs (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL COLLATE NOCASE,
    item_hash TEXT NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    ref TEXT,
    payment_type TEXT NOT NULL,
    hold TEXT NOT NULL,
    stream TEXT NOT NULL,
    credit TEXT NOT NULL,
    size_mib TEXT
);
CREATE INDEX costs_owner ON costs (owner, payment_type);
CREATE INDEX costs_item ON costs (item_hash);
