"""What --help says: of every command, and of any dataclass of options."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tomllib
import tyro

from devil import commands
from devil.command import run_command

SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]


@dataclass(frozen=True)
class Options:
    """Does something."""

    number: int = 1
    """How many."""


def test_help_comes_from_the_dataclass(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(Options, lambda _: None, "do", ["--help"])
    assert caught.value.code == 0
    help_text = capsys.readouterr().out
    assert "Does something." in help_text
    assert "How many." in help_text


def test_help_says_documented_attributes_once(capsys):
    @dataclass(frozen=True)
    class Documented:
        """Does something.

        Attributes:
            number: how many.
        """

        number: int = 1

    with pytest.raises(SystemExit):
        run_command(Documented, lambda _: None, "do", ["--help"])
    assert capsys.readouterr().out.count("how many.") == 1


def test_help_is_one_paragraph_per_option_also_inside_options(capsys):
    @dataclass(frozen=True)
    class Inner:
        """Some more."""

        depth: int = 1
        """How deep it
        goes."""

    @dataclass(frozen=True)
    class Wrapped:
        """Does something."""

        number: Annotated[int, tyro.conf.arg(metavar="N")] = 1
        """How many
        there are."""
        inner: tyro.conf.OmitArgPrefixes[Inner] = field(default_factory=Inner)

    for _ in range(2):
        with pytest.raises(SystemExit):
            run_command(Wrapped, lambda _: None, "do", ["--help"])
        shown = capsys.readouterr().out
        assert "How many there are. (default: 1)" in shown
        assert "How deep it goes." in shown


COMMANDS = [place.rpartition(":")[2] for place in SCRIPTS.values()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_every_command_says_what_it_takes_and_does(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stop:
        getattr(commands, command)(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "None" not in text
    text = re.sub(r"[│╭╮╰╯─]", "", text)
    flags = re.split(r"\n\s*(?=--[a-z])", text.split("show this help message and exit")[1])[1:]
    assert {flag.split()[0] for flag in flags} >= {"--debug", "--json"}
    for flag in flags:
        assert re.search(r"[A-Za-z].*[.?)]\s*(\w+ options.*)?$", flag, re.DOTALL), flag
        assert len(flag.split()) > 2, flag


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_that_do_not_exist_exit_with_two(command, capsys):
    assert getattr(commands, command)(["--no-such-flag"]) == 2
    assert "--help" in capsys.readouterr().err  # where to look


@pytest.mark.parametrize(("command", "shown"), [("doctor", "[BUNDLE]"), ("ground", "[VIDEO] [SENTENCE]")])
def test_what_may_be_left_out_stands_in_brackets(command, shown, capsys):
    with pytest.raises(SystemExit):
        getattr(commands, command)(["--help"])
    assert shown in capsys.readouterr().out.splitlines()[0]
