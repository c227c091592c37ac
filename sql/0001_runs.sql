-- Runs, the manifest they are made of, the ledger of what is done, and what the stages report.

CREATE TABLE runs (
    run_id          text PRIMARY KEY,
    config          jsonb NOT NULL,
    inputs_hash     text NOT NULL,
    state           text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'running', 'finished', 'failed')),
    stage           text,
    model_id        text,
    message         text,
    skysift_version text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz
);
COMMENT ON TABLE runs IS 'Named runs of the pipeline';
COMMENT ON COLUMN runs.run_id IS 'Name of the run';
COMMENT ON COLUMN runs.config IS 'Its configuration, without secrets';
COMMENT ON COLUMN runs.inputs_hash IS 'Hash of what the run reads; an unfinished run refuses another one';
COMMENT ON COLUMN runs.state IS 'planned, running, finished or failed';
COMMENT ON COLUMN runs.stage IS 'The stage entered last: plan, ingest, train, score, calibrate or report';
COMMENT ON COLUMN runs.model_id IS 'The model the run scores with, once known';
COMMENT ON COLUMN runs.message IS 'Why the run failed, in one line';
COMMENT ON COLUMN runs.skysift_version IS 'Version of skysift that registered the run last';
COMMENT ON COLUMN runs.created_at IS 'When the run was first registered';
COMMENT ON COLUMN runs.finished_at IS 'When the run last ended, finished or failed';

CREATE TABLE chunks (
    chunk_id   text PRIMARY KEY,
    coadd      text NOT NULL,
    path       text NOT NULL,
    size       bigint,
    etag       text,
    survey     text,
    program    text,
    healpix    integer,
    n_targets  integer NOT NULL CHECK (n_targets > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX chunks_coadd ON chunks (coadd);
COMMENT ON TABLE chunks IS 'Units of work: some targets of one coadd file; immutable, named by their contents';
COMMENT ON COLUMN chunks.chunk_id IS 'Hash of the coadd''s name, path, size and ETag and of the targets';
COMMENT ON COLUMN chunks.coadd IS 'Logical name of the coadd, such as healpix/main/dark/9144';
COMMENT ON COLUMN chunks.path IS 'Path of the coadd below the survey''s root';
COMMENT ON COLUMN chunks.size IS 'Size of the coadd in bytes at planning; null: the file was not there';
COMMENT ON COLUMN chunks.etag IS 'ETag of the coadd at planning; null: the file was not there';
COMMENT ON COLUMN chunks.survey IS 'DESI survey, such as main; null for tile-based coadds';
COMMENT ON COLUMN chunks.program IS 'DESI program, such as dark; null for tile-based coadds';
COMMENT ON COLUMN chunks.healpix IS 'HEALPix pixel, nside 64, nested; null for tile-based coadds';
COMMENT ON COLUMN chunks.n_targets IS 'Number of targets in the chunk';
COMMENT ON COLUMN chunks.created_at IS 'When the chunk was first planned';

CREATE TABLE targets (
    chunk_id text NOT NULL REFERENCES chunks ON DELETE CASCADE,
    ordinal  integer NOT NULL,
    targetid bigint NOT NULL,
    z        double precision NOT NULL,
    zerr     double precision,
    zwarn    bigint,
    ra       double precision,
    dec      double precision,
    PRIMARY KEY (chunk_id, ordinal)
);
CREATE INDEX targets_targetid ON targets (targetid);
COMMENT ON TABLE targets IS 'The manifest: every catalogued target of every chunk';
COMMENT ON COLUMN targets.chunk_id IS 'The chunk the target belongs to';
COMMENT ON COLUMN targets.ordinal IS 'Place in the chunk, from 0';
COMMENT ON COLUMN targets.targetid IS 'DESI TARGETID';
COMMENT ON COLUMN targets.z IS 'Catalogued redshift';
COMMENT ON COLUMN targets.zerr IS 'Its error';
COMMENT ON COLUMN targets.zwarn IS 'redrock ZWARN bits; null: the catalog has none';
COMMENT ON COLUMN targets.ra IS 'Right ascension, deg, ICRS; null: the catalog has none';
COMMENT ON COLUMN targets.dec IS 'Declination, deg, ICRS; null: the catalog has none';

CREATE TABLE run_chunks (
    run_id   text NOT NULL REFERENCES runs ON DELETE CASCADE,
    chunk_id text NOT NULL REFERENCES chunks ON DELETE CASCADE,
    PRIMARY KEY (run_id, chunk_id)
);
CREATE INDEX run_chunks_chunk ON run_chunks (chunk_id);
COMMENT ON TABLE run_chunks IS 'What each run is made of now; planning a run again replaces its rows';
COMMENT ON COLUMN run_chunks.run_id IS 'The run';
COMMENT ON COLUMN run_chunks.chunk_id IS 'A chunk of it';

CREATE TABLE ledger (
    chunk_id      text NOT NULL REFERENCES chunks ON DELETE CASCADE,
    stage         text NOT NULL CHECK (stage IN ('ingest', 'score')),
    model_id      text NOT NULL DEFAULT '',
    state         text NOT NULL CHECK (state IN ('pending', 'done', 'empty', 'failed')),
    attempts      integer NOT NULL DEFAULT 1,
    n_in          integer NOT NULL DEFAULT 0,
    n_out         integer NOT NULL DEFAULT 0,
    n_quarantined integer NOT NULL DEFAULT 0,
    reason        text,
    seconds       double precision,
    bytes_read    bigint,
    requests      bigint,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chunk_id, stage, model_id),
    CHECK ((stage = 'ingest') = (model_id = ''))
);
COMMENT ON TABLE ledger IS 'State of each (chunk, stage, model); no row means pending';
COMMENT ON COLUMN ledger.chunk_id IS 'The chunk';
COMMENT ON COLUMN ledger.stage IS 'ingest or score';
COMMENT ON COLUMN ledger.model_id IS 'The model that scored; empty for ingest';
COMMENT ON COLUMN ledger.state IS 'pending; done; empty: worked, and no row came out; failed: the whole file was refused';
COMMENT ON COLUMN ledger.attempts IS 'How often the work was finished, whatever its end';
COMMENT ON COLUMN ledger.n_in IS 'Rows that went in';
COMMENT ON COLUMN ledger.n_out IS 'Rows that came out';
COMMENT ON COLUMN ledger.n_quarantined IS 'Rows kept back, each named in quarantine; n_in = n_out + n_quarantined';
COMMENT ON COLUMN ledger.reason IS 'Why the chunk failed, as a short code';
COMMENT ON COLUMN ledger.seconds IS 'Time the work took, s';
COMMENT ON COLUMN ledger.bytes_read IS 'Bytes that passed';
COMMENT ON COLUMN ledger.requests IS 'Requests made to the object store';
COMMENT ON COLUMN ledger.updated_at IS 'When the state was set';

CREATE TABLE quarantine (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id      text NOT NULL,
    stage       text NOT NULL,
    model_id    text NOT NULL DEFAULT '',
    chunk_id    text NOT NULL REFERENCES chunks ON DELETE CASCADE,
    coadd       text NOT NULL,
    targetid    bigint,
    spectrum_id bigint,
    reason      text NOT NULL,
    detail      text,
    at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (chunk_id, stage, model_id, targetid, reason)
);
COMMENT ON TABLE quarantine IS 'Files and spectra kept back, with the reason';
COMMENT ON COLUMN quarantine.id IS 'Serial number';
COMMENT ON COLUMN quarantine.run_id IS 'The run that met it last';
COMMENT ON COLUMN quarantine.stage IS 'ingest or score';
COMMENT ON COLUMN quarantine.model_id IS 'The model that refused the spectrum; empty for ingest';
COMMENT ON COLUMN quarantine.chunk_id IS 'The chunk it was in';
COMMENT ON COLUMN quarantine.coadd IS 'Logical name of the coadd';
COMMENT ON COLUMN quarantine.targetid IS 'DESI TARGETID; null: the whole file was refused';
COMMENT ON COLUMN quarantine.spectrum_id IS 'The spectrum, where it has an id';
COMMENT ON COLUMN quarantine.reason IS 'Short code, such as truncated, missing_file or not_in_file';
COMMENT ON COLUMN quarantine.detail IS 'The whole story in one line';
COMMENT ON COLUMN quarantine.at IS 'When it was met';

CREATE TABLE quality_metrics (
    run_id   text NOT NULL REFERENCES runs ON DELETE CASCADE,
    stage    text NOT NULL,
    model_id text NOT NULL DEFAULT '',
    name     text NOT NULL,
    value    double precision,
    unit     text NOT NULL DEFAULT '',
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, stage, model_id, name)
);
COMMENT ON TABLE quality_metrics IS 'Numbers that say how well each stage of a run went';
COMMENT ON COLUMN quality_metrics.run_id IS 'The run';
COMMENT ON COLUMN quality_metrics.stage IS 'The stage';
COMMENT ON COLUMN quality_metrics.model_id IS 'The model; empty where none is involved';
COMMENT ON COLUMN quality_metrics.name IS 'Name of the metric';
COMMENT ON COLUMN quality_metrics.value IS 'Its value; null: it could not be measured';
COMMENT ON COLUMN quality_metrics.unit IS 'Its unit; empty: a pure number';
COMMENT ON COLUMN quality_metrics.at IS 'When it was measured';
