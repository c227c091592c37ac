"""The one configuration: a TOML file read into frozen dataclasses, every field documented beside it."""

from __future__ import annotations

import difflib
import os
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from models.config import FitConfig, VAEConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class SurveyConfig:
    """Where the survey's files are; credentials come from the environment (AWS_ACCESS_KEY_ID, …)."""

    root: str = ""  # folder or URL that holds healpix/, tiles/ and zcatalog/: a path, s3://, https://, gs://, az://
    catalog: str = ""  # redshift catalog, relative to root or a path or URL; empty: zcatalog/v1/zall-pix-*.fits
    pixels: tuple[str, ...] = ()  # plan these healpix pixels only, such as "main/dark/9144"
    tiles: tuple[str, ...] = ()  # plan these tiles only, such as "80693/20210204" or one petal, "80693/20210204/1"
    endpoint: str = ""  # S3 endpoint other than AWS, such as "http://minio:9000"
    region: str = ""  # S3 region, such as "us-west-2" for the public DESI bucket
    anonymous: bool = False  # unsigned requests, as public buckets want


@dataclass(frozen=True)
class GateConfig:
    """The science gate: which catalog rows become spectra."""

    z_min: float = 0.05  # lowest redshift kept
    z_max: float = 6.0  # highest redshift kept
    zwarn: tuple[int, ...] = (0,)  # redrock ZWARN values kept; add 4 for low-Δχ² redshifts
    surveys: tuple[str, ...] = ()  # keep these surveys only, such as "main"; empty keeps all
    programs: tuple[str, ...] = ()  # keep these programs only, such as "dark"; empty keeps all
    primary_only: bool = False  # keep one row a target, the one that ZCAT_PRIMARY marks
    default_survey: str = "main"  # survey of catalogs that name none
    default_program: str = "dark"  # program of catalogs that name none


@dataclass(frozen=True)
class StoresConfig:
    """Where results live; empty values mean the embedded servers of the workspace."""

    workspace: str = "skysift-workspace"  # local folder of the embedded servers, logs and reports
    objects: str = ""  # shards, checkpoints, models: a folder or URL; empty: the workspace's objects/
    postgres: str = ""  # postgresql:// URL; empty: embedded; the password comes from PGPASSWORD
    milvus: str = ""  # http://host:19530; empty: Milvus Lite in the workspace; token from MILVUS_TOKEN
    endpoint: str = ""  # S3 endpoint of objects, when it is not AWS
    region: str = ""  # S3 region of objects


@dataclass(frozen=True)
class IngestConfig:
    """Reading and joining coadds."""

    chunk_size: int = 512  # most spectra in a chunk (a chunk never spans coadd files)
    files_per_task: int = 32  # most coadds one Ray task reads
    max_failed: float = 0.05  # fraction of files that may fail before the run stops


@dataclass(frozen=True)
class TrainConfig:
    """Training: the model, its fit, and how much of the survey it sees."""

    vae: VAEConfig = field(default_factory=VAEConfig)  # the network
    fit: FitConfig = field(default_factory=FitConfig)  # its training
    max_spectra: int = 200_000  # most spectra one training sees
    workers: int = 0  # Ray Train workers; 0: one a GPU, or one on the CPU


@dataclass(frozen=True)
class ScoreConfig:
    """Scoring."""

    batch: int = 256  # spectra a forward pass; a batch never spans chunks
    workers: int = 0  # scoring actors; 0: one a GPU, or one a CPU
    max_disagreement: float = 0.1  # fraction of strange spectra on which compared models may disagree without alarm


@dataclass(frozen=True)
class ReportConfig:
    """The report's page."""

    anomalies: int = 24  # top anomalies drawn
    normals: int = 6  # ordinary spectra drawn beside their reconstructions


@dataclass(frozen=True)
class RayConfig:
    """The Ray cluster."""

    address: str = ""  # ray://… or auto; empty: a local Ray, or RAY_ADDRESS
    cpus: int = 0  # CPUs of a local Ray; 0: all of this machine's


@dataclass(frozen=True)
class Config:
    """All of a run's configuration."""

    run: str = "default"  # name of the run: letters, digits and dashes
    survey: SurveyConfig = field(default_factory=SurveyConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    stores: StoresConfig = field(default_factory=StoresConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    @property
    def workspace(self) -> Path:
        """The local folder of embedded servers, logs and reports."""
        return Path(self.stores.workspace).absolute()

    @property
    def objects_url(self) -> str:
        """Folder or URL of shards, checkpoints and models."""
        return self.stores.objects or str(self.workspace / "objects")

    def as_dict(self) -> dict[str, Any]:
        """The whole configuration as plain values (it holds no secrets), as kept with the run."""
        return asdict(self)


T = TypeVar("T")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def load(path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file (None: defaults) and apply ``section.key=value`` overrides, later ones winning.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown, or a value has the wrong type.
    """
    tree: dict[str, Any] = {}
    sources = []
    if path is not None:
        sources.append(os.fspath(path))
        tree = _read_toml(sources[0])
        _build(Config, tree, sources[0], "")  # what is wrong in the file is said of the file
    for override in overrides:
        _apply_override(tree, override)
    if overrides:
        sources.append("command line")
    config = _build(Config, tree, (sources or [""])[-1], "")
    _check(config, " and ".join(sources))
    return config


def beside() -> str | None:
    """Return ``skysift.toml`` when the current folder has one."""
    return "skysift.toml" if Path("skysift.toml").is_file() else None


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist: check the name given to --config") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: --config wants a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not TOML: {error}") from None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override} should read section.key=value, such as gate.z_max=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *sections, name = key.strip().split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {section} is a value, not a section")
    node[name] = value


def _build(cls: type[T], tree: Mapping[str, Any], source: str, prefix: str) -> T:
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{source}: unknown key {prefix}{key}; {hint}")
    hints = get_type_hints(cls)
    values = {key: _convert(hints[key], value, source, prefix + key) for key, value in tree.items()}
    return cls(**values)


def _convert(hint: Any, value: Any, source: str, key: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{source}: {key} is a section, found {value!r}; set one of its keys, as {key}.KEY")
        return _build(hint, value, source, key + ".")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(get_args(hint)[0], item, source, key) for item in items)
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not types.NoneType)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise ConfigError(f"{source}: {key} wants {_KINDS[hint]}, found {value!r}")
    return value


def _check(config: Config, source: str) -> None:
    name = config.run
    if not name or not all(c.isascii() and (c.isalnum() or c == "-") for c in name) or len(name) > 63:
        raise ConfigError(f"{source}: run is {name!r}; use 1–63 letters, digits and dashes")
    for key, low in (
        ("ingest.chunk_size", 1),
        ("ingest.files_per_task", 1),
        ("train.vae.latent", 1),
        ("train.vae.hidden", 1),
        ("train.fit.beta", 0),
        ("train.fit.batch", 1),
        ("train.fit.segments", 1),
        ("train.fit.patience", 1),
        ("train.fit.seed", 0),
        ("train.max_spectra", 1),
        ("train.workers", 0),
        ("score.batch", 1),
        ("score.workers", 0),
        ("report.anomalies", 0),
        ("report.normals", 0),
        ("ray.cpus", 0),
    ):
        found: Any = config
        for part in key.split("."):
            found = getattr(found, part)
        if not found >= low:
            raise ConfigError(f"{source}: {key} is {found}; it must be at least {low}")
    if not config.train.fit.learning_rate > 0:
        raise ConfigError(f"{source}: train.fit.learning_rate is {config.train.fit.learning_rate}; it must be above 0")
    if not config.stores.workspace:
        raise ConfigError(f"{source}: stores.workspace is empty; name a folder (--workspace DIR)")
    if not config.gate.z_min < config.gate.z_max:
        raise ConfigError(f"{source}: gate.z_min {config.gate.z_min} is not below gate.z_max {config.gate.z_max}")
    if not 0 <= config.ingest.max_failed <= 1:
        raise ConfigError(f"{source}: ingest.max_failed is {config.ingest.max_failed}; it is a fraction, 0 to 1")
    if not 0 <= config.score.max_disagreement <= 1:
        found = config.score.max_disagreement
        raise ConfigError(f"{source}: score.max_disagreement is {found}; it is a fraction, 0 to 1")
    for key, url in (("stores.postgres", config.stores.postgres), ("stores.objects", config.stores.objects)):
        if "://" in url and "@" in url and ":" in url.split("://", 1)[1].rsplit("@", 1)[0]:
            raise ConfigError(f"{source}: {key} holds a password; give it by the environment (PGPASSWORD) instead")
