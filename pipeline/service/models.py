"""The shapes of answers, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Fault(BaseModel):
    """What went wrong."""

    code: str = Field(description="Short and stable, such as not_found or milvus_down")
    message: str = Field(description="In one sentence, with what to do")


class Problem(BaseModel):
    """An error."""

    error: Fault


class Page(BaseModel):
    """Rows in the order of rank."""

    model: str | None
    rows: list[dict[str, Any]]
    next: str | None = Field(description="The next page; null on the last one")


class Objects(BaseModel):
    """A target and its spectra."""

    targetid: str
    spectra: list[dict[str, Any]]


class Similar(BaseModel):
    """Look-alikes, nearest first."""

    query: dict[str, Any] | None
    rows: list[dict[str, Any]]
    left_out: list[str] = Field(description="spectrum_id of the same object's other spectra that were near")
    notice: str | None


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "A parameter is malformed or out of range"},
    401: {"model": Problem, "description": "The token is missing, wrong or expired"},
    403: {"model": Problem, "description": "The token's scope does not reach so far"},
    404: {"model": Problem, "description": "Not in the catalog"},
    413: {"model": Problem, "description": "Too large"},
    422: {"model": Problem, "description": "Not what was expected, an upload that is no spectrum among others"},
    429: {"model": Problem, "description": "Too many requests"},
    503: {"model": Problem, "description": "A store is down; the code says which"},
    504: {"model": Problem, "description": "The query ran too long"},
}
