from __future__ import annotations

import numpy as np
import pytest

from pipeline.splits import FRACTIONS, SPLITS, split_of


def test_every_spectrum_of_a_pixel_has_the_pixels_part() -> None:
    pixel = np.arange(20_000).repeat(3)
    parts = split_of(pixel, 1).reshape(-1, 3)
    assert (parts == parts[:, :1]).all()
    shares = [(parts[:, 0] == name).mean() for name in SPLITS]
    assert shares == pytest.approx(FRACTIONS, abs=0.02)


def test_parts_stay_when_the_survey_grows_and_change_with_the_seed() -> None:
    small, large = np.arange(100), np.arange(1000)
    assert (split_of(small, 1) == split_of(large, 1)[:100]).all()
    assert (split_of(large, 1) != split_of(large, 2)).any()


def test_unknown_positions_are_divided_by_their_keys() -> None:
    pixel = np.full(1000, -1)
    assert len(set(split_of(pixel, 1).tolist())) == 1
    assert set(split_of(pixel, 1, spectrum_id_B=np.arange(1000)).tolist()) == set(SPLITS)
