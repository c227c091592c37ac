"""Metrics as Prometheus would read them from Ray's agent, and the dashboard's queries of them."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import metrics
from pipeline.stores.ledger import QUARANTINE_SCHEMA, Outcome

ROOT = Path(__file__).resolve().parents[2]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _scraped(port: int, wanted: str) -> str:
    deadline, text = time.monotonic() + 120, ""
    while wanted not in text:
        assert time.monotonic() < deadline, f"{wanted} did not appear in:\n{text[-2000:]}"
        time.sleep(1)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
                text = response.read().decode()
        except OSError:
            continue
    return text


@pytest.mark.slow
def test_what_prometheus_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("prometheus_client") is None or find_spec("opencensus") is None:
        pytest.skip(
            "Ray's metrics agent is not installed, so what it exports was not checked: pip install '.[cluster]'"
        )
    import ray

    port = _free_port()
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    ray.init(num_cpus=1, include_dashboard=False, _metrics_export_port=port, address="local", log_to_driver=False)
    try:
        outcomes = [Outcome("a", "done", 10, 8, 2), Outcome("b", "failed", 5, 0, 5, "truncated")]
        lost = pa.table([["a", "a", "b"], ["c"] * 3, [1, 2, None], [1, 2, None], ["not_in_coadd"] * 2 + ["truncated"],
                         [""] * 3], schema=QUARANTINE_SCHEMA)  # fmt: skip
        with metrics.timed("r", "postgres"):
            metrics.committed("r", "ingest", outcomes, lost)
        metrics.scored("r", pa.table({"global_score": [1.0, 2.0, 3.0, float("nan")]}))
        text = _scraped(port, "ray_skysift_global_score")
    finally:
        ray.shutdown()
    found = {}
    for line in text.splitlines():
        if match := re.match(r"(ray_skysift_\w+)\{(.*)\} (\S+)$", line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            key = (
                match[1],
                *(labels[name] for name in ("stage", "state", "reason", "quantile", "sink") if name in labels),
            )
            found[key] = float(match[3])
    assert found["ray_skysift_spectra_total", "ingest"] == 8
    assert found["ray_skysift_chunks_total", "ingest", "done"] == 1
    assert found["ray_skysift_chunks_total", "ingest", "failed"] == 1
    assert found["ray_skysift_quarantined_total", "ingest", "not_in_coadd"] == 2
    assert found["ray_skysift_quarantined_total", "ingest", "truncated"] == 5
    assert found["ray_skysift_global_score", "0.5"] == 2
    assert found["ray_skysift_sink_seconds_count", "postgres"] == 1
    exported = {key[0] for key in found}
    assert _queried() <= exported


def _queried() -> set[str]:
    """Our metrics that the dashboard's queries name."""
    dashboard = json.loads((ROOT / "helm" / "skysift" / "dashboard.json").read_text(encoding="utf-8"))
    queries = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    return set(re.findall(r"ray_skysift_\w+", queries))


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    source = (ROOT / "pipeline" / "metrics.py").read_text(encoding="utf-8")
    names = {f"ray_skysift_{name}" for name in re.findall(r'_(?:counter|gauge|histogram)\("(\w+)"', source)}
    assert len(names) == 5
    assert {name.removesuffix("_bucket") for name in _queried()} == names
