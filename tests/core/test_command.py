import json
from dataclasses import dataclass

import pytest

from devil.command import run_command
from devil.errors import BundleError, UsageError


@dataclass(frozen=True)
class Options:
    """Does something."""

    number: int = 1
    """How many."""
    json: bool = False
    """As JSON."""
    debug: bool = False
    """Tracebacks."""


def test_json_is_the_last_line_of_stdout(capsys):
    assert run_command(Options, lambda options: {"number": options.number}, "do", ["--number", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"number": 3}


def test_without_json_the_result_is_not_printed(capsys):
    assert run_command(Options, lambda _: {"number": 1}, "do", []) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BundleError("a.onnx is missing", "copy it\nagain"), 1, "do: a.onnx is missing: copy it again"),
        (UsageError("no video"), 2, "do: no video"),
        (KeyError("x"), 1, "do: unexpected KeyError: 'x' (run again with --debug for the traceback)"),
        (KeyboardInterrupt(), 130, "do: interrupted; nothing half-written was left"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(capsys, error, code, line):
    def work(_options):
        raise error

    assert run_command(Options, work, "do", []) == code
    assert capsys.readouterr().err == line + "\n"


def test_debug_shows_the_error_itself():
    def work(_options):
        raise BundleError("broken")

    with pytest.raises(BundleError):
        run_command(Options, work, "do", ["--debug"])


def test_a_failure_that_has_a_result_prints_it_as_json(capsys):
    def work(_options):
        error = BundleError("half an answer")
        error.result = {"tube": None}
        raise error

    assert run_command(Options, work, "do", ["--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"tube": None}


def test_wrong_flags_are_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(Options, lambda _: None, "do", ["--wrong"])
    assert caught.value.code == 2
    assert "--wrong" in capsys.readouterr().err


def test_help_comes_from_the_dataclass(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(Options, lambda _: None, "do", ["--help"])
    assert caught.value.code == 0
    help_text = capsys.readouterr().out
    assert "Does something." in help_text
    assert "How many." in help_text
