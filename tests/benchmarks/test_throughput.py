"""The benchmark of throughput runs, small, so that it cannot rot."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.servers
def test_quick_benchmark_measures_both_stages_and_says_where_the_time_goes() -> None:
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith(("| ingest | ", "| score | "))]
    stages = [cells for cells in rows if len(cells) == 10]
    assert [cells[0] for cells in stages] == ["| ingest", "| score"]
    assert all(int(cells[1].replace(",", "")) > 1800 for cells in stages)
    parts = {(cells[0].strip("| "), cells[1]) for cells in rows if len(cells) == 3}
    wanted = {("ingest", part) for part in ("read", "join", "write", "PostgreSQL")}
    wanted |= {("score", part) for part in ("load", "encode and decode", "Milvus", "PostgreSQL")}
    assert wanted <= parts
