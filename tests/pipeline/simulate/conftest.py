"""One small simulated survey, shared by the simulator's tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.simulate import SimulationSummary, simulate


@dataclass(frozen=True)
class Made:
    """A survey's folder, its summary and its truth as columns."""

    folder: Path
    summary: SimulationSummary
    truth: dict[str, list]

    def coadd(self, index: int = 0, program: str = "dark") -> Path:
        """One of its coadd files."""
        return sorted((self.folder / "healpix" / "main" / program).glob("*/*/coadd-*.fits"))[index]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A survey of 400 quasars among 1,000 rows, many of them strange, with RESOLUTION."""
    folder = tmp_path_factory.mktemp("simulated") / "sky"
    summary = simulate(str(folder), 400, 5, quasar_fraction=0.4, anomaly_fraction=0.12, artefact_fraction=0.12, jobs=1)
    return Made(folder, summary, pq.read_table(summary.truth).to_pydict())
