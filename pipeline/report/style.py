"""The figures' common look: colours, axes, and SVG that follows the reader's light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

P = ParamSpec("P")

# Okabe & Ito's colours for every kind of colour vision (Wong 2011, Nature Methods 8, 441)
VERMILLION, BLUE, SKY, GREEN, PURPLE, ORANGE = "#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00"
INK, MUTED, RAW, RULE = "#1c232c", "#66707d", "#bcc4ce", "#dfe4ea"  # each has a twin in the dark scheme
_DARK = {INK: "#e3e8ee", MUTED: "#9aa5b3", RAW: "#525d6b", RULE: "#343d49"}
DENSITY = "viridis"

_RC: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.linewidth": 0.7,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.unicode_minus": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "skysift",
    "path.simplify": True,
    "path.simplify_threshold": 0.1,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw a figure in the house style, leaving matplotlib's own settings as they were."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_RC):
            return draw(*args, **kwargs)

    return wrapper


def tidy(ax: Axes, x: str = "", y: str = "") -> None:
    """Label an axes and take off its top and right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(x)
    ax.set_ylabel(y)


def svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same for the same figure, with colours for light and dark schemes."""
    sink = io.StringIO()
    with mpl.rc_context(_RC):
        figure.savefig(
            sink, format="svg", dpi=160, transparent=True, metadata={"Date": None, "Creator": None, "Type": None}
        )
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' d="[^"]*"', _compact, text)
    for number, colour in enumerate(_DARK):
        text = text.replace(colour, f"var(--c{number})")
    return text.replace(">", f">{_scheme()}", 1)


def _compact(path: re.Match[str]) -> str:
    """The same path in half the characters: tenths of a point are plenty."""
    text = re.sub(r"(\.\d)\d+", r"\1", path[0])
    text = re.sub(r"\.0(?=\D)", "", text)
    text = re.sub(r"(?<=\S)\s+(?=[A-Za-z])|(?<=[A-Za-z])\s+", "", text)
    return " " + re.sub(r"M(\S+) (\S+?)L\1 ", r"M\1 \2V", text).lstrip()


def _scheme() -> str:
    def names(colours: Iterable[str]) -> str:
        return "".join(f"--c{number}:{colour};" for number, colour in enumerate(colours))

    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{names(_DARK.values())}}}}}"
    return f"<style>:root{{{names(_DARK)}}}{dark}</style>"


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return a figure as PNG on white."""
    sink = io.BytesIO()
    with mpl.rc_context(_RC):
        figure.savefig(sink, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return sink.getvalue()
