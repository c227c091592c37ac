"""Features of spectra: finite whatever lies under the mask, and large where something is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.desi.grid import ARMS, WAVELENGTH
from pipeline.verdicts.features import FEATURES, features


def _measured(spectra: Any, **changes: Any) -> np.ndarray:
    parts = {"flux": spectra.flux, "ivar": spectra.ivar, "model": spectra.model} | changes
    return features(parts["flux"], parts["ivar"], parts["model"], spectra.z, spectra.difference)


def _of(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, FEATURES.index(name)]


def _sigma(values: np.ndarray, name: str) -> np.ndarray:
    return 3 * np.sinh(_of(values, name))


def test_names_are_distinct_and_match_the_columns(spectra: Any) -> None:
    values = _measured(spectra)
    assert len(set(FEATURES)) == len(FEATURES) == values.shape[1]
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_what_lies_under_zero_ivar_does_not_matter(spectra: Any) -> None:
    ivar, clean, foul = spectra.ivar.copy(), spectra.flux.copy(), spectra.flux.copy()
    ivar[:, 1000:1400] = 0
    clean[:, 1000:1400], foul[:, 1000:1200], foul[:, 1200:1400] = 0, np.nan, np.inf
    assert np.array_equal(_measured(spectra, flux=clean, ivar=ivar), _measured(spectra, flux=foul, ivar=ivar))


def test_a_spectrum_without_information_has_finite_features(spectra: Any) -> None:
    values = _measured(spectra, ivar=np.zeros_like(spectra.ivar), flux=np.full_like(spectra.flux, np.nan))
    assert np.isfinite(values).all()


def test_a_spectrum_is_measured_alike_alone_and_among_others(spectra: Any) -> None:
    together = _measured(spectra)
    rows = slice(3, 4)
    alone = features(
        spectra.flux[rows], spectra.ivar[rows], spectra.model[rows], spectra.z[rows], spectra.difference[rows]
    )
    assert np.allclose(alone[0], together[3], rtol=1e-3, atol=2e-3)


def test_noise_alone_stands_out_nowhere(spectra: Any) -> None:
    values = _measured(spectra)[spectra.name == ""]
    assert _sigma(values, "top_sigma").max() < 7
    assert np.abs(_sigma(values, "b_ramp")).max() < 5


def test_cosmic_rays_are_narrower_than_lines_and_found_where_they_are(spectra: Any) -> None:
    values = _measured(spectra)
    width = {
        name: np.median(_of(values, "top_resolution")[spectra.name == name]) for name in ("cosmic_ray", "odd_line")
    }
    assert width["cosmic_ray"] < 0.1 < width["odd_line"]
    hit = spectra.name == "cosmic_ray"
    place = 6700 + 1800 * _of(values, "top_wavelength")[hit]
    assert np.abs(place - spectra.wavelength[hit]).max() < 5


@pytest.mark.parametrize(
    ("feature", "where", "factor", "sign"),
    [("b_ramp", ARMS["B"], np.clip((WAVELENGTH[ARMS["B"]] - 5000) / 800, 0, 1), 1),
     ("z_scale", ARMS["Z"], 1.0, 1),
     ("dip_4390", ARMS["B"], np.exp(-0.5 * ((WAVELENGTH[ARMS["B"]] - 4390) / 55) ** 2), -1)],
)  # fmt: skip
def test_known_shapes_are_measured(spectra: Any, feature: str, where: slice, factor: Any, sign: int) -> None:
    changed = spectra.flux.copy()
    changed[:, where] += np.float32(sign * 0.4) * spectra.model[:, where] * np.asarray(factor, np.float32)
    before, after = (_sigma(_measured(spectra, flux=flux), feature) for flux in (spectra.flux, changed))
    change = sign * (after - before)
    assert np.quantile(change, 0.8) > 5  # the others are faint
    assert np.mean(change > 0) > 0.8


def test_masks_near_the_top_count(spectra: Any) -> None:
    hit = np.flatnonzero(spectra.name == "cosmic_ray")[:1]
    part = [one[hit] for one in (spectra.flux, spectra.ivar, spectra.model, spectra.z, spectra.difference)]
    pixel = round((float(spectra.wavelength[hit[0]]) - 3600) / 0.8)
    near, far = (features(*part, [[pixel + shift, pixel + shift + 1]]) for shift in (4, 900))
    assert _of(near, "masked_near_top")[0] > 0 == _of(far, "masked_near_top")[0]


def test_arrays_that_do_not_belong_together_are_refused(spectra: Any) -> None:
    with pytest.raises(ValueError, match="expected flux, ivar, model"):
        features(spectra.flux, spectra.ivar, spectra.model, spectra.z[:-1], spectra.difference)
