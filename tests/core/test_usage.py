"""A command line that cannot be read is told in one line: what is wrong with which flag, and what to write."""

import io
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import tyro

from devil.command import run_command


@dataclass(frozen=True)
class Options:
    """Does something."""

    place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")]
    """Where."""
    colour: Literal["red", "green", "blue"]
    """Which colour, told at such length that a narrow terminal has to wrap it more than once."""
    block_size: Literal[32, 64, 128] | None = None
    """Weights of a block."""
    names: tuple[Literal["one", "two"], ...] = ()
    """Some names."""
    count: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many."""
    share: Annotated[float, tyro.conf.arg(metavar="X")] = 0.5
    """How much."""
    force: bool = False
    """By force."""


FULL = "here --colour red"
LONG = "x" * 300
CASES = [
    (f"{FULL} --block-size 7", "--block-size is '7': give 32, 64 or 128"),
    ("here --colour grey", "--colour is 'grey': give red, green or blue"),
    (f"here --colour {LONG}", f"--colour is '{LONG}': give red, green or blue"),
    ("here --colour=", "--colour is '': give red, green or blue"),
    (f"{FULL} --names one three", "--names is 'three': give one or two"),
    (f"{FULL} --count few", "--count is 'few': give a whole number"),
    (f"{FULL} --count 1.5", "--count is '1.5': give a whole number"),
    (f"{FULL} --share half", "--share is 'half': give a number"),
    (f"{FULL} --count", "--count has no value: give one, or leave --count out"),
    (f"{FULL} --block_sise 32", "there is no --block_sise: perhaps --block-size; see do --help"),
    (f"{FULL} --unlike-any", "there is no --unlike-any: see do --help"),
    (f"{FULL} --unlike --any", "there is no --unlike, --any: see do --help"),
    (f"{FULL} there", "'there' belongs to no flag: see do --help"),
    (f"{FULL} --force=yes", "'yes' belongs to no flag: see do --help"),
    (f"{FULL} --force=", "'' belongs to no flag: see do --help"),
    ("", "PLACE, --colour {red,green,blue} must be given: see do --help"),
    ("--unlike-any", "PLACE must be given: see do --help"),
    ("--colour red", "PLACE must be given: see do --help"),
    ("here --color red", "--colour {red,green,blue} must be given, and there is no --color: see do --help"),
]


@pytest.mark.parametrize("columns", ["20", "80", "400"])
@pytest.mark.parametrize(("words", "line"), CASES)
def test_a_command_line_that_cannot_be_read_is_one_line(words, line, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert run_command(Options, lambda _: pytest.fail("done"), "do", words.split()) == 2
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", f"do: {line}\n")


@pytest.mark.parametrize(
    "word", ["invalid choice 'x' for argument '--x'. Expected one of ()", "Error parsing --x: 'x'", "Missing from do"]
)
def test_a_word_is_not_taken_for_what_tyro_says(word, capsys):
    assert run_command(Options, lambda _: pytest.fail("done"), "do", [*FULL.split(), word]) == 2
    assert capsys.readouterr().err == f"do: {word!r} belongs to no flag: see do --help\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_colours_and_terminals_without_box_characters_change_nothing(encoding, monkeypatch, capsys):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    terminal = Terminal(open("/dev/null", "wb"), encoding=encoding)  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run_command(Options, lambda _: pytest.fail("done"), "do", ["here", "--colour", "grey"]) == 2
    assert capsys.readouterr().err == "do: --colour is 'grey': give red, green or blue\n"
