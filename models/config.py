"""Settings of the network and of its fit; importing them needs nothing but the standard library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VAEConfig:
    """Shape of the variational autoencoder and of its rest-frame grid."""

    latent: int = 32  # dimensions of the embedding
    hidden: int = 256  # width of the hidden layers
    z_max: float = 6.0  # highest redshift whose rest frame the grid covers


@dataclass(frozen=True)
class FitConfig:
    """How the network is fitted."""

    beta: float = 1.0  # weight of the KL term
    batch: int = 128  # spectra a step, over all workers
    learning_rate: float = 2e-3  # peak of the schedule
    segments: int = 12  # most segments (passes between checkpoints)
    patience: int = 3  # segments without improvement before stopping
    seed: int = 1  # of weights, order and noise
