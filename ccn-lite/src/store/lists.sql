-- What lists are ordered and narrowed by beside their usual filters.
-- What is in force says itself where it stands, and since when it is here.
UPDATE messages SET reception_time = s.reception_time FROM statuses s
    WHERE s.item_hash = messages.item_hash AND s.reception_time < messages.reception_time;
DELETE FROM statuses WHERE status IN ('processed', 'removing');
CREATE INDEX messages_reception ON messages (reception_time, item_hash, status);
CREATE INDEX statuses_reception ON statuses (reception_time, item_hash);
CREATE INDEX aggregates_key ON aggregates (key, owner);
