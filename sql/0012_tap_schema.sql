-- TAP_SCHEMA as taplint wants it: its own columns are standard ones, its foreign keys are told, and names that ADQL
-- reserves stand in the quotes that they need. other_redshifts is published too.

INSERT INTO column_units (name, unit, ucd) VALUES
    ('other_z', '', 'src.redshift'), ('other_z_gain', '', 'stat.value'), ('other_z_lines', '', 'meta.note');

DO $$
DECLARE role text; view_ text; name text; text_ text;
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

    FOR view_, text_ IN VALUES
        ('schemas', 'Schemas'), ('tables', 'Tables'), ('columns', 'Columns of the tables'), ('keys', 'Foreign keys'),
        ('key_columns', 'Pairs of columns of the foreign keys')
    LOOP
        EXECUTE format('COMMENT ON VIEW tap_schema.%I IS %L', view_, text_);
    END LOOP;
    FOR view_, name, text_ IN
        SELECT c.relname, a.attname, told.description
        FROM (VALUES
            ('schema_name', 'Name of the schema'), ('table_name', 'Name of the table'), ('table_type', 'Kind of table'),
            ('description', 'What it is'), ('utype', 'Its utype'), ('schema_index', 'Place in lists of schemas'),
            ('table_index', 'Place in lists of tables'), ('column_name', 'Name of the column'),
            ('datatype', 'Its type, as in VOTable'), ('arraysize', 'Its array size, as in VOTable'),
            ('xtype', 'Its extended type, as in VOTable'), ('size', 'Its length; deprecated'),
            ('unit', 'Its unit (VOUnits)'), ('ucd', 'Its UCD'), ('indexed', '1: an index makes searches by it fast'),
            ('principal', '1: to be shown first'), ('std', '1: defined by a standard'),
            ('column_index', 'Place in the table'), ('key_id', 'Name of the foreign key'),
            ('from_table', 'The table that refers'), ('target_table', 'The table that is referred to'),
            ('from_column', 'The column that refers'), ('target_column', 'The column that is referred to'))
            AS told (name, description)
        JOIN pg_attribute a ON a.attname = told.name AND a.attnum > 0
        JOIN pg_class c ON c.oid = a.attrelid AND c.relnamespace = 'tap_schema'::regnamespace AND c.relkind = 'v'
    LOOP
        EXECUTE format('COMMENT ON COLUMN tap_schema.%I.%I IS %L', view_, name, text_);
    END LOOP;

    FOREACH role IN ARRAY ARRAY['skysift_reader', 'skysift_pipeline'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA tap_schema TO %I', role);
        END IF;
    END LOOP;
END $$;
