from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.report.contents import Contents
from pipeline.report.figures import against, embedding_map, p_values, principal_plane, top_mask, training_curves
from pipeline.report.sky import sky_map
from pipeline.report.style import svg


def test_top_spectra_are_the_best_ranked_here() -> None:
    rank = np.array([0, 900, 40, 7, 0, 300])
    assert top_mask(rank, 2).tolist() == [False, False, True, True, False, False]
    assert top_mask(rank, 99).sum() == 4
    assert not top_mask(np.zeros(3, np.int64)).any()


def test_principal_plane_finds_the_plane() -> None:
    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((500, 2)) * [5.0, 2.0]
    axes, _ = np.linalg.qr(rng.standard_normal((6, 2)))
    plane, share = principal_plane((hidden @ axes.T + 10.0).astype("f4"))
    assert share.sum() == pytest.approx(1.0, abs=1e-6)
    assert np.abs(np.corrcoef(plane[:, 0], hidden[:, 0])[0, 1]) > 0.999
    assert np.array_equal(plane, principal_plane((hidden @ axes.T + 10.0).astype("f4"))[0])


def test_top_anomalies_are_marked_where_they_are(contents: Contents) -> None:
    catalog = contents.catalog
    figure = against(catalog, "snr", "score")
    marked = np.asarray(figure.axes[0].collections[-1].get_offsets())
    top = top_mask(catalog.rank)
    assert sorted(map(tuple, marked.tolist())) == sorted(zip(catalog.snr[top], catalog.score[top], strict=True))


def test_unknown_and_impossible_values_are_left_out(contents: Contents) -> None:
    catalog = contents.catalog
    snr = catalog.snr.copy()
    snr[:50], snr[50:100] = np.nan, -1.0
    mesh = against(replace(catalog, snr=snr), "snr", "score").axes[0].collections[0].get_array()
    assert mesh is not None
    assert np.nansum(np.ma.filled(mesh, np.nan)) == len(catalog) - 100


def test_uniform_p_values_lie_on_the_line() -> None:
    p = (np.arange(40_000) + 0.5) / 40_000
    patches = p_values(p, np.zeros(len(p), bool)).axes[0].patches
    assert np.allclose(patches[0].get_data().values, 1.0, atol=1e-9)  # type: ignore[attr-defined]


@pytest.mark.parametrize("wide", [False, True])
def test_the_sky_map_zooms_on_small_surveys(contents_of: Callable[..., Contents], wide: bool) -> None:
    catalog = contents_of(wide=wide).catalog
    figure = sky_map(catalog.ra, catalog.dec, top_mask(catalog.rank))
    assert figure.axes[0].name == ("mollweide" if wide else "rectilinear")
    if not wide:
        left, right = figure.axes[0].get_xlim()
        assert left > right  # east to the left


def test_a_survey_across_zero_hours_stays_whole() -> None:
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(-3.0, 3.0, 500) % 360.0, rng.uniform(-2.0, 2.0, 500)
    left, right = sky_map(ra, dec, np.zeros(500, bool)).axes[0].get_xlim()
    assert abs(left - right) < 12.0


def test_positions_may_be_unknown(contents: Contents) -> None:
    nowhere = np.full(10, np.nan)
    assert svg(sky_map(nowhere, nowhere, np.zeros(10, bool))).startswith("<svg")
    one = np.array([10.0])
    assert svg(sky_map(one, one, np.ones(1, bool))).startswith("<svg")


def test_curves_with_gaps_are_drawn() -> None:
    history = [{"train_loss": 1.0}, {"train_loss": 0.5, "validation_loss": 0.6}]
    lines = training_curves(history, (("train_loss", "a"), ("validation_loss", "b")), "loss").axes[0].get_lines()
    assert [len(np.asarray(line.get_ydata())) for line in lines] == [2, 2]
    assert np.isnan(np.asarray(lines[1].get_ydata(), dtype=float)[0])


def test_a_far_outlier_does_not_shrink_the_map(contents: Contents) -> None:
    assert contents.embedding is not None
    vectors = contents.embedding.vectors.copy()
    vectors[5] += 1e4
    low, high = embedding_map(replace(contents.embedding, vectors=vectors)).axes[0].get_xlim()
    assert high - low < 5e3
