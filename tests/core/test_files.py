import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from devil.errors import OutputError
from devil.files import (
    append_text,
    atomic_directory,
    atomic_file,
    check_folder_writable,
    check_room,
    check_writable,
    sampled_sha256,
    sha256,
    write_text,
)


def test_a_file_appears_whole_and_nothing_else_stays(tmp_path):
    with atomic_file(tmp_path / "deep" / "answer.json") as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not (tmp_path / "deep" / "answer.json").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["answer.json"]
    assert (tmp_path / "deep" / "answer.json").read_text() == "new"


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "bundle"
    with atomic_directory(target) as temporary:
        (temporary / "one").write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic_directory(target) as temporary:
        (temporary / "two").write_text("2")
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["one"]
    with atomic_directory(target) as temporary:
        (temporary / "two").write_text("2")
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_files_get_the_permissions_of_ordinary_files(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write_text(tmp_path / "atomic", "")
    with atomic_directory(tmp_path / "folder") as temporary:
        (temporary / "private").touch(0o600)
    for path in (tmp_path / "atomic", tmp_path / "folder" / "private"):
        assert path.stat().st_mode == plain.stat().st_mode


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    with atomic_directory(tmp_path / "link") as temporary:
        (temporary / "one").write_text("1")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "one").read_text() == "1"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe is a device"):
        write_text(tmp_path / "pipe", "")
    assert (tmp_path / "pipe").is_fifo()


def test_what_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folder" / "a.txt")
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write anywhere
    with pytest.raises(OutputError, match="is read-only"):
        check_writable(tmp_path / "new" / "a.txt")


@pytest.mark.parametrize("check", [check_writable, check_folder_writable])
def test_folders_that_take_no_files_are_known_before(check, tmp_path, monkeypatch):
    check(tmp_path / "new" / "a")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"cannot write .*: choose a shorter output path"):
        check(tmp_path / ("long" * 100))

    def refuse(dir):
        raise PermissionError(errno.EPERM, "refused", dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match=f"{tmp_path} takes no files"):
        check(tmp_path / "a")


def test_a_folder_may_replace_another_where_its_name_may_be_changed(tmp_path, monkeypatch):
    (tmp_path / "bundle").mkdir()
    check_folder_writable(tmp_path / "bundle")
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write anywhere
    with pytest.raises(OutputError, match=f"{tmp_path} is read-only"):
        check_folder_writable(tmp_path / "bundle")


def test_processes_that_replace_one_folder_together_leave_one_whole(tmp_path):
    code = f"""
from devil.files import atomic_directory
for turn in range(200):
    with atomic_directory({str(tmp_path / "bundle")!r}) as temporary:
        (temporary / "one").write_text(str(turn))
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle" / "one").read_text() == "199"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_the_systems_refusals_become_one_line(tmp_path, number):
    with pytest.raises(OutputError, match=os.strerror(number)) as caught, atomic_file(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert caught.value.mend
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "inside", "")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A real refusal by the system: the process may not write files larger than a kilobyte."""
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = f"""
import resource, signal
from devil.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
write_text({str(target)!r}, "x" * 100_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "OutputError: cannot write" in done.stderr
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_terminated_process_leaves_the_old_folder(tmp_path):
    target = tmp_path / "bundle"
    code = f"""
import os, signal, sys
from devil.command import run_command
from devil.files import atomic_directory
from dataclasses import dataclass
@dataclass(frozen=True)
class Options: pass
def work(options):
    with atomic_directory({str(target)!r}) as temporary:
        (temporary / "one").write_text("1")
        os.kill(os.getpid(), signal.SIGTERM)
sys.exit(run_command(Options, work, "work", []))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sha256_is_the_standards(tmp_path):
    data = os.urandom(3_000_001)
    (tmp_path / "data").write_bytes(data)
    assert sha256(tmp_path / "data") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 5000, 3_000_000])
def test_a_sampled_digest_tells_other_contents_sizes_and_beginnings(size, tmp_path):
    path = tmp_path / "weights"
    content = bytes(range(256)) * (size // 256 + 1)
    path.write_bytes(content[:size])
    digest = sampled_sha256(path)
    assert digest == sampled_sha256(path)
    path.write_bytes(content[:size] + b"x")
    assert sampled_sha256(path) != digest
    if size:
        path.write_bytes(b"x" + content[1:size])
        assert sampled_sha256(path) != digest
        path.write_bytes(bytes(size))
        assert (sampled_sha256(path) != digest) == (size > 1)


def test_room_is_looked_for_where_the_path_will_be(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path / "not" / "yet" / "there", free // 2)
    with pytest.raises(OutputError, match=r"needs \d+ bytes .* are free: free some space"):
        check_room(tmp_path / "not" / "yet" / "there", free * 2)


def test_the_permissions_of_a_linked_file_stay(tmp_path):
    original = tmp_path / "weights"
    original.write_text("w")
    original.chmod(0o440)
    with atomic_directory(tmp_path / "bundle") as folder:
        os.link(original, folder / "weights")
        (folder / "own").touch(0o600)
    assert original.stat().st_mode & 0o777 == 0o440
    assert (tmp_path / "bundle" / "own").stat().st_mode & 0o077


def test_an_array_that_the_disk_took_in_part_is_a_full_disk(tmp_path):
    with pytest.raises(OutputError, match="No space left"), atomic_directory(tmp_path / "out"):
        raise OSError("131072 requested and 36736 written")  # what numpy.ndarray.tofile says
    assert list(tmp_path.iterdir()) == []


def test_text_is_appended_and_a_full_disk_is_one_line(tmp_path):
    for line in ("öne\n", "two\n"):
        append_text(tmp_path / "log", line)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "öne\ntwo\n"
    with pytest.raises(OutputError, match=r"No space left on device.*: free some space and run again: it continues"):
        append_text("/dev/full", "one\n")
