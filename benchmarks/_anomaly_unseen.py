"""What the product finds of kinds it was never shown, and what it would find if it were told the kind.

Its detector learns from departures of the same kinds as the benchmark injects (with seeds, hosts and noise of their
own). Two tests take that away: the product without its detector, and detectors that were shown no departure of a whole
group of look-alikes, each judged on the group it does not know. A third gives it more than it can have: every class is
looked for alone, with all the false positives to itself. What is missed then no joining of scores can bring back.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._anomaly_baselines import SCORED, Bench, Scores
from benchmarks._anomaly_ours import EXAMPLES, Table, Variant, calibrated, calibrated_tables, model_of, raw_scores
from models.detector import Detector
from models.scores import FAMILIES, features
from models.trained import TrainedModel

Array = NDArray[np.float64]

LEARNED = ("detection", "blend", "instrument", "redshift_gain")  # raw scores that are the detector's
BATCH = 512
SHOWN = 0.5  # of the product's examples, to spare time: five detectors are fitted
GROUPS = (  # classes that look alike
    ("extra_bump", "odd_line", "cosmic_ray", "spike_5600", "fiber_group"),
    ("absorber_swarm", "felobal", "absorption_8600", "dip_4400", "supernova"),
    ("double_quasar", "star_blend", "galaxy_blend", "white_dwarf", "wrong_redshift"),
    ("weak_lines", "strong_iron", "double_peaked", "reddened", "continuum_kink"),
    ("arm_step_5800", "arm_step_7570", "step_within_r", "sky_residual_9400", "sky_residual_red", "sky_fiber"),
)


def without_detector(bench: Bench, variant: Variant) -> Scores:
    """Return scores from all components but the detector's."""
    tables = {name: raw_scores(bench, variant, name) for name in SCORED}
    done, where = calibrated_tables(bench, tables, leave=LEARNED)
    return {name: done.anomaly_score[rows] for name, rows in where.items()}


def unseen(bench: Bench, variant: Variant) -> Scores:
    """Return scores of every class by a product whose detector saw no class of its group.

    The groups' scores are brought together on one scale, −ln of the share of normals that score higher; normals and
    traps are the first group's.
    """
    tables = {name: raw_scores(bench, variant, name) for name in SCORED}
    inputs = {name: _features(bench, variant, name) for name in SCORED}
    label = bench.part("injected").column("class").astype(str)
    out: Scores = {}
    for group in GROUPS:
        detector = _detector(bench, variant, group)
        changed = {name: tables[name] | _odds(detector, inputs[name]) for name in SCORED}
        done, where = calibrated_tables(bench, changed)
        normals = np.sort(done.anomaly_score[where["normals"]])
        found = {name: _depth(done.anomaly_score[rows], normals) for name, rows in where.items()}
        if not out:
            out = found
        mine = np.isin(label, group)
        out["injected"][mine] = found["injected"][mine]
    return out


def told(bench: Bench, variant: Variant) -> Scores:
    """Return scores of every class by the detector's log odds of that class alone; scales as in ``unseen``."""
    kinds = [kind.name for kind in model_of(bench, variant).detector.kinds]
    label = bench.part("injected").column("class").astype(str)
    tables = {name: raw_scores(bench, variant, name)["odds"] for name in SCORED}
    out: Scores = {}
    for index, kind in enumerate(kinds):
        done, where = calibrated(bench, {name: {"detection": odds[:, index]} for name, odds in tables.items()})
        normals = np.sort(done.anomaly_score[where["normals"]])
        found = {name: _depth(done.anomaly_score[rows], normals) for name, rows in where.items()}
        out = out or found
        out["injected"][label == kind] = found["injected"][label == kind]
    return out


def _depth(score: Array, normals: Array) -> Array:
    """Return −ln of the share of normals above each score; beyond the highest, the order stays."""
    above = len(normals) - np.searchsorted(normals, score, side="left")
    return -np.log((1.0 + above) / (1.0 + len(normals))) + 1e-3 * np.maximum(score - normals[-1], 0.0)


def _detector(bench: Bench, variant: Variant, group: tuple[str, ...]) -> Detector:
    """Fit a detector to examples without a group's."""
    model = model_of(bench, variant)
    with np.load(bench.folder / "models" / variant.name / EXAMPLES) as kept:
        features_NF, label_N = torch.from_numpy(kept["features"]), torch.from_numpy(kept["label"])
    kinds = model.detector.kinds
    known = [index for index, kind in enumerate(kinds) if kind.name not in group]
    new = torch.full((1 + len(kinds),), -1)
    new[0] = 0
    new[1 + torch.tensor(known)] = torch.arange(1, 1 + len(known))
    label_N = new[label_N]
    kept_N = (label_N >= 0) & (torch.rand(len(label_N), generator=torch.Generator().manual_seed(0)) < SHOWN)
    features_NF, label_N = features_NF[kept_N], label_N[kept_N]
    return Detector.fit(features_NF, label_N, tuple(kinds[i] for i in known), variant.fit.seed)


def _odds(detector: Detector, features_NF: NDArray[np.float16]) -> Table:
    """Return the detector's raw scores, as ``models.scores`` makes them."""
    parts = []
    with torch.no_grad():
        for rows in np.array_split(features_NF, max(1, len(features_NF) // 4096)):
            odds = detector.log_odds(torch.from_numpy(rows.astype(np.float32)))
            parts.append(torch.stack([detector.family(odds, name)[0] for name in ("", *FAMILIES)], 1))
    return dict(zip(LEARNED, torch.cat(parts).double().numpy().T, strict=True))


def _features(bench: Bench, variant: Variant, name: str) -> NDArray[np.float16]:
    """Return what a part's spectra tell the detector, [N, F], from the folder if it is there."""
    path = bench.folder / "raw" / variant.name / f"features_{name}.npy"
    if not path.is_file():
        np.save(path, _told(model_of(bench, variant), bench, name))
    return np.asarray(np.load(path, mmap_mode="r"))


def _told(model: TrainedModel, bench: Bench, name: str) -> NDArray[np.float16]:
    part = bench.part(name)
    z = np.clip(part.column("z"), 0.0, model.vae.config.z_max)
    out: NDArray[np.float16] | None = None
    for rows in np.array_split(np.argsort(z, kind="stable"), max(1, len(z) // BATCH)):
        rows = np.sort(rows)
        found = features(model, np.array(part.flux[rows]), np.array(part.ivar[rows]), z[rows]).half().numpy()
        out = np.empty((len(z), found.shape[1]), np.float16) if out is None else out
        out[rows] = found
    return out if out is not None else np.empty((0, 0), np.float16)
