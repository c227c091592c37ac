"""Which line a window may be: at the redshift, at a velocity, and whether other windows agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.lines import BAL_REACH, C_KMS, LINES, LYA_LIMIT, Line, mark

TROUGHS = ("N V", "Si IV", "C IV", "Al III", "Mg II")  # lines that make broad troughs (Weymann et al. 1991)
NEAR = 700.0  # km/s, 1σ of how far a line lies from its place: redshift errors and shifts
AGREE = 1500.0  # km/s, within which troughs of two lines have one velocity
NOTHING = 0.25  # weight of there being no known line
BROAD = 900.0  # km/s, narrower absorption is an absorber's, no outflow's


@dataclass(frozen=True)
class Window:
    """One window of a spectrum's misfit, and the line it may be."""

    sigma: float  # negative: absorption
    observed: float  # Å, centre
    width: float  # km/s
    rest: float  # Å
    line: str  # "" for none
    velocity: float  # km/s of the centre from that line, negative to the blue; NaN without one
    certainty: float  # 0 to 1, that it is that line
    mark: str  # known trouble of the sky or the instrument there, or ""

    @property
    def kind(self) -> str:
        """Emission or absorption."""
        return "emission" if self.sigma > 0 else "absorption"

    @property
    def is_trough(self) -> bool:
        """Whether it may be broad absorption, an outflow's."""
        blueward = -BAL_REACH <= self.velocity < -0.5 * self.width
        return self.kind == "absorption" and self.line in TROUGHS and self.width > BROAD and blueward

    @property
    def on_line(self) -> bool:
        """Whether it lies on its line, rather than to one side."""
        return bool(self.line) and abs(self.velocity) < 800 + 0.25 * self.width

    def as_json(self) -> dict[str, Any]:
        """Return it with plain values, see docs/why.md."""
        return {
            "sigma": round(self.sigma, 2),
            "kind": self.kind,
            "observed": round(self.observed, 1),
            "rest": round(self.rest, 1),
            "width": round(self.width),
            "line": self.line or None,
            "velocity": round(self.velocity) if self.line else None,
            "certainty": round(self.certainty, 2) if self.line else None,
            "mark": self.mark or None,
        }


def name_windows(windows_WK: NDArray[np.float64], z: float) -> list[Window]:
    """Return a spectrum's windows [W, 3] (σ, observed Å, km/s) with the lines they may be, strongest first.

    A line's weight falls with its distance from where it should be and with its rank; absorption may also be a
    trough to the blue of a strong line, which counts for more when another window is the same trough of another line.
    """
    rows = windows_WK[np.isfinite(windows_WK).all(1) & (windows_WK[:, 0] != 0)]
    rows = rows[np.argsort(-np.abs(rows[:, 0]), kind="stable")]
    rest = rows[:, 1] / (1 + z)
    offers = [_offers(float(r), float(row[2]), "emission" if row[0] > 0 else "absorption")
              for r, row in zip(rest, rows, strict=True)]  # fmt: skip
    named = []
    for i, row in enumerate(rows):
        others = [one for j, part in enumerate(offers) if j != i for one in part]
        line, velocity, certainty = _best(offers[i], others)
        sigma, observed, width = (float(value) for value in row)
        named.append(Window(sigma, observed, width, float(rest[i]), line, velocity, certainty, mark(observed)))
    return named


@dataclass(frozen=True)
class _Offer:
    line: Line
    velocity: float
    weight: float
    trough: bool


def _offers(rest: float, width: float, kind: str) -> list[_Offer]:
    spread = NEAR + 0.3 * width
    made = []
    for line in LINES:
        if kind[0] not in line.kinds:
            continue
        velocity = C_KMS * (rest / line.wavelength - 1.0)
        if abs(velocity) < 2.5 * spread:
            weight = float(np.exp(-0.5 * (velocity / spread) ** 2)) / (1 + line.order)
            made.append(_Offer(line, velocity, weight, False))
        if kind == "absorption" and line.name in TROUGHS and -BAL_REACH <= velocity < -0.5 * width:
            weight = 0.5 * float(np.exp(velocity / 12_000.0)) / (1 + line.order) * (1.0 if width > BROAD else 0.05)
            made.append(_Offer(line, velocity, weight, True))
    return made


def _best(offers: list[_Offer], others: list[_Offer]) -> tuple[str, float, float]:
    """Return the likeliest line, its velocity and how sure it is."""
    if not offers:
        return "", float("nan"), 0.0
    weights = []
    for one in offers:
        friends = {o.line.name for o in others if o.trough == one.trough and o.line.name != one.line.name
                   and abs(o.velocity - one.velocity) < AGREE}  # fmt: skip
        weights.append(one.weight * (1 + 2 * len(friends)) if one.trough else one.weight)
    best = int(np.argmax(weights))
    return offers[best].line.name, offers[best].velocity, weights[best] / (sum(weights) + NOTHING)


def in_forest(window: Window) -> bool:
    """Whether a window lies where the Lyα forest absorbs."""
    return window.rest < LYA_LIMIT
