"""Which shapes play in a scene: looks, scripts, and paths that keep them apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from devil.data.actor import MARGIN, Actor, Interval
from devil.data.clock import Clock
from devil.data.dice import Dice
from devil.data.script import Kind, Script, draw_script
from devil.data.shapes import ALL_PAIRS, COLOURS, HELD_OUT_PAIRS, TRAIN_PAIRS

SIZES = {"small": (0.085, 0.105), "medium": (0.115, 0.135), "large": (0.145, 0.17)}  # radius
STEP = (0.07, 0.13)  # how far a moving shape gets between two sampled frames
HIDDEN = 0.2  # at most this share of a shape's box may be covered
_BYSTANDERS = 0.15
_LOOKALIKES = 0.7  # of the other shapes share the first one's colour or shape
_ATTEMPTS = 12


@dataclass(frozen=True)
class Member:
    """An actor, its script, and the instants between whose neighbours each sampled frame was taken.

    `edges` has frames + 1 entries: the state of sampled frame k holds from edges[k] to edges[k + 1].
    """

    kind: Kind | None
    script: Script
    edges: tuple[float, ...]
    actor: Actor


def cast(
    kind: Kind, weights: dict[Kind, float], held_out: bool, clock: Clock, extent: tuple[float, float], dice: Dice
) -> list[Member]:
    """Two to four members, no two of the same colour and shape; the first one's own event is `kind`.

    Args:
        weights: how often the others do what.
        held_out: whether the first has a held-out colour–shape pair and the others may have any.
    """
    members: list[Member] = []
    tracks: list[np.ndarray] = []
    pair = dice.choice(sorted(HELD_OUT_PAIRS) if held_out else TRAIN_PAIRS)
    wanted = dice.integer(2, 4)
    while len(members) < wanted:
        role = kind
        if members:
            pair = _another([member.actor for member in members], ALL_PAIRS if held_out else TRAIN_PAIRS, dice)
            role = None if dice.chance(_BYSTANDERS) else dice.weighted(weights)
        script = draw_script(role, dice, clock.frames)
        edges = _edges(clock, dice)
        for _ in range(_ATTEMPTS):
            actor = _actor(pair, role, script, edges, clock, extent, dice)
            track = np.where(actor.visible(clock.shown)[:, None], actor.centres(clock.shown), np.nan)
            if all(_apart(actor, track, *other) for other in zip((m.actor for m in members), tracks, strict=True)):
                members.append(Member(role, script, edges, actor))
                tracks.append(track)
                break
        else:
            if len(members) >= 2:
                return members
    return members


def _another(actors: list[Actor], pairs: tuple[tuple[str, str], ...], dice: Dice) -> tuple[str, str]:
    """A pair that nobody has yet, often one that shares something with the first actor."""
    taken = {(actor.colour, actor.shape) for actor in actors}
    free = [pair for pair in pairs if pair not in taken]
    alike = [pair for pair in free if actors[0].colour in pair or actors[0].shape in pair]
    return dice.choice(alike if alike and dice.chance(_LOOKALIKES) else free)


def _edges(clock: Clock, dice: Dice) -> tuple[float, ...]:
    """Instants just after each sampled frame was taken, so that the next one shows a new state fully under way."""
    shown = clock.shown.tolist()
    inner = [before + (after - before) * dice.uniform(0.05, 0.25) for before, after in pairwise(shown)]
    return (0.0, *inner, clock.duration)


def _actor(
    pair: tuple[str, str], kind: Kind | None, script: Script, edges: tuple[float, ...], clock: Clock,
    extent: tuple[float, float], dice: Dice,
) -> Actor:  # fmt: skip
    size = dice.choice(list(SIZES))
    radius = dice.uniform(*SIZES[size])
    there = [segment for segment in script if segment.state != "absent"]
    moving = tuple((edges[part.first], edges[part.last + 1]) for part in script if part.state == "moving")
    if kind in ("appears", "leaves"):
        origin, velocity = _crossing(kind, moving[0], clock, extent, radius, dice)
    else:
        origin = tuple(dice.uniform(radius + MARGIN, side - radius - MARGIN) for side in extent)
        speed, angle = dice.uniform(*STEP) / clock.spacing, dice.uniform(0, 2 * math.pi)
        velocity = (speed * math.cos(angle), speed * math.sin(angle))
    flashes = [index for part in script if part.state == "flash" for index in range(part.first, part.last + 1, 2)]
    return Actor(
        colour=pair[0],
        shape=pair[1],
        size=size,
        rgb=tuple(min(255, max(0, value + dice.integer(-10, 10))) for value in COLOURS[pair[0]]),
        radius=radius,
        extent=extent,
        origin=origin,
        velocity=velocity,
        present=(edges[there[0].first], edges[there[-1].last + 1]),
        moving=moving,
        flashing=tuple((edges[index], edges[index + 1]) for index in flashes),
    )


def _crossing(
    kind: Kind, moving: Interval, clock: Clock, extent: tuple[float, float], radius: float, dice: Dice
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Origin and velocity of a way in from, or out to, one edge of the picture."""
    axis = dice.integer(0, 1)
    low, room = radius + MARGIN, extent[axis] - 2 * (radius + MARGIN)
    seconds = moving[1] - moving[0]
    steps = seconds / clock.spacing
    distance = dice.uniform(min(STEP[0] * steps, room), min(STEP[1] * steps, room))
    edge, inward = dice.choice(((low, 1), (low + room, -1)))
    along = inward * distance / seconds
    across = along * dice.uniform(-0.4, 0.4)
    side = dice.uniform(radius + MARGIN, extent[1 - axis] - radius - MARGIN)
    start, pace = (edge, along) if kind == "appears" else (edge + inward * distance, -along)
    return ((start, side), (pace, across)) if axis == 0 else ((side, start), (across, pace))


def _apart(one: Actor, track: np.ndarray, two: Actor, other: np.ndarray) -> bool:
    """Whether two actors, centres [T, 2] with nan where absent, never cover more than `HIDDEN` of each other."""
    overlap = np.maximum(one.radius + two.radius - np.abs(track - other), 0).prod(axis=1)
    # A comparison with nan is False: who is absent covers nobody.
    return not (overlap > HIDDEN * 4 * min(one.radius, two.radius) ** 2).any()
