"""What a shape does in a clip, in sampled frames: the events that sentences are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from devil.data.dice import Dice

State = Literal["absent", "still", "moving", "flash"]
Kind = Literal["life", "starts_moving", "stops_moving", "appears", "leaves", "blinks"]
KINDS: tuple[Kind, ...] = ("life", "starts_moving", "stops_moving", "appears", "leaves", "blinks")


@dataclass(frozen=True)
class Segment:
    """A stretch of sampled frames, `first` and `last` included, in which a shape's state is the same."""

    state: State
    first: int
    last: int


Script = tuple[Segment, ...]


def draw_script(kind: Kind | None, dice: Dice, frames: int) -> Script:
    """A life of one shape in which the event `kind` covers 3 to 9 of 16 frames and starts anywhere it can.

    A shape of kind None is there, still, from beginning to end.
    """
    if kind is None:
        return (Segment("still", 0, frames - 1),)
    before, after = _context(kind, frames)
    shortest, longest = max(1, 3 * frames // 16), min(max(1, 9 * frames // 16), frames - before - after)
    length = dice.integer(shortest, longest)
    if kind == "blinks":
        length -= 1 - length % 2  # an odd number of frames begins and ends with the pale face
    first = dice.integer(before, frames - after - length)
    states = _states(kind, dice)
    return _joined(states, (first, first + length), frames)


def events(script: Script, frames: int) -> dict[Kind, Segment]:
    """Every event of a script and the frames it covers, by kind: what can be asked about the shape.

    life: while it is in the picture (only where that is not the whole clip). appears: from its first frame until it
    comes to rest. leaves: from setting off until it is gone. starts_moving: the movement that begins from rest.
    stops_moving: the rest that follows a movement. blinks: from its first to its last pale frame.
    """
    there = [segment for segment in script if segment.state != "absent"]
    found: dict[Kind, Segment] = {}
    life = Segment("still", there[0].first, there[-1].last)
    if (life.first, life.last) != (0, frames - 1):
        found["life"] = life
    for index, segment in enumerate(script):
        previous = script[index - 1].state if index else None
        following = script[index + 1].state if index + 1 < len(script) else None
        match segment.state, previous, following:
            case "moving", "still", _:
                found["starts_moving"] = segment
                if following == "absent":
                    found["leaves"] = segment
            case "moving", "absent", "still":
                found["appears"] = segment
            case "still", "moving", _:
                found["stops_moving"] = segment
            case "flash", _, _:
                found["blinks"] = segment
    return found


def kinds_loosely(script: Script, frames: int) -> set[Kind]:
    """Every kind a reader could take the shape to be an example of: "which ring leaves?" must have one answer only."""
    kinds: set[Kind] = set(events(script, frames)) | {"life"}
    if script[0].state == "absent":
        kinds.add("appears")
    if script[-1].state == "absent":
        kinds.add("leaves")
    if any(segment.state == "moving" for segment in script):
        kinds |= {"starts_moving"}
    return kinds


def _context(kind: Kind, frames: int) -> tuple[int, int]:
    """How many frames must come before and after an event for it to be what it is."""
    rest = max(1, frames // 8)
    return {
        "life": (0, 0),
        "starts_moving": (rest, 0),
        "stops_moving": (rest, 0),
        "appears": (1, rest),
        "leaves": (rest, 1),
        "blinks": (0, 0),
    }[kind]


def _states(kind: Kind, dice: Dice) -> tuple[State, State, State]:
    """The states before, during and after an event."""
    if kind == "life":
        return "absent", dice.choice(("still", "moving")), "absent"
    if kind == "stops_moving":
        return "moving", "still", dice.choice(("moving", "absent"))
    fixed: dict[str, tuple[State, State, State]] = {
        "starts_moving": ("still", "moving", "still"),
        "appears": ("absent", "moving", "still"),
        "leaves": ("still", "moving", "absent"),
        "blinks": ("still", "flash", "still"),
    }
    return fixed[kind]


def _joined(states: tuple[State, State, State], span: tuple[int, int], frames: int) -> Script:
    edges = (0, *span, frames)
    stretches = zip(states, edges[:-1], edges[1:], strict=True)
    return tuple(Segment(state, start, end - 1) for state, start, end in stretches if end > start)
