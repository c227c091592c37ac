"""Synthetic but realistic contents of a report: spectra with DESI's noise shape, scores, embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.report.contents import Catalog, Contents, Embedding, Facts, Metric, Quarantined, Reason, Spectrum, Step
from pipeline.report.lines import C_KMS, LINES
from pipeline.report.spectra import WAVELENGTH

MASKED = slice(4000, 4120)  # native pixels without information in every synthetic spectrum


def quasar(z: float) -> NDArray[np.float64]:
    """A power law with broad lines, and a forest blueward of Lyα; mean 1."""
    rest = WAVELENGTH / (1.0 + z)
    flux = (rest / 2500.0) ** -1.4
    strength = {"Lyα": 3.0, "C IV": 1.1, "C III]": 0.5, "Mg II": 0.6, "Hβ": 0.7, "Hα": 2.5, "[O III]": 0.9, "N V": 0.5}
    for line in LINES:
        if "e" in line.kinds:
            sigma = line.wavelength * (600.0 if line.name.startswith("[") else 2500.0) / C_KMS
            flux = flux * (1.0 + strength.get(line.name, 0.08) * np.exp(-0.5 * ((rest - line.wavelength) / sigma) ** 2))
    flux = np.where(rest < 1215.67, 0.7 * flux, flux)
    return np.asarray(flux / flux.mean())


def make_spectrum(
    z: float = 2.1, snr: float = 2.5, reason: Reason | None = None, seed: int = 0, rank: int = 1
) -> Spectrum:
    rng = np.random.default_rng([seed, rank])
    model = quasar(z)
    sigma = (0.6 + 2.5 * np.exp(-(WAVELENGTH - 3600.0) / 250.0)) / snr
    lines = (WAVELENGTH > 7200.0) & (rng.random(len(WAVELENGTH)) < 0.05)
    sigma = np.where(lines, sigma * rng.uniform(1.5, 8.0, len(WAVELENGTH)), sigma)
    flux = model.copy()
    if reason is not None and reason.local:
        width = 0.5 * reason.width / C_KMS * reason.wavelength
        shape = np.exp(-0.5 * ((WAVELENGTH - reason.wavelength) / width) ** 2)
        flux = flux * (1.0 - 0.85 * shape) if reason.kind == "absorption" else flux + 1.6 * shape
    if reason is not None and reason.kind == "global":
        flux = flux * (WAVELENGTH / 6000.0) ** 2.2
    flux = flux + sigma * rng.standard_normal(len(WAVELENGTH))
    ivar = 1.0 / sigma**2
    ivar[MASKED] = 0.0
    flux[MASKED] = np.where(np.arange(120) % 2, np.nan, 9e9)  # anything may stand where ivar is 0
    p = float(min(1.0, 10.0 ** -(7.0 - 0.2 * rank)))
    return Spectrum(39627700000000000 + rank, "healpix/main/dark/9144", 150.1 + 0.01 * rank, 2.2, z, snr,
                    12.0 - 0.2 * rank, p, rank < 9, rank, reason,
                    flux.astype("f4"), ivar.astype("f4"), model.astype("f4"))  # fmt: skip


def make_catalog(n: int = 6000, wide: bool = False) -> Catalog:
    rng = np.random.default_rng(5)
    z = rng.gamma(7.0, 0.25, n)
    snr = rng.lognormal(0.6, 0.7, n)
    p = np.where(rng.random(n) < 0.02, rng.random(n) ** 6, rng.random(n))
    rank = np.argsort(np.argsort(p)) + 1
    ra, dec = rng.uniform(149.0, 154.0, n), rng.uniform(-1.0, 4.0, n)
    if wide:
        ra, dec = rng.uniform(0.0, 360.0, n), np.degrees(np.arcsin(rng.uniform(-0.35, 0.95, n)))
    return Catalog(np.arange(n), 39627700000000000 + np.arange(n), ra, dec, z, snr, -np.log(p) + 1.0, p, rank,
                   p < 1e-4, rng.random(n) < 0.5, rng.normal(1.0, 0.05, n))  # fmt: skip


REASONS = (
    Reason("absorption", 9.1, 4680.0, 3400.0, 1.3),
    Reason("emission", 12.4, 6210.0, 276.0, 1.1),
    Reason("global", 7.4, chi2_reduced=1.93),
    Reason("density", 45.3, chi2_reduced=1.02),
    Reason("emission", 8.8, 5578.0, 140.0, 1.0),
    Reason("absorption", 14.2, 7605.0, 1100.0, 1.4),
)


def make_contents(run: str = "demo", top: int = 6, wide: bool = False) -> Contents:
    catalog = make_catalog(wide=wide)
    rng = np.random.default_rng(9)
    facts = Facts(run, "/data/simulated-survey", "finished", datetime(2025, 3, 1, 12, tzinfo=UTC),
                  datetime(2025, 3, 1, 13, tzinfo=UTC), "0.1.0", "3f0c2b1a9d8e7f66",
                  {"embedding": "24 dimensions", "trained on": "4,012 spectra, 9 segments"})  # fmt: skip
    steps = [
        Step("ingest", 6210, 6000, 210, {"done": 118, "failed": 2, "empty": 1}, 3.1, 612_000_000, 2412),
        Step("score", 6000, 6000, 0, {"done": 118}, 2.2, 0, 0),
    ]
    metrics = [
        Metric("plan", "removed_by_zwarn", 412.0, "rows"),
        Metric("report", "chi2_reduced_median", 1.013, ""),
        Metric("report", "p_value_ks", None, ""),
    ]
    quarantine = [
        Quarantined("ingest", "truncated", 180, 2, "coadd-main-dark-9145.fits ends after 12 of 40 MB"),
        Quarantined("ingest", "not_in_file", 30, 4, "TARGETID 39627700000000123 is not in the FIBERMAP <b>"),
    ]
    history = [
        {"train_loss": 0.9 / (k + 1) + 0.5, "validation_loss": 0.92 / (k + 1) + 0.51, "validation_chi2_median": 1.1}
        for k in range(9)
    ]
    zs = (2.02, 1.3, 0.45, 3.3, 2.6, 0.9)
    strange = [make_spectrum(zs[k % 6], (2.5, 8.0, 4.0)[k % 3], REASONS[k % 6], seed=3, rank=k + 1) for k in range(top)]
    examples = [replace(make_spectrum(z, 3.0, None, 4, k + 900), p_value=0.4) for k, z in enumerate((0.3, 1.1, 2.9))]
    vectors = rng.standard_normal((3000, 8)) * np.linspace(3.0, 0.5, 8)
    vectors[:, 0] += 3.0 * (catalog.z[:3000] - 1.7)
    embedding = Embedding(vectors.astype("f4"), catalog.z[:3000], catalog.rank[:3000] <= 24)
    return Contents(facts, 6210, steps, metrics, quarantine, catalog, history, strange, examples, embedding)


@pytest.fixture(scope="session")
def contents() -> Contents:
    return make_contents()


@pytest.fixture(scope="session")
def spectrum_of() -> Callable[..., Spectrum]:
    return make_spectrum


@pytest.fixture(scope="session")
def contents_of() -> Callable[..., Contents]:
    return make_contents
