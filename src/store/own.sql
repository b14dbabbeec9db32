-- What is not made from the bucket: it stays when the index is made anew.
CREATE TABLE IF NOT EXISTS notes(name TEXT PRIMARY KEY, value TEXT NOT NULL);
