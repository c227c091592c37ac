"""Which spectra are worth a verdict and an explanation: the strangest ones, as many as are at all unlikely.

Legend: N spectra, K candidates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNLIKELY = 0.01  # p-value below which a spectrum is a candidate
LEAST, MOST = 100, 20_000  # candidates, whatever their p-values
COMPARED = 2_000  # of the best ranked candidates get look-alikes
LOOKALIKES = 3
ORDINARY = 0.1  # p-value above which a spectrum can be a look-alike
POOL = 100_000  # spectra at most that look-alikes are sought among


def candidates(p_value: NDArray[np.float64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the candidates' places [K] among N, best ranked first.

    Args:
        p_value: float64 [N], NaN where there is none.
        rank: int64 [N], 1 the strangest, 0 none.
    """
    ranked = np.flatnonzero(rank > 0)
    ranked = ranked[np.argsort(rank[ranked], kind="stable")]
    unlikely = int((p_value[ranked] < UNLIKELY).sum())
    return ranked[: int(np.clip(unlikely, LEAST, MOST))]


def pool(p_value: NDArray[np.float64], spectrum_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the ordinary spectra that look-alikes are sought among.

    Beyond ``POOL`` of them those with the lowest ids are taken: ids are hashes, so that is a fair sample, and the
    same one every time.
    """
    ordinary = np.flatnonzero(p_value > ORDINARY)
    return ordinary[np.argsort(spectrum_id[ordinary], kind="stable")[:POOL]]
