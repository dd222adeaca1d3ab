"""What the benchmarks share: a command line that cannot be read is told in one line, and all of them take it so."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@dataclass(frozen=True)
class Options:
    """Measures."""

    runs: int = 3
    """How often."""


def test_flags_are_read(monkeypatch):
    from harness import command_line

    monkeypatch.setattr(sys, "argv", ["folder/measure.py", "--runs", "5"])
    assert command_line(Options) == Options(runs=5)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--runs few", "--runs is 'few': give a whole number"),
        ("--run 3", "there is no --run: perhaps --runs; see measure.py --help"),
    ],
)
def test_flags_that_cannot_be_read_are_one_line(words, line, monkeypatch, capsys):
    from harness import command_line

    monkeypatch.setattr(sys, "argv", ["folder/measure.py", *words.split()])
    with pytest.raises(SystemExit) as stop:
        command_line(Options)
    assert (stop.value.code, capsys.readouterr().err) == (2, f"measure.py: {line}\n")


@pytest.mark.parametrize("description", [None, "Measures all."])
def test_help_describes_the_program(description, monkeypatch, capsys):
    from harness import command_line

    monkeypatch.setattr(sys, "argv", ["measure.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        command_line(Options, description)
    told = capsys.readouterr().out
    assert not stop.value.code
    assert (description or "Measures.") in told
    assert "How often." in told


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_programs_read_their_flags_with_it(path):
    text = path.read_text(encoding="utf-8")
    assert "tyro.cli" not in text
    if 'if __name__ == "__main__"' in text:
        assert "main(command_line(Options" in text


def test_a_program_that_is_called_wrongly_says_so_in_one_line(tmp_path):
    command = [sys.executable, FOLDER / "tensorrt_aot.py", "--quik"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "there is no --quik: perhaps --quick" in done.stderr
