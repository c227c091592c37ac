"""Whether another redshift is found where the catalogued one is wrong, and how often where it is not.

    python -m benchmarks.other_redshift FOLDER [--write]

FOLDER is one of ``python -m benchmarks.anomaly``'s; its parts ``train``, ``injected`` and ``normals`` are used. Only
the linear model is fitted, on the first training spectra: nothing else judges redshifts.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._anomaly_sky import Part
from models.config import FitConfig, VAEConfig
from models.fit import FitState, begin
from models.other_redshift import FAR_BETTER, confusion, other_redshifts
from models.trained import load_spectra
from models.vae import VAE

RESULTS = Path(__file__).parent / "results" / "other_redshift.md"
TRAINING, NORMALS, EACH = 4_096, 2_048, 48  # spectra: of the linear model, of ordinary ones, of every other class
FOUND = 0.01  # |Δz| / (1 + z)
BATCH = 64
BANDS = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, np.inf), (2.0, np.inf), (0.0, np.inf))  # of S/N


@dataclass(frozen=True)
class Looked:
    """N spectra whose redshifts were looked for."""

    z: NDArray[np.float64]
    truth: NDArray[np.float64]
    snr: NDArray[np.float64]
    other: NDArray[np.float64]
    gain: NDArray[np.float64]
    seconds: float  # a spectrum, of processor time, loading left out


def main() -> None:
    """Fit, look, print; with ``--write`` keep the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    vae = linear_model(Part(asked.folder / "train"))
    injected = Part(asked.folder / "injected")
    label = injected.column("class")
    wrong = looked(vae, injected, np.flatnonzero(label == "wrong_redshift"))
    normal = looked(vae, Part(asked.folder / "normals"), np.arange(NORMALS))
    others = {
        name: looked(vae, injected, np.flatnonzero(label == name)[:EACH])
        for name in np.unique(label).tolist()
        if name != "wrong_redshift"
    }
    text = page(wrong, normal, others)
    print(text)
    if asked.write:
        RESULTS.write_text(text, encoding="utf-8")


def linear_model(part: Part) -> VAE:
    """Return a network of which only the linear model is solved."""
    state = FitState.new(VAEConfig(), FitConfig(), steps=1)
    rows = slice(0, TRAINING)
    begin(state, load_spectra(state.vae, np.array(part.flux[rows]), np.array(part.ivar[rows]), part.column("z")[rows]))
    return state.vae.eval().requires_grad_(False)


def looked(vae: VAE, part: Part, rows: NDArray[np.int64]) -> Looked:
    """Look for other redshifts of some rows of a part, as many at a time as the pipeline takes."""
    z = np.clip(part.column("z")[rows], 0.01, vae.config.z_max - 0.01)
    other, gain, seconds = np.empty(len(rows)), np.empty(len(rows)), 0.0
    for start in range(0, len(rows), BATCH):
        here = slice(start, start + BATCH)
        spectra = load_spectra(vae, part.flux[rows[here]], part.ivar[rows[here]], z[here])
        began = time.process_time()
        found = other_redshifts(vae, spectra)
        seconds += time.process_time() - began
        other[here], gain[here] = found.z.numpy(), found.gain.numpy()
    return Looked(z, part.column("z_true")[rows], part.column("snr")[rows], other, gain, seconds / len(rows))


def page(wrong: Looked, normal: Looked, others: dict[str, Looked]) -> str:
    """Return the tables."""
    right = np.abs(wrong.other - wrong.truth) / (1 + wrong.truth) < FOUND
    error = 299_792.458 * (np.abs(wrong.other - wrong.truth) / (1 + wrong.truth))[right]
    named = [confusion(z, other) != "" for z, other in zip(wrong.z[right], wrong.other[right], strict=True)]
    lines = [
        "# Other redshifts of simulated quasars",
        "",
        f"`python -m benchmarks.other_redshift FOLDER --write`, {time.strftime('%Y-%m-%d')}, one thread, "
        f"{platform.machine()}, {os.cpu_count()} cores, shared with other work. Linear model of the first {TRAINING:,} "
        "spectra of `train`, anomalies among them.",
        "",
        f"Far better: a gain above {FAR_BETTER:.0f} nat. Found: |Δz|/(1+z) < {FOUND}. {1e6 * normal.seconds:.0f} µs of "
        "processor time a spectrum, loading left out.",
        "",
        f"## Wrong redshifts ({len(wrong.z)}) and ordinary quasars ({len(normal.z)})",
        "| S/N | wrong | found | found, far better | median gain | ordinary | far better | highest 1% of gains from |",
        "|" + "---|" * 8,
    ]
    for low, high in BANDS:
        one, two = ((kind.snr >= low) & (kind.snr < high) for kind in (wrong, normal))
        band = f"{low:g}–{high:g}" if np.isfinite(high) else f"≥ {low:g}" if low else "all"
        far = wrong.gain > FAR_BETTER
        shares = (right[one].mean(), (right & far)[one].mean())
        lines.append(
            f"| {band} | {one.sum()} | {shares[0]:.3f} | {shares[1]:.3f} | {np.median(wrong.gain[one]):.0f} "
            f"| {two.sum()} | {(normal.gain[two] > FAR_BETTER).mean():.4f} "
            f"| {np.quantile(normal.gain[two], 0.99):.1f} |"
        )
    lines += [
        "",
        f"Error of those found: median {np.median(error):.0f} km/s, nine of ten below {np.quantile(error, 0.9):.0f}. "
        f"Two lines name the confusion of {100 * np.mean(named):.0f}% of them.",
        "",
        f"## Other departures ({EACH} each): a gain alone is no wrong redshift",
        "| class | far better |",
        "|---|---|",
        *(f"| {name} | {(one.gain > FAR_BETTER).mean():.2f} |" for name, one in others.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
