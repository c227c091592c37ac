from __future__ import annotations

import math

import pytest
import torch

from models.density import GaussianMixture


def two_clouds(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    stretch = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.3, 0.0], [0.0, 0.0, 2.0]])
    first = torch.randn((count, 3), generator=generator) @ stretch.T
    second = torch.randn((count, 3), generator=generator) * 0.2 + torch.tensor([6.0, 0.0, 0.0])
    return torch.cat([first, second])


def test_one_gaussian_has_its_analytic_density() -> None:
    data = torch.randn((20_000, 4), generator=torch.Generator().manual_seed(1))
    mixture = GaussianMixture.fit(data, seed=0, components=1)
    expected = 0.5 * data.square().sum(1) + 2.0 * math.log(2.0 * math.pi)
    assert (mixture.neg_log_density(data) - expected).abs().mean().item() < 0.05


def test_two_clouds_are_found_and_the_gap_is_rare() -> None:
    data = two_clouds(4000)
    mixture = GaussianMixture.fit(data, seed=0, components=2)
    density = mixture.neg_log_density(data)
    gap = mixture.neg_log_density(torch.tensor([[4.0, -2.0, 0.0]]))
    assert gap.item() > density.quantile(0.999).item()
    assert mixture.log_weight_K.exp().tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    one = GaussianMixture.fit(data, seed=0, components=1)
    assert density.mean() < one.neg_log_density(data).mean() - 0.5


def test_fit_is_reproducible_and_bounded_by_the_data() -> None:
    data = two_clouds(200)
    first, second = GaussianMixture.fit(data, seed=7), GaussianMixture.fit(data, seed=7)
    assert torch.equal(first.whiten_KDD, second.whiten_KDD)
    assert len(GaussianMixture.fit(data[:50], seed=7).mean_KD) == 1
    assert torch.isfinite(GaussianMixture.fit(torch.ones(30, 3), seed=7).neg_log_density(data)).all()
