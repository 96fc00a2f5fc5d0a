-- What tasks are like, so that the search in one of which nothing is known begins with what is fast in those that are like it.
CREATE TABLE tasks (
    task  TEXT PRIMARY KEY,         -- TaskKey
    class TEXT NOT NULL,            -- Likeness.class
    sizes TEXT NOT NULL             -- Likeness.sizes, JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_by_class ON tasks (class);
