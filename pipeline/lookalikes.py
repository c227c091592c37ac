"""The ordinary spectra that an anomaly resembles most: nearest neighbours in the latent space, exactly.

Legend: B anomalies, N ordinary spectra, D latent dimensions, K neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256  # anomalies at a time: their distances to 100,000 spectra take 100 MB


def nearest(
    vectors_BD: NDArray[np.float32], others_ND: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return places among the others and Euclidean distances of each vector's ``k`` nearest, [B, K], nearest first.

    K is less than ``k`` where there are not as many others. Ties go to the first of them.
    """
    k = min(k, len(others_ND))
    place = np.empty((len(vectors_BD), k), np.int64)
    distance = np.empty((len(vectors_BD), k))
    half_N = 0.5 * np.einsum("nd,nd->n", others_ND, others_ND)
    for start in range(0, len(vectors_BD), _BLOCK):
        block = vectors_BD[start : start + _BLOCK]
        rough_BN = half_N - block @ others_ND.T  # half the squared distance, less what is the same for all others
        few_BM = np.argpartition(rough_BN, min(2 * k, len(half_N) - 1), axis=1)[:, : 2 * k]
        few_BM.sort(axis=1)
        exact_BM = np.linalg.norm(block[:, None].astype(np.float64) - others_ND[few_BM], axis=2)
        best_BK = np.argsort(exact_BM, axis=1, kind="stable")[:, :k]
        place[start : start + _BLOCK] = np.take_along_axis(few_BM, best_BK, 1)
        distance[start : start + _BLOCK] = np.take_along_axis(exact_BM, best_BK, 1)
    return place, distance
