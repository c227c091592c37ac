"""The Virtual Observatory: Simple Cone Search 1.03, TAP 1.1 (synchronous), VOSI 1.1; as pyvo and TOPCAT ask."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import pyarrow as pa
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import URL
from starlette.responses import Response

from pipeline.access import catalog, formats
from pipeline.access.columns import column
from pipeline.access.filters import Cone
from pipeline.access.survey import Survey
from pipeline.access.votable import votable
from pipeline.errors import QueryError, SkysiftError
from pipeline.service.adql import translate
from pipeline.service.answers import VOTABLE, explained
from pipeline.service.rest import MAX_RADIUS, The, limited

router = APIRouter(include_in_schema=False)
MAX_ROWS = 1_000_000
USUAL_ROWS = 10_000
SECONDS = 60.0
CONE_ROWS = 50_000
_FORMATS = {  # what RESPONSEFORMAT may say → our format and its media type
    "votable": ("votable", VOTABLE), VOTABLE: ("votable", VOTABLE), "text/xml": ("votable", VOTABLE),
    "csv": ("csv", "text/csv"), "text/csv": ("csv", "text/csv"),
    "fits": ("fits", "application/fits"), "application/fits": ("fits", "application/fits"),
    "parquet": ("parquet", "application/vnd.apache.parquet"),
    "application/vnd.apache.parquet": ("parquet", "application/vnd.apache.parquet"),
}  # fmt: skip
_CONE = ("rank", "targetid", "ra", "dec", "z", "snr", "anomaly_score", "p_value", "q_value", "verdict",
         "artefact_probability", "explanation", "coadd", "spectrum_id")  # fmt: skip
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_IVOA = "http://www.ivoa.net/xml"
_SCHEMA = (
    f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:vs="{_IVOA}/VODataService/v1.1" '
    f'xmlns:vr="{_IVOA}/VOResource/v1.0"'
)


async def _parameters(request: Request) -> dict[str, str]:
    """Query and form parameters by upper-case name; DALI's names know no case."""
    pairs = parse_qsl(request.url.query, keep_blank_values=True)
    if request.method == "POST":
        body = await request.body()
        kind = request.headers.get("content-type", "")
        if "multipart" in kind:
            raise QueryError("uploads are not supported: send parameters as application/x-www-form-urlencoded")
        pairs += parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name.upper(): value for name, value in pairs}


@router.api_route("/tap/sync", methods=["GET", "POST"])
async def sync(request: Request, survey: The) -> Response:
    """A synchronous TAP query."""
    try:
        given = await _parameters(request)
        return await run_in_threadpool(_answer, survey, given)
    except SkysiftError as error:
        return explained(error, vo=True)


def _answer(survey: Survey, given: dict[str, str]) -> Response:
    if given.get("REQUEST", "doQuery") != "doQuery":
        raise QueryError(f"REQUEST is {given['REQUEST']}; doQuery alone is answered")
    if given.get("UPLOAD"):
        raise QueryError("UPLOAD is not supported; `skysift crossmatch` matches a file")
    if given.get("LANG", "ADQL").upper() not in ("ADQL", "ADQL-2.0"):
        raise QueryError(f"LANG is {given['LANG']}; ADQL (2.0) alone is answered")
    form, media = _format(given)
    limit = _most(given.get("MAXREC"))
    found = survey.reader.answer(translate(given.get("QUERY", "")), limit=limit, seconds=SECONDS)
    told = survey.descriptions
    if form == "votable":
        body = votable(found.rows, told, {}, overflow=found.truncated)
    else:
        body = formats.to_bytes(found.rows, form, told, {})
    return Response(body, media_type=media)


def _format(given: dict[str, str]) -> tuple[str, str]:
    asked = (given.get("RESPONSEFORMAT") or given.get("FORMAT") or "votable").split(";")[0].strip().lower()
    if asked not in _FORMATS:
        raise QueryError(f"RESPONSEFORMAT is {asked}; there are votable, csv, fits and parquet")
    return _FORMATS[asked]


def _most(given: str | None) -> int:
    if given is None or given == "":
        return USUAL_ROWS
    if not given.isdigit():
        raise QueryError(f"MAXREC is {given}, expected a number of rows, 0 or more")
    return min(int(given), MAX_ROWS)


@router.api_route("/scs", methods=["GET", "POST"])
async def scs(request: Request, survey: The) -> Response:
    """A simple cone search: RA, DEC and SR in deg."""
    try:
        return await run_in_threadpool(_cone, survey, await _parameters(request))
    except SkysiftError as error:
        answer = explained(error, vo=True)
        if answer.status_code == 400:  # SCS 1.03, section 2.3: errors are VOTables with status 200
            answer.status_code = 200
        return answer


def _cone(survey: Survey, given: dict[str, str]) -> Response:
    where = limited(Cone(*(_number(given, name) for name in ("RA", "DEC", "SR"))))
    most = CONE_ROWS if "MAXREC" not in given else min(_most(given["MAXREC"]), CONE_ROWS)
    if where.radius == 0.0 or most == 0:  # asks for the columns alone
        rows = survey.reader.rows(f"SELECT separation, {', '.join(_CONE)} FROM cone_search(0, 0, 0) LIMIT 0")
    else:
        rows = catalog.cone(survey.reader, where, limit=most + 1, columns=_CONE)
    body = votable(_for_scs(rows.slice(0, most)), survey.descriptions, {}, overflow=rows.num_rows > most)
    # SCS 1.03 wants version 1 UCDs on the three columns that it needs.
    for name, new in (("spectrum_id", "ID_MAIN"), ("ra", "POS_EQ_RA_MAIN"), ("dec", "POS_EQ_DEC_MAIN")):
        body = body.replace(f'ucd="{column(name).ucd}"'.encode(), f'ucd="{new}"'.encode(), 1)
    return Response(body, media_type=VOTABLE)


def _for_scs(rows: pa.Table) -> pa.Table:
    """Its identifier is a text."""
    at = rows.column_names.index("spectrum_id")
    return rows.set_column(at, "spectrum_id", rows["spectrum_id"].cast(pa.string()))


def _number(given: dict[str, str], name: str) -> float:
    try:
        return float(given[name])
    except KeyError:
        raise QueryError(f"{name} is missing; RA, DEC and SR are wanted, all in deg") from None
    except ValueError:
        raise QueryError(f"{name} is '{given[name]}', expected a number of degrees") from None


@router.get("/tap/capabilities")
def tap_capabilities(request: Request) -> Response:
    """What TAP can do here, and nothing else."""
    return _capabilities("tap", _root(request), _tap(_root(request)))


@router.get("/scs/capabilities")
def scs_capabilities(request: Request) -> Response:
    """What the cone search can do."""
    return _capabilities("scs", _root(request), _scs(_root(request)))


def _capabilities(service: str, root: str, own: str) -> Response:
    parts = [
        _capability("ivo://ivoa.net/std/VOSI#capabilities", f"{root}/{service}/capabilities"),
        _capability("ivo://ivoa.net/std/VOSI#availability", f"{root}/{service}/availability"),
        _capability("ivo://ivoa.net/std/VOSI#tables-1.1", f"{root}/tap/tables"),
        own,
    ]  # fmt: skip
    body = (f'{_XML}<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" {_SCHEMA} '
            f'xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0" xmlns:cs="http://www.ivoa.net/xml/ConeSearch/v1.0">\n'
            f"{''.join(parts)}</vosi:capabilities>\n")  # fmt: skip
    return Response(body, media_type="text/xml")


def _root(request: Request) -> str:
    url: URL = request.base_url
    return str(url).rstrip("/")


def _capability(standard: str, url: str) -> str:
    return (f'<capability standardID="{standard}"><interface xsi:type="vs:ParamHTTP" role="std">'
            f'<accessURL use="full">{escape(url)}</accessURL></interface></capability>\n')  # fmt: skip


def _tap(root: str) -> str:
    outputs = "".join(
        f'<outputFormat><mime>{media}</mime><alias>{form}</alias></outputFormat>'
        for form, media in dict(_FORMATS.values()).items()
    )  # fmt: skip
    features = "".join(
        f"<feature><form>{name}</form></feature>" for name in ("POINT", "CIRCLE", "CONTAINS", "DISTANCE")
    )
    return (
        '<capability standardID="ivo://ivoa.net/std/TAP" xsi:type="tr:TableAccess">'
        '<interface xsi:type="vs:ParamHTTP" role="std" version="1.1">'
        f'<accessURL use="base">{escape(root)}/tap</accessURL></interface>'
        '<language><name>ADQL</name><version ivo-id="ivo://ivoa.net/std/ADQL#v2.0">2.0</version>'
        f'<languageFeatures type="ivo://ivoa.net/std/TAPRegExt#features-adqlgeo">{features}</languageFeatures></language>'
        f'{outputs}<executionDuration><hard>{SECONDS:.0f}</hard></executionDuration>'
        f'<outputLimit><default unit="row">{USUAL_ROWS}</default><hard unit="row">{MAX_ROWS}</hard></outputLimit>'
        "</capability>\n"
    )  # fmt: skip


def _scs(root: str) -> str:
    return (
        '<capability standardID="ivo://ivoa.net/std/ConeSearch" xsi:type="cs:ConeSearch">'
        '<interface xsi:type="vs:ParamHTTP" role="std">'
        f'<accessURL use="base">{escape(root)}/scs?</accessURL></interface>'
        f"<maxSR>{MAX_RADIUS:g}</maxSR><maxRecords>{CONE_ROWS}</maxRecords><verbosity>false</verbosity>"
        "<testQuery><ra>150</ra><dec>2</dec><sr>0.1</sr></testQuery></capability>\n"
    )  # fmt: skip


@router.get("/tap/availability")
@router.get("/scs/availability")
def availability(survey: The) -> Response:
    """Whether queries can be answered now."""
    try:
        note, up = f"model {survey.model_id} is promoted", "true"
    except SkysiftError as error:
        note, up = str(error), "false"
    body = (
        f'{_XML}<vosi:availability xmlns:vosi="{_IVOA}/VOSIAvailability/v1.0">'
        f"<vosi:available>{up}</vosi:available><vosi:note>{escape(note)}</vosi:note></vosi:availability>\n"
    )
    return Response(body, media_type="text/xml", headers={"Date": f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}"})


@router.get("/tap/tables")
def tables(survey: The) -> Response:
    """The published tables and their columns, as TAP_SCHEMA has them."""
    try:
        columns = survey.reader.rows(_COLUMNS).to_pylist()
        keys = survey.reader.rows(_KEYS).to_pylist()
    except SkysiftError as error:
        return explained(error, vo=True)
    parts = [f'{_XML}<vosi:tableset xmlns:vosi="{_IVOA}/VOSITables/v1.0" {_SCHEMA}>\n']
    for schema, of_schema in groupby(columns, itemgetter("schema_name")):
        parts.append(f"<schema><name>{schema}</name>\n")
        for table, of_table in groupby(of_schema, itemgetter("table_name")):
            rows = list(of_table)
            parts.append(f'<table type="view"><name>{table}</name>')
            parts.append(f"<description>{escape(rows[0]['about'] or '')}</description>\n")
            parts += map(_column, rows)
            parts += [_key(key) for key in keys if key["from_table"] == table]
            parts.append("</table>\n")
        parts.append("</schema>\n")
    return Response("".join([*parts, "</vosi:tableset>\n"]), media_type="text/xml")


_COLUMNS = """
    SELECT t.schema_name, t.table_name, t.description AS about, c.column_name, c.datatype, c.arraysize, c.description,
           c.unit, c.ucd, c.indexed, c.std
    FROM tap_schema.tables t JOIN tap_schema.columns c ON c.table_name = t.table_name
    ORDER BY t.schema_name, t.table_index, t.table_name, c.column_index"""
_KEYS = """
    SELECT k.from_table, k.target_table, k.description, c.from_column, c.target_column
    FROM tap_schema.keys k JOIN tap_schema.key_columns c ON c.key_id = k.key_id ORDER BY k.key_id"""


def _column(row: dict[str, Any]) -> str:
    """A column; the order of its parts is VODataService's."""
    told = "".join(
        f"<{part}>{escape(row[name])}</{part}>"
        for part, name in (("name", "column_name"), ("description", "description"), ("unit", "unit"), ("ucd", "ucd"))
        if row[name]
    )
    size = ' arraysize="*"' if row["arraysize"] else ""
    form = f'<dataType xsi:type="vs:VOTableType"{size}>{row["datatype"]}</dataType>'
    flag = "<flag>indexed</flag>" if row["indexed"] else ""
    return f'<column std="{"true" if row["std"] else "false"}">{told}{form}{flag}</column>\n'


def _key(key: dict[str, Any]) -> str:
    pair = f"<fromColumn>{key['from_column']}</fromColumn><targetColumn>{key['target_column']}</targetColumn>"
    return (f"<foreignKey><targetTable>{key['target_table']}</targetTable><fkColumn>{pair}</fkColumn>"
            f"<description>{escape(key['description'])}</description></foreignKey>\n")  # fmt: skip
