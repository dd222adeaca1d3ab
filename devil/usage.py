"""A command line that tyro does not take, told in one line: tyro draws a box of many."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

import tyro

from devil.errors import UsageError

Options = TypeVar("Options")

_USAGE = 2
_STYLE = re.compile(r"\x1b\[[\d;]*m")
_RULE = re.compile(r"[\s│╭╮╰╯─-]*")
_CHOICE = re.compile(r"invalid choice '(.*)' for argument '?(\S+?)'?\. Expected one of \((.*)\)")
_VALUE = re.compile(r"Error parsing (\S+): .*(?:\['(.*?)'\]|: '(.*?)'$)")
_KINDS = {"int()": "a whole number", "to float": "a number"}
_SOMEWHERE_TO_WRAP = "10000"  # columns: tyro breaks its lines, and long words, where the terminal ends


def parse_options(options: type[Options], prog: str, args: list[str] | None, **settings: Any) -> Options:
    """Parses the command line into `options`, a frozen dataclass; `--help` prints and exits, as tyro does it.

    Args:
        args: the command line; by default the one that this process was called with.
        settings: for `tyro.cli`.

    Raises:
        UsageError: a flag that does not exist, a value that is missing or cannot be meant.
    """
    words = sys.argv[1:] if args is None else args
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), _wide(unless={"--help", "-h"} & set(words)):
            return tyro.cli(options, prog=prog, args=args, **settings)
    except SystemExit as stop:
        if stop.code != _USAGE:
            raise
    raise usage_error(told.getvalue(), prog)


def usage_error(box: str, prog: str) -> UsageError:
    """What a box of tyro says.

    Args:
        box: a title and parts with rules between them; the last says where the help is.
        prog: the command's name.
    """
    first, *others = _parts(box)
    text, see = " ".join(first), f"see {prog} --help"
    if found := _CHOICE.match(text):
        return UsageError(f"{found[2]} is {found[1]!r}", f"give {_choices(found[3])}")
    if found := _VALUE.match(text):
        kind = next((kind for sign, kind in _KINDS.items() if sign in text), "another value")
        return UsageError(f"{found[1]} is {found[2] or found[3]!r}", f"give {kind}")
    if found := re.match(r"Missing value for argument [^\w-]*([\w-]+)", text):
        if found[1].startswith("-"):
            return UsageError(f"{found[1]} has no value", f"give one, or leave {found[1]} out")
        return UsageError(f"{found[1].upper()} must be given", see)
    if text.startswith("Missing from"):
        missing = ", ".join(_invocations(first))
        unknown = [word for other in others for word in _invocations(other) if word.startswith("--")]
        wrong = f", and there is no {', '.join(unknown)}" if unknown and others[0][0].startswith("Unrec") else ""
        return UsageError(f"{missing} must be given{wrong}", see)
    if text.startswith("Unrecognized options:"):
        return _unknown(text.partition(":")[2].strip(), others, see)
    return UsageError(text or "the command line cannot be read", see)


def _unknown(words: str, others: list[list[str]], see: str) -> UsageError:
    """Words that are no flags follow a flag that does not exist, or are more than a command takes."""
    flags = [word for word in words.split(", ") if re.match("--?[A-Za-z]", word)]
    near = dict.fromkeys(row.split()[0] for part in others for row in _invocations(part) if row.startswith("--"))
    if not flags:
        return UsageError(f"{words!r} belongs to no flag", see)
    return UsageError(f"there is no {', '.join(flags)}", f"perhaps {' or '.join(near)}; {see}" if near else see)


def _parts(box: str) -> list[list[str]]:
    """The rows between the rules, indented as they are, without the title, and without the part about the help."""
    parts: list[list[str]] = [[]]
    for line in _STYLE.sub("", box).splitlines()[1:]:
        if not _RULE.fullmatch(line):
            parts[-1].append(line[2:].rstrip(" │"))
        elif line.strip(" │"):
            parts.append([])
    return [part for part in parts if part and not part[0].startswith("For full helptext")] or [[]]


def _invocations(rows: list[str]) -> list[str]:
    """Of a list of flags, each with its help further in: `--flag METAVAR`."""
    return [row.strip() for row in rows if re.match(r" {4}\S", row)]


def _choices(listed: str) -> str:
    """`'32', '128', 'None'` as a phrase; None is what tyro calls a flag that may be left out."""
    choices = [choice for choice in re.findall(r"'([^']*)'", listed) if choice != "None"]
    if all(choice.isdecimal() for choice in choices):
        choices.sort(key=int)
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


@contextlib.contextmanager
def _wide(unless: object) -> Iterator[None]:
    """A terminal that nothing needs to be wrapped for, unless something is asked for that is to be read there."""
    if unless:
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _SOMEWHERE_TO_WRAP
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
