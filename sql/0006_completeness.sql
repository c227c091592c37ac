-- What share of known objects a threshold recovers: what `skysift evaluate` measures, a survey's selection function.

CREATE TABLE completeness (
    run_id       text NOT NULL REFERENCES runs ON DELETE CASCADE,
    model_id     text NOT NULL REFERENCES models,
    class        text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('physical', 'artefact', 'control', 'catalog')),
    threshold    text NOT NULL,
    sigma_low    double precision,
    sigma_high   double precision,
    snr_low      double precision,
    snr_high     double precision,
    z_low        double precision,
    z_high       double precision,
    n            integer NOT NULL CHECK (n > 0),
    recovered    integer NOT NULL CHECK (recovered BETWEEN 0 AND n),
    completeness double precision NOT NULL,
    low          double precision NOT NULL,
    high         double precision NOT NULL,
    seed         bigint,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (run_id, model_id, kind, class, threshold, sigma_low, snr_low, z_low)
);
COMMENT ON TABLE completeness IS 'Share of injected departures, or of a catalog''s objects, that each threshold recovers';
COMMENT ON COLUMN completeness.run_id IS 'The run that measured it';
COMMENT ON COLUMN completeness.model_id IS 'The model that scored';
COMMENT ON COLUMN completeness.class IS 'Class injected; all_physical and all_artefact: all of a kind; none: untouched; else a catalog''s label';
COMMENT ON COLUMN completeness.kind IS 'physical or artefact: injected; control: held-out spectra left as they are; catalog: known objects';
COMMENT ON COLUMN completeness.threshold IS 'What counts as recovered: p<0.01, p<0.001, q<0.1 (false discovery rate), top 1% of ranks (catalog only), …';
COMMENT ON COLUMN completeness.sigma_low IS 'Lower edge of the noiseless significance beside 20 components of ordinary quasars, sigma; null: any';
COMMENT ON COLUMN completeness.sigma_high IS 'Its upper edge, sigma; null: any';
COMMENT ON COLUMN completeness.snr_low IS 'Lower edge of the median S/N per 0.8 Å pixel, injection included; the lowest band takes all below; null: any';
COMMENT ON COLUMN completeness.snr_high IS 'Its upper edge; null: any';
COMMENT ON COLUMN completeness.z_low IS 'Lower edge of the catalogued redshift, which a departure may have led astray; null: any';
COMMENT ON COLUMN completeness.z_high IS 'Its upper edge; null: any';
COMMENT ON COLUMN completeness.n IS 'Objects in the cell';
COMMENT ON COLUMN completeness.recovered IS 'Those beyond the threshold';
COMMENT ON COLUMN completeness.completeness IS 'recovered / n, 0 to 1';
COMMENT ON COLUMN completeness.low IS 'Lower end of its 68.3% Wilson interval, 0 to 1';
COMMENT ON COLUMN completeness.high IS 'Its upper end, 0 to 1';
COMMENT ON COLUMN completeness.seed IS 'Seed of the injections; null for catalogs';
COMMENT ON COLUMN completeness.created_at IS 'When it was measured';

CREATE VIEW selection_function AS
SELECT kind, class, threshold, sigma_low, sigma_high, snr_low, snr_high, z_low, z_high, n,
       round((100 * completeness)::numeric, 1) AS percent,
       round((100 * (completeness - low))::numeric, 1) AS error_minus,
       round((100 * (high - completeness))::numeric, 1) AS error_plus,
       run_id, model_id, created_at
FROM completeness
WHERE model_id = (SELECT model_id FROM promotion);
COMMENT ON VIEW selection_function IS 'Completeness of the promoted model in percent, to quote: a row a class, threshold and cell';
COMMENT ON COLUMN selection_function.kind IS 'physical or artefact: injected; control: left as they are; catalog: known objects';
COMMENT ON COLUMN selection_function.class IS 'Class injected, or a catalog''s label';
COMMENT ON COLUMN selection_function.threshold IS 'What counts as recovered';
COMMENT ON COLUMN selection_function.sigma_low IS 'Lower edge of the noiseless significance, sigma; null: any';
COMMENT ON COLUMN selection_function.sigma_high IS 'Its upper edge, sigma; null: any';
COMMENT ON COLUMN selection_function.snr_low IS 'Lower edge of the median S/N per 0.8 Å pixel; null: any';
COMMENT ON COLUMN selection_function.snr_high IS 'Its upper edge; null: any';
COMMENT ON COLUMN selection_function.z_low IS 'Lower edge of the catalogued redshift; null: any';
COMMENT ON COLUMN selection_function.z_high IS 'Its upper edge; null: any';
COMMENT ON COLUMN selection_function.n IS 'Objects in the cell';
COMMENT ON COLUMN selection_function.percent IS 'Share recovered, percent';
COMMENT ON COLUMN selection_function.error_minus IS 'Down to the lower end of the 68.3% Wilson interval, percentage points';
COMMENT ON COLUMN selection_function.error_plus IS 'Up to its upper end, percentage points';
COMMENT ON COLUMN selection_function.run_id IS 'The run that measured it';
COMMENT ON COLUMN selection_function.model_id IS 'The model that scored';
COMMENT ON COLUMN selection_function.created_at IS 'When it was measured';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'skysift_reader') THEN
        GRANT SELECT ON completeness, selection_function TO skysift_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'skysift_pipeline') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON completeness TO skysift_pipeline;
        GRANT SELECT ON selection_function TO skysift_pipeline;
    END IF;
END $$;
