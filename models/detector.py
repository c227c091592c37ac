"""A detector of known kinds of departure: a network that tells ordinary spectra from ones with departures put in.

It is the matched filter of what can be simulated. Its log odds are one score among several; the others know nothing
of any kind and stay to catch what nobody thought of. Legend: N examples, F features, C kinds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

HIDDEN = (256, 128)
DROPOUT = (0.3, 0.2)
EPOCHS = 14
BATCH = 256
PEAK_RATE = 2e-3
WEIGHT_DECAY = 2e-2
PART = 16_384  # examples taken at a time
HELD = 8.0  # σ of a feature, beyond which it counts no further
ODD = 0.05  # share of the ordinary examples that may be of the kinds themselves; half or twice as many do as well
LOWEST = -30.0  # log odds where nothing has been learned


@dataclass(frozen=True)
class Kind:
    """A kind of departure and the family it counts for."""

    name: str
    family: str


class Detector(nn.Module):
    """Log likelihood ratios of kinds of departure against none; without kinds, none is ever found."""

    centre_F: Tensor
    scale_F: Tensor
    prior_C: Tensor  # log odds of the kinds among the examples

    def __init__(self, kinds: tuple[Kind, ...], n_features: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.register_buffer("centre_F", torch.zeros(n_features))
        self.register_buffer("scale_F", torch.ones(n_features))
        self.register_buffer("prior_C", torch.zeros(len(kinds)))
        self.net = nn.Sequential()
        if kinds:
            self.net.extend(_layers(n_features, 1 + len(kinds)))

    @classmethod
    def none(cls) -> Detector:
        """Return the detector of nothing."""
        return cls((), 0)

    def log_odds(self, features_NF: Tensor) -> Tensor:
        """Return each kind's log likelihood ratio against an ordinary spectrum, [N, C]: odds at equal shares."""
        if not self.kinds:
            return features_NF.new_zeros(len(features_NF), 0)
        logits = self(features_NF)
        odds: Tensor = logits[:, 1:] - logits[:, :1] - self.prior_C
        return odds

    def forward(self, features_NF: Tensor) -> Tensor:
        """Return logits, [N, 1 + C]; the first is of ordinary spectra."""
        logits: Tensor = self.net(((features_NF - self.centre_F) / self.scale_F).clamp(-HELD, HELD))
        return logits

    def family(self, odds_NC: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Return a family's log odds at equal shares [N], and its best kind's index among all [N], −1 without any."""
        members = [index for index, kind in enumerate(self.kinds) if name in ("", kind.family)]
        if not members:
            return odds_NC.new_full((len(odds_NC),), LOWEST), torch.full((len(odds_NC),), -1, device=odds_NC.device)
        own = odds_NC[:, members]
        joint = torch.logsumexp(own, 1) - math.log(len(members))
        return joint, torch.tensor(members, device=odds_NC.device)[own.argmax(1)]

    @classmethod
    def fit(cls, features_NF: Tensor, label_N: Tensor, kinds: tuple[Kind, ...], seed: int) -> Detector:
        """Fit to examples.

        A survey's own spectra stand for ordinary ones, and a few of them are not: the likelihood knows of such labels
        (forward correction, Patrini et al. 2017, CVPR), so that they do not teach what is to be found as ordinary.

        Args:
            features_NF: of ``models.features``, any floating type.
            label_N: 0 for an ordinary spectrum, else 1 + index of its kind.
            kinds: what the labels mean.
            seed: of weights, order and dropout.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            detector = cls(kinds, features_NF.shape[1]).to(features_NF.device)
            centre_F, scale_F = _moments(features_NF)
            detector.centre_F.copy_(centre_F)
            detector.scale_F.copy_(scale_F.clamp(min=1e-3))
            count_K = torch.bincount(label_N, minlength=1 + len(kinds)).clamp(min=1).log()
            detector.prior_C.copy_(count_K[1:] - count_K[0])
            mislabelled = _mislabelled(label_N)
            optimizer = torch.optim.AdamW(detector.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
            per_epoch = max(1, math.ceil(len(label_N) / BATCH))
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=EPOCHS * per_epoch + 1)
            for _ in range(EPOCHS):
                for rows in torch.randperm(len(label_N)).tensor_split(per_epoch):
                    rows = rows.to(label_N.device)
                    logits = detector(features_NF[rows].float())
                    loss = _loss(logits, label_N[rows], mislabelled)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
        return detector.eval().requires_grad_(False)


def _layers(n_features: int, n_out: int) -> list[nn.Module]:
    sizes = (n_features, *HIDDEN)
    layers: list[nn.Module] = []
    for wide, narrow, drop in zip(sizes[:-1], HIDDEN, DROPOUT, strict=True):
        layers += [nn.Linear(wide, narrow), nn.SiLU(), nn.Dropout(drop)]
    return [*layers, nn.Linear(sizes[-1], n_out)]


def _moments(features_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations, [F] each; the features are many and stay as narrow as they are."""
    parts = [features_NF[at : at + PART] for at in range(0, len(features_NF), PART)]
    mean_F = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(features_NF)
    square_F = torch.stack([torch.square(part.double() - mean_F).sum(0) for part in parts]).sum(0)
    return mean_F, (square_F / max(len(features_NF) - 1, 1)).sqrt()


def _mislabelled(label_N: Tensor) -> float:
    """Return the log probability that an example of some kind is among those labelled ordinary."""
    n_ordinary = int((label_N == 0).sum())
    odd = ODD * n_ordinary
    return math.log(max(odd, 1e-9) / max(odd + len(label_N) - n_ordinary, 1e-9))


def _loss(logits: Tensor, label_N: Tensor, mislabelled: float) -> Tensor:
    """Return the mean −log p of labels, of which the ordinary ones may be wrong."""
    log_p = torch.log_softmax(logits, 1)
    ordinary_N = torch.logaddexp(log_p[:, 0], torch.logsumexp(log_p[:, 1:], 1) + mislabelled)
    return -torch.where(label_N == 0, ordinary_N, log_p.gather(1, label_N[:, None])[:, 0]).mean()
