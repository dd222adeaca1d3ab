"""The machine itself: processor, memory, disk, and what only a Jetson has."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devil.files import existing_folder
from devil.runtime.available_memory import available_memory

# NVIDIA's numbering: the release of Jetson Linux in /etc/nv_tegra_release, and the JetPack that comes with it.
JETPACKS = {35: "JetPack 5", 36: "JetPack 6", 38: "JetPack 7", 39: "JetPack 7.2"}


@dataclass(frozen=True)
class Jetson:
    """A Jetson module.

    Attributes:
        model: as its device tree calls it.
        release: of Jetson Linux, such as "36.4.3".
        power: the power mode in use, such as "MAXN"; empty where `nvpmodel` does not tell.
    """

    model: str
    release: str
    power: str = ""

    @property
    def jetpack(self) -> str:
        """Such as "JetPack 6"; empty for a release that is not known."""
        return JETPACKS.get(int(self.release.split(".")[0]), "") if self.release else ""


@dataclass(frozen=True)
class System:
    """The machine.

    Attributes:
        name: operating system and architecture.
        processor: its model.
        cores: that this process may use.
        memory: bytes that a new process may take; None where nothing tells.
        disk: bytes free where bundles and engines will lie.
        jetson: None on other machines.
    """

    name: str
    processor: str
    cores: int
    memory: int | None
    disk: int
    jetson: Jetson | None = None


def read_system(folder: Path, root: Path = Path("/")) -> System:
    """The machine as it is now.

    Args:
        folder: on the disk whose free space matters; need not exist.
        root: folder in which `proc` and `etc` are looked for.
    """
    return System(
        name=f"{platform.system()} {platform.machine()}",
        processor=_processor(root),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=available_memory(root),
        disk=shutil.disk_usage(existing_folder(folder / "engines")).free,
        jetson=read_jetson(root),
    )


def read_jetson(root: Path = Path("/")) -> Jetson | None:
    """Which Jetson this is, or None."""
    release = _text(root / "etc/nv_tegra_release")
    model = _text(root / "proc/device-tree/model").rstrip("\0\n")
    if not release and not re.search(r"jetson", model, re.IGNORECASE):
        return None
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", release)
    return Jetson(model or "Jetson", f"{found[1]}.{found[2]}" if found else "", _power_mode())


def _power_mode() -> str:
    """What `nvpmodel -q` says: "NV Power Mode: MAXN" on a line of its own."""
    if not shutil.which("nvpmodel"):
        return ""
    try:
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"Power Mode:\s*(\S+)", done.stdout)
    return found[1] if found else ""


def _processor(root: Path) -> str:
    lines = _text(root / "proc/cpuinfo").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Hardware"))]
    return names[0] if names else platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
