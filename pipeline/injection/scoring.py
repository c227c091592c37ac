"""Injection and scoring of one unit's spectra: what an actor does with the model that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.scores import score
from models.trained import TrainedModel, reconstruct
from pipeline.desi.snr import median_snrs
from pipeline.injection.grading import N_COMPONENTS, Yardstick
from pipeline.injection.hosts import Hosts, Injected, inject
from pipeline.injection.plan import Want

Flux = NDArray[np.float32]


def yardstick(model: TrainedModel) -> Yardstick:
    """Return the yardstick of a model: its mean and the leading components of its linear part."""
    parts = (model.vae.mean_R[:, None], model.vae.basis_RD[:, : N_COMPONENTS - 1])
    basis_RK = np.concatenate([part.detach().cpu().numpy() for part in parts], axis=1, dtype=np.float64)
    return Yardstick(basis_RK, model.vae.grid.max_shift)


def hosts_of(model: TrainedModel, flux_BL: Flux, ivar_BL: Flux, z_B: NDArray[np.float64], snr_B: Flux) -> Hosts:
    """Return spectra with the light that the model sees in them."""
    return Hosts(flux_BL, ivar_BL, reconstruct(model, flux_BL, ivar_BL, z_B), z_B, snr_B)


def injected_scores(
    model: TrainedModel, measure: Yardstick, hosts: Hosts, todo: Sequence[Want], seed: int, fields: Mapping[str, str],
) -> pa.Table:  # fmt: skip
    """Inject and score.

    Args:
        model, measure: the model and its yardstick.
        hosts: the spectra to inject into.
        todo: what to inject.
        seed: see ``Want.rng``.
        fields: raw score's column → field of ``ScoreBatch``.

    Returns:
        A row for each of ``todo``: class, significance (σ), host (row), z, snr and wavelength (Å) as injected, and the
        raw scores; those that no host can show come last and have nothing from host on.
    """
    z_max = model.vae.config.z_max
    made = [(want, inject(want.rng(seed), want.name, want.significance, hosts, measure, z_max)) for want in todo]
    kept = [(want, one) for want, one in made if one is not None]
    order = [want for want, _ in kept] + [want for want, one in made if one is None]
    columns = _columns(model, [one for _, one in kept], fields) if kept else {}
    empty = len(order) - len(kept)
    schema = pa.schema([*_SCHEMA, *((name, pa.float32()) for name in fields)])
    cells: dict[str, Any] = {"class": [want.name for want in order], "significance": [w.significance for w in order]}
    cells |= {name: [*columns.get(name, []), *[None] * empty] for name in schema.names[2:]}
    return pa.table(cells, schema=schema)


_SCHEMA = pa.schema(
    [
        ("class", pa.string()),
        ("significance", pa.float64()),
        ("host", pa.int64()),
        ("z", pa.float64()),
        ("snr", pa.float32()),
        ("wavelength", pa.float32()),
    ]
)


def _columns(model: TrainedModel, made: Sequence[Injected], fields: Mapping[str, str]) -> dict[str, list[Any]]:
    flux_BL, ivar_BL = np.stack([one.flux_L for one in made]), np.stack([one.ivar_L for one in made])
    z_B = np.array([one.z for one in made])
    done = score(model, flux_BL, ivar_BL, z_B)
    columns = {name: getattr(done, field).tolist() for name, field in fields.items()}
    places = {"host": [one.host for one in made], "wavelength": [one.wavelength for one in made]}
    return columns | places | {"z": z_B.tolist(), "snr": median_snrs(flux_BL, ivar_BL).tolist()}
