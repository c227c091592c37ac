"""One chunk from coadd to shard: counts, places, bytes that pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.chunks import Chunk
from pipeline.desi.coadd import read_coadd
from pipeline.desi.ingest import ingest_chunk
from pipeline.errors import InputError
from pipeline.keys import spectrum_id
from pipeline.quality import Quality
from pipeline.shards import ROW_GROUP, read_shard, read_spectrum
from pipeline.stores.objects import ObjectStore
from tests.pipeline.desi.conftest import CoaddFits

PATH = "healpix/main/dark/91/9144/coadd-main-dark-9144.fits"
MakeChunk = Callable[..., Chunk]


@pytest.fixture
def workspace(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(str(tmp_path / "workspace"))


def test_targets_in_equal_spectra_and_missing(
    survey: ObjectStore, workspace: ObjectStore, chunk_of: MakeChunk, coadd: CoaddFits
) -> None:
    survey.write(PATH, coadd.bytes())
    chunk = chunk_of(survey, PATH, [104, 999, 102])
    before = survey.requests
    result = ingest_chunk(survey, workspace, chunk)
    assert result.spectra["targetid"].to_pylist() == [104, 102]
    assert result.missing.tolist() == [999]
    assert "lacks 1 of 3" in result.missing_detail
    assert result.shard == chunk.shard
    assert result.bytes_written == workspace.head(chunk.shard).size
    assert set(result.seconds) == {"read", "join", "write"}
    assert (result.bytes_read, result.requests) == (survey.bytes_read, survey.requests - before)


def test_spectra_tell_key_catalog_and_place(
    survey: ObjectStore, workspace: ObjectStore, chunk_of: MakeChunk, coadd: CoaddFits
) -> None:
    survey.write(PATH, coadd.bytes())
    columns = {"ra": [1.0, None], "dec": [2.0, None], "zerr": [None, 0.1], "zwarn": [None, 4], "z": [3.5, 0.25]}
    chunk = chunk_of(survey, PATH, [103, 101], **columns)
    spectra = ingest_chunk(survey, workspace, chunk).spectra.to_pydict()
    fibermap = coadd.tables["FIBERMAP"]
    assert spectra["spectrum_id"] == spectrum_id(np.array([103, 101]), "healpix/main/dark/9144").tolist()
    assert spectra["coadd"] == ["healpix/main/dark/9144"] * 2
    assert (spectra["survey"], spectra["program"], spectra["healpix"]) == (["main"] * 2, ["dark"] * 2, [9144] * 2)
    assert spectra["ra"] == [1.0, fibermap["TARGET_RA"][0]]
    assert spectra["dec"] == [2.0, fibermap["TARGET_DEC"][0]]
    assert (spectra["z"], spectra["zerr"], spectra["zwarn"]) == ([3.5, 0.25], [None, 0.1], [None, 4])
    assert spectra["ebv"] == fibermap["EBV"][[2, 0]].tolist()
    assert (spectra["row_group"], spectra["row"]) == ([0, 0], [0, 1])


def test_unknown_position_is_null_and_flagged(
    survey: ObjectStore, workspace: ObjectStore, chunk_of: MakeChunk, coadd: CoaddFits
) -> None:
    coadd.tables = {"FIBERMAP": {"TARGETID": coadd.tables["FIBERMAP"]["TARGETID"]}}
    survey.write(PATH, coadd.bytes())
    chunk = chunk_of(survey, PATH, [101, 102], ra=[None, 1.0], dec=[None, 1.0])
    spectra = ingest_chunk(survey, workspace, chunk).spectra.to_pydict()
    assert spectra["ra"] == [None, 1.0]
    assert spectra["ebv"] == [None, None]
    assert spectra["fiber"] == spectra["night"] == [[], []]
    assert spectra["quality"] == [Quality.NO_POSITION | Quality.NO_EXPOSURES, Quality.NO_EXPOSURES]


def test_chunk_without_any_target_writes_nothing(
    survey: ObjectStore, workspace: ObjectStore, chunk_of: MakeChunk, coadd: CoaddFits
) -> None:
    survey.write(PATH, coadd.bytes())
    result = ingest_chunk(survey, workspace, chunk_of(survey, PATH, [7, 8]))
    assert (result.shard, result.spectra.num_rows, result.bytes_written) == (None, 0, 0)
    assert result.missing.tolist() == [7, 8]
    assert list(workspace.list()) == []


def test_changed_coadd_is_refused(
    survey: ObjectStore, workspace: ObjectStore, chunk_of: MakeChunk, coadd: CoaddFits
) -> None:
    survey.write(PATH, coadd.bytes())
    chunk = chunk_of(survey, PATH, [101])
    survey.write(PATH, CoaddFits.make(seed=1).bytes())
    with pytest.raises(InputError) as caught:
        ingest_chunk(survey, workspace, chunk)
    assert caught.value.reason == "changed"


def test_again_gives_equal_bytes(
    survey: ObjectStore, workspace: ObjectStore, chunk_of: MakeChunk, coadd: CoaddFits
) -> None:
    survey.write(PATH, coadd.bytes())
    chunk = chunk_of(survey, PATH, [101, 103])
    ingest_chunk(survey, workspace, chunk)
    first = workspace.read(chunk.shard)
    ingest_chunk(survey, workspace, chunk)
    assert workspace.read(chunk.shard) == first


def test_s3_moves_few_bytes_in_few_rounds(s3_server, tmp_path: Path, chunk_of: MakeChunk) -> None:
    """At 12% quasars at most 4% of a file in DESI's full format pass, as the server counts them."""
    n = 100
    content = CoaddFits.make(n, resolution=True).bytes()
    survey = ObjectStore.open(f"s3://sky/{tmp_path.name}/survey", endpoint=s3_server.endpoint)
    workspace = ObjectStore.open(f"s3://sky/{tmp_path.name}/workspace", endpoint=s3_server.endpoint)
    survey.write(PATH, content)
    wanted = np.sort(np.random.default_rng(2).permutation(n)[: n * 12 // 100]) + 101
    chunk = chunk_of(survey, PATH, wanted.tolist())
    s3_server.reset()
    result = ingest_chunk(survey, workspace, chunk)
    gets = [path for method, path, _ in s3_server.requests if method == "GET"]
    assert result.bytes_read == s3_server.bytes_sent <= 0.04 * len(content)
    assert result.requests == len(gets) <= 9 * len(wanted) + 20
    local = ObjectStore.open(str(tmp_path))
    local.write("same.fits", content)
    expected = read_coadd(local, "same.fits", wanted)
    shard = read_shard(workspace, chunk.shard)
    assert np.array_equal(shard.flux_BL, expected.flux)
    assert np.array_equal(shard.ivar_BL, expected.ivar)
    assert np.array_equal(shard.dense_mask(), expected.mask)


def test_one_spectrum_is_one_small_read(s3_server, tmp_path: Path, chunk_of: MakeChunk) -> None:
    n = ROW_GROUP + 6
    store = ObjectStore.open(f"s3://sky/{tmp_path.name}", endpoint=s3_server.endpoint)
    store.write(PATH, CoaddFits.make(n).bytes())
    chunk = chunk_of(store, PATH, list(range(101, 101 + n)))
    result = ingest_chunk(store, store, chunk)
    whole = read_shard(store, chunk.shard)
    place = {name: result.spectra[name].to_pylist()[-2] for name in ("row_group", "row")}
    assert place == {"row_group": 1, "row": 4}
    s3_server.reset()
    one = read_spectrum(store, chunk.shard, **place)
    assert s3_server.bytes_sent < 200_000  # of 4.4 MB
    assert len(s3_server.requests) <= 7
    assert one.spectrum_id_B.tolist() == [whole.spectrum_id_B[-2]]
    assert np.array_equal(one.flux_BL[0], whole.flux_BL[-2])
    assert np.array_equal(one.ivar_BL[0], whole.ivar_BL[-2])
    assert np.array_equal(one.dense_mask()[0], whole.dense_mask()[-2])
    assert one.lists("night") == [whole.lists("night")[-2]]
