"""The Helm chart renders what Kubernetes takes, refuses values that mean nothing, and asks for no more than it needs."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import click
import pytest

from containerd.daemon import programs
from ocidiff.cli.group import group

pytestmark = pytest.mark.interop

CHART = Path(__file__).parents[2] / "deploy/chart"
COMMIT: dict[str, object] = {"pod": "web-0", "podNamespace": "shop", "node": "n1", "containers": ["app:x.example/y:1"]}


def helm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [programs("helm") / "helm", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def given(values: dict[str, object]) -> list[str]:
    return [word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]


def rendered(template: str, values: dict[str, object]) -> str:
    done = helm(
        "template", "r", CHART, "--kube-version", "1.30", "--show-only", f"templates/{template}.yaml", *given(values)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(text: str) -> list[str]:
    """The arguments of the container in a rendered template."""
    lines = iter(text.splitlines())
    next(line for line in lines if line.strip() == "args:")
    return list(
        itertools.takewhile(bool, (line.strip().removeprefix("- ") if line.strip()[:2] == "- " else "" for line in lines))
    )


@pytest.mark.parametrize("values", [{}, {"commit": COMMIT}, {"committers": [{"kind": "User", "name": "me"}]}])
def test_the_chart_is_one(values: dict[str, object]) -> None:
    done = helm("lint", "--strict", CHART, *given(values))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("template", "values"),
    [("daemonset", {}), ("commit-job", {"commit": COMMIT}), ("resume-job", {"commit": COMMIT})],
)
def test_the_arguments_are_understood(template: str, values: dict[str, object]) -> None:
    text = rendered(template, values)
    name, *words = listed(text)
    command = group.get_command(click.Context(group), name)
    assert command is not None
    command.make_context(name, words)
    assert "privileged:" not in text
    assert "drop: [ALL]" in text


def test_a_job_names_what_it_commits_and_gives_up_where_it_should() -> None:
    text = rendered("commit-job", {"commit": COMMIT})
    assert listed(text) == ["commit-pod", "web-0", "shop", "app:x.example/y:1"]
    assert "values: [2, 4]" in text
    assert 'nodeName: "n1"' in text
    assert listed(rendered("resume-job", {"commit": COMMIT})) == ["commit-pod", "--resume", "web-0", "shop", "app"]


@pytest.mark.parametrize(
    "values",
    [
        {"plugin": {"slots": 0}},
        {"plugin": {"memory": "much"}},
        {"commit": {**COMMIT, "containers": ["app"]}},
        {"commit": {**COMMIT, "pods": "x"}},
        {"containerd": {"socket": "run/c.sock", "root": "/var"}},
    ],
)
def test_values_that_mean_nothing_are_refused(values: dict[str, object]) -> None:
    done = helm("template", "r", CHART, "--kube-version", "1.30", *given(values))
    assert done.returncode == 1
    assert "values don't meet the specifications of the schema" in done.stderr
