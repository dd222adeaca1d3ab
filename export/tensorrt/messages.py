"""What TensorRT says while it works: kept, so that a failure can be told in one line."""

from __future__ import annotations

from types import ModuleType
from typing import Any

_KEPT = 20
# Said of machines without a GPU, of functions that are expanded more than once, and of every int64 input: the reason of
# a failure only where nothing else was said.
_NOISE = (
    "CUDA driver version is insufficient",
    "already exists, the output tensors of this new instance",
    "has Int64 binding",
)


class Messages:
    """Errors and warnings of TensorRT, oldest first, as single lines."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._logger: Any = None

    def logger(self, trt: ModuleType) -> Any:
        """The one logger of this process; TensorRT keeps the first it is given."""
        if self._logger is None:
            self._logger = _logger(trt, self)
        return self._logger

    def heard(self, is_error: bool, text: str) -> None:
        line = " ".join(text.split())
        if is_error or not _is_noise(line):
            kept = self.errors if is_error else self.warnings
            kept.append(line)
            del kept[:-_KEPT]

    def reason(self) -> str:
        """Why the last step failed."""
        telling = [line for line in self.errors if not _is_noise(line)] or self.errors
        return telling[-1] if telling else "it gave no reason"


def telling(text: str) -> str:
    """The lines of a text that may be a reason, as one."""
    return " ".join(" ".join(line.split()) for line in text.splitlines() if line.strip() and not _is_noise(line))


def _is_noise(line: str) -> bool:
    return any(noise in line for noise in _NOISE)


def _logger(trt: ModuleType, messages: Messages) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                messages.heard(True, text)
            elif severity == trt.ILogger.WARNING:
                messages.heard(False, text)

    return Logger()
