"""nerdctl and Docker, each on a containerd of the tests."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from containerd.daemon import Daemon, programs
from support import probes

_START_SECONDS = 60.0
BASE = "docker.io/library/base:1"
"""Name of an image that both find as `base:1`."""


class ContainerEngine:
    """What runs containers on containerd, and commits them."""

    def __init__(
        self, namespace: str, line: list[str | Path], environment: dict[str, str], options: tuple[str, ...]
    ) -> None:
        self.namespace = namespace
        self.line, self.environment, self._options = line, environment, options

    def __call__(self, *words: str) -> str:
        """Run its command, and return what it writes."""
        done = subprocess.run(
            [*self.line, *words], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def run(self, *words: str) -> str:
        """Start a container in the background, and return its id."""
        return self("run", "-d", *self._options, *words)

    def clear(self) -> None:
        """Remove all containers, and all images but the base."""
        for name in self("ps", "--all", "--quiet", "--no-trunc").split():
            self("rm", "--force", name)
        for line in self("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines():
            if line != "base:1":
                self("rmi", "--force", line)

    def shown(self, image: str, *words: str) -> str:
        """Run a command in a container of an image, and return what it writes."""
        return self("run", "--rm", *self._options, image, *words)


class Nerdctl(ContainerEngine):
    """nerdctl, with containers that have no network."""

    def __init__(self, daemon: Daemon, namespace: str) -> None:
        # Names of networks are looked up in a directory that is there.
        networks = daemon.place / "networks"
        networks.mkdir(exist_ok=True)
        line: list[str | Path] = [programs("nerdctl") / "nerdctl", "--address", daemon.address, "--namespace", namespace]
        line += ["--cgroup-manager", "cgroupfs", "--data-root", daemon.place / "nerdctl", "--cni-netconfpath", networks]
        # Newest runc is built without seccomp.
        super().__init__(namespace, line, daemon.environment, ("--net", "none", "--security-opt", "seccomp=unconfined"))


class Docker(ContainerEngine):
    """Docker, whose daemon keeps images and containers in our containerd."""

    def __init__(self, daemon: Daemon, namespace: str, socket: Path) -> None:
        line: list[str | Path] = [programs("docker") / "docker", "--host", f"unix://{socket}"]
        super().__init__(namespace, line, {**daemon.environment, "DOCKER_CONFIG": str(daemon.place)}, ("--network", "none"))


@contextmanager
def docker(daemon: Daemon, namespace: str = "moby") -> Iterator[Docker]:
    """Docker's daemon beside ours, for the block."""
    place, socket = daemon.place, daemon.place / "d"
    (place / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": True}, "userland-proxy": False}))
    line: list[str | Path] = [programs("docker") / "dockerd", "--config-file", place / "daemon.json"]
    line += ["--host", f"unix://{socket}", "--containerd", daemon.address, "--containerd-namespace", namespace]
    line += ["--data-root", place / "docker", "--exec-root", place / "e", "--pidfile", place / "docker.pid"]
    line += ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--seccomp-profile", "unconfined"]
    with (place / "docker.log").open("wb") as log:
        process = subprocess.Popen(line, env=daemon.environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + _START_SECONDS
        while not socket.exists():
            if time.monotonic() > end or process.poll() is not None:
                probes.missing(f"dockerd does not start: {(place / 'docker.log').read_text()[-1000:]}")
            time.sleep(0.1)
        yield Docker(daemon, namespace, socket)
    finally:
        process.terminate()
        process.wait()


def load(daemon: Daemon, archive: Path, namespace: str) -> None:
    """Have the base under the name that both look for."""
    daemon.load(archive, namespace)
    daemon.ctr("images", "tag", "--force", "base:1", BASE, namespace=namespace)
    daemon.ctr("images", "rm", "base:1", namespace=namespace)
