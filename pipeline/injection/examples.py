"""Examples that a model's detector learns from: a survey's own spectra, as they are and with departures put in.

Some of both are damaged besides, as spectra are: an arm lost, a run masked, pixels of huge error. Nothing can be
learned then from what is missing. Shapes: B spectra, L=7781 native pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.detector import Kind
from models.fit import Examples
from models.trained import TrainedModel
from pipeline.injection import damage
from pipeline.injection.departures import ARTEFACT, CLASSES
from pipeline.injection.parallel import Batch, injected
from pipeline.injection.scoring import hosts_of, yardstick

Flux = NDArray[np.float32]

SIGNIFICANCE: Final = (4.0, 60.0)  # σ⊥, between which examples are log-uniform
DAMAGED: Final = 0.15  # share of all examples
BLENDS: Final = frozenset({"double_quasar", "star_blend", "galaxy_blend", "supernova", "white_dwarf"})


def family(name: str) -> str:
    """Return the family of scores that a class counts for."""
    if name in ARTEFACT:
        return "instrument"
    if name in BLENDS:
        return "blend"
    return "redshift" if name == "wrong_redshift" else "shape"


KINDS: Final = tuple(Kind(name, family(name)) for name in CLASSES)


@dataclass(frozen=True)
class Sample:
    """B spectra of a survey."""

    flux_BL: Flux
    ivar_BL: Flux
    z_B: NDArray[np.float64]
    snr_B: Flux


def examples(
    model: TrainedModel, samples: Iterable[Sample], per_spectrum: float, seed: int, processes: int = 1
) -> Iterator[Examples]:
    """Yield flux, ivar, redshifts and labels: every sample as it is, then with departures of all kinds.

    Args:
        model: reconstructs the light that departures multiply or replace.
        samples: spectra trained on.
        per_spectrum: departures made for each of them.
        seed: decides everything.
        processes: that make departures; the examples are the same with any number.
    """
    batches = _batches(model, samples, per_spectrum, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if processes > 1 else threads)  # what scores the examples would wait for busy CPUs
    try:
        for batch, made in injected(batches, yardstick(model), SIGNIFICANCE, model.vae.config.z_max, processes):
            rng = np.random.default_rng([*batch.seed, 1])
            hosts = batch.hosts
            yield _damaged(rng, hosts.flux_BL, hosts.ivar_BL, hosts.z_B, np.zeros(len(hosts), np.int64))
            if made:
                flux, ivar = (np.stack([getattr(one, name) for _, one in made]) for name in ("flux_L", "ivar_L"))
                labels = np.array([1 + index for index, _ in made])
                yield _damaged(rng, flux, ivar, np.array([one.z for _, one in made]), labels)
    finally:
        torch.set_num_threads(threads)


def _batches(model: TrainedModel, samples: Iterable[Sample], per_spectrum: float, seed: int) -> Iterator[Batch]:
    turn = 0
    for number, sample in enumerate(samples):
        hosts = hosts_of(model, sample.flux_BL, sample.ivar_BL, sample.z_B, sample.snr_B)
        count = round(per_spectrum * len(hosts))
        yield Batch(hosts, turn, count, (seed, number))
        turn += count


def _damaged(
    rng: np.random.Generator, flux_BL: Flux, ivar_BL: Flux, z_B: NDArray[np.float64], label_B: NDArray[np.int64]
) -> Examples:
    """Return examples of which some are damaged; the arrays given stay as they are."""
    flux_BL, ivar_BL = flux_BL.copy(), ivar_BL.copy()
    for row in np.flatnonzero(rng.random(len(z_B)) < DAMAGED).tolist():
        _damage(rng, flux_BL[row], ivar_BL[row])
    return flux_BL, ivar_BL, z_B, torch.as_tensor(label_B)


def _damage(rng: np.random.Generator, flux_L: Flux, ivar_L: Flux) -> None:
    """Take information away from one spectrum, in place."""
    match int(rng.integers(3)):
        case 0:
            damage.lose_arm(rng, ivar_L)
        case 1:
            damage.mask_run(rng, ivar_L)
        case _:
            damage.worsen(rng, flux_L, ivar_L)
