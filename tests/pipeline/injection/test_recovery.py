"""What injected spectra would have been worth, and which known objects a survey found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.catalog.known import Known
from pipeline.errors import RunError
from pipeline.injection.recovery import (
    BLIND,
    BY_DISCOVERY,
    Survey,
    blind_p_values,
    find_known,
    injected_objects,
    p_values,
)
from pipeline.significance import calibrate_scores

N = 1000
COMPONENTS = ("global_score", "local_emission")


@pytest.fixture(scope="module")
def survey() -> Survey:
    """A calibrated survey of N spectra, the first half of it held out; the last ten are strange."""
    rng = np.random.default_rng(4)
    raw = {name: rng.normal(0, 1, N) for name in COMPONENTS}
    raw["global_score"][-10:] += 60
    z, snr, held_out = rng.uniform(0.3, 3, N), rng.lognormal(0.5, 0.5, N), np.arange(N) < N // 2
    done = calibrate_scores(raw, z, snr, held_out, np.arange(N))
    order = np.argsort(done.p_value)
    q_value = np.empty(N)
    q_value[order] = np.minimum.accumulate((done.p_value[order] * N / np.arange(1, N + 1))[::-1])[::-1]
    table = pa.table({
        "spectrum_id": np.arange(N), "targetid": 5000 + np.arange(N) // 2, "survey": ["main", "sv3"] * (N // 2),
        "program": ["dark"] * N, "healpix": pa.array(np.arange(N) // 100, pa.int32()), "z": z, "snr": snr,
        "shard": ["a"] * N, "p_value": done.p_value, "q_value": q_value, "rank": pa.array(done.rank, pa.int32()),
        "in_training": np.arange(N) >= N - 20, **raw,
    })  # fmt: skip
    return Survey(table, held_out, COMPONENTS)


def as_injected(survey: Survey, rows: np.ndarray) -> pa.Table:
    """Rows of the survey as if they had been injected."""
    return survey.table.take(pa.array(rows)).select(["spectrum_id", "z", "snr", *COMPONENTS])


def test_a_spectrum_of_the_survey_gets_its_own_p_value(survey: Survey) -> None:
    rows = np.arange(N // 2, N)
    np.testing.assert_allclose(p_values(survey, as_injected(survey, rows)), survey.column("p_value")[rows], rtol=1e-6)


def test_a_calibration_can_be_checked_by_itself(survey: Survey) -> None:
    assert len(p_values(survey, survey.table.slice(0, 0))) == 0


def test_how_many_are_injected_changes_nothing(survey: Survey) -> None:
    few, many = (p_values(survey, as_injected(survey, np.arange(N - n, N))) for n in (5, 400))
    np.testing.assert_allclose(few, many[-5:], rtol=1e-9)


def test_another_calibration_than_the_stored_one_is_refused(survey: Survey) -> None:
    changed = survey.table.set_column(
        survey.table.column_names.index("p_value"), "p_value", pa.array(survey.column("p_value") ** 0.5)
    )
    with pytest.raises(RunError, match="other p-values than their scores give: run `skysift calibrate` first"):
        p_values(replace(survey, table=changed), as_injected(survey, np.arange(5)))


def test_the_false_discovery_threshold_is_that_of_one_more_spectrum(survey: Survey) -> None:
    p_value, q_value = survey.column("p_value"), survey.column("q_value")
    found = int((q_value < 0.1).sum())
    assert found >= 10
    assert survey.p_limit == pytest.approx(0.1 * (found + 1) / (N + 1))
    assert survey.p_limit >= p_value[q_value < 0.1].max()
    calm = survey.table.set_column(survey.table.column_names.index("q_value"), "q_value", pa.array(np.ones(N)))
    assert replace(survey, table=calm).p_limit == pytest.approx(0.1 / (N + 1))  # nothing else is found


def test_kinds_and_thresholds_of_injected_spectra(survey: Survey) -> None:
    columns = {"class": ["reddened", "dip_4400", "none"], "significance": [9.0, 20.0, 0.0], "snr": [1.0, 2.0, 3.0]}
    columns |= {"z": [1.0, 2.0, 3.0], "p_value": [5e-3, 5e-4, 0.4], "p_blind": [0.3, 1e-3, 0.5]}
    table = pa.table(columns)
    found = injected_objects(survey, table)
    assert found.kind.tolist() == ["physical", "artefact", "control"]
    assert np.isnan(found.significance[2])
    assert found.recovered["p<0.01"].tolist() == [True, True, False]
    assert found.recovered["p<0.001"].tolist() == [False, True, False]
    assert found.recovered[BLIND].tolist() == [False, True, False]
    assert BY_DISCOVERY == "q<0.1"


def test_blind_p_values_leave_out_what_was_learned(survey: Survey) -> None:
    learned = np.random.default_rng(0).normal(0, 1, N)
    learned[-40:-10] += 60
    both = replace(survey, table=survey.table.append_column("detection", pa.array(learned)),
                   components=(*COMPONENTS, "detection"))  # fmt: skip
    rows = np.arange(N - 40, N)
    injected = both.table.take(pa.array(rows)).select(["z", "snr", *both.components])
    np.testing.assert_allclose(blind_p_values(both, injected), survey.column("p_value")[rows], rtol=1e-6)


def known(**changes: object) -> Known:
    targetid = np.array([5499, 5498, 5498, 5000, 77])  # one twice, one unknown
    return replace(Known("bal", "every row", targetid, None, None, None), **changes)  # type: ignore[arg-type]


def test_known_objects_are_found_by_targetid(survey: Survey) -> None:
    found = find_known(survey, known())
    assert (found.n_known, found.n_missing) == (4, 1)
    assert len(found.objects.z) == 6  # two spectra a target
    assert found.n_training == 4
    assert found.objects.recovered["top 1%"].sum() == 4
    assert (np.sort(found.share)[:4] <= 0.01).all()


def test_survey_and_pixel_decide_where_both_sides_know_them(survey: Survey) -> None:
    found = find_known(survey, known(survey=np.array(["main", "main", "main", "sv3", "main"])))
    assert len(found.objects.z) == 3
    pixel = np.array([9, 9, 9, 4, 0])
    found = find_known(survey, known(healpix=pixel))
    assert (len(found.objects.z), found.n_missing) == (4, 2)
    nothing = pa.nulls(N, pa.string())
    blank = survey.table.set_column(survey.table.column_names.index("survey"), "survey", nothing)
    found = find_known(replace(survey, table=blank), known(survey=np.array(["main"] * 5)))  # a tile-based survey
    assert len(found.objects.z) == 6
