"""Anomaly scores against their baselines on simulated surveys.

    python -m benchmarks.anomaly [--quick] [--write] [--folder DIR]

simulates spectra (``benchmarks._anomaly_sky``) with a seed that no tuning has seen, fits the product and its baselines
on the contaminated training part, calibrates them, and judges them on normals, injections of every class at graded
significance, and traps. The folder keeps everything, so that one method can be redone alone (``--only``).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks import _anomaly_baselines as baselines
from benchmarks import _anomaly_networks as networks
from benchmarks import _anomaly_ours as ours
from benchmarks import _anomaly_sky as sky
from benchmarks._anomaly_baselines import Bench, Scores
from benchmarks._anomaly_evaluation import Judged, duels, judge, paired, reconstruction
from benchmarks._anomaly_honesty import false_discoveries, uniformity
from benchmarks._anomaly_latents import Leak
from benchmarks._anomaly_ours import OURS
from benchmarks._anomaly_report import Found, as_csv, page
from benchmarks._anomaly_stability import stability
from benchmarks._anomaly_unseen import told, unseen, without_detector
from benchmarks._anomaly_variants import Variant
from benchmarks._anomaly_verdicts import Judgement, judgement
from benchmarks._anomaly_yardstick import yardstick
from benchmarks._machine import machine

SEED = 20_261_120  # of the simulated survey; development used others
RESULTS = Path(__file__).parent / "results"
WITHOUT, UNSEEN = "skysift without its detector", "skysift, class unseen by its detector"
TOLD = "skysift, told the class"  # not a rival but a bound
SPENDER, SPENDER_NEAR, FOREST = "spender, χ²", "spender, χ² among neighbours", "skysift embedding, isolation forest"


@dataclass(frozen=True)
class Options:
    """What a run does; ``python -m benchmarks.anomaly --help`` has a line on each."""

    folder: Path
    sizes: sky.Sizes = sky.FULL
    seed: int = SEED
    jobs: int = 2
    seeds: int = 2
    variants: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(baselines.METHODS)
    spender: bool = True
    spender_seconds: float | None = None
    spender_most: int | None = 100
    verdicts: bool = True
    only: tuple[str, ...] = ()
    draws: int = 20
    settings: str = ""  # of our model, as in a variant


def main() -> None:
    """Run and print the page; with ``--write`` keep it."""
    options, write = _parsed()
    started = time.perf_counter()
    found = run(options)
    text = page(found, _title(options, time.perf_counter() - started))
    print(text)
    if write:
        (RESULTS / "anomaly.md").write_text(text + "\n", encoding="utf-8")
        (RESULTS / "anomaly.csv").write_text(as_csv(found), encoding="utf-8")


def run(options: Options) -> Found:
    """Simulate, fit, score and judge."""
    stick = yardstick(options.folder, options.seed)
    for part in sky.PARTS:
        with _stage(f"simulate {part}, {options.sizes.rows(part):,} spectra"):
            sky.make(options.folder, part, options.sizes, options.seed, stick, options.jobs)
    bench = Bench(options.folder)
    main_one = Variant.parse(f"{OURS}:{options.settings}")
    if not main_one.special.detector:
        raise SystemExit("--settings: our model has its detector; give detector=no to a variant")
    others = [Variant.parse(text) for text in (*_seeds(options), *options.variants)]
    judged: dict[str, Judged] = {}
    seconds: dict[str, float] = {}

    redone = {*options.only, *((WITHOUT, UNSEEN, TOLD, FOREST) if OURS in options.only else ())}

    def do(method: str, make: Callable[[], Scores]) -> Scores:
        with _stage(method):
            scores = bench.kept(method, make, redo=method in redone)
        judged[method] = judge(bench, method, scores)
        seconds[method] = bench.seconds(method)
        return scores

    mine = {}
    for variant in (main_one, *others):
        mine[variant.name] = do(variant.name, lambda variant=variant: networks.scored(bench, variant, options.only))
    notes = [f"Our fit took {ours.seconds_of(bench, main_one):.0f} s."]
    do(FOREST, lambda: ours.forest(bench, main_one))
    apart = (WITHOUT, UNSEEN, TOLD)
    do(WITHOUT, lambda: without_detector(bench, main_one))
    do(UNSEEN, lambda: unseen(bench, main_one))
    do(TOLD, lambda: told(bench, main_one))
    for method in options.methods:
        do(method, lambda method=method: baselines.METHODS[method](bench))
    if options.spender:
        notes.append(_spender(bench, options, do, ours.seconds_of(bench, main_one)))
    equal = f"PCA-{main_one.vae.latent}, χ²"
    if equal not in judged:
        do(equal, lambda: baselines.chi2(bench, main_one.vae.latent))
    fits = {
        name: bench.kept(name, dict)["normals"] for name in judged if name.startswith("PCA") and name.endswith(", χ²")
    }
    fits[OURS] = ours.raw_scores(bench, main_one, "normals")["chi2_reduced"]
    with _stage("networks on hidden pixels, and what their latents encode"):
        bare = networks.compared(bench, main_one, others, options.seed, options.only)
    leak = Leak(bare[0].redshift, bare[0].flux)
    with _stage("p-values and false discoveries"):
        honest = uniformity(bench, main_one), false_discoveries(bench, main_one, options.draws)
    rivals = [one for name, one in judged.items() if name not in mine and name not in apart]
    product = judged[main_one.name]
    alike = {name: one for name, one in mine.items() if name == OURS or name.startswith(f"{OURS}-seed")}
    for other in judged.values():
        other.rows += paired(product, other) if other is not product else []
    variants = [judged[name] for name in (*apart, *(one.name for one in others))]
    return Found(
        product, rivals, variants, seconds, duels(product, rivals), *honest,
        stability(bench, alike, {one.name: one for one in (main_one, *others) if one.name in alike}),
        reconstruction(bench, fits), leak, notes,
        _judgement(bench, main_one, options, stick),
        [replace(bare[0], name=WITHOUT), *bare[1:]],
    )  # fmt: skip


def _seeds(options: Options) -> list[str]:
    joined = f",{options.settings}" if options.settings else ""
    return [f"{OURS}-seed{seed}:seed={seed}{joined}" for seed in range(2, 2 + options.seeds)]


def _spender(bench: Bench, options: Options, do: Callable[[str, Callable[[], Scores]], Scores], own: float) -> str:
    from benchmarks import _anomaly_spender as spender

    seconds = options.spender_seconds or own
    raw = do(SPENDER, lambda: spender.scores(bench, seconds, options.spender_most))
    do(SPENDER_NEAR, lambda: spender.among_neighbours(bench, raw))
    return spender.note(bench)


def _judgement(bench: Bench, variant: Variant, options: Options, stick: Path) -> Judgement | None:
    if not options.verdicts:
        return None
    with _stage("verdicts"):
        model = ours.model_of(bench, variant)
        return judgement(bench, model, stick, options.sizes.injected, options.seed)


class _stage:  # noqa: N801 - reads as a statement
    """Says on the standard error what is being done and how long it took."""

    def __init__(self, name: str) -> None:
        self.name, self.started = name, time.perf_counter()

    def __enter__(self) -> None:
        sys.stderr.write(f"{self.name} …")
        sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        sys.stderr.write(f" {time.perf_counter() - self.started:.0f} s\n")
        sys.stderr.flush()


def _parsed() -> tuple[Options, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where everything is kept [default: build/anomaly-SEED]")
    parser.add_argument("--quick", action="store_true", help="small sizes: figures mean little, minutes suffice")
    parser.add_argument("--seed", type=int, default=SEED, help="of the simulated survey")
    parser.add_argument("--seeds", type=int, help="further models of other seeds, for stability [default: 2; quick: 1]")
    parser.add_argument("--variants", nargs="*", default=[], metavar="NAME:key=value,…", help="settings side by side")
    parser.add_argument("--settings", default="", metavar="key=value,…", help="settings of our model")
    parser.add_argument("--only", nargs="*", default=[], metavar="METHOD", help="methods to be redone")
    parser.add_argument("--no-spender", dest="spender", action="store_false", help="leave out the slowest baseline")
    parser.add_argument("--spender-seconds", type=float, help="its training time [default: what our fit took]")
    parser.add_argument("--spender-most", type=int, default=100, help="injections of a class that it scores")
    parser.add_argument("--no-verdicts", dest="verdicts", action="store_false", help="leave out verdicts and windows")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes and threads")
    parser.add_argument("--write", action="store_true", help="keep the page and the table in benchmarks/results")
    asked = parser.parse_args()
    torch.set_num_threads(asked.jobs)
    folder = asked.folder or Path("build") / f"anomaly-{'quick-' if asked.quick else ''}{asked.seed}"
    seeds = asked.seeds if asked.seeds is not None else 1 if asked.quick else 2
    options = Options(
        folder, sky.QUICK if asked.quick else sky.FULL, asked.seed, asked.jobs, seeds, tuple(asked.variants),
        spender=asked.spender, spender_seconds=asked.spender_seconds, spender_most=asked.spender_most,
        verdicts=asked.verdicts, only=tuple(asked.only), settings=asked.settings,
    )  # fmt: skip
    return options, asked.write


def _title(options: Options, seconds: float) -> list[str]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    words = [word for word in sys.argv[1:] if word != "--write"]
    command = " ".join(["python -m benchmarks.anomaly", *_without_folder(words)])
    each = ", ".join(f"{name} {len(sky.Part(options.folder / name).flux):,}" for name in sky.PARTS)
    when = f"{time.strftime('%Y-%m-%d')} · {machine(options.jobs)}, {device} · Python {platform.python_version()}"
    lines = [f"{when} · `{command}` · {seconds:.0f} s, what the folder kept apart"]
    lines += ["", f"Seed {options.seed}. Spectra: {each}."]
    return lines


def _without_folder(words: list[str]) -> list[str]:
    """Leave the machine's own paths out of the results."""
    out, skip = [], False
    for word in words:
        if not skip and not word.startswith("--folder"):
            out.append(word)
        skip = word == "--folder"
    return out


if __name__ == "__main__":
    main()
