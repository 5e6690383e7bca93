-- Posts by the tags of their latest content, in the order of lists of posts; the columns that follow let other conditions
-- be checked before a post is read.
CREATE TABLE post_tags (
    tag TEXT NOT NULL,
    updated REAL NOT NULL,
    post TEXT NOT NULL,
    owner TEXT NOT NULL,
    content_type TEXT,
    channel TEXT,
    PRIMARY KEY (tag, updated DESC, post)
) WITHOUT ROWID;
CREATE TRIGGER posts_untagged AFTER DELETE ON messages WHEN OLD.updated IS NOT NULL BEGIN
    DELETE FROM post_tags WHERE updated = OLD.updated AND post = OLD.item_hash AND tag IN (
        SELECT value FROM json_each(iif(OLD.amended_by IS NULL, OLD.tags,
            (SELECT tags FROM messages WHERE item_hash = OLD.amended_by))));
END;
-- An amend that becomes the latest, or no longer is, brings its own tags.
CREATE TRIGGER posts_retagged AFTER UPDATE OF updated, amended_by ON messages WHEN NEW.updated IS NOT NULL BEGIN
    DELETE FROM post_tags WHERE updated = OLD.updated AND post = OLD.item_hash AND tag IN (
        SELECT value FROM json_each(iif(OLD.amended_by IS NULL, OLD.tags,
            (SELECT tags FROM messages WHERE item_hash = OLD.amended_by))));
    INSERT INTO post_tags SELECT value, NEW.updated, NEW.item_hash, NEW.owner, NEW.content_type, NEW.channel
        FROM json_each(iif(NEW.amended_by IS NULL, NEW.tags,
            (SELECT tags FROM messages WHERE item_hash = NEW.amended_by)))
        WHERE json_each.type = 'text' ON CONFLICT DO NOTHING;
END;
INSERT OR IGNORE INTO post_tags
    SELECT value, p.updated, p.item_hash, p.owner, p.content_type, p.channel
    FROM messages p JOIN messages latest ON latest.item_hash = coalesce(p.amended_by, p.item_hash), json_each(latest.tags)
    WHERE p.updated IS NOT NULL AND latest.tags IS NOT NULL AND json_each.type = 'text'
    ORDER BY value, p.updated DESC, p.item_hash;
CREATE INDEX posts_channel ON messages (channel, updated DESC, content_type)
    WHERE updated IS NOT NULL AND channel IS NOT NULL;
-- Of this owner nothing is merged.
DELETE FROM aggregates WHERE owner = '0x51A58800b26AA1451aaA803d1746687cB88E0501';
-- Who adds a message adds its tags and counts it. With triggers that may write more than one row SQLite remembers every
-- page a message changes, to be able to undo it alone.
DROP TRIGGER messages_tagged;
DROP TRIGGER messages_counted;
