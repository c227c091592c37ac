"""What every request passes: its token, its rate, its size; then the access log and the metrics."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pipeline.service import tokens
from pipeline.service.answers import problem, vo_problem

OPEN: Final = ("/health", "/ready")  # without a token
VO: Final = ("/tap", "/scs")
MAX_BODY: Final = 64 << 20  # bytes
MAX_FORM: Final = 1 << 20  # bytes of a query
MOST_CLIENTS: Final = 10_000
log = logging.getLogger("skysift.access")

Message = dict[str, Any]


class Metrics:
    """Prometheus metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "status")
        self.requests = Counter("skysift_requests", "Requests answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "skysift_request_seconds", "Time to answer", ("route",), registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
        )  # fmt: skip
        self.busy = Gauge("skysift_requests_now", "Requests being answered", registry=self.registry)


class Buckets:
    """A rate for each client: tokens that fill up again with time."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Take one; return 0, or the seconds until there is one."""
        now = time.monotonic()
        left, then = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        self._left[client] = (left - 1.0 if left >= 1.0 else left, now)
        while len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1.0 else (1.0 - left) / self._rate


class Gate:
    """ASGI middleware around the app."""

    def __init__(self, app: Any, *, known: Sequence[tokens.Token] | None, rate: float, metrics: Metrics) -> None:
        """``known`` None: no token is asked for."""
        self._app, self._known, self._metrics = app, known, metrics
        self._buckets = Buckets(rate, 4 * rate)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, told = time.perf_counter(), {"status": 500, "bytes": 0, "token": None}
        self._metrics.busy.inc()
        try:
            refused = self._refusal(scope, told)
            if refused is not None:
                await refused(scope, receive, _noted(send, told))
            else:
                await self._passed(scope, receive, _noted(send, told))
        finally:
            self._metrics.busy.dec()
            self._note(scope, told, time.perf_counter() - start)

    def _refusal(self, scope: Message, told: Message) -> Any:
        path = scope["path"]
        if path in OPEN:
            return None
        headers = {name.lower(): value for name, value in scope["headers"]}
        client = (scope.get("client") or ("?", 0))[0]
        if self._known is not None:
            given = headers.get(b"authorization", b"").decode("latin-1")
            refused = self._check(path, given, told)
            client = told["token"] or client
            if refused is not None:
                return refused
        wait = self._buckets.wait(client)
        if wait:
            retry = {"Retry-After": str(max(1, round(wait)))}
            return _say(path, 429, "too_many", "too many requests; wait and ask more slowly", retry)
        size = headers.get(b"content-length", b"0")
        if not size.isdigit() or int(size) > _largest(path):
            return _say(path, 413, "too_large", f"the body is larger than {_largest(path):,} bytes")
        return None

    def _check(self, path: str, given: str, told: Message) -> Any:
        kind, _, secret = given.partition(" ")
        ask = {"WWW-Authenticate": 'Bearer realm="skysift"'}
        if kind.lower() != "bearer" or not secret:
            return _say(path, 401, "no_token", "a token is needed: Authorization: Bearer …", ask)
        token = tokens.find(self._known or (), secret.strip())
        bad = {"WWW-Authenticate": 'Bearer realm="skysift", error="invalid_token"'}
        if token is None:
            return _say(path, 401, "wrong_token", "this token is not known here", bad)
        told["token"] = token.name
        if token.expired:
            return _say(path, 401, "expired_token", f"this token expired at {token.expires}; ask for a new one", bad)
        wanted = scope_of(path)
        if wanted not in token.scopes:
            return _say(path, 403, "out_of_scope", f"this token may {', '.join(token.scopes)}, not {wanted}")
        return None

    async def _passed(self, scope: Message, receive: Any, send: Any) -> None:
        """Call the app; a body without a length is counted as it comes."""
        seen, most = 0, _largest(scope["path"])

        async def counted() -> Message:
            nonlocal seen
            message: Message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise BodyTooLargeError(f"the body is larger than {most:,} bytes")
            return message

        await self._app(scope, counted, send)

    def _note(self, scope: Message, told: Message, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(told["status"])).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        entry = {
            "at": round(time.time(), 3), "method": scope["method"], "path": scope["path"], "route": route,
            "status": told["status"], "ms": round(1e3 * seconds, 2), "bytes": told["bytes"],
            "client": (scope.get("client") or ("?",))[0], "token": told["token"],
        }  # fmt: skip
        log.info(json.dumps(entry))  # neither query strings nor headers: both may hold secrets


class BodyTooLargeError(Exception):
    """A body that came without its length has become too long."""


def scope_of(path: str) -> str:
    """Return the scope that a path wants."""
    if path == "/metrics":
        return "metrics"
    return "score" if path.startswith(("/v1/score", "/v1/similar-to-upload")) else "read"


def etag(body: bytes) -> str:
    """Return the ETag of a body."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def _largest(path: str) -> int:
    return MAX_BODY if scope_of(path) == "score" else MAX_FORM


def _say(path: str, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Any:
    return (vo_problem if path.startswith(VO) else problem)(status, code, message, headers)


def _noted(send: Any, told: Message) -> Any:
    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            told["status"] = message["status"]
        told["bytes"] += len(message.get("body", b""))
        await send(message)

    return noted
