"""One plain sentence on each anomaly, by its verdict and by what drove its score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.other_redshift import FAR_BETTER, TAKEN
from pipeline.verdicts.features import FEATURES
from pipeline.verdicts.naming import Window, in_forest

STRONG = {"Lyα": 1215.67, "C IV": 1549.06, "C III]": 1908.73, "Mg II": 2799.12, "Hβ": 4862.68, "Hα": 6564.61}
LOCAL = 5.0  # σ of the strongest window, below which nothing local is worth pointing at
SECOND = 0.35  # of the strongest window's σ, from which others are named too
BROAD_LINE = 2000.0  # km/s
FAINT = 0.25  # S/N a pixel, below which there may be no light at all
STARS = {"star_white_dwarf": "a white dwarf", "star_hot_star": "a hot star", "star_cool_star": "a cool star",
         "star_late_star": "a red dwarf"}  # fmt: skip
LIGHTS = {  # a detector's kinds of second sources
    "white_dwarf": "looks like a white dwarf, not a quasar", "star_blend": "light of a star with the quasar's",
    "galaxy_blend": "light of a galaxy with the quasar's", "supernova": "light of a supernova with the quasar's",
    "double_quasar": "light of a second quasar with the first one's",
}  # fmt: skip
SEAMS = {"arm_step_5800": True, "arm_step_7570": False}  # a detector's kinds: whether it is the blue seam
LIKELY = 3.0  # log odds, from which a detector's kind is worth a word
DIP, HOLE, SPIKE = (4250.0, 4530.0), (8590.0, 8670.0), (5560.0, 5597.0)  # Å, known places


@dataclass(frozen=True)
class OtherRedshift:
    """The redshift that fits best far from the catalogued one; NaN and "" where there is none."""

    z: float
    gain: float  # log evidence over the catalogued redshift, nat
    lines: str  # as ``models.other_redshift.confusion`` names them

    @property
    def far_better(self) -> bool:
        """Whether it fits so much better that chance is no explanation."""
        return self.gain > FAR_BETTER

    def as_json(self) -> dict[str, Any]:
        """Return it with plain values, see docs/why.md."""
        return {"other": known(self.z), "gain": known(self.gain), "lines": self.lines or None}


def known(value: float) -> float | None:
    """Return a number for JSON, None for NaN."""
    return round(value, 4) if math.isfinite(value) else None


@dataclass(frozen=True)
class Case:
    """All that is known of one anomaly; NaN and "" where something is not."""

    verdict: str
    probability: float
    artefact_probability: float
    z: float
    snr: float
    windows: list[Window]  # strongest first
    driver: str  # one of global, emission, absorption, density, blend, instrument, redshift
    surprises: dict[str, float]  # −ln p by driver
    chi2_reduced: float
    features: NDArray[np.float32] | None
    blend: tuple[str, float]  # kind of second source, log odds
    instrument: tuple[str, float]  # kind of fault, log odds
    redshift: float  # log odds of a wrong one
    other: OtherRedshift
    cluster: dict[str, Any] | None

    @property
    def top(self) -> Window | None:
        """The strongest window."""
        return self.windows[0] if self.windows else None

    def value_of(self, feature: str) -> float:
        """Return a feature as it is; 0 where it is not known."""
        value = 0.0 if self.features is None else float(self.features[FEATURES.index(feature)])
        return value if math.isfinite(value) else 0.0

    def sigma_of(self, feature: str) -> float:
        """Undo a feature's compression: its σ, signed; 0 where it is not known."""
        return 3.0 * math.sinh(self.value_of(feature))


def sentence(case: Case) -> str:
    """Say in one sentence why a spectrum is an anomaly."""
    text = _SAID[case.verdict](case)
    return text[0].upper() + text[1:]


def _sigma(value: float) -> str:
    return f"{abs(value):.0f}σ" if abs(value) >= 10 else f"{abs(value):.1f}σ"


def _odds(log_odds: float) -> str:
    """Odds as a power of ten, from their natural log."""
    return f"odds 10^{log_odds / math.log(10):.1f}"


def _about(value: float) -> str:
    """Two figures: a filter's width is no measurement of the feature's."""
    return f"{float(f'{value:.2g}'):,.0f}"


def _at(window: Window) -> str:
    return f"{window.observed:.0f} Å"


def _sky(case: Case) -> str:
    top = case.top
    if case.snr < FAINT and abs(case.z - 3.8) < 0.4:
        return f"no light but the sky's: a fiber that saw only sky, taken for a quasar at z = {case.z:.2f}."
    if top is None:
        return "residuals of the night sky's lines: an imperfect sky subtraction."
    many = [w for w in case.windows if w.observed > 7200] or [top]
    low, high = min(w.observed for w in many), max(w.observed for w in many)
    where = f"between {low:.0f} and {high:.0f} Å" if high - low > 1 else f"at {low:.0f} Å"
    return (
        f"misfit on night-sky lines {where} ({_sigma(many[0].sigma)} at {_at(many[0])}): an imperfect sky subtraction."
    )


def _arm(case: Case) -> str:
    overlap = {arms: max(abs(case.sigma_of(f"overlap_{arms}_{what}")) for what in ("mean", "slope"))
               for arms in ("br", "rz")}  # fmt: skip
    blue, red, inside = (abs(case.sigma_of(name)) for name in ("b_ramp", "z_scale", "r_step"))
    if max(*overlap.values(), blue, red, inside) < 2:
        said = f" ({_odds(case.instrument[1])})" if case.instrument[1] > LIKELY else ""
        return f"a step where the spectrograph's arms meet{said}."
    known = case.instrument[0] if case.instrument[1] > LIKELY else ""  # a step at a seam also looks like one within R
    within = inside > max(blue, red) and inside > 0.7 * max(overlap.values())
    if known == "step_within_r" or (within and known not in SEAMS):
        place = 6700 + 1800 * case.value_of("r_step_wavelength")
        return f"a step within the R arm near {place:.0f} Å ({_sigma(inside)})."
    at_blue = SEAMS.get(known, max(overlap["br"], blue) >= max(overlap["rz"], red))
    gap, own = (overlap["br"], blue) if at_blue else (overlap["rz"], red)
    what = (
        "arm step at 5780 Å: the B arm's flux drifts from" if at_blue else "arm step at 7570 Å: the Z arm's flux is off"
    )
    seen = f", {_sigma(gap)} between the arms where they overlap" if gap > 3 else ""
    return f"{what} the R arm's ({_sigma(max(own, gap))}{seen})."


def _spike(case: Case) -> str:
    top = case.top
    if top is None:
        return "a spike narrower than the instrument resolves: a cosmic ray or a bad pixel."
    if SPIKE[0] < top.observed < SPIKE[1]:
        return f"spike on the sky's [O I] line at {_at(top)} ({_sigma(top.sigma)})."
    return (
        f"spike at {_at(top)} ({_sigma(top.sigma)}), narrower than the instrument resolves: a cosmic ray or bad pixel."
    )


def _column(case: Case) -> str:
    places = (("dip_4390", DIP, "dip", "where the B arm's reflectivity fails"),
              ("absorption_8630", HOLE, "absorption", "a known fault of the Z arm"))  # fmt: skip
    for _, (low, high), what, reason in places:
        here = [w for w in case.windows if w.sigma < 0 and low < w.observed < high]
        if here:
            return f"{what} at {_at(here[0])} ({_sigma(here[0].sigma)}), {reason}: not the quasar's."
    for feature, (low, high), what, reason in places:
        if case.sigma_of(feature) < -LOCAL:
            middle = 0.5 * (low + high)
            return f"{what} near {middle:.0f} Å ({_sigma(case.sigma_of(feature))}), {reason}: not the quasar's."
    if case.top is None:
        return "bad or masked pixels."
    return f"misfit at {_at(case.top)} ({_sigma(case.top.sigma)}) as bad or masked pixels make it."


def _group(case: Case) -> str:
    group = case.cluster or {}
    where = {
        "fibers": "of neighbouring fibers on one night", "petal_night": "of one petal on one night",
        "night": "of one night", "petal": "of one petal", "survey": "all over the survey",
    }[group.get("grouping", "fibers")]  # fmt: skip
    expected = group.get("expected", 1.0)
    chance = f"{expected:.0f}" if expected >= 10 else f"{expected:.1f}"
    what, size = f"{group.get('kind', 'feature')} at {group.get('observed', 0.0):.0f} Å", group.get("size", 0)
    return (
        f"the same {what} in {size} anomalies {where}, where chance makes {chance}: the instrument's, not the quasar's."
    )


def _redshift(case: Case) -> str:
    other = case.other
    if other.far_better:
        true, _, taken = other.lines.partition(TAKEN)
        better = (
            f"{true} at z = {other.z:.2f} fits far better than {taken} at z = {case.z:.2f}"
            if other.lines
            else f"fits z = {other.z:.2f} far better than {case.z:.2f}"
        )
        return f"{better} (gain {other.gain:.0f})."
    said = f" ({_odds(case.redshift)})" if case.redshift > LIKELY else ""
    return f"an ordinary quasar, but hardly at z = {case.z:.2f}: its lines are not where they should be{said}."


def _source(case: Case) -> str:
    name, odds = case.blend
    best = max(STARS, key=case.sigma_of)
    strength = case.sigma_of(best)
    if odds > LIKELY and name in LIGHTS:
        return f"{LIGHTS[name]} ({_odds(odds)})."
    if strength > max(3.0, 0.7 * case.sigma_of("galaxy_lines")):
        return f"looks like {STARS[best]}, alone or with the quasar: its absorption at z = 0 ({_sigma(strength)})."
    return "another source's light with the quasar's, a star or a galaxy."


def _physical(case: Case) -> str:
    name, odds = case.blend
    if case.driver == "blend" and odds > LIKELY and name in LIGHTS:
        return f"{LIGHTS[name]} ({_odds(odds)})."
    if case.driver == "redshift" and case.redshift > LIKELY:
        if case.other.far_better:
            return _redshift(case)
        return f"its lines fit z = {case.z:.2f} badly, and no other redshift well ({_odds(case.redshift)})."
    top = case.top
    if top is None or abs(top.sigma) < LOCAL or (case.driver in ("density", "global") and abs(top.sigma) < 2 * LOCAL):
        return _overall(case)
    return _troughs(case) or _weak_line(case) or _shape(case) or _local(case)


def _overall(case: Case) -> str:
    chi2 = f" (χ² {case.chi2_reduced:.2f} a bin)" if math.isfinite(case.chi2_reduced) else ""
    if case.driver == "density":
        text = "unusual continuum or line shape overall: a rare combination of ordinary features"
    else:
        text = f"unusual continuum or line shape overall{chi2}, without one strong feature"
    top = case.top
    return text + (f"; most at {_at(top)}, {_line(top)} ({_sigma(top.sigma)})." if top and abs(top.sigma) > 3 else ".")


def _troughs(case: Case) -> str:
    """Broad absorption: the velocities of the strongest line's troughs, then the other lines'."""
    top = case.top
    if top is None or not top.is_trough:
        return ""
    own = [w for w in case.windows if w.is_trough and w.line == top.line]
    low = max(min(-w.velocity - 0.5 * w.width for w in own), 0.0)
    high = max(-w.velocity + 0.5 * w.width for w in own)
    others = {w.line: w for w in reversed(case.windows) if w.is_trough and w.line != top.line}
    also = ", ".join(f"{name} ({_sigma(w.sigma)})" for name, w in list(others.items())[::-1])
    text = f"absorption {_about(low)}–{_about(high)} km/s blueward of {top.line} ({_sigma(top.sigma)})"
    usual = top.line in ("C IV", "Si IV", "N V") or bool(others)
    return text + (f", also {also}" if also else "") + (": BAL-like." if usual else ": perhaps an outflow.")


def _weak_line(case: Case) -> str:
    """A broad deficit on a strong emission line."""
    top = case.windows[0]
    if top.sigma > 0 or top.width < BROAD_LINE or top.line not in STRONG or not top.on_line:
        return ""
    return f"{top.line} emission at {_at(top)} weaker than in quasars like it, or absorbed ({_sigma(top.sigma)})."


def _shape(case: Case) -> str:
    """Broad excess and broad deficit side by side: no feature, but another shape."""
    top = case.windows[0]
    if top.width < BROAD_LINE:
        return ""
    broad = [w for w in case.windows[1:] if w.width >= BROAD_LINE and abs(w.sigma) > SECOND * abs(top.sigma)]
    against = [w for w in broad if w.sigma * top.sigma < 0]
    if not against:
        return ""
    high, low = (top, against[0]) if top.sigma > 0 else (against[0], top)
    return (f"unusual continuum or line shape overall: too bright near {_at(high)} ({_sigma(high.sigma)}), "
            f"too faint near {_at(low)} ({_sigma(low.sigma)}).")  # fmt: skip


def _local(case: Case) -> str:
    top = case.windows[0]
    others = [w for w in case.windows[1:] if abs(w.sigma) >= max(SECOND * abs(top.sigma), 4.0)][:2]
    also = ", ".join(f"{w.kind} at {_at(w)} ({_sigma(w.sigma)})" for w in others)
    text = f"{top.kind} at {_at(top)}, {_line(top)}, {_about(top.width)} km/s wide ({_sigma(top.sigma)})"
    trouble = f" [{top.mark}]" if top.mark else ""
    return text + trouble + (f"; also {also}" if also else "") + "."


def _line(window: Window) -> str:
    rest = f"rest {window.rest:.0f} Å"
    if window.line and window.certainty >= 0.35:
        sure = "" if window.certainty >= 0.6 else "perhaps "
        if window.on_line:
            return f"{rest}, {sure}{window.line}"
        side = "blueward" if window.velocity < 0 else "redward"
        return f"{rest}, {sure}{_about(abs(window.velocity))} km/s {side} of {window.line}"
    if window.kind == "absorption" and in_forest(window):
        return f"{rest}, in the Lyα forest"
    return f"{rest}, away from the usual lines" if window.kind == "emission" else rest


_SAID: dict[str, Callable[[Case], str]] = {
    "sky_residual": _sky, "arm_step": _arm, "spike": _spike, "bad_column": _column, "fiber_group": _group,
    "wrong_redshift": _redshift, "star_or_blend": _source, "physical": _physical,
}  # fmt: skip
