-- Spectra, models, their scores, and the catalog that astronomers read.

CREATE TABLE spectra (
    spectrum_id    bigint PRIMARY KEY CHECK (spectrum_id >= 0),
    targetid       bigint NOT NULL,
    coadd          text NOT NULL,
    survey         text,
    program        text,
    healpix        integer,
    ra             double precision,
    dec            double precision,
    z              double precision NOT NULL,
    zerr           double precision,
    zwarn          bigint,
    snr            real,
    ebv            real,
    quality        integer NOT NULL DEFAULT 0,
    chunk_id       text NOT NULL,
    shard          text NOT NULL,
    row_group      integer NOT NULL,
    row            integer NOT NULL,
    first_ingested timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (targetid, coadd)
);
CREATE INDEX spectra_dec_ra ON spectra (dec, ra);
COMMENT ON TABLE spectra IS 'Every ingested spectrum, and where its pixels lie';
COMMENT ON COLUMN spectra.spectrum_id IS '63-bit hash of (targetid, coadd): the key here and in Milvus';
COMMENT ON COLUMN spectra.targetid IS 'DESI TARGETID; alone it may name several spectra';
COMMENT ON COLUMN spectra.coadd IS 'Logical name of the coadd, such as healpix/main/dark/9144';
COMMENT ON COLUMN spectra.survey IS 'DESI survey, such as main; null where it does not apply';
COMMENT ON COLUMN spectra.program IS 'DESI program, such as dark; null where it does not apply';
COMMENT ON COLUMN spectra.healpix IS 'HEALPix pixel, nside 64, nested; null where it does not apply';
COMMENT ON COLUMN spectra.ra IS 'Right ascension, deg, ICRS';
COMMENT ON COLUMN spectra.dec IS 'Declination, deg, ICRS';
COMMENT ON COLUMN spectra.z IS 'Catalogued redshift';
COMMENT ON COLUMN spectra.zerr IS 'Its error';
COMMENT ON COLUMN spectra.zwarn IS 'redrock ZWARN bits; null: the catalog has none';
COMMENT ON COLUMN spectra.snr IS 'Median signal to noise per 0.8 Å pixel with information';
COMMENT ON COLUMN spectra.ebv IS 'Galactic reddening E(B-V), mag; the flux is not corrected for it';
COMMENT ON COLUMN spectra.quality IS 'Quality bits (pipeline.quality); 0: nothing is known to be wrong';
COMMENT ON COLUMN spectra.chunk_id IS 'The chunk it was ingested with last';
COMMENT ON COLUMN spectra.shard IS 'Path of the Parquet shard that holds its pixels';
COMMENT ON COLUMN spectra.row_group IS 'Row group in the shard, from 0';
COMMENT ON COLUMN spectra.row IS 'Row in the row group, from 0';
COMMENT ON COLUMN spectra.first_ingested IS 'When it was ingested first';
COMMENT ON COLUMN spectra.updated_at IS 'When it was ingested last';

CREATE TABLE models (
    model_id   text PRIMARY KEY CHECK (model_id ~ '^[a-z0-9_]{1,40}$'),
    run_id     text NOT NULL,
    state      text NOT NULL CHECK (state IN ('training', 'ready', 'deleted')),
    uri        text NOT NULL,
    collection text NOT NULL UNIQUE,
    data_hash  text NOT NULL,
    config     jsonb NOT NULL,
    metrics    jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE models IS 'Trained models';
COMMENT ON COLUMN models.model_id IS 'Hash of weights, config and training data';
COMMENT ON COLUMN models.run_id IS 'The run that trained it';
COMMENT ON COLUMN models.state IS 'training, ready or deleted';
COMMENT ON COLUMN models.uri IS 'Where its files are';
COMMENT ON COLUMN models.collection IS 'Its Milvus collection';
COMMENT ON COLUMN models.data_hash IS 'Hash of the training data';
COMMENT ON COLUMN models.config IS 'Its architecture and training configuration';
COMMENT ON COLUMN models.metrics IS 'What training ended with';
COMMENT ON COLUMN models.created_at IS 'When it was registered';

CREATE TABLE promotion (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    model_id    text NOT NULL REFERENCES models,
    promoted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE promotion IS 'The promoted model, in a single row: the truth about which results are shown';
COMMENT ON COLUMN promotion.only_row IS 'Always true: keeps the table to one row';
COMMENT ON COLUMN promotion.model_id IS 'The promoted model';
COMMENT ON COLUMN promotion.promoted_at IS 'Since when';

CREATE TABLE scores (
    model_id              text NOT NULL,
    spectrum_id           bigint NOT NULL,
    chi2_reduced          real,
    global_score          real,
    local_emission        real,
    emission_wavelength   real,
    emission_width        real,
    local_absorption      real,
    absorption_wavelength real,
    absorption_width      real,
    density               real,
    n_pixels              integer,
    in_training           boolean NOT NULL DEFAULT false,
    anomaly_score         double precision,
    p_value               double precision,
    rank                  integer,
    extrapolated          boolean,
    global_surprise       real,
    emission_surprise     real,
    absorption_surprise   real,
    density_surprise      real,
    PRIMARY KEY (spectrum_id, model_id)
) PARTITION BY LIST (model_id);
CREATE INDEX scores_rank ON scores (rank);
CREATE INDEX scores_anomaly ON scores (anomaly_score);
-- No foreign key to spectra: its check for each row would halve the rate of loading; reconcile counts instead.
COMMENT ON TABLE scores IS 'Scores of every spectrum by every model, one partition a model';
COMMENT ON COLUMN scores.model_id IS 'The model';
COMMENT ON COLUMN scores.spectrum_id IS 'The spectrum';
COMMENT ON COLUMN scores.chi2_reduced IS 'Reduced chi-square of the reconstruction';
COMMENT ON COLUMN scores.global_score IS 'Misfit of the whole spectrum in units of its own expectation';
COMMENT ON COLUMN scores.local_emission IS 'Strongest excess of a matched filter over the residual, sigma';
COMMENT ON COLUMN scores.emission_wavelength IS 'Where it is: observed vacuum wavelength, Å';
COMMENT ON COLUMN scores.emission_width IS 'Width of that filter, km/s';
COMMENT ON COLUMN scores.local_absorption IS 'Strongest deficit of a matched filter over the residual, sigma, positive';
COMMENT ON COLUMN scores.absorption_wavelength IS 'Where it is: observed vacuum wavelength, Å';
COMMENT ON COLUMN scores.absorption_width IS 'Width of that filter, km/s';
COMMENT ON COLUMN scores.density IS 'Negative log density of the latent vector, nat';
COMMENT ON COLUMN scores.n_pixels IS 'Native pixels with information that were scored';
COMMENT ON COLUMN scores.in_training IS 'The model was trained on this spectrum';
COMMENT ON COLUMN scores.anomaly_score IS 'Combined score, larger is stranger; null until calibrated';
COMMENT ON COLUMN scores.p_value IS 'Chance of so large a score for a normal spectrum; null until calibrated';
COMMENT ON COLUMN scores.rank IS 'Place in the survey, 1 is the strangest, without ties; null until calibrated';
COMMENT ON COLUMN scores.global_surprise IS 'Negative natural log of the p-value of global_score alone; null until calibrated';
COMMENT ON COLUMN scores.emission_surprise IS 'The same of local_emission';
COMMENT ON COLUMN scores.absorption_surprise IS 'The same of local_absorption';
COMMENT ON COLUMN scores.density_surprise IS 'The same of density';
COMMENT ON COLUMN scores.extrapolated IS 'p_value is below what the calibration spectra reach; null until calibrated';

-- The subselect is evaluated once a query, so that all partitions but the promoted one are pruned at run time,
-- and ORDER BY rank LIMIT n walks that partition's index.
CREATE VIEW anomaly_catalog AS
SELECT spectrum_id, targetid, coadd, survey, program, healpix, ra, dec, z, snr,
       anomaly_score, p_value, rank, extrapolated,
       global_surprise, emission_surprise, absorption_surprise, density_surprise,
       chi2_reduced, global_score,
       local_emission, emission_wavelength, emission_width,
       local_absorption, absorption_wavelength, absorption_width,
       density, n_pixels, in_training, ebv, zerr, zwarn, quality, model_id
FROM scores JOIN spectra USING (spectrum_id)
WHERE model_id = (SELECT model_id FROM promotion);
COMMENT ON VIEW anomaly_catalog IS 'The promoted model''s scores of every spectrum';
DO $$
DECLARE name text; text_ text;
BEGIN
    FOR name, text_ IN
        SELECT DISTINCT ON (v.attname) v.attname, col_description(t.attrelid, t.attnum)
        FROM pg_attribute v JOIN pg_attribute t ON t.attname = v.attname AND t.attnum > 0
        WHERE v.attrelid = 'anomaly_catalog'::regclass AND v.attnum > 0
          AND t.attrelid IN ('spectra'::regclass, 'scores'::regclass)
        ORDER BY v.attname, t.attrelid = 'scores'::regclass
    LOOP
        EXECUTE format('COMMENT ON COLUMN anomaly_catalog.%I IS %L', name, text_);
    END LOOP;
END $$;
