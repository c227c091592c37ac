import itertools

import numpy as np
import pytest

from pipeline.report.lines import C_KMS, LINES, identify, mark, named, place


@pytest.mark.parametrize(
    ("rest", "width", "kind", "name"),
    [
        (1549.0, 500.0, "emission", "C IV"),
        (1549.0 * (1 - 12_000 / C_KMS), 2000.0, "absorption", "C IV at −12,"),
        (1200.0, 300.0, "absorption", "in the Lyα forest"),
        (2802.0, 300.0, "emission", "Mg II"),
        (2150.0, 300.0, "emission", ""),
        (5008.0, 300.0, "emission", "[O III]"),
        (2600.0, 300.0, "absorption", "Fe II"),
        (2600.0, 300.0, "emission", ""),  # iron is named in absorption only
    ],
)
def test_features_are_named_by_line_or_velocity(rest: float, width: float, kind: str, name: str) -> None:
    found = identify(rest, width, kind)
    assert found.startswith(name)
    assert bool(found) == bool(name)


def test_the_reach_of_a_line_grows_with_the_width() -> None:
    off = 1908.73 * (1 + 2500 / C_KMS)
    assert identify(off, 500.0, "emission") == ""
    assert identify(off, 5000.0, "emission") == "C III]"


def test_trouble_spots() -> None:
    assert mark(5578.5) == "sky line [O I]"
    assert mark(5780.0) == "B/R seam"
    assert mark(6700.0) == ""


def test_lines_shown_are_those_in_range() -> None:
    shown = named(2.0, 3600.0, 9824.0)
    observed = [line.wavelength * 3.0 for line in shown]
    assert observed == sorted(observed)
    assert min(observed) >= 3600.0
    assert max(observed) <= 9824.0
    assert {"Lyα", "C IV", "C III]", "Mg II"} <= {line.name for line in shown}
    assert "Hβ" not in {line.name for line in shown}
    assert "Al II" not in {line.name for line in shown}  # seen in absorption only


def test_wavelengths_are_vacuum_and_in_order() -> None:
    waves = [line.wavelength for line in LINES]
    assert waves == sorted(waves)
    oiii = [line.wavelength for line in LINES if line.name == "[O III]"]
    assert oiii == pytest.approx([4960.295, 5008.240], abs=0.02)  # NIST, vacuum


def test_labels_never_overlap_and_the_important_ones_stay() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        count = int(rng.integers(1, 25))
        wanted = np.sort(rng.uniform(0.0, 400.0, count)).tolist()
        widths = rng.uniform(8.0, 30.0, count).tolist()
        order = rng.integers(0, 8, count).tolist()
        kept = place(wanted, widths, order, 0.0, 400.0, 25.0)
        assert min(order, default=0) in {order[i] for i in kept}
        spans = sorted((centre - widths[i] / 2, centre + widths[i] / 2) for i, centre in kept.items())
        assert spans[0][0] >= -1e-9
        assert spans[-1][1] <= 400.0 + 1e-9
        assert all(right[0] >= left[1] - 1e-9 for left, right in itertools.pairwise(spans))
        assert all(abs(centre - wanted[i]) <= 25.0 + 1e-9 for i, centre in kept.items())


def test_labels_with_room_stay_where_they_belong() -> None:
    assert place([50.0, 200.0], [20.0, 20.0], [0, 1], 0.0, 400.0, 25.0) == {0: 50.0, 1: 200.0}
