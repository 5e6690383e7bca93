-- What lists are ordered and narrowed by beside their usual filters.
CREATE INDEX statuses_reception ON statuses (reception_time, item_hash);
CREATE INDEX posts_updated ON posts (last_updated DESC, item_hash) WHERE amends IS NULL;
CREATE INDEX posts_ref ON posts (ref) WHERE ref IS NOT NULL;
CREATE INDEX aggregates_key ON aggregates (key, owner);
