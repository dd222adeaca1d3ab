"""The bundle of the shipped checkpoint: exported once, into a cache that may be broken, full or shared."""

import subprocess
from pathlib import Path

import pytest

from devil.errors import OutputError
from devil.progress import no_progress
from devil.runtime import reference_bundle as cached
from tests.tiny import write_listed_files


@pytest.fixture
def exports(monkeypatch, tmp_path):
    """The commands that were run to fill an empty cache; each writes what a bundle needs to look whole."""
    commands = []

    def export(command, **_options):
        commands.append(command)
        write_listed_files(Path(command[command.index("--output") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cached.subprocess, "run", export)
    monkeypatch.setattr(cached, "reference_checkpoint", lambda: tmp_path)
    (tmp_path / "model.safetensors").write_text("weights")
    return commands


def test_without_a_bundle_the_reference_is_exported_once(exports, tmp_path):
    first = cached.reference_bundle(no_progress)
    assert cached.reference_bundle(no_progress) == first
    assert len(exports) == 1
    (tmp_path / "model.safetensors").write_text("other weights")
    assert cached.reference_bundle(no_progress) != first


def test_a_broken_bundle_in_the_cache_is_exported_anew(exports):
    folder = cached.reference_bundle(no_progress)
    (folder / "vision.onnx").unlink()
    assert cached.reference_bundle(no_progress) == folder
    assert (folder / "vision.onnx").exists()
    assert len(exports) == 2


@pytest.mark.usefixtures("exports")
def test_two_processes_that_export_together_share_the_first_bundle(monkeypatch):
    """The other process finishes while ours still exports."""
    export = cached.subprocess.run

    def slower(command, **options):
        monkeypatch.setattr(cached.subprocess, "run", export)
        others.append(cached.reference_bundle(no_progress))
        marks.append((others[0] / "vision.onnx").stat().st_ino)
        return export(command, **options)

    others, marks = [], []
    monkeypatch.setattr(cached.subprocess, "run", slower)
    folder = cached.reference_bundle(no_progress)
    assert [folder] == others
    assert (folder / "vision.onnx").stat().st_ino == marks[0]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_cache_that_cannot_be_written_is_one_line(exports, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"):
        cached.reference_bundle(no_progress)
    assert not exports
