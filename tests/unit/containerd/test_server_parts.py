"""What the server tells others: metrics, the log, systemd, how containerd is configured, and how many calls run."""

from __future__ import annotations

import logging
import os
import re
import socket
import tomllib
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ocidiff.containerd.blobs import BlobFiles
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.serve import records
from ocidiff.containerd.serve.check import _of_configuration
from ocidiff.containerd.serve.config import DIFF_SERVICE, TRANSFER, _file_of, configuration_for, numbers_of
from ocidiff.containerd.serve.metrics import Metrics, MetricsAddress
from ocidiff.containerd.serve.notify import notify
from ocidiff.containerd.serve.server import Server, Settings, _connections

SAMPLE = re.compile(r'ocidiff_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+')


def metrics() -> Metrics:
    found = Metrics({"slots_busy": lambda: 2, "queue_length": lambda: 3})
    found.ended("Diff", "OK", 0.004)
    found.ended("Diff", "UNIMPLEMENTED", 7.0)
    found.ended("Apply", "OK", 1000.0)
    found.add("blob_bytes_total", 1 << 60, method="Diff")
    return found


def test_metrics_are_in_the_format_of_prometheus(tmp_path: Path) -> None:
    lines = metrics().text().splitlines()
    assert all(line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line) for line in lines), lines
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['ocidiff_calls_total{code="OK",method="Diff"}'] == "1"
    assert values['ocidiff_fallbacks_total{method="Diff"}'] == "1"
    assert float(values['ocidiff_blob_bytes_total{method="Diff"}']) == 1 << 60
    assert values['ocidiff_call_seconds_bucket{method="Diff",le="0.005"}'] == "1"
    assert values['ocidiff_call_seconds_bucket{method="Diff",le="+Inf"}'] == "2"
    assert values['ocidiff_call_seconds_bucket{method="Apply",le="300.0"}'] == "0"
    assert (values["ocidiff_slots_busy"], values["ocidiff_queue_length"]) == ("2", "3")
    assert int(values["ocidiff_resident_memory_bytes"]) > 1 << 20
    metrics().write(str(tmp_path / "file.prom"))
    assert [one.name for one in tmp_path.iterdir()] == ["file.prom"]


def test_metrics_are_served_at_an_address() -> None:
    address = MetricsAddress("127.0.0.1", 0, metrics().text)
    with urllib.request.urlopen(f"http://127.0.0.1:{address.port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"ocidiff_calls_total" in answer.read()
    with pytest.raises(urllib.request.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{address.port}/other")
    address.close()


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("ocidiff.serve", logging.INFO, "", 0, "a %s", ("b\nc",), None)
    setattr(record, records._FIELDS, {"error": 'say "x"=\x1b[1m', "none": None, "seconds": 0.25})
    records.in_request("12ab")
    line = records._Lines().format(record)
    records.in_request(None)
    assert line.partition(" ")[2] == (r'level=info msg="a b\nc" request=12ab error="say \"x\"=\u001b[1m" seconds=0.2500')


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(is_abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"@{tmp_path}/n" if is_abstract else f"{tmp_path}/n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind("\0" + path[1:] if is_abstract else path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify("READY=1", "STATUS=x")
        assert one.recv(100) == b"READY=1\nSTATUS=x"
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


@pytest.mark.parametrize(("version", "form"), [("2.1.9", 3), ("v2.4.2", 3), ("1.7.24~ds1", 2), (None, 3)])
def test_the_configuration_is_what_the_check_asks_for(version: str | None, form: int, tmp_path: Path) -> None:
    document = tomllib.loads(configuration_for(version, "/run/o.sock"))
    assert document["version"] == form
    assert list(_of_configuration("c.toml", document, "/run/o.sock")) == []


def test_the_check_says_what_is_missing(tmp_path: Path) -> None:
    whole = configuration_for("2.1.9", "/run/o.sock")

    def told(text: str) -> list[str]:
        return list(_of_configuration("c.toml", tomllib.loads(text), "/run/o.sock"))

    assert "no [proxy_plugins.ocidiff]" in told("version = 3")[0]
    assert "it has /run/o.sock2" in told(whole.replace('/run/o.sock"', '/run/o.sock2"'))[0]
    assert "lacks 'ocidiff'" in told(whole.replace('["ocidiff", ', "["))[0]
    assert "asks 'walking' first" in told(whole.replace('["ocidiff", "walking"]', '["walking", "ocidiff"]'))[0]
    assert "lacks 'walking'" in told(whole.replace(', "walking"', ""))[0]
    without = whole.partition("[[plugins")[0]
    assert TRANSFER in told(without)[0]
    assert told(f'disabled_plugins = ["{TRANSFER}"]\n' + without) == []
    assert "/no/such: No such file" in told('root = "/no/such"\n' + whole)[0]
    assert DIFF_SERVICE in whole


def test_the_file_and_the_version_of_a_containerd_are_understood() -> None:
    assert _file_of(["containerd"]) == "/etc/containerd/config.toml"
    assert _file_of(["containerd", "--log-level", "debug", "-c", "/a b"]) == "/a b"
    assert _file_of(["containerd", "--config=/x=y"]) == "/x=y"
    assert numbers_of("1.7.24~ds1") < numbers_of("v2.0.0-rc.1") < numbers_of("2.1.9+unknown")
    assert numbers_of("unknown") == (0, 0, 0)


def test_no_more_calls_run_than_memory_has_room_for() -> None:
    def slots(memory_mib: int | None) -> int:
        memory_bytes = None if memory_mib is None else memory_mib << 20
        return Server(Settings("/no/such", slots=4, memory_bytes=memory_bytes)).budget._slots

    assert [slots(memory) for memory in (None, 256, 130, 10)] == [4, 4, 2, 1]


def test_connections_of_a_socket_are_counted_until_they_are_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "a b")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as other,
    ):
        listener.bind(path)
        listener.listen()
        assert _connections(path) == 0
        first.connect(path)
        other.connect(path)
        # Those that are not accepted yet count too.
        accepted, _ = listener.accept()
        os.rename(path, tmp_path / "renamed")
        assert _connections(path) == 2
        accepted.close()
        assert _connections(path) == 1
        other.close()
        assert _connections(path) == 1
    assert _connections(path) == 0


class Asked(Channel):
    """A containerd that has content stores in these directories, and counts how often it is asked."""

    def __init__(self, roots: Sequence[str]) -> None:
        super().__init__("/no/such", "default", cast("Any", None))
        self.roots, self.count = roots, 0

    def within(self, namespace: str) -> Channel:
        return self

    def call(self, method: str, *, is_cleanup: bool = False, **fields: object) -> SimpleNamespace:
        self.count += 1
        return SimpleNamespace(plugins=[SimpleNamespace(exports={"root": root}) for root in self.roots])


@pytest.mark.parametrize("roots", [[], ["/one"], ["/one", "/two"]])
def test_containerd_is_asked_once_where_its_blobs_are(roots: list[str]) -> None:
    asked = Asked(roots)
    files = BlobFiles(asked)
    kinds = {type(files.content(namespace)) is ContainerdContent for namespace in ("a", "b", "c")}
    assert (kinds, asked.count) == ({len(roots) != 1}, 1)
