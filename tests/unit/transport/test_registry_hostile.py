"""Registries that drip, flood and hang up: every answer ends, what was said is told, and Ctrl-C is heard."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import RegistryError
from ocidiff.transport.registry import http
from support.raw_answers import DRIPS, FLOODS, answers_early, drips, floods
from support.registries import Handler, Registry, certificate, serving


def at(registry: Registry, name: str = "app:v1") -> str:
    return f"docker://{registry.address}/{name}"


@pytest.fixture
def full(store: ocidiff.Store, registry: Registry) -> Registry:
    """A registry with the image `app:v1`."""
    store.copy("app:v1", at(registry))
    registry.requests.clear()
    return registry


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"oci:{tmp_path}/other:v1"


# Nobody needs the body of the first answer.
PLACES = [(kind, what) for kind in DRIPS for what in ("/manifests/", "/blobs/")] + [("headers", "^/v2/$")]


@pytest.mark.parametrize(("kind", "what"), PLACES)
def test_an_answer_that_drips_is_given_up(
    full: Registry, other: str, kind: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_SILENT_SECONDS", 0.5)
    full.faults.append(drips(kind, "GET", what))
    begun = time.monotonic()
    with pytest.raises(RegistryError, match=r"localhost:[0-9]+: sends less than 100 bytes a second"):
        ocidiff.copy(at(full), other)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("what", ["/manifests/", "/blobs/", "^/v2/$"])
@pytest.mark.parametrize("kind", FLOODS)
def test_an_answer_without_end_is_given_up(full: Registry, other: str, kind: str, what: str) -> None:
    full.faults.append(floods(kind, "GET", what))
    begun = time.monotonic()
    is_read = what != "^/v2/$" or kind not in {"trailers", "names of chunks"}
    with pytest.raises(RegistryError, match=r"^localhost:[0-9]+: ") if is_read else nullcontext():
        ocidiff.copy(at(full), other)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(("kind", "what"), PLACES)
def test_an_interrupt_does_not_wait_for_a_registry_that_drips(full: Registry, tmp_path: Path, kind: str, what: str) -> None:
    full.faults.append(drips(kind, "GET", what))
    command = [sys.executable, "-m", "ocidiff", "pull", f"{full.address}/app:v1", "--store", str(tmp_path / "empty")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not full.asked("GET", what):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(2)
        begun = time.monotonic()
        _, text = process.communicate(timeout=20)
        assert (process.returncode, time.monotonic() - begun < 2) == (130, True), text
        assert re.fullmatch(r"(ocidiff: stopping.*\n)?ocidiff: interrupted.*\n", text)
    finally:
        process.kill()
        process.wait()


# Answers of a registry before it has read the body of a request.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def early(request: pytest.FixtureRequest) -> Iterator[Registry]:
    """A registry, with TLS or without."""
    registry = Registry()
    with serving(registry, request.getfixturevalue("tls") if request.param == "tls" else None):
        yield registry


INSECURE = ocidiff.Registry(insecure=True)


@pytest.mark.parametrize("wait", [0, 0.1])
@pytest.mark.parametrize(("method", "what"), [("PUT", "/uploads/"), ("PATCH", "/uploads/"), ("PUT", "/manifests/")])
@pytest.mark.parametrize("status", [403, 413])
def test_a_refusal_before_the_body_is_told(
    store: ocidiff.Store, early: Registry, status: int, method: str, what: str, wait: float
) -> None:
    early.faults.append(answers_early(status, method, what, 1000, wait=wait))
    registry = ocidiff.Registry(insecure=True, chunk_bytes=1 << 20 if method == "PATCH" else 0)
    with pytest.raises(RegistryError, match=f"HTTP status {status}: FAULT: on demand"):
        store.copy("app:v1", at(early), registry=registry)


@pytest.mark.parametrize("what", ["/uploads/", "/manifests/"])
def test_a_failure_before_the_body_is_tried_again_and_told(store: ocidiff.Store, early: Registry, what: str) -> None:
    early.faults.append(answers_early(500, "PUT", what, 2, wait=0))
    assert store.copy("app:v1", at(early), registry=INSECURE).copied == 3
    early.faults.append(answers_early(500, "PUT", what, 1000, wait=0))
    early.blobs.clear()
    early.manifests.clear()
    with pytest.raises((RegistryError, ConnectionError), match="HTTP status 500: FAULT: on demand"):
        store.copy("app:v1", at(early), registry=INSECURE)


@pytest.mark.parametrize("what", ["/uploads/", "/manifests/"])
def test_a_token_that_ended_before_the_body_is_renewed(store: ocidiff.Store, early: Registry, what: str) -> None:
    early.auth = "bearer"
    challenge = f'Bearer realm="{early.scheme}://{early.address}/token",service="test"'
    early.faults.append(answers_early(401, "PUT", what, 2, wait=0, WWW_Authenticate=challenge))
    assert store.copy("app:v1", at(early), registry=INSECURE).copied == 3


def test_the_command_tells_what_the_registry_said(store: ocidiff.Store, registry: Registry, tmp_path: Path) -> None:
    registry.faults.append(answers_early(500, "PUT", "/uploads/", 1000, wait=0))
    words = ["push", "app:v1", f"{registry.address}/app:v1", "--store", str(tmp_path / "store")]
    program = (
        "import sys; from ocidiff.transport import copy; copy._FIRST_DELAY_SECONDS = 0.005; "
        "from ocidiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"ocidiff: push: localhost:[0-9]+: blob sha256:[0-9a-f]+: localhost:[0-9]+: .*HTTP status 500: FAULT: on demand\n",
        done.stderr,
    )


# Redirects that lead nowhere.


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (None, "redirect without a Location header"),
        ("ftp://localhost/x", "redirects to 'ftp://localhost/x': not an HTTP URL"),
        ("mailto:x", "redirects to 'mailto:x': not an HTTP URL"),
        ("http://localhost:0/x", "redirects to localhost:0: Connection refused"),
        ("http://nobody.invalid/x", "nobody.invalid: "),
        ("/again", "redirects more than 5 times"),
    ],
)
@pytest.mark.parametrize(
    ("method", "what"), [("GET", "/manifests/"), ("GET", "/blobs/"), ("HEAD", "/blobs/"), ("PUT", "/manifests/")]
)
def test_a_redirect_that_leads_nowhere_is_given_up_at_once(
    store: ocidiff.Store, full: Registry, other: str, method: str, what: str, place: str | None, words: str
) -> None:
    def redirects(handler: Handler) -> bool:
        if handler.command != method or not re.search(f"{what}|/again", handler.path):
            return False
        handler.body()
        handler.reply(307, b"", **({} if place is None else {"Location": place}))
        return True

    full.faults.append(redirects)
    source, target = (at(full), other) if method == "GET" else ("app:v1", at(full))
    if method == "PUT":
        full.manifests.clear()
    with pytest.raises(RegistryError, match=re.escape(words)):
        store.copy(source, target)
    # Redirects are followed within one attempt.
    first = full.asked(method, what)
    assert len(first) == len(set(first)), first


def test_an_upload_that_leads_to_nobody_is_given_up_at_once(store: ocidiff.Store, registry: Registry) -> None:
    def fault(handler: Handler) -> bool:
        if handler.command == "POST":
            handler.reply(202, Location="http://localhost:0/x")
        return handler.command == "POST"

    registry.faults.append(fault)
    with pytest.raises(RegistryError, match="upload URL at localhost:0: Connection refused"):
        store.copy("app:v1", at(registry))
    assert len(registry.asked("POST")) <= 3
