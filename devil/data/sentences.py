"""Sentences that name exactly one shape of a clip and one thing it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from devil.data.actor import Actor
from devil.data.dice import Dice
from devil.data.script import Kind

Form = Literal["declarative", "interrogative"]

DECLARATIVE: dict[Kind, tuple[str, ...]] = {
    "life": ("the {}", "the {} is visible", "the {} is in the picture"),
    "starts_moving": ("the {} starts moving", "the {} starts to move", "the {} begins to move"),
    "stops_moving": ("the {} stops moving", "the {} stops and stays still", "the {} comes to rest"),
    "appears": ("the {} appears", "the {} comes in", "the {} enters the picture"),
    "leaves": ("the {} leaves", "the {} goes away", "the {} leaves the picture"),
    "blinks": ("the {} blinks", "the {} is blinking", "the {} flashes"),
}
INTERROGATIVE: dict[Kind, tuple[str, ...]] = {
    "life": ("which {} is visible?", "what {} is in the picture?"),
    "starts_moving": ("which {} starts moving?", "what {} begins to move?"),
    "stops_moving": ("which {} stops moving?", "what {} comes to rest?"),
    "appears": ("which {} appears?", "what {} enters the picture?"),
    "leaves": ("which {} leaves?", "what {} leaves the picture?"),
    "blinks": ("which {} blinks?", "what {} is blinking?"),
}
_QUESTIONS = 0.35  # of all sentences


def draw_sentence(
    kind: Kind, target: int, actors: Sequence[Actor], doing: Sequence[set[Kind]], dice: Dice
) -> tuple[str, Form]:
    """A sentence about event `kind` of actor `target` that no other actor of the clip fits.

    Args:
        doing: for each actor, the kinds it could be taken for (`script.kinds_loosely`).
    """
    actor = actors[target]
    form: Form = "interrogative" if dice.chance(_QUESTIONS) else "declarative"
    others = [other for index, other in enumerate(actors) if index != target]
    if form == "interrogative":  # the question itself narrows the choice
        others = [other for index, other in enumerate(actors) if index != target and kind in doing[index]]
    names = [f"{actor.colour} {actor.shape}"] * 2
    if actor.size != "medium":
        names.append(f"{actor.size} {actor.colour} {actor.shape}")
    if all(other.colour != actor.colour for other in others):
        names.append(f"{actor.colour} shape")
    if all(other.shape != actor.shape for other in others):
        names.append(actor.shape)
    templates = (INTERROGATIVE if form == "interrogative" else DECLARATIVE)[kind]
    return dice.choice(templates).format(dice.choice(names)), form
