"""Writing to disk so that a killed run leaves either the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from devil.errors import OutputError

_CHUNK = 1 << 20
_SAMPLES = 256  # of a file too large to be read whole


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary neighbour of `path` (same suffix) that replaces it when the block ends without an error.

    A symbolic link stays; the file it names is replaced.

    Raises:
        OutputError: a folder or a device lies there, the folder cannot be written, or the disk is full.
    """
    check_writable(path)
    path = Path(os.path.realpath(path))
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary neighbour folder that replaces the folder `path` when the block ends without an error.

    A symbolic link stays; the folder it names is replaced. Files inside get ordinary permissions, because libraries
    that write through temporary files of their own leave them to their owner alone.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    check_folder_writable(path)
    path = Path(os.path.realpath(path))
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            for written in temporary.rglob("*"):
                if written.is_file() and written.stat().st_nlink > 1:
                    continue  # another folder's file that was linked: its permissions are not ours to change
                os.chmod(written, (0o777 if written.is_dir() else 0o666) & ~_umask())
            replace_directory(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_writable(path: str | os.PathLike) -> None:
    """Refuses, before long work, what `atomic_file` could not write after it; a disk may still fill up meanwhile.

    Raises:
        OutputError: a folder or a device lies there, or its folder cannot be written.
    """
    found = Path(os.path.realpath(path))
    with _explained(Path(path)):
        if found.exists() and not found.is_file():
            raise OutputError(f"{path} is {'a folder' if found.is_dir() else 'a device'}", "name a file")
        _check_above(Path(path), found)


def check_folder_writable(path: str | os.PathLike) -> None:
    """Refuses, before long work, a folder that `atomic_directory` could not write after it, whatever lies there.

    Raises:
        OutputError: the folder around it cannot be written.
    """
    found = Path(os.path.realpath(path))
    with _explained(Path(path)):
        found.exists()  # names may be too long to ask for
        _check_above(Path(path), found)


def _check_above(path: Path, found: Path) -> None:
    """Whether something can be put into the folder of `found`, what `path` names, or into the nearest above it."""
    above = next(folder for folder in found.parents if folder.exists())
    if not above.is_dir():
        raise OutputError(f"cannot write {path} ({above} is a file)", "choose another output path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path} ({above} is read-only)", "choose an output path you may write to")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass  # rights say nothing of folders that take no files, such as /proc
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise OutputError(f"cannot write {path} ({above} takes no files)", "choose another output path") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: str | os.PathLike, text: str) -> None:
    """Appends `text` as UTF-8 in one write. A kill or a full disk may leave a part of it, which readers have to expect.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror})", "free some space and run again: it continues"
        ) from error


def sha256(path: str | os.PathLike) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sampled_sha256(path: str | os.PathLike) -> str:
    """The hexadecimal SHA-256 of a file's size, its first MiB and 256 pages of 4 KiB spread evenly over it.

    Tells another file of the same size, and a truncated one, in milliseconds. It does not find every altered byte.
    """
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(_CHUNK))
        for index in range(_SAMPLES):
            file.seek(index * size // _SAMPLES)
            digest.update(file.read(4096))
    return digest.hexdigest()


def existing_folder(path: str | os.PathLike) -> Path:
    """The folder in which `path` will be written, or the nearest above it that exists."""
    return next(folder for folder in Path(os.path.realpath(path)).parents if folder.is_dir())


def check_room(path: str | os.PathLike, needed: int) -> None:
    """Refuses, before long work, to write more than the disk of `path` has room for.

    Raises:
        OutputError: with the bytes that are needed and those that are free.
    """
    free = shutil.disk_usage(existing_folder(path)).free
    if free < needed:
        raise OutputError(
            f"{path} needs {needed} bytes ({needed / 1e9:.1f} GB) and {free} ({free / 1e9:.1f} GB) are free",
            "free some space or choose another output path",
        )


def digest_of(paths: Iterable[Path]) -> str:
    """The hexadecimal SHA-256 of several files' names and bytes, in whatever order they come."""
    listed = "".join(f"{path.name}{sha256(path)}" for path in sorted(paths))
    return hashlib.sha256(listed.encode()).hexdigest()


def replace_directory(new: Path, path: Path) -> None:
    """Renames the folder `new` to `path`, where another folder may lie.

    Folders cannot be replaced by one rename, so the old one steps aside first and comes back if the rename fails.
    Where other processes replace it too, the last one wins.

    Raises:
        OSError: the system refuses.
    """
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
    try:
        while not _stepped_in(new, path, Path(tempfile.mkdtemp(dir=aside)) / path.name):
            pass
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _stepped_in(new: Path, path: Path, aside: Path) -> bool:
    """Whether `new` could become `path`; False where another process put a folder there in between."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException as error:
        if getattr(error, "errno", None) in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if aside.exists():
            os.rename(aside, path)
        raise
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write `path` into one line."""
    try:
        yield
    except OSError as error:
        mends = {
            errno.ENOSPC: "free some space or choose another output path",
            errno.EFBIG: "choose an output path that takes files of this size",
            errno.EDQUOT: "free some space or choose another output path",
            errno.EROFS: "choose an output path on a writable file system",
            errno.EACCES: "choose an output path you may write to",
            errno.EPERM: "choose an output path you may write to",
            errno.ENOTDIR: "a part of the output path is a file; choose another",
            errno.EISDIR: "the output path is a folder; name a file",
            errno.EEXIST: "a part of the output path is a file; choose another",
            errno.ENAMETOOLONG: "choose a shorter output path",
        }
        # NumPy gives no number where the disk took only a part of an array.
        number = errno.ENOSPC if str(error).endswith(" written") and error.errno is None else error.errno
        if number not in mends:
            raise
        raise OutputError(f"cannot write {path} ({os.strerror(number)})", mends[number]) from error
