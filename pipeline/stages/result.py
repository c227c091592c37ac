"""What a worker tells the driver about one chunk: one row, its tables packed into cells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.stages.source import pack, unpack
from pipeline.stores import ledger

QUARANTINE = pa.schema(
    [("targetid", pa.int64()), ("spectrum_id", pa.int64()), ("reason", pa.string()), ("detail", pa.string())]
)

_ROW = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("coadd", pa.string()),
        ("n_in", pa.int64()),
        ("rows", pa.large_binary()),
        ("quarantine", pa.large_binary()),
        ("failure", pa.string()),
        ("seconds", pa.float64()),
        ("bytes_read", pa.int64()),
        ("requests", pa.int64()),
    ]
)


@dataclass(frozen=True)
class ChunkResult:
    """A chunk's fate at one stage.

    ``rows`` goes to the sinks; ``quarantine`` (schema ``QUARANTINE``) names what does not. When the whole file
    was refused, ``failure`` is the short reason and ``quarantine`` one row with a null targetid.
    """

    chunk_id: str
    coadd: str
    n_in: int
    rows: pa.Table
    quarantine: pa.Table
    failure: str = ""
    seconds: float = 0.0
    bytes_read: int = 0
    requests: int = 0

    @classmethod
    def failed(cls, chunk_id: str, coadd: str, n_in: int, reason: str, detail: str) -> ChunkResult:
        """The whole chunk is refused for one reason."""
        lost = pa.table([[None], [None], [reason], [detail]], schema=QUARANTINE)
        return cls(chunk_id, coadd, n_in, pa.table({}), lost, reason)

    @property
    def outcome(self) -> ledger.Outcome:
        """The chunk's line in the ledger."""
        done = "done" if self.rows.num_rows else "empty"
        return ledger.Outcome(
            chunk_id=self.chunk_id,
            state="failed" if self.failure else done,
            n_in=self.n_in,
            n_out=self.rows.num_rows,
            n_quarantined=self.n_in if self.failure else self.quarantine.num_rows,
            reason=self.failure or None,
            seconds=self.seconds,
            bytes_read=self.bytes_read,
            requests=self.requests,
        )

    def quarantined(self) -> pa.Table:
        """Rows of ``ledger.QUARANTINE_SCHEMA``."""
        n = self.quarantine.num_rows
        columns = [pa.repeat(self.chunk_id, n), pa.repeat(self.coadd, n), *self.quarantine.columns]
        return pa.table(columns, schema=ledger.QUARANTINE_SCHEMA)

    def to_row(self) -> pa.Table:
        """The one-row table that travels through Ray Data."""
        cells: dict[str, Any] = {field.name: getattr(self, field.name) for field in _ROW}
        cells |= {"rows": pack(self.rows), "quarantine": pack(self.quarantine)}
        return pa.Table.from_pylist([cells], schema=_ROW)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> ChunkResult:
        """The opposite of `to_row`."""
        return cls(**(row | {"rows": unpack(row["rows"]), "quarantine": unpack(row["quarantine"])}))


@dataclass(frozen=True)
class StageSummary:
    """What a stage did this time: chunks finished, rows in, out and quarantined, and wall seconds."""

    chunks: int
    n_in: int
    n_out: int
    n_quarantined: int
    seconds: float

    def metrics(self) -> dict[str, float | tuple[float, str]]:
        """As quality metrics of the stage's last run."""
        return {
            "spectra": (self.n_out, "spectra"),
            "quarantined": (self.n_quarantined, "spectra"),
            "seconds": (self.seconds, "s"),
            "rate": (self.n_out / max(self.seconds, 1e-9), "spectra/s"),
        }


def summary(outcomes: Sequence[ledger.Outcome], start: float) -> StageSummary:
    """Add up what was done since ``start`` (``time.monotonic``)."""
    return StageSummary(
        chunks=len(outcomes),
        n_in=sum(outcome.n_in for outcome in outcomes),
        n_out=sum(outcome.n_out for outcome in outcomes),
        n_quarantined=sum(outcome.n_quarantined for outcome in outcomes),
        seconds=time.monotonic() - start,
    )
