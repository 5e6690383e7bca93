-- A post is a message: what lists of posts are ordered by stands with it. An original was updated when it was written or
-- last amended; an amend is never listed itself.
ALTER TABLE messages ADD COLUMN content_time REAL;
ALTER TABLE messages ADD COLUMN updated REAL;
ALTER TABLE messages ADD COLUMN amended_by TEXT;
UPDATE messages SET content_time = p.created, amended_by = p.latest_amend,
    updated = CASE WHEN p.amends IS NULL THEN p.last_updated END
    FROM posts p WHERE p.item_hash = messages.item_hash;
DROP TABLE posts;
CREATE INDEX posts_updated ON messages (updated DESC, item_hash) WHERE updated IS NOT NULL;
CREATE INDEX posts_owner ON messages (owner, updated DESC, content_type, channel) WHERE updated IS NOT NULL;
CREATE INDEX posts_type ON messages (content_type, updated DESC, channel) WHERE updated IS NOT NULL;
-- The content of an inline message is its item_content; only what was read from a file is kept a second time.
UPDATE messages SET content = '' WHERE item_content IS NOT NULL;
