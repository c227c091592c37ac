"""Is everything the pipeline needs reachable, writable and of the right version? One check, one line, one fix."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import SkysiftError, StoreError
from pipeline.stores.objects import ObjectStore

MIN_POSTGRES = 15  # UNIQUE NULLS NOT DISTINCT
MIN_FREE_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis; ``fault`` is empty when all is well, ``note`` is text to act on at leisure."""

    name: str
    found: str
    fault: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fault


def survey_store(config: Config) -> ObjectStore:
    """Return the store of the survey's files."""
    survey = config.survey
    return ObjectStore.open(
        survey.root, endpoint=survey.endpoint or None, region=survey.region or None, anonymous=survey.anonymous
    )


def objects_store(config: Config) -> ObjectStore:
    """Return the store of shards, checkpoints and models."""
    stores = config.stores
    return ObjectStore.open(config.objects_url, endpoint=stores.endpoint or None, region=stores.region or None)


def check_survey(config: Config) -> Check:
    """Can the survey's root be reached?"""
    if not config.survey.root:
        return Check("survey", "none named", "name one: `skysift run SURVEY`, or survey.root in the config")
    return _guarded("survey", config.survey.root, lambda: _reach(config))


def _reach(config: Config) -> str:
    store = survey_store(config)
    root = config.survey.root
    if "://" not in root and not Path(root).is_dir():
        raise StoreError(f"{root} is not a folder: check survey.root")
    store.exists("zcatalog")
    return root


def check_objects(config: Config) -> Check:
    """Can results be written and read back?"""

    def probe() -> str:
        store, path = objects_store(config), f"doctor/{secrets.token_hex(8)}"
        store.write(path, b"skysift")
        try:
            if store.read(path) != b"skysift":
                raise StoreError(f"{store.url} does not return what was written; see its own health first")
        finally:
            store.delete(path)
        return f"{store.url} (writable)"

    return _guarded("objects", config.objects_url, probe)


def check_disk(config: Config) -> Check:
    """Is there room in the workspace?"""

    def room() -> str:
        config.workspace.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(config.workspace).free / 1e9
        if free < MIN_FREE_GB:
            raise StoreError(f"only {free:.1f} GB are free in {config.workspace}; {MIN_FREE_GB:.0f} GB are needed")
        return f"{config.workspace} ({free:,.0f} GB free)"

    try:
        return _guarded("workspace", str(config.workspace), room)
    except OSError as error:
        return Check("workspace", str(config.workspace), f"{error.strerror}: choose another with --workspace")


def check_postgres(address: Callable[[], str]) -> Check:
    """Does PostgreSQL answer, at a version that will do, and may we write?"""
    from pipeline.stores import postgres

    def probe() -> str:
        url = address()  # asking may start the embedded server
        conn = postgres.connect(url)
        try:
            if conn.server_version < MIN_POSTGRES * 10_000:
                found = conn.server_version // 10_000
                raise StoreError(f"PostgreSQL {found} is too old; version {MIN_POSTGRES} or newer is needed")
            with postgres.transaction(conn) as cur:
                cur.execute("SHOW transaction_read_only")
                if cur.fetchone() == ("on",):
                    raise StoreError("PostgreSQL is read-only; use the primary, and a role that may write")
            return f"{postgres.describe(url)} (version {conn.server_version // 10_000})"
        finally:
            conn.close()

    return _guarded("postgres", "", probe)


def check_schema(address: Callable[[], str]) -> Check:
    """Has the database the tables of this skysift, and the roles that share the work?

    A role that may not make roles migrates without them, which is no fault: the note is what makes them.
    """
    from pipeline.stores import postgres, roles

    def probe() -> tuple[str, str]:
        conn = postgres.connect(address())
        try:
            postgres.check_schema(conn)
            lacking = roles.missing(conn)
            if not lacking:
                return f"up to date, with {' and '.join(roles.ROLES)}", ""
            note = f"an administrator can make {' and '.join(lacking)} with:\n{roles.sql(conn)}"
            return f"up to date, without {' and '.join(lacking)}", note
        finally:
            conn.close()

    try:
        found, note = probe()
    except SkysiftError as error:
        return Check("tables", "", str(error))
    return Check("tables", found, note=note)


def check_milvus(address: Callable[[], str]) -> Check:
    """Does Milvus answer?"""
    from pipeline.stores.vectors import VectorStore

    def probe() -> str:
        uri = address()
        store = VectorStore.open(uri)
        try:
            return f"{uri} (version {store.version})"
        finally:
            store.close()

    return _guarded("milvus", "", probe)


def check_ray(config: Config) -> Check:
    """Does the Ray cluster answer, and what does it offer?"""
    from pipeline import cluster

    def probe() -> str:
        with cluster.connected(config) as resources:
            where = config.ray.address or "on this machine"
            return f"{version('ray')} {where}: {resources.get('CPU', 0):.0f} CPU slots, {cluster.gpus(resources)} GPUs"

    return _guarded("ray", config.ray.address or "on this machine", probe)


def check_gpu() -> Check:
    """Is there a GPU here? Having none is no fault."""
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", f"none here; torch {torch.__version__} trains and scores on the CPU")
    return Check("gpu", f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")


def quick(config: Config) -> Iterator[Check]:
    """The checks that cost next to nothing, run first by every stage."""
    yield check_survey(config)
    yield check_disk(config)
    yield check_objects(config)


def require(checks: Iterator[Check]) -> None:
    """Raise the first fault.

    Raises:
        StoreError: a check failed.
    """
    for check in checks:
        if not check.ok:
            raise StoreError(f"{check.name}: {check.fault}")


def _guarded(name: str, where: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, probe())
    except SkysiftError as error:
        return Check(name, where, str(error))
