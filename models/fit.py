"""Fitting the network: a state that can be stopped and resumed anywhere between segments, and its steps."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from models.basis import fit_basis
from models.config import FitConfig, VAEConfig
from models.density import Flow
from models.detector import Detector, Kind
from models.drift import drift
from models.features import N_CONDITIONS, conditions, embedded
from models.filters import ModelError
from models.grid import N_OBSERVED
from models.losses import divergence, misfit
from models.scores import features, residuals
from models.sky import Sky
from models.trained import TrainedModel, fitted_groups, refined
from models.vae import CLIP, VAE, Prepared, amplitude

WARM_UP = 0.05  # fraction of the steps with a rising learning rate
LAST_RATE = 0.02  # of the peak, at the end of the cosine
WEIGHT_DECAY = 1e-4
MAX_GRADIENT = 1.0
HIDDEN_SHARE = 0.25  # of spectra in a batch that the encoder sees with a gap
COMPOSITE_ROUNDS = 6
FOREST_END = 1180.0  # Å at rest: blueward of it the spectrum is the Lyα forest's more than the line's
LINEAR_SPECTRA = 8192  # that the linear model is solved from, at most


Examples = tuple[Any, Any, Any, Tensor]  # native flux and ivar [N, L], redshifts [N], labels of the detector [N]


class Forward(Protocol):
    """The network itself, or a wrapper that averages its gradients over workers."""

    def __call__(self, spectra: Prepared, seen: Prepared, noise_BD: Tensor) -> tuple[Tensor, Tensor]:
        """As ``VAE.forward``."""


@dataclass
class FitState:
    """All of a training at a segment's end. Equal states continue equally, bit by bit on a CPU."""

    config: FitConfig
    vae: VAE
    optimizer: torch.optim.Optimizer
    generator: torch.Generator  # order, noise and gaps; seeded anew by the caller for every segment
    steps: int  # of the whole schedule
    step: int = 0
    segment: int = 0
    seen: int = 0  # spectra, repeats counted
    stale: int = 0  # segments since the best one
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of the best segment
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def new(cls, vae: VAEConfig, fit: FitConfig, steps: int, device: str | torch.device = "cpu") -> FitState:
        """Return a fresh state; ``steps`` is the length of the learning-rate schedule."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fit.seed)
            network = VAE(vae)
        network = network.to(device)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=fit.learning_rate, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY
        )
        generator = torch.Generator(device=network.mean_R.device).manual_seed(fit.seed)
        return cls(fit, network, optimizer, generator, max(1, steps))

    @property
    def finished(self) -> bool:
        """Whether the last segment is done or patience has run out."""
        return self.segment >= self.config.segments or self.stale >= self.config.patience

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors and plain values, for ``torch.save``."""
        return {
            "vae_config": asdict(self.vae.config),
            "fit_config": asdict(self.config),
            "vae": self.vae.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same settings.

        Raises:
            ValueError: it was saved with other settings; the message names the first that differs.
        """
        for kind, ours in (("vae_config", asdict(self.vae.config)), ("fit_config", asdict(self.config))):
            for key, value in ours.items():
                if state[kind].get(key) != value:
                    raise ValueError(f"checkpoint has {key} = {state[kind].get(key)}, expected {value}")
        self.vae.load_state_dict(state["vae"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        for name in _COUNTERS:
            setattr(self, name, state[name])


_COUNTERS = ("steps", "step", "segment", "seen", "stale", "best_loss", "history")


def composite(flux_BO: Tensor, weight_BO: Tensor, offset_B: Tensor, n_rest: int) -> Tensor:
    """Return the mean quasar of spectra of many redshifts, [R].

    Amplitudes and composite are solved in turn, each by weighted least squares, so that spectra which share
    only part of their rest-frame range are stitched together. Bins never seen take the nearest seen one's value.
    """
    index_BO = offset_B[:, None] + torch.arange(N_OBSERVED, device=offset_B.device)
    mean_R = torch.ones(n_rest, device=offset_B.device)
    for _ in range(COMPOSITE_ROUNDS):
        mean_BO = mean_R.unfold(0, N_OBSERVED, 1).index_select(0, offset_B)
        level_B1 = amplitude(flux_BO, weight_BO, mean_BO).clamp(0.1, 10.0)[:, None]
        top_R = torch.zeros_like(mean_R).index_add_(0, index_BO.view(-1), (weight_BO * level_B1 * flux_BO).view(-1))
        weight = (weight_BO * torch.square(level_B1)).view(-1)
        known_R = torch.zeros_like(mean_R).index_add_(0, index_BO.view(-1), weight)
        mean_R = _filled(top_R, known_R)
    return mean_R


def _filled(top_R: Tensor, known_R: Tensor) -> Tensor:
    """Return top / known, from the nearest known bin where nothing is known."""
    seen = torch.nonzero(known_R > 0)[:, 0]
    if not len(seen):
        return torch.ones_like(top_R)
    place_R = torch.arange(len(top_R), device=top_R.device)
    right = torch.searchsorted(seen, place_R).clamp(max=len(seen) - 1)
    left = (right - 1).clamp(min=0)
    nearest = torch.where((place_R - seen[left]).abs() < (seen[right] - place_R).abs(), seen[left], seen[right])
    return top_R[nearest] / known_R[nearest]


def begin(state: FitState, spectra: Prepared) -> Prepared:
    """Give the fresh network what can be solved for directly, the linear model, from some training spectra.

    It is solved twice: the first one corrects the redshifts that the second, sharper one is made at. Returns all the
    spectra at their corrected redshifts.
    """
    few = torch.arange(min(len(spectra), LINEAR_SPECTRA), device=spectra.scale_B.device)
    grid, latent = state.vae.grid, state.vae.config.latent
    n_forest = int((grid.wavelength < FOREST_END).sum())
    for _ in range(2):
        part = refined(state.vae, spectra.rows(few))  # as catalogued at first
        flux_BO = part.flux_BO.clamp(-CLIP, CLIP)
        mean_R = composite(flux_BO, state.vae.softened(part), part.offset_B, grid.n_rest)
        state.vae.set_linear(fit_basis(flux_BO, part.weight_BO, part.offset_B, mean_R, latent, n_forest))
    return refined(state.vae, spectra)


def train_segment(state: FitState, spectra: Prepared, batch: int, steps: int, forward: Forward | None = None) -> None:
    """Take a segment's optimiser steps in place, in random order, beginning anew when the spectra are used up.

    Args:
        state: what is trained.
        spectra: the segment, on the network's device.
        batch: most spectra a step.
        steps: how many steps to take, equal on all workers.
        forward: the network's wrapper in distributed training.
    """
    started = time.perf_counter()
    state.vae.train()
    total = torch.zeros(2, dtype=torch.float64, device=spectra.scale_B.device)
    for rows in _batches(state.generator, len(spectra), batch, steps):
        total += _step(state, forward or state.vae, spectra.rows(rows))
        state.seen += len(rows)
    state.segment += 1
    misfit_mean, kl_mean = (total / max(1, steps)).tolist()
    state.history.append(
        {
            "segment": state.segment,
            "seen": state.seen,
            "train_misfit": misfit_mean,
            "train_kl": kl_mean,
            "train_loss": misfit_mean + state.config.beta * kl_mean,
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "seconds": time.perf_counter() - started,
        }
    )


def _step(state: FitState, run: Forward, batch: Prepared) -> Tensor:
    device = batch.scale_B.device
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.learning_rate * _schedule(state.step / state.steps)
    shape = (len(batch), state.vae.config.latent)
    noise = torch.randn(shape, generator=state.generator, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        half_chi2_B, kl_B = run(batch, _with_gaps(batch, state.generator), noise)
    parts = torch.stack([half_chi2_B.float().mean(), kl_B.float().mean()]) / N_OBSERVED
    loss = parts[0] + state.config.beta * parts[1]
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.vae.parameters(), MAX_GRADIENT)
    state.optimizer.step()
    state.step += 1
    return parts.detach().double()


def validate(state: FitState, spectra: Prepared) -> float:
    """Return the loss of validation spectra at their posterior means, and add their χ² to the last history entry."""
    state.vae.eval()
    losses, chi2 = [], []
    with torch.no_grad():
        for _, group, latent_GD, model_GO in fitted_groups(state.vae, spectra):
            half_chi2 = misfit(group.flux_BO, state.vae.softened(group), model_GO)
            prior = divergence(latent_GD, torch.zeros_like(latent_GD))
            losses.append((half_chi2 + state.config.beta * prior) / N_OBSERVED)
            pull = group.weight_BO * torch.square(group.flux_BO - model_GO)
            chi2.append(pull.sum(1) / (group.weight_BO > 0).sum(1).clamp(min=1))
    state.history[-1] |= {
        "validation_chi2": float(torch.cat(chi2).double().mean()),  # reduced, against the noise alone
        "validation_chi2_median": float(torch.cat(chi2).median()),
    }
    return float(torch.cat(losses).double().mean())


def judge(state: FitState, loss: float) -> None:
    """Judge the segment just trained by its validation loss; its weights are kept when they are the best so far."""
    state.history[-1]["validation_loss"] = loss
    if loss < state.best_loss:
        state.best_loss, state.stale = loss, 0
        state.best = {name: value.detach().cpu().clone() for name, value in state.vae.state_dict().items()}
    else:
        state.stale += 1


def finish(
    state: FitState,
    training: Prepared,
    validation: Prepared,
    provenance: dict[str, Any],
    examples: Callable[[TrainedModel], Iterable[Examples]] | None = None,
    kinds: tuple[Kind, ...] = (),
) -> TrainedModel:
    """Return the best segment's network with the density of its latents, its own error, and a detector.

    Args:
        state: after its last segment.
        training: spectra whose latents give the density where there are no examples.
        validation: spectra, none of them trained on, that give the model's own error.
        provenance: plain JSON values kept with the model.
        examples: given the model so far, makes spectra with and without departures for the detector to learn from.
        kinds: of departure, in the order of the examples' labels; none: no detector is made.
    """
    vae = copy.deepcopy(state.vae).cpu().eval().requires_grad_(False)
    if state.best:
        vae.load_state_dict(state.best)
    cpu = torch.device("cpu")
    with torch.no_grad():
        pieces = [
            (*residuals(group, model), group.weight_BO, group.offset_B)
            for _, group, _, model in fitted_groups(vae, validation.to(cpu))
        ]
        weighted, level, weight, offset = (torch.cat(part) for part in zip(*pieces, strict=True))
        error = ModelError.estimate(weighted, weight, level, offset, vae.grid.n_rest)
    density = Flow(vae.config.latent, N_CONDITIONS)
    moved = drift(vae, validation.to(cpu))
    model = TrainedModel(vae, density, error, Sky.none(), Detector.none(), moved, provenance, state.history)
    if examples is None:
        model.density = _density(vae, training.to(cpu), state.config.seed)
    else:
        _learn(model, examples(model), kinds, state.config.seed)
    return model


def _density(vae: VAE, training: Prepared, seed: int) -> Flow:
    latents, given = [], []
    with torch.no_grad():
        for _, group, latent_GD, _ in fitted_groups(vae, training):
            latents.append(latent_GD)
            given.append(conditions(group, vae.grid.redshift(group.offset_B - group.slip_B).float()))
    return Flow.fit(torch.cat(latents), torch.cat(given), seed)


def _learn(model: TrainedModel, examples: Iterable[Examples], kinds: tuple[Kind, ...], seed: int) -> None:
    """Give a model its sky, from the first examples, and what is learned from all of them.

    The density is learned from the ordinary ones, some of which are damaged: without those it would take what an arm's
    absence does to an embedding for the rarest of all.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    for flux, ivar, z, label_N in examples:
        if not seen:
            model.sky = Sky.of(torch.as_tensor(ivar))
        seen.append((features(model, flux, ivar, z).half(), label_N))
    features_NF, label_N = (torch.cat(part) for part in zip(*seen, strict=True))
    seen.clear()
    model.density = Flow.fit(*embedded(features_NF[label_N == 0], model.vae.config.latent), seed)
    if kinds:
        model.detector = Detector.fit(features_NF, label_N, kinds, seed)


def _schedule(done: float) -> float:
    """Return the learning rate as a fraction of its peak: a linear rise, then a cosine."""
    if done < WARM_UP:
        return (done + 1e-3) / WARM_UP
    turn = math.pi * min(1.0, (done - WARM_UP) / (1.0 - WARM_UP))
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(turn))


def _batches(generator: torch.Generator, n_rows: int, size: int, steps: int) -> Iterator[Tensor]:
    """Yield row numbers: a random order, repeated when more is asked for than there is, cut into equal parts."""
    order = torch.randperm(n_rows, generator=generator, device=generator.device)
    wanted = max(n_rows, (steps - 1) * size + 1)
    yield from order.repeat(-(-wanted // n_rows))[:wanted].tensor_split(steps)


def _with_gaps(batch: Prepared, generator: torch.Generator) -> Prepared:
    """Return the batch as the encoder sees it: some spectra lose a random run of bins.

    It learns to judge a quasar from any part of its range, as masks and other redshifts will ask of it.
    """
    device = batch.scale_B.device
    start, length, share = torch.rand((3, len(batch), 1), generator=generator, device=device)
    start = start * N_OBSERVED - 200.0
    end = start + torch.where(share < HIDDEN_SHARE, length * 0.4 * N_OBSERVED, 0.0)
    place_O = torch.arange(N_OBSERVED, device=device)
    hidden_BO = (place_O >= start) & (place_O < end)
    return replace(batch, weight_BO=batch.weight_BO.masked_fill(hidden_BO, 0.0))
