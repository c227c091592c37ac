-- Who did what, in rows that nobody changes.

CREATE TABLE audit (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    who    text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE audit IS 'Runs, promotions, rollbacks and deletions; insert only';
COMMENT ON COLUMN audit.id IS 'Serial number';
COMMENT ON COLUMN audit.at IS 'When it was done';
COMMENT ON COLUMN audit.who IS 'The database role and the operating-system user and host';
COMMENT ON COLUMN audit.action IS 'run, promote, rollback or delete';
COMMENT ON COLUMN audit.object IS 'The run or model it was done to';
COMMENT ON COLUMN audit.detail IS 'Particulars';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'table % is insert-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION refuse_change() IS 'Trigger that makes a table insert-only';
CREATE TRIGGER audit_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
