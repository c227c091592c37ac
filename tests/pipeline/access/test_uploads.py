"""Spectra that people bring: what is read, and what is refused with which reason."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from pipeline.access import uploads
from pipeline.desi.grid import N_PIXELS, WAVELENGTH
from pipeline.errors import InputError

RNG = np.random.default_rng(5)
FLUX = 1 + RNG.normal(0, 0.1, N_PIXELS)
IVAR = np.full(N_PIXELS, 100.0)


def _table(columns: dict[str, np.ndarray], header: dict[str, object] | None = None) -> bytes:
    made = [fits.Column(name, "D", array=values) for name, values in columns.items()]
    hdu = fits.BinTableHDU.from_columns(made, header=fits.Header(header or {}))
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(sink)
    return sink.getvalue()


GOOD = {"wavelength": WAVELENGTH, "flux": FLUX, "ivar": IVAR}


def test_desi_pixels_are_taken_as_they_are() -> None:
    found = uploads.from_bytes(_table(GOOD, {"Z": 2.5}), "a.fits")
    np.testing.assert_array_equal(found.flux_BL[0], FLUX.astype(np.float32))
    np.testing.assert_array_equal(found.ivar_BL[0], IVAR.astype(np.float32))
    assert found.z_B.tolist() == [2.5]
    part = {name: values[1000:3000] for name, values in GOOD.items()}
    found = uploads.from_bytes(gzip.compress(_table(part)), "a.fits.gz", z=1)
    assert np.flatnonzero(found.ivar_BL[0]).tolist() == list(range(1000, 3000))


def test_parquet_and_errors_instead_of_ivar() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"Wave": WAVELENGTH, "flux": FLUX, "sigma": np.full(N_PIXELS, 0.1)}), sink)
    found = uploads.from_bytes(sink.getvalue(), "a.parquet", z=0.5)
    np.testing.assert_allclose(found.ivar_BL[0], 100.0, rtol=1e-6)


@pytest.mark.parametrize("step", [0.2, 1.3, 3.0])
def test_other_grids_keep_flux_and_information(step: float) -> None:
    lam = np.arange(3700.0, 9700.0, step)
    found = uploads.from_arrays(lam, np.full(len(lam), 2.0), np.full(len(lam), 50.0), 1.0)
    inside = (WAVELENGTH > 3710) & (WAVELENGTH < 9690)
    np.testing.assert_allclose(found.flux_BL[0][inside], 2.0, rtol=1e-6)
    assert found.ivar_BL[0][inside].sum() == pytest.approx(50.0 * 5980 / step, rel=0.01)
    assert not found.ivar_BL[0][WAVELENGTH < 3690].any()


def test_a_line_stays_where_it_was() -> None:
    loglam = np.log10(3650.0) + 1e-4 * np.arange(4200)
    flux = 1 + 5 * np.exp(-0.5 * ((10**loglam - 6000.0) / 10) ** 2)
    found = uploads.from_bytes(_table({"loglam": loglam, "flux": flux, "ivar": np.ones(4200)}), "spec.fits", z=1)
    assert abs(WAVELENGTH[found.flux_BL[0].argmax()] - 6000) < 1.0


def test_no_information_is_not_zero_flux() -> None:
    flux, ivar = FLUX.copy(), IVAR.copy()
    flux[5], ivar[6], ivar[7], ivar[8] = np.nan, np.nan, -1, np.inf
    found = uploads.from_bytes(_table({**GOOD, "flux": flux, "ivar": ivar}), "a", z=1)
    assert not found.ivar_BL[0][5:9].any()
    assert np.isfinite(found.flux_BL).all()


def _gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range((uploads.MAX_BYTES >> 20) + 2)) + packer.flush()


def _parquet(columns: dict[str, object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _image() -> bytes:
    sink = io.BytesIO()
    fits.PrimaryHDU(np.zeros((10, 10))).writeto(sink)
    return sink.getvalue()


REFUSED = {
    "text": (b"hello", "not_a_spectrum", "expected FITS or Parquet"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not_a_spectrum", "expected FITS or Parquet"),
    "empty": (b"", "not_a_spectrum", "expected FITS or Parquet"),
    "image": (_image(), "not_a_spectrum", "FITS without a spectrum"),
    "other table": (_table({"a": FLUX}), "not_a_spectrum", "FITS without a spectrum"),
    "no ivar": (_table({"wave": WAVELENGTH, "flux": FLUX}), "not_a_spectrum", "no column for ivar"),
    "cut": (_table(GOOD)[:9000], "not_a_spectrum", "unreadable FITS"),
    "damaged gzip": (b"\x1f\x8b" + bytes(50), "not_a_spectrum", "damaged gzip"),
    "packed twice": (gzip.compress(gzip.compress(b"x")), "not_a_spectrum", "packed twice"),
    "damaged parquet": (b"PAR1" + bytes(50), "not_a_spectrum", "unreadable Parquet"),
    "parquet of words": (_parquet({"flux": ["a"], "wave": ["b"], "ivar": ["c"]}), "not_a_spectrum", "unreadable"),
    "falling wavelengths": (_table({**GOOD, "wavelength": WAVELENGTH[::-1]}), "not_a_spectrum", "increase"),
    "infrared": (_table({**GOOD, "wavelength": WAVELENGTH + 9000}), "no_overlap", "0 pixels with information"),
    "no information": (_table({**GOOD, "ivar": 0 * IVAR}), "no_overlap", "0 pixels with information"),
    "long parquet": (_parquet({"flux": np.zeros(2_000_000)}), "too_large", "at most 1,000,000 pixels"),
    "no redshift": (_table(GOOD), "no_redshift", "give it as --redshift"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_spectrum_is_refused(name: str) -> None:
    data, reason, said = REFUSED[name]
    with pytest.raises(InputError, match=said) as caught:
        uploads.from_bytes(data, "it", None if name == "no redshift" else 1.0)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_stops_at_the_limit() -> None:
    bomb = _gzip_bomb()
    assert len(bomb) < 1 << 20
    with pytest.raises(InputError, match="unpacks to more than") as caught:
        uploads.from_bytes(bomb, "bomb.fits.gz", 1.0)
    assert caught.value.reason == "too_large"


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        uploads.from_file(tmp_path / "none.fits")
    (tmp_path / "a.fits").write_bytes(_table(GOOD))
    assert len(uploads.from_file(tmp_path / "a.fits", 1.0)) == 1
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1,000 are read"):
        uploads.from_file(tmp_path / "a.fits", 1.0)


def test_unequal_arrays_and_wrong_redshifts() -> None:
    with pytest.raises(InputError, match="as long as each other"):
        uploads.from_arrays(WAVELENGTH, FLUX[1:], IVAR, 1.0)
    with pytest.raises(InputError, match="one finite redshift"):
        uploads.from_arrays(WAVELENGTH, FLUX, IVAR, float("nan"))
