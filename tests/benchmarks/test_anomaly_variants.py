"""What the benchmark's variants change of the product's fit, and how networks are compared on hidden pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import _anomaly_linear as linear
from benchmarks import _anomaly_networks as networks
from benchmarks import _anomaly_variants as variants
from benchmarks._anomaly_observed import ObservedVAE
from benchmarks._anomaly_sky import Part
from benchmarks._anomaly_variants import FreeBits, Special, Variant
from models import basis, fit, losses, vae
from models.config import FitConfig, VAEConfig
from models.fit import FitState, begin, finish, judge, train_segment, validate
from models.grid import bin_of_pixel, native_wavelength
from models.trained import TrainedModel, fitted_groups, load_spectra
from models.vae import Prepared

Pixels = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]


def _pixels(count: int, seed: int, noise: float = 0.05) -> Pixels:
    """Flux, ivar and redshifts of power laws with one broad line at 2800 Å at rest."""
    rng = np.random.default_rng(seed)
    z, slope, line = rng.uniform(0.6, 1.8, count), rng.normal(-1, 0.5, count), rng.uniform(0.3, 1.5, count)
    rest = native_wavelength()[None, :] / (1 + z[:, None])
    flux = (rest / 2500) ** slope[:, None] + line[:, None] * np.exp(-0.5 * ((rest - 2800) / 25) ** 2)
    flux = flux + noise * rng.standard_normal(flux.shape)
    return flux.astype(np.float32), np.full(flux.shape, noise**-2, np.float32), z


def _fitted(text: str, segments: int = 1) -> tuple[Variant, TrainedModel]:
    variant = Variant.parse(f"{text},latent=3,hidden=16,batch=64,z_max=2")
    with variants.changed(variant):
        state = FitState.new(variant.vae, variant.fit, 8 * segments)
        spectra = begin(state, load_spectra(state.vae, *_pixels(256, 1)))
        for number in range(segments):
            state.generator.manual_seed(number)
            train_segment(state, spectra, variant.fit.batch, 8, variants.forward_of(variant, state))
            judge(state, validate(state, spectra))
        return variant, finish(state, spectra, spectra, {})


@pytest.fixture(scope="module")
def product() -> TrainedModel:
    return _fitted("product:detector=no")[1]


@pytest.fixture(scope="module")
def observed() -> TrainedModel:
    return _fitted("x:encoder=observed,learning_rate=0.01", segments=12)[1]


def test_settings_of_the_benchmark_alone() -> None:
    text = "x:latent=8,detector=no,encoder=observed,robust=no,augment=redshift,free_bits=0.5"
    variant = Variant.parse(text)
    assert variant.special == Special(False, "observed", False, "redshift", 0.5)
    assert (variant.vae, variant.fit) == (VAEConfig(latent=8), FitConfig())
    with pytest.raises(ValueError, match="augment is sideways, expected one of gaps, no, redshift"):
        Variant.parse("x:augment=sideways")


def test_a_change_lasts_as_long_as_its_context() -> None:
    with variants.changed(Variant.parse("x:robust=no,free_bits=0.1,encoder=observed")):
        assert isinstance(FitState.new(VAEConfig(latent=2, hidden=4), FitConfig(), 1).vae, ObservedVAE)
        assert vae.misfit(*(torch.full((1, 2), value) for value in (100.0, 1.0, 0.0))) == pytest.approx(1e4)
        assert basis._held(torch.ones(1), torch.full((1,), 1e3)) == 1.0
    assert (vae.misfit, fit.misfit) == (losses.misfit, losses.misfit)
    assert (vae.divergence, basis.OUTLIER, fit.VAE) == (losses.divergence, losses.OUTLIER, vae.VAE)


def test_free_bits_count_every_unused_latent_at_its_price() -> None:
    mean_BD = torch.tensor([[0.0, 2.0], [0.0, -2.0]])
    value = FreeBits(0.5)(mean_BD, torch.zeros(2, 2))
    assert value.tolist() == pytest.approx([0.5 + 2.0, 0.5 + 2.0])


@pytest.mark.parametrize("text", ["x:robust=no", "x:augment=no", "x:augment=redshift", "x:free_bits=0.3"])
def test_variants_learn_something_else_than_the_product(text: str, product: TrainedModel) -> None:
    _, model = _fitted(text)
    assert all(math.isfinite(value) for value in model.history[-1].values())
    same = [torch.equal(a, b) for a, b in zip(model.vae.parameters(), product.vae.parameters(), strict=True)]
    assert not all(same)


def test_without_special_settings_the_fit_is_the_products_bit_by_bit(product: TrainedModel) -> None:
    _, model = _fitted("again:detector=no")
    for name, value in model.vae.state_dict().items():
        assert torch.equal(value, product.vae.state_dict()[name])


def test_copies_elsewhere_are_the_same_quasars(product: TrainedModel) -> None:
    spectra = load_spectra(product.vae, *_pixels(200, 2, noise=0.01))
    spectra.weight_BO[:, :300] = 0.0
    seen = variants.elsewhere(product.vae, spectra, spectra, torch.Generator().manual_seed(0))
    shift_B = seen.offset_B - spectra.offset_B
    moved_B = shift_B != 0
    assert 60 < int(moved_B.sum()) < 140
    assert 300 < int(shift_B.abs().max()) <= variants.MOVED
    for name in ("flux_BO", "weight_BO", "scale_B"):
        assert torch.equal(getattr(seen, name)[~moved_B], getattr(spectra, name)[~moved_B])
    assert torch.equal(seen.weight_BO > 0, spectra.weight_BO > 0)
    before, after = _latents(product, spectra), _latents(product, seen)
    unrelated = (after - before.roll(1, 0))[moved_B].square().median()
    assert (after - before)[moved_B].square().median() < 0.1 * unrelated


def test_the_observed_encoder_learns_and_is_kept(observed: TrainedModel, tmp_path: Path) -> None:
    curve = [one["validation_loss"] for one in observed.history]
    assert min(curve) < 0.8 * curve[0]
    variants.save(observed, tmp_path)
    again = variants.load(tmp_path)
    spectra = load_spectra(observed.vae, *_pixels(30, 3))
    assert torch.equal(_latents(observed, spectra), _latents(again, spectra))
    assert not any(value.requires_grad for value in again.vae.parameters())


def test_the_observed_encoder_sees_the_redshift_and_no_hidden_pixel(observed: TrainedModel) -> None:
    spectra = load_spectra(observed.vae, *_pixels(30, 3))
    spectra.weight_BO[:, 500:900] = 0.0
    latents = _latents(observed, spectra)
    spectra.flux_BO[:, 500:900] = 7.0
    assert torch.equal(_latents(observed, spectra), latents)
    assert not torch.equal(_latents(observed, spectra.moved(torch.tensor(200))), latents)


def _latents(model: TrainedModel, spectra: Prepared) -> torch.Tensor:
    out = torch.empty(len(spectra), model.vae.config.latent)
    with torch.no_grad():
        for rows, _, latent_GD, _ in fitted_groups(model.vae, spectra):
            out[rows] = latent_GD
    return out


class _Kept(Part):
    """A part in memory."""

    def __init__(self, pixels: Pixels) -> None:
        super().__init__(Path("normals"))
        self.__dict__ |= {"flux": pixels[0], "ivar": pixels[1], "z": pixels[2]}

    def column(self, name: str) -> NDArray[np.float64]:
        return self.__dict__["z"] if name == "z" else np.linspace(0.5, 9.5, len(self.flux))


def test_hidden_pixels_judge_and_are_not_seen(product: TrainedModel) -> None:
    pixels = _pixels(200, 4)
    components = linear.fit(linear.load(_Kept(_pixels(256, 1)), np.arange(256)), 3, rounds=4)
    hidden = networks.hidden_bins().numpy()
    assert 0.1 < hidden.mean() < 0.15
    before = [networks.hidden_chi2(product, _Kept(pixels)), networks.hidden_chi2_pca(components, _Kept(pixels))]
    assert all(0.9 < np.median(one) < 1.5 for one in before)
    flux = np.where(hidden[bin_of_pixel()], pixels[0] + np.float32(0.25), pixels[0]).astype(np.float32)
    after = [networks.hidden_chi2(product, _Kept((flux, *pixels[1:]))),
             networks.hidden_chi2_pca(components, _Kept((flux, *pixels[1:])))]  # fmt: skip
    pixels_a_bin = np.bincount(bin_of_pixel())[hidden].mean()
    for old, new in zip(before, after, strict=True):  # nothing gave way: χ² grows by all of (0.25 / 0.05)² a pixel
        assert np.median(new - old) == pytest.approx(25 * pixels_a_bin, rel=0.1)


def test_bands_of_signal_to_noise() -> None:
    chi2 = np.r_[np.full(20, 1.0), np.full(30, 2.0), np.full(49, 3.0), np.nan]
    found = networks.bands(_Kept(_pixels(100, 5)), chi2)
    assert found["S/N<2"] == 1.0
    assert found["S/N>5"] == 3.0


def test_the_table_has_a_row_a_network_and_no_nan() -> None:
    held_out = dict.fromkeys(networks.BANDS, 1.25)
    rows = [networks.Network("bare", 8, held_out, 0.1, 0.2, 60.0), networks.Network("PCA-8", 8, held_out)]
    lines = networks.page(rows, {("bare", "physical"): 0.5})
    assert lines[2] == "| bare | 8 | 0.500 | – | 1.250 | 1.250 | 1.250 | 0.100 | 0.200 | 60 |"
    assert lines[3] == "| PCA-8 | 8 | – | – | 1.250 | 1.250 | 1.250 | – | – | – |"
    assert {row.metric for row in rows[1].rows()} == {*(f"held-out χ², {band}" for band in networks.BANDS), "size"}
