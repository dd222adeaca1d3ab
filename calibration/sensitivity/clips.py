"""Which recorded clips ranges and integers are chosen on, and which others say what a layer loses.

Integers that were chosen on a clip do better there than elsewhere, so what they lose there is too kind.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from devil.calibration.captures import Captures
from devil.errors import CalibrationError

EVERY = 4  # so-many-th clip is held out
LEAST = 4  # clips held out; of fewer, one odd answer would decide
MOST = 8  # clips that losses are measured on: every trial runs all of them


@dataclass(frozen=True)
class ClipSplit:
    """The recorded clips in two.

    Attributes:
        chosen_on: for ranges and integers.
        tested_on: for losses.
        unfit: number of clips that say nothing about losses, because a graph did not run on them.
    """

    chosen_on: Captures
    tested_on: Captures
    unfit: int

    @property
    def held_out(self) -> bool:
        """Whether nothing was chosen on the clips that losses are measured on."""
        return not set(self.chosen_on.clips) & set(self.tested_on.clips)

    def words(self) -> str:
        """For the summary."""
        told = f"losses of single layers are of {len(self.tested_on.clips)} clips"
        if self.held_out:
            return f"{told} that ranges and integers were not chosen on"
        return f"{told} that ranges and integers were chosen on too, and come out too small: give more --clips"

    def record(self) -> dict[str, Any]:
        """For the manifest and the report."""
        return {"clips": len(self.tested_on.clips), "held_out": self.held_out, "unfit_clips": self.unfit}


def split_clips(captures: Captures, graphs: Collection[str]) -> ClipSplit:
    """Holds out every fourth of the clips on which all that is needed was recorded; of too few, none.

    Args:
        graphs: whose layers are looked at.

    Raises:
        CalibrationError: on no clip all of them were recorded.
    """
    needed = set(graphs) | ({"language"} if "vision" in graphs else set())
    fit = [clip for clip in captures.clips if _fits(captures, clip, needed)]
    if not fit:
        raise CalibrationError(
            f"no clip has recorded runs of {', '.join(sorted(needed))} together, so losses cannot be measured",
            "ask for something visible in the clips, or raise --capture-mb",
        )
    unfit = len(captures.clips) - len(fit)
    held = fit[EVERY - 1 :: EVERY][:MOST]
    if len(held) < LEAST:
        return ClipSplit(captures, captures.only(fit[:MOST]), unfit)
    rest = [clip for clip in captures.clips if clip not in held]
    return ClipSplit(captures.only(rest), captures.only(held), unfit)


def _fits(captures: Captures, clip: int, needed: Collection[str]) -> bool:
    """Whether the needed graphs ran on a clip; a backbone's features need an RST that asks something of them."""
    ran = all(captures.count(graph, [clip]) for graph in needed)
    return ran and ("backbone" not in needed or any(said.rst is not None for said in captures.answers(clip)))
