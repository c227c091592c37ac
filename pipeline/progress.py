"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pipeline import logs


class Progress(Protocol):
    """What long work reports to."""

    def advance(self, done: float, note: str = "") -> None:
        """Say that ``done`` more units are finished, with a short note."""


class _Lines:
    """A plain line at the start, every ``seconds`` and at the end: what a pod's log wants."""

    def __init__(self, label: str, total: float, unit: str, seconds: float = 10.0) -> None:
        self.label, self.total, self.unit, self.seconds = label, total, unit, seconds
        self.done = 0.0
        self.start = self.last = time.monotonic()

    def advance(self, done: float, note: str = "") -> None:
        self.done += done
        if time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            self.write(note)

    def write(self, note: str = "") -> None:
        elapsed = max(time.monotonic() - self.start, 1e-9)
        of_total = f" of {self.total:,.0f}" if self.total else ""
        tail = f" · {note}" if note else ""
        per_second = self.done / elapsed
        rate = f" · {per_second:,.0f}/s" if elapsed > 1 and per_second >= 1 else ""
        if logs.structured():
            seconds = round(elapsed, 1)
            logs.event(
                f"{self.label} progress", done=self.done, total=self.total, unit=self.unit, seconds=seconds, note=note
            )
            return
        line = f"{self.label}: {self.done:,.0f}{of_total} {self.unit} · {elapsed:.1f} s{rate}{tail}"
        print(line, file=sys.stderr, flush=True)


class _Bar:
    def __init__(self, label: str, total: float, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(label, total=total or None, note="")

    def advance(self, done: float, note: str = "") -> None:
        self.bar.update(self.task, advance=int(done), note=note)


@contextmanager
def progress(label: str, total: float, unit: str) -> Iterator[Progress]:
    """Report progress of ``total`` units (0: unknown) under a short label."""
    if sys.stderr.isatty() and not logs.structured():
        bar = _Bar(label, total, unit)
        with bar.bar:
            yield bar
        return
    lines = _Lines(label, total, unit)
    yield lines
    lines.write()
