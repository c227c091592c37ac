"""Reading chosen rows of coadds: equal to desispec on real files, every deviation handled or named."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.desi.coadd import CoaddRows, read_coadd
from pipeline.desi.grid import ARMS, N_PIXELS, OVERLAP_BR, OVERLAP_RZ, WAVELENGTH
from pipeline.errors import InputError, MissingObject
from pipeline.quality import Quality
from pipeline.stores.objects import ObjectStore
from tests.pipeline.desi.conftest import CoaddFits

PATH = "coadd-main-dark-9144.fits"
ALL = np.array([101, 102, 103, 104])


def read(survey: ObjectStore, content: CoaddFits | bytes, targetid: NDArray[Any] = ALL, **options: Any) -> CoaddRows:
    survey.write(PATH, content.bytes() if isinstance(content, CoaddFits) else content)
    return read_coadd(survey, PATH, targetid, **options)


def refused(survey: ObjectStore, content: CoaddFits | bytes, reason: str) -> str:
    with pytest.raises(InputError) as caught:
        read(survey, content)
    assert caught.value.reason == reason
    assert PATH in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(a: CoaddRows, b: CoaddRows) -> bool:
    names = "targetid", "flux", "ivar", "mask", "arm_difference", "snr", "ra", "dec", "ebv"
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in names)


def desispec_joined(file: Path) -> tuple[NDArray[Any], ...]:
    """Targets, flux, ivar, mask as desispec 0.70 reads and joins them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # desispec's own deprecations
        from desispec.coaddition import coadd_cameras
        from desispec.io import read_spectra

        joined = coadd_cameras(read_spectra(str(file)))
    return (
        np.asarray(joined.fibermap["TARGETID"], np.int64),
        joined.flux["brz"].astype(np.float32),
        joined.ivar["brz"].astype(np.float32),
        joined.mask["brz"],
    )


REAL = (
    "coadd-1-80693-thru20210204.fits",
    "coadd-2-80693-thru20210204.fits",
    "coadd-4-80613-thru20210324.fits",
    "coadd-main-dark-9144.fits",
    "coadd-special-dark-27247.fits",
)


@pytest.mark.parametrize("name", REAL)
def test_real_files_equal_desispec(shared_data: Path, name: str) -> None:
    file = shared_data / "desi" / name
    targetid, flux, ivar, mask = desispec_joined(file)
    rows = read_coadd(ObjectStore.open(str(file.parent)), name, targetid)
    assert np.array_equal(rows.targetid, targetid)
    assert np.array_equal(rows.flux, flux)
    assert np.array_equal(rows.ivar, ivar)
    assert np.array_equal(rows.mask, mask)


def test_built_file_equals_desispec(coadd: CoaddFits, survey: ObjectStore) -> None:
    rows = read(survey, coadd)
    targetid, flux, ivar, mask = desispec_joined(Path(survey.locate(PATH)))
    assert np.array_equal(rows.targetid, targetid)
    assert np.array_equal(rows.flux, flux)
    assert np.array_equal(rows.ivar, ivar)
    assert np.array_equal(rows.mask, mask)
    assert mask.any()


def test_order_asked_for_and_missing_targets(coadd: CoaddFits, survey: ObjectStore) -> None:
    every = read(survey, coadd)
    rows = read(survey, coadd, np.array([104, 7, 101, 9, 101]))
    assert rows.targetid.tolist() == [104, 101, 101]
    assert rows.missing.tolist() == [7, 9]
    assert np.array_equal(rows.flux, every.flux[[3, 0, 0]])
    assert np.array_equal(rows.mask, every.mask[[3, 0, 0]])
    assert np.array_equal(rows.ra, every.ra[[3, 0, 0]])


def test_no_target_in_the_file(coadd: CoaddFits, survey: ObjectStore) -> None:
    rows = read(survey, coadd, np.array([1, 2]))
    assert rows.flux.shape == (0, N_PIXELS)
    assert rows.missing.tolist() == [1, 2]
    assert len(rows.exposures.fiber) == 0


def test_facts_of_each_spectrum(coadd: CoaddFits, survey: ObjectStore) -> None:
    rows = read(survey, coadd, np.array([103, 101]))
    fibermap = coadd.tables["FIBERMAP"]
    assert rows.ra.tolist() == fibermap["TARGET_RA"][[2, 0]].tolist()
    assert rows.dec.tolist() == fibermap["TARGET_DEC"][[2, 0]].tolist()
    assert rows.ebv.tolist() == fibermap["EBV"][[2, 0]].tolist()
    assert rows.exposures.fiber.to_pylist() == [[1030, 1031], [1010, 1011]]
    assert rows.exposures.petal.to_pylist() == [[3, 4], [3, 4]]
    assert rows.exposures.night.to_pylist() == [[20210105, 20210106], [20210101, 20210102]]
    assert rows.exposures.tile.to_pylist() == [[80693] * 2] * 2
    assert rows.quality.tolist() == [0, 0]


def test_snr_is_the_median_of_informative_pixels(coadd: CoaddFits, survey: ObjectStore) -> None:
    coadd.images["B_IVAR"][0, :1000] = 0  # an odd and an even number of pixels among the four
    rows = read(survey, coadd)
    expected = [
        np.median(flux[ivar > 0] * np.sqrt(ivar[ivar > 0])) for flux, ivar in zip(rows.flux, rows.ivar, strict=True)
    ]
    np.testing.assert_allclose(rows.snr, expected, rtol=1e-6)


def test_arm_difference_is_in_sigma(coadd: CoaddFits, survey: ObjectStore) -> None:
    rows = read(survey, coadd)
    images = coadd.images
    for first, second, overlap, place in (
        ("B", "R", OVERLAP_BR, slice(0, 51)),
        ("R", "Z", OVERLAP_RZ, slice(51, 177)),
    ):
        a, b = (slice(overlap.start - ARMS[x].start, overlap.stop - ARMS[x].start) for x in (first, second))
        v_a, v_b = images[f"{first}_IVAR"][:, a], images[f"{second}_IVAR"][:, b]
        with np.errstate(divide="ignore"):
            sigma = (images[f"{first}_FLUX"][:, a] - images[f"{second}_FLUX"][:, b]) / np.sqrt(1 / v_a + 1 / v_b)
        expected = np.where((v_a > 0) & (v_b > 0), sigma, np.nan)
        np.testing.assert_allclose(rows.arm_difference[:, place], expected, rtol=2e-5, atol=1e-6)


def test_mask_stored_as_unsigned(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    for arm in ARMS:
        coadd.images[f"{arm}_MASK"] = coadd.images[f"{arm}_MASK"].astype("u4")
    content = coadd.bytes()
    assert b"BZERO   =           2147483648" in content
    assert same(read(survey, content), plain)


@pytest.mark.parametrize("kind", ["i2", "i8", "u2"])
def test_mask_of_other_integers(coadd: CoaddFits, survey: ObjectStore, kind: str) -> None:
    plain = read(survey, coadd)
    for arm in ARMS:
        coadd.images[f"{arm}_MASK"] = coadd.images[f"{arm}_MASK"].astype(kind)
    assert same(read(survey, coadd), plain)


def test_flux_as_float64(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    for arm in ARMS:
        for kind in ("FLUX", "IVAR"):
            coadd.images[f"{arm}_{kind}"] = coadd.images[f"{arm}_{kind}"].astype("f8")
    assert same(read(survey, coadd), plain)


def test_scaled_flux(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    survey.write(PATH, coadd.bytes())
    file = Path(survey.locate(PATH))
    with fits.open(file) as hdus:
        hdus["R_FLUX"].scale("int32", "old", bscale=1e-6, bzero=0.5)
        hdus.writeto(file, overwrite=True)
    scaled = read_coadd(survey, PATH, ALL)
    np.testing.assert_allclose(scaled.flux, plain.flux, atol=2e-6)
    assert np.array_equal(scaled.ivar, plain.ivar)


def test_missing_mask_means_none(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    for arm in ARMS:
        del coadd.images[f"{arm}_MASK"]
    rows = read(survey, coadd)
    assert np.array_equal(rows.flux, plain.flux)
    assert not rows.mask.any()


def test_extra_hdus_in_any_order(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    images = {"EXTRA": np.zeros((3, 5)), **dict(reversed(coadd.images.items())), "MORE": np.zeros(7, "i2")}
    tables = dict(reversed(coadd.tables.items())) | {"SCORES": {"TARGETID": ALL}}
    assert same(read(survey, CoaddFits(tables, images)), plain)


def test_with_resolution(survey: ObjectStore) -> None:
    assert same(read(survey, CoaddFits.make(resolution=True)), read(survey, CoaddFits.make()))


@pytest.mark.parametrize("gone", ["B", "R", "Z"])
def test_missing_arm(coadd: CoaddFits, survey: ObjectStore, gone: str) -> None:
    plain = read(survey, coadd)
    for kind in ("WAVELENGTH", "FLUX", "IVAR", "MASK"):
        del coadd.images[f"{gone}_{kind}"]
    rows = read(survey, coadd)
    assert (rows.quality == Quality[f"MISSING_{gone}"]).all()
    covered = np.zeros(N_PIXELS, bool)
    for arm, pixels in ARMS.items():
        covered[pixels] |= arm != gone
    assert not rows.ivar[:, ~covered].any()
    assert not rows.flux[:, ~covered].any()
    alone = covered.copy()
    alone[ARMS[gone]] = False
    assert np.array_equal(rows.flux[:, alone], plain.flux[:, alone])


def test_arm_of_another_length(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    for kind in ("WAVELENGTH", "FLUX", "IVAR", "MASK"):
        coadd.images[f"B_{kind}"] = np.ascontiguousarray(coadd.images[f"B_{kind}"][..., 100:2600])
    rows = read(survey, coadd)
    assert not rows.ivar[:, :100].any()
    assert not rows.ivar[:, 2600:2700].any()
    assert np.array_equal(rows.flux[:, 100:2600], plain.flux[:, 100:2600])
    assert np.isnan(rows.arm_difference[:, :51]).all()
    assert np.array_equal(rows.flux[:, 2751:], plain.flux[:, 2751:])


def test_wavelengths_as_float32(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    for arm in ARMS:
        coadd.images[f"{arm}_WAVELENGTH"] = coadd.images[f"{arm}_WAVELENGTH"].astype("f4")
    assert same(read(survey, coadd), plain)


def test_fibermap_of_targetid_alone(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    rows = read(survey, CoaddFits({"FIBERMAP": {"TARGETID": ALL}}, coadd.images))
    assert np.array_equal(rows.flux, plain.flux)
    assert np.isnan(rows.ra).all()
    assert np.isnan(rows.ebv).all()
    assert rows.exposures.fiber.to_pylist() == [[]] * 4
    assert (rows.quality == Quality.NO_EXPOSURES).all()


def test_fibermap_tells_what_exposures_would(coadd: CoaddFits, survey: ObjectStore) -> None:
    columns = {"TARGETID": ALL, "PETAL_LOC": np.array([1, 2, 3, 4], "i2"), "TILEID": np.full(4, 80693, "i4")}
    rows = read(survey, CoaddFits({"FIBERMAP": columns}, coadd.images), np.array([103, 102]))
    assert rows.exposures.petal.to_pylist() == [[3], [2]]
    assert rows.exposures.tile.to_pylist() == [[80693], [80693]]
    assert rows.exposures.night.to_pylist() == [[], []]
    assert (rows.quality == Quality.NO_EXPOSURES).all()


def test_target_without_exposures(coadd: CoaddFits, survey: ObjectStore) -> None:
    coadd.tables["EXP_FIBERMAP"]["TARGETID"][:2] = 5
    rows = read(survey, coadd)
    assert rows.exposures.night.to_pylist()[:2] == [[], [20210103, 20210104]]
    assert (rows.quality & Quality.NO_EXPOSURES).tolist() == [Quality.NO_EXPOSURES, 0, 0, 0]


def test_duplicate_rows_give_the_first(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    coadd.tables["FIBERMAP"]["TARGETID"] = np.array([101, 102, 101, 104])
    rows = read(survey, coadd, np.array([101, 102]))
    assert np.array_equal(rows.flux, plain.flux[:2])
    assert rows.quality.tolist() == [Quality.DUPLICATE_ROW, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_flux(coadd: CoaddFits, survey: ObjectStore, value: float) -> None:
    coadd.images["R_FLUX"][1, 1000] = value
    coadd.images["R_IVAR"][1, 1000] = 1
    coadd.images["R_MASK"][1, 1000] = 0
    rows = read(survey, coadd)
    assert rows.quality.tolist() == [0, Quality.NONFINITE_FLUX, 0, 0]
    assert (rows.flux[1, 3700], rows.ivar[1, 3700]) == (0, 0)
    assert np.isfinite(rows.flux).all()


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_ivar(coadd: CoaddFits, survey: ObjectStore, value: float) -> None:
    coadd.images["Z_IVAR"][2, [10, 2000]] = value  # in the overlap with R and outside
    coadd.images["Z_MASK"][2, [10, 2000]] = 0
    rows = read(survey, coadd)
    assert rows.quality.tolist() == [0, 0, Quality.BAD_IVAR, 0]
    assert rows.ivar[2, 6900] == 0
    r_alone = coadd.images["R_FLUX"][2, 4910 - 2700] if coadd.images["R_IVAR"][2, 4910 - 2700] else 0
    assert rows.flux[2, 4910] == r_alone
    assert np.isfinite(rows.ivar).all()


def test_nothing_is_flagged_where_there_is_no_information(coadd: CoaddFits, survey: ObjectStore) -> None:
    coadd.images["B_FLUX"][0, 5] = np.nan
    coadd.images["B_IVAR"][0, 5] = 0
    coadd.images["B_FLUX"][0, 6] = np.inf
    coadd.images["B_IVAR"][0, 6] = np.nan
    coadd.images["B_MASK"][0, 6] = 1
    coadd.images["B_IVAR"][0, 7] = -0.0
    rows = read(survey, coadd)
    assert rows.quality[0] == 0
    assert not rows.flux[0, 5:7].any()
    assert not rows.ivar[0, 5:8].any()


def test_masked_pixels_carry_no_information(coadd: CoaddFits, survey: ObjectStore) -> None:
    coadd.images["B_MASK"][0, [50, 2740]] = 4
    coadd.images["B_IVAR"][0, [50, 2740]] = 9
    coadd.images["R_MASK"][0, 40] = 0
    coadd.images["R_IVAR"][0, 40] = 2
    rows = read(survey, coadd)
    assert (rows.ivar[0, 50], rows.mask[0, 50]) == (0, 4)
    assert (rows.ivar[0, 2740], rows.mask[0, 2740]) == (2, 0)
    assert rows.flux[0, 2740] == coadd.images["R_FLUX"][0, 40]


def test_fully_masked_spectrum(coadd: CoaddFits, survey: ObjectStore) -> None:
    for arm in ARMS:
        coadd.images[f"{arm}_MASK"][3] = 1
        coadd.images[f"{arm}_IVAR"][2] = 0
    rows = read(survey, coadd)
    nothing = Quality.NO_INFORMATION | Quality.LOW_COVERAGE
    nothing |= Quality.MISSING_B | Quality.MISSING_R | Quality.MISSING_Z
    assert rows.quality.tolist() == [0, 0, nothing, nothing]
    assert np.isnan(rows.snr).tolist() == [False, False, True, True]
    assert (rows.mask[3] == 1).all()
    assert not rows.ivar[2:].any()


def test_low_coverage(coadd: CoaddFits, survey: ObjectStore) -> None:
    coadd.images["R_IVAR"][1] = 0
    coadd.images["Z_IVAR"][1] = 0
    rows = read(survey, coadd)
    assert rows.quality[1] == Quality.LOW_COVERAGE | Quality.MISSING_R | Quality.MISSING_Z


def test_gzipped(coadd: CoaddFits, survey: ObjectStore) -> None:
    assert same(read(survey, gzip.compress(coadd.bytes(), 1)), read(survey, coadd))


def test_missing_file(survey: ObjectStore) -> None:
    with pytest.raises(MissingObject, match=r"nowhere\.fits"):
        read_coadd(survey, "nowhere.fits", ALL)


def test_changed_file(coadd: CoaddFits, survey: ObjectStore) -> None:
    survey.write(PATH, coadd.bytes())
    planned = survey.head(PATH).etag
    assert len(read_coadd(survey, PATH, ALL, etag=planned).targetid) == 4
    survey.write(PATH, coadd.bytes() + bytes(2880))
    with pytest.raises(InputError, match="changed since it was planned") as caught:
        read_coadd(survey, PATH, ALL, etag=planned)
    assert caught.value.reason == "changed"


@pytest.mark.parametrize("content", [b"", b"SIMPLE", b"\x89PNG" + bytes(5000), b"<html>" * 1000])
def test_not_fits(survey: ObjectStore, content: bytes) -> None:
    refused(survey, content, "not_fits")


@pytest.mark.parametrize("kept", [3000, 10_000, 40_000, 200_000, 390_000])
def test_truncated(coadd: CoaddFits, survey: ObjectStore, kept: int) -> None:
    content = coadd.bytes()
    assert len(content) > kept
    assert "fetch it again" in refused(survey, content[:kept], "truncated")


def test_truncated_in_the_last_image(coadd: CoaddFits, survey: ObjectStore) -> None:
    refused(survey, coadd.bytes()[:-6000], "truncated")


def test_missing_padding_at_the_end_is_no_harm(coadd: CoaddFits, survey: ObjectStore) -> None:
    plain = read(survey, coadd)
    unpadded = 4 * ARMS["Z"].stop - 4 * ARMS["Z"].start
    assert same(read(survey, coadd.bytes()[: -(-unpadded * 4 % 2880)]), plain)


def test_truncated_gzip(coadd: CoaddFits, survey: ObjectStore) -> None:
    refused(survey, gzip.compress(coadd.bytes(), 1)[:-1000], "truncated")


def test_damaged_gzip(coadd: CoaddFits, survey: ObjectStore) -> None:
    content = bytearray(gzip.compress(coadd.bytes(), 1))
    content[-6] ^= 0xFF  # in the checksum
    refused(survey, bytes(content), "damaged")


@pytest.mark.parametrize("name", ["FIBERMAP", "B_IVAR", "R_FLUX", "Z_WAVELENGTH"])
def test_missing_hdu(coadd: CoaddFits, survey: ObjectStore, name: str) -> None:
    (coadd.tables if name == "FIBERMAP" else coadd.images).pop(name)
    assert name in refused(survey, coadd, "missing_hdu")


def test_no_arm_at_all(coadd: CoaddFits, survey: ObjectStore) -> None:
    assert "every arm" in refused(survey, CoaddFits(coadd.tables), "missing_hdu")


def test_fibermap_without_targetid(coadd: CoaddFits, survey: ObjectStore) -> None:
    del coadd.tables["FIBERMAP"]["TARGETID"]
    assert "TARGETID" in refused(survey, coadd, "missing_column")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("B_FLUX", (3, 2751)),
        ("R_IVAR", (4, 2325)),
        ("Z_MASK", (5, 2881)),
        ("B_WAVELENGTH", (2, 2751)),
        ("R_FLUX", (4,)),
    ],
)
def test_wrong_shape(coadd: CoaddFits, survey: ObjectStore, name: str, shape: tuple[int, ...]) -> None:
    coadd.images[name] = np.zeros(shape, coadd.images[name].dtype)
    assert name in refused(survey, coadd, "wrong_shape")


def test_mask_of_floats(coadd: CoaddFits, survey: ObjectStore) -> None:
    coadd.images["B_MASK"] = coadd.images["B_MASK"].astype("f4")
    assert "expected integers" in refused(survey, coadd, "wrong_shape")


@pytest.mark.parametrize(
    "change",
    [
        lambda wave: wave + 0.1,  # off the phase
        lambda wave: np.geomspace(wave[0], wave[-1], len(wave)),  # logarithmic
        lambda wave: wave - 100,  # begins before the grid
        lambda wave: np.full_like(wave, np.nan),
        lambda wave: np.where(np.arange(len(wave)) == 7, np.nan, wave),
    ],
)
def test_wrong_grid(coadd: CoaddFits, survey: ObjectStore, change: Any) -> None:
    coadd.images["B_WAVELENGTH"] = change(coadd.images["B_WAVELENGTH"])
    assert "B_WAVELENGTH" in refused(survey, coadd, "wrong_grid")


def test_three_arms_in_one_pixel(survey: ObjectStore, coadd: CoaddFits) -> None:
    for arm in ARMS:
        for kind in ("FLUX", "IVAR", "MASK"):
            coadd.images[f"{arm}_{kind}"] = coadd.images[f"{arm}_{kind}"][:, :500].copy()
        coadd.images[f"{arm}_WAVELENGTH"] = WAVELENGTH[:500].copy()
    assert "three arms overlap" in refused(survey, coadd, "wrong_grid")


def test_damaged_header(coadd: CoaddFits, survey: ObjectStore) -> None:
    content = coadd.bytes()
    at = content.index(b"EXTNAME = 'R_FLUX")
    start = content.rindex(b"NAXIS1  =", 0, at)
    refused(survey, content[: start + 10] + b"                -5  " + content[start + 30 :], "bad_header")


def test_garbage_between_hdus(coadd: CoaddFits, survey: ObjectStore) -> None:
    content = coadd.bytes()
    at = content.rindex(b"XTENSION", 0, content.index(b"EXTNAME = 'R_FLUX"))
    refused(survey, content[:at] + b"garbage!" * 360 + content[at + 2880 :], "bad_header")


def test_trailing_zeros_are_no_harm(coadd: CoaddFits, survey: ObjectStore) -> None:
    assert same(read(survey, coadd.bytes() + bytes(2880)), read(survey, coadd))


def test_damaged_headers_are_named_and_nothing_else_is_raised(survey: ObjectStore) -> None:
    content = CoaddFits.make(1).bytes()
    cards = np.flatnonzero(
        np.frombuffer(content, np.uint8)[: len(content) // 80 * 80].reshape(-1, 80)[:, 8] == ord("=")
    )
    rng, reasons = np.random.default_rng(5), set()
    for _ in range(150):
        damaged = bytearray(content)
        for card in rng.choice(cards, 2):
            damaged[card * 80 + rng.integers(31)] = rng.choice(list(b"0123456789 '=-.TFEXx/\0\xff"))
        try:
            read(survey, bytes(damaged), ALL[:1])
        except InputError as error:
            reasons.add(error.reason)
    assert {"bad_header", "missing_hdu"} <= reasons
