"""The cheapest precision of every layer that keeps the whole within its limits.

Layers are lowered in the order of what they cost in accuracy for what they save, each measured alone. How many of them
is then not added up but measured: losses of layers neither add nor rise evenly, so the number is searched by halving
and the choice that is returned was itself measured to be within the limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from devil.progress import Progress, no_progress

Losses = Mapping[str, float]  # by kind of loss: 0 is none


@dataclass(frozen=True)
class Option:
    """One layer in lower precision.

    Attributes:
        layer: its name.
        form: the precision: int8, fp8, int4.
        saved: what it saves, in any unit that adds up.
        losses: what it costs when all other layers stay as they are.
    """

    layer: str
    form: str
    saved: float
    losses: Losses

    @property
    def worst(self) -> float:
        """The largest loss; one that is no number is larger than all."""
        return max(value if math.isfinite(value) else math.inf for value in self.losses.values())


@dataclass(frozen=True)
class Assignment:
    """Which layers are lowered.

    Attributes:
        lowered: in the order of their cost for what they save.
        losses: of all of them together, as measured.
        trials: how many choices were measured.
    """

    lowered: tuple[Option, ...]
    losses: Losses
    trials: int

    @property
    def saved(self) -> float:
        return sum(option.saved for option in self.lowered)


def assign(
    options: Sequence[Option],
    limits: Losses,
    measure: Callable[[Sequence[Option]], Losses],
    progress: Progress = no_progress,
    stage: str = "assigning precisions",
) -> Assignment:
    """The longest row of the cheapest options whose losses together are within the limits.

    An option that alone exceeds a limit, or gives no number, is never taken.

    Args:
        options: at most one per layer.
        limits: most of each kind of loss.
        measure: losses of some options together; is asked for about log₂ of their number of choices.
        stage: what the progress calls this.
    """
    ordered = sorted(
        (option for option in options if within(option.losses, limits)), key=lambda one: _price(one, limits)
    )
    if not ordered:
        return Assignment((), dict.fromkeys(limits, 0.0), 0)
    good, bad, found, trials = 0, len(ordered) + 1, dict.fromkeys(limits, 0.0), 0
    most = len(ordered).bit_length() + 1
    count = len(ordered)  # all of them, first: often that is the answer
    while bad - good > 1:
        progress(stage, trials, most)
        losses = measure(ordered[:count])
        trials += 1
        if within(losses, limits):
            good, found = count, dict(losses)
        else:
            bad = count
        count = (good + bad) // 2
    progress(stage, most, most)
    return Assignment(tuple(ordered[:good]), found, trials)


def within(losses: Losses, limits: Losses) -> bool:
    """Whether no loss exceeds its limit; one that is no number does."""
    return all(losses[name] <= limit for name, limit in limits.items())


def most_saving(options: Iterable[Option], limits: Losses) -> list[Option]:
    """Of each layer's options the one that saves most among those that alone are within the limits."""
    best: dict[str, Option] = {}
    for option in options:
        known = best.get(option.layer)
        if within(option.losses, limits) and (known is None or option.saved > known.saved):
            best[option.layer] = option
    return list(best.values())


def _price(option: Option, limits: Losses) -> float:
    """Share of the limits that it uses up, for what it saves."""
    used = max((option.losses[name] / limit if limit else float("inf")) for name, limit in limits.items())
    return max(used, 0.0) / max(option.saved, 1e-30)
