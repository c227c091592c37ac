import numpy as np
import pytest

from pipeline.report.contents import Reason
from pipeline.report.reasons import chance, words


@pytest.mark.parametrize(
    ("reason", "z", "said"),
    [
        (
            Reason("absorption", 9.1, 6543.0, 3412.0),
            3.224,
            "absorption at 6543 Å (rest 1549 Å, C IV), 3,400 km/s wide, 9.1σ",
        ),
        (Reason("emission", 12.44, 6210.0, 276.1), 1.3, "emission at 6210 Å (rest 2700 Å), 280 km/s wide, 12.4σ"),
        (
            Reason("emission", 6.0, 5579.0, 138.0),
            1.3,
            "emission at 5579 Å (rest 2426 Å, [Ne IV]; sky line [O I]), 140 km/s wide, 6.0σ",
        ),
        (Reason("global", 7.4, chi2_reduced=1.934), 2.0, "poor fit all along (χ² 1.93 a bin), 7.4σ"),
        (Reason("global", 7.4), 2.0, "poor fit all along, 7.4σ"),
        (Reason("density", 45.31), 2.0, "a rare combination of features (−ln density 45.3)"),
    ],
)
def test_reasons_in_words(reason: Reason, z: float, said: str) -> None:
    assert words(reason, z) == said


def test_p_values_in_few_characters() -> None:
    assert [chance(p) for p in (0.5, 0.0314, 1.234e-3, 4e-5, np.nan)] == ["0.5", "0.031", "0.0012", "4.0e-5", "–"]
    assert chance(4e-12, extrapolated=True) == "≈4.0e-12"
