"""The promoted catalog as files for people without a database: FITS, Parquet, VOTable, and HATS for lsdb."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.access import catalog, formats
from pipeline.errors import ConfigError, StoreError

COLUMNS: Final = (
    "rank", "targetid", "ra", "dec", "z", "zerr", "zwarn", "snr", "ebv", "anomaly_score", "p_value", "q_value",
    "extrapolated", "verdict", "artefact_probability", "explanation", "in_training", "disagreement", "chi2_reduced",
    "global_score", "local_emission", "emission_wavelength", "emission_width", "local_absorption",
    "absorption_wavelength", "absorption_width", "density", "detection", "blend", "blend_kind", "instrument",
    "instrument_kind", "redshift_gain", "global_surprise", "emission_surprise", "absorption_surprise",
    "density_surprise", "detection_surprise", "blend_surprise", "instrument_surprise", "redshift_surprise", "n_pixels",
    "quality", "survey", "program", "healpix", "coadd", "spectrum_id",
)  # fmt: skip
QUERY: Final = f"SELECT {', '.join(COLUMNS)} FROM anomaly_catalog ORDER BY rank, spectrum_id"
HATS_PIXEL: Final = 500_000  # most rows of a HATS partition


def header(
    model: Mapping[str, Any], run: Mapping[str, Any] | None, config: Mapping[str, Any] | None = None
) -> dict[str, tuple[Any, str]]:
    """Return where a catalog comes from, as FITS keywords with comments.

    Args:
        model: ``model_id``, ``data_hash`` and ``created_at`` of the promoted model.
        run: ``run_id``, ``survey_root``, ``survey_catalog`` and ``inputs_hash`` of the run that scored, where known.
        config: its configuration.
    """
    found: dict[str, tuple[Any, str]] = {
        "MODEL": (model["model_id"], "model whose scores these are"),
        "DATAHASH": (model["data_hash"], "hash of what it was trained on"),
        "TRAINED": (_iso(model["created_at"]), "when it was registered (UTC)"),
    }
    if run:
        found |= {
            "RUN": (run["run_id"], "run of skysift"),
            "SURVEY": (run["survey_root"] or "", "the survey's files"),
            "ZCATALOG": (run["survey_catalog"] or "", "redshift catalog; empty: the survey's own"),
            "INPHASH": (run["inputs_hash"], "checksum of the inputs, catalog included"),
        }
    found |= {
        "SKYSIFT": (version("skysift"), "version of skysift"),
        "ASTROPY": (version("astropy"), "version of astropy"),
        "RADESYS": ("ICRS", "of ra and dec"),
        "SPECSYS": ("vacuum, observed frame", "of wavelengths"),
        "DATE": (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "when this file was written (UTC)"),
    }
    if config is not None:
        found["CONFIG"] = (json.dumps(config, sort_keys=True), "configuration of the run")
    return found


def _iso(when: Any) -> str:
    return str(when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")) if hasattr(when, "astimezone") else str(when)


def rows_and_header(reader: Any) -> tuple[pa.Table, dict[str, str], dict[str, tuple[Any, str]]]:
    """Return the whole promoted catalog, its columns' descriptions and its provenance."""
    model = vars(catalog.promoted(reader))
    runs = reader.rows("SELECT * FROM catalog_runs ORDER BY created_at DESC").to_pylist()
    told = catalog.descriptions(catalog.tables(reader))
    return reader.rows(QUERY), told, header(model, runs[0] if runs else None)


def check(path: str, form: str = "") -> str:
    """Return the format of a catalog to be written, when it can be.

    Raises:
        ConfigError: the format is not known.
        StoreError: its folder is not there, or a HATS folder is there already.
    """
    form = form or ("hats" if not Path(path).suffix else formats.format_of(path))
    if form != "hats":
        formats.check_target(path)
    elif Path(path).exists():
        raise StoreError(f"{path} exists already; name a new folder for the HATS catalog")
    return form


def export(reader: Any, path: str, form: str = "") -> tuple[Path, int]:
    """Write the promoted catalog; return the file (a folder for HATS) and the number of rows.

    Raises:
        ConfigError: the format is not known, or hats-import is not installed.
        StoreError: it cannot be written, or a HATS folder is there already.
    """
    form = check(path, form)
    rows, told, about = rows_and_header(reader)
    if form == "hats":
        return hats(rows, told, about, Path(path)), rows.num_rows
    return formats.write(rows, path, form=form, descriptions=told, header=about), rows.num_rows


def hats(rows: pa.Table, told: Mapping[str, str], about: Mapping[str, tuple[Any, str]], target: Path) -> Path:
    """Write a HATS catalog, which lsdb opens and crossmatches; rows without a position are left out."""
    try:
        from dask.distributed import Client
        from hats_import.catalog.arguments import ImportArguments
        from hats_import.catalog.run_import import run
    except ImportError:
        raise ConfigError("HATS wants hats-import: pip install 'skysift[hats]'") from None
    import pyarrow.compute as pc

    logging.getLogger("distributed").setLevel(logging.WARNING)
    placed = formats.described(rows.filter(pc.and_(pc.is_valid(rows["ra"]), pc.is_valid(rows["dec"]))), told)
    if not placed.num_rows:
        raise StoreError("no spectrum has a position: there is nothing to put on a HATS sky")
    with tempfile.TemporaryDirectory(prefix="skysift-") as folder:
        source = Path(folder) / "rows.parquet"
        pq.write_table(placed, source)
        arguments = ImportArguments(
            output_path=target.parent.absolute(), output_artifact_name=target.name, input_file_list=[source],
            file_reader="parquet", ra_column="ra", dec_column="dec", pixel_threshold=HATS_PIXEL, tmp_dir=folder,
            progress_bar=False,
            addl_hats_properties={f"skysift_{key.lower()}": str(value) for key, (value, _) in about.items()},
        )  # fmt: skip
        with Client(  # type: ignore[no-untyped-call]
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as client:
            run(arguments, client)  # type: ignore[no-untyped-call]
    return target
