"""What a report is made of: plain facts and arrays, gathered from the stores and drawn by the figures.

Legend: N spectra of the run that have scores, L = 7781 native pixels, M sampled embeddings, D latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

STAGES = ("plan", "ingest", "train", "score", "calibrate", "report")
REASONS = ("emission", "absorption", "global", "density", "detection", "blend", "instrument", "redshift")


@dataclass(frozen=True)
class Facts:
    """The run's identity; ``model`` is what to say about the model, name → value."""

    run: str
    survey: str
    state: str
    created: datetime | None
    reported: datetime
    version: str
    model_id: str | None = None
    model: dict[str, str] = field(default_factory=dict)
    trained_on: int | None = None  # spectra


@dataclass(frozen=True)
class Step:
    """One stage's counts over the run's chunks; ``seconds`` is the workers' time added up."""

    stage: str
    rows_in: int
    rows_out: int
    quarantined: int
    chunks: dict[str, int]  # state → number of chunks
    seconds: float
    bytes_read: int
    requests: int


@dataclass(frozen=True)
class Metric:
    """One row of quality_metrics."""

    stage: str
    name: str
    value: float | None
    unit: str


@dataclass(frozen=True)
class Quarantined:
    """Spectra (and coadds) kept back for one reason, with one case told in full."""

    stage: str
    reason: str
    spectra: int
    coadds: int
    example: str


@dataclass(frozen=True)
class Catalog:
    """Scores of N spectra; NaN (rank 0) where something is not known."""

    spectrum_id: Integers
    targetid: Integers
    ra: Floats  # deg, ICRS
    dec: Floats  # deg, ICRS
    z: Floats
    snr: Floats  # median per 0.8 Å pixel
    score: Floats
    p_value: Floats
    rank: Integers
    extrapolated: NDArray[np.bool_]
    training: NDArray[np.bool_]  # the model was trained on it
    chi2_reduced: Floats

    def __len__(self) -> int:
        return len(self.z)


@dataclass(frozen=True)
class Reason:
    """Why a spectrum scores high. ``kind`` is one of ``REASONS``; wavelength and width are of local ones."""

    kind: str
    strength: float  # σ; −ln p of the embedding for density, log odds (nat) for the last four
    wavelength: float = float("nan")  # observed vacuum Å
    width: float = float("nan")  # km/s
    chi2_reduced: float = float("nan")
    template: str = ""  # what a second source, or a fault of the instrument, looks like

    @property
    def local(self) -> bool:
        """Whether it points at one place of the spectrum."""
        return self.kind in ("emission", "absorption")


@dataclass(frozen=True)
class Spectrum:
    """One spectrum to draw; pixels without information have ivar 0. ``model`` is None without a model."""

    targetid: int
    coadd: str
    ra: float
    dec: float
    z: float
    snr: float
    score: float
    p_value: float
    extrapolated: bool
    rank: int
    reason: Reason | None
    flux: NDArray[np.float32]  # [L], 1e-17 erg/s/cm²/Å
    ivar: NDArray[np.float32]  # [L]
    model: NDArray[np.float32] | None  # [L]
    q_value: float = float("nan")
    verdict: str = ""  # of candidates alone, as are the next three
    artefact_probability: float = float("nan")
    explanation: str = ""
    lookalikes: tuple[str, ...] = ()  # the ordinary spectra most like it, TARGETID and redshift


@dataclass(frozen=True)
class Embedding:
    """A sample of M embeddings, and what colours them."""

    vectors: NDArray[np.float32]  # [M, D]
    z: Floats
    top: NDArray[np.bool_]  # among the top anomalies


@dataclass(frozen=True)
class Contents:
    """Everything the report shows; empty parts are said to be missing, not drawn."""

    facts: Facts
    planned: int
    steps: list[Step]
    metrics: list[Metric]
    quarantine: list[Quarantined]
    catalog: Catalog
    history: list[dict[str, float]]
    top: list[Spectrum]
    examples: list[Spectrum]
    embedding: Embedding | None
