"""What a command works with: the config, the open stores, and the lock that makes it its run's only driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline import doctor, logs
from pipeline.config import Config
from pipeline.servers import Servers, require_workspace
from pipeline.stores import launches, postgres, runs
from pipeline.stores.objects import ObjectStore

if TYPE_CHECKING:
    from pipeline.stores.vectors import VectorStore


class Session:
    """The open stores of one command; each is reached at its first use.

    Attributes:
        config: the run's configuration.
        survey: the survey's files, read only.
        objects: shards, checkpoints, models and kept catalogs.
    """

    def __init__(self, config: Config, servers: Servers) -> None:
        self.config = config
        self.survey: ObjectStore = doctor.survey_store(config)
        self.objects: ObjectStore = doctor.objects_store(config)
        self._servers = servers

    @cached_property
    def conn(self) -> postgres.Connection:
        """PostgreSQL: an embedded one is migrated here, any other must have been by `skysift db migrate`."""
        conn = postgres.connect(self._servers.postgres_url)
        if self.config.stores.postgres:
            postgres.check_schema(conn)
        else:
            postgres.migrate(conn)
        return conn

    @cached_property
    def vectors(self) -> VectorStore:
        """Milvus."""
        # A connection that idled while others worked is told off and renewed; gRPC would print that, twice.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from pipeline.stores.vectors import VectorStore

        return VectorStore.open(self._servers.milvus_uri)

    def close(self) -> None:
        """Close what was opened."""
        for name in ("conn", "vectors"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()


@contextmanager
def opened(config: Config) -> Iterator[Session]:
    """Open a session on what a run has made; embedded servers that nobody else uses stop at its end.

    Raises:
        ConfigError: the workspace has no database, and no other is named.
        StoreError: a store is unreachable, or the database needs `skysift db migrate`.
    """
    require_workspace(config.workspace, config.stores.postgres)
    with _opened(config) as session:
        yield session


@contextmanager
def _opened(config: Config) -> Iterator[Session]:
    with Servers(config.workspace, config.stores.postgres, config.stores.milvus) as servers:
        session = Session(config, servers)
        try:
            yield session
        finally:
            session.close()


@contextmanager
def driving(config: Config) -> Iterator[Session]:
    """Open a session as the one driver of the config's run, after the doctor's quick checks.

    Raises:
        StoreError: a check failed.
        RunError: another process drives this run.
    """
    logs.bind(run=config.run)
    doctor.require(doctor.quick(config))
    with _opened(config) as session, runs.run_lock(session.conn, config.run):
        launches.record(session.conn, config)
        _ = session.vectors.version  # an unreachable Milvus is found now, not after hours of training
        yield session
