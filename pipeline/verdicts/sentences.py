"""One plain sentence on each anomaly, by its verdict and by what drove its score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.verdicts.features import FEATURES
from pipeline.verdicts.naming import Window, in_forest

STRONG = {"Lyα": 1215.67, "C IV": 1549.06, "C III]": 1908.73, "Mg II": 2799.12, "Hβ": 4862.68, "Hα": 6564.61}
CONFUSED = 0.012  # relative, within which two lines' wavelengths make a confusion of redshifts
LOCAL = 5.0  # σ of the strongest window, below which nothing local is worth pointing at
SECOND = 0.35  # of the strongest window's σ, from which others are named too
FAINT = 0.25  # S/N a pixel, below which there may be no light at all
STARS = {"star_white_dwarf": "a white dwarf", "star_hot_star": "a hot star", "star_cool_star": "a cool star",
         "star_late_star": "a red dwarf"}  # fmt: skip
DIP, HOLE, SPIKE = (4250.0, 4530.0), (8590.0, 8670.0), (5560.0, 5597.0)  # Å, known places


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
    blend: tuple[str, float, float]  # template, σ, redshift
    instrument: tuple[str, float]  # template, σ
    redshift: tuple[float, float]  # the other one, σ
    cluster: dict[str, Any] | None

    @property
    def top(self) -> Window | None:
        """The strongest window."""
        return self.windows[0] if self.windows else None

    def sigma_of(self, feature: str) -> float:
        """Undo a feature's compression: its σ, signed; 0 where it is not known."""
        if self.features is None or not np.isfinite(value := float(self.features[FEATURES.index(feature)])):
            return 0.0
        return 3.0 * math.sinh(value)


def sentence(case: Case) -> str:
    """Say in one sentence why a spectrum is an anomaly."""
    text = _SAID[case.verdict](case)
    return text[0].upper() + text[1:]


def _sigma(value: float) -> str:
    return f"{abs(value):.0f}σ" if abs(value) >= 10 else f"{abs(value):.1f}σ"


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
    where = f"between {low:.0f} and {high:.0f} Å" if len(many) > 1 else f"at {low:.0f} Å"
    return f"misfit on night-sky lines {where} ({_sigma(top.sigma)} at {_at(top)}): an imperfect sky subtraction."


def _arm(case: Case) -> str:
    br = max(abs(case.sigma_of(f"overlap_br_{what}")) for what in ("mean", "slope"))
    rz = max(abs(case.sigma_of(f"overlap_rz_{what}")) for what in ("mean", "slope"))
    blue, red = abs(case.sigma_of("b_ramp")), abs(case.sigma_of("z_scale"))
    inside = abs(case.sigma_of("r_step"))
    name, strength = case.instrument
    best = max(br, rz, blue, red, inside)
    if best < 2:
        said = f" ({_sigma(strength)})" if strength > 2 else ""
        return f"a step where the spectrograph's arms meet{said}."
    if inside > max(blue, red) and inside > 0.7 * max(br, rz):
        place = 6700 + 1800 * float(case.features[FEATURES.index("r_step_wavelength")]) if case.features is not None else 0
        return f"a step within the R arm near {place:.0f} Å ({_sigma(inside)})."
    if max(br, blue) >= max(rz, red):
        seen = f", {_sigma(br)} between the arms where they overlap" if br > 3 else ""
        return f"arm step at 5780 Å: the B arm's flux drifts from the R arm's ({_sigma(max(blue, br))}{seen})."
    seen = f", {_sigma(rz)} between the arms where they overlap" if rz > 3 else ""
    return f"arm step at 7570 Å: the Z arm's flux is off the R arm's ({_sigma(max(red, rz))}{seen})."


def _spike(case: Case) -> str:
    top = case.top
    if top is None:
        return "a spike narrower than the instrument resolves: a cosmic ray or a bad pixel."
    if SPIKE[0] < top.observed < SPIKE[1]:
        return f"spike on the sky's [O I] line at {_at(top)} ({_sigma(top.sigma)})."
    return f"spike at {_at(top)} ({_sigma(top.sigma)}), narrower than the instrument resolves: a cosmic ray or bad pixel."


def _column(case: Case) -> str:
    top = case.top
    for window in case.windows:
        if window.sigma < 0 and DIP[0] < window.observed < DIP[1]:
            return f"dip at {_at(window)} ({_sigma(window.sigma)}), where the B arm's reflectivity fails: not the quasar's."
        if window.sigma < 0 and HOLE[0] < window.observed < HOLE[1]:
            return f"absorption at {_at(window)} ({_sigma(window.sigma)}), a known fault of the Z arm: not the quasar's."
    if top is None:
        return "bad or masked pixels."
    return f"misfit at {_at(top)} ({_sigma(top.sigma)}) as bad or masked pixels make it."


def _group(case: Case) -> str:
    group = case.cluster or {}
    where = {
        "fibers": "of neighbouring fibers on one night", "petal_night": "of one petal on one night",
        "night": "of one night", "petal": "of one petal", "survey": "all over the survey",
    }[group.get("grouping", "fibers")]  # fmt: skip
    expected = group.get("expected", 1.0)
    chance = f"{expected:.0f}" if expected >= 10 else f"{expected:.1f}"
    return (
        f"the same {group.get('kind', 'feature')} at {group.get('observed', 0.0):.0f} Å in {group.get('size', 0)} anomalies "
        f"{where}, where chance makes {chance}: the instrument's, not the quasar's."
    )


def _redshift(case: Case) -> str:
    other, gain = case.redshift
    if not (gain > 2 and math.isfinite(other)):
        return f"an ordinary quasar, but hardly at z = {case.z:.2f}: its lines are not where they should be."
    confusion = _confusion(case.z, other)
    return f"fits z = {other:.2f} far better than {case.z:.2f} ({_sigma(gain)}){confusion}."


def _confusion(z: float, other: float) -> str:
    """Which line was taken for which, if that explains the two redshifts."""
    for true, place in STRONG.items():
        for taken, wanted in STRONG.items():
            if true != taken and abs(place * (1 + other) / (wanted * (1 + z)) - 1) < CONFUSED:
                if 3700 < place * (1 + other) < 9800:
                    return f": {true} was taken for {taken}"
    return ""


def _source(case: Case) -> str:
    kind, sigma, z = case.blend
    name = kind.replace("_", " ").strip()
    if sigma > 3 and name:
        article = "an" if name[0].lower() in "aeiou" else "a"
        if "dwarf" in name.lower() or name.lower() in ("wd", "star wd"):
            return f"looks like a white dwarf, not a quasar ({_sigma(sigma)})."
        at = f" at z = {z:.2f}" if math.isfinite(z) and z > 0.01 else ""
        return f"light of {article} {name}{at} with the quasar's ({_sigma(sigma)})."
    best = max(STARS, key=case.sigma_of)
    if case.sigma_of(best) > max(3.0, 0.7 * case.sigma_of("galaxy_lines")):
        return f"looks like {STARS[best]}, alone or with the quasar: its absorption lines at z = 0 ({_sigma(case.sigma_of(best))})."
    return "another source's light with the quasar's, a star or a galaxy."


def _physical(case: Case) -> str:
    kind, sigma, z = case.blend
    if case.driver == "blend" and sigma > 3:
        at = f" at z = {z:.2f}" if math.isfinite(z) and z > 0.01 else ""
        return f"a second source's light with the quasar's, perhaps a {kind.replace('_', ' ') or 'quasar'}{at} ({_sigma(sigma)})."
    top = case.top
    if case.driver == "redshift" and case.redshift[1] > 3:
        return f"lines that fit z = {case.redshift[0]:.2f} better than {case.z:.2f} ({_sigma(case.redshift[1])}), but not all of them."
    if top is None or abs(top.sigma) < LOCAL or (case.driver in ("density", "global") and abs(top.sigma) < 2 * LOCAL):
        return _overall(case)
    return _troughs(case) or _local(case)


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
    text = f"absorption {_about(low) if low else 0}–{_about(high)} km/s blueward of {top.line} ({_sigma(top.sigma)})"
    broad = high - low >= 2000
    return text + (f", also {also}" if also else "") + (": BAL-like." if broad else ".")


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
        if abs(window.velocity) < 800 + 0.25 * window.width:
            return f"{rest}, {sure}{window.line}"
        side = "blueward" if window.velocity < 0 else "redward"
        return f"{rest}, {sure}{_about(abs(window.velocity))} km/s {side} of {window.line}"
    if window.kind == "absorption" and in_forest(window):
        return f"{rest}, in the Lyα forest"
    return f"{rest}, where no line is known" if window.kind == "emission" else rest


_SAID: dict[str, Callable[[Case], str]] = {
    "sky_residual": _sky, "arm_step": _arm, "spike": _spike, "bad_column": _column, "fiber_group": _group,
    "wrong_redshift": _redshift, "star_or_blend": _source, "physical": _physical,
}  # fmt: skip

