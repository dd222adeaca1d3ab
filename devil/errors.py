"""The errors a user can meet: each says in one line what is wrong and what to do about it."""

from __future__ import annotations

from typing import Any


class DevilError(Exception):
    """Base of every error meant for the user.

    Args:
        message: what is wrong, one line, naming the file or value.
        mend: what to do about it, one line.

    Attributes:
        exit_code: what a command that meets it exits with.
        result: a whole result that the failure is about; `--json` prints it all the same.
    """

    exit_code = 1
    result: dict[str, Any] | None = None

    def __init__(self, message: str, mend: str = ""):
        super().__init__(f"{message}: {mend}" if mend else message)
        self.message = message
        self.mend = mend


class UsageError(DevilError):
    """A command was called wrongly: something is missing, cannot be meant, or contradicts something else."""

    exit_code = 2


class ConfigError(DevilError):
    """A config or preset contradicts itself."""


class CheckpointError(DevilError):
    """A checkpoint folder is missing something, or holds what does not belong."""


class BundleError(DevilError):
    """A bundle is incomplete, altered, foreign or too new."""


class ExportFidelityError(DevilError):
    """An exported graph differs from the PyTorch model by more than its budget."""


class CalibrationError(DevilError):
    """A bundle cannot be quantised: the clips say too little, or the result would be worse than asked for."""


class VideoError(DevilError):
    """A video or image cannot be read."""


class AnnotationError(DevilError):
    """An annotation file cannot be read."""


class SentenceError(DevilError):
    """A sentence cannot be asked."""


class EngineError(DevilError):
    """An inference engine is absent, or refuses a graph."""


class OutputError(DevilError):
    """A result cannot be written."""


class MissingPackageError(DevilError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, purpose: str, extra: str):
        super().__init__(f"{purpose} needs {package}, which is not installed", f"pip install 'devil-deploy[{extra}]'")
