"""The truth table that lies beside a simulated survey: what each row is, and how strange."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate.artefacts import Hurt
from pipeline.simulate.redshifts import RedshiftFits
from pipeline.simulate.spectra import Spectra

Array = NDArray[np.float64]


def truth_columns(
    spectra: Spectra, row: NDArray[np.int64], program: str, healpix: int, fits: RedshiftFits, snr: Array,
    hurt: Hurt, significance: Array,
) -> dict[str, Any]:  # fmt: skip
    """Truth of a file's rows [B] as columns.

    ``kind`` is normal, anomaly, artefact, galaxy, star, sky or badfiber; ``class`` the class within it;
    ``strength`` is in the class's own unit (``anomalies.py``; an artefact's is 1 to 20), ``significance``
    is √Σ ivar·Δ², Δ what the anomaly or artefact changed before noise (0 where it changed no flux).
    """
    targets = spectra.targets
    anomaly, artefact = spectra.anomaly[row], hurt.label
    kind = np.select(
        [
            artefact != "",
            anomaly != "",
            targets.kind[row] == "quasar",
            np.isin(targets.kind[row], ("elg", "lrg", "bgs")),
        ],
        ["artefact", "anomaly", "normal", "galaxy"],
        targets.kind[row],
    )
    label = np.select([artefact != "", anomaly != ""], [artefact, anomaly], spectra.label[row])
    star = targets.kind[row] == "star"
    label = np.where(star, np.char.add("star_", targets.subtype[row]), label)
    params = [_plain(spectra.params[i] | extra) for i, extra in zip(row.tolist(), hurt.params, strict=True)]
    return {
        "targetid": targets.targetid[row],
        "survey": np.full(len(row), "main"),
        "program": np.full(len(row), program),
        "healpix": np.full(len(row), healpix, np.int32),
        "kind": kind.astype("U16"),
        "class": label.astype("U24"),
        "strength": np.where(artefact != "", hurt.strength, spectra.strength[row]),
        "significance": significance,
        "z_true": targets.z[row],
        "z_catalog": fits.z,
        "zwarn": fits.zwarn,
        "spectype": fits.spectype.astype("U6"),
        "snr": snr.astype(np.float32),
        "params": np.array([json.dumps(entry) for entry in params], dtype=object),
    }


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Numbers rounded so that they read well in JSON."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in params.items()}


def write_truth(path: str, columns: dict[str, Any]) -> None:
    """Write the truth table as Parquet to a path or object-store URL."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.stores.objects import ObjectStore

    folder, _, name = path.rpartition("/")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    ObjectStore.open(folder or ".").write(name, sink.getvalue().to_pybytes())
