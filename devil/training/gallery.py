"""Pictures crowded with shapes: several times the lessons that a frame of a clip holds, to learn looks from."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from devil.data.actor import MARGIN, Actor
from devil.data.backgrounds import TRAIN_FAMILIES
from devil.data.casting import SIZES
from devil.data.clips import SyntheticClip, picture_size
from devil.data.clock import Clock
from devil.data.dice import Dice
from devil.data.scene import ASPECTS, Scene
from devil.data.shapes import COLOURS, TRAIN_PAIRS

_TRIES = 24  # places that are tried for a shape
_PALE = 0.15
_COVERED = 0.1  # at most this share of a shape's box may be covered
_ALWAYS = (0.0, 1.0)


def gallery(seed: int, side: int, aspect: str) -> SyntheticClip:
    """A clip of one frame with as many still shapes as find room; several may look alike, and none is asked about."""
    dice = Dice(f"gallery {seed}")
    extent = ASPECTS[aspect]
    actors: list[Actor] = []
    for _ in range(_TRIES):
        actor = _still(extent, dice)
        if all(_apart(actor, other) for other in actors):
            actors.append(actor)
    clock = Clock(Fraction(1), 1, 1)
    family = dice.choice(list(TRAIN_FAMILIES))
    scene = Scene(f"gallery-{seed}", extent, clock, family, tuple(actors), ())
    labels = np.array([actor.labels for actor in actors])
    boxes = np.stack([actor.boxes(clock.shown) for actor in actors])
    pictures = scene.render(clock.shown, picture_size(scene, side))
    seen = np.ones((len(actors), 1), bool)
    return SyntheticClip(scene, pictures, clock.times, (), labels[:, 0], labels[:, 1], boxes, seen)


def _still(extent: tuple[float, float], dice: Dice) -> Actor:
    colour, shape = dice.choice(TRAIN_PAIRS)
    size = dice.choice(list(SIZES))
    radius = dice.uniform(*SIZES[size])
    return Actor(
        colour=colour,
        shape=shape,
        size=size,
        rgb=tuple(min(255, max(0, value + dice.integer(-10, 10))) for value in COLOURS[colour]),
        radius=radius,
        extent=extent,
        origin=tuple(dice.uniform(radius + MARGIN, length - radius - MARGIN) for length in extent),
        velocity=(0.0, 0.0),
        present=_ALWAYS,
        flashing=(_ALWAYS,) if dice.chance(_PALE) else (),
    )


def _apart(one: Actor, two: Actor) -> bool:
    reach = one.radius + two.radius
    overlap = np.prod([max(0.0, reach - abs(a - b)) for a, b in zip(one.origin, two.origin, strict=True)])
    return bool(overlap <= _COVERED * 4 * min(one.radius, two.radius) ** 2)
