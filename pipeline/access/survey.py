"""The Python API: ``from pipeline import Survey``."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import config as configuration
from pipeline import doctor
from pipeline.access import catalog, uploads
from pipeline.access.filters import Cone, Filters, range_of
from pipeline.access.formats import to_astropy
from pipeline.access.similar import Alike, Neighbours
from pipeline.access.spectra import Spectrum, read
from pipeline.config import Config
from pipeline.errors import InputError, ModelError, QueryError
from pipeline.modelstore import load_model, model_path
from pipeline.servers import Servers, require_workspace
from pipeline.stores import postgres
from pipeline.stores.reader import Reader

if TYPE_CHECKING:
    from models.scores import ScoreBatch
    from models.trained import TrainedModel
    from pipeline.stores.objects import ObjectStore
    from pipeline.stores.vectors import VectorStore


class Survey:
    """A sifted survey: the promoted model's catalog, its spectra and their embeddings.

    Tables come as astropy Tables with units and descriptions (``.to_pandas()`` makes them pandas). Angles may be given
    as Quantities or in degrees. It may be used by several threads; close it, or use it as a context manager.

        with Survey("demo/workspace") as survey:
            strange = survey.anomalies(20, verdict="physical")
            survey.spectrum(strange["targetid"][0]).plot()
            survey.similar(strange["targetid"][0], k=10)

    Args:
        workspace: folder of a run; its embedded servers start where they are not running.
        config: a config or the path of its TOML file, for servers by URL.

    Raises:
        ConfigError: no such workspace, or a bad config.
    """

    def __init__(self, workspace: str | Path | None = None, *, config: Config | str | Path | None = None) -> None:
        self.config = _config(workspace, config)
        require_workspace(self.config.workspace, self.config.stores.postgres)
        self._exit = ExitStack()
        self._lock = threading.RLock()
        self._models: dict[str, TrainedModel] = {}
        self._neighbours: dict[str, Neighbours] = {}

    @cached_property
    def _servers(self) -> Servers:
        stores = self.config.stores
        return self._exit.enter_context(Servers(self.config.workspace, stores.postgres, stores.milvus))

    @cached_property
    def server_url(self) -> str:
        """URL of PostgreSQL; an embedded one is brought up to this version's tables."""
        url = self._servers.postgres_url
        if not self.config.stores.postgres:
            conn = postgres.connect(url)
            postgres.migrate(conn)
            conn.close()
        return url

    @cached_property
    def reader(self) -> Reader:
        """The catalog in PostgreSQL, read only."""
        with self._lock:
            reader = Reader(self.server_url)
            self._exit.callback(reader.close)
            return reader

    @cached_property
    def vectors(self) -> VectorStore:
        """The embeddings in Milvus."""
        import os

        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from pipeline.stores.vectors import VectorStore

        with self._lock:
            store = VectorStore.open(self._servers.milvus_uri)
            self._exit.callback(store.close)
            return store

    @cached_property
    def objects(self) -> ObjectStore:
        """Shards and model files."""
        return doctor.objects_store(self.config)

    def close(self) -> None:
        """Close the stores; embedded servers that nobody else uses stop."""
        self._exit.close()
        for name in ("reader", "vectors", "objects", "server_url", "_servers"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Survey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def model_id(self) -> str:
        """The promoted model's id."""
        return catalog.promoted(self.reader).model_id

    @cached_property
    def descriptions(self) -> dict[str, str]:
        """What each column of the catalog means."""
        return catalog.descriptions(catalog.tables(self.reader))

    def query(self, sql: str, *, limit: int = 2_000_000, seconds: float | None = None) -> Any:
        """Return the rows of a SELECT over the published tables as an astropy Table.

        Raises:
            QueryError: it writes, is malformed, runs too long or answers with more than ``limit`` rows.
        """
        found = self.reader.answer(sql, limit=limit, seconds=seconds)
        if found.truncated:
            raise QueryError(f"the answer has more than {limit:,} rows; add a LIMIT or a condition", "too_large")
        return self._table(found.rows)

    def anomalies(
        self, count: int = 100, *, after: int = 0, columns: Sequence[str] = catalog.BRIEF, **filters: Any
    ) -> Any:
        """Return the strangest spectra by rank.

        Args:
            count: most rows.
            after: leave out ranks up to this one.
            columns: of anomaly_catalog.
            filters: ``z=(low, high)``, ``snr=``, ``score=``, ``p_value=``, ``q_value=`` (None: no limit), ``verdict=``
                one or several, ``artefact_below=``, ``cone=(ra, dec, radius)``.

        Raises:
            QueryError: a filter is not known or out of range.
        """
        known = self.reader.columns("anomaly_catalog")
        if unknown := [name for name in columns if name not in known]:
            raise QueryError(f"anomaly_catalog has no column {unknown[0]}")
        return self._table(
            catalog.ranking(self.reader, make_filters(**filters), limit=count, after=after, columns=columns)
        )

    def cone(self, ra: Any, dec: Any = None, radius: Any = 1.0 / 60, *, limit: int = 100_000, **filters: Any) -> Any:
        """Return spectra around a position, nearest first; ``ra`` may be a SkyCoord, with ``dec`` left out.

        Args:
            ra, dec: position, deg or Quantities.
            radius: deg or Quantity, to 180 deg.
            limit: most rows.
            filters: as in ``anomalies``.

        Raises:
            QueryError: the position or radius is impossible.
        """
        return self._table(catalog.cone(self.reader, make_cone(ra, dec, radius), make_filters(**filters), limit=limit))

    def spectrum(self, targetid: int, *, coadd: str = "", reconstruct: bool = True) -> Spectrum:
        """Return a target's spectrum, with the promoted model's reconstruction; of several, the best ranked.

        Raises:
            NotFoundError: the catalog has no such target, or none in that coadd.
        """
        return read(self.objects, self.facts(targetid, coadd), self.model() if reconstruct else None)

    def facts(self, targetid: int, coadd: str = "") -> dict[str, Any]:
        """Return all columns of a target's best ranked spectrum."""
        from pipeline.errors import NotFoundError

        rows = catalog.spectra_of(self.reader, int(targetid)).to_pylist()
        chosen = [row for row in rows if coadd in ("", row["coadd"])]
        if not chosen:
            raise NotFoundError(
                f"TARGETID {targetid} has no spectrum in {coadd}; it has {', '.join(r['coadd'] for r in rows)}"
            )
        return dict(chosen[0])

    def similar(
        self,
        targetid: int | None = None,
        k: int = 10,
        *,
        spectrum: Any = None,
        redshift: float | None = None,
        **filters: Any,
    ) -> Any:
        """Return the spectra most like one, nearest first, with distance and its percentile among random pairs.

        Args:
            targetid: of the catalog; itself and its duplicates are left out.
            k: how many.
            spectrum: instead of a targetid, the path of a FITS or Parquet file, or (wavelength, flux, ivar).
            redshift: of that spectrum, where the file does not say.
            filters: as in ``anomalies``, but q_value and artefact_below.

        Raises:
            NotFoundError: no such target.
            InputError: no spectrum, or no overlap with the grid.
            QueryError: ``k`` or a filter is out of range.
        """
        if (targetid is None) == (spectrum is None):
            raise QueryError("give a targetid or a spectrum, one of the two")
        if targetid is not None:
            found = self.neighbours().of_spectrum(self.facts(targetid), k, make_filters(**filters))
        else:
            found = self.alike(spectra_from(spectrum, redshift), k, make_filters(**filters))
        if found.notice:
            warnings.warn(found.notice, stacklevel=2)
        return self._table(found.rows)

    def alike(self, new: uploads.NewSpectra, k: int, filters: Filters) -> Alike:
        """Return the look-alikes of a spectrum from elsewhere, as they come.

        Raises:
            InputError: there are several spectra.
        """
        if len(new) != 1:
            file = new.name[0].partition(", TARGETID")[0]
            raise InputError(f"{file} holds {len(new)} spectra; look-alikes are searched for one", "not_a_spectrum")
        return self.neighbours().of_vector(self.scores(new).embedding[0], k, filters)

    def score(self, spectra: Any, redshift: float | Sequence[float] | None = None) -> Any:
        """Return raw scores of new spectra by the promoted model, a row a spectrum.

        p-values belong to the survey that was calibrated; compare raw scores with those of the catalog.

        Args:
            spectra: a file's path, (wavelength, flux, ivar), or ``uploads.NewSpectra``.
            redshift: one for all or one each, where the file does not say.

        Raises:
            InputError: no spectrum, no overlap with the grid, or a redshift outside the model's range.
        """
        new = spectra_from(spectra, redshift)
        return self._table(score_table(new, self.scores(new)))

    def scores(self, new: uploads.NewSpectra) -> ScoreBatch:
        """Return the model's scores and embeddings of new spectra."""
        from models.scores import score

        model = self.model()
        try:
            with self._lock:  # a model's work space is its own
                return score(model, new.flux_BL, new.ivar_BL, new.z_B)
        except ValueError as error:
            raise InputError(f"{new.name[0]}: {error}", "no_redshift") from None

    def model(self) -> TrainedModel:
        """Return the promoted model; it is read once."""
        model_id = self.model_id
        with self._lock:
            if model_id not in self._models:
                self._models = {model_id: load_model(self.objects, model_id)}
            return self._models[model_id]

    def check_objects(self) -> None:
        """See that the object store answers, and has the promoted model's files.

        Raises:
            StoreError: it cannot be reached.
            ModelError: the files are gone.
        """
        from models.files import SETTINGS

        where = model_path(self.model_id)
        if not self.objects.exists(f"{where}/{SETTINGS}"):
            raise ModelError(f"{self.objects.locate(where)} has no {SETTINGS}: the model's files are gone")

    def neighbours(self) -> Neighbours:
        """Return the promoted model's embeddings."""
        model_id = self.model_id
        with self._lock:
            if model_id not in self._neighbours:
                self._neighbours = {model_id: Neighbours(self.reader, self.vectors, model_id)}
            return self._neighbours[model_id]

    def _table(self, rows: pa.Table) -> Any:
        return to_astropy(rows, self.descriptions, {"MODEL": self.model_id})


def score_table(new: uploads.NewSpectra, found: ScoreBatch) -> pa.Table:
    """Return scores as rows: name, z and raw scores under the catalog's names."""
    columns = {
        "chi2_reduced": found.chi2_reduced, "global_score": found.global_score,
        "local_emission": found.local_emission, "emission_wavelength": found.local_emission_wavelength,
        "emission_width": found.local_emission_width, "local_absorption": found.local_absorption,
        "absorption_wavelength": found.local_absorption_wavelength, "absorption_width": found.local_absorption_width,
        "density": found.density, "detection": found.detection, "blend": found.blend, "instrument": found.instrument,
        "redshift_gain": found.redshift_gain, "slip": found.slip,
    }  # fmt: skip
    return pa.table({"name": list(new.name), "z": new.z_B, "n_bins": found.n_bins, **columns})


def make_filters(**given: Any) -> Filters:
    """Return filters from keywords.

    Raises:
        QueryError: one is not known or out of range.
    """
    ranges = ("z", "snr", "score", "p_value", "q_value")
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name in ranges:
            made[name] = range_of(value)
        elif name == "verdict":
            made[name] = (value,) if isinstance(value, str) else tuple(value or ())
        elif name == "cone":
            made[name] = make_cone(*value) if isinstance(value, tuple | list) else value
        elif name == "artefact_below":
            made[name] = value
        else:
            known = (*ranges, "verdict", "artefact_below", "cone")
            raise QueryError(f"'{name}' is no filter; there are {', '.join(known)}")
    return Filters(**made)


def make_cone(ra: Any, dec: Any = None, radius: Any = 1.0 / 60) -> Cone:
    """Return a cone from degrees, Quantities or a SkyCoord."""
    if hasattr(ra, "icrs"):
        place = ra.icrs
        return Cone(float(place.ra.deg), float(place.dec.deg), _degrees(radius))
    if dec is None:
        raise QueryError("a position wants ra and dec in deg, or a SkyCoord")
    return Cone(_degrees(ra), _degrees(dec), _degrees(radius))


def _degrees(value: Any) -> float:
    try:
        return float(value.to_value("deg") if hasattr(value, "to_value") else value)
    except (TypeError, ValueError) as error:
        raise QueryError(f"{value!r} is no angle in degrees ({error})") from None


def spectra_from(given: Any, z: Any = None) -> uploads.NewSpectra:
    """Return spectra from a path, (wavelength, flux, ivar) or what is already on the grid."""
    if isinstance(given, uploads.NewSpectra):
        return given
    if isinstance(given, str | Path):
        return uploads.from_file(given, z)
    if isinstance(given, tuple | list) and len(given) == 3:
        units = ("Angstrom", "1e-17 erg / (Angstrom s cm2)", "1e34 Angstrom2 s2 cm4 / erg2")
        wavelength, flux, ivar = (
            np.asarray(one.to_value(unit) if hasattr(one, "to_value") else one)
            for one, unit in zip(given, units, strict=True)
        )
        return uploads.from_arrays(wavelength, flux, ivar, None if z is None else float(z))
    raise InputError("a spectrum is the path of a file, or (wavelength, flux, ivar)", "not_a_spectrum")


def _config(workspace: str | Path | None, config: Config | str | Path | None) -> Config:
    if isinstance(config, Config):
        return config
    path = str(config) if config is not None else configuration.beside()
    return configuration.load(path, [] if workspace is None else [f'stores.workspace="{workspace}"'])
