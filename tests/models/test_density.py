from __future__ import annotations

import math

import torch

from models.density import Flow


def clouds(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points [2 count, 3] of two clouds that lie apart, and a condition [2 count, 1] that says which."""
    generator = torch.Generator().manual_seed(seed)
    stretch = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.3, 0.0], [0.0, 0.0, 2.0]])
    first = torch.randn((count, 3), generator=generator) @ stretch.T
    second = torch.randn((count, 3), generator=generator) * 0.2 + torch.tensor([6.0, 0.0, 0.0])
    which = torch.arange(2 * count)[:, None] >= count
    return torch.cat([first, second]), which.float()


def test_a_gaussian_has_its_analytic_density() -> None:
    data = torch.randn((20_000, 4), generator=torch.Generator().manual_seed(1))
    flow = Flow.fit(data, torch.zeros(len(data), 2), seed=0)
    fresh = torch.randn((2_000, 4), generator=torch.Generator().manual_seed(2))
    expected = 0.5 * fresh.square().sum(1) + 2.0 * math.log(2.0 * math.pi)
    assert (flow.neg_log_density(fresh, torch.zeros(2_000, 2)) - expected).abs().mean().item() < 0.1


def test_what_is_rare_depends_on_the_condition() -> None:
    flow = Flow.fit(*clouds(4000), seed=0)
    data, which = clouds(500, seed=5)
    as_it_is, as_the_other = flow.neg_log_density(data, which), flow.neg_log_density(data, 1.0 - which)
    assert ((as_the_other - as_it_is) > 3.0).float().mean() > 0.98
    gap = flow.neg_log_density(torch.tensor([[3.8, -2.0, 0.0]]), torch.ones(1, 1))
    assert gap.item() > as_it_is.quantile(0.999).item()


def test_fit_is_reproducible_and_finite() -> None:
    data, which = clouds(200)
    first, second = Flow.fit(data, which, seed=7), Flow.fit(data, which, seed=7)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    same = Flow.fit(torch.ones(30, 3), torch.ones(30, 1), seed=7)
    assert torch.isfinite(same.neg_log_density(data, which)).all()
