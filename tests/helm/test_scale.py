"""k8s/scale.md: its numbers are those of the benchmark's results and of the formula that it gives."""

from __future__ import annotations

import re

import pytest

from tests.helm.conftest import ROOT

PAGE = (ROOT / "k8s" / "scale.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "results" / "throughput.md").read_text(encoding="utf-8")
CORES, NETWORK = 16, 1.25e9  # bytes/s
SURVEYS = (1.6e6, 40e6)
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "GB": 1e9, "TB": 1e12}


def _row(text: str, *begin: str) -> list[str]:
    """The cells behind these in the last row of a table that begins so."""
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    found = [row for row in rows if row[: len(begin)] == list(begin)]
    return found[-1][len(begin) :]


def _costs(stage: str) -> tuple[float, float, float]:
    """c and d of the page, s, and all bytes of b."""
    c, d, b = _row(PAGE, stage)
    return (
        float(c.split()[0]) * 1e-6,
        float(d.split()[0]) * 1e-6,
        sum(float(n) for n in re.findall(r"(\d+) kB", b)) * 1e3,
    )


def _amount(cell: str) -> float:
    number, unit = re.match(r"\**(?:at best )?([\d.]+) (\w+)", cell).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


@pytest.mark.parametrize("stage", ["ingest", "score"])
def test_costs_are_the_benchmarks(stage: str) -> None:
    """Of the larger size; the driver's share from the table of single threads."""
    c, d, _ = _costs(stage)
    assert c * 1e6 == pytest.approx(float(_row(RESULTS, stage, "189,200")[5]))
    sinks = ("Milvus", "PostgreSQL") if stage == "score" else ("PostgreSQL",)
    assert d * 1e6 == pytest.approx(sum(float(_row(RESULTS, stage, sink)[0]) for sink in sinks))


@pytest.mark.parametrize("stage", ["ingest", "score"])
def test_times_follow_from_the_formula(stage: str) -> None:
    c, d, _ = _costs(stage)
    read = float(re.search(r"(\d+) kB in", _row(PAGE, stage)[2])[1]) * 1e3  # type: ignore[index]
    rows = {f"{stage}: processor N·c/C": c / CORES, f"{stage}: driver N·d": d}
    rows[f"{stage}: network N·{read / 1e3:.0f} kB/B"] = read / NETWORK
    for name, seconds in rows.items():
        for cell, spectra in zip(_row(PAGE, name), SURVEYS, strict=True):
            assert _amount(cell) == pytest.approx(spectra * seconds, rel=0.05), (name, cell)


def test_work_and_storage_follow_too() -> None:
    work = sum(_costs(stage)[0] for stage in ("ingest", "score")) / 3600
    for cell, spectra in zip(_row(PAGE, "core-hours of work, N·c"), SURVEYS, strict=True):
        assert float(cell) == pytest.approx(spectra * work, rel=0.05)
    sizes = {
        "read from the survey": 98.4e3,
        "shards kept": 63_346,
        "tables in PostgreSQL, one model": 582,
        "vectors, 32 dimensions of 4 bytes": 128,
    }
    for name, each in sizes.items():
        for cell, spectra in zip(_row(PAGE, name), SURVEYS, strict=True):
            assert _amount(cell) == pytest.approx(spectra * each, rel=0.05), (name, cell)
