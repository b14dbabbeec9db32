-- What every row is about. Few combinations, many rows.
CREATE TABLE labels(
  id INTEGER PRIMARY KEY,
  tap TEXT NOT NULL, deployment TEXT NOT NULL, model TEXT NOT NULL,
  operation TEXT NOT NULL, outcome TEXT NOT NULL, stream INTEGER NOT NULL,
  UNIQUE(tap, deployment, model, operation, outcome, stream));

-- The bucket's objects that were looked at, and how far.
CREATE TABLE objects(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  bytes INTEGER NOT NULL,
  lines INTEGER NOT NULL,
  whole INTEGER NOT NULL);

-- What could not be read: a line, or all of an object (line 0).
CREATE TABLE quarantine(
  id INTEGER PRIMARY KEY,
  object TEXT NOT NULL, line INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL);

-- `seq` is the time in microseconds, shifted left by ten bits, with ten bits of the id below it: rows
-- stand in the order of time, and a window is a range. Here is what whole windows are filtered and sorted
-- by, and nothing else: a million rows are some 35 MB. `scores` holds four bits a criterion, so that no
-- filter has to join.
CREATE TABLE samples(
  seq INTEGER PRIMARY KEY,
  labels INTEGER NOT NULL, latency_ms REAL NOT NULL, total INTEGER,
  scores INTEGER NOT NULL DEFAULT 0, worst INTEGER);

-- What a list shows besides, with the beginnings of both texts. The rest of a sample is in the bucket, at
-- `line` of `object`.
CREATE TABLE details(
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL, status INTEGER, first_token_ms REAL, input INTEGER, output INTEGER, source TEXT,
  reason TEXT NOT NULL, probability REAL NOT NULL, object INTEGER NOT NULL, line INTEGER NOT NULL,
  question TEXT, answer TEXT);

-- Samples that do not stand in the millisecond that their id names.
CREATE TABLE strays(id BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX strays_by_seq ON strays(seq);

CREATE VIRTUAL TABLE search USING fts5(
  question, answer, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2');
-- Words gather in this many bytes before they are written: fewer pieces to be merged later.
INSERT INTO search(search, rank) VALUES('hashsize', 8388608);

-- One judgement a sample and criterion: one with a score beats one without, then the later one.
-- `criterion` is the name of a custom one; `scale` is the place in `Scale::ALL`; `grade` a score, or
-- the thousandths of a value, or -1 for none; `drift` 1 where the judge had failed its own test.
CREATE TABLE scores(
  sample BLOB NOT NULL, criterion TEXT NOT NULL,
  id BLOB NOT NULL, at INTEGER NOT NULL, time INTEGER NOT NULL, labels INTEGER NOT NULL,
  scale INTEGER NOT NULL, grade INTEGER NOT NULL, drift INTEGER NOT NULL,
  error TEXT, reason TEXT, probability REAL NOT NULL, least REAL NOT NULL, judge TEXT,
  injection_suspect INTEGER NOT NULL,
  PRIMARY KEY(sample, criterion)) WITHOUT ROWID;

-- How many scores of one grade and one probability, by minute, hour and day, in the form of `counts.rs`.
-- Probabilities are few, and counts are exact: every estimate follows.
CREATE TABLE score_sums(
  span INTEGER NOT NULL, time INTEGER NOT NULL, labels INTEGER NOT NULL, counts BLOB NOT NULL,
  PRIMARY KEY(span, time, labels)) WITHOUT ROWID;

-- Totals of all requests by minute, quarter of an hour, hour and day.
CREATE TABLE rollups(
  span INTEGER NOT NULL, time INTEGER NOT NULL, labels INTEGER NOT NULL, totals BLOB NOT NULL,
  PRIMARY KEY(span, time, labels)) WITHOUT ROWID;

-- Where the spans of a sample are.
CREATE TABLE parts(
  sample BLOB NOT NULL, object INTEGER NOT NULL, line INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(sample, object, line)) WITHOUT ROWID;

CREATE TABLE ledger(
  object TEXT PRIMARY KEY, hour INTEGER NOT NULL, settled INTEGER NOT NULL, row TEXT NOT NULL);
CREATE INDEX ledger_by_hour ON ledger(hour);

CREATE TABLE runs(
  id TEXT PRIMARY KEY, monitor TEXT NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL,
  document TEXT NOT NULL);
CREATE INDEX runs_by_time ON runs(at);
CREATE INDEX runs_by_monitor ON runs(monitor, at);

-- What the runs' books say: the latest run that speaks of a violation is right.
CREATE TABLE alerts(
  id TEXT PRIMARY KEY, monitor TEXT NOT NULL, state TEXT NOT NULL,
  opened INTEGER NOT NULL, updated INTEGER NOT NULL, document TEXT NOT NULL);
CREATE INDEX alerts_by_time ON alerts(updated);
