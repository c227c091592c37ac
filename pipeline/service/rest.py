"""REST: anomalies, objects, spectra, look-alikes, scores of uploads, runs and their quality."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from pipeline.access import catalog, formats, uploads
from pipeline.access.filters import Cone, Filters
from pipeline.access.spectra import FLUX_UNIT, Spectrum, read
from pipeline.access.survey import Survey, score_table, spectra_from
from pipeline.errors import InputError, QueryError
from pipeline.service.answers import json_answer, record, records, without
from pipeline.service.gate import etag
from pipeline.service.models import ERRORS, Objects, Page, Problem, Similar

router = APIRouter(prefix="/v1", responses=ERRORS)
SECONDS = 20.0  # of a query
MAX_RADIUS = 10.0  # deg
FILES = ("shard", "row_group", "row")
Id = Annotated[str, Path(pattern=r"^-?\d{1,19}$", description="A 64-bit integer, as a string")]
FormatName = Literal["json", "arrow", "fits"]


def survey_of(request: Request) -> Survey:
    """The survey that the app serves."""
    return request.app.state.survey  # type: ignore[no-any-return]


The = Annotated[Survey, Depends(survey_of)]


def filters_of(
    z_min: Annotated[float | None, Query()] = None,
    z_max: Annotated[float | None, Query()] = None,
    snr_min: Annotated[float | None, Query()] = None,
    snr_max: Annotated[float | None, Query()] = None,
    score_min: Annotated[float | None, Query()] = None,
    p_max: Annotated[float | None, Query(description="Largest p-value")] = None,
    q_max: Annotated[float | None, Query(description="Largest false discovery rate")] = None,
    artefact_below: Annotated[float | None, Query()] = None,
    verdict: Annotated[list[str] | None, Query(description="Any of these")] = None,
    ra: Annotated[float | None, Query(description="Centre of a cone, deg")] = None,
    dec: Annotated[float | None, Query()] = None,
    radius: Annotated[float | None, Query(description="deg, up to 10")] = None,
) -> Filters:
    """Filters from a request's parameters."""
    place = (ra, dec, radius)
    if any(one is not None for one in place) and None in place:
        raise QueryError("a cone wants ra, dec and radius, all three in deg", "out_of_range")
    cone = None
    if ra is not None and dec is not None and radius is not None:
        cone = limited(Cone(ra, dec, radius))
    return Filters(
        (z_min, z_max), (snr_min, snr_max), (score_min, None), (None, p_max), (None, q_max), tuple(verdict or ()),
        artefact_below, cone,
    )  # fmt: skip


def limited(cone: Cone) -> Cone:
    """Return the cone.

    Raises:
        QueryError: it is larger than the service answers.
    """
    if cone.radius > MAX_RADIUS:
        raise QueryError(f"radius is {cone.radius:g} deg, at most {MAX_RADIUS:g} are answered; tile a larger field",
                         "out_of_range")  # fmt: skip
    return cone


Wanted = Annotated[Filters, Depends(filters_of)]


def tagged(request: Request, value: Any) -> Response:
    """Answer with an ETag, or 304 where the asker has this already."""
    answer = json_answer(value)
    answer.headers["ETag"] = etag(bytes(answer.body))
    if request.headers.get("if-none-match") in (answer.headers["ETag"], "*"):
        return Response(status_code=304, headers={"ETag": answer.headers["ETag"]})
    return answer


@router.get("/anomalies", response_model=Page, responses={409: {"model": Problem}})
def anomalies(
    request: Request, survey: The, filters: Wanted,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int, Query(ge=0, lt=2**31, description="Rank of the page before's last row")] = 0,
    model: Annotated[str, Query(max_length=64, description="Of the first page: 409 when another is promoted")] = "",
) -> Response:  # fmt: skip
    """The strangest spectra by rank. Follow ``next`` for more: pages neither overlap nor leave gaps."""
    rows = catalog.ranking(survey.reader, filters, limit=limit, after=after, model_id=model)
    found = records(rows)
    following = None
    if len(found) == limit:
        asked = request.url.include_query_params(after=found[-1]["rank"], model=found[-1]["model_id"])
        following = f"{asked.path}?{asked.query}"
    return tagged(request, {"model": found[0]["model_id"] if found else None, "rows": found, "next": following})


@router.get("/objects/{targetid}", response_model=Objects)
def objects(request: Request, survey: The, targetid: Id) -> Response:
    """All spectra of a target with everything that is known of them."""
    rows = catalog.spectra_of(survey.reader, int(targetid)).to_pylist()
    return tagged(request, {"targetid": targetid, "spectra": [record(without(row, FILES)) for row in rows]})


@router.get("/spectra/{spectrum_id}", responses={200: {"content": {
    "application/json": {}, "application/vnd.apache.arrow.stream": {}, "application/fits": {}}}})  # fmt: skip
def spectra(
    request: Request, survey: The, spectrum_id: Id, form: Annotated[FormatName, Query(alias="format")] = "json",
    reconstruct: bool = True,
) -> Response:  # fmt: skip
    """One spectrum with the promoted model's reconstruction, as JSON, Arrow stream or FITS."""
    row = catalog.spectrum(survey.reader, int(spectrum_id)).to_pylist()[0]
    found = read(survey.objects, row, survey.model() if reconstruct else None)
    return _FORMATS[form](request, found)


def _json(request: Request, found: Spectrum) -> Response:
    known = found.good
    arrays = {
        "wavelength": found.wavelength.value, "flux": found.flux_L, "ivar": found.ivar_L, "mask": found.mask_L,
        "reconstruction": found.model_L, "residual": found.residual if found.model_L is not None else None,
    }  # fmt: skip
    units = {"wavelength": "Angstrom", "flux": FLUX_UNIT, "reconstruction": FLUX_UNIT, "residual": "sigma",
             "ivar": f"1 / ({FLUX_UNIT})^2"}  # fmt: skip
    return tagged(request, {"facts": record(without(found.facts, FILES)), "units": units, "good": int(known.sum()),
                            **arrays})  # fmt: skip


def pixels(found: Spectrum) -> pa.Table:
    """A spectrum as rows, a pixel each; its facts in the schema's metadata."""
    columns = {"wavelength": found.wavelength.value, "flux": found.flux_L, "ivar": found.ivar_L, "mask": found.mask_L}
    if found.model_L is not None:
        columns |= {"reconstruction": found.model_L, "residual": found.residual}
    told = {name: str(found.facts[name]) for name in ("targetid", "spectrum_id", "coadd", "z", "model_id")}
    return pa.table(columns).replace_schema_metadata(told)


def _arrow(_: Request, found: Spectrum) -> Response:
    rows, sink = pixels(found), io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return Response(sink.getvalue(), media_type="application/vnd.apache.arrow.stream")


def _fits(_: Request, found: Spectrum) -> Response:
    about = {"TARGETID": (found.targetid, "DESI TARGETID"), "Z": (found.z, "redshift"),
             "COADD": (found.facts["coadd"], "coadd file"), "MODEL": (found.facts["model_id"], "reconstructed by"),
             "FLUXUNIT": (FLUX_UNIT, "of flux and reconstruction")}  # fmt: skip
    body = formats.to_bytes(pixels(found), "fits", {}, about)
    name = f"{found.targetid}.fits"
    return Response(
        body, media_type="application/fits", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


_FORMATS: dict[str, Callable[[Request, Spectrum], Response]] = {"json": _json, "arrow": _arrow, "fits": _fits}


@router.get("/similar/{targetid}", response_model=Similar)
def similar(
    request: Request, survey: The, targetid: Id, filters: Wanted, k: Annotated[int, Query(ge=1, le=1000)] = 10
) -> Response:
    """The spectra most like a target's; its own and its duplicates are left out."""
    found = survey.neighbours().of_spectrum(survey.facts(int(targetid)), k, filters)
    return tagged(request, _alike(found))


def _alike(found: Any) -> dict[str, Any]:
    brief = {name: found.query[name] for name in catalog.BRIEF} if found.query else None
    return {"query": record(brief) if brief else None, "rows": records(found.rows),
            "left_out": [str(one) for one in found.left_out], "notice": found.notice or None}  # fmt: skip


_UPLOAD = {"requestBody": {"required": True, "content": {"application/octet-stream": {
    "schema": {"type": "string", "format": "binary"}}}}}  # fmt: skip
Redshift = Annotated[float | None, Query(description="Redshift, where the file does not say", ge=-0.01, le=20)]


@router.post("/similar-to-upload", response_model=Similar, openapi_extra=_UPLOAD)
async def similar_to_upload(
    request: Request, survey: The, filters: Wanted, z: Redshift = None, k: Annotated[int, Query(ge=1, le=1000)] = 10
) -> Response:
    """The spectra most like an uploaded one: FITS or Parquet as the body."""
    body = await request.body()
    return json_answer(await run_in_threadpool(_alike_upload, survey, body, z, k, filters))


def _alike_upload(survey: Survey, body: bytes, z: float | None, k: int, filters: Filters) -> dict[str, Any]:
    new = _uploaded(body, z)
    return _alike(survey.alike(new, k, filters))


@router.post("/score", openapi_extra=_UPLOAD)
async def score(request: Request, survey: The, z: Redshift = None) -> Response:
    """Raw scores and embedding of uploaded spectra by the promoted model: FITS or Parquet as the body."""
    body = await request.body()
    return json_answer(await run_in_threadpool(_scored, survey, body, z))


def _scored(survey: Survey, body: bytes, z: float | None) -> dict[str, Any]:
    new = _uploaded(body, z)
    found = survey.scores(new)
    rows = [row | {"embedding": vector} for row, vector in
            zip(records(score_table(new, found)), found.embedding.tolist(), strict=True)]  # fmt: skip
    return {"model": survey.model_id, "rows": rows}


def _uploaded(body: bytes, z: float | None) -> uploads.NewSpectra:
    if not body:
        raise InputError("the body is empty; send a FITS or Parquet file", "not_a_spectrum")
    return spectra_from(uploads.from_bytes(body, "the upload", z))


@router.get("/model")
def model(request: Request, survey: The) -> Response:
    """The promoted model."""
    return tagged(request, vars(catalog.promoted(survey.reader)))


@router.get("/runs")
def runs(request: Request, survey: The) -> Response:
    """Runs that the promoted model scored."""
    rows = survey.reader.rows("SELECT * FROM catalog_runs ORDER BY created_at DESC, run_id")
    return tagged(request, {"rows": records(rows)})


@router.get("/quality")
def quality(request: Request, survey: The) -> Response:
    """How well each stage of these runs went."""
    rows = survey.reader.rows("SELECT * FROM catalog_quality ORDER BY run_id, stage, name")
    return tagged(request, {"rows": records(rows)})


@router.get("/columns")
def columns(request: Request, survey: The) -> Response:
    """The published tables, their columns, units and meanings."""
    from pipeline.access.columns import column

    told = catalog.tables(survey.reader)
    found = {
        table: {"description": about["description"], "columns": [
            {"name": name, "type": kind, "unit": column(name).unit, "ucd": column(name).ucd, "description": said}
            for name, (kind, said) in about["columns"].items()
        ]} for table, about in told.items()
    }  # fmt: skip
    return tagged(request, found)
