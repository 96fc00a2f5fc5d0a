-- Everything the coordinator knows. Times are Unix milliseconds, digests and ids are their text forms, JSON columns hold
-- the serde form of the protocol type that is named beside them.

CREATE TABLE jobs (
    id           TEXT PRIMARY KEY,          -- JobId
    key          TEXT NOT NULL,             -- digest of the request and the compiler's version: equal keys are the same work
    request      TEXT NOT NULL,             -- JobRequest
    state        TEXT NOT NULL,             -- JobState
    pins         TEXT NOT NULL,             -- [(Target, Pin)]: toolchains and devices chosen before tuning
    error        TEXT,                      -- ApiError
    published    TEXT,                      -- Published
    submitted_at INTEGER NOT NULL,
    finished_at  INTEGER
) STRICT;
CREATE INDEX jobs_by_key ON jobs (key, state);
CREATE INDEX jobs_by_time ON jobs (submitted_at);

CREATE TABLE job_events (
    job   TEXT NOT NULL REFERENCES jobs (id),
    seq   INTEGER NOT NULL,                 -- 1, 2, 3 … per job
    at    INTEGER NOT NULL,
    event TEXT NOT NULL,                    -- JobEvent
    PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;

-- A work item is a pure function of its spec, so its row outlives the job that first asked and is the cache of its result.
CREATE TABLE work_items (
    seq         INTEGER PRIMARY KEY,        -- order of arrival
    key         TEXT NOT NULL UNIQUE,       -- WorkItemId
    kind        TEXT NOT NULL,              -- WorkKind
    label       TEXT NOT NULL,
    spec        TEXT NOT NULL,              -- WorkSpec
    context     TEXT,                       -- of a Measure: what its TuningRecords say beyond the spec
    toolchain   TEXT,                       -- needed by Build and Link
    target      TEXT,                       -- needed by Build and Link
    device      TEXT,                       -- needed by Measure and Profile
    state       TEXT NOT NULL,              -- ItemState
    generation  INTEGER NOT NULL DEFAULT 0,
    attempts    INTEGER NOT NULL DEFAULT 0,
    completions INTEGER NOT NULL DEFAULT 0,
    worker      TEXT,                       -- WorkerId that has or had it
    queued_at   INTEGER NOT NULL,
    expires_at  INTEGER,                    -- of the lease
    result      TEXT,                       -- WorkResult
    run_ms      INTEGER,
    log         TEXT NOT NULL DEFAULT '[]'  -- what went wrong in each failed attempt
) STRICT;
CREATE INDEX work_items_open ON work_items (state, expires_at) WHERE state IN ('queued', 'leased');

CREATE TABLE job_items (
    job    TEXT NOT NULL REFERENCES jobs (id),
    item   TEXT NOT NULL REFERENCES work_items (key),
    cached INTEGER NOT NULL,                -- 1 when the result was there before the job asked
    PRIMARY KEY (job, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_items_by_item ON job_items (item);

CREATE TABLE workers (
    id            TEXT PRIMARY KEY,         -- WorkerId
    host          TEXT NOT NULL,
    capabilities  TEXT NOT NULL,            -- Capabilities
    device        TEXT,                     -- fingerprint
    registered_at INTEGER NOT NULL,
    seen_at       INTEGER NOT NULL,
    draining      INTEGER NOT NULL DEFAULT 0,
    gone_at       INTEGER,
    done          INTEGER NOT NULL DEFAULT 0,
    failed        INTEGER NOT NULL DEFAULT 0,
    streak        INTEGER NOT NULL DEFAULT 0 -- failures since the last success
) STRICT;
CREATE INDEX workers_present ON workers (host) WHERE gone_at IS NULL;

-- Append-only: a later outcome of the same candidate is a new row.
CREATE TABLE tuning_records (
    id               INTEGER PRIMARY KEY,
    task             TEXT NOT NULL,         -- TaskKey
    device           TEXT NOT NULL,         -- fingerprint
    candidate        TEXT NOT NULL,         -- CandidateId
    protocol_version INTEGER NOT NULL,
    threads          INTEGER NOT NULL,
    item             TEXT NOT NULL,         -- the work item that it comes from
    record           TEXT NOT NULL,         -- TuningRecord, all samples included
    UNIQUE (item, candidate, device, threads)
) STRICT;
CREATE INDEX tuning_records_by_task ON tuning_records (task, device, candidate);
