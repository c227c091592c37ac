"""Lines that quasars, galaxies and stars show: vacuum wavelengths in Å, strengths from the composites.

Broad lines: the SDSS composite quasar (Vanden Berk et al. 2001, AJ 122, 549, tables 2 and 4), with Lyα freed
of the forest and C IV of the mean blueshift, both of which are drawn apart here, and blends taken apart.
Absorption lines: Morton 2003 (ApJS 149, 205). Iron: multiplets of Vestergaard & Wilkes 2001 (ApJS 134, 1)
and Véron-Cetty et al. 2004 (A&A 417, 515), as groups of Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lines:
    """A table of K lines: wavelength (Å), a strength, a width, and a fourth column whose meaning is the table's."""

    wavelength: Array
    strength: Array
    width: Array
    extra: Array


def _lines(text: str) -> Lines:
    """Rows of four numbers."""
    numbers = np.array(text.split(), dtype=np.float64).reshape(-1, 4)
    return Lines(*(np.ascontiguousarray(column) for column in numbers.T))


# λ, rest EW Å, σ Å in the composite, share of the C IV blueshift (high ionisation 1, low 0)
BROAD = _lines("""
977.0 2.5 6.0 1.0      1033.03 9.77 7.76 1.0   1215.4 62.0 17.0 0.2    1239.85 8.0 9.0 0.6
1262.6 1.2 6.0 0.2     1305.42 1.66 5.42 0.1   1336.6 0.69 3.86 0.1    1398.33 5.6 12.5 0.6
1486.5 0.25 4.0 0.5    1547.8 23.78 14.33 1.0  1638.6 2.2 10.0 1.0    1664.74 1.6 8.0 0.5
1721.9 0.35 5.0 0.2    1749.7 0.5 6.0 0.3      1857.4 1.6 8.0 0.3      1891.9 2.2 8.0 0.2
1908.0 15.5 19.5 0.3   2142.8 0.6 7.0 0.1      2799.1 30.0 28.0 0.0  3191.8 0.6 9.0 0.1
4102.73 5.05 18.62 0.0 4346.42 12.62 20.32 0.0 4687.0 2.0 25.0 0.3     4853.13 46.21 33.0 0.0
5877.0 4.94 23.45 0.0  6564.93 194.52 40.0 0.0 7067.0 2.6 25.0 0.0
""")
LYA, CIV, MGII = 2, 9, 18  # rows of BROAD
BROAD_BALDWIN = np.where(BROAD.extra >= 0.7, 0.092, 0.071)  # dlogEW/dM; Lyα 0.098
BROAD_BALDWIN[LYA] = 0.098

# λ, mean rest EW Å in a quasar, not used, log10 scatter
NARROW = _lines("""
3346.8 0.35 0 0.3   3426.85 1.22 0 0.3  3727.1 0.8 0 0.35   3729.9 1.0 0 0.35   3869.86 1.38 0 0.3
3968.6 0.45 0 0.3   4364.4 0.4 0 0.3    4862.68 1.4 0 0.3   4960.30 3.5 0 0.02  5008.24 10.4 0 0.02
6302.05 0.7 0 0.3   6549.85 0.8 0 0.1   6564.61 6.0 0 0.3   6585.28 2.4 0 0.1   6718.29 1.2 0 0.3
6732.67 1.1 0 0.3
""")

# λ, relative strength, σ Å before broadening, multiplet family (0 ultraviolet, 1 optical)
IRON = _lines("""
1790 0.8 14 0   2075 2.4 32 0   2170 0.9 22 0   2240 2.6 28 0   2315 2.6 22 0   2360 3.0 18 0   2400 3.4 16 0
2440 2.6 18 0   2490 3.6 18 0   2525 2.2 14 0   2565 2.2 18 0   2610 3.2 16 0   2630 2.4 12 0   2680 1.1 14 0
2715 1.2 12 0   2745 2.0 10 0   2765 1.4 8 0    2835 1.6 14 0   2880 1.6 18 0   2930 1.6 20 0   2965 1.6 16 0
3005 0.8 18 0   3185 0.8 22 0
4179 0.8 8 1    4234 0.9 8 1    4303 0.6 10 1   4417 0.8 10 1   4492 1.4 8 1    4516 1.5 8 1    4523 1.6 8 1
4550 2.0 8 1    4584 2.2 7 1    4630 1.8 8 1    4925 1.6 6 1    5020 2.0 6 1    5170 2.4 7 1    5199 1.8 7 1
5236 2.0 7 1    5277 2.2 7 1    5318 2.3 7 1    5364 1.3 7 1    5414 0.8 8 1    5536 0.8 10 1   6150 0.7 16 1
6248 0.7 12 1   6457 0.8 12 1
""")

# λ, relative strength, not used, species (1 high ionisation, 2 low ionisation, 3 Fe II)
METALS = _lines("""
1238.82 0.35 0 1  1242.80 0.18 0 1  1393.76 0.50 0 1  1402.77 0.28 0 1  1548.20 1.00 0 1  1550.78 0.60 0 1
1260.42 0.75 0 2  1302.17 0.60 0 2  1334.53 0.75 0 2  1526.71 0.55 0 2  1670.79 0.60 0 2  1854.72 0.35 0 2
1862.79 0.20 0 2  2796.35 1.00 0 2  2803.53 0.75 0 2  2852.96 0.22 0 2
1608.45 0.22 0 3  2344.21 0.40 0 3  2374.46 0.26 0 3  2382.76 0.60 0 3  2586.65 0.38 0 3  2600.17 0.62 0 3
""")

# λ, trough depth relative to C IV, not used, 0 high-ionisation, 1 low-ionisation troughs only
BAL = _lines("""
1031.9 0.8 0 0  1215.67 0.45 0 0  1240.8 0.85 0 0  1393.76 0.35 0 0  1402.77 0.3 0 0  1549.1 1.0 0 0
1857.4 0.6 0 1  2799.1 0.75 0 1
""")

# λ, depth, not used, not used: an iron low-ionisation BAL
FELOBAL = _lines("""
1334.5 .7 0 0  1400.0 .7 0 0   1526.7 .5 0 0   1549.1 1. 0 0   1608.5 .45 0 0  1670.8 .7 0 0   1857.4 .8 0 0
2062.0 .4 0 0  2260.0 .35 0 0  2344.2 .75 0 0  2374.5 .6 0 0   2382.8 .85 0 0  2400.0 .6 0 0   2586.7 .7 0 0
2600.2 .85 0 0 2612.0 .55 0 0  2628.0 .5 0 0   2750.0 .5 0 0   2799.1 .95 0 0  3188.7 .3 0 0   3934.8 .35 0 0
""")

# λ, rest EW relative to Hα or [O II], not used, 0 nebular of a star-forming galaxy
NEBULAR = _lines("""
3727.09 0.75 0 0  3729.88 1.0 0 0  3869.86 0.10 0 0  4102.9 0.10 0 0  4341.7 0.18 0 0  4862.68 0.38 0 0
4960.30 0.22 0 0  5008.24 0.65 0 0 6549.85 0.11 0 0  6564.61 1.25 0 0 6585.28 0.33 0 0 6718.29 0.22 0 0
6732.67 0.16 0 0
""")

# λ, depth, σ Å, not used: an old stellar population
STELLAR = _lines("""
3835 .22 12 0  3934.8 .42 9 0  3969.6 .42 9 0  4102.9 .16 9 0  4305 .22 12 0  4384 .10 8 0  4862.7 .12 7 0
5175 .20 16 0  5270 .10 10 0   5335 .08 9 0    5894.6 .16 7 0  6280 .06 10 0  6564.6 .06 7 0 7150 .08 40 0
8190 .05 10 0  8500 .10 6 0    8544.4 .16 7 0  8664.5 .14 7 0
""")
