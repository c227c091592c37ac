-- TAP_SCHEMA as taplint wants it: its own columns are standard ones, its foreign keys are told, and names that ADQL
-- reserves stand in the quotes that they need. other_redshifts is published too.

INSERT INTO column_units (name, unit, ucd) VALUES
    ('other_z', '', 'src.redshift'), ('other_z_gain', '', 'stat.value'), ('other_z_lines', '', 'meta.note');

DO $$
DECLARE role text;
BEGIN
    IF to_regnamespace('tap_schema') IS NULL OR NOT has_schema_privilege(current_user, 'tap_schema', 'CREATE') THEN
        RAISE NOTICE 'there is no tap_schema that role % may change: TAP is not described, all else works', current_user;
        RETURN;
    END IF;

    CREATE OR REPLACE VIEW tap_schema.tables AS
    SELECT n.nspname::text AS schema_name,
           CASE n.nspname WHEN 'public' THEN '' ELSE 'tap_schema.' END || c.relname AS table_name,
           'view'::text AS table_type, obj_description(c.oid, 'pg_class') AS description, NULL::text AS utype,
           coalesce(p.ordinality, 100)::integer AS table_index
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN unnest(ARRAY['anomaly_catalog', 'anomalies', 'selection_function', 'spectrum_files', 'promoted_model',
                           'catalog_runs', 'catalog_quality', 'other_redshifts']) WITH ORDINALITY AS p (name)
        ON p.name = c.relname
    WHERE c.relkind = 'v' AND (n.nspname = 'tap_schema' OR n.nspname = 'public' AND p.name IS NOT NULL);

    CREATE OR REPLACE VIEW tap_schema.columns AS
    SELECT t.table_name,
           (CASE WHEN a.attname IN ('at', 'size', 'value') THEN '"' || a.attname || '"' ELSE a.attname END)::text
               AS column_name,
           CASE replace(format_type(a.atttypid, NULL), '[]', '')
               WHEN 'bigint' THEN 'long' WHEN 'integer' THEN 'int' WHEN 'smallint' THEN 'short' WHEN 'real' THEN 'float'
               WHEN 'double precision' THEN 'double' WHEN 'numeric' THEN 'double' WHEN 'boolean' THEN 'boolean'
               ELSE 'unicodeChar' END AS datatype,
           CASE WHEN format_type(a.atttypid, NULL) IN ('bigint', 'integer', 'smallint', 'real', 'double precision',
               'numeric', 'boolean') THEN NULL ELSE '*' END AS arraysize,
           NULL::text AS xtype, NULL::integer AS "size", col_description(a.attrelid, a.attnum) AS description,
           NULL::text AS utype, nullif(u.unit, '') AS unit, nullif(u.ucd, '') AS ucd,
           (a.attname IN ('ra', 'dec', 'rank') AND t.schema_name = 'public')::integer AS indexed, 1 AS principal,
           (t.schema_name = 'tap_schema')::integer AS std,
           a.attnum::integer AS column_index
    FROM tap_schema.tables t
    JOIN pg_attribute a ON a.attrelid = to_regclass(t.table_name) AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN column_units u ON u.name = a.attname;

    CREATE OR REPLACE VIEW tap_schema.keys AS
    SELECT * FROM (VALUES
        ('tables_schema', 'tap_schema.tables', 'tap_schema.schemas', 'The schema of a table', NULL::text),
        ('columns_table', 'tap_schema.columns', 'tap_schema.tables', 'The table of a column', NULL),
        ('keys_from', 'tap_schema.keys', 'tap_schema.tables', 'The table that refers', NULL),
        ('keys_target', 'tap_schema.keys', 'tap_schema.tables', 'The table that is referred to', NULL),
        ('key_columns_key', 'tap_schema.key_columns', 'tap_schema.keys', 'The key of a pair of columns', NULL))
        AS k (key_id, from_table, target_table, description, utype);

    CREATE OR REPLACE VIEW tap_schema.key_columns AS
    SELECT * FROM (VALUES
        ('tables_schema', 'schema_name', 'schema_name'), ('columns_table', 'table_name', 'table_name'),
        ('keys_from', 'from_table', 'table_name'), ('keys_target', 'target_table', 'table_name'),
        ('key_columns_key', 'key_id', 'key_id'))
        AS k (key_id, from_column, target_column);

    FOREACH role IN ARRAY ARRAY['skysift_reader', 'skysift_pipeline'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA tap_schema TO %I', role);
        END IF;
    END LOOP;
END $$;
