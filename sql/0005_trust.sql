-- What makes scores worth believing: false discovery rates, verdicts and their reasons, a second light source,
-- the instrument, another redshift, and how far several models disagree. Older rows keep what they have: the new
-- columns are null until their spectra are ingested, scored and calibrated again.

ALTER TABLE spectra
    ADD COLUMN fiber integer[],
    ADD COLUMN night integer[];
COMMENT ON COLUMN spectra.fiber IS 'Fiber of each exposure, 0 to 4999; fiber / 500 is the petal';
COMMENT ON COLUMN spectra.night IS 'Night of each exposure, YYYYMMDD, in the order of fiber';

ALTER TABLE scores
    ADD COLUMN detection            real,
    ADD COLUMN slip                 real,
    ADD COLUMN blend                real,
    ADD COLUMN blend_kind           text,
    ADD COLUMN instrument           real,
    ADD COLUMN instrument_kind      text,
    ADD COLUMN redshift_gain        real,
    ADD COLUMN windows              real[],
    ADD COLUMN features             real[],
    ADD COLUMN q_value              double precision,
    ADD COLUMN detection_surprise   real,
    ADD COLUMN blend_surprise       real,
    ADD COLUMN instrument_surprise  real,
    ADD COLUMN redshift_surprise    real,
    ADD COLUMN verdict              text,
    ADD COLUMN artefact_probability real,
    ADD COLUMN why                  jsonb,
    ADD COLUMN explanation          text,
    ADD COLUMN disagreement         real;
-- Partial: rows are null there while they are scored, and most have no verdict ever, so neither index costs that much.
CREATE INDEX scores_verdict ON scores (verdict, rank) WHERE verdict IS NOT NULL;
CREATE INDEX scores_q ON scores (q_value) WHERE q_value IS NOT NULL;
COMMENT ON COLUMN scores.detection IS 'Log odds of any known kind of departure against none, by the detector that learned them from injections, nat';
COMMENT ON COLUMN scores.slip IS 'By how much the catalogued redshift is too high for the model to fit best, km/s';
COMMENT ON COLUMN scores.blend IS 'Log odds of a second light source on the fiber, or another one altogether (star, galaxy, second quasar, supernova), nat';
COMMENT ON COLUMN scores.blend_kind IS 'The likeliest such source';
COMMENT ON COLUMN scores.instrument IS 'Log odds of an instrumental fault, nat';
COMMENT ON COLUMN scores.instrument_kind IS 'The likeliest such fault';
COMMENT ON COLUMN scores.redshift_gain IS 'Log odds of a wrong redshift, nat';
COMMENT ON COLUMN scores.windows IS 'The five strongest windows of the residual that do not overlap, three numbers each: sigma (negative: absorption; 0: no more windows), centre (observed vacuum wavelength, Å), width (km/s)';
COMMENT ON COLUMN scores.features IS 'What the verdict is made from (pipeline.verdicts.features.FEATURES, in that order); null for spectra that are not suspicious';
COMMENT ON COLUMN scores.q_value IS 'False discovery rate of a list that ends with this spectrum, over the whole survey; null until calibrated';
COMMENT ON COLUMN scores.detection_surprise IS 'Negative natural log of the p-value of detection alone; null until calibrated';
COMMENT ON COLUMN scores.blend_surprise IS 'Negative natural log of the p-value of blend alone; null until calibrated';
COMMENT ON COLUMN scores.instrument_surprise IS 'The same of instrument';
COMMENT ON COLUMN scores.redshift_surprise IS 'The same of redshift_gain';
COMMENT ON COLUMN scores.verdict IS 'What the anomaly is most likely: sky_residual, arm_step, spike, bad_column, fiber_group, wrong_redshift, star_or_blend or physical; null for spectra that are no candidates';
COMMENT ON COLUMN scores.artefact_probability IS 'Probability, 0 to 1, that the anomaly is made by the instrument or the reduction; null for spectra that are no candidates';
COMMENT ON COLUMN scores.why IS 'Why it is anomalous: its windows, the lines they may be, the score that drove it and its nearest normal look-alikes (schema in docs/why.md); null for spectra that are no candidates';
COMMENT ON COLUMN scores.explanation IS 'The same in one plain sentence';
COMMENT ON COLUMN scores.disagreement IS 'Where this model and others it was compared with disagree strongly: the largest difference of -ln p, nat, positive where this one finds the spectrum stranger; 0: they agree; null: not compared since calibrated';

-- Replaced, not dropped: grants and other people's views of it stay, so the new columns come after the old ones.
CREATE OR REPLACE VIEW anomaly_catalog AS
SELECT spectrum_id, targetid, coadd, survey, program, healpix, ra, dec, z, snr,
       anomaly_score, p_value, rank, extrapolated,
       global_surprise, emission_surprise, absorption_surprise, density_surprise,
       chi2_reduced, global_score,
       local_emission, emission_wavelength, emission_width,
       local_absorption, absorption_wavelength, absorption_width,
       density, n_pixels, in_training, ebv, zerr, zwarn, quality, model_id,
       q_value, verdict, artefact_probability, explanation, why,
       detection_surprise, blend_surprise, instrument_surprise, redshift_surprise,
       detection, slip, blend, blend_kind, instrument, instrument_kind, redshift_gain,
       windows, disagreement, fiber, night
FROM scores JOIN spectra USING (spectrum_id)
WHERE model_id = (SELECT model_id FROM promotion);
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
    -- A role that may not make roles has made none (0004): then there is nobody to grant to.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'skysift_reader') THEN
        GRANT SELECT ON anomaly_catalog TO skysift_reader;
    END IF;
END $$;
