"""``from pipeline import Survey`` on a finished run: rows, spectra, scores, look-alikes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy import units

from pipeline import Survey
from pipeline.errors import ConfigError, InputError, NotFoundError, QueryError, SkysiftError
from pipeline.stores.vectors import VectorStore

from ..conftest import Sifted

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture(scope="module")
def survey(sifted: Sifted) -> Iterator[Survey]:
    with Survey(sifted.workspace) as opened:
        yield opened


def test_anomalies_are_in_order_with_units_and_descriptions(survey: Survey) -> None:
    found = survey.anomalies(20)
    assert found["rank"].tolist() == list(range(1, 21))
    assert found["ra"].unit == units.deg
    assert found["ra"].description == "Right ascension, deg, ICRS"
    assert found["p_value"].info.meta["ucd"] == "stat.probability"
    assert found.meta["MODEL"] == survey.model_id
    assert survey.anomalies(5, after=20)["rank"].tolist() == list(range(21, 26))
    assert len(found.to_pandas()) == 20
    strange = survey.anomalies(50, verdict="physical", z=(1, 3), columns=("rank", "z", "verdict"))
    assert strange.colnames == ["rank", "z", "verdict"]
    assert set(strange["verdict"]) <= {"physical"}
    assert ((strange["z"] >= 1) & (strange["z"] <= 3)).all()


def test_cones_agree_with_astropy(survey: Survey) -> None:
    from astropy.coordinates import SkyCoord

    everything = survey.query("SELECT spectrum_id, ra, dec FROM anomaly_catalog")
    centre = SkyCoord(everything["ra"][0] * units.deg, everything["dec"][0] * units.deg)
    apart = centre.separation(SkyCoord(everything["ra"], everything["dec"], unit="deg"))
    found = survey.cone(centre, radius=30 * units.arcmin)
    assert set(found["spectrum_id"].tolist()) == set(everything["spectrum_id"][apart < 0.5 * units.deg].tolist())
    assert (np.diff(found["separation"]) >= 0).all()
    assert found["separation"].unit == units.deg


def test_a_spectrum_has_its_pixels_in_units(survey: Survey, tmp_path: Path) -> None:
    targetid = int(survey.anomalies(1)["targetid"][0])
    found = survey.spectrum(targetid)
    assert found.targetid == targetid
    assert found.wavelength[0] == 3600 * units.Angstrom
    assert found.flux.unit.is_equivalent("erg / (s cm2 Angstrom)")
    assert (found.flux**2 * found.ivar).unit.is_equivalent(units.dimensionless_unscaled)
    good = found.good
    expected = (found.flux_L - found.reconstruction.value) * np.sqrt(found.ivar_L)
    np.testing.assert_allclose(found.residual[good], expected[good], rtol=1e-5)
    assert np.isnan(found.residual[~good]).all()
    assert found.table().colnames == ["wavelength", "flux", "ivar", "mask", "reconstruction", "residual"]
    found.plot().savefig(tmp_path / "a.png")
    assert np.isnan(survey.spectrum(targetid, reconstruct=False).reconstruction.value).all()


def test_scoring_a_spectrum_again_gives_the_catalogs_scores(survey: Survey, tmp_path: Path) -> None:
    row = survey.query("SELECT targetid, local_emission, density FROM anomaly_catalog ORDER BY rank LIMIT 1")[0]
    spectrum = survey.spectrum(int(row["targetid"]))
    ivar = np.where(spectrum.good, spectrum.ivar_L, 0)
    found = survey.score((spectrum.wavelength, spectrum.flux, ivar * spectrum.ivar.unit), redshift=spectrum.z)
    assert found["local_emission"][0] == pytest.approx(row["local_emission"], rel=1e-3)
    assert found["density"][0] == pytest.approx(row["density"], rel=1e-3)
    spectrum.table().write(tmp_path / "one.fits")
    assert survey.score(tmp_path / "one.fits")["density"][0] == pytest.approx(row["density"], rel=1e-2)


def test_lookalikes_leave_out_the_target_and_come_with_facts(survey: Survey) -> None:
    targetid = int(survey.anomalies(1)["targetid"][0])
    found = survey.similar(targetid, k=15)
    assert len(found) == 15
    assert targetid not in found["targetid"].tolist()
    assert (np.diff(found["distance"]) >= 0).all()
    assert (np.diff(found["distance_percentile"]) >= 0).all()
    assert ((found["distance_percentile"] >= 0) & (found["distance_percentile"] <= 100)).all()
    assert {"z", "snr", "p_value", "verdict", "explanation"} <= set(found.colnames)


def test_lookalikes_are_those_of_brute_force(survey: Survey) -> None:
    ids = survey.query("SELECT spectrum_id, targetid, z, snr FROM anomaly_catalog ORDER BY rank")
    keys, vectors = survey.vectors.fetch(survey.model_id, ids["spectrum_id"].tolist())
    distance = np.linalg.norm(vectors - vectors[0], axis=1)
    wanted = (ids["z"] > 1.5) & (ids["snr"] > 1) & (ids["targetid"] != ids["targetid"][0])
    order = np.argsort(np.where(wanted, distance, np.inf))[:10]
    found = survey.similar(int(ids["targetid"][0]), k=10, z=(1.5, None), snr=(1, None))
    assert found["spectrum_id"].tolist() == keys[order].tolist()
    np.testing.assert_allclose(found["distance"], distance[order], rtol=1e-3)


def test_lookalikes_by_verdict_and_sky(survey: Survey) -> None:
    targetid = int(survey.anomalies(1)["targetid"][0])
    physical = survey.query("SELECT count(*) AS n FROM anomalies WHERE verdict = 'physical'")["n"][0]
    found = survey.similar(targetid, k=1000, verdict="physical")
    assert set(found["verdict"]) == {"physical"}
    assert physical - 1 <= len(found) <= physical
    row = survey.facts(targetid)
    near = survey.similar(targetid, k=1000, cone=(row["ra"], row["dec"], 0.7))
    assert set(near["spectrum_id"].tolist()) == set(survey.cone(row["ra"], row["dec"], 0.7)["spectrum_id"].tolist()) - {
        row["spectrum_id"]
    }


def test_lookalikes_of_a_spectrum_from_a_file(survey: Survey, tmp_path: Path) -> None:
    targetid = int(survey.anomalies(3)["targetid"][2])
    survey.spectrum(targetid).table().write(tmp_path / "one.fits")
    found = survey.similar(spectrum=tmp_path / "one.fits", k=5)
    assert found["targetid"][0] == targetid
    assert found["distance"][0] < 0.2 * found["distance"][1]


def test_milvus_lite_says_when_it_is_too_small(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.stores import vectors

    monkeypatch.setattr(vectors, "LITE_MOST", 100)
    said = survey.vectors.too_small(survey.model_id)
    assert "is made for up to 100: answers are right but take seconds; start a Milvus server" in said
    monkeypatch.setattr(survey.neighbours(), "_notice", said)
    with pytest.warns(UserWarning, match="start a Milvus server"):
        survey.similar(int(survey.anomalies(1)["targetid"][0]), k=1)


def test_what_cannot_be_answered_is_said(survey: Survey, tmp_path: Path) -> None:
    targetid = int(survey.anomalies(1)["targetid"][0])
    with pytest.raises(NotFoundError, match="has TARGETID 1; see"):
        survey.spectrum(1)
    with pytest.raises(NotFoundError, match="at most 63 bits"):
        survey.spectrum(2**70)
    with pytest.raises(NotFoundError, match="has no spectrum in nowhere; it has healpix/"):
        survey.spectrum(targetid, coadd="nowhere")
    with pytest.raises(QueryError, match="one of the two"):
        survey.similar()
    with pytest.raises(QueryError, match="k is 0, expected 1 to"):
        survey.similar(targetid, k=0)
    with pytest.raises(QueryError, match="more than 5 rows"):
        survey.query("SELECT * FROM anomaly_catalog", limit=5)
    with pytest.raises(QueryError, match="no column z; DROP"):
        survey.anomalies(columns=("z; DROP TABLE spectra",))
    with pytest.raises(QueryError, match="limit is 0"):
        survey.anomalies(0)
    wave = np.linspace(4000, 9000, 3000)
    with pytest.raises(InputError, match="redshift"):
        survey.score((wave, wave, wave), redshift=99.0)
    with pytest.raises(ConfigError, match="there is no workspace"):
        Survey(tmp_path / "nothing")


def test_two_stores_go_on_when_milvus_is_down(sifted: Sifted, monkeypatch: pytest.MonkeyPatch) -> None:
    with Survey(sifted.workspace) as survey:
        monkeypatch.setattr(survey, "vectors", VectorStore.open(survey._servers.milvus_uri), raising=False)
        survey.vectors.close()
        assert len(survey.anomalies(3)) == 3
        targetid = int(survey.anomalies(1)["targetid"][0])
        assert survey.spectrum(targetid).flux is not None
        with pytest.raises(SkysiftError, match="Milvus"):
            survey.similar(targetid)
