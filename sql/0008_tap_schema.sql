-- TAP_SCHEMA (IVOA TAP 1.1, section 4): the published tables described in tables, for tools that ask with ADQL.

-- Units and UCDs by column name, the same as in pipeline/access/columns.py (a test compares them).
CREATE TABLE column_units (
    name text PRIMARY KEY,
    unit text NOT NULL,
    ucd  text NOT NULL
);
COMMENT ON TABLE column_units IS 'Units and UCDs of the published columns, by name';
COMMENT ON COLUMN column_units.name IS 'Name of the column';
COMMENT ON COLUMN column_units.unit IS 'Its unit (VOUnits); empty: a pure number or a word';
COMMENT ON COLUMN column_units.ucd IS 'Its UCD (UCD1+ 1.5)';
INSERT INTO column_units (name, unit, ucd) VALUES
    ('spectrum_id', '', 'meta.id;meta.main'),
    ('targetid', '', 'meta.id'),
    ('coadd', '', 'meta.file'),
    ('survey', '', 'meta.dataset'),
    ('program', '', 'meta.dataset'),
    ('healpix', '', 'pos.healpix'),
    ('ra', 'deg', 'pos.eq.ra;meta.main'),
    ('dec', 'deg', 'pos.eq.dec;meta.main'),
    ('separation', 'deg', 'pos.angDistance'),
    ('z', '', 'src.redshift'),
    ('zerr', '', 'stat.error;src.redshift'),
    ('zwarn', '', 'meta.code.qual;src.redshift'),
    ('snr', '', 'stat.snr'),
    ('ebv', 'mag', 'phot.color.excess'),
    ('quality', '', 'meta.code.qual'),
    ('anomaly_score', '', 'stat.value'),
    ('p_value', '', 'stat.probability'),
    ('q_value', '', 'stat.probability'),
    ('rank', '', 'meta.number'),
    ('extrapolated', '', 'meta.code'),
    ('in_training', '', 'meta.code'),
    ('verdict', '', 'src.class'),
    ('artefact_probability', '', 'stat.probability'),
    ('explanation', '', 'meta.note'),
    ('why', '', 'meta.note'),
    ('disagreement', '', 'stat.value'),
    ('chi2_reduced', '', 'stat.fit.chi2'),
    ('global_score', '', 'stat.value'),
    ('local_emission', '', 'stat.snr;spect.line'),
    ('local_absorption', '', 'stat.snr;spect.line'),
    ('emission_wavelength', '0.1nm', 'em.wl'),
    ('absorption_wavelength', '0.1nm', 'em.wl'),
    ('emission_width', 'km/s', 'spect.line.width'),
    ('absorption_width', 'km/s', 'spect.line.width'),
    ('n_pixels', '', 'meta.number'),
    ('density', '', 'stat.likelihood'),
    ('blend_kind', '', 'src.class'),
    ('instrument_kind', '', 'meta.code'),
    ('model_id', '', 'meta.id;meta.software'),
    ('fiber', '', 'meta.id;instr'),
    ('night', '', 'time.epoch'),
    ('sky_distance', 'arcsec', 'pos.angDistance'),
    ('distance', '', 'stat.value'),
    ('distance_percentile', '', 'stat.rank.percentile');

DO $$
DECLARE role text;
BEGIN
    IF NOT has_database_privilege(current_user, current_database(), 'CREATE') THEN
        RAISE NOTICE 'role % may not create schemas: tap_schema was not set up, all else works', current_user;
        RETURN;
    END IF;

    IF to_regnamespace('tap_schema') IS NOT NULL THEN  -- of a catalog that was dropped
        DROP SCHEMA tap_schema CASCADE;
    END IF;
    CREATE SCHEMA tap_schema;
    COMMENT ON SCHEMA tap_schema IS 'What TAP serves, described as TAP 1.1 wants it';

    CREATE VIEW tap_schema.schemas AS
    SELECT * FROM (VALUES ('public', 'The catalog', NULL::text, 0), ('tap_schema', 'This description', NULL, 1))
        AS s (schema_name, description, utype, schema_index);

    CREATE VIEW tap_schema.tables AS
    SELECT n.nspname::text AS schema_name,
           CASE n.nspname WHEN 'public' THEN '' ELSE 'tap_schema.' END || c.relname AS table_name,
           'view'::text AS table_type, obj_description(c.oid, 'pg_class') AS description, NULL::text AS utype,
           coalesce(p.ordinality, 100)::integer AS table_index
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN unnest(ARRAY['anomaly_catalog', 'anomalies', 'selection_function', 'spectrum_files', 'promoted_model',
                           'catalog_runs', 'catalog_quality']) WITH ORDINALITY AS p (name) ON p.name = c.relname
    WHERE c.relkind = 'v' AND (n.nspname = 'tap_schema' OR n.nspname = 'public' AND p.name IS NOT NULL);

    CREATE VIEW tap_schema.columns AS
    SELECT t.table_name, a.attname::text AS column_name,
           CASE replace(format_type(a.atttypid, NULL), '[]', '')
               WHEN 'bigint' THEN 'long' WHEN 'integer' THEN 'int' WHEN 'smallint' THEN 'short' WHEN 'real' THEN 'float'
               WHEN 'double precision' THEN 'double' WHEN 'numeric' THEN 'double' WHEN 'boolean' THEN 'boolean'
               ELSE 'unicodeChar' END AS datatype,
           CASE WHEN format_type(a.atttypid, NULL) IN ('bigint', 'integer', 'smallint', 'real', 'double precision',
               'numeric', 'boolean') THEN NULL ELSE '*' END AS arraysize,
           NULL::text AS xtype, NULL::integer AS "size", col_description(a.attrelid, a.attnum) AS description,
           NULL::text AS utype, nullif(u.unit, '') AS unit, nullif(u.ucd, '') AS ucd,
           (a.attname IN ('ra', 'dec', 'rank'))::integer AS indexed, 1 AS principal, 0 AS std,
           a.attnum::integer AS column_index
    FROM tap_schema.tables t
    JOIN pg_attribute a ON a.attrelid = to_regclass(t.table_name) AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN column_units u ON u.name = a.attname;

    CREATE VIEW tap_schema.keys AS
    SELECT NULL::text AS key_id, NULL::text AS from_table, NULL::text AS target_table, NULL::text AS description,
           NULL::text AS utype WHERE false;

    CREATE VIEW tap_schema.key_columns AS
    SELECT NULL::text AS key_id, NULL::text AS from_column, NULL::text AS target_column WHERE false;

    FOREACH role IN ARRAY ARRAY['skysift_reader', 'skysift_pipeline'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('GRANT USAGE ON SCHEMA tap_schema TO %I', role);
            EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA tap_schema TO %I', role);
        END IF;
    END LOOP;
END $$;
