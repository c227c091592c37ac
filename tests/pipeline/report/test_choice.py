from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report import choice
from pipeline.report.contents import Contents
from pipeline.report.metrics import measure


def _scores(calibrated: bool) -> pa.Table:
    """Four spectra, each strange in another way, and one without scores."""
    table: dict[str, list[float | None]] = {"spectrum_id": [7, 8, 9, 10, 11]}
    for place, (raw, surprise) in enumerate(choice.COMPONENTS.values()):
        table[raw] = [9.0 if place == row else 5.0 for row in range(4)] + [None]
        table[surprise] = [8.0 if calibrated and place == row else 1.0 if calibrated else None for row in range(4)] + [
            None
        ]
    table["density"] = [400.0] * 4 + [None]  # −ln density is not in σ: it cannot compete before calibration
    for name, value in (("chi2_reduced", 1.5), ("emission_wavelength", 5000.0), ("emission_width", 500.0),
                        ("absorption_wavelength", 6000.0), ("absorption_width", 700.0)):  # fmt: skip
        table[name] = [value] * 4 + [None]
    return pa.table(table)


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_strongest_reason_is_named(calibrated: bool) -> None:
    found = choice.reasons(_scores(calibrated))
    kinds = [found[key].kind for key in (7, 8, 9, 10)]
    assert kinds == ["emission", "absorption", "global", "density" if calibrated else "emission"]
    assert (found[7].strength, found[7].wavelength, found[7].width) == (9.0, 5000.0, 500.0)
    assert (found[8].wavelength, found[8].width) == (6000.0, 700.0)
    assert np.isnan(found[9].wavelength)
    assert found[9].chi2_reduced == 1.5


def test_spectra_without_scores_have_no_reason() -> None:
    assert 11 not in choice.reasons(_scores(True))


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
