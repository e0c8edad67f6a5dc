"""A containerd of our own: its programs, and a daemon with its own root, state and socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support import probes

VERSION = os.environ.get("OCIDIFF_CONTAINERD", "2")
GET = Path(__file__).with_name("get")
NEW = "new-"
"""How the kinds of programs begin that are built from their sources."""
_CONFIG = """
version = 3
root = "{0}/root"
state = "{0}/state"
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
]
[grpc]
  address = "{0}/c"
[ttrpc]
  address = "{0}/t"
[plugins."io.containerd.internal.v1.opt"]
  path = "{0}/opt"
# Garbage is collected when a test asks for it.
[plugins."io.containerd.gc.v1.scheduler"]
  mutation_threshold = 0
  pause_threshold = 0.000001
"""
_CONFIG_1 = _CONFIG.replace("version = 3", "version = 2")
_START_SECONDS = 30.0


def programs(which: str) -> Path:
    """The directory of programs of a kind, as `get` has them, which is made once."""
    done = subprocess.run([GET, which], capture_output=True, text=True, check=False)
    if done.returncode:
        probes.missing(f"{which} cannot be had: {done.stderr[-1000:]}")
    return Path(done.stdout.strip())


class Daemon:
    """A running containerd."""

    def __init__(self, which: str, place: Path, more: str = "") -> None:
        self.programs, self.place = programs(which), place
        self.address = str(place / "c")
        self.is_first = which.endswith(("1.6", "1.7"))
        self.environment = {
            **os.environ,
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "CONTAINERD_ADDRESS": self.address,
        }
        self.environment.pop("CONTAINERD_NAMESPACE", None)
        self._configure(more)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _configure(self, more: str) -> None:
        (self.place / "config.toml").write_text((_CONFIG_1 if self.is_first else _CONFIG).format(self.place) + more)

    @contextmanager
    def stock(self) -> Iterator[None]:
        """Let it run without what its configuration has more, until the block ends."""
        configured = (self.place / "config.toml").read_text()
        self.stop()
        self._configure("")
        self.start()
        try:
            yield
        finally:
            self.stop()
            (self.place / "config.toml").write_text(configured)
            self.start()

    def start(self) -> None:
        with (self.place / "log").open("ab") as log:
            words = [str(self.programs / "containerd"), "--config", str(self.place / "config.toml")]
            self._process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + _START_SECONDS
        while self.attempt("version").returncode:
            if time.monotonic() > end or self._process.poll() is not None:
                probes.missing(f"containerd does not start: {(self.place / 'log').read_text()[-1000:]}")
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def attempt(self, *words: str | Path, namespace: str = "default") -> subprocess.CompletedProcess[str]:
        """Run ctr, whatever comes of it."""
        line = [self.programs / "ctr", "--namespace", namespace, *words]
        done = subprocess.run(line, env=self.environment, capture_output=True, timeout=60, check=False)
        # A layer may come on stdout.
        out, error = done.stdout.decode(errors="replace"), done.stderr.decode()
        return subprocess.CompletedProcess(line, done.returncode, out, error)

    def ctr(self, *words: str | Path, namespace: str = "default") -> str:
        done = self.attempt(*words, namespace=namespace)
        assert done.returncode == 0, f"ctr {words}: {done.stderr}"
        return done.stdout

    def load(self, archive: Path, namespace: str) -> None:
        local = () if self.is_first else ("--local",)
        self.ctr("images", "import", *local, archive, namespace=namespace)

    def run(self, namespace: str, image: str, name: str, *options: str, script: str = "sleep 1000") -> None:
        """Start a container whose shell runs a script."""
        self.ctr("run", "-d", *options, image, name, "/bin/sh", "-c", script, namespace=namespace)

    def status(self, namespace: str, name: str) -> str:
        return self._task(namespace, name)[2]

    def root(self, namespace: str, name: str) -> Path:
        """The root of a running container, as it sees it."""
        return Path(f"/proc/{self._task(namespace, name)[1]}/root")

    def _task(self, namespace: str, name: str) -> list[str]:
        lines = self.ctr("tasks", "ls", namespace=namespace).splitlines()[1:]
        return next((line.split() for line in lines if line.split()[0] == name), [name, "-", "-"])

    def collect(self, namespace: str) -> None:
        """Collect garbage, and wait for it."""
        self.ctr("leases", "create", "--id", "collection", namespace=namespace)
        self.ctr("leases", "rm", "--sync", "collection", namespace=namespace)

    def kill_containers(self, namespace: str) -> None:
        for line in self.ctr("tasks", "ls", "-q", namespace=namespace).split():
            self.attempt("tasks", "resume", line, namespace=namespace)
            self.attempt("tasks", "rm", "--force", line, namespace=namespace)


@contextmanager
def running(which: str, more: Callable[[Path], str] = lambda _: "") -> Iterator[Daemon]:
    """A daemon, which is gone at the end with all that it had.

    Args:
        which: Its version.
        more: Returns more configuration, for the directory of the daemon.
    """
    if not probes.is_root():
        probes.missing("needs root")
    # The path of a socket is short, and id-mapped containers have to pass.
    place = Path(tempfile.mkdtemp(prefix="oci-c-", dir="/tmp"))
    place.chmod(0o755)
    daemon = Daemon(which, place, more(place))
    try:
        yield daemon
    finally:
        for namespace in daemon.ctr("namespaces", "ls", "-q").split():
            daemon.kill_containers(namespace)
        daemon.stop()
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point = line.split()[4]
            if point.startswith(f"{place}/"):
                with contextlib.suppress(OSError):
                    subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(place, ignore_errors=True)
