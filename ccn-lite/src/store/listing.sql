-- Who signed for somebody else; most sign for themselves, and are found as owners.
ALTER TABLE messages ADD COLUMN delegate TEXT;
UPDATE messages SET delegate = sender WHERE sender <> owner;
-- Lists are read from one index each, in order of time; the columns that follow let other conditions be checked there.
DROP INDEX messages_time;
DROP INDEX messages_type_time;
DROP INDEX messages_owner_time;
DROP INDEX messages_sender_time;
DROP INDEX messages_channel_time;
DROP INDEX messages_ref;
DROP INDEX messages_content_hash;
CREATE INDEX messages_time ON messages (time DESC, type, channel, content_type, sender, chain);
CREATE INDEX messages_type ON messages (type, time DESC, chain);
CREATE INDEX messages_owner ON messages (owner, time DESC, channel, content_type, type, chain, delegate);
CREATE INDEX messages_delegate ON messages (delegate, time DESC, channel, content_type, type, chain)
    WHERE delegate IS NOT NULL;
CREATE INDEX messages_channel ON messages (channel, time DESC, content_type, type, chain) WHERE channel IS NOT NULL;
CREATE INDEX messages_content_type ON messages (content_type, time DESC, type, chain) WHERE content_type IS NOT NULL;
CREATE INDEX messages_ref ON messages (content_ref, time DESC) WHERE content_ref IS NOT NULL;
CREATE INDEX messages_key ON messages (content_key, time DESC) WHERE content_key IS NOT NULL;
CREATE INDEX messages_content_hash ON messages (content_item_hash, time DESC) WHERE content_item_hash IS NOT NULL;
CREATE INDEX messages_payment ON messages (payment_type, time DESC, type, chain) WHERE payment_type IS NOT NULL;
-- Of what nearly all messages have alike, the rest alone.
CREATE INDEX messages_chain ON messages (chain, time DESC, type) WHERE chain <> 'ETH';
CREATE INDEX messages_removing ON messages (time DESC) WHERE status = 'removing';

CREATE TABLE message_tags (
    tag TEXT NOT NULL,
    at REAL NOT NULL,
    message TEXT NOT NULL,
    type TEXT NOT NULL,
    chain TEXT NOT NULL,
    sender TEXT NOT NULL,
    owner TEXT NOT NULL,
    channel TEXT,
    content_type TEXT,
    PRIMARY KEY (tag, at, message)
) WITHOUT ROWID;
CREATE TRIGGER messages_tagged AFTER INSERT ON messages WHEN NEW.tags IS NOT NULL BEGIN
    INSERT INTO message_tags
        SELECT value, NEW.time, NEW.item_hash, NEW.type, NEW.chain, NEW.sender, NEW.owner, NEW.channel, NEW.content_type
        FROM json_each(NEW.tags) WHERE json_each.type = 'text' ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER messages_untagged AFTER DELETE ON messages WHEN OLD.tags IS NOT NULL BEGIN
    DELETE FROM message_tags WHERE message = OLD.item_hash AND at = OLD.time
        AND tag IN (SELECT value FROM json_each(OLD.tags) WHERE json_each.type = 'text');
END;
INSERT OR IGNORE INTO message_tags
    SELECT value, m.time, m.item_hash, m.type, m.chain, m.sender, m.owner, m.channel, m.content_type
    FROM messages m, json_each(m.tags) WHERE m.tags IS NOT NULL AND json_each.type = 'text';

-- How many messages there are, kept while they come and go.
CREATE TABLE message_counts (
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (type, status)
) WITHOUT ROWID;
INSERT INTO message_counts SELECT type, status, count(*) FROM messages GROUP BY type, status;
-- The same of each owner; `delegate` is empty for what it signed itself.
CREATE TABLE address_counts (
    owner TEXT NOT NULL,
    type TEXT NOT NULL,
    delegate TEXT NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (owner, type, delegate)
) WITHOUT ROWID;
INSERT INTO address_counts SELECT owner, type, coalesce(delegate, ''), count(*) FROM messages GROUP BY 1, 2, 3;
CREATE INDEX address_counts_delegate ON address_counts (delegate) WHERE delegate <> '';
CREATE TRIGGER messages_counted AFTER INSERT ON messages BEGIN
    INSERT INTO message_counts VALUES (NEW.type, NEW.status, 1)
        ON CONFLICT (type, status) DO UPDATE SET messages = messages + 1;
    INSERT INTO address_counts VALUES (NEW.owner, NEW.type, coalesce(NEW.delegate, ''), 1)
        ON CONFLICT (owner, type, delegate) DO UPDATE SET messages = messages + 1;
END;
CREATE TRIGGER messages_discounted AFTER DELETE ON messages BEGIN
    UPDATE message_counts SET messages = messages - 1 WHERE type = OLD.type AND status = OLD.status;
    UPDATE address_counts SET messages = messages - 1
        WHERE owner = OLD.owner AND type = OLD.type AND delegate = coalesce(OLD.delegate, '');
    DELETE FROM address_counts
        WHERE owner = OLD.owner AND type = OLD.type AND delegate = coalesce(OLD.delegate, '') AND messages = 0;
END;
CREATE TRIGGER messages_recounted AFTER UPDATE OF status ON messages WHEN NEW.status <> OLD.status BEGIN
    UPDATE message_counts SET messages = messages - 1 WHERE type = OLD.type AND status = OLD.status;
    INSERT INTO message_counts VALUES (NEW.type, NEW.status, 1)
        ON CONFLICT (type, status) DO UPDATE SET messages = messages + 1;
END;
