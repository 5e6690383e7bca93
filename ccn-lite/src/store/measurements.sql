-- What the network's scoring measured at nodes.
CREATE TABLE measurements (
    node TEXT NOT NULL,
    kind TEXT NOT NULL,
    measured_at REAL NOT NULL,
    message TEXT NOT NULL,
    measured TEXT NOT NULL,
    PRIMARY KEY (node, kind, measured_at, message)
) WITHOUT ROWID;
CREATE INDEX measurements_time ON measurements (measured_at);
CREATE INDEX measurements_message ON measurements (message);
CREATE TRIGGER measurements_forgotten AFTER DELETE ON messages WHEN OLD.content_type = 'aleph-network-metrics' BEGIN
    DELETE FROM measurements WHERE message = OLD.item_hash;
END;
