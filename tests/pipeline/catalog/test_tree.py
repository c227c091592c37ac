from __future__ import annotations

import numpy as np
import pytest

from pipeline.catalog.pixels import N_PIXELS, pixel_of
from pipeline.catalog.tree import HealpixFile, Selection, TileFile
from pipeline.errors import ConfigError, InputError


def test_names_and_paths_are_desi_s() -> None:
    pixel, small = HealpixFile("main", "dark", 9144), HealpixFile("sv3", "bright", 5)
    assert pixel.name == "healpix/main/dark/9144"
    assert pixel.path() == "healpix/main/dark/91/9144/coadd-main-dark-9144.fits"
    assert small.path("redrock") == "healpix/sv3/bright/0/5/redrock-sv3-bright-5.fits"
    petal = TileFile(80693, 20210204, 1)
    assert petal.name == "tile/80693/1/20210204"
    assert petal.path() == "tiles/cumulative/80693/20210204/coadd-1-80693-thru20210204.fits"


@pytest.mark.parametrize("survey", ["", "../..", "main/dark", "ma in"])
def test_a_survey_is_a_word_before_it_is_a_folder(survey: str) -> None:
    with pytest.raises(InputError, match="should be words"):
        HealpixFile(survey, "dark", 1)


def test_selection() -> None:
    found = Selection.parse(["main/dark/2", "main/dark/1", "main/dark/2"], [])
    assert found.pixels == (HealpixFile("main", "dark", 1), HealpixFile("main", "dark", 2))
    assert found.tree == "healpix"
    found = Selection.parse([], ["80693/20210204", "80693/20210205/3"])
    assert found.whole_tiles == ((80693, 20210204),)
    assert found.tiles == (TileFile(80693, 20210205, 3),)
    assert found.tree == "tile"
    assert not Selection.parse([], [])
    assert Selection().tree is None


@pytest.mark.parametrize(
    ("pixels", "tiles", "says"),
    [
        (["main/dark"], [], "'main/dark' should read survey/program/pixel"),
        (["main/dark/49152"], [], "pixel below 49152"),
        (["../dark/4"], [], "should read survey/program/pixel"),
        ([], ["80693"], "'80693' should read tile/night"),
        ([], ["80693/2021/1"], "should read tile/night"),
        (["main/dark/4"], ["80693/20210204"], "both set"),
    ],
)
def test_misnamed(pixels: list[str], tiles: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Selection.parse(pixels, tiles)


def test_pixels_of_positions() -> None:
    from astropy_healpix import healpix_to_lonlat

    pixel = np.arange(0, N_PIXELS, 37)
    lon, lat = healpix_to_lonlat(pixel, 64, order="nested")
    np.testing.assert_array_equal(pixel_of(lon.deg, lat.deg), pixel)
    assert pixel_of(np.array([np.nan, 10, 10]), np.array([0, np.nan, -90.1])).tolist() == [-1, -1, -1]
