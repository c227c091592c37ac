"""The servers of a workspace: an embedded PostgreSQL and a Milvus Lite process, unless URLs name others."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

from pipeline.errors import ConfigError
from pipeline.servers.embedded import EmbeddedPostgres
from pipeline.servers.lease import Lease
from pipeline.servers.lite import LiteServer


def require_workspace(workspace: Path, postgres: str = "") -> None:
    """See that a workspace has a database, or that a URL names one: what only reads must not make an empty one.

    Raises:
        ConfigError: it has none; the message names the one in a folder below, if there is one.
    """
    if postgres or (workspace / "postgres").is_dir():
        return
    below = next((place.parent for place in sorted(workspace.glob("*/postgres")) if place.is_dir()), None)
    hint = f"did you mean {below}?" if below else "name one that `skysift run` has filled (--workspace DIR)"
    raise ConfigError(f"there is no workspace in {workspace}; {hint}")


class _Server(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Servers:
    """Addresses of PostgreSQL and Milvus; embedded ones start when their address is first asked for.

    Use it as a context manager: leaving it gives the servers back, and the last process to leave stops them.
    """

    def __init__(self, workspace: Path, postgres: str = "", milvus: str = "") -> None:
        self._workspace = Path(workspace)
        self._postgres = EmbeddedPostgres(self._workspace)
        self._milvus = LiteServer(self._workspace)
        self._given = {"postgres": postgres, "milvus": milvus}
        self._leases: dict[str, Lease] = {}

    @property
    def postgres_url(self) -> str:
        """URL of PostgreSQL.

        Raises:
            StoreError: the embedded server does not start.
        """
        if self._given["postgres"]:
            return self._given["postgres"]
        self._take("postgres")
        return self._postgres.url

    @property
    def milvus_uri(self) -> str:
        """URI of Milvus.

        Raises:
            StoreError: the Milvus Lite server does not start.
        """
        if self._given["milvus"]:
            return self._given["milvus"]
        self._take("milvus")
        return self._milvus.uri

    def keep(self) -> dict[str, str]:
        """Start the embedded servers and let them run on until ``stop``; return their addresses."""
        addresses = {}
        for name in self._embedded():
            addresses[name] = self.postgres_url if name == "postgres" else self.milvus_uri
            self._leases[name].keep()
        return addresses

    def stop(self) -> dict[str, bool]:
        """Give the servers back and stop those that nobody else uses; return whether each was."""
        self.close()
        return {name: self._lease(name).unkeep() for name in self._embedded()}

    def close(self) -> None:
        """Give the servers back."""
        while self._leases:
            self._leases.popitem()[1].release()

    def _embedded(self) -> list[str]:
        return [name for name, url in self._given.items() if not url]

    def _take(self, name: str) -> None:
        if name not in self._leases:
            lease = self._lease(name)
            lease.take()
            self._leases[name] = lease

    def _lease(self, name: str) -> Lease:
        server = self._server(name)
        return Lease(self._workspace.resolve() / "servers", name, server.start, server.stop)

    def _server(self, name: str) -> _Server:
        return self._postgres if name == "postgres" else self._milvus

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
