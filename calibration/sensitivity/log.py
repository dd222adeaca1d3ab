"""What was measured so far, one line per trial, so that a stopped analysis goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devil.files import append_text, write_text


class TrialLog:
    """Losses by what was tried.

    Args:
        path: a file of one JSON object per line.
        about: what all trials have in common; a file about something else is begun anew.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]):
        self._path = path
        first = json.dumps({"about": about}, sort_keys=True)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        kept = [line for line in lines[1:] if _parsed(line)] if lines[:1] == [first] else []
        self._found: dict[str, dict[str, float]] = dict(_parsed(line) for line in kept)
        write_text(path, "".join(f"{line}\n" for line in [first, *kept]))  # without what was cut by a kill

    def __contains__(self, trial: str) -> bool:
        return trial in self._found

    def losses(self, trial: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The losses of a trial, measured if they are not known yet.

        Raises:
            OutputError: the file cannot be written.
        """
        if trial not in self._found:
            found = measure()
            append_text(self._path, json.dumps({"trial": trial, "losses": found}) + "\n")
            self._found[trial] = found
        return self._found[trial]


def _parsed(line: str) -> tuple[str, dict[str, float]] | None:
    try:
        values = json.loads(line)
        return values["trial"], dict(values["losses"])
    except (ValueError, KeyError, TypeError):
        return None
