"""The stores of an end-to-end test in one pod, from skysift's own image: PostgreSQL, Milvus Lite, and an S3 of files.

python stores.py FOLDER QUASARS: simulates a survey into the bucket ``skysift``, then serves until it is stopped.
Nothing but the image is needed; only the S3, which the product does not have, is written here.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
import time
import uuid
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

BUCKET, SURVEY, RESULTS = "skysift", "sky", "results"
PAGE = 1000  # keys a listing


class S3(BaseHTTPRequestHandler):
    """Objects as files below ``server.root``; signatures are not looked at."""

    protocol_version = "HTTP/1.1"
    root: Path

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        if "list-type" in self._query():
            self._list()
        else:
            self._get(body=True)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query, path = self._query(), self._path()
        if "partNumber" in query:
            part = self.root / ".parts" / query["uploadId"] / f"{int(query['partNumber']):05d}"
            part.write_bytes(data)
            self._send(200, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})
        elif self.headers.get("If-None-Match") == "*" and path.exists():
            self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self._store(path, data)
            self._send(200, headers={"ETag": self._etag(path)})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = self._query()
        if "uploads" in query:
            upload = uuid.uuid4().hex
            (self.root / ".parts" / upload).mkdir(parents=True)
            self._send(200, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId>"
                            "</InitiateMultipartUploadResult>".encode())  # fmt: skip
        elif "uploadId" in query:
            parts = self.root / ".parts" / query["uploadId"]
            self._store(self._path(), b"".join(part.read_bytes() for part in sorted(parts.iterdir())))
            shutil.rmtree(parts)
            etag = escape(self._etag(self._path()))
            self._send(
                200, f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>".encode()
            )
        else:  # deletion of many
            keys = [each.text or "" for each in ElementTree.fromstring(data).iter() if each.tag.endswith("Key")]
            for key in keys:
                (self._path() / key).unlink(missing_ok=True)
            done = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            self._send(200, f"<DeleteResult>{done}</DeleteResult>".encode())

    def do_DELETE(self) -> None:
        self._path().unlink(missing_ok=True)
        self._send(204)

    def _query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}

    def _path(self) -> Path:
        return self.root / unquote(urlsplit(self.path).path).strip("/")

    def _etag(self, path: Path) -> str:
        stat = path.stat()
        return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'

    def _store(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.root / ".parts" / uuid.uuid4().hex
        partial.parent.mkdir(exist_ok=True)
        partial.write_bytes(data)
        partial.rename(path)

    def _get(self, *, body: bool) -> None:
        path = self._path()
        if not path.is_file():
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>" if body else b"")
            return
        size = path.stat().st_size
        headers = {"ETag": self._etag(path), "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        start, stop, status = 0, size, 200
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
            if start >= size:
                self._send(416)
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{size}"
        with path.open("rb") as file:
            file.seek(start)
            self._send(status, file.read(stop - start) if body else b"", headers, length=stop - start)

    def _list(self) -> None:
        query, bucket = self._query(), self._path()
        prefix, after = query.get("prefix", ""), query.get("continuation-token", query.get("start-after", ""))
        files = (path for path in bucket.rglob("*") if path.is_file())
        keys = sorted(key for path in files if (key := path.relative_to(bucket).as_posix()).startswith(prefix))
        left = [key for key in keys if key > after]
        page = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(bucket / key).stat().st_size}</Size>"
            f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime((bucket / key).stat().st_mtime))}"
            f"</LastModified><ETag>{escape(self._etag(bucket / key))}</ETag></Contents>"
            for key in left[:PAGE]
        )
        more = f"<NextContinuationToken>{escape(left[PAGE - 1])}</NextContinuationToken>" if len(left) > PAGE else ""
        truncated = str(bool(more)).lower()
        self._send(
            200, f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{page}</ListBucketResult>".encode()
        )

    def _send(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


def serve_s3(root: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Serve the buckets below ``root``; port 0: a free one."""
    server = ThreadingHTTPServer((host, port), type("Handler", (S3,), {"root": root}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def serve_postgres(folder: Path) -> subprocess.Popen[bytes]:
    """Serve a PostgreSQL that trusts everyone who reaches it."""
    from pipeline.servers.embedded import program

    subprocess.run(
        [program("initdb"), "-D", str(folder), "-U", "postgres", "-A", "trust", "--encoding=UTF8"], check=True
    )
    with (folder / "pg_hba.conf").open("a") as file:
        file.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
    settings = ["-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp", "-c", "fsync=off"]
    server = subprocess.Popen([program("postgres"), "-D", str(folder), *settings])
    while subprocess.run([program("pg_isready"), "-h", "127.0.0.1"], check=False).returncode:
        time.sleep(0.2)
    subprocess.run([program("createdb"), "-h", "127.0.0.1", "-U", "postgres", "skysift"], check=True)
    return server


def main(folder: Path, quasars: int) -> int:
    """Serve all; the file ``ready`` says when."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    from pipeline.simulate import simulate

    simulate(str(folder / "buckets" / BUCKET / SURVEY), quasars=quasars, seed=5, quasar_fraction=0.8, resolution=False)
    postgres = serve_postgres(folder / "postgres")
    _milvus = start_server_in_thread(str(folder / "milvus"), host="0.0.0.0", port=19530)
    serve_s3(folder / "buckets", "0.0.0.0", 9000)
    (folder / "ready").touch()
    return postgres.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
