"""Running the builder in a process of its own: its progress, its answer, and its death as one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any

from devil.engine_key import Backend
from devil.errors import EngineError
from devil.export.tensorrt.job import BuildJob
from devil.export.tensorrt.monitor import Told
from devil.signals import signal_name

CHILD = (sys.executable, "-c", "from devil.export.tensorrt.child import main; main()")
_LAST = 300  # characters of what a dying process wrote


def describe(backend: Backend, command: Sequence[str] = CHILD) -> dict[str, Any]:
    """Version of a TensorRT and the capabilities it builds for ahead of time, asked in a process of its own.

    Raises:
        EngineError: it does not load.
    """
    return _answer({"describe": backend}, f"asking {backend} for its version", lambda *_: None, command)


def build(job: BuildJob, told: Told, command: Sequence[str] = CHILD) -> dict[str, Any]:
    """Builds an engine; returns what the builder says of it.

    Args:
        told: called with the builder's phase and the per cent that are done.
        command: what is started; it reads the job and answers as `devil.export.tensorrt.child` does.

    Raises:
        EngineError: the builder says why it failed, or died.
    """
    what = f"building graph {job.graph!r} with {job.backend}"
    return _answer({"build": job.dumps()}, what, told, command)


def _answer(request: dict[str, Any], what: str, told: Told, command: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as errors:
        # Not in the current folder: a new interpreter would prefer the modules there to the installed ones.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=sys.prefix
        )
        try:
            answer, phase = _conversation(process, request, told)
        finally:
            process.kill()  # where we were interrupted, it has no more to do
            process.wait()
        if "done" in answer:
            return answer["done"]
        if "error" in answer:
            raise EngineError(*answer["error"])
        raise _death(process.returncode, f"{what}{f', in phase {phase!r}' if phase else ''}", errors)


def _conversation(process: subprocess.Popen, request: dict[str, Any], told: Told) -> tuple[dict[str, Any], str]:
    """The process's last word, if it had one, and the phase it was in."""
    answer, phase = {}, ""
    try:
        json.dump(request, process.stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died before it read; how is told by its exit
    for line in process.stdout:
        said = json.loads(line)
        if "progress" in said:
            phase, percent = said["progress"]
            told(phase, percent)
        else:
            answer = said
    process.wait()
    return answer, phase


def _death(code: int, what: str, errors: IO[bytes]) -> EngineError:
    size = errors.seek(0, 2)
    errors.seek(max(0, size - 10 * _LAST))
    written = " ".join(errors.read().decode(errors="replace").split())[-_LAST:]
    last = f"; its last words: {written}" if written else ""
    if code >= 0:
        return EngineError(f"the builder ended with exit code {code} while {what}{last}", "see docs/tensorrt.md")
    name = signal_name(-code)
    mend = "see docs/tensorrt.md"
    if name == "SIGKILL":
        mend = "the system may have run out of memory: close other programs"
    return EngineError(f"the builder was killed by {name} while {what}{last}", mend)
