from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report import choice
from pipeline.report.contents import Contents
from pipeline.report.metrics import measure
from pipeline.significance import MIN_CALIBRATION


def _components(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    table = {"spectrum_id": np.arange(n), "z": rng.uniform(0.5, 3.0, n), "snr": rng.uniform(0.5, 5.0, n)}
    table["calibration"] = (np.arange(n) >= 4).astype(int)
    for name in choice.COMPONENTS:
        table[name] = rng.normal(40.0 if name == "density" else 3.0, 1.0, n)
    for row, name in enumerate(choice.COMPONENTS):
        table[name][row] += 30.0
    table["chi2_reduced"] = np.full(n, 1.5)
    for kind, wave in (("emission", 5000.0), ("absorption", 6000.0)):
        table[f"{kind}_wavelength"] = np.full(n, wave)
        table[f"{kind}_width"] = np.full(n, 500.0)
    return table


@pytest.mark.parametrize("n", [2000, 20])
def test_the_strongest_reason_is_named(n: int) -> None:
    table = _components(n)
    if n < MIN_CALIBRATION:
        table["density"][3], table["local_emission"][3] = 40.0, 30.0  # −ln density is not in σ: it cannot compete
    found = choice.reasons(pa.table(table), np.array([0, 1, 2, 3]))
    kinds = [found[key].kind for key in range(4)]
    assert kinds == ["global", "emission", "absorption", "density" if n == 2000 else "emission"]
    assert (found[1].wavelength, found[1].width) == (5000.0, 500.0)
    assert found[2].wavelength == 6000.0
    assert found[0].strength == pytest.approx(table["global_score"][0])


def test_spectra_without_scores_have_no_reason() -> None:
    table = _components(2000)
    for name in choice.COMPONENTS:
        table[name][1] = np.nan
    found = choice.reasons(pa.table(table), np.array([0, 1, 999_999]))
    assert list(found) == [0]


def test_ordinary_spectra_are_ordinary_spread_over_redshift_and_repeatable(contents: Contents) -> None:
    catalog = contents.catalog
    chosen = choice.ordinary(catalog, 6)
    assert len(chosen) == 6
    assert (catalog.p_value[chosen] > 0.1).all()
    assert (np.diff(catalog.z[chosen]) > 0).all()
    assert np.array_equal(chosen, choice.ordinary(catalog, 6))
    strange = replace(catalog, p_value=np.zeros(len(catalog)))
    assert not len(choice.ordinary(strange, 6))


def test_best_come_in_order_and_unranked_never() -> None:
    assert choice.best(np.array([0, 3, 1, 0, 2]), 10).tolist() == [2, 4, 1]


def test_a_sample_holds_the_best(contents: Contents) -> None:
    catalog = contents.catalog
    picked = choice.sample(catalog, 500, 24)
    assert len(picked) == len(np.unique(picked)) == 500
    assert set(choice.best(catalog.rank, 24)) <= set(picked)
    assert len(choice.sample(catalog, 10**6, 24)) == len(catalog)


def test_metrics_of_a_fair_run(contents: Contents) -> None:
    found = measure(contents.catalog)
    assert found["spectra ingested"] == (6000, "spectra")
    assert found["reduced χ² of the fit, median"] == pytest.approx(1.0, abs=0.01)
    assert found["p-values not trained on: distance from uniform"] < 0.05  # type: ignore[operator]
    assert abs(found["score against S/N: rank correlation"]) < 0.05  # type: ignore[arg-type]


def test_metrics_see_unfair_scores(contents: Contents) -> None:
    catalog = replace(contents.catalog, score=contents.catalog.snr**2, p_value=contents.catalog.p_value**2)
    found = measure(catalog)
    assert found["score against S/N: rank correlation"] == pytest.approx(1.0)
    assert found["p-values not trained on: distance from uniform"] > 0.2  # type: ignore[operator]


def test_metrics_of_nothing_are_not_a_number(contents: Contents) -> None:
    full = contents.catalog
    empty = replace(full, **{name: getattr(full, name)[:0] for name in type(full).__dataclass_fields__})
    found = measure(empty)
    assert found.pop("spectra ingested") == (0, "spectra")
    assert found.pop("spectra with a score") == (0, "spectra")
    assert np.isnan(list(found.values())).all()
