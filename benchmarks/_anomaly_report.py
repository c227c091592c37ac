"""The anomaly benchmark's page: tables of what ``benchmarks._anomaly_evaluation`` and its siblings found."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields

import numpy as np

from benchmarks._anomaly_baselines import REFERENCE
from benchmarks._anomaly_evaluation import BAND_NAMES, KINDS, TOPS, Duel, Judged, Row
from benchmarks._anomaly_honesty import Rate, Uniformity
from benchmarks._anomaly_latents import Leak
from benchmarks._anomaly_networks import Network
from benchmarks._anomaly_networks import page as network_page
from benchmarks._anomaly_sky import TRAPS
from benchmarks._anomaly_stability import INJECTED, Alike
from benchmarks._anomaly_verdicts import Judgement


@dataclass
class Found:
    """All that one run of the benchmark found; ``ours`` is the product, the others baselines and variants."""

    ours: Judged
    baselines: list[Judged]
    variants: list[Judged]
    seconds: dict[str, float]  # method → fit and score
    duels: list[Duel]
    uniformity: Uniformity
    rates: list[Rate]
    stability: dict[str, Alike]  # which two → how alike
    reconstruction: dict[str, dict[str, float]]  # method → band → median reduced χ²
    leak: Leak
    notes: list[str]  # on methods, a sentence each
    verdicts: Judgement | None
    networks: list[Network]  # without a detector

    def everyone(self) -> list[Judged]:
        """Return all methods, ours first."""
        return [self.ours, *self.variants, *self.baselines]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table and an empty line."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def as_csv(found: Found) -> str:
    """Return every row of every method."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [one.name for one in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for judged in found.everyone():
        writer.writerows(row.cells() for row in judged.rows)
    for network in found.networks:
        writer.writerows(row.cells() for row in network.rows())
    return out.getvalue()


def page(found: Found, title: list[str]) -> str:
    """Return the whole page."""
    parts = [
        ["# Anomaly benchmark", "", *title, ""],
        ["## What was asked, and what came out", "", *_asked(found)],
        ["## Methods", "", *_methods(found), " ".join(found.notes), ""],
        ["## Classes: recall at 1% false positives, one binomial σ", "", *_classes(found)],
        ["## By significance, S/N and redshift", "", *_bands(found)],
        ["## Recall at 1% by class and significance, ours", "", *_class_bands(found)],
        ["## Traps: share above the 1% threshold of normals", "", *_trap_table(found)],
        ["## Top of a survey with every group at its natural rate, mean counts", "", *_tops(found)],
        ["## Reconstruction: median reduced χ² of the normals", "", *_reconstruction(found)],
        ["## Variants of the network, without a detector", "", *_networks(found)],
        ["## p-values and false discoveries", "", *_honesty(found)],
    ]
    if found.stability:
        parts.append(["## Stability: models of other seeds", "", *_stability(found)])
    if found.verdicts:
        parts.append(["## Verdicts and windows", "", found.verdicts.page, ""])
    return "\n".join(line for part in parts for line in part)


def _asked(found: Found) -> list[str]:
    ours = found.ours
    reference = next((one for one in found.baselines if one.method == REFERENCE), None)
    theirs = reference.value("physical", "recall 1%") if reference else float("nan")
    mean = ours.value("physical", "recall 1%")
    traps = [ours.value(name, "trap share 1%") for name in TRAPS]
    ties = [abs(ours.value("normals", f"spearman {axis}")) for axis in ("snr", "z")]
    cell = float(found.uniformity.cells.max())
    worse = [duel for duel in found.duels if duel.p_worse < 0.05]
    checks = [
        ("physical recall at 1% over the reference's, ≥ 1.3", mean / max(theirs, 1e-9), mean >= 1.3 * theirs),
        *_least(ours, "artefact", "recall 1%", 0.9),
        *_least(ours, "physical", "8–15σ", 0.4),
        *_least(ours, "physical", "25–50σ", 0.9),
        *_least(ours, "odd_line", "at 10σ", 0.7),
        *_least(ours, "wrong_redshift", "S/N≥2", 0.85),
        *_least(ours, "white_dwarf", "S/N≥2", 0.9),
        ("smallest share of a trap, ≥ 0.005", min(traps), min(traps) >= 0.005),
        ("largest share of a trap, ≤ 0.015", max(traps), max(traps) <= 0.015),
        ("largest absolute Spearman with S/N or z, ≤ 0.05", max(ties), max(ties) <= 0.05),
        ("KS distance of p-values, ≤ 0.02", found.uniformity.overall, found.uniformity.overall <= 0.02),
        ("its largest in 25 cells of z × S/N, ≤ 0.05", cell, cell <= 0.05),
        *(
            (f"realised FDR over nominal at {rate.nominal}, 0.5–1.1", rate.fdr / rate.nominal,
             0.5 <= rate.fdr / rate.nominal <= 1.1)
            for rate in found.rates
        ),
        ("R² of redshift from the latents of copies, ≤ 0.1", found.leak.redshift, found.leak.redshift <= 0.1),
        ("classes significantly below their best baseline, 0", float(len(worse)), not worse),
    ]  # fmt: skip
    if found.verdicts:
        told = found.verdicts
        checks += [("AUC of artefact against the rest, ≥ 0.97", told.auc, told.auc >= 0.97),
                   ("verdicts of the right kind at S/N ≥ 2, ≥ 0.8", told.right, told.right >= 0.8),
                   ("top windows that meet the local feature, ≥ 0.85", told.overlap, told.overlap >= 0.85)]  # fmt: skip
    return table(["asked", "found", ""], [[name, f"{value:.3f}", "yes" if met else "**no**"]
                                          for name, value, met in checks])  # fmt: skip


def _least(judged: Judged, group: str, metric: str, bar: float) -> list[tuple[str, float, bool]]:
    value = judged.value(group, metric)
    return [(f"{group}, {metric}, ≥ {bar}", value, value >= bar)]


def _methods(found: Found) -> list[str]:
    columns = [(kind, metric) for metric in ("recall 1%", "recall 5%", "auc") for kind in KINDS]
    columns += [("normals", "spearman snr"), ("normals", "spearman z")]
    header = ["method", *(f"{metric}, {group}" for group, metric in columns), "seconds"]
    rows = [[one.method, *(_plus(one, *column) for column in columns), f"{found.seconds.get(one.method, np.nan):.0f}"]
            for one in found.everyone()]  # fmt: skip
    return table(header, rows)


def _plus(judged: Judged, group: str, metric: str) -> str:
    row = next((one for one in judged.rows if (one.group, one.metric) == (group, metric)), None)
    if row is None or not np.isfinite(row.value):
        return "–"
    error = 0.5 * (row.high - row.low)
    return f"{row.value:.3f}" + (f" ± {error:.3f}" if np.isfinite(error) else "")


def _classes(found: Found) -> list[str]:
    rows = []
    for duel in found.duels:
        verdict = "**worse**" if duel.p_worse < 0.05 else ""
        cells = [_plus(found.ours, duel.group, metric) for metric in ("recall 1%", "recall 5%", "auc")]
        rows.append([duel.group, *cells, f"{duel.theirs:.3f}", duel.baseline, f"{duel.p_worse:.3f}", verdict])
    head = ["class", "ours", "ours at 5%", "AUC", "best baseline", "which", "p that ours is worse (McNemar, Holm)", ""]
    others = found.everyone()[1:]
    every = [[duel.group, *(_plus(one, duel.group, "recall 1%").split(" ")[0] for one in others)]
             for duel in found.duels]  # fmt: skip
    return [*table(head, rows), *table(["class", *(one.method for one in others)], every)]


def _bands(found: Found) -> list[str]:
    chosen = [one for one in found.everyone() if one is found.ours or one.method == REFERENCE or one in found.variants]
    out = []
    for bands in BAND_NAMES.values():
        rows = [[one.method, kind, *(_plus(one, kind, band) for band in bands)] for one in chosen for kind in KINDS]
        out += table(["method", "mean over", *bands], rows)
    return out


def _class_bands(found: Found) -> list[str]:
    bands = [band for names in BAND_NAMES.values() for band in names]
    rows = [[duel.group, *(_plus(found.ours, duel.group, band) for band in bands)] for duel in found.duels]
    return table(["class", *bands], rows)


def _trap_table(found: Found) -> list[str]:
    rows = [[one.method, *(_plus(one, name, "trap share 1%") for name in TRAPS)] for one in found.everyone()]
    return table(["method", *TRAPS], rows)


def _tops(found: Found) -> list[str]:
    groups = ["normal", *KINDS, *TRAPS]
    rows = [
        [one.method, str(top), *(f"{one.value(group, f'top {top}'):.1f}" for group in groups)]
        for one in found.everyone() for top in TOPS if np.isfinite(one.value("normal", f"top {top}"))
    ]  # fmt: skip
    return table(["method", "of the top", *groups], rows)


def _stability(found: Found) -> list[str]:
    rows = [[name, f"{one.jaccard:.3f}", f"{one.disagreement:.3f}"] for name, one in found.stability.items()]
    told = (f"Jaccard index of the top 1% of normals and injections; strong disagreements (`skysift compare`) among "
            f"all that either calls strange in a survey with {INJECTED:.0%} of injections.")  # fmt: skip
    return [*table(["models", "Jaccard", "strong disagreements"], rows), told, ""]


def _reconstruction(found: Found) -> list[str]:
    bands = list(next(iter(found.reconstruction.values())))
    rows = [[name, *(f"{one[band]:.4f}" if np.isfinite(one[band]) else "–" for band in bands)]
            for name, one in found.reconstruction.items()]  # fmt: skip
    leak = (f"Copies of the same quasars: boosted trees read R² = {found.leak.redshift:.3f} of a change in redshift "
            f"and {found.leak.flux:.3f} of a change in flux off the latents.")  # fmt: skip
    return [*table(["model", *bands], rows), leak, ""]


def _networks(found: Found) -> list[str]:
    recall = {(one.method, kind): one.value(kind, "recall 1%") for one in found.everyone() for kind in KINDS}
    return network_page(found.networks, recall)


def _honesty(found: Found) -> list[str]:
    cells = np.sort(found.uniformity.cells)
    lines = [f"KS distance of the normals' p-values to uniform: {found.uniformity.overall:.4f} overall; in 25 "
             f"equal-count cells of redshift × S/N median {np.median(cells):.3f}, largest {cells[-1]:.3f}, "
             f"{int((cells > 0.05).sum())} above 0.05.", ""]  # fmt: skip
    rows = [[f"{rate.nominal}", f"{rate.fdr:.4f} ± {rate.error:.4f}", f"{rate.power:.3f}", str(rate.fewest)]
            for rate in found.rates]  # fmt: skip
    return [*lines, *table(["nominal FDR", "realised", "power", "fewest discoveries in a draw"], rows)]
