"""Fifty people at once on the service: how long they wait, and whether anything fails.

Starts ``skysift serve`` on a finished workspace. Each user asks for a page of anomalies, a cone, an object, its
spectrum (JSON) and its look-alikes in turn, and reads for a second on average before the next one.
Run: ``python -m benchmarks.service_load WORKSPACE [--users 50] [--seconds 20] [--write]``; five runs, the median of
their p99.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import median

import httpx2
import numpy as np

from benchmarks._machine import machine

RUNS = 5
READING = 1.0  # s on average
ALLOWED = 100  # ms
RESULTS = Path(__file__).parent / "results" / "service_load.md"


def requests(row: dict[str, str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """What one user asks for, name and URL, again and again."""
    while True:
        yield "page of anomalies", f"/v1/anomalies?limit=50&after={rng.randrange(300)}"
        yield "filtered page", f"/v1/anomalies?limit=50&z_min={rng.uniform(0.5, 2):.2f}&snr_min=1&verdict=physical"
        yield "cone", f"/v1/anomalies?ra={row['ra']}&dec={row['dec']}&radius=0.5"
        yield "object", f"/v1/objects/{row['targetid']}"
        yield "spectrum", f"/v1/spectra/{row['spectrum_id']}"
        yield "look-alikes", f"/v1/similar/{row['targetid']}?k=10"
        yield "SELECT 1 (model)", "/v1/model"


async def user(
    number: int, client: httpx2.AsyncClient, row: dict[str, str], end: float, found: dict[str, list[float]]
) -> int:
    """Ask until the end; return how many answers were no success."""
    rng, failed = random.Random(number), 0
    for name, url in requests(row, rng):
        await asyncio.sleep(rng.expovariate(1 / READING))
        if time.monotonic() > end:
            return failed
        start = time.perf_counter()
        try:
            failed += (await client.get(url)).status_code != 200
        except httpx2.TransportError:
            failed += 1
        found[name].append(1e3 * (time.perf_counter() - start))
    return failed


async def run(address: str, users: int, seconds: float) -> tuple[dict[str, list[float]], int]:
    """Let all users ask; return milliseconds by kind of request, and the number of failures."""
    found: dict[str, list[float]] = defaultdict(list)
    limits = httpx2.Limits(max_connections=users)
    async with httpx2.AsyncClient(base_url=address, timeout=30, limits=limits) as client:
        rows = (await client.get(f"/v1/anomalies?limit={users}")).json()["rows"]
        end = time.monotonic() + seconds
        failed = await asyncio.gather(*(user(i, client, rows[i % len(rows)], end, found) for i in range(users)))
    return found, sum(failed)


def main() -> None:
    """Serve, ask, print; with ``--write`` keep the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/results")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline", "serve", "--workspace", given.workspace, "--port", str(port)]
    server = subprocess.Popen([*command, "--rate", "100000"], stderr=subprocess.DEVNULL)
    try:
        lines = measure(f"http://127.0.0.1:{port}", given.users, given.seconds)
    finally:
        server.terminate()
        server.wait()
    head = ["# Fifty people at once on the service", "",
            f"`python -m benchmarks.service_load WORKSPACE --write` · {time.strftime('%Y-%m-%d')} · {machine()} · load "
            f"average before {load:.1f} · the workspace of `make demo`, its own stores", ""]  # fmt: skip
    page = "\n".join([*head, *lines, ""])
    print(page)
    if given.write:
        RESULTS.write_text(page, encoding="utf-8")


def measure(address: str, users: int, seconds: float) -> list[str]:
    """Return the table's lines."""
    for _ in range(240):
        try:
            if httpx2.get(f"{address}/ready", timeout=30).status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.25)
    asyncio.run(run(address, users, 3.0))  # warm
    runs = [asyncio.run(run(address, users, seconds)) for _ in range(RUNS)]
    total = sum(len(times) for found, _ in runs for times in found.values())
    failed = sum(bad for _, bad in runs)
    lines = [
        f"{users} users, {RUNS} runs of {seconds:g} s, {total:,} answers, {failed} of them no success (asked: none)",
        "",
        "| request | p50 / ms | p99 / ms, median of five runs | all five | allowed | |",
        "|---|---|---|---|---|---|",
    ]
    for name in (*runs[0][0], "all"):
        each = [list(chain(*found.values())) if name == "all" else found[name] for found, _ in runs]
        middle = median(float(np.percentile(one, 50)) for one in each)
        tails = sorted(float(np.percentile(one, 99)) for one in each)
        verdict = "met" if median(tails) <= ALLOWED else "NOT MET"
        every = ", ".join(f"{one:.0f}" for one in tails)
        lines.append(f"| {name} | {middle:.1f} | {median(tails):.1f} | {every} | {ALLOWED} | {verdict} |")
    return lines


if __name__ == "__main__":
    main()
