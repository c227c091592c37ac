"""Logs: plain lines for a terminal, one JSON object a line in a pod (``SKYSIFT_LOG_FORMAT=json``).

Every JSON line has ``time`` (UTC), ``level``, ``logger``, ``message`` and, once known, ``run`` and ``stage``; lines
about a chunk have ``chunk``, lines of progress their numbers.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.stores.ledger import Outcome

FORMAT = "SKYSIFT_LOG_FORMAT"
LEVEL = "SKYSIFT_LOG"
LOGGER = "skysift"

_context: dict[str, str] = {}


def structured() -> bool:
    """Whether lines are JSON."""
    return os.environ.get(FORMAT, "") == "json"


def configure() -> None:
    """Set up the root logger of this process by the environment."""
    level = os.environ.get(LEVEL, "INFO" if structured() else "WARNING").upper()
    handler = _Stderr()
    if structured():
        handler.setFormatter(_Json())
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        logging.getLogger(LOGGER).setLevel(level)
    else:
        logging.basicConfig(level=level, format="%(levelname)s: %(message)s", handlers=[handler])


def bind(**known: str) -> None:
    """Add fields to all later lines of this process, such as run and stage."""
    _context.update(known)


def event(message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line with fields of its own."""
    logging.getLogger(LOGGER).log(level, message, extra={"fields": fields})


def say(line: str) -> None:
    """Tell the user: a plain line on standard output, or a JSON one among the others."""
    if structured():
        event(line)
    else:
        print(line, flush=True)


def chunks(stage: str, outcomes: Sequence[Outcome]) -> None:
    """Write a line for each chunk that ended; those that failed are warnings."""
    if not structured():
        return
    for outcome in outcomes:
        level = logging.WARNING if outcome.state == "failed" else logging.INFO
        fields: dict[str, Any] = {
            "rows_in": outcome.n_in,
            "rows_out": outcome.n_out,
            "quarantined": outcome.n_quarantined,
        }
        if outcome.reason:
            fields["reason"] = outcome.reason
        event(f"chunk {outcome.state}", level, stage=stage, chunk=outcome.chunk_id, state=outcome.state, **fields)


class _Stderr(logging.Handler):
    """Writes to what ``sys.stderr`` is at that time: a local Ray moves it away from the core's own messages."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_context,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
