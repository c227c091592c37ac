"""How long cones, rankings and filters take in PostgreSQL at the size of DESI DR1's quasars.

Makes a catalog of 1,600,000 random rows over half of the northern sky in an embedded PostgreSQL, asks as
``skysift_reader`` and prints a Markdown table; plans that use no index end it with an error.
Run: ``python -m benchmarks.catalog [--rows N] [--workspace DIR]``; a workspace that is given is kept and used again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipeline.servers import Servers
from pipeline.stores import postgres, registry
from pipeline.stores.postgres import Connection, scalar, transaction

MODEL = "bench"
RUNS = 5
Arguments = Callable[[np.random.Generator], tuple[Any, ...]]


def position(rng: np.random.Generator) -> tuple[float, float]:
    """A position in the footprint: ra 100 to 280 deg, dec −18 to 80 deg, even on the sphere."""
    low, high = np.sin(np.radians([-18.0, 80.0]))
    return float(rng.uniform(100, 280)), float(np.degrees(np.arcsin(rng.uniform(low, high))))


def _none(_: np.random.Generator) -> tuple[Any, ...]:
    return ()


CONE = "SELECT targetid, ra, dec, z, rank, separation FROM cone_search(%s, %s, {}) ORDER BY separation"
TOP = "SELECT rank, targetid, ra, dec, z, snr, p_value FROM anomaly_catalog WHERE {} ORDER BY rank LIMIT 100"
QUERIES: dict[str, tuple[str, Arguments, int, float | None]] = {  # name → SQL, arguments, queries a run, ms allowed
    "SELECT 1": ("SELECT 1", _none, 1000, None),
    "1′ cone": (CONE.format("1/60.0"), position, 1000, 0.6),
    "1° cone": (CONE.format("1"), position, 300, 6.0),
    "1° cone, dec 79": (CONE.format("1"), lambda rng: (float(rng.uniform(100, 280)), 79.0), 300, None),
    "top 100": (TOP.format("true"), _none, 300, 10.0),
    "top 100, z 2 to 2.5 and S/N > 2": (TOP.format("z BETWEEN 2 AND 2.5 AND snr > 2"), _none, 300, 10.0),
    "top 100, verdict physical, p < 1e-3": (
        TOP.format("verdict = 'physical' AND p_value < 1e-3"), _none, 300, 10.0),
    "page of 100 after rank 50,000": (TOP.format("rank > 50000"), _none, 300, 10.0),
}  # fmt: skip


def fill(conn: Connection, rows: int) -> None:
    """Make the catalog: positions even on the sphere, redshifts and S/N spread as quasars' are, 1% with a verdict.

    As in a run, neighbours on the sky lie near each other in ``spectra`` (chunks are of one pixel of the sky), and
    ``scores`` are in the order of rank.
    """
    registry.register_model(conn, MODEL, run_id="r", uri="", data_hash="", config={}, metrics={})
    with transaction(conn) as cur:
        cur.execute("SELECT setseed(0.5)")
        cur.execute(
            """INSERT INTO spectra (spectrum_id, targetid, coadd, survey, program, healpix, ra, dec, z, snr, chunk_id,
                                    shard, row_group, row)
               SELECT i, 39627700000000000 + i, 'healpix/main/dark/' || i %% 12000, 'main', 'dark', i %% 12000,
                      ra, "dec",
                      0.1 + 4 * random() ^ 1.3, exp(random() * 4 - 1), 'x', 'shards/x.parquet', 0, 0
               FROM (SELECT i, ra, degrees(asin(sin_dec)) AS "dec"
                     FROM (SELECT i, 100 + 180 * random() AS ra, -0.309 + 1.294 * random() AS sin_dec
                           FROM generate_series(1, %s) i) drawn
                     ORDER BY floor(degrees(asin(sin_dec))), floor(ra)) sky""",
            (rows,),
        )
        cur.execute(
            """INSERT INTO scores (model_id, spectrum_id, anomaly_score, p_value, q_value, rank, verdict,
                                   artefact_probability, chi2_reduced, density)
               SELECT %s, i, -ln(r::double precision / %s), r::double precision / %s, least(1, r / 1e4), r,
                      CASE WHEN r <= %s / 100 THEN (ARRAY['physical', 'sky_residual', 'spike'])[1 + r %% 3] END,
                      CASE WHEN r <= %s / 100 THEN random() END, 1, 30
               FROM (SELECT i, row_number() OVER (ORDER BY hashint8(i), i) AS r FROM generate_series(1, %s) i) x
               ORDER BY r""",
            (MODEL, rows + 1, rows + 1, rows, rows, rows),
        )
        cur.execute("INSERT INTO promotion (model_id) VALUES (%s)", (MODEL,))
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("VACUUM ANALYZE")
    conn.autocommit = False


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
    """Name and plan of each query."""
    rng = np.random.default_rng(1)
    with conn.cursor() as cur:
        for name, (query, arguments, *_) in QUERIES.items():
            cur.execute("EXPLAIN (COSTS OFF) " + query, arguments(rng))
            yield name, "\n".join(line for (line,) in cur.fetchall())


def whole_scans(plan: str) -> list[str]:
    """Lines of a plan that read a big table from end to end."""
    return [line.strip() for line in plan.splitlines() if "Seq Scan on s" in line]


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_600_000)
    parser.add_argument("--workspace", type=Path)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="skysift-") as folder,
        Servers(given.workspace or Path(folder)) as servers,
    ):
        measure(servers.postgres_url, given.rows)


def measure(url: str, rows: int) -> None:
    """Print the table of all queries, and their plans."""
    conn = postgres.connect(url)
    postgres.migrate(conn)
    if not registry.scored(conn):
        fill(conn, rows)
    reader = postgres.connect(url.replace("postgres@", "skysift_reader@"))
    reader.autocommit = True
    with reader.cursor() as cur:
        cur.execute("SELECT count(*), (SELECT count(*) FROM cone_search(190, 30, 1)) FROM anomaly_catalog")
        total, cone = cur.fetchone() or (0, 0)
        cur.execute("SHOW server_version")
        print(f"PostgreSQL {scalar(cur)}, {total:,} rows, {cone} of them in a cone of 1°\n")
    print("| query | p50 / ms | p99 / ms, median of five runs | all five | allowed | |\n|---|---|---|---|---|---|")
    found: dict[str, list[list[float]]] = {name: [] for name in QUERIES}
    for run in range(RUNS):
        for name, (query, arguments, count, _) in QUERIES.items():
            found[name].append(times(reader, query, arguments, count, np.random.default_rng(run)))
    for name, (_, _, _, allowed) in QUERIES.items():
        tails = sorted(float(np.percentile(run, 99)) for run in found[name])
        typical, tail = median(median(run) for run in found[name]), median(tails)
        verdict = "" if allowed is None else ("met" if tail <= allowed else "NOT MET")
        every = ", ".join(f"{one:.2f}" for one in tails)
        print(f"| {name} | {typical:.3f} | {tail:.3f} | {every} | {allowed or ''} | {verdict} |")
    print("\n```text")
    bad = []
    for name, plan in plans(reader):
        print(f"{name}\n{plan}\n")
        bad += [f"{name}: {line}" for line in whole_scans(plan)]
    print("```")
    reader.close()
    conn.close()
    if bad:
        raise SystemExit(f"no index is used: {'; '.join(bad)}")


if __name__ == "__main__":
    main()
