-- Versions of models. A version is never changed or removed, so `version` runs from 1 without gaps.
CREATE TABLE model_versions (
    model        TEXT    NOT NULL,
    version      INTEGER NOT NULL CHECK (version > 0),
    -- Digest of the OCI image index.
    index_digest TEXT    NOT NULL,
    -- Digest of the graph it was compiled from.
    graph        TEXT    NOT NULL,
    -- Key of the set of (target, artifact): the same set is the same version.
    contents     TEXT    NOT NULL,
    -- Unix seconds.
    published_at INTEGER NOT NULL,
    PRIMARY KEY (model, version),
    UNIQUE (model, contents)
) STRICT, WITHOUT ROWID;

-- The artifact of one target in one version.
CREATE TABLE model_variants (
    model    TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    target   TEXT    NOT NULL,
    -- Digest of the OCI image manifest.
    manifest TEXT    NOT NULL,
    -- Digest and size of the shared object.
    artifact TEXT    NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (model, version, target),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
) STRICT, WITHOUT ROWID;

-- Names for versions that can be moved.
CREATE TABLE model_tags (
    model   TEXT    NOT NULL,
    tag     TEXT    NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (model, tag),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
) STRICT, WITHOUT ROWID;

-- The performance history, append-only.
CREATE TABLE model_profiles (
    id      INTEGER PRIMARY KEY,
    model   TEXT    NOT NULL,
    version INTEGER NOT NULL,
    -- Digest of `body`: appending the same profile again changes nothing.
    digest  TEXT    NOT NULL,
    -- A Profile as JSON.
    body    TEXT    NOT NULL,
    UNIQUE (model, version, digest),
    FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
) STRICT;
