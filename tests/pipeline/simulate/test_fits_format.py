"""The FITS writer against astropy as the reader."""

from __future__ import annotations

import io

import numpy as np
from astropy.io import fits

from pipeline.simulate.fits_format import assemble, card, empty_table, image, parse_columns, primary, table


def test_astropy_reads_back_images_and_tables_with_units():
    columns = parse_columns("ID:K N:J S:I U:B X:E:deg Y:D:nanomaggy^-2 NAME:6A FLAG:L VEC:3D RATE:E:mas_yr-1")
    rows = empty_table(columns, 5)
    rows["ID"] = np.arange(5) + 2**60
    rows["VEC"] = np.arange(15).reshape(5, 3)
    rows["NAME"], rows["FLAG"], rows["X"] = "QSO", [b"T", b"F", b"T", b"T", b"F"], 0.5
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    keywords = [("SURVEY", "main", "which"), ("HPXNEST", True, ""), ("HPXPIXEL", 27136, "")]
    units = [primary(keywords), image("A_FLUX", cube, "Angstrom"), table("ROWS", columns, rows, keywords)]
    content = assemble([*units, image("MASK", np.array([[1, -5]], np.int32))])
    assert len(content) % 2880 == 0
    with fits.open(io.BytesIO(bytes(content))) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "A_FLUX", "ROWS", "MASK"]
        assert hdus[0].header["HPXNEST"] is True
        assert hdus[0].header["HPXPIXEL"] == 27136
        np.testing.assert_array_equal(hdus["A_FLUX"].data, cube)
        assert hdus["A_FLUX"].header["BUNIT"] == "Angstrom"
        np.testing.assert_array_equal(hdus["MASK"].data, [[1, -5]])
        data = hdus["ROWS"].data
        np.testing.assert_array_equal(data["ID"], rows["ID"])
        np.testing.assert_array_equal(data["VEC"], rows["VEC"])
        np.testing.assert_array_equal(data["FLAG"], [True, False, True, True, False])
        assert data["NAME"][0] == "QSO"
        assert hdus["ROWS"].columns["RATE"].unit == "mas yr-1"
        assert hdus["ROWS"].header["SURVEY"] == "main"


def test_big_endian_input_is_not_swapped_twice():
    values = np.arange(7, dtype=">f4")
    with fits.open(io.BytesIO(bytes(assemble([primary([]), image("X", values)])))) as hdus:
        np.testing.assert_array_equal(hdus["X"].data, values)


def test_every_card_is_80_characters():
    for entry in (("A", True, ""), ("LONGNAME", "x" * 60, "comment " * 9), ("N", 3, "c"), ("F", 0.1, "")):
        assert len(card(*entry)) == 80
