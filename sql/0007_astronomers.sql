-- SQL for astronomers: cones on the sky, short views, and a limit on queries that the reader cannot lift.

CREATE FUNCTION sphere_distance(ra1 double precision, dec1 double precision, ra2 double precision, dec2 double precision)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT degrees(2 * asin(sqrt(least(1.0::double precision, sin(radians((dec2 - dec1) / 2)) ^ 2
        + cos(radians(dec1)) * cos(radians(dec2)) * sin(radians((ra2 - ra1) / 2)) ^ 2))))
$$;
COMMENT ON FUNCTION sphere_distance IS 'Angle between two positions on the sky, deg (haversine formula); arguments in deg';

-- The sky in zones of 0.1 deg of declination (Gray et al. 2006, MSR-TR-2006-52): within each, a cone is a range of
-- right ascension or two. An index on (dec, ra) must pass over the whole strip instead.
CREATE INDEX spectra_zone_ra ON spectra (((floor((dec + 90) * 10))::integer), ra);

CREATE FUNCTION checked_radius(at_ra double precision, at_dec double precision, radius double precision)
RETURNS double precision LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF at_ra IS NULL OR NOT (at_ra >= 0 AND at_ra <= 360) THEN
        RAISE EXCEPTION 'ra is %, expected 0 to 360 deg', at_ra USING ERRCODE = 'invalid_parameter_value';
    ELSIF at_dec IS NULL OR NOT (at_dec >= -90 AND at_dec <= 90) THEN
        RAISE EXCEPTION 'dec is %, expected -90 to 90 deg', at_dec USING ERRCODE = 'invalid_parameter_value';
    ELSIF radius IS NULL OR NOT (radius >= 0 AND radius <= 180) THEN
        RAISE EXCEPTION 'radius is %, expected 0 to 180 deg', radius USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN radius;
END $$;
COMMENT ON FUNCTION checked_radius IS 'The radius of a cone, deg; an error where it or the position is impossible';

CREATE FUNCTION cone_half_width(at_dec double precision, radius double precision)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN abs(at_dec) + radius >= 89.999999 THEN 360
                ELSE degrees(asin(least(1.0::double precision, sin(radians(radius)) / cos(radians(at_dec))))) + 1e-8 END
$$;
COMMENT ON FUNCTION cone_half_width IS 'How far a cone reaches in right ascension to either side, deg; 360 where it holds a pole';

-- One plain SELECT, which the planner puts into the query that calls it. Of the three turns at most two meet 0 to 360:
-- those are cones across right ascension 0. It reads the view, as its caller may read nothing else.
DO $$
DECLARE columns text; shown text;
BEGIN
    SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum),
           string_agg(format('a.%I', attname), ', ' ORDER BY attnum) INTO columns, shown
    FROM pg_attribute WHERE attrelid = 'anomaly_catalog'::regclass AND attnum > 0;
    EXECUTE format($function$
        CREATE FUNCTION cone_search(at_ra double precision, at_dec double precision, radius double precision)
        RETURNS TABLE (separation double precision, %s) LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $body$
            SELECT sphere_distance(at_ra, at_dec, a.ra, a.dec), %s
            FROM generate_series(
                     (floor((greatest(at_dec - radius - 1e-8, -90) + 90) * 10))::integer,
                     (floor((least(at_dec + radius + 1e-8, 90) + 90) * 10))::integer) AS zone (number)
            CROSS JOIN (VALUES (-360.0::double precision), (0), (360)) AS turn (shift)
            JOIN anomaly_catalog a ON (floor((a.dec + 90) * 10))::integer = zone.number
             AND a.ra >= at_ra - cone_half_width(at_dec, radius) + turn.shift
             AND a.ra <= at_ra + cone_half_width(at_dec, radius) + turn.shift
            WHERE (turn.shift = 0 OR cone_half_width(at_dec, radius) < 180)
              AND sphere_distance(at_ra, at_dec, a.ra, a.dec) <= checked_radius(at_ra, at_dec, radius)
        $body$ $function$, columns, shown);
END $$;
COMMENT ON FUNCTION cone_search IS 'Spectra of anomaly_catalog within a radius of a position, with their separation; all in deg, radius 0 to 180';

CREATE VIEW anomalies AS
SELECT rank, targetid, ra, dec, z, snr, anomaly_score, p_value, q_value, verdict, artefact_probability, explanation,
       in_training, disagreement, why, survey, program, healpix, coadd, spectrum_id, model_id
FROM anomaly_catalog WHERE verdict IS NOT NULL;
COMMENT ON VIEW anomalies IS 'The strangest spectra, those with a verdict, in few columns; order by rank';

CREATE VIEW spectrum_files AS
SELECT spectrum_id, targetid, coadd, shard, row_group, row
FROM spectra JOIN scores USING (spectrum_id) WHERE model_id = (SELECT model_id FROM promotion);
COMMENT ON VIEW spectrum_files IS 'Where the pixels of the spectra of anomaly_catalog lie';

CREATE VIEW promoted_model AS
SELECT m.model_id, m.run_id, m.data_hash, m.created_at, p.promoted_at,
       m.config -> 'vae' AS network, (m.config ->> 'n_train')::bigint AS n_train
FROM promotion p JOIN models m USING (model_id);
COMMENT ON VIEW promoted_model IS 'The model whose results are shown, in one row';
COMMENT ON COLUMN promoted_model.run_id IS 'The run that trained it';
COMMENT ON COLUMN promoted_model.created_at IS 'When it was registered';
COMMENT ON COLUMN promoted_model.network IS 'Settings of its network';
COMMENT ON COLUMN promoted_model.n_train IS 'Spectra that it was trained on';

CREATE VIEW catalog_runs AS
SELECT r.run_id, r.state, r.model_id, r.config #>> '{survey,root}' AS survey_root,
       r.config #>> '{survey,catalog}' AS survey_catalog, r.inputs_hash, r.skysift_version, r.created_at, r.finished_at
FROM runs r JOIN promotion p USING (model_id);
COMMENT ON VIEW catalog_runs IS 'Runs that the promoted model scored';
COMMENT ON COLUMN catalog_runs.survey_root IS 'Folder or URL of the survey''s files';
COMMENT ON COLUMN catalog_runs.survey_catalog IS 'The redshift catalog; empty: the survey''s own';

CREATE VIEW catalog_quality AS
SELECT q.run_id, q.stage, q.name, q.value, q.unit, q.at
FROM quality_metrics q JOIN catalog_runs r USING (run_id)
WHERE q.model_id IN ('', r.model_id);
COMMENT ON VIEW catalog_quality IS 'How well each stage of these runs went';

DO $$
DECLARE shown text; name text; text_ text; base regclass[] := ARRAY['anomaly_catalog', 'spectra', 'models', 'promotion',
                                                                    'runs', 'quality_metrics']::regclass[];
BEGIN  -- columns that are shown as they are keep their comments
    FOREACH shown IN ARRAY ARRAY['anomalies', 'spectrum_files', 'promoted_model', 'catalog_runs', 'catalog_quality'] LOOP
        FOR name, text_ IN
            SELECT DISTINCT ON (v.attname) v.attname, col_description(t.attrelid, t.attnum)
            FROM pg_attribute v JOIN pg_attribute t ON t.attname = v.attname AND t.attnum > 0
            WHERE v.attrelid = shown::regclass AND v.attnum > 0 AND t.attrelid = ANY (base)
              AND col_description(v.attrelid, v.attnum) IS NULL
            ORDER BY v.attname, CASE WHEN shown = 'catalog_quality' THEN -1 ELSE 1 END * array_position(base, t.attrelid::regclass)
        LOOP
            EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', shown, name, text_);
        END LOOP;
    END LOOP;
END $$;

-- Whoever runs others' SQL asks this first: with more than one statement, or one that is no SELECT, it is an error.
CREATE FUNCTION check_query(query text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE opened refcursor;
BEGIN
    OPEN opened FOR EXECUTE query;
    CLOSE opened;
END $$;
COMMENT ON FUNCTION check_query IS 'An error unless the text is one SELECT that its caller may make; nothing of it is run';

-- A role's timeout is a default that any session can lift; this is not. `skysift serve` calls it every few seconds.
CREATE FUNCTION cancel_overlong(longest interval) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FILTER (WHERE pg_cancel_backend(pid))::integer FROM pg_stat_activity
    WHERE usename = 'skysift_reader' AND state = 'active' AND query_start < clock_timestamp() - longest
      AND datname = current_database()
$$;
COMMENT ON FUNCTION cancel_overlong IS 'Cancel queries of skysift_reader that have run longer than this; how many there were';

DO $$
DECLARE role text;
BEGIN
    REVOKE ALL ON FUNCTION sphere_distance, checked_radius, cone_half_width, cone_search, check_query,
        cancel_overlong FROM PUBLIC;
    FOREACH role IN ARRAY ARRAY['skysift_reader', 'skysift_pipeline'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('GRANT SELECT ON anomaly_catalog, anomalies, spectrum_files, promoted_model, catalog_runs, '
                           'catalog_quality, selection_function TO %I', role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION sphere_distance, checked_radius, cone_half_width, cone_search, '
                           'check_query TO %I', role);
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'skysift_pipeline') THEN
        GRANT EXECUTE ON FUNCTION cancel_overlong TO skysift_pipeline;
    END IF;
    IF NOT (SELECT rolsuper OR pg_has_role(rolname, 'pg_signal_backend', 'MEMBER') FROM pg_roles WHERE rolname = current_user)
    THEN
        RAISE NOTICE 'role % may not cancel others'' queries (grant it pg_signal_backend): skysift_reader is held only by '
                     'its default statement_timeout', current_user;
    END IF;
END $$;
