"""Registries that fail, lie, refuse or redirect: what is tried again, what is told, and what stays as it was."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import Cancelled, DeniedError, DigestMismatchError, DocumentError, RegistryError, UsageError
from ocidiff.layer.monitor import Cancellation, Progress
from support import registries
from support.registries import Handler, Registry, answers, certificate, cuts_downloads, cuts_uploads, serving


def at(registry: Registry, name: str = "app:v1") -> str:
    return f"docker://{registry.address}/{name}"


def log_in(path: Path, registry: Registry, password: str | None = None, **more: str) -> None:
    """Write credentials as Docker and Podman do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = base64.b64encode(f"{registry.user}:{password or registry.password}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry.address: {"auth": secret, **more}}}))


@pytest.fixture
def full(store: ocidiff.Store, registry: Registry) -> Registry:
    """A registry with the image `app:v1`."""
    store.copy("app:v1", at(registry))
    registry.requests.clear()
    return registry


@pytest.fixture
def empty(tmp_path: Path) -> ocidiff.Store:
    with ocidiff.Store.open(tmp_path / "empty") as opened:
        return opened


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"oci:{tmp_path}/other:v1"


# Failures that pass.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_registry_is_asked_again(store: ocidiff.Store, registry: Registry, other: str, status: int) -> None:
    registry.faults += [
        answers(status, "POST", "/uploads/", 2),
        answers(status, "PUT", "/manifests/", 2),
        answers(status, "PUT", "/uploads/", 2),
        answers(status, "HEAD", "/blobs/", 2),
        answers(status, "GET", "/blobs/", 2),
        answers(status, "GET", "/manifests/", 2),
    ]
    store.copy("app:v1", at(registry))
    assert ocidiff.copy(at(registry), other).descriptor.digest == store.resolve("app:v1").digest


def test_a_registry_that_stays_busy_is_given_up(store: ocidiff.Store, registry: Registry) -> None:
    registry.faults.append(answers(503, "PUT", "/manifests/v1", 1000))
    with pytest.raises(RegistryError, match="HTTP status 503: FAULT: on demand"):
        store.copy("app:v1", at(registry))
    assert len(registry.asked("PUT", "/manifests/v1")) == 5
    assert ("app", "v1") not in registry.manifests


def test_a_registry_says_how_long_to_wait(full: Registry, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("ocidiff.transport.registry.client.Client.wait", lambda _, seconds: waited.append(seconds))
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 40))
    for status, told in ((429, "7"), (503, later)):
        full.faults.append(answers(status, "GET", "/manifests/", 1, Retry_After=told))
    ocidiff.copy(at(full), other)
    assert waited[0] == 7
    assert 30 < waited[1] <= 41


@pytest.mark.parametrize(("method", "what"), [("GET", "/manifests/"), ("PUT", "/uploads/"), ("GET", "/token")])
def test_a_wait_that_is_too_long_is_a_failure(
    store: ocidiff.Store, registry: Registry, home: Path, method: str, what: str
) -> None:
    registry.auth = "bearer"
    log_in(home / ".docker/config.json", registry)
    registry.faults.append(answers(429, method, what, 1000, Retry_After="9999"))
    with pytest.raises(RegistryError, match=r"HTTP status 429.*: asks to wait 9999 s, limit 300 s: try again later"):
        store.copy(*((at(registry), "back:1") if method == "GET" else ("app:v1", at(registry))))
    assert len(registry.asked(method, what)) <= 3


@pytest.mark.parametrize("progress", ["plain", "json", "tty"])
def test_a_wait_is_told_of(full: Registry, tmp_path: Path, progress: str) -> None:
    full.faults.append(answers(429, "GET", "/manifests/", 1, Retry_After="1"))
    words = ["pull", f"{full.address}/app:v1", "--store", str(tmp_path / "empty"), "--progress", progress]
    done = subprocess.run([sys.executable, "-m", "ocidiff", *words], capture_output=True, text=True, check=True)
    assert "pull" in done.stderr
    shown = done.stderr.replace("\n", " ")
    assert f"waiting 1 s, as the registry asks: {full.address}: GET " in shown
    if progress == "json":
        assert all(json.loads(line)["command"] == "pull" for line in done.stderr.splitlines())


def test_a_call_that_waits_can_be_cancelled(full: Registry, other: str) -> None:
    cancel = Cancellation()
    full.faults.append(answers(429, "GET", "/manifests/", 1, Retry_After="100"))
    threading.Timer(0.5, cancel.cancel).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        ocidiff.copy(at(full), other, cancel=cancel)
    assert time.monotonic() - begun < 3


def test_a_call_can_be_cancelled_while_a_registry_is_silent(full: Registry, other: str) -> None:
    cancel, silent = Cancellation(), threading.Event()

    def hang(handler: Handler) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path:
            cancel.cancel()
            silent.wait(20)
        return False

    full.faults.append(hang)
    begun = time.monotonic()
    try:
        with pytest.raises(Cancelled):
            ocidiff.copy(at(full), other, cancel=cancel)
        assert time.monotonic() - begun < 5
    finally:
        silent.set()


def test_a_download_goes_on_where_it_was_cut(full: Registry, other: str) -> None:
    full.faults.append(cuts_downloads(1 << 20, 4))
    done = ocidiff.copy(at(full), other)
    ranges = [headers["Range"] for headers in full.headers_of("GET", "/blobs/") if "Range" in headers]
    assert len(ranges) == 4
    assert done.copied == 3


def test_a_download_that_was_given_up_is_kept(full: Registry, tmp_path: Path) -> None:
    full.faults += [cuts_downloads(1 << 20, 2), cuts_downloads(0, 1000, least_bytes=1 << 20)]
    with ocidiff.Store.open(tmp_path / "empty") as empty:
        with pytest.raises(RegistryError, match=r"the connection ended [0-9]+ bytes too early"):
            empty.copy(at(full), "app:v1")
        assert empty.images() == []
        full.faults.clear()
        full.requests.clear()
        done = empty.copy(at(full), "app:v1")
        assert done.kept_bytes >= 1 << 20
        assert any("Range" in headers for headers in full.headers_of("GET", "/blobs/"))
        assert empty.verify().faults == ()


def test_what_was_kept_is_dropped_if_it_is_damaged(full: Registry, tmp_path: Path) -> None:
    full.faults += [cuts_downloads(1 << 20, 2), cuts_downloads(0, 1000, least_bytes=1 << 20)]
    with ocidiff.Store.open(tmp_path / "empty") as empty:
        with pytest.raises(RegistryError):
            empty.copy(at(full), "app:v1")
        full.faults.clear()
        for data in (tmp_path / "empty/ingest").glob("*/data"):
            data.write_bytes(b"\0" * data.stat().st_size)
        done = empty.copy(at(full), "app:v1")
        assert done.copied >= 1
        assert empty.verify().faults == ()


@pytest.mark.parametrize("chunk_bytes", [0, 1 << 20])
@pytest.mark.parametrize("keeps", [True, False])
def test_an_upload_goes_on_where_it_was_cut(store: ocidiff.Store, registry: Registry, keeps: bool, chunk_bytes: int) -> None:
    registry.keeps_cut_uploads = keeps
    registry.faults.append(cuts_uploads(400_000, 3))
    done = store.copy("app:v1", at(registry), registry=ocidiff.Registry(chunk_bytes=chunk_bytes))
    assert done.copied == 3
    assert all(registries.digest_of(data) == digest for (_, digest), data in registry.blobs.items())
    if keeps:
        starts = [headers["Content-Range"].partition("-")[0] for headers in registry.headers_of("PATCH")]
        assert "400000" in starts


def test_an_upload_that_the_registry_forgot_begins_again(store: ocidiff.Store, registry: Registry) -> None:
    registry.faults += [cuts_uploads(400_000, 1), answers(404, "GET", "/uploads/", 1)]
    assert store.copy("app:v1", at(registry)).copied == 3


def test_an_upload_that_never_gets_on_is_given_up(store: ocidiff.Store, registry: Registry) -> None:
    registry.keeps_cut_uploads = False
    registry.faults.append(cuts_uploads(100_000, 1000))
    with pytest.raises(ConnectionError, match=r"localhost:[0-9]+: blob sha256:[0-9a-f]+: "):
        store.copy("app:v1", at(registry))
    assert ("app", "v1") not in registry.manifests


def test_what_a_registry_said_before_it_hung_up_is_told(store: ocidiff.Store, registry: Registry) -> None:
    registry.faults.append(answers(413, "PUT", "/uploads/", 1000))
    with pytest.raises(RegistryError, match="HTTP status 413") as raised:
        store.copy("app:v1", at(registry))
    assert raised.value.__notes__ == ["--chunk-size sends smaller requests"]


# Lies.


def test_a_blob_with_other_bytes_is_refused(full: Registry, tmp_path: Path) -> None:
    key = max(full.blobs, key=lambda key: len(full.blobs[key]))
    full.blobs[key] = bytes(len(full.blobs[key]))
    with ocidiff.Store.open(tmp_path / "empty") as empty:
        with pytest.raises(DigestMismatchError, match=key[1]):
            empty.copy(at(full), "app:v1")
        assert empty.images() == []
        assert not (tmp_path / "empty/blobs/sha256" / key[1].partition(":")[2]).exists()
        # Nothing of it is kept for the next call.
        assert f"blob-{key[1]}" not in {ref.read_text() for ref in (tmp_path / "empty/ingest").glob("*/ref")}


def test_a_blob_of_another_length_is_refused(full: Registry, other: str) -> None:
    key = max(full.blobs, key=lambda key: len(full.blobs[key]))
    full.blobs[key] += b"more"
    with pytest.raises(DigestMismatchError, match="expected"):
        ocidiff.copy(at(full), other)


def test_a_manifest_with_other_bytes_is_refused(full: Registry, other: str) -> None:
    kind, data = full.manifests["app", "v1"]
    digest = registries.digest_of(data)
    full.manifests["app", digest] = (kind, data + b" ")
    with pytest.raises(DigestMismatchError, match=digest):
        ocidiff.copy(at(full, f"app@{digest}"), other)


def test_a_manifest_that_is_too_large_is_not_read_whole(full: Registry, other: str) -> None:
    kind, _ = full.manifests["app", "v1"]
    full.manifests["app", "v1"] = (kind, b" " * (21 << 20))
    with pytest.raises(DocumentError, match="larger than"):
        ocidiff.copy(at(full), other)


@pytest.mark.parametrize(
    "location", ["", "ftp://localhost/x", "http://localhost:notaport/", "http:///nowhere", "http://localhost:1/elsewhere"]
)
def test_an_upload_that_leads_nowhere(store: ocidiff.Store, registry: Registry, location: str) -> None:
    def fault(handler: Handler) -> bool:
        if handler.command == "POST":
            handler.reply(202, b"", **({"Location": location} if location else {}))
        return handler.command == "POST"

    registry.faults.append(fault)
    with pytest.raises((RegistryError, ConnectionError)):
        store.copy("app:v1", at(registry))


def test_a_registry_that_turns_in_circles(full: Registry, other: str) -> None:
    def fault(handler: Handler) -> bool:
        handler.reply(307, Location=handler.path)
        return True

    full.faults.append(fault)
    with pytest.raises(RegistryError, match="redirects more than 5 times"):
        ocidiff.copy(at(full), other)


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"errors": 1}', b'{"errors": [1]}', b"\x1b[2J" * 1000, b"[" * 60_000])
def test_what_a_registry_says_is_one_harmless_line(full: Registry, other: str, answer: bytes) -> None:
    def fault(handler: Handler) -> bool:
        handler.reply(404, answer)
        return True

    full.faults.append(fault)
    with pytest.raises(ocidiff.NotFoundError) as raised:
        ocidiff.copy(at(full), other)
    assert len(str(raised.value)) < 600
    assert str(raised.value).isprintable()


# Who asks.


@pytest.mark.parametrize(
    "place", [".docker/config.json", ".config/containers/auth.json", "chosen.json", "run/containers/auth.json"]
)
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_credentials_of_docker_and_podman(
    store: ocidiff.Store, registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch, auth: str, place: str
) -> None:
    registry.auth = auth
    log_in(home / place, registry)
    if place == "chosen.json":
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / place))
        log_in(home / ".docker/config.json", registry, "wrong")
    elif place.startswith("run/"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    store.copy("app:v1", at(registry))
    if auth == "bearer":
        assert ["repository:app:pull,push"] in registry.scopes


def test_a_repository_can_have_credentials_of_its_own(store: ocidiff.Store, registry: Registry, home: Path) -> None:
    registry.auth = "basic"
    wrong, right = (base64.b64encode(f"me:{word}".encode()).decode() for word in ("wrong", registry.password))
    auths = {registry.address: {"auth": wrong}, f"https://{registry.address}/v1/": {"auth": wrong}}
    auths[f"{registry.address}/team"] = {"auth": right}
    (home / ".config/containers").mkdir(parents=True)
    (home / ".config/containers/auth.json").write_text(json.dumps({"auths": auths}))
    store.copy("app:v1", at(registry, "team/app:v1"))
    with pytest.raises(DeniedError):
        store.copy("app:v1", at(registry, "app:v1"))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_password_is_told_of_and_not_told(store: ocidiff.Store, registry: Registry, home: Path, auth: str) -> None:
    registry.auth = auth
    log_in(home / ".docker/config.json", registry, "hunter2")
    with pytest.raises(DeniedError, match=r"refuses the credentials from .*/\.docker/config\.json") as raised:
        store.copy("app:v1", at(registry))
    assert "hunter2" not in str(raised.value)
    # A wrong password is not tried again and again.
    assert len(registry.requests) < 10


def test_a_registry_wants_to_know_who_asks(store: ocidiff.Store, registry: Registry) -> None:
    registry.auth = "basic"
    with pytest.raises(DeniedError, match="log in first"):
        store.copy("app:v1", at(registry))


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
@pytest.mark.parametrize("user", ["me", "<token>"])
def test_a_helper_knows_the_credentials(
    store: ocidiff.Store, registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch, key: str, user: str
) -> None:
    registry.auth = "bearer"
    program = home / "bin/docker-credential-test"
    program.parent.mkdir()
    answer = json.dumps({"ServerURL": registry.address, "Username": user, "Secret": registry.password})
    program.write_text(f'#!/bin/sh\nread server\n[ "$1 $server" = "get {registry.address}" ] || exit 1\necho \'{answer}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (home / ".docker").mkdir()
    named = "test" if key == "credsStore" else {registry.address: "test"}
    (home / ".docker/config.json").write_text(json.dumps({key: named, "auths": {registry.address: {}}}))
    forms: list[bytes] = []

    def token_for_a_token(handler: Handler) -> bool:
        if handler.command != "POST" or handler.path != "/token":
            return False
        forms.append(handler.body())
        registry.tokens["other"] = 1000
        handler.reply(200, b'{"access_token": "other"}')
        return True

    registry.faults.append(token_for_a_token)
    store.copy("app:v1", at(registry))
    assert bool(forms) is (user == "<token>")
    assert all(b"refresh_token=secret" in form for form in forms)


def test_a_helper_that_fails_is_told_of(
    store: ocidiff.Store, registry: Registry, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"credsStore": "missing"}))
    registry.auth = "bearer"
    store.copy("app:v1", at(registry))
    assert "docker-credential-missing, which is not installed" in caplog.text


@pytest.mark.parametrize(
    "text", ["[]", '{"auths": []}', '{"auths": {"ADDRESS": 1}}', '{"auths": {"ADDRESS": {"auth": "?"}}}', "{"]
)
def test_a_file_of_credentials_that_is_damaged(store: ocidiff.Store, registry: Registry, home: Path, text: str) -> None:
    registry.auth = "basic"
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(text.replace("ADDRESS", registry.address))
    with pytest.raises(DocumentError, match=r"config\.json"):
        store.copy("app:v1", at(registry))


@pytest.mark.parametrize("chunk_bytes", [0, 300_000])
def test_a_token_that_ends_in_the_middle_is_renewed(
    store: ocidiff.Store, registry: Registry, home: Path, chunk_bytes: int
) -> None:
    registry.auth, registry.token_uses = "bearer", 5
    log_in(home / ".docker/config.json", registry)
    wanted = f'Bearer realm="http://{registry.address}/token",service="test"'
    registry.faults.append(answers(401, "PATCH" if chunk_bytes else "PUT", "/uploads/", 2, WWW_Authenticate=wanted))
    done = store.copy("app:v1", at(registry), registry=ocidiff.Registry(chunk_bytes=chunk_bytes))
    assert done.copied == 3
    assert len(registry.scopes) >= 2


def test_credentials_stay_with_their_host(full: Registry, store: ocidiff.Store, other: str, home: Path) -> None:
    full.auth = "basic"
    log_in(home / ".docker/config.json", full)
    elsewhere = Registry(blobs=full.blobs)
    with serving(elsewhere):
        full.faults.append(registries.redirects_blobs(elsewhere.address))
        ocidiff.copy(at(full), other)
    assert elsewhere.asked("GET", "/blobs/")
    assert all("Authorization" not in headers for _, _, headers in elsewhere.requests)
    assert any("Authorization" in headers for headers in full.headers_of("GET"))


# TLS and plain HTTP.


def test_a_certificate_that_nobody_knows(store: ocidiff.Store, tmp_path: Path, home: Path) -> None:
    registry, tls = Registry(), certificate(tmp_path)
    with serving(registry, tls) as host:
        with pytest.raises(RegistryError, match=f"not trusted: .*certs.d/{host}/ca.crt, or name a directory by --cert-dir"):
            store.copy("app:v1", at(registry))
        assert registry.requests == []
        for place in (".config/containers/certs.d", "chosen"):
            (home / place / host).mkdir(parents=True)
        shutil.copy(tls[0], home / "chosen/ca.crt")
        store.copy("app:v1", at(registry, "app:v1"), registry=ocidiff.Registry(cert_dir=str(home / "chosen")))
        shutil.copy(tls[0], home / ".config/containers/certs.d" / host)
        assert store.copy("app:v1", at(registry, "app:v2")).skipped == 3
        (home / ".config/containers/certs.d" / host / "ca.crt").unlink()
        assert store.copy("app:v1", at(registry, "app:v3"), registry=ocidiff.Registry(insecure=True)).skipped == 3


def test_directories_of_certificates_that_are_wrong(store: ocidiff.Store, tmp_path: Path) -> None:
    registry, tls = Registry(), certificate(tmp_path)
    place = tmp_path / "certificates"
    with serving(registry, tls):
        with pytest.raises(UsageError, match="is not a directory"):
            store.copy("app:v1", at(registry), registry=ocidiff.Registry(cert_dir=str(place)))
        place.mkdir()
        shutil.copy(tls[0], place / "client.cert")
        with pytest.raises(UsageError, match=r"has no key client\.key"):
            store.copy("app:v1", at(registry), registry=ocidiff.Registry(cert_dir=str(place)))
        (place / "client.cert").rename(place / "ca.crt")
        (place / "ca.crt").write_text("nothing")
        with pytest.raises(UsageError, match="no certificate or key"):
            store.copy("app:v1", at(registry), registry=ocidiff.Registry(cert_dir=str(place)))


def test_plain_http_is_for_this_machine_or_on_demand(
    store: ocidiff.Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name of another machine that leads here.
    monkeypatch.setattr("ocidiff.transport.registry.client.is_loopback", lambda _: False)
    with pytest.raises(RegistryError, match="--insecure is for registries without it"):
        store.copy("app:v1", at(registry))
    assert registry.requests == []
    store.copy("app:v1", at(registry), registry=ocidiff.Registry(insecure=True))
    assert ("app", "v1") in registry.manifests


@pytest.mark.parametrize("place", ["http://[", "//[::1", "http://a..b/", "http://h:99999999/", "/a b", "http://" + "a" * 70])
def test_a_redirect_to_what_is_no_url_is_told(full: Registry, other: str, place: str) -> None:
    full.faults.append(answers(307, "GET", "/manifests/", 99, Location=place))
    with pytest.raises(RegistryError, match=r"localhost:[0-9]+: leads to '.*', which is no URL"):
        ocidiff.copy(at(full), other)


def test_a_time_that_no_clock_has_is_no_time_to_wait(full: Registry, other: str) -> None:
    far = {"Retry-After": "Mon, 01 Jan 99999999999999 00:00:00 GMT"}
    full.faults.append(answers(503, "GET", "/manifests/", 1, **far))
    assert ocidiff.copy(at(full), other).copied == 3


def test_a_redirect_from_https_to_http_is_refused(full: Registry, other: str, tmp_path: Path) -> None:
    secure, tls = Registry(manifests=full.manifests), certificate(tmp_path)
    secure.faults.append(registries.redirects_blobs(full.address))
    with serving(secure, tls), pytest.raises(RegistryError, match="redirects from HTTPS to HTTP"):
        ocidiff.copy(at(secure), other, registry=ocidiff.Registry(insecure=True))
    assert full.asked("GET", "/blobs/") == []


def test_a_proxy_is_used_and_told_who_asks(full: Registry, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"http://user:pass%40word@{full.address}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)

    def as_proxy(handler: Handler) -> bool:
        handler.path = handler.path.removeprefix("http://registry.example")
        return False

    full.faults.append(as_proxy)
    registry = ocidiff.Registry(insecure=True)
    ocidiff.copy("docker://registry.example/app:v1", other, registry=registry)
    assert full.asked("GET", r"^http://registry\.example/v2/app/manifests/v1")
    expected = "Basic " + base64.b64encode(b"user:pass@word").decode()
    assert {headers["Proxy-Authorization"] for headers in full.headers_of("GET")} == {expected}
    # This machine is not behind it.
    full.requests.clear()
    ocidiff.copy(at(full), other)
    assert full.asked("GET", "^/v2/")
    monkeypatch.setenv("no_proxy", "registry.example")
    full.requests.clear()
    with pytest.raises(RegistryError, match=r"registry\.example: "):
        ocidiff.copy("docker://registry.example/app:v1", other, registry=registry)
    assert full.requests == []


# The end.


def test_a_call_can_be_cancelled(full: Registry, tmp_path: Path) -> None:
    cancel = Cancellation()

    def hang(handler: Handler) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path:
            cancel.cancel()
            handler.reply(200, b"x", Content_Length="1000000")
            time.sleep(0.2)
        return False

    full.faults.append(hang)
    with ocidiff.Store.open(tmp_path / "empty") as empty:
        with pytest.raises((Cancelled, DigestMismatchError, RegistryError)):
            empty.copy(at(full), "app:v1", cancel=cancel)
        assert empty.images() == []


def test_progress_tells_of_each_blob(store: ocidiff.Store, registry: Registry) -> None:
    store.copy("base:1", at(registry, "app:base"))
    seen: list[Progress] = []
    store.copy("app:v1", at(registry), progress=seen.append)
    last = seen[-1]
    assert last.bytes_blob == last.total_bytes == sum(blob.size for blob in last.blobs)
    assert sorted(blob.state for blob in last.blobs) == ["copied", "copied", "skipped"]
    assert [p.bytes_blob for p in seen] == sorted(p.bytes_blob for p in seen)


def test_an_interrupt_does_not_wait_for_a_silent_registry(full: Registry, tmp_path: Path) -> None:
    silent = threading.Event()

    def hang(handler: Handler) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path and len(full.blobs["app", handler.path[-71:]]) > 1000:
            silent.wait(60)
        return False

    full.faults.append(hang)
    command = [sys.executable, "-m", "ocidiff", "pull", f"{full.address}/app:v1", "--store", str(tmp_path / "empty")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while len([path for path in full.asked("GET", "/blobs/") if full.blobs["app", path[-71:]][:1] != b"{"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(2)
        begun = time.monotonic()
        _, text = process.communicate(timeout=20)
        assert (process.returncode, time.monotonic() - begun < 5) == (130, True), text
        assert re.fullmatch(r"(ocidiff: stopping.*\n)?ocidiff: interrupted.*\n", text)
    finally:
        silent.set()
        process.kill()
        process.wait()
