"""The app: REST and the VO protocols over one survey, health, readiness and metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import psycopg2
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from pipeline.access.survey import Survey
from pipeline.errors import SkysiftError, one_line
from pipeline.service import rest, tokens, vo
from pipeline.service.answers import explained, json_answer, problem, vo_problem
from pipeline.service.gate import VO, BodyTooLargeError, Gate, Metrics

RATE = 100.0  # requests a second and client
LONGEST = 90.0  # s that a query of skysift_reader may take, whatever its session says
_WATCH = 5.0  # s between two looks
log = logging.getLogger("skysift.service")


def create_app(survey: Survey, *, known: Sequence[tokens.Token] | None = None, rate: float = RATE) -> FastAPI:
    """Return the app.

    Args:
        survey: what it serves; the caller closes it.
        known: tokens that are let in; None: everybody is.
        rate: requests a second of one client (or token), four seconds' worth at once.
    """
    stop = threading.Event()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = threading.Thread(target=_watch, args=(survey, stop), daemon=True)
        watch.start()
        yield
        stop.set()

    app = FastAPI(
        title="skysift", version=version("skysift"), lifespan=lifespan,
        description="A spectroscopic survey sifted for the strange. TARGETIDs and spectrum_ids are strings: they "
        "exceed 2⁵³. Angles are degrees (ICRS), wavelengths vacuum Å, fluxes 1e-17 erg/s/cm²/Å.",
    )  # fmt: skip
    app.state.survey = survey
    metrics = Metrics()
    app.include_router(rest.router)
    app.include_router(vo.router)
    _operations(app, survey, metrics)
    _errors(app)
    app.add_middleware(Gate, known=known, rate=rate, metrics=metrics)
    return app


def _operations(app: FastAPI, survey: Survey, metrics: Metrics) -> None:
    @app.get("/health", tags=["operations"])
    def health() -> Response:
        """Whether the process answers at all."""
        return json_answer({"status": "ok"})

    @app.get("/ready", tags=["operations"], responses={503: {"description": "A store is down; which one is said"}})
    def ready() -> Response:
        """Whether PostgreSQL, Milvus and the object store answer."""
        found = {name: _state(look) for name, look in _looks(survey).items()}
        return json_answer(found, 200 if all(one == "ok" for one in found.values()) else 503)

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    def prometheus() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _looks(survey: Survey) -> dict[str, Callable[[], Any]]:
    return {
        "postgres": lambda: survey.model_id,
        "milvus": lambda: survey.neighbours().alive(),
        "objects": survey.check_objects,
    }


def _state(look: Callable[[], Any]) -> str:
    try:
        look()
    except SkysiftError as error:
        return one_line(error)
    return "ok"


def _errors(app: FastAPI) -> None:
    def vo_asked(request: Request) -> bool:
        return request.url.path.startswith(VO)

    @app.exception_handler(SkysiftError)
    def ours(request: Request, error: SkysiftError) -> Response:
        return explained(error, vo=vo_asked(request))

    @app.exception_handler(BodyTooLargeError)
    def large(request: Request, error: BodyTooLargeError) -> Response:
        return (vo_problem if vo_asked(request) else problem)(413, "too_large", str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return problem(422, "bad_parameter", f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return problem(error.status_code, code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        log.exception("unexpected error at %s", request.url.path)
        say = vo_problem if vo_asked(request) else problem
        return say(500, "unexpected", f"an unexpected {type(error).__name__}; the server's log has the details")


def _watch(survey: Survey, stop: threading.Event) -> None:
    """Cancel what the read-only role runs too long, whoever's session it is; with a role that may."""
    conn = None
    while not stop.wait(_WATCH):
        try:
            if conn is None or conn.closed:
                conn = psycopg2.connect(survey.server_url)
                conn.autocommit = True
            with conn.cursor() as cur:
                cur.execute("SELECT cancel_overlong(%s * interval '1 second')", (LONGEST,))
        except psycopg2.errors.InsufficientPrivilege:
            log.warning("this role may not cancel overlong queries; only each session's own limits hold")
            break
        except (psycopg2.Error, SkysiftError) as error:
            log.warning("overlong queries are not watched: %s", str(error).splitlines()[0])
            conn = None
    if conn is not None:
        conn.close()
