"""Containers of a pod are found by their labels, committed and pushed; every one runs on, and the result says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from containerd.daemon import Daemon
from support.registries import Registry, serving

pytestmark = [pytest.mark.interop, pytest.mark.root]


def run(daemon: Daemon, namespace: str, name: str, container: str, script: str = "true", **more: str) -> None:
    """Start what a kubelet would."""
    labels = {
        "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.container.name": container,
        **more,
    }
    options = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    daemon.run(namespace, "base:1", name, *options, script=f"{script}; exec sleep 1000")


def commit_pod(
    daemon: Daemon, namespace: str, tmp_path: Path, *words: str
) -> tuple[int, dict[str, Any], subprocess.CompletedProcess[str]]:
    line = [sys.executable, "-m", "ocidiff", "commit-pod", *words, "--result", str(tmp_path / "result")]
    line += ["--address", daemon.address, "--namespace", namespace]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    result = json.loads((tmp_path / "result").read_text())
    assert json.loads(done.stdout) == result
    return done.returncode, result, done


def test_the_containers_of_a_pod_are_committed_and_pushed(daemon: Daemon, namespace: str, base: str, tmp_path: Path) -> None:
    run(daemon, namespace, "c1", "app", "echo told >/etc/told")
    run(daemon, namespace, "c2", "side", "rm /etc/gone")
    run(daemon, namespace, "c0", "app", **{"io.cri-containerd.kind": "sandbox"})
    run(daemon, namespace, "c3", "app", **{"io.kubernetes.pod.name": "web-1"})
    registry = Registry()
    with serving(registry) as address:
        images = [f"{address}/shop/{name}:saved" for name in ("app", "side")]
        pairs = [f"app:{images[0]}", f"side:{images[1]}"]
        status, result, done = commit_pod(daemon, namespace, tmp_path, "web-0", "shop", *pairs)
        assert (status, done.stderr) == (0, "")
        assert [(one["name"], one["image"]) for one in result["containers"]] == list(
            zip(("app", "side"), images, strict=True)
        )
        for one, repository in zip(result["containers"], ("shop/app", "shop/side"), strict=True):
            assert (repository, "saved") in registry.manifests
            assert (repository, one["digest"]) in registry.manifests
        # Another attempt sends nothing but names.
        sent = len(registry.blobs)
        assert commit_pod(daemon, namespace, tmp_path, "web-0", "shop", *pairs)[0] == 0
        assert len(registry.blobs) <= sent + 2  # configurations, which have the time of the commit
    assert [daemon.status(namespace, name) for name in ("c1", "c2")] == ["RUNNING", "RUNNING"]


def test_the_status_tells_if_another_attempt_may_succeed(daemon: Daemon, namespace: str, base: str, tmp_path: Path) -> None:
    run(daemon, namespace, "c1", "app")
    status, result, _ = commit_pod(daemon, namespace, tmp_path, "web-0", "shop", "other:x.example/y:1")
    assert (status, result["retry"]) == (4, False)
    assert "no container 'other' is on this node" in result["error"]
    status, result, _ = commit_pod(daemon, namespace, tmp_path, "web-0", "shop", "app:localhost:1/shop/app:saved")
    assert (status, result["retry"]) == (1, True)
    assert daemon.status(namespace, "c1") == "RUNNING"
    run(daemon, namespace, "c2", "app")
    status, result, _ = commit_pod(daemon, namespace, tmp_path, "web-0", "shop", "app:x.example/y:1")
    assert (status, "more than one container" in result["error"]) == (4, True)
    line = [sys.executable, "-m", "ocidiff", "commit-pod", "web-0", "shop", "app"]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 2


def test_a_restarted_container_is_the_one_that_runs(daemon: Daemon, namespace: str, base: str, tmp_path: Path) -> None:
    run(daemon, namespace, "c1", "app", "echo old >/etc/told")
    daemon.kill_containers(namespace)
    run(daemon, namespace, "c2", "app", "echo new >/etc/told")
    status, result, _ = commit_pod(daemon, namespace, tmp_path, "web-0", "shop", "app:x.example/y:1", "--no-push")
    assert (status, len(result["containers"])) == (0, 1)
    assert daemon.ctr("run", "--rm", "x.example/y:1", "again", "/bin/cat", "/etc/told", namespace=namespace) == "new\n"


def test_what_a_killed_job_has_left_paused_runs_on(daemon: Daemon, namespace: str, base: str, tmp_path: Path) -> None:
    run(daemon, namespace, "c1", "app")
    daemon.ctr("tasks", "pause", "c1", namespace=namespace)
    for _ in range(2):
        status, result, _ = commit_pod(daemon, namespace, tmp_path, "web-0", "shop", "app", "--resume")
        assert (status, result) == (0, {"containers": [{"name": "app", "id": "c1"}]})
        assert daemon.status(namespace, "c1") == "RUNNING"
