"""Completeness as pictures and as a table that other programs read."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from pipeline.injection.completeness import Objects, tabulate
from pipeline.injection.departures import ARTEFACT, PHYSICAL
from pipeline.report.completeness import bands, curves, ecsv, known_ranks
from pipeline.report.style import png

N = 60


@pytest.fixture(scope="module")
def table() -> object:
    rng = np.random.default_rng(2)
    label = np.repeat([*PHYSICAL, *ARTEFACT, "none"], N)
    kind = np.repeat(["physical"] * len(PHYSICAL) + ["artefact"] * len(ARTEFACT) + ["control"], N)
    sigma = np.where(kind == "control", np.nan, np.exp(rng.uniform(np.log(5), np.log(50), len(label))))
    chance = 1 / (1 + (12 / np.nan_to_num(sigma, nan=0.1)) ** 4)
    recovered = {"p<0.01": rng.random(len(label)) < chance, "p<0.001": rng.random(len(label)) < 0.7 * chance}
    snr, z = rng.lognormal(0.7, 1, len(label)), rng.uniform(0.1, 4, len(label))
    return tabulate(Objects(label, kind, sigma, snr, z, recovered), pooled=("physical", "artefact"))


def test_curves_show_every_class_of_a_kind(table: object) -> None:
    figure = curves(table, "physical")
    titles = [ax.get_title() for ax in figure.axes if ax.get_visible()]
    assert titles[-1].startswith("all physical")
    assert [title.split("  ")[0] for title in titles[:-1]] == sorted(name.replace("_", " ") for name in PHYSICAL)
    assert f"({N})" in titles[0]
    shown = figure.axes[0].get_legend_handles_labels()[1]
    assert shown == ["p<0.01", "p<0.001"]
    assert len(png(figure)) > 20_000


def test_maps_hold_the_numbers_and_leave_thin_cells_out(table: object) -> None:
    figure = bands(table)
    rows = {(row["class"], row["snr_low"]): row for row in table.to_pylist()
            if row["threshold"] == "p<0.01" and row["snr_low"] is not None and row["sigma_low"] is None
            and row["z_low"] is None}  # fmt: skip
    middle = figure.axes[1]
    image = np.ma.filled(middle.images[0].get_array().astype(float), np.nan)
    assert image.shape == (len(PHYSICAL) + len(ARTEFACT) + 3, 5)
    first = rows["all_physical", 2.0]
    assert image[0, 2] == pytest.approx(first["completeness"])
    thin = [row for row in rows.values() if row["n"] < 5]
    assert np.isnan(image).sum() >= len(thin) > 0


def test_ranks_of_known_objects(table: object) -> None:
    figure = known_ranks({"bal": np.array([0.001, 0.01, 0.4]), "nothing": np.empty(0)})
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["bal (3)", "nothing (0)", "by chance"]
    assert len(png(figure)) > 10_000


def test_ecsv_says_what_its_columns_are(table: object) -> None:
    back = Table.read(ecsv(table, {"run": "r", "model": "m"}).splitlines(), format="ascii.ecsv")
    assert back.colnames == table.column_names
    assert len(back) == table.num_rows
    assert (back.meta["run"], back.meta["model"]) == ("r", "m")
    assert all(back[name].description for name in back.colnames)
    assert back["sigma_low"].mask.sum() == table["sigma_low"].null_count
    np.testing.assert_allclose(back["completeness"], table["completeness"].to_numpy())
