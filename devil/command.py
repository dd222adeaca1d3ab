"""What every command shares: flags from a frozen dataclass, one line per error, exit codes."""

from __future__ import annotations

import inspect
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from devil.errors import DevilError, UsageError
from devil.help_text import unwrap_help
from devil.usage import parse_options

Options = TypeVar("Options")

# Types of options; what is left out says in its help what happens then.
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Threads = Annotated[int, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]
Real = Annotated[float, tyro.conf.arg(metavar="X")]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
MOST_THREADS = 1024


def run_command(
    options: type[Options], work: Callable[[Options], dict | None], prog: str, args: list[str] | None = None
) -> int:
    """Parses the command line into `options` (a frozen dataclass) and calls `work` with it.

    A `debug` field, where the dataclass has one, shows tracebacks; a `json` field makes the dictionary that `work`
    returns the last line of stdout.

    Returns:
        The exit code: 0 done, 1 failed and 2 called wrongly, each with one line on stderr, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    _make_streams_safe()
    if "--version" in (sys.argv[1:] if args is None else args):
        sys.stdout.write(f"{prog} {metadata.version('devil-deploy')}\n")
        return 0
    one_flag = (tyro.conf.FlagCreatePairsOff,)  # --force without a --no-force beside it
    description = (inspect.getdoc(options) or "").split("\n\nAttributes:")[0]  # they stand beside their flags
    description = description.rstrip() + "\n--version tells the version and does nothing else."
    parsed = None
    try:
        unwrap_help(options)
        parsed = parse_options(options, prog, args, description=description, config=one_flag)
        _print(work(parsed), parsed)
    except KeyboardInterrupt as told:
        _say(f"{prog}: interrupted; {str(told) or 'nothing half-written was left'}")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if getattr(parsed, "debug", False):
            raise
        _print(getattr(error, "result", None), parsed)
        _say(f"{prog}: {_one_line(error)}")
        return getattr(error, "exit_code", EXIT_FAILED)
    return 0


def check_threads(threads: int) -> None:
    """
    Raises:
        UsageError: a number of threads that cannot be meant.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(f"--threads is {threads}", f"give 0 for all cores, or at most {MOST_THREADS}")


def _print(result: dict | None, parsed: object | None) -> None:
    if getattr(parsed, "json", False) and result is not None:
        sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _make_streams_safe() -> None:
    """Lets stdout and stderr take any text, also where whoever started the command closed them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name or a sentence may hold what a terminal cannot show


def _one_line(error: Exception) -> str:
    if isinstance(error, DevilError):
        text = str(error)
    else:
        text = f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"
    return " ".join(text.split())


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
