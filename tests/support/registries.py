"""A registry in memory, over HTTP or HTTPS, that notes every request and fails on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from support import probes

UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([0-9]*)")
BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")
REFERRERS = re.compile(r"/v2/(.+)/referrers/(sha256:[0-9a-f]{64})")
INDEX = "application/vnd.oci.image.index.v1+json"

Fault = Callable[["Handler"], bool]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Registry:
    """What a registry holds, what it wants, and what it was asked.

    Attributes:
        auth: `basic` or `bearer`; empty for nobody in particular.
        token_uses: Requests that a token is good for.
        keeps_cut_uploads: Keep what came of a request that was cut.
        lists_referrers: Answer as distribution-spec 1.1 has it.
        faults: Asked for each request in turn; one that answers itself returns True.
    """

    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    begun: int = 0
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    auth: str = ""
    user: str = "me"
    password: str = "secret"
    token_uses: int = 1 << 30
    tokens: dict[str, int] = field(default_factory=dict)
    scopes: list[list[str]] = field(default_factory=list)
    keeps_cut_uploads: bool = True
    lists_referrers: bool = True
    faults: list[Fault] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    address: str = ""
    scheme: str = "http"

    def asked(self, method: str, pattern: str = "") -> list[str]:
        """Paths of the requests of a method."""
        return [path for verb, path, _ in self.requests if verb == method and re.search(pattern, path)]

    def headers_of(self, method: str, pattern: str = "") -> list[dict[str, str]]:
        return [headers for verb, path, headers in self.requests if verb == method and re.search(pattern, path)]


class Handler(BaseHTTPRequestHandler):
    registry: ClassVar[Registry]
    protocol_version = "HTTP/1.1"
    # Answers have two small parts.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if "Content-Length" not in named:
            named["Content-Length"] = str(len(body))
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str = "no", **headers: str) -> None:
        # Unread bytes would be taken for the next request.
        self.close_connection = self.close_connection or int(self.headers.get("Content-Length", 0)) > 0
        self.reply(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), **headers)

    def cut(self) -> None:
        """End the connection at once."""
        self.close_connection = True
        self.connection.shutdown(2)

    def body(self, most: int = 1 << 40) -> bytes:
        return self.rfile.read(min(most, int(self.headers.get("Content-Length", 0))))

    def handle_any(self) -> None:
        registry = self.registry
        with registry.lock:
            registry.requests.append((self.command, self.path, dict(self.headers)))
            faults = list(registry.faults)
        try:
            if any(fault(self) for fault in faults) or not self.allowed():
                return
            self.answer()
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815

    def allowed(self) -> bool:
        registry = self.registry
        secret = self.headers.get("Authorization", "")
        known = "Basic " + base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
        if self.path.startswith("/token"):
            if secret and secret != known:
                self.error(401, "UNAUTHORIZED", "wrong password")
                return False
            query = parse_qs(urlsplit(self.path).query)
            with registry.lock:
                token = f"token{len(registry.scopes)}"
                registry.scopes.append(query.get("scope", []))
                registry.tokens[token] = registry.token_uses
            self.reply(200, json.dumps({"token": token, "expires_in": 300}).encode())
            return False
        if not registry.auth:
            return True
        if registry.auth == "basic":
            if secret == known:
                return True
            self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="here"')
            return False
        token = secret.removeprefix("Bearer ")
        with registry.lock:
            left = registry.tokens.get(token, 0)
            registry.tokens[token] = left - 1
        if left > 0:
            return True
        realm = f"{registry.scheme}://{registry.address}/token"
        self.error(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{realm}",service="test",scope="x"')
        return False

    def answer(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/v2/":
            return self.reply(200, b"{}")
        if match := REFERRERS.fullmatch(path):
            return self.referrers(*match.groups())
        if match := UPLOAD.fullmatch(path):
            return self.upload(match[1], match[2], query)
        if match := BLOB.fullmatch(path):
            return self.blob(match[1], match[2])
        if match := MANIFEST.fullmatch(path):
            return self.manifest(match[1], match[2])
        return self.error(404, "UNSUPPORTED")

    def referrers(self, repository: str, digest: str) -> None:
        if not self.registry.lists_referrers:
            return self.error(404, "UNSUPPORTED")
        found = []
        for (where, reference), (kind, data) in self.registry.manifests.items():
            subject = json.loads(data).get("subject", {}).get("digest")
            if where == repository and ":" in reference and subject == digest:
                found.append({"mediaType": kind, "digest": reference, "size": len(data)})
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}).encode()
        return self.reply(200, body, Content_Type=INDEX)

    def blob(self, repository: str, digest: str) -> None:
        data = self.registry.blobs.get((repository, digest))
        if data is None:
            return self.error(404, "BLOB_UNKNOWN")
        start = int((re.match(r"bytes=([0-9]+)-", self.headers.get("Range", "")) or [0, 0])[1])
        if start:
            told = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.reply(206, data[start:], Content_Range=told)
        if self.command == "HEAD":
            return self.reply(200, Content_Length=str(len(data)), Docker_Content_Digest=digest)
        return self.reply(200, data, Docker_Content_Digest=digest)

    def manifest(self, repository: str, reference: str) -> None:
        if self.command == "PUT":
            data = self.body()
            kind, digest = self.headers["Content-Type"], digest_of(data)
            if reference.startswith("sha256:") and reference != digest:
                return self.error(400, "DIGEST_INVALID")
            document = json.loads(data)
            children = [document["config"], *document["layers"]] if "layers" in document else []
            for child in children:
                if (repository, child["digest"]) not in self.registry.blobs:
                    return self.error(400, "MANIFEST_BLOB_UNKNOWN", child["digest"])
            for child in document.get("manifests", []):
                there = {**self.registry.manifests, **self.registry.blobs}
                if (repository, child["digest"]) not in there and not reference.startswith("sha256-"):
                    return self.error(400, "MANIFEST_UNKNOWN", child["digest"])
            with self.registry.lock:
                self.registry.manifests |= {(repository, one): (kind, data) for one in (reference, digest)}
            subject = document.get("subject", {}).get("digest") if self.registry.lists_referrers else None
            return self.reply(201, Docker_Content_Digest=digest, **({"OCI_Subject": subject} if subject else {}))
        kind, data = self.registry.manifests.get((repository, reference), ("", b""))
        if not kind:
            return self.error(404, "MANIFEST_UNKNOWN")
        size = {"Content-Length": str(len(data))}
        return self.reply(200, data, Content_Type=kind, Docker_Content_Digest=digest_of(data), **size)

    def upload(self, repository: str, number: str, query: dict[str, list[str]]) -> None:
        registry = self.registry
        where = f"/v2/{repository}/blobs/uploads/"
        if self.command == "POST":
            source = (query.get("from", [""])[0], query.get("mount", [""])[0])
            if source in registry.blobs:
                registry.blobs[repository, source[1]] = registry.blobs[source]
                return self.reply(201)
            with registry.lock:
                registry.begun += 1
                number = str(registry.begun)
                registry.uploads[number] = bytearray()
            return self.reply(202, Location=where + number)
        data = registry.uploads.get(number)
        if data is None:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "GET":
            return self.reply(204, Location=where + number, Range=f"0-{max(0, len(data) - 1)}")
        told = re.fullmatch(r"([0-9]+)-([0-9]+)", self.headers.get("Content-Range", ""))
        if told and int(told[1]) != len(data):
            return self.error(416, "RANGE_INVALID")
        data += self.body()
        if self.command == "PATCH":
            return self.reply(202, Location=where + number, Range=f"0-{len(data) - 1}")
        digest = query["digest"][0]
        if digest_of(bytes(data)) != digest:
            del registry.uploads[number]
            return self.error(400, "DIGEST_INVALID")
        registry.blobs[repository, digest] = bytes(data)
        del registry.uploads[number]
        return self.reply(201, Docker_Content_Digest=digest)


@contextmanager
def serving(registry: Registry, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Serve a registry on a port of this machine, and yield `localhost:PORT`.

    Args:
        registry: The registry.
        tls: Files with the certificate and its key; None for plain HTTP.
    """

    class Bound(Handler):
        pass

    Bound.registry = registry
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    # Who hangs up in a handshake is no error of the server.
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    registry.scheme = "http" if tls is None else "https"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    registry.address = f"localhost:{server.server_port}"
    try:
        yield registry.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(directory: Path) -> tuple[Path, Path]:
    """Files with a certificate for `localhost` that nobody trusts yet, and its key."""
    made, key = directory / "ca.crt", directory / "server.key"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-addext", names, "-keyout", key, "-out", made], check=True, capture_output=True)
    except FileNotFoundError:
        probes.missing("needs openssl")
    return made, key


# Faults.


def answers(status: int, method: str, pattern: str, times: int = 1, **headers: str) -> Fault:
    """Answer the first requests of a kind with a status."""
    left = [times]

    def fault(handler: Handler) -> bool:
        if handler.command != method or not re.search(pattern, handler.path) or left[0] <= 0:
            return False
        left[0] -= 1
        handler.error(status, "FAULT", "on demand", **headers)
        return True

    return fault


def cuts_downloads(after_bytes: int, times: int = 1, least_bytes: int = 0) -> Fault:
    """End the connection in the middle of a blob that has at least so many bytes."""
    left = [times]

    def fault(handler: Handler) -> bool:
        match = BLOB.fullmatch(handler.path)
        data = handler.registry.blobs.get((match[1], match[2]), b"") if match else b""
        start = int((re.match(r"bytes=([0-9]+)-", handler.headers.get("Range", "")) or [0, 0])[1])
        if handler.command != "GET" or len(data) - start <= after_bytes or len(data) < least_bytes or left[0] <= 0:
            return False
        left[0] -= 1
        told = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        handler.reply(
            206 if start else 200, data[start : start + after_bytes], Content_Length=str(len(data) - start), **told
        )
        handler.cut()
        return True

    return fault


def cuts_uploads(after_bytes: int, times: int = 1) -> Fault:
    """End the connection in the middle of a request that brings a blob, and keep what came."""
    left = [times]

    def fault(handler: Handler) -> bool:
        match = UPLOAD.fullmatch(urlsplit(handler.path).path)
        size = int(handler.headers.get("Content-Length", 0))
        if handler.command not in {"PUT", "PATCH"} or match is None or size <= after_bytes or left[0] <= 0:
            return False
        left[0] -= 1
        data = handler.body(after_bytes)
        if handler.registry.keeps_cut_uploads:
            handler.registry.uploads[match[2]] += data
        handler.cut()
        return True

    return fault


def redirects_blobs(other: str) -> Fault:
    """Send those who want a blob to another host."""

    def fault(handler: Handler) -> bool:
        if handler.command != "GET" or not BLOB.fullmatch(handler.path):
            return False
        handler.reply(307, Location=f"http://{other}{handler.path}")
        return True

    return fault
