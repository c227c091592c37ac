"""spender (Melchior et al. 2023) as a baseline: the package, trained by its own recipe for as long as ours.

The recipe is that of the package's ``train/train_DESI.py`` with its default options: Adam at 1e-3 with eps 1e-4, one
learning-rate cycle, gradients clipped at 1, fidelity loss alone, its masks around sky lines. Two things differ, of
need: quasars reach redshifts where 5300–5850 Å cannot be seen, so spectra are normalised by their median flux and the
rest frame begins at 3600/(1 + 6) Å; and without a GPU a batch is 64 spectra, not 512, in float32.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks._anomaly_baselines import SCORED, Bench, Scores
from benchmarks._anomaly_calibration import Neighbours, robust_z
from benchmarks._anomaly_sky import Part

Array = NDArray[np.float64]

Z_MAX = 6.0
LATENTS, HIDDEN, REST_BINS = 10, (64, 256, 1024), 9780
RATE, EPSILON, CLIP = 1e-3, 1e-4, 1.0
ORDINARY = 40  # times as many ordinary spectra as of one class
WARM_UP_STEPS = 3  # that tell how many steps the time allows


def scores(bench: Bench, seconds: float, most: int | None) -> Scores:
    """Return reduced χ² under the trained package; NaN beyond ``most`` spectra of a part, evenly chosen.

    Args:
        bench: the parts; the model is kept in its folder.
        seconds: wall-clock time for training, that of an idle machine.
        most: injections of a class and traps of a kind to be scored, 40 times as many of the others; None for all.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = bench.folder / "models" / "spender.pt"
    model = _network().to(device)
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True, map_location=device))
    else:
        _train(model, bench.part("train"), seconds, device, path)
    return {name: _chi2(model, bench.part(name), most, device) for name in SCORED}


def note(bench: Bench) -> str:
    """Return one sentence on how the package was trained."""
    told = json.loads((bench.folder / "models" / "spender.json").read_text(encoding="utf-8"))
    return (f"spender was trained for {told['seconds']} s: {told['steps']} steps of {told['batch']} spectra on "
            f"{told['threads']} threads.")  # fmt: skip


def among_neighbours(bench: Bench, raw: Scores) -> Scores:
    """Return robust z-scores of ln χ² among the calibration spectra nearest in (S/N, z) that were scored."""
    known = np.isfinite(raw["calibrate"])
    plane = {name: [bench.part(name).column(key) for key in ("snr", "z")] for name in SCORED}
    tree = Neighbours.of(*(values[known] for values in plane["calibrate"]))
    reference = np.log(raw["calibrate"][known])
    return {name: robust_z(np.log(raw[name]), reference, tree.find(*plane[name])) for name in SCORED}


def _network() -> Any:
    from spender.instrument import Instrument, get_skyline_mask
    from spender.model import SpectrumAutoencoder

    wave_obs = torch.linspace(3600.0, 9824.0, 7781, dtype=torch.float64)
    instrument = Instrument(wave_obs)
    wave_rest = torch.linspace(3600.0 / (1 + Z_MAX), 9824.0, REST_BINS, dtype=torch.float32)
    model = SpectrumAutoencoder(instrument, wave_rest, LATENTS, HIDDEN, [nn.LeakyReLU()] * (len(HIDDEN) + 1))
    model.register_buffer("skyline_mask", get_skyline_mask(wave_obs), persistent=False)
    return model


def _train(model: Any, part: Part, seconds: float, device: torch.device, path: Path) -> None:
    batch = 512 if device.type == "cuda" else 64
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, eps=EPSILON)
    started = _clock(device)
    schedule, step = None, 0
    model.train()
    while _clock(device) - started < seconds:
        rows = np.sort(rng.choice(len(part.flux), min(batch, len(part.flux)), replace=False))
        flux, weight, z = _prepared(model, part, rows, device)
        loss = model.loss(flux, weight, z=z)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step == WARM_UP_STEPS:
            total = max(step + 2, int(seconds / (_clock(device) - started) * step))
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total)
        elif schedule is not None and step < schedule.total_steps:
            schedule.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    told = {
        "seconds": round(_clock(device) - started),
        "steps": step,
        "batch": batch,
        "threads": torch.get_num_threads(),
    }
    path.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")


def _clock(device: torch.device) -> float:
    """Return seconds as an idle machine would take them: others' load is not to shorten the training."""
    return time.process_time() / torch.get_num_threads() if device.type == "cpu" else time.perf_counter()


def _prepared(model: Any, part: Part, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return flux and weights normalised by the median flux, and redshifts; unknown pixels as 0 with weight 0."""
    flux, ivar = (torch.from_numpy(np.array(values[rows])).to(device) for values in (part.flux, part.ivar))
    flux = torch.where(ivar > 0, flux, 0.0)
    known = torch.where(ivar > 0, flux, torch.nan)
    noise = torch.where(ivar > 0, ivar.rsqrt(), torch.nan).nanmedian(1, keepdim=True).values
    scale = torch.nan_to_num(torch.maximum(known.nanmedian(1, keepdim=True).values, 0.3 * noise), nan=1.0)
    weight = ivar * scale.square() * ~model.skyline_mask
    z = torch.from_numpy(np.clip(part.column("z")[rows], 0.0, Z_MAX)).float().to(device)
    return flux / scale, weight, z


def _chi2(model: Any, part: Part, most: int | None, device: torch.device) -> Array:
    model.eval()
    out = np.full(len(part.flux), np.nan)
    with torch.no_grad():
        for rows in np.array_split(_chosen(part, most), max(1, len(out) // 64)):
            if len(rows):
                flux, weight, z = _prepared(model, part, rows, device)
                half = model.loss(flux, weight, z=z, individual=True) * flux.shape[1]
                out[rows] = (2 * half / (weight > 0).sum(1).clamp(min=1)).double().cpu().numpy()
    return out


def _chosen(part: Part, most: int | None) -> NDArray[np.int64]:
    """Return rows, evenly spread, ``most`` of every injected class and kind of trap."""
    label = part.column("class").astype(str)
    several = part.folder.name in ("injected", "traps")
    rows = [np.flatnonzero(label == name) for name in np.unique(label)] if several else [np.arange(len(label))]
    if most is not None:
        wanted = most if several else ORDINARY * most
        rows = [one[:: max(1, -(-len(one) // wanted))] for one in rows]
    return np.sort(np.concatenate(rows))
