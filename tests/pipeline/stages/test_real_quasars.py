"""The twelve real quasars, laid out as DESI does, through the whole pipeline with the simulated survey's model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.desi.grid import WAVELENGTH

from .conftest import Finished, config_of, copy_folder, query, skysift

pytestmark = pytest.mark.slow

LINES = {"Lyα": 1216.0, "C IV": 1549.0, "C III]": 1908.0, "Mg II": 2799.0}  # Å, vacuum


@pytest.fixture(scope="module")
def trees(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of shared/data/desi at their places in DESI's healpix and tile trees."""
    root, data = tmp_path_factory.mktemp("real"), shared_data / "desi"
    places = {
        "coadd-main-dark-9144.fits": "healpix/main/dark/91/9144",
        "coadd-1-80693-thru20210204.fits": "tiles/cumulative/80693/20210204",
        "coadd-2-80693-thru20210204.fits": "tiles/cumulative/80693/20210204",
        "QSO_cat_fuji_dark_healpix_with_main.fits.gz": "zcatalog/v1",
        "QSO_cat_fuji_dark_tile.fits.gz": "zcatalog/v1",
    }
    for name, folder in places.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(data / name, root / folder / name)
    return root


@pytest.fixture(scope="module")
def scored(trees: Path, finished: Finished, scratch: Path) -> Finished:
    """Both trees run with the model that the simulated survey promoted."""
    workspace = scratch / "real"
    copy_folder(finished.workspace, workspace)
    catalog = "survey.catalog=zcatalog/v1/QSO_cat_fuji_dark"
    healpix = ("--set", f"{catalog}_healpix_with_main.fits.gz", "--set", 'gate.surveys="main"')
    tiles = ("--set", f"{catalog}_tile.fits.gz")
    output = skysift("run", trees, "-w", workspace, "-r", "real-healpix", "-m", "promoted", *healpix)
    output += skysift("run", trees, "-w", workspace, "-r", "real-tiles", "-m", "promoted", *tiles)
    return Finished(trees, workspace, output)


def test_all_twelve_are_in_the_catalog(scored: Finished) -> None:
    rows = query(
        scored.config,
        """SELECT a.* FROM anomaly_catalog a JOIN spectra USING (spectrum_id) JOIN run_chunks r USING (chunk_id)
           WHERE r.run_id IN ('real-healpix', 'real-tiles')""",
    ).to_pylist()
    assert len(rows) == 12
    assert sum(row["coadd"] == "healpix/main/dark/9144" for row in rows) == 2
    assert sum(row["coadd"].startswith("tile/80693/") for row in rows) == 10
    for row in rows:
        assert 0 < row["p_value"] <= 1
        assert np.isfinite([row["ra"], row["dec"], row["snr"], row["anomaly_score"]]).all()
        assert 1.9 < row["z"] < 4.4


def test_reconstructions_follow_the_real_lines(scored: Finished) -> None:
    similar = [_agreement(*one) for one in _reconstructed(scored)]
    assert len(similar) == 12
    assert np.median(similar) > 0.8, similar
    assert min(similar) > 0.4, similar


def _reconstructed(scored: Finished) -> list[tuple[NDArray[np.float32], ...]]:
    """(flux, ivar, reconstruction, z) of each real quasar."""
    from models.trained import reconstruct
    from pipeline.modelstore import load_model
    from pipeline.session import opened
    from pipeline.shards import read_spectrum
    from pipeline.stores.registry import find_model

    config = config_of(scored.workspace, scored.survey)
    places = query(
        config,
        """SELECT shard, row_group, row, z FROM spectra JOIN run_chunks USING (chunk_id)
           WHERE run_id IN ('real-healpix', 'real-tiles') ORDER BY spectrum_id""",
    ).to_pylist()
    with opened(config) as session:
        model = load_model(session.objects, find_model(session.conn, "promoted").model_id)
        shards = [read_spectrum(session.objects, p["shard"], p["row_group"], p["row"]) for p in places]
    flux, ivar = (np.concatenate([getattr(shard, name) for shard in shards]) for name in ("flux_BL", "ivar_BL"))
    z = np.array([place["z"] for place in places])
    return list(zip(flux, ivar, reconstruct(model, flux, ivar, z), z, strict=True))


def _agreement(flux: NDArray[np.float32], ivar: NDArray[np.float32], model: NDArray[np.float32], z: float) -> float:
    """Weighted correlation of flux and reconstruction in bins of 16 Å within 12,000 km/s of the broad lines."""
    near = np.zeros(len(WAVELENGTH), dtype=bool)
    for line in LINES.values():
        near |= np.abs(WAVELENGTH / (line * (1 + z)) - 1) < 0.04
    length = len(flux) // 20 * 20
    pixel_weight = np.where(near, ivar, 0)[:length].reshape(-1, 20)
    weight = pixel_weight.sum(1)
    keep = weight > 0
    data, fit = (
        (pixel_weight * np.where(pixel_weight > 0, values[:length].reshape(-1, 20), 0)).sum(1)[keep] / weight[keep]
        for values in (flux, model)
    )
    covariance = np.cov(data, fit, aweights=weight[keep])
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def test_the_commands_need_no_more_than_another_catalog(scored: Finished, finished: Finished) -> None:
    assert "score       2 spectra" in scored.output
    assert "score       10 spectra" in scored.output
    simulated = query(finished.config, "SELECT count(*) AS n FROM scores")["n"][0].as_py()
    together = query(scored.config, "SELECT count(*) AS n FROM scores")["n"][0].as_py()
    assert together == simulated + 12
