CREATE TABLE IF NOT EXISTS vms (
    hash         TEXT PRIMARY KEY,
    source       TEXT NOT NULL,
    desired      TEXT NOT NULL,
    held         INTEGER NOT NULL DEFAULT 0,  -- stopped by its owner: pushes do not start it
    state        TEXT NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    attempts     INTEGER NOT NULL DEFAULT 0,
    retry_at     INTEGER,
    kind         TEXT,
    owner        TEXT,
    payment      TEXT,
    message      TEXT,                        -- the verified message, JSON
    guest        TEXT,                        -- what its guest is told, JSON: an agent that adopts it needs it
    -- Unix microseconds
    defined_at   INTEGER NOT NULL,
    preparing_at INTEGER,
    prepared_at  INTEGER,
    starting_at  INTEGER,
    started_at   INTEGER,
    stopping_at  INTEGER,
    stopped_at   INTEGER
) STRICT;

CREATE TABLE IF NOT EXISTS leases (
    vm         TEXT PRIMARY KEY REFERENCES vms (hash),
    slot       INTEGER NOT NULL UNIQUE,       -- names the TAP and the IPv4 subnet
    memory_mib INTEGER NOT NULL,              -- 0 while the machine does not run, as are the vCPUs
    vcpus      INTEGER NOT NULL,
    disk_mib   INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS port_mappings (
    vm         TEXT NOT NULL REFERENCES vms (hash),
    guest_port INTEGER NOT NULL,
    host_port  INTEGER NOT NULL UNIQUE,
    tcp        INTEGER NOT NULL,
    udp        INTEGER NOT NULL,
    active     INTEGER NOT NULL,              -- a port no longer asked for keeps its number for when it is again
    PRIMARY KEY (vm, guest_port)
) STRICT;

-- What happened to each machine, the latest of it: what event streams read.
CREATE TABLE IF NOT EXISTS events (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,                  -- Unix microseconds
    vm     TEXT NOT NULL,
    state  TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_vm ON events (vm, id);

-- What is kept free for someone for a minute, one a sender.
CREATE TABLE IF NOT EXISTS reservations (
    sender     TEXT PRIMARY KEY,              -- lower case
    memory_mib INTEGER NOT NULL,
    vcpus      INTEGER NOT NULL,
    disk_mib   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL               -- Unix microseconds
) STRICT;

-- Signed requests that were carried out: none is carried out twice, restarts or not.
CREATE TABLE IF NOT EXISTS used_signatures (
    digest BLOB PRIMARY KEY,
    until  INTEGER NOT NULL                   -- Unix seconds; the signature is stale then
) STRICT, WITHOUT ROWID;

-- Disks that are to be made anew before the next start.
CREATE TABLE IF NOT EXISTS wipes (
    vm      TEXT PRIMARY KEY,
    volumes INTEGER NOT NULL                  -- the persistent volumes too, not only the root
) STRICT;

-- Machines whose own connections are not carried, since their latest start.
CREATE TABLE IF NOT EXISTS secluded (
    vm TEXT PRIMARY KEY
) STRICT;

-- Machines that are to be stopped at a time.
CREATE TABLE IF NOT EXISTS expirations (
    vm TEXT PRIMARY KEY,
    at INTEGER NOT NULL                       -- Unix microseconds
) STRICT;
