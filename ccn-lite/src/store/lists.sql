-- What lists are ordered and narrowed by beside their usual filters.
-- What is in force says itself where it stands, and since when it is here.
UPDATE messages SET reception_time = s.reception_time FROM statuses s
    WHERE s.item_hash = messages.item_hash AND s.reception_time < messages.reception_time;
DELETE FROM statuses WHERE status IN ('processed', 'removing');
CREATE INDEX messages_reception ON messages (reception_time, item_hash, status);
CREATE INDEX statuses_reception ON statuses (status, reception_time, item_hash);
-- How many there are of each, kept while they come and go.
CREATE TABLE status_counts (
    status TEXT PRIMARY KEY,
    messages INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO status_counts SELECT status, count(*) FROM statuses GROUP BY status;
CREATE TRIGGER statuses_counted AFTER INSERT ON statuses BEGIN
    INSERT INTO status_counts VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET messages = messages + 1;
END;
CREATE TRIGGER statuses_discounted AFTER DELETE ON statuses BEGIN
    UPDATE status_counts SET messages = messages - 1 WHERE status = OLD.status;
END;
CREATE TRIGGER statuses_recounted AFTER UPDATE OF status ON statuses WHEN NEW.status <> OLD.status BEGIN
    UPDATE status_counts SET messages = messages - 1 WHERE status = OLD.status;
    INSERT INTO status_counts VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET messages = messages + 1;
END;
CREATE INDEX aggregates_key ON aggregates (key, owner);
