"""Reconstruction of held-out quasars: the network against the linear model it starts from, at equal latent size.

    python -m benchmarks.model_choice WORKSPACE/objects

reads the shards of a finished `skysift run`, trains at several latent sizes on the training pixels and prints the
reduced χ² of the calibration pixels' spectra, overall and by S/N and redshift. The linear model is robust weighted
principal components with each bin's own noise (`models.basis`): the strongest PCA we know how to fit.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from models.config import FitConfig, VAEConfig
from models.fit import FitState, begin, judge, train_segment, validate
from models.trained import fitted_groups, load_spectra
from models.vae import VAE, Prepared
from pipeline.catalog.pixels import pixel_of
from pipeline.shards import read_shard
from pipeline.splits import SPLIT_SEED, SPLITS, split_of
from pipeline.stores.objects import ObjectStore
from pipeline.training import usable

LATENTS = (8, 16, 24, 32)
BANDS = {"S/N<1": (0, 1), "S/N 1–2": (1, 2), "S/N 2–5": (2, 5), "S/N>5": (5, np.inf)}
REDSHIFTS = {"z<1": (0, 1), "z 1–2": (1, 2), "z 2–3": (2, 3), "z>3": (3, np.inf)}


def main() -> None:
    """Read, train, print a table."""
    parts, snr, z = _spectra(ObjectStore.open(sys.argv[1]))
    print(f"{len(parts['train'])} training, {len(parts['validate'])} early-stopping, {len(snr)} test spectra\n")
    names = ["all", *BANDS, *REDSHIFTS]
    chosen = [np.ones(len(snr), bool), *(_within(snr, *b) for b in BANDS.values())]
    chosen += [_within(z, *b) for b in REDSHIFTS.values()]
    print(f"| model | seconds | mean, worst 5% apart | {' | '.join(names)} |\n|{'---|' * (len(names) + 3)}")
    for latent in LATENTS:
        state = FitState.new(VAEConfig(latent=latent), FitConfig(), _steps(parts) * FitConfig().segments)
        for name, fit in (("PCA", _linear), ("VAE", _network)):
            start = time.perf_counter()
            fit(state, parts)
            seconds = time.perf_counter() - start
            chi2 = _chi2(state.vae, parts["calibrate"])
            trimmed = np.sort(chi2)[: int(0.95 * len(chi2))].mean()
            cells = " | ".join(f"{np.median(chi2[rows]):.4f}" if rows.any() else "" for rows in chosen)
            print(f"| {name}-{latent} | {seconds:.0f} | {trimmed:.4f} | {cells} |", flush=True)


def _spectra(objects: ObjectStore) -> tuple[dict[str, Prepared], np.ndarray, np.ndarray]:
    vae = VAE(VAEConfig(latent=1, hidden=1))
    parts: dict[str, list[Prepared]] = {name: [] for name in SPLITS}
    snr, redshift = [], []
    for meta in objects.list("shards"):
        if "grid" in meta.path:
            continue
        shard = read_shard(objects, meta.path)
        pixel = pixel_of(shard.numbers("ra"), shard.numbers("dec"))
        part = split_of(pixel, SPLIT_SEED, spectrum_id_B=shard.spectrum_id_B)
        good = usable(shard.z_B, shard.quality_B, vae.config.z_max)
        for name in SPLITS:
            rows = np.flatnonzero(good & (part == name))
            parts[name].append(load_spectra(vae, shard.flux_BL[rows], shard.ivar_BL[rows], shard.z_B[rows]))
        rows = np.flatnonzero(good & (part == "calibrate"))
        snr.append(shard.snr_B[rows])
        redshift.append(shard.z_B[rows])
    whole = {name: Prepared.cat(pieces) for name, pieces in parts.items()}
    return whole, np.concatenate(snr), np.concatenate(redshift)


def _steps(parts: dict[str, Prepared]) -> int:
    return -(-len(parts["train"]) // FitConfig().batch)


def _linear(state: FitState, parts: dict[str, Prepared]) -> None:
    begin(state, parts["train"])


def _network(state: FitState, parts: dict[str, Prepared]) -> None:
    while not state.finished:
        state.generator.manual_seed(state.segment)
        train_segment(state, parts["train"], state.config.batch, _steps(parts))
        judge(state, validate(state, parts["validate"]))
    state.vae.load_state_dict(state.best)


def _chi2(vae: VAE, spectra: Prepared) -> np.ndarray:
    out_B = np.empty(len(spectra))
    vae.eval()
    with torch.no_grad():
        for rows, group, _, model_GO in fitted_groups(vae, spectra):
            pull = group.weight_BO * (group.flux_BO - model_GO).square()
            out_B[rows.numpy()] = (pull.sum(1) / (group.weight_BO > 0).sum(1)).numpy()
    return out_B


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.asarray((values >= low) & (values < high))


if __name__ == "__main__":
    main()
