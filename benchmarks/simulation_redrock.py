"""Does redrock, with DESI's own templates, find the redshifts of simulated quasars?

Run: ``python -m benchmarks.simulation_redrock TEMPLATES [--quasars 640] [--pixels 2]`` where TEMPLATES is a checkout
of github.com/desihub/redrock-templates (not on PyPI). Only normal quasars are simulated. Redrock takes about 0.5 s
a spectrum.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

TEMPLATES = ("QSO-LOZ-v1.0", "QSO-HIZ-v1.1", "STAR-A-v0.1", "STAR-G-v0.1", "STAR-M-v0.1", "STAR-WD-v0.1")
LIGHT = 299792.458  # km/s
WRONG = 3000.0  # km/s; beyond it a redshift is another line's


def fit(templates: Path, coadd: Path, out: Path) -> NDArray[np.void]:
    """Run redrock on one coadd; its REDSHIFTS table."""
    import fitsio
    from redrock.external.desi import rrdesi

    os.environ["RR_TEMPLATE_DIR"] = str(templates)
    names = out.with_suffix(".txt")
    names.write_text("".join(f"{templates}/rrtemplate-{name}.fits\n" for name in TEMPLATES))
    rrdesi(["-i", str(coadd), "-o", str(out), "--mp", "1", "-t", str(names)])
    table: NDArray[np.void] = fitsio.read(str(out), "REDSHIFTS")
    return table


def compare(table: NDArray[np.void], truth: pa.Table) -> dict[str, NDArray[np.float64]]:
    """Redrock's answers beside the truth, by target."""
    rows = {t: i for i, t in enumerate(truth["targetid"].to_pylist())}
    pick = np.array([rows[t] for t in table["TARGETID"].tolist()])
    z = truth["z_true"].to_numpy()[pick]
    return {
        "z": z,
        "snr": truth["snr"].to_numpy()[pick],
        "slip": (table["Z"] - z) / (1 + z) * LIGHT,
        "sure": (table["ZWARN"] == 0).astype(float),
        "chi2": table["CHI2"] / table["NPIXELS"],
    }


def rows(found: dict[str, NDArray[np.float64]]) -> list[str]:
    """A Markdown table by S/N."""
    lines = [
        "| median S/N | quasars | ZWARN = 0 | of these right | median offset km/s | spread km/s | χ²/pixel |",
        "|---|---|---|---|---|---|---|",
    ]
    for low, high in ((0, 0.5), (0.5, 1), (1, 2), (2, 5), (5, 100), (0, 100)):
        pick = (found["snr"] >= low) & (found["snr"] < high)
        sure = pick & (found["sure"] > 0)
        right = sure & (np.abs(found["slip"]) < WRONG)
        slip = found["slip"][right]
        spread = 1.4826 * np.median(np.abs(slip - np.median(slip)))
        share = right.sum() / max(sure.sum(), 1)
        lines.append(
            f"| {low}–{high} | {pick.sum()} | {sure.sum()} | {share:.1%} | {np.median(slip):+.0f} | {spread:.0f}"
            f" | {np.median(found['chi2'][pick]):.3f} |"
        )
    return lines


def main() -> None:
    """Simulate, fit, compare."""
    from pipeline.simulate import simulate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("templates", type=Path)
    parser.add_argument("--quasars", type=int, default=640)
    parser.add_argument("--pixels", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sky = Path(folder) / "sky"
        made = simulate(str(sky), asked.quasars, 4, quasar_fraction=1, anomaly_fraction=0, artefact_fraction=0, jobs=1)
        truth = pq.read_table(made.truth)
        coadds = sorted((sky / "healpix/main/dark").glob("*/*/coadd-*.fits"))[: asked.pixels]
        found = [compare(fit(asked.templates, path, Path(folder) / f"{path.stem}-fit.fits"), truth) for path in coadds]
    merged = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    sys.stdout.write("\n".join(rows(merged)) + "\n")


if __name__ == "__main__":
    main()
