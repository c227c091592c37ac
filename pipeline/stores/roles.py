"""The database's roles: whether they are there, and the SQL that makes them where migrating was not allowed to."""

from __future__ import annotations

import re

from pipeline.stores.postgres import Connection, migrations, scalar, transaction

ROLES = ("skysift_pipeline", "skysift_reader")

_MAKE = """CREATE ROLE skysift_pipeline LOGIN;
CREATE ROLE skysift_reader LOGIN CONNECTION LIMIT 100;
ALTER ROLE skysift_reader SET default_transaction_read_only = on;
ALTER ROLE skysift_reader SET statement_timeout = '60s';
ALTER ROLE skysift_reader SET idle_in_transaction_session_timeout = '5min';
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO skysift_pipeline;
GRANT CONNECT ON DATABASE {database} TO skysift_reader;"""
_GRANT = re.compile(r"^ *((?:GRANT|REVOKE) [^;']+ (?:TO|FROM) skysift_(?:pipeline|reader));", re.M)


def missing(conn: Connection) -> list[str]:
    """Return the roles that the server does not have."""
    with transaction(conn) as cur:
        cur.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(ROLES),))
        there = {name for (name,) in cur.fetchall()}
    return [role for role in ROLES if role not in there]


def sql(conn: Connection) -> str:
    """Return the statements that an administrator runs in this database: roles, and the migrations' own grants."""
    with transaction(conn) as cur:
        cur.execute("SELECT quote_ident(current_database())")
        database = str(scalar(cur))
        cur.execute("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'anomaly_catalog'::regclass")
        owner = str(scalar(cur))
    grants = dict.fromkeys(
        " ".join(grant.split()) + ";" for _, _, text in migrations() for grant in _GRANT.findall(text)
    )
    # Only its owner can add a partition to a table; the views' owner reads it as a member.
    given = [f"GRANT skysift_pipeline TO {owner};", "ALTER TABLE scores OWNER TO skysift_pipeline;"]
    return "\n".join([_MAKE.format(database=database), *grants, *given])
