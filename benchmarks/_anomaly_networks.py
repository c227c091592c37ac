"""Networks judged as such: what they foretell of pixels they were not shown, and what their latents give away.

Every eighth block of observed bins is hidden from what makes the reconstruction (scale, redshift correction, encoder,
amplitude; for PCA the coefficients), and χ² is measured there alone: a model that learns noise by heart gains nothing.
PCA of equal latent size is the yardstick; its redshifts are the catalogue's, uncorrected, and its mean has an amplitude
as ours has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import _anomaly_linear as linear
from benchmarks._anomaly_baselines import FITTED, Bench, Scores
from benchmarks._anomaly_evaluation import KINDS, Row
from benchmarks._anomaly_latents import leaks
from benchmarks._anomaly_ours import made, model_of, seconds_of
from benchmarks._anomaly_sky import Part
from benchmarks._anomaly_unseen import without_detector
from benchmarks._anomaly_variants import Variant
from models.grid import N_OBSERVED, bin_of_pixel
from models.rebin import rebin
from models.trained import TrainedModel, fitted_groups, load_spectra

Array = NDArray[np.float64]

PCA_SIZES = (8, 16, 32, 64)
HIDDEN_BLOCK, EVERY = 16, 8  # bins of a block, 2,200 km/s; one block in so many is hidden
MOST = 8_192  # normals that are looked at
READ = 1024  # spectra at a time
TOLD = (
    "χ²: median over normals of the reduced χ² on bins hidden from what made the reconstruction, against the noise "
    "alone. R²: what boosted trees read off the latents of copies of the same quasars. Our own seconds are with the "
    "detector."
)
BANDS = {"S/N<2": (-np.inf, 2.0), "S/N 2–5": (2.0, 5.0), "S/N>5": (5.0, np.inf)}


@dataclass(frozen=True)
class Network:
    """What is known of one network, or of one PCA (which has no ``redshift``, ``flux`` and ``seconds``: NaN)."""

    name: str
    latent: int
    held_out: dict[str, float]  # band of S/N → median reduced χ² on hidden pixels
    redshift: float = float("nan")  # R² of what the latents of copies tell, see ``_anomaly_latents``
    flux: float = float("nan")
    seconds: float = float("nan")  # of fitting

    def rows(self) -> list[Row]:
        """Return the rows for the CSV file."""
        found = {f"held-out χ², {band}": ("normals", value) for band, value in self.held_out.items()}
        found |= {"size": ("latents", float(self.latent)), "R² redshift": ("latents", self.redshift),
                  "R² flux": ("latents", self.flux), "seconds": ("fit", self.seconds)}  # fmt: skip
        return [Row(self.name, group, metric, value) for metric, (group, value) in found.items() if np.isfinite(value)]


def scored(bench: Bench, variant: Variant, only: tuple[str, ...] = ()) -> Scores:
    """Return a variant's scores, from all components; without a detector, from all but a detector's."""
    found = made(bench, variant, only)
    return found if variant.special.detector else without_detector(bench, variant)


def compared(
    bench: Bench, product: Variant, variants: list[Variant], seed: int, only: tuple[str, ...] = ()
) -> list[Network]:
    """Measure the product's network, those of the variants without a detector, and PCA of several sizes."""
    chosen = [product, *(one for one in variants if not one.special.detector)]
    found = [network(bench, one, seed, one.name in only) for one in chosen]
    return found + [pca(bench, count) for count in PCA_SIZES]


def network(bench: Bench, variant: Variant, seed: int, redo: bool = False) -> Network:
    """Measure a variant's network, or take what the folder has."""

    def make() -> Network:
        model = model_of(bench, variant)
        leak = leaks(model, seed)
        held_out = bands(bench.part("normals"), hidden_chi2(model, bench.part("normals")))
        return Network(variant.name, variant.vae.latent, held_out, leak.redshift, leak.flux)

    return replace(_kept(bench, variant.name, make, redo), seconds=seconds_of(bench, variant))


def pca(bench: Bench, count: int) -> Network:
    """Measure a PCA, fitted as the baselines are, or take what the folder has."""

    def make() -> Network:
        train, normals = bench.part("train"), bench.part("normals")
        components = linear.fit(linear.load(train, np.arange(min(len(train.flux), FITTED))), count)
        return Network(f"PCA-{count}", count, bands(normals, hidden_chi2_pca(components, normals)))

    return _kept(bench, f"PCA-{count}", make, redo=False)


def _kept(bench: Bench, name: str, make: Callable[[], Network], redo: bool) -> Network:
    path = bench.folder / "networks" / f"{name}.json"
    if redo or not path.is_file():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(found), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return Network(**json.loads(path.read_text(encoding="utf-8")))


def bands(part: Part, chi2_N: Array) -> dict[str, float]:
    """Return medians of the first spectra of a part by their S/N; NaN in a band without any."""
    snr_N = part.column("snr")[: len(chi2_N)]
    out = {}
    for name, (low, high) in BANDS.items():
        values = chi2_N[(snr_N >= low) & (snr_N < high) & np.isfinite(chi2_N)]
        out[name] = float(np.median(values)) if len(values) else float("nan")
    return out


def page(networks: list[Network], recall: dict[tuple[str, str], float]) -> list[str]:
    """Return a Markdown table; ``recall`` has the recall at 1% of (name, kind) where there are scores."""
    head = ["network", "latents", *(f"recall 1%, {kind}" for kind in KINDS), *(f"χ², {band}" for band in BANDS),
            "R² of redshift", "R² of flux", "seconds of fitting"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for one in networks:
        found = [*(recall.get((one.name, kind), np.nan) for kind in KINDS), *(one.held_out[band] for band in BANDS)]
        cells = [*(f"{value:.3f}" for value in (*found, one.redshift, one.flux)), f"{one.seconds:.0f}"]
        cells = ["–" if cell == "nan" else cell for cell in cells]
        lines.append(f"| {' | '.join([one.name, str(one.latent), *cells])} |")
    return [*lines, "", TOLD, ""]


def hidden_bins() -> torch.Tensor:
    """Return which observed bins are hidden, bool [O]."""
    return torch.arange(N_OBSERVED) // HIDDEN_BLOCK % EVERY == EVERY // 2


def hidden_chi2(model: TrainedModel, part: Part) -> Array:
    """Return each spectrum's reduced χ² against the noise alone on hidden bins; NaN where none is known."""
    hidden_O = hidden_bins()
    hidden_L = hidden_O.numpy()[bin_of_pixel()]
    out = np.full(min(MOST, len(part.flux)), np.nan)
    for rows in _batches(len(out)):
        flux, ivar = np.array(part.flux[rows]), np.array(part.ivar[rows])
        z = np.clip(part.column("z")[rows], 0.0, model.vae.config.z_max)
        spectra = load_spectra(model.vae, flux, np.where(hidden_L, np.float32(0), ivar), z)
        flux_BO, ivar_BO = rebin(torch.from_numpy(flux), torch.from_numpy(ivar))
        with torch.no_grad():
            for index, group, _, model_GO in fitted_groups(model.vae, spectra):
                guess_GO = model_GO * group.scale_B[:, None]
                out[rows[index.numpy()]] = _reduced(flux_BO[index], ivar_BO[index] * hidden_O, guess_GO)
    return out


def hidden_chi2_pca(components: linear.Components, part: Part) -> Array:
    """Return the same of a PCA."""
    hidden_O, pairs_RP = hidden_bins(), components.pairs()
    out = np.full(min(MOST, len(part.flux)), np.nan)
    for rows in _batches(len(out)):
        for group in linear.load(part, rows).groups():
            seen = replace(group, weight_BO=group.weight_BO * ~hidden_O)
            _, guess_GO = components.fitted(seen, pairs_RP)
            out[group.rows] = _reduced(group.flux_BO, group.weight_BO * hidden_O, guess_GO)
    return out


def _batches(count: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, READ):
        yield np.arange(start, min(start + READ, count))


def _reduced(flux_BO: torch.Tensor, weight_BO: torch.Tensor, model_BO: torch.Tensor) -> Array:
    chi2_B = (weight_BO * (flux_BO - model_BO).square()).sum(1)
    return np.asarray((chi2_B / (weight_BO > 0).sum(1)).double().numpy())
