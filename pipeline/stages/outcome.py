"""What a worker tells the driver about one chunk: one row, its tables packed into cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.stages.source import pack, unpack

QUARANTINE = pa.schema([("targetid", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])

_ROW = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("n_in", pa.int64()),
        ("seconds", pa.float64()),
        ("bytes_read", pa.int64()),
        ("requests", pa.int64()),
        ("rows", pa.large_binary()),
        ("quarantine", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class Outcome:
    """A chunk's fate at one stage: ``done``, ``empty`` (nothing came out) or ``failed``, and why.

    ``rows`` is what goes to the sinks, ``quarantine`` (``QUARANTINE``) what does not, one row a spectrum;
    ``n_in`` = rows + quarantined rows. A failed chunk has quarantined all of its rows; ``failure`` is its reason.
    """

    chunk_id: str
    n_in: int
    rows: pa.Table
    quarantine: pa.Table
    failure: str = ""
    seconds: float = 0.0
    bytes_read: int = 0
    requests: int = 0

    @property
    def state(self) -> str:
        """Ledger state of the chunk."""
        if self.failure:
            return "failed"
        return "done" if self.rows.num_rows else "empty"

    @classmethod
    def failed(cls, chunk_id: str, targetid: Sequence[int], reason: str, detail: str) -> Outcome:
        """All of a chunk's rows into quarantine for one reason."""
        n = len(targetid)
        lost = pa.table([pa.array(targetid, pa.int64()), [reason] * n, [detail] * n], schema=QUARANTINE)
        return cls(chunk_id, n, pa.table({}), lost, failure=reason)

    def to_row(self) -> pa.Table:
        """The one-row table that travels through Ray Data."""
        cells: list[Any] = [
            self.chunk_id, self.state, self.failure, self.n_in, self.seconds, self.bytes_read, self.requests,
            pack(self.rows), pack(self.quarantine),
        ]  # fmt: skip
        return pa.table([pa.array([cell], field.type) for cell, field in zip(cells, _ROW, strict=True)], schema=_ROW)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Outcome:
        """The opposite of `to_row`."""
        return cls(
            row["chunk_id"],
            row["n_in"],
            unpack(row["rows"]),
            unpack(row["quarantine"]),
            row["reason"],
            row["seconds"],
            row["bytes_read"],
            row["requests"],
        )
