import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import pytest
import tomllib

from devil import commands
from devil.command import check_threads, run_command
from devil.errors import BundleError, UsageError

SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]


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
        (KeyboardInterrupt("it continues from step 7"), 130, "do: interrupted; it continues from step 7"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(capsys, error, code, line):
    def work(_options):
        raise error

    assert run_command(Options, work, "do", []) == code
    assert capsys.readouterr().err == line + "\n"


def test_the_version_is_told_and_nothing_done(capsys):
    assert run_command(Options, lambda _: pytest.fail("done"), "do", ["--number", "x", "--version"]) == 0
    assert capsys.readouterr().out == f"do {metadata.version('devil-deploy')}\n"


def test_an_interrupt_while_a_command_loads_is_one_line(capsys, monkeypatch):
    def interrupted(_module):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "import_module", interrupted)
    assert commands.ground([]) == 130
    assert capsys.readouterr().err == "devil-ground: interrupted; nothing was begun\n"


def test_every_installed_command_knows_its_own_name(capsys):
    for name, place in SCRIPTS.items():
        module, function = place.split(":")
        assert getattr(import_module(module), function)(["--version"]) == 0
        assert capsys.readouterr().out.split()[0] == name


def test_help_into_a_closed_pipe_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    code = "from devil.commands import doctor; import sys; sys.exit(doctor(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


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
    assert run_command(Options, lambda _: pytest.fail("done"), "do", ["--wrong"]) == 2
    assert capsys.readouterr().err == "do: there is no --wrong: see do --help\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_streams_change_nothing_but_what_is_read(stream):
    code = f"""
import sys
sys.{stream} = None  # what Python makes of a closed one
from dataclasses import dataclass
from devil.command import run_command
from devil.errors import BundleError
@dataclass(frozen=True)
class Options: pass
def work(options):
    raise BundleError("broken")
sys.exit(run_command(Options, work, "do", []))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("do: broken\n" if stream == "stdout" else "")


def test_text_that_a_terminal_cannot_show_is_escaped():
    code = """
import sys
from dataclasses import dataclass
from devil.command import run_command
@dataclass(frozen=True)
class Options: pass
sys.exit(run_command(Options, lambda _: print(chr(0x2192), chr(0xdcff)), "do", []))
"""
    environment = {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "\\u2192 \\udcff\n")


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_impossible_numbers_of_threads_are_a_usage_error(threads):
    with pytest.raises(UsageError, match=str(threads)):
        check_threads(threads)


@pytest.mark.parametrize("threads", [0, 1, 64])
def test_possible_numbers_of_threads_pass(threads):
    check_threads(threads)
