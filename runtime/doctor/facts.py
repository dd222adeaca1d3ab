"""All that the doctor looks at, gathered before anything is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from devil.gpu import Driver
from devil.plugins.loader import LIBRARY, LibraryRefusedError, candidates, check_onnxruntime, load
from devil.progress import Progress, no_progress
from devil.runtime.doctor.probe import ProbeError, ask
from devil.runtime.doctor.software import Software, read_software
from devil.runtime.doctor.system import System, read_system

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        topic: what it is about: "machine", "gpu", "software", "operator", "bundle" or "engine".
        name: of the thing in question.
        state: good; worth knowing; or in the way of something.
        text: what was found.
        mend: what to do about it; empty where nothing is to be done.
    """

    topic: str
    name: str
    state: State
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Obstacle:
    """What is in the way of an engine, and what to do about it."""

    text: str
    mend: str = ""


@dataclass(frozen=True)
class Operator:
    """The native library of deformable attention.

    Attributes:
        path: the library that ONNX Runtime gets; empty without one.
        kernel: the instruction set it uses here.
        problem: why a library that is there is not used; empty where it is, or where none is there.
    """

    path: str = ""
    kernel: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Facts:
    """What this machine has."""

    system: System
    driver: Driver
    software: Software
    operator: Operator

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def gather(folder: Path, progress: Progress = no_progress) -> Facts:
    """Looks at this machine; never raises, whatever is broken.

    Args:
        folder: on the disk whose free space matters.
        progress: called with (stage, done, total).
    """
    stages: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("machine", lambda: read_system(folder)),
        ("GPU", read_driver_apart),
        ("packages", read_software),
    )
    found = []
    for stage, read in stages:
        progress(stage, 0, 1)
        found.append(read())
        progress(stage, 1, 1)
    software = found[2]
    version = software.onnxruntime.version if software.onnxruntime else None
    return Facts(*found, read_operator(version or None))


def read_driver_apart() -> Driver:
    """The driver's answers, asked in a process of its own."""
    try:
        return Driver.of_values(ask(["-m", "devil.gpu"]))
    except ProbeError as error:
        return Driver(problem=f"the NVIDIA driver does not answer ({error})", mend="restart the machine")


def read_operator(onnxruntime: str | None) -> Operator:
    """The library that would be registered with that version of ONNX Runtime (None: not installed)."""
    problem = ""
    for path in candidates(LIBRARY):
        try:
            check_onnxruntime(path, onnxruntime)
        except LibraryRefusedError as error:
            problem = str(error)
            continue
        return Operator(str(path), load(path).devil_msda_isa_name(-1).decode())
    return Operator(problem=problem)
