"""A Kubernetes API server as far as launching meets one: HTTP, KubeRay's schemas, the chart's own Role, conflicts.

It refuses what Kubernetes would refuse: requests without a token, verbs that the Role does not allow, unknown fields
under strict validation, names that are taken, deletions of an object that has another uid by now.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema

Object = dict[str, Any]
Need = tuple[str, str, str, str]  # verb, API group, resource, resource name ("" where the Role names none)

TOKEN = "of-the-test"
NAMESPACE = "skysift"


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class ApiServer:
    """The objects of one namespace, and what was asked of them."""

    rayjob_schema: Object  # strict
    rules: list[Object]  # of the Role
    config_maps: dict[str, Object] = field(default_factory=dict)
    rayjobs: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)  # pod → lines, each with its time stamp
    open_logs: set[str] = field(default_factory=set)  # pods whose containers still run
    used: set[Need] = field(default_factory=set)
    dry_runs: int = 0
    denial: str = ""  # what an admission policy says to every creation
    url: str = ""

    def end(self, name: str, status: Object) -> None:
        """Give a RayJob a status, as the operator would."""
        self.rayjobs[name]["status"] = status

    def add_pod(self, name: str, rayjob: str, lines: list[str], *, running: bool = False, at: int = 0) -> None:
        """Add a submitter's pod with its log."""
        meta = {"name": name, "labels": {"job-name": rayjob}, "creationTimestamp": f"2026-11-20T00:00:{at:02d}Z"}
        self.pods[name] = {"metadata": meta, "status": {"phase": "Running" if running else "Succeeded"}}
        self.logs[name] = lines
        if running:
            self.open_logs.add(name)

    def answer(self, method: str, path: str, query: dict[str, str], body: Object | None) -> Object:
        """Do what a request asks.

        Raises:
            Refused: what Kubernetes would refuse.
        """
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "v1"] and parts[2:4] == ["namespaces", NAMESPACE]:
            return self._core(method, parts[4:], query)
        if parts[:5] == ["apis", "ray.io", "v1", "namespaces", NAMESPACE] and parts[5] == "rayjobs":
            return self._rayjobs(method, parts[6:], query, body)
        raise Refused(404, "NotFound", f"the server could not find {path}")

    def _core(self, method: str, parts: list[str], query: dict[str, str]) -> Object:
        if method == "GET" and parts[0] == "configmaps" and len(parts) == 2:
            self._allow("get", "", "configmaps", parts[1])
            return _found(self.config_maps, parts[1], "configmaps")
        if method == "GET" and parts == ["pods"]:
            self._allow("list", "", "pods")
            key, _, value = query["labelSelector"].partition("=")
            items = [pod for pod in self.pods.values() if pod["metadata"]["labels"].get(key) == value]
            return {"apiVersion": "v1", "kind": "PodList", "items": items}
        raise Refused(405, "MethodNotAllowed", f"{method} {parts}")

    def _rayjobs(self, method: str, parts: list[str], query: dict[str, str], body: Object | None) -> Object:
        if method == "GET" and not parts:
            self._allow("list", "ray.io", "rayjobs")
            items = [job for job in self.rayjobs.values() if query["labelSelector"] in job["metadata"]["labels"]]
            return {"apiVersion": "ray.io/v1", "kind": "RayJobList", "items": items}
        if method == "POST" and not parts:
            self._allow("create", "ray.io", "rayjobs")
            return self._create(query, body or {})
        if method == "GET":
            self._allow("get", "ray.io", "rayjobs")
            return _found(self.rayjobs, parts[0], "rayjobs.ray.io")
        if method == "DELETE":
            self._allow("delete", "ray.io", "rayjobs")
            return self._delete(parts[0], body or {})
        raise Refused(405, "MethodNotAllowed", f"{method} {parts}")

    def _create(self, query: dict[str, str], job: Object) -> Object:
        name = job["metadata"]["name"]
        assert query["fieldValidation"] == "Strict"
        errors = sorted(jsonschema.Draft202012Validator(self.rayjob_schema).iter_errors(job), key=str)
        if errors:
            where = ".".join(map(str, errors[0].path))
            raise Refused(400, "BadRequest", f"strict decoding error: {where}: {errors[0].message[:200]}")
        if self.denial:
            raise Refused(422, "Invalid", f"ValidatingAdmissionPolicy 'skysift' denied request: {self.denial}")
        if name in self.rayjobs:
            raise Refused(409, "AlreadyExists", f'rayjobs.ray.io "{name}" already exists')
        made = {**job, "metadata": {**job["metadata"], "uid": str(uuid.uuid4()), "creationTimestamp": _now()}}
        if query.get("dryRun") == "All":
            self.dry_runs += 1
        else:
            self.rayjobs[name] = made
        return made

    def _delete(self, name: str, options: Object) -> Object:
        job = _found(self.rayjobs, name, "rayjobs.ray.io")
        wanted = options.get("preconditions", {}).get("uid", job["metadata"]["uid"])
        if wanted != job["metadata"]["uid"]:
            raise Refused(409, "Conflict", f"the UID in the precondition ({wanted}) does not match")
        del self.rayjobs[name]
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def allow_log(self, pod: str) -> None:
        """Check that logs may be read, and that the pod is there."""
        self._allow("get", "", "pods/log")
        _found(self.pods, pod, "pods")

    def _allow(self, verb: str, group: str, resource: str, name: str = "") -> None:
        for rule in self.rules:
            names = rule.get("resourceNames")
            allowed = verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]
            if allowed and (names is None or name in names):
                self.used.add((verb, group, resource, name if names else ""))
                return
        raise Refused(403, "Forbidden", f'{resource} is forbidden: User "ada" cannot {verb} resource "{resource}"')


def _found(objects: dict[str, Object], name: str, kind: str) -> Object:
    if name not in objects:
        raise Refused(404, "NotFound", f'{kind} "{name}" not found')
    return objects[name]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
    """Serve over HTTP on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def _handle(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            try:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Refused(401, "Unauthorized", "Unauthorized")
                parts = url.path.strip("/").split("/")
                if parts[-1] == "log":
                    self._log(parts[-2], query)
                    return
                status, answer = 200, server.answer(self.command, url.path, query, body)
            except Refused as error:
                status = error.status
                answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": error.message,
                          "reason": error.reason, "code": status}  # fmt: skip
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _handle

        def _log(self, pod: str, query: dict[str, str]) -> None:
            server.allow_log(pod)
            assert query["container"] == "ray-job-submitter"
            assert query["timestamps"] == "True"
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            sent = 0
            while True:
                running = pod in server.open_logs
                lines = server.logs[pod]
                for line in lines[sent:]:
                    self._chunk(f"{line}\n".encode())
                sent = len(lines)
                if not running or query.get("follow") != "True":
                    break
                time.sleep(0.02)
            self._chunk(b"")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        yield server
        http.shutdown()
