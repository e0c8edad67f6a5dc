"""Dockerfile: the lines of a text as instructions, with the parts that their kinds are made of. Pure.

The rules are those of Docker's parser: comments, the directive `# escape=`, lines that are continued, here-documents of
`ONBUILD`, options that begin with `--`, words and JSON arrays. Spec: commit-semantics section 8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn

from ocidiff.errors import UsageError
from ocidiff.image.expansion import ESCAPE, SPACES, raw_words, unquoted_words
from ocidiff.values import dataclass

# Docker reads no longer ones.
_MAX_LINE_BYTES: Final = 65535
_BLANKS: Final = r"[\t\v\f\r ]+"
_ASCII_SPACES: Final = "\t\n\v\f\r "
_DIRECTIVE: Final = r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*"
_DIRECTIVES: Final = frozenset({"syntax", "escape", "check"})
_HEREDOC: Final = r"[0-9]*<<(-?)[\t\n\f\r ]*([^<]*)"
_WITH_HEREDOCS: Final = frozenset({"ADD", "COPY", "RUN"})


@dataclass(frozen=True, slots=True)
class Statement:
    """One instruction of a Dockerfile.

    Attributes:
        name: Its first word, as written.
        flags: The words before the arguments that begin with `--`.
        rest: Its arguments.
        line: The whole of it, in one line; here-documents follow.
        escape: The character that makes the next one literal.
    """

    name: str
    flags: tuple[str, ...]
    rest: str
    line: str
    escape: str = ESCAPE

    @property
    def keyword(self) -> str:
        """The name in capitals."""
        return upper(self.name)

    @classmethod
    def of_line(cls, line: str, escape: str) -> Statement:
        """The instruction in a line that has no continuation and is no comment."""
        name, *behind = re.split(_BLANKS, line.strip(SPACES), maxsplit=1)
        flags, rest = _flags("".join(behind), escape)
        return cls(name, tuple(flags), rest.strip(SPACES), line, escape)


def statements(text: str) -> list[Statement]:
    """Return the instructions of a Dockerfile.

    Raises:
        UsageError: There is none; a line is too long; a directive stands twice or is wrong; a here-document does not end.
    """
    found = list(_statements(text))
    if not found:
        raise UsageError("no instruction")
    return found


def _statements(text: str) -> Iterator[Statement]:
    lines = _lines(text.removeprefix("\ufeff"))
    escape, seen = ESCAPE, set[str]()
    at_top = True
    for raw in lines:
        line = raw.lstrip(SPACES)
        if at_top:
            directive = re.fullmatch(_DIRECTIVE, line[1:].lstrip(SPACES)) if line.startswith("#") else None
            at_top = directive is not None and directive[1].lower() in _DIRECTIVES
            if directive is not None and at_top:
                escape = _directed(directive[1].lower(), directive[2], seen, escape)
        if not line or line.startswith("#"):
            continue
        line, continued = _part(line, escape)
        while continued:
            more = next(lines, None)
            if more is None:
                break
            if more.lstrip(SPACES)[:1] not in ("", "#"):
                more, continued = _part(more, escape)
                line += more
        statement = Statement.of_line(line, escape)
        yield _with_heredocs(statement, lines)


def _lines(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) * 4 > _MAX_LINE_BYTES and len(line.encode()) > _MAX_LINE_BYTES:
            raise UsageError(f"line {number}: longer than {_MAX_LINE_BYTES} bytes")
        yield line.rstrip("\r")


def _directed(name: str, value: str, seen: set[str], escape: str) -> str:
    """Return the escape character once the directive is heeded."""
    if name in seen:
        raise UsageError(f"directive {name}: given twice")
    seen.add(name)
    if name != "escape":
        return escape
    if value not in ("\\", "`"):
        raise UsageError(f"directive escape: {value[:20]!r}: must be \\ or `")
    return value


def _part(line: str, escape: str) -> tuple[str, bool]:
    """Return the line without the escape character at its end, and if the next line continues it."""
    bare = line.rstrip("\t ")
    # An escaped escape character does not continue a line.
    if bare.endswith(escape) and not bare.endswith(escape * 2):
        return bare[:-1], True
    return line, False


def _with_heredocs(statement: Statement, lines: Iterator[str]) -> Statement:
    """Take the here-documents of `ONBUILD RUN`, `COPY` and `ADD` from the lines that follow."""
    if statement.keyword != "ONBUILD" or "<<" not in statement.line or not statement.rest:
        return statement
    trigger = Statement.of_line(statement.rest, statement.escape)
    if trigger.keyword not in _WITH_HEREDOCS or json_array(trigger.rest) is not None:
        return statement
    line = statement.line
    for chomp, name in _heredocs(line):
        line += "\n"
        for body in lines:
            if (body.lstrip("\t") if chomp else body) == name:
                break
            line += body + "\n"
        else:
            raise UsageError(f"{statement.keyword}: here-document {name[:100]!r}: does not end")
        line += name
    return Statement(statement.name, statement.flags, statement.rest, line, statement.escape)


def _heredocs(line: str) -> Iterator[tuple[bool, str]]:
    """Yield the names of the here-documents that begin in a line, each with its `-`."""
    try:
        words = raw_words(line)
    except UsageError:
        return
    for word in words:
        found = re.fullmatch(_HEREDOC, word)
        if found and found[2]:
            names = unquoted_words(found[2])
            if len(names) == 1:
                yield bool(found[1]), names[0]


def upper(text: str) -> str:
    """Return the text in capitals, of as many characters."""
    return "".join([char.upper() if len(char.upper()) == 1 else char for char in text])


def _flags(text: str, escape: str) -> tuple[list[str], str]:
    """Return the words that begin with `--`, without quotes and escapes, and what follows them."""
    flags: list[str] = []
    at = 0
    while True:
        while text[at : at + 1] and text[at] in _ASCII_SPACES:
            at += 1
        if not text.startswith("--", at):
            return flags, text[at:]
        word, quote, quoted = "", "", False
        while at < len(text) and (quote or text[at] not in _ASCII_SPACES):
            char = text[at]
            at += 1
            if char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote, quoted = char, True
            elif char != escape:
                word += char
            elif at < len(text):
                word += text[at]
                at += 1
            else:
                # An escape character that ends the line is nothing, and ends a quote.
                quote = ""
        if word == "--":
            return flags, text[at:]
        if word or quoted:
            flags.append(word)


def words(text: str, escape: str) -> list[str]:
    """Return the words of a list of `KEY=VALUE`, with their quotes and escapes."""
    found: list[str] = []
    word, quote, quoted = "", "", False
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == escape and quote != "'":
            if at == len(text):
                break
            word += char + text[at]
            at += 1
            continue
        if not quote and char in SPACES:
            if word or quoted:
                found.append(word)
            word, quoted = "", False
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote, quoted = char, True
        word += char
    return [*found, word] if word or quoted else found


def blank_separated(text: str) -> list[str]:
    """Return the parts of a text between blanks; quotes mean nothing."""
    return re.split(_BLANKS, text) if text else []


def key_and_value(text: str) -> tuple[str, str] | None:
    """Return the first word and all that follows it; None if nothing does."""
    key, *value = re.split(_BLANKS, text, maxsplit=1)
    return (key, value[0]) if value else None


def first_word(text: str) -> tuple[str, str]:
    """Return the first word of a text, and what follows it."""
    word, *behind = re.split(f"[{_ASCII_SPACES}]+", text, maxsplit=1)
    return word, "".join(behind)


def json_array(text: str) -> tuple[str, ...] | None:
    """Return the strings of a JSON array; None if the text is something else.

    Raises:
        UsageError: It is an array of something else than strings.
    """
    text = text.lstrip(SPACES)
    if not text.startswith("["):
        return None
    try:
        items = json.loads(text, parse_constant=_no_number, parse_float=_number, parse_int=_number)
    except RecursionError:
        items = [None]
    except ValueError:
        return None
    if not all(isinstance(item, str) for item in items):
        raise UsageError("a JSON array may hold strings only")
    # Go replaces half a surrogate pair, too.
    return tuple([re.sub("[\ud800-\udfff]", "\ufffd", item) for item in items])


def _number(text: str) -> float:
    number = float(text)
    if number - number != 0:
        _no_number(text)
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no JSON number")
