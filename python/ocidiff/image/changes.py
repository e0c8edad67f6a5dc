"""Changes: how an image is to be run, beside what its base says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Final, TypeVar

from ocidiff.errors import UsageError
from ocidiff.frozen import FrozenMapping
from ocidiff.image.mutate import merge_exec
from ocidiff.layer.options import texts
from ocidiff.oci.config import ExecConfig, ImageConfig
from ocidiff.oci.encoding import NO_TEXTS
from ocidiff.values import dataclass

_WINDOWS: Final = "windows"

_Member = TypeVar("_Member")


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """Changes of the configuration of an image: first the instructions, then what is unset, then the single settings.

    Attributes:
        instructions: Dockerfile instructions, as `docker commit --change` takes them: the lines of one text.
        unset_env: Names of variables to remove.
        unset_labels: Names of labels to remove.
        unset_volumes: Volumes to remove.
        unset_ports: Ports to remove, as `80`, `53/udp` or `8000-8010`.
        env: Variables, taken as they are.
        labels: Labels, taken as they are.
        cmd: The argument of CMD, or the words of the command; empty for no command. None leaves it.
        entrypoint: Likewise, of ENTRYPOINT. The command of the base goes, unless a new one is given too.
        workdir: The working directory, which may begin at the present one; empty for none. None leaves it.
        user: `USER[:GROUP]`; empty for none. None leaves it.
    """

    instructions: Sequence[str] = ()
    unset_env: Sequence[str] = ()
    unset_labels: Sequence[str] = ()
    unset_volumes: Sequence[str] = ()
    unset_ports: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    labels: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    cmd: str | Sequence[str] | None = None
    entrypoint: str | Sequence[str] | None = None
    workdir: str | None = None
    user: str | None = None

    @classmethod
    def of(cls, changes: ConfigChanges | str | Sequence[str]) -> ConfigChanges:
        """Return the changes that a caller gives: whole, or as instructions alone."""
        if isinstance(changes, ConfigChanges):
            return changes
        return cls((changes,) if isinstance(changes, str) else tuple(changes))

    def check(self) -> None:
        """Refuse what no base could make right.

        Raises:
            UsageError: An instruction, a command or a port cannot be parsed; a name is empty or has a `=`; a text is not
                UTF-8.
        """
        if self == ConfigChanges():
            return
        for name in ("instructions", "unset_env", "unset_labels", "unset_volumes", "unset_ports"):
            texts(name, getattr(self, name))
        if self.instructions:
            from ocidiff.image.instructions import parse

            parse(self.instructions)
        for name in (*self.unset_env, *self.env):
            if not name or "=" in name:
                raise UsageError(f"variable {name[:100]!r}: must be a name")
        for name in (*self.unset_labels, *self.unset_volumes, *self.labels):
            if not name:
                raise UsageError("label or volume: the name is empty")
        check_text("variable", *self.env, *self.env.values())
        check_text("label", *self.labels, *self.labels.values())
        check_text("working directory or user", self.workdir or "", self.user or "")
        for what, command in (("cmd", self.cmd), ("entrypoint", self.entrypoint)):
            check_text(what, *_line(what, command or ()))
        _ports(self.unset_ports)


def check_text(what: str, *texts: str) -> None:
    """Refuse text that no document can hold.

    Raises:
        UsageError: It is not UTF-8, or it holds half a surrogate pair.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{what} {text[:100]!r}: not valid UTF-8") from None


def apply_changes(base: ImageConfig, changes: ConfigChanges) -> ImageConfig:
    """Return the configuration with the changes, and without what only a container of the base could mean.

    A container does not have the `Shell` and `OnBuild` of its image, so that instructions do not see them. The image has
    them all the same; triggers are added to those of the base.

    Raises:
        UsageError: An instruction is refused with the values of this base.

    Spec: commit-semantics section 8.
    """
    inherited = replace(base.config, args_escaped=base.config.args_escaped and base.platform.os == _WINDOWS)
    if changes == ConfigChanges():
        return replace(base, config=inherited)
    from ocidiff.image.instructions import apply, parse

    own = replace(inherited, shell=(), on_build=(), args_escaped=False)
    instructions = parse(changes.instructions) if changes.instructions else ()
    config = _without(merge_exec(apply(own, instructions), own), changes)
    commanded = any(one.name == "CMD" and one.command and one.command.arguments for one in instructions)
    config = _with_settings(config, changes, commanded=commanded)
    same_command = (config.cmd, config.entrypoint) == (inherited.cmd, inherited.entrypoint)
    config = replace(
        config,
        shell=inherited.shell,
        on_build=(*inherited.on_build, *config.on_build),
        args_escaped=inherited.args_escaped and same_command,
    )
    return replace(base, config=config)


def _without(config: ExecConfig, changes: ConfigChanges) -> ExecConfig:
    ports = _ports(changes.unset_ports)
    return replace(
        config,
        env=tuple([entry for entry in config.env if entry.partition("=")[0] not in changes.unset_env]),
        labels=_less(config.labels, changes.unset_labels),
        volumes=_less(config.volumes, changes.unset_volumes),
        exposed_ports=_less(config.exposed_ports, [key for key in config.exposed_ports if _with_protocol(key) in ports]),
    )


def _ports(texts: Sequence[str]) -> set[str]:
    from ocidiff.image.quantities import port_keys

    return {key for text in texts for key in port_keys(text)}


def _with_protocol(port: str) -> str:
    number, _, protocol = port.partition("/")
    return f"{number}/{protocol.lower() or 'tcp'}"


def _less(members: Mapping[str, _Member], names: Sequence[str]) -> Mapping[str, _Member]:
    return FrozenMapping({name: member for name, member in members.items() if name not in names})


def _with_settings(config: ExecConfig, changes: ConfigChanges, *, commanded: bool) -> ExecConfig:
    labels = FrozenMapping({**config.labels, **changes.labels})
    config = replace(config, env=_with_variables(config.env, changes.env), labels=labels)
    if changes.entrypoint is not None:
        # The command was made for another entrypoint.
        cmd = config.cmd if commanded else ()
        config = replace(config, entrypoint=_line("entrypoint", changes.entrypoint), cmd=cmd)
    if changes.cmd is not None:
        config = replace(config, cmd=_line("cmd", changes.cmd))
    if changes.workdir is not None:
        from ocidiff.image.instructions import work_dir

        config = replace(config, working_dir=changes.workdir and work_dir(config.working_dir, changes.workdir))
    return config if changes.user is None else replace(config, user=changes.user)


def _with_variables(env: Sequence[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the environment with the variables, each once: in the place of the first of its name, else at the end."""
    left = dict(variables)
    entries: list[str] = []
    for entry in env:
        name = entry.partition("=")[0]
        if name not in variables:
            entries.append(entry)
        elif name in left:
            entries.append(f"{name}={left.pop(name)}")
    return (*entries, *[f"{name}={value}" for name, value in left.items()])


def _line(what: str, command: str | Sequence[str]) -> tuple[str, ...]:
    """Return the command line: words as they are, a text as CMD takes it; nothing for an empty one."""
    if not isinstance(command, str):
        return tuple(command)
    from ocidiff.image.instructions import parse_command

    try:
        parsed = parse_command(command)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None
    return parsed.line(()) if parsed.arguments else ()
