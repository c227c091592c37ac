"""Variants of the model in the anomaly benchmark, and what they change of the product's fit.

A variant is written ``NAME:key=value,key=value``. Keys are fields of ``VAEConfig``, of ``FitConfig``, and of
``Special``: what only the benchmark can do, by exchanging a piece of the product's fit while it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks._anomaly_observed import ObservedVAE
from models import basis, files, fit, vae
from models.config import FitConfig, VAEConfig
from models.fit import FitState, Forward
from models.grid import N_OBSERVED
from models.rebin import take
from models.trained import TrainedModel
from models.vae import VAE, Prepared, amplitude, prepare

ENCODER = "encoder.safetensors"  # of a network with an encoder of its own, beside the product's files
CHOICES = {"encoder": ("product", "observed"), "augment": ("gaps", "no", "redshift")}
MOVED_SHARE = 0.5  # of a batch that is seen at another redshift
MOVED = 500  # bins, 0.1 dex: the most by which 1 + z is changed


@dataclass(frozen=True)
class Special:
    """Settings that the product does not have."""

    detector: bool = True  # no: the network is judged by its own scores alone
    encoder: str = "product"  # observed: as spender's, see ``_anomaly_observed``
    robust: bool = True  # no: a Gaussian likelihood, in the linear model too
    augment: str = "gaps"  # no: spectra as they are; redshift: gaps, and at other redshifts
    free_bits: float = 0.0  # nats of each latent that its KL divergence costs at least (Kingma et al. 2016)


@dataclass(frozen=True)
class Variant:
    """Settings under a name."""

    name: str
    vae: VAEConfig
    fit: FitConfig
    special: Special = Special()

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read ``NAME:key=value,…``.

        Raises:
            ValueError: no configuration has such a key, or the key has no such value.
        """
        name, _, rest = text.partition(":")
        given = dict(word.split("=", 1) for word in rest.split(",") if word)
        for key, known in CHOICES.items():
            if given.get(key, known[0]) not in known:
                raise ValueError(f"variant {name}: {key} is {given[key]}, expected one of {', '.join(known)}")
        made: list[Any] = []
        for config in (VAEConfig, FitConfig, Special):
            own = {one.name: type(one.default) for one in fields(config)}
            made.append(config(**{key: _value(own[key], given.pop(key)) for key in list(given) if key in own}))
        if given:
            raise ValueError(f"variant {name}: no setting {', '.join(given)}")
        return cls(name, *made)


def _value(kind: type, text: str) -> Any:
    return text.lower() in ("1", "true", "yes") if kind is bool else kind(text)


@contextmanager
def changed(variant: Variant) -> Iterator[None]:
    """Exchange what a variant changes of the product's fit, for as long as the context lasts."""
    special = variant.special
    with ExitStack() as stack:
        if special.encoder == "observed":
            stack.enter_context(exchanged(fit, "VAE", ObservedVAE))
        if not special.robust:
            for module, name, value in ((fit, "misfit", half_chi2), (vae, "misfit", half_chi2),
                                        (basis, "OUTLIER", math.inf)):  # fmt: skip
                stack.enter_context(exchanged(module, name, value))
        if special.free_bits > 0:
            free = FreeBits(special.free_bits)
            stack.enter_context(exchanged(vae, "divergence", free))
        yield


@contextmanager
def exchanged(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Put ``value`` in the place of a module's name, for as long as the context lasts."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def half_chi2(flux: Tensor, weight: Tensor, model: Tensor) -> Tensor:
    """Return half the χ² of each spectrum, [B]."""
    return 0.5 * (weight * torch.square(flux - model)).sum(1)


@dataclass(frozen=True)
class FreeBits:
    """A KL divergence of which each latent's mean over the batch counts only from ``nats`` upwards."""

    nats: float

    def __call__(self, mean_BD: Tensor, log_variance_BD: Tensor) -> Tensor:
        """Return the batch's mean for every spectrum, [B]."""
        each_BD = 0.5 * (torch.square(mean_BD) + log_variance_BD.exp() - 1.0 - log_variance_BD)
        return each_BD.mean(0).clamp(min=self.nats).sum().expand(len(mean_BD))


def forward_of(variant: Variant, state: FitState) -> Forward | None:
    """Return what stands for the network in ``train_segment`` and chooses what the encoder sees; None: as ours."""
    if variant.special.augment == "gaps":
        return None
    if variant.special.augment == "no":
        return lambda spectra, seen, noise_BD: state.vae(spectra, spectra, noise_BD)
    return lambda spectra, seen, noise_BD: state.vae(
        spectra, elsewhere(state.vae, spectra, seen, state.generator), noise_BD
    )


@torch.no_grad()
def elsewhere(network: VAE, spectra: Prepared, seen: Prepared, generator: torch.Generator) -> Prepared:
    """Return the batch as the encoder sees it, half of it as the same quasars would look at other redshifts.

    Such a copy is the object's own reconstruction, as the network has it at this step, at another offset of the
    rest-frame grid, with noise drawn anew: the spectrum's own in each observed bin, since instrument and sky stay
    where they are, and what ordinary quasars scatter about the linear model there. Gaps stay, and the copy is
    normalised by its own flux, as a new spectrum would be. What is to be reconstructed is still the spectrum itself
    at its own redshift: latents that change with redshift cost likelihood (in the spirit of the consistency loss of
    Liang et al. 2023, AJ 166, 75).
    """
    share_B, far_B = torch.rand((2, len(spectra)), generator=generator, device=spectra.scale_B.device)
    shift_B = torch.round((2.0 * far_B - 1.0) * MOVED).long() * (share_B < MOVED_SHARE)
    offset_B = (spectra.offset_B + shift_B).clamp(0, network.grid.n_rest - N_OBSERVED)
    window = network.window(spectra)
    latent_BD, _ = network.encode(window)
    low, high = (min(int(offset_B.min()), window.low),
                 max(int(offset_B.max()) + N_OBSERVED, window.low + window.flux_BR.shape[1]))  # fmt: skip
    model_BR = network.decode(latent_BD, low, high)
    own_BR = model_BR[:, window.low - low :][:, : window.flux_BR.shape[1]]
    level_B1 = amplitude(window.flux_BR, network.soft_window(window), own_BR)[:, None]
    copy = Prepared(take(model_BR, offset_B - low, N_OBSERVED) * level_B1, seen.weight_BO, seen.scale_B, offset_B,
                    seen.slip_B)  # fmt: skip
    soft_BO = network.softened(copy)
    noise_BO = torch.randn(soft_BO.shape, generator=generator, device=soft_BO.device)
    flux_BO = torch.where(soft_BO > 0, copy.flux_BO + noise_BO * soft_BO.clamp(min=1e-12).rsqrt(), 0.0)
    copy = prepare(flux_BO * copy.scale_B[:, None], copy.weight_BO / copy.scale_B.square()[:, None], offset_B)
    moved_B1 = (offset_B != spectra.offset_B)[:, None]
    return replace(
        seen,
        flux_BO=torch.where(moved_B1, copy.flux_BO, seen.flux_BO),
        weight_BO=torch.where(moved_B1, copy.weight_BO, seen.weight_BO),
        scale_B=torch.where(moved_B1[:, 0], copy.scale_B, seen.scale_B),
        offset_B=offset_B,
    )


def save(model: TrainedModel, home: Path) -> None:
    """Write a model as the product does; what the product's network does not have goes beside it."""
    network = model.vae
    if isinstance(network, ObservedVAE):
        product = VAE(network.config)
        ours = product.state_dict().keys()
        weights = network.state_dict()
        home.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in weights.items() if name not in ours}, home / ENCODER)
        product.load_state_dict({name: weights[name] for name in ours})
        model = replace(model, vae=product)
    files.save(model, home)


def load(home: Path) -> TrainedModel:
    """Read a model that ``save`` wrote."""
    model = files.load(home)
    if not (home / ENCODER).is_file():
        return model
    network = ObservedVAE(model.vae.config)
    network.load_state_dict(model.vae.state_dict() | load_file(home / ENCODER))
    return replace(model, vae=network.eval().requires_grad_(False))
