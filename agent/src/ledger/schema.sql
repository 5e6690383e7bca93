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
