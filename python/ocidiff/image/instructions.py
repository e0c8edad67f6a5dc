"""Instructions: Dockerfile instructions that change how an image is run. Pure.

`parse` makes values of texts, `apply` makes a configuration of another one and such values. The rules are those of
`docker commit --change`: docs/commit.md, commit-semantics section 8.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Final

from ocidiff.errors import UsageError
from ocidiff.frozen import FrozenMapping
from ocidiff.image import dockerfile
from ocidiff.image.dockerfile import Statement, upper
from ocidiff.image.expansion import ESCAPE, SPACES, expand, expand_words
from ocidiff.image.quantities import check_signal, duration, port_keys, retries
from ocidiff.oci.config import ExecConfig
from ocidiff.oci.encoding import NO_MEMBERS
from ocidiff.values import dataclass

_SHELL: Final = ("/bin/sh", "-c")
_CHECK_TIMES: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


@dataclass(frozen=True, slots=True)
class Command:
    """`CMD` or `ENTRYPOINT`: arguments, to be run by the shell or as they are."""

    arguments: tuple[str, ...]
    by_shell: bool

    def line(self, shell: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command line."""
        return (*(shell or _SHELL), *self.arguments) if self.by_shell else self.arguments


@dataclass(frozen=True, slots=True)
class Instruction:
    """One change.

    Attributes:
        name: The instruction, in capitals.
        number: Its place among the instructions, from 1 on.
        escape: The character that makes the next one literal.
        texts: The arguments, before variables are replaced: ports, paths, names and values in turn, or one text.
        command: Of CMD and ENTRYPOINT.
        healthcheck: Of HEALTHCHECK, as the configuration has it.
    """

    name: str
    number: int = 1
    escape: str = ESCAPE
    texts: tuple[str, ...] = ()
    command: Command | None = None
    healthcheck: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)


def parse(changes: str | Sequence[str]) -> tuple[Instruction, ...]:
    """Return the instructions that texts hold, which are the lines of one Dockerfile.

    Raises:
        UsageError: A text holds something else, or none holds an instruction.
    """
    text = changes if isinstance(changes, str) else "\n".join(changes)
    try:
        text.encode()
        found = dockerfile.statements(text)
    except UnicodeEncodeError:
        raise UsageError("change: not valid UTF-8") from None
    except UsageError as error:
        raise UsageError(f"change: {error}") from None
    return tuple([_parsed(statement, number) for number, statement in enumerate(found, 1)])


def apply(config: ExecConfig, instructions: Sequence[Instruction]) -> ExecConfig:
    """Return the configuration after the instructions, which see each other's variables.

    Raises:
        UsageError: A value is none that the instruction takes.
    """
    command_given = False
    for instruction in instructions:
        try:
            config = _applied(config, instruction)
        except UsageError as error:
            raise _refused(instruction.number, instruction.name, error) from None
        if instruction.name == "CMD":
            command_given = command_given or bool(instruction.command and instruction.command.arguments)
        elif instruction.name == "ENTRYPOINT" and not command_given:
            # The command was made for another entrypoint.
            config = replace(config, cmd=())
    return config


def parse_command(text: str) -> Command:
    """Return the command that the argument of CMD or ENTRYPOINT is: a JSON array, or a line for the shell.

    Raises:
        UsageError: It is an array of something else than strings.
    """
    array = dockerfile.json_array(text)
    return Command((text,) if text else (), by_shell=True) if array is None else Command(array, by_shell=False)


def set_variable(env: Sequence[str], name: str, value: str) -> tuple[str, ...]:
    """Return the environment with one value more, in the place of the first one of that name."""
    entry = f"{name}={value}"
    for place, old in enumerate(env):
        if old.partition("=")[0] == name:
            return (*env[:place], entry, *env[place + 1 :])
    return (*env, entry)


def work_dir(current: str, requested: str) -> str:
    """Return the working directory that a path means, which may begin at the current one.

    Raises:
        UsageError: The path is empty.
    """
    if not requested:
        raise UsageError("the path is empty")
    # POSIX lets two leading slashes mean something else; Docker does not.
    return posixpath.normpath("/" + posixpath.join(current, requested).lstrip("/"))


def _refused(number: int, name: str, problem: object) -> UsageError:
    return UsageError(f"change {number}: {name}: {problem}")


def _parsed(statement: Statement, number: int) -> Instruction:
    name = statement.keyword
    read = _KINDS.get(name)
    if read is None:
        shown = repr(statement.name[:100]) if statement.name != name or not name.isalnum() else name
        raise _refused(number, shown, f"not a change; must be one of {', '.join(NAMES)}")
    try:
        return replace(read(statement), name=name, number=number, escape=statement.escape)
    except UsageError as error:
        raise _refused(number, name, error) from None


def _no_flags(statement: Statement) -> None:
    for flag in statement.flags:
        raise UsageError(f"unknown option {flag[:100]!r}")


def _argument(statement: Statement) -> str:
    if not statement.rest:
        raise UsageError("takes an argument")
    return statement.rest


def _read_command(statement: Statement) -> Instruction:
    _no_flags(statement)
    command = parse_command(statement.rest)
    if statement.keyword == "ENTRYPOINT" and not command.arguments:
        command = Command((), by_shell=False)
    return Instruction("", command=command)


def _read_text(statement: Statement) -> Instruction:
    text = _argument(statement)
    _no_flags(statement)
    return Instruction("", texts=(text,))


def _read_signal(statement: Statement) -> Instruction:
    # Docker reads no options here, and so none is unknown.
    return Instruction("", texts=(_argument(statement),))


def _read_ports(statement: Statement) -> Instruction:
    text = _argument(statement)
    _no_flags(statement)
    return Instruction("", texts=tuple(dockerfile.blank_separated(text)))


def _read_paths(statement: Statement) -> Instruction:
    _no_flags(statement)
    array = dockerfile.json_array(statement.rest)
    paths = dockerfile.blank_separated(statement.rest) if array is None else array
    if not paths:
        raise UsageError("takes an argument")
    return Instruction("", texts=tuple([_not_empty(path.strip(SPACES)) for path in paths]))


def _not_empty(path: str) -> str:
    if not path:
        raise UsageError("a path is empty")
    return path


def _read_pairs(statement: Statement) -> Instruction:
    _no_flags(statement)
    texts = _pairs(statement)
    if not texts:
        raise UsageError("takes KEY=VALUE")
    if "" in texts[::2]:
        raise UsageError("a name is empty")
    return Instruction("", texts=texts)


def _pairs(statement: Statement) -> tuple[str, ...]:
    """Return the names and values of ENV and LABEL in turn."""
    words = dockerfile.words(statement.rest, statement.escape)
    if words and "=" not in words[0]:
        # The old form: all that follows the name is the value.
        pair = dockerfile.key_and_value(statement.rest)
        if pair is None:
            raise UsageError(f"{words[0][:100]!r}: takes KEY=VALUE")
        return pair
    texts: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{word[:100]!r}: takes KEY=VALUE")
        texts += [key, value]
    return tuple(texts)


def _read_trigger(statement: Statement) -> Instruction:
    trigger = Statement.of_line(_argument(statement), statement.escape)
    _no_flags(statement)
    if trigger.keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        raise UsageError(f"{trigger.keyword} cannot be a trigger")
    # Only what no parser could take is refused; the rest is for the build that the trigger runs in.
    if trigger.keyword in ("ENV", "LABEL"):
        _pairs(trigger)
    elif trigger.keyword == "HEALTHCHECK":
        dockerfile.json_array(dockerfile.first_word(trigger.rest)[1])
    elif trigger.keyword in ("ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"):
        dockerfile.json_array(trigger.rest)
    text = statement.line.lstrip(SPACES).removeprefix(statement.name)
    return Instruction("", texts=(text.lstrip("\t\n\f\r "),))


def _read_healthcheck(statement: Statement) -> Instruction:
    kind, command = dockerfile.first_word(_argument(statement))
    array = dockerfile.json_array(command)
    if upper(kind) == "NONE":
        if command and array != ():
            raise UsageError("NONE takes no argument")
        return Instruction("", healthcheck=FrozenMapping({"Test": ["NONE"]}))
    given = _check_options(statement.flags)
    if upper(kind) != "CMD":
        raise UsageError(f"{kind[:100]!r}: must be CMD or NONE")
    if not command or array == ():
        raise UsageError("CMD takes a command")
    test = ["CMD-SHELL", command] if array is None else ["CMD", *array]
    return Instruction("", healthcheck=FrozenMapping({"Test": test, **given}))


def _check_options(flags: Sequence[str]) -> dict[str, int]:
    """Return the numbers that the options of HEALTHCHECK stand for, in the order of the configuration."""
    given: dict[str, str] = {}
    for flag in flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name != "retries" and name not in _CHECK_TIMES:
            raise UsageError(f"unknown option {('--' + name)[:100]!r}")
        if name in given:
            raise UsageError(f"option --{name}: given twice")
        if not equals:
            raise UsageError(f"option --{name}: takes a value")
        given[name] = value
    numbers = {key: duration(name, given[name]) for name, key in _CHECK_TIMES.items() if given.get(name)}
    if given.get("retries"):
        numbers["Retries"] = retries(given["retries"])
    return {key: number for key, number in numbers.items() if number}


_KINDS: Final[Mapping[str, Callable[[Statement], Instruction]]] = {
    "CMD": _read_command,
    "ENTRYPOINT": _read_command,
    "ENV": _read_pairs,
    "EXPOSE": _read_ports,
    "HEALTHCHECK": _read_healthcheck,
    "LABEL": _read_pairs,
    "ONBUILD": _read_trigger,
    "STOPSIGNAL": _read_signal,
    "USER": _read_text,
    "VOLUME": _read_paths,
    "WORKDIR": _read_text,
}
NAMES: Final = tuple(_KINDS)


def _applied(config: ExecConfig, instruction: Instruction) -> ExecConfig:
    # Of a name that stands twice the last value is seen, and the first one replaced.
    env = {name: value for name, _, value in [entry.partition("=") for entry in config.env]}
    escape = instruction.escape

    def expanded() -> list[str]:
        return [expand(text, env, escape) for text in instruction.texts]

    match instruction.name:
        case "CMD" if instruction.command:
            return replace(config, cmd=instruction.command.line(config.shell))
        case "ENTRYPOINT" if instruction.command:
            return replace(config, entrypoint=instruction.command.line(config.shell))
        case "ENV":
            variables, texts = config.env, expanded()
            for name, value in zip(texts[::2], texts[1::2], strict=True):
                variables = set_variable(variables, name, value)
            return replace(config, env=variables)
        case "LABEL":
            texts = expanded()
            labels = {**config.labels, **dict(zip(texts[::2], texts[1::2], strict=True))}
            return replace(config, labels=FrozenMapping(labels))
        case "EXPOSE":
            ports = [
                key for text in instruction.texts for word in expand_words(text, env, escape) for key in port_keys(word)
            ]
            return replace(config, exposed_ports=_with_keys(config.exposed_ports, ports))
        case "VOLUME":
            return replace(config, volumes=_with_keys(config.volumes, map(_not_empty, expanded())))
        case "USER":
            return replace(config, user=expanded()[0])
        case "WORKDIR":
            return replace(config, working_dir=work_dir(config.working_dir, expanded()[0]))
        case "STOPSIGNAL":
            return replace(config, stop_signal=check_signal(expanded()[0]))
        case "HEALTHCHECK":
            return replace(config, healthcheck=instruction.healthcheck)
        case "ONBUILD":
            return replace(config, on_build=(*config.on_build, *instruction.texts))
    raise UsageError("not a change")


def _with_keys(members: Mapping[str, object], keys: Iterable[str]) -> Mapping[str, object]:
    return FrozenMapping({**members, **{key: members.get(key, {}) for key in keys}})
