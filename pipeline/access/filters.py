"""Which spectra are wanted: ranges, verdicts and a piece of the sky, as SQL with parameters and as Milvus's filter."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import QueryError
from pipeline.verdicts.kinds import VERDICTS

Range = tuple[float | None, float | None]
MAX_RADIUS = 180.0  # deg

_RANGES = {"z": "z", "snr": "snr", "score": "anomaly_score", "p_value": "p_value", "q_value": "q_value"}
_IN_MILVUS = {"z": "z", "snr": "snr", "score": "anomaly_score", "p_value": "p_value"}


@dataclass(frozen=True)
class Cone:
    """A piece of the sky, deg, ICRS."""

    ra: float
    dec: float
    radius: float

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("ra", self.ra, 0.0, 360.0), ("dec", self.dec, -90.0, 90.0), ("radius", self.radius, 0.0, MAX_RADIUS)
        ):  # fmt: skip
            if not low <= value <= high:
                raise QueryError(f"{name} is {value:g}, expected {low:g} to {high:g} deg", "out_of_range")

    @property
    def half_width(self) -> float:
        """How far it reaches in right ascension to either side, deg; 360 where it holds a pole."""
        if abs(self.dec) + self.radius >= 89.999999:
            return 360.0
        return math.degrees(math.asin(math.sin(math.radians(self.radius)) / math.cos(math.radians(self.dec)))) + 1e-8


@dataclass(frozen=True)
class Filters:
    """Ranges are (low, high), both ends included, None for no limit; ``verdict`` any of some."""

    z: Range = (None, None)
    snr: Range = (None, None)
    score: Range = (None, None)
    p_value: Range = (None, None)
    q_value: Range = (None, None)
    verdict: tuple[str, ...] = ()
    artefact_below: float | None = None
    cone: Cone | None = None

    def __post_init__(self) -> None:
        for name in _RANGES:
            low, high = getattr(self, name)
            for value in (low, high):
                if value is not None and not math.isfinite(value):
                    raise QueryError(f"{name} is limited by {value}, expected a number", "out_of_range")
            if low is not None and high is not None and low > high:
                raise QueryError(f"{name} from {low:g} to {high:g} leaves nothing; give the lower end first")
        for name in self.verdict:
            if name not in VERDICTS:
                raise QueryError(f"'{name}' is no verdict; there are {', '.join(VERDICTS)}")

    def where(self) -> tuple[list[str], list[Any]]:
        """Conditions over the columns of ``anomaly_catalog`` with their parameters; the cone is the caller's."""
        conditions, given = [], []
        for name, column in _RANGES.items():
            for value, sign in zip(getattr(self, name), (">=", "<="), strict=True):
                if value is not None:
                    conditions.append(f"{column} {sign} %s")
                    given.append(value)
        if self.verdict:
            conditions.append("verdict = ANY(%s)")
            given.append(list(self.verdict))
        if self.artefact_below is not None:
            conditions.append("artefact_probability < %s")
            given.append(self.artefact_below)
        return conditions, given

    def milvus(self) -> str:
        """The same as a Milvus expression; of a cone only the box around it, and no false discovery rate."""
        if self.q_value != (None, None) or self.artefact_below is not None:
            raise QueryError(
                "look-alikes cannot be filtered by q_value or artefact probability; use p_value or verdict"
            )
        parts = []
        for name, field in _IN_MILVUS.items():
            for value, sign in zip(getattr(self, name), (">=", "<="), strict=True):
                if value is not None:
                    parts.append(f"{field} {sign} {float(value)!r}")
        if self.verdict:
            parts.append(f"verdict in {json.dumps(list(self.verdict))}")
        if self.cone is not None:
            parts += _box(self.cone)
        return " and ".join(parts)


def _box(cone: Cone) -> list[str]:
    parts = [f"dec >= {cone.dec - cone.radius - 1e-8!r}", f"dec <= {cone.dec + cone.radius + 1e-8!r}"]
    width = cone.half_width
    if width < 180.0:
        ranges = [(cone.ra - width + turn, cone.ra + width + turn) for turn in (-360.0, 0.0, 360.0)]
        kept = [(low, high) for low, high in ranges if high >= 0.0 and low <= 360.0]
        parts.append(f"({' or '.join(f'(ra >= {low!r} and ra <= {high!r})' for low, high in kept)})")
    return parts


def separation(cone: Cone, ra: float, dec: float) -> float:
    """Return the angle of a position from a cone's centre, deg."""
    ra1, dec1, ra2, dec2 = map(math.radians, (cone.ra, cone.dec, ra, dec))
    half = math.sin((dec2 - dec1) / 2) ** 2 + math.cos(dec1) * math.cos(dec2) * math.sin((ra2 - ra1) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(half))))


def range_of(value: Any) -> Range:
    """Return a range from what a person gives: None or (low, high)."""
    if value is None:
        return (None, None)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return (value[0] if value[0] is None else float(value[0]), value[1] if value[1] is None else float(value[1]))
    raise QueryError(f"a range is (low, high), with None for no limit; found {value!r}")
