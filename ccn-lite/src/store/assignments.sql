-- Where the scheduler placed machines.
CREATE TABLE assignments (
    vm TEXT PRIMARY KEY,
    node TEXT NOT NULL
) WITHOUT ROWID;
