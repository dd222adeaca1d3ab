"""What a user installs and reads: the wheel's contents, the README's links and commands."""

import contextlib
import io
import re
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*.md")])


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_asset_and_no_test(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    files = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    rooms = {"devil": "devil", **{room: f"devil/{room}" for room in ("export", "plugins", "calibration", "runtime")}}
    tracked = subprocess.run(["git", "ls-files", *rooms], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for path in map(Path, tracked.splitlines()):
        inside = Path(rooms[path.parts[0]], *path.parts[1:]).as_posix()
        if path.suffix == ".py" or "assets" in path.parts:
            assert inside in files
    assert not [file for file in files if file.startswith("tests") or file.endswith((".cpp", ".cu", ".h"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_of_a_document_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


def commands(text):
    """Every call of one of our commands in the code blocks of a document."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("devil-")]


def help_text(command):
    [entry] = entry_points(group="console_scripts", name=command)
    module, function = entry.value.split(":")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        getattr(import_module(module), function)(["--help"])
    return shown.getvalue()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_flags_that_a_document_shows_exist(path):
    for line in commands(path.read_text()):
        command, *words = line.split()
        known = help_text(command)
        for flag in (word.split("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", known), f"{line}: {flag}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_make_targets_and_benchmarks_that_a_document_shows_exist(path):
    text = path.read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)\b", text)) - {"sense", "sure", "up"} <= targets
    for script in re.findall(r"\bbenchmarks/\w+\.py", text):
        assert (ROOT / script).exists(), script
