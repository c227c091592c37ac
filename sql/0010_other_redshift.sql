-- Whether another redshift fits a candidate far better than the catalogued one. Null until a model is calibrated again.

ALTER TABLE scores
    ADD COLUMN other_z       double precision,
    ADD COLUMN other_z_gain  real,
    ADD COLUMN other_z_lines text;
COMMENT ON COLUMN scores.other_z IS 'The redshift that fits best more than 4,400 km/s from the catalogued one, whether it fits better or not; null for spectra that are no candidates';
COMMENT ON COLUMN scores.other_z_gain IS 'Its log evidence less that of the best redshift near the catalogued one, nat; above 10 it fits far better';
COMMENT ON COLUMN scores.other_z_lines IS 'The lines whose confusion makes the catalogued redshift of the other one, such as C IV taken for Mg II; null where no two lines do';

-- A view of its own: others' views and functions repeat anomaly_catalog's columns.
CREATE VIEW other_redshifts AS
SELECT spectrum_id, targetid, coadd, ra, dec, z, other_z, other_z_gain, other_z_lines, snr, rank, p_value, verdict,
       explanation
FROM scores JOIN spectra USING (spectrum_id)
WHERE model_id = (SELECT model_id FROM promotion) AND other_z_gain > 10;
COMMENT ON VIEW other_redshifts IS 'Candidates of the promoted model that another redshift fits far better; stars and reddened quasars are among them, see verdict';
DO $$
DECLARE name text; text_ text;
BEGIN
    FOR name, text_ IN
        SELECT v.attname, col_description(t.attrelid, t.attnum)
        FROM pg_attribute v JOIN pg_attribute t ON t.attname = v.attname AND t.attnum > 0
        WHERE v.attrelid = 'other_redshifts'::regclass AND v.attnum > 0
          AND t.attrelid IN ('spectra'::regclass, 'scores'::regclass)
        ORDER BY t.attrelid = 'scores'::regclass
    LOOP
        EXECUTE format('COMMENT ON COLUMN other_redshifts.%I IS %L', name, text_);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'skysift_reader') THEN
        GRANT SELECT ON other_redshifts TO skysift_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'skysift_pipeline') THEN
        GRANT SELECT ON other_redshifts TO skysift_pipeline;
    END IF;
END $$;
