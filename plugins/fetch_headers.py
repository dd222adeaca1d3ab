"""Finds or fetches ONNX Runtime's C API header, which no Python wheel carries.

Debian 13 packages it (libonnxruntime-dev). `apt-get download` takes it from the machine's own package sources, with
the suite replaced where the machine runs another Debian; everything happens in a private apt folder, so neither the
machine's package state nor its sources change. Run by the build: `python fetch_headers.py FOLDER` prints the folder
with `onnxruntime_c_api.h`, or exits with 1 and one line.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "libonnxruntime-dev"
HEADER = "onnxruntime_c_api.h"
SUITE = "trixie"
_SOURCES = Path("/etc/apt")
_TIMEOUT_SECONDS = 120


class FetchError(Exception):
    """The header cannot be had; the message says why in one line."""


def debian_sources(folder: Path = _SOURCES, suite: str = SUITE) -> str:
    """The machine's own Debian archives as an apt source list for `suite`.

    Returns:
        One line per archive in the one-line format, keeping its address and its key ring. Security and update
        archives are left out, because their suites have other names.
    """
    entries = dict.fromkeys([*_one_line_entries(folder), *_deb822_entries(folder)])
    return "".join(f"deb {options}{address} {suite} main\n" for address, options in entries)


def fetch(folder: Path) -> Path:
    """Downloads and unpacks the header below `folder`; returns the folder that holds it.

    Raises:
        FetchError: no apt, no Debian archive among the machine's sources, or no network.
    """
    found = next(folder.rglob(HEADER), None)
    if found:
        return found.parent
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise FetchError("this machine has no apt to fetch it with")
    sources = debian_sources()
    if not sources:
        raise FetchError("this machine's package sources name no Debian archive to fetch it from")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        unpacked = _download(Path(scratch), sources)
        shutil.copytree(unpacked.parent, folder / "onnxruntime", dirs_exist_ok=True)
    return folder / "onnxruntime"


def _download(scratch: Path, sources: str) -> Path:
    for name in ("state/lists/partial", "cache/archives/partial", "sources"):
        (scratch / name).mkdir(parents=True)
    (scratch / "sources" / "debian.list").write_text(sources, encoding="utf-8")
    settings = {
        "Dir::State": scratch / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": scratch / "sources",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",  # an archive that gives no answer is an error, not a warning
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": 20,
        "Acquire::https::Timeout": 20,
    }
    options = [argument for key, value in settings.items() for argument in ("-o", f"{key}={value}")]
    _run(["apt-get", "-qq", *options, "update"], scratch)
    _run(["apt-get", "-qq", *options, "download", PACKAGE], scratch)
    package = next(scratch.glob("*.deb"), None)
    if package is None:
        raise FetchError(f"apt downloaded no {PACKAGE}")
    _run(["dpkg-deb", "-x", str(package), "unpacked"], scratch)
    header = next(scratch.glob(f"unpacked/**/{HEADER}"), None)
    if header is None:
        raise FetchError(f"{PACKAGE} holds no {HEADER}")
    return header


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{command[0]} gave no answer within {_TIMEOUT_SECONDS} s") from error
    if done.returncode:
        raise FetchError(f"{command[0]} failed: {' '.join(done.stderr.split())[-300:]}")


def _one_line_entries(folder: Path) -> list[tuple[str, str]]:
    entries = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]:
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.match(r"deb\s+(\[[^\]]*\]\s+)?(\S+/debian)/?\s", line.strip())
            if match:
                entries.append((match[2], _signed_by(match[1] or "")))
    return entries


def _deb822_entries(folder: Path) -> list[tuple[str, str]]:
    entries = []
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
        for stanza in re.split(r"\n\s*\n", text):
            fields = {k.lower(): v.strip() for k, v in re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.MULTILINE)}
            if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
                continue
            options = _signed_by(f"signed-by={fields['signed-by']}" if fields.get("signed-by") else "")
            entries += [(a.rstrip("/"), options) for a in fields["uris"].split() if a.rstrip("/").endswith("/debian")]
    return entries


def _signed_by(options: str) -> str:
    match = re.search(r"signed-by=([^\s\]]+)", options)
    return f"[signed-by={match[1]}] " if match else ""


def main() -> int:
    """Command line of the build: one argument, the folder to fetch into."""
    try:
        sys.stdout.write(f"{fetch(Path(sys.argv[1]).resolve())}\n")
    except FetchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
