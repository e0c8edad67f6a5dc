"""Any text is instructions or wrong usage; what is quoted arrives as it was; what is set and unset is so in the end."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import UsageError
from ocidiff.image.changes import ConfigChanges, apply_changes
from ocidiff.image.instructions import NAMES, apply, parse
from ocidiff.oci.config import ExecConfig, ImageConfig
from ocidiff.oci.encoding import compact
from ocidiff.oci.platform import Platform

BASE = ExecConfig(
    user="u",
    exposed_ports={"80/tcp": {}},
    env=("PATH=/bin", "A=1", "A=2", "NOVALUE", "DIR=/opt/x", "PORTS=8080 9090/udp"),
    entrypoint=("/entry",),
    cmd=("serve",),
    volumes={"/data": {}},
    working_dir="/srv",
    labels={"k": "v"},
    healthcheck={"Test": ["CMD", "x"], "Interval": 5},
    on_build=("RUN a",),
    shell=("/bin/bash", "-c"),
)
FRAGMENTS = (
    *(
        *NAMES,
        "RUN",
        "FROM",
        "cmd",
        "NONE",
        "--interval=5s",
        "--retries=",
        "--x",
        "--",
        "80",
        "1-9/udp",
        "a:1:2",
        "SIGTERM",
        "9",
    ),
    *(
        "$A",
        "${A",
        "${A:-b}",
        "${A#*",
        "${A%%x}",
        "${A//a/b}",
        "${A/",
        "${A?",
        "$PORTS",
        "$",
        "{",
        "}",
        "\\",
        "`",
        "'",
        '"',
        "=",
    ),
    *(
        "[",
        "]",
        '["a"]',
        "[1]",
        '"a b"',
        "<<EOF",
        "EOF",
        "# escape=`",
        "#",
        "/v",
        "..",
        "\n",
        "\t",
        " ",
        "  ",
        "\r\n",
        "\\\n",
    ),
    *("\x00", "\x1c", "\x85", "\xa0", "\u2028", "\ufeff", "\ud800", "\u0130", "\xdf", "\U0001f642", "K=V"),
)

texts = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=12).map("".join)
# As the name of an instruction stands first, what follows is looked into.
lines = st.one_of(texts, st.tuples(st.sampled_from(NAMES), st.sampled_from((" ", "\t")), texts).map("".join))
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)


@given(st.lists(lines, max_size=4))
def test_any_text_is_a_change_or_wrong_usage(changes: list[str]) -> None:
    with contextlib.suppress(UsageError):
        instructions = parse(changes)
        assert parse("\n".join(changes)) == instructions
        assert [instruction.number for instruction in instructions] == list(range(1, len(instructions) + 1))
        made = apply(BASE, instructions)
        assert apply(BASE, instructions) == made
        # It can be stored, and is what it was when it is read again.
        assert ExecConfig.parse(made.document(), "config").document() == made.document()
        compact(made.document())


@given(st.sampled_from(("ENV", "LABEL")), names, values)
def test_what_is_quoted_arrives_as_it_was(instruction: str, name: str, value: str) -> None:
    quoted = value.replace("'", "'\"'\"'")
    made = apply(ExecConfig(), parse(f"{instruction} {name}='{quoted}'"))
    assert (made.env, dict(made.labels)) == (((f"{name}={value}",), {}) if instruction == "ENV" else ((), {name: value}))


@given(names, values, st.sampled_from(("", "A=1", "ENV A=1")))
def test_settings_are_literal_and_the_last_word(name: str, value: str, before: str) -> None:
    changes = ConfigChanges(
        ("ENV A=9", f"LABEL {name}=before"),
        unset_env=("A",),
        env={name: value, "A": value},
        labels={name: value, "x": before},
    )
    changes.check()
    made = apply_changes(ImageConfig(Platform("amd64", "linux"), config=BASE), changes).config
    assert [entry for entry in made.env if entry.partition("=")[0] == name] == [f"{name}={value}"]
    assert [entry for entry in made.env if entry.partition("=")[0] == "A"] == [f"A={value}"]
    assert (made.labels[name], made.labels["x"]) == ((before if name == "x" else value), before)
    assert (made.shell, made.on_build, made.labels["k"]) == (BASE.shell, BASE.on_build, value if name == "k" else "v")


@given(
    st.lists(st.sampled_from(("ENV A=5", "ENV B=$A", "LABEL k=2", "VOLUME /data /x", "EXPOSE 80 81", "CMD []")), max_size=3)
)
def test_what_is_unset_is_gone_whoever_set_it(instructions: list[str]) -> None:
    changes = ConfigChanges(instructions, ("A", "B"), ("k",), ("/data", "/x"), ("80-81",))
    made = apply_changes(ImageConfig(Platform("amd64", "linux"), config=BASE), changes).config
    assert made.env == tuple(entry for entry in BASE.env if entry[:2] != "A=")
    assert [dict(left) for left in (made.labels, made.volumes, made.exposed_ports)] == [{}, {}, {}]
