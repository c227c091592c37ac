"""How long cones, rankings and filters take in PostgreSQL at the size of DESI DR1's quasars.

Makes a catalog of 1,600,000 random rows over half of the northern sky in an embedded PostgreSQL, asks as
``skysift_reader`` and prints a Markdown page; plans that use no index end it with an error.
Run: ``python -m benchmarks.catalog [--rows N] [--workspace DIR] [--write]``; a workspace that is given is kept and
used again.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._machine import machine
from pipeline.access import catalog
from pipeline.servers import Servers
from pipeline.stores import postgres, registry
from pipeline.stores.catalog import CALIBRATED, write_calibration
from pipeline.stores.postgres import Connection, fetch_table, scalar, transaction

MODEL = "bench"
RESULTS = Path(__file__).parent / "results" / "catalog.md"
RUNS = 5
Arguments = Callable[[np.random.Generator], tuple[Any, ...]]


def position(rng: np.random.Generator) -> tuple[float, float]:
    """A position in the footprint: ra 100 to 280 deg, dec −18 to 80 deg, even on the sphere."""
    low, high = np.sin(np.radians([-18.0, 80.0]))
    return float(rng.uniform(100, 280)), float(np.degrees(np.arcsin(rng.uniform(low, high))))


def _none(_: np.random.Generator) -> tuple[Any, ...]:
    return ()


CONE = "SELECT targetid, ra, dec, z, rank, separation FROM cone_search(%s, %s, {}) ORDER BY separation"
BRIEF = f"SELECT separation, {', '.join(catalog.BRIEF)} FROM cone_search(%s, %s, {{}}) ORDER BY separation, spectrum_id"
TOP = "SELECT rank, targetid, ra, dec, z, snr, p_value FROM anomaly_catalog WHERE {} ORDER BY rank LIMIT 100"
QUERIES: dict[str, tuple[str, Arguments, int, float | None]] = {  # name → SQL, arguments, queries a run, ms allowed
    "SELECT 1": ("SELECT 1", _none, 1000, None),
    "1′ cone": (CONE.format("1/60.0"), position, 1000, 0.6),
    "1° cone": (CONE.format("1"), position, 300, 6.0),
    "1° cone, as `skysift cone` asks": (BRIEF.format("1"), position, 300, None),
    "1° cone, dec 79": (CONE.format("1"), lambda rng: (float(rng.uniform(100, 280)), 79.0), 300, None),
    "top 100": (TOP.format("true"), _none, 300, 10.0),
    "top 100, z 2 to 2.5 and S/N > 2": (TOP.format("z BETWEEN 2 AND 2.5 AND snr > 2"), _none, 300, 10.0),
    "top 100, verdict physical, p < 1e-3": (
        TOP.format("verdict = 'physical' AND p_value < 1e-3"), _none, 300, 10.0),
    "page of 100 after rank 50,000": (TOP.format("rank > 50000"), _none, 300, 10.0),
}  # fmt: skip


def fill(conn: Connection, rows: int) -> None:
    """Make the catalog: positions even on the sky, redshifts and S/N spread as quasars' are, 1% with a verdict.

    As in a run, ids are hashes, neighbours on the sky lie near each other in ``spectra`` (chunks are of one pixel of
    the sky and come in any order), rows are as wide as real ones, and ``write_calibration`` puts ``scores`` in order.
    """
    registry.register_model(conn, MODEL, run_id="r", uri="", data_hash="", config={}, metrics={})
    with transaction(conn) as cur:
        cur.execute("SELECT setseed(0.5)")
        cur.execute(SPECTRA, (rows,))
        cur.execute(SCORES, (MODEL,))
    write_calibration(conn, MODEL, calibration(conn))
    registry.promote(conn, MODEL)
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("VACUUM ANALYZE")
    conn.autocommit = False


SPECTRA = """
    INSERT INTO spectra (spectrum_id, targetid, coadd, survey, program, healpix, ra, dec, z, zerr, zwarn, snr, ebv,
                         chunk_id, shard, row_group, row)
    SELECT hashint8extended(i, 0) & 9223372036854775807, 39627700000000000 + i, 'healpix/main/dark/' || pixel,
           'main', 'dark', pixel, ra, "dec", 0.1 + 4 * random() ^ 1.3, 3e-4, 0, exp(random() * 4 - 1), 0.05,
           'ingest/main/dark/' || pixel || '/0123456789abcdef',
           'shards/main/dark/' || pixel || '/0123456789abcdef0123456789abcdef.parquet', i %% 16, i %% 512
    FROM (SELECT i, ra, "dec", (floor("dec" + 90) * 360 + floor(ra))::integer AS pixel
          FROM (SELECT i, ra, degrees(asin(sin_dec)) AS "dec"
                FROM (SELECT i, 100 + 180 * random() AS ra, -0.309 + 1.294 * random() AS sin_dec
                      FROM generate_series(1, %s) i) drawn) placed
          ORDER BY hashint4((floor("dec" + 90) * 360 + floor(ra))::integer), i) sky"""
SCORES = """
    INSERT INTO scores (model_id, spectrum_id, chi2_reduced, global_score, local_emission, emission_wavelength,
                        emission_width, local_absorption, absorption_wavelength, absorption_width, density, n_pixels,
                        detection, slip, blend, blend_kind, instrument, instrument_kind, redshift_gain, windows)
    SELECT %s, spectrum_id, 1, 1.5, 4.2, 5000, 600, 3.9, 4300, 800, 30, 7000, -2, 0.01, -3, 'galaxy', -3,
           'calibration', 0.5, '{4.2,5000,600,3.9,4300,800}'
    FROM spectra"""


def calibration(conn: Connection) -> pa.Table:
    """What calibrate would write: ranks in random order, a verdict and a sentence for every hundredth."""
    with transaction(conn) as cur:
        spectrum_id = fetch_table(cur, "SELECT spectrum_id FROM spectra")["spectrum_id"]
    count, rng = len(spectrum_id), np.random.default_rng(5)
    rank = 1 + rng.permutation(count)
    p_value = rank / (count + 1)
    chosen = rank <= count // 100
    words = np.array(["physical", "sky_residual", "spike"])[rank % 3]
    sentence = "emission at 9224 Å (rest 1767 Å), 5,000 km/s wide, 165.3σ"
    columns: dict[str, Any] = {name: pa.nulls(count, kind) for name, kind in CALIBRATED.items()}
    columns |= {name: pa.array(np.full(count, 2.0, np.float32)) for name in CALIBRATED if name.endswith("_surprise")}
    columns |= {"spectrum_id": spectrum_id, "rank": pa.array(rank.astype(np.int32)), "p_value": p_value,
                "anomaly_score": -np.log(p_value), "q_value": np.minimum(1.0, rank / 1e4),
                "extrapolated": pa.array(rank < 50),
                "verdict": pa.array(words, mask=~chosen), "explanation": pa.array([sentence] * count, mask=~chosen),
                "artefact_probability": pa.array(rng.random(count).astype(np.float32), mask=~chosen)}  # fmt: skip
    return pa.table(columns)


def times(conn: Connection, query: str, arguments: Arguments, count: int, rng: np.random.Generator) -> list[float]:
    """Milliseconds of each of ``count`` queries, answers fetched."""
    found = []
    with conn.cursor() as cur:
        for _ in range(count):
            given = arguments(rng)
            start = time.perf_counter()
            cur.execute(query, given)
            cur.fetchall()
            found.append(1e3 * (time.perf_counter() - start))
    return found


def plans(conn: Connection) -> Iterator[tuple[str, str]]:
    """Name and plan of each query; what cone_search runs inside has the plan that its own settings give it."""
    rng = np.random.default_rng(1)
    with conn.cursor() as cur:
        for name, (query, arguments, *_) in QUERIES.items():
            cur.execute("EXPLAIN (COSTS OFF) " + query, arguments(rng))
            yield name, "\n".join(line for (line,) in cur.fetchall())
        cur.execute("SELECT prosrc, proconfig FROM pg_proc WHERE proname = 'cone_search'")
        source, settings = cur.fetchone() or ("", [])
        for setting in settings:
            cur.execute("SELECT set_config(%s, %s, false)", setting.split("="))
        inside = re.search(r"RETURN QUERY\s+(SELECT[^;]+);", source, re.DOTALL)
        assert inside is not None
        query = inside[1]
        for number, name in enumerate(VARIABLES, 1):
            kind = "integer" if name in ("lowest", "highest", "turn") else "float8"
            query = re.sub(rf"\b{name}\b", f"${number}::{kind}", query)
        cur.execute("EXPLAIN (GENERIC_PLAN, COSTS OFF) " + query)
        yield "inside cone_search", "\n".join(line for (line,) in cur.fetchall())


VARIABLES = ("lowest", "highest", "turn", "west", "east", "at_ra", "at_dec", "radius")


def whole_scans(plan: str) -> list[str]:
    """Lines of a plan that read a big table from end to end."""
    return [line.strip() for line in plan.splitlines() if "Seq Scan on s" in line]


def main() -> None:
    """Fill, ask, print; with ``--write`` keep the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_600_000)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/results")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="skysift-") as folder,
        Servers(given.workspace or Path(folder)) as servers,
    ):
        page, bad = measure(servers.postgres_url, given.rows)
    print(page)
    if given.write:
        RESULTS.write_text(page, encoding="utf-8")
    if bad:
        raise SystemExit(f"no index is used: {'; '.join(bad)}")


def measure(url: str, rows: int) -> tuple[str, list[str]]:
    """Return the page, and the lines of plans that read a whole table."""
    load = f"{os.getloadavg()[0]:.1f}"
    conn = postgres.connect(url)
    postgres.migrate(conn)
    if not registry.scored(conn):
        fill(conn, rows)
    reader = postgres.connect(url.replace("postgres@", "skysift_reader@"))
    reader.autocommit = True
    lines = [*_head(reader, load), *_table(reader), "", "```text"]
    bad = []
    for name, plan in plans(reader):
        lines.append(f"{name}\n{plan}\n")
        bad += [f"{name}: {line}" for line in whole_scans(plan)]
    reader.close()
    conn.close()
    return "\n".join([*lines, "```", ""]), bad


def _head(reader: Connection, load: str) -> list[str]:
    with reader.cursor() as cur:
        cur.execute("SELECT count(*), (SELECT count(*) FROM cone_search(190, 30, 1)) FROM anomaly_catalog")
        total, cone = cur.fetchone() or (0, 0)
        cur.execute("SELECT current_setting('server_version') || ', ' || current_setting('shared_buffers')")
        server = scalar(cur)
    return [
        "# Cones and rankings at 1.6 million rows in PostgreSQL", "",
        f"`python -m benchmarks.catalog --write` · {time.strftime('%Y-%m-%d')} · {machine()} · "
        f"load average before {load} · the workspace's own PostgreSQL {server} of shared buffers", "",
        f"{total:,} rows, {cone} of them in a cone of 1°. Asked as `skysift_reader` through psycopg2, answers fetched. "
        "What was tried: `catalog_notes.md`.", "",
    ]  # fmt: skip


def _table(reader: Connection) -> list[str]:
    lines = ["| query | p50 / ms | p99 / ms, median of five runs | all five | allowed | |", "|---|---|---|---|---|---|"]
    found: dict[str, list[list[float]]] = {name: [] for name in QUERIES}
    for run in range(-1, RUNS):  # the first one brings pages into memory
        for name, (query, arguments, count, _) in QUERIES.items():
            taken = times(reader, query, arguments, count, np.random.default_rng(run + 1))
            if run >= 0:
                found[name].append(taken)
    for name, (_, _, _, allowed) in QUERIES.items():
        tails = sorted(float(np.percentile(run, 99)) for run in found[name])
        typical, tail = median(median(run) for run in found[name]), median(tails)
        verdict = "" if allowed is None else ("met" if tail <= allowed else "NOT MET")
        every = ", ".join(f"{one:.2f}" for one in tails)
        lines.append(f"| {name} | {typical:.3f} | {tail:.3f} | {every} | {allowed or ''} | {verdict} |")
    return lines


if __name__ == "__main__":
    main()
