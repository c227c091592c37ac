"""Quality of one spectrum as named bits; the low 16 bits are ours, bits 16–30 are the user's."""

from __future__ import annotations

from enum import IntFlag


class Quality(IntFlag):
    """What is known to be imperfect about a spectrum. Zero means nothing is."""

    OK = 0
    MISSING_B = 1 << 0  # the file has no B arm, or not for this target
    MISSING_R = 1 << 1  # the same for R
    MISSING_Z = 1 << 2  # the same for Z
    NO_INFORMATION = 1 << 3  # no pixel has ivar > 0 and a clear mask
    NONFINITE_FLUX = 1 << 4  # NaN or inf flux where ivar > 0; those pixels got ivar = 0
    BAD_IVAR = 1 << 5  # negative, NaN or inf ivar; those pixels got ivar = 0
    DUPLICATE_ROW = 1 << 6  # the coadd holds the target more than once; its first row was taken
    LOW_COVERAGE = 1 << 7  # fewer than half of the 7,781 pixels carry information
    NO_POSITION = 1 << 8  # neither catalog nor file gives the sky position
    NO_EXPOSURES = 1 << 9  # the file does not say which fibers and nights the spectrum comes from
