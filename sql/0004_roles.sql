-- Roles: skysift_pipeline does the work, skysift_reader reads the promoted catalog and nothing else.
-- Roles belong to the whole server, so another database's migration may have made them already.
-- skysift_reader may log in but has no password until an administrator gives it one.

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

DO $$
DECLARE
    me record;
    routine regprocedure;
BEGIN
    SELECT rolsuper, rolcreaterole INTO me FROM pg_roles WHERE rolname = current_user;
    IF NOT (me.rolsuper OR me.rolcreaterole) THEN
        RAISE NOTICE 'role % may not create roles: skysift_pipeline and skysift_reader were not set up', current_user;
        RETURN;
    END IF;
    BEGIN
        CREATE ROLE skysift_pipeline LOGIN;
        COMMENT ON ROLE skysift_pipeline IS 'Runs the skysift pipeline';
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    BEGIN
        CREATE ROLE skysift_reader LOGIN CONNECTION LIMIT 100;
        COMMENT ON ROLE skysift_reader IS 'Reads the skysift catalog; has no password until one is set';
        ALTER ROLE skysift_reader SET default_transaction_read_only = on;
        ALTER ROLE skysift_reader SET statement_timeout = '60s';
        ALTER ROLE skysift_reader SET idle_in_transaction_session_timeout = '5min';
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;

    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO skysift_pipeline', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO skysift_reader', current_database());
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    GRANT USAGE, CREATE ON SCHEMA public TO skysift_pipeline;
    GRANT USAGE ON SCHEMA public TO skysift_reader;

    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO skysift_pipeline;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO skysift_pipeline;
    REVOKE UPDATE, DELETE ON audit FROM skysift_pipeline;
    REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM skysift_pipeline;
    GRANT SELECT ON anomaly_catalog TO skysift_reader;
    BEGIN
        -- Only its owner can add a partition to a table.
        IF NOT pg_has_role(current_user, 'skysift_pipeline', 'USAGE') THEN
            EXECUTE format('GRANT skysift_pipeline TO %I', current_user);
        END IF;
        ALTER TABLE scores OWNER TO skysift_pipeline;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'role % may not give scores to skysift_pipeline: run the pipeline as %', current_user, current_user;
    END;

    IF me.rolsuper THEN
        -- Large objects are a table everybody may write to, and advisory locks are what holds a run's driver.
        FOR routine IN
            SELECT oid::regprocedure FROM pg_proc
            WHERE pronamespace = 'pg_catalog'::regnamespace
              AND proname ~ '^(lo_|lo(read|write)$|pg_(try_)?advisory|pg_logical_emit_message$)'
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
            IF routine::text ~ 'advisory' THEN
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO skysift_pipeline', routine);
            END IF;
        END LOOP;
    ELSE
        RAISE NOTICE 'role % is no superuser: large objects and advisory locks stay open to every role', current_user;
    END IF;
END $$;
