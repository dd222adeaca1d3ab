"""Pictures crowded with shapes: several times the lessons that a frame of a clip holds, to learn looks from.

A shape teaches either its colour or its outline. Where every colour comes with some outlines only, an encoder learns to
tell shapes by their colour, and fails at pairs it has never seen; so outlines are learned from shapes of any colour.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from devil.data.actor import MARGIN, Actor
from devil.data.backgrounds import TRAIN_FAMILIES
from devil.data.casting import SIZES
from devil.data.clips import SyntheticClip, picture_size
from devil.data.clock import Clock
from devil.data.dice import Dice
from devil.data.scene import ASPECTS, Scene
from devil.data.shapes import COLOURS, HELD_OUT_PAIRS, SHAPES, TRAIN_PAIRS

_TRIES = 24  # places that are tried for a shape
_PALE = 0.15
_NAMELESS = 0.7  # of the shapes teach their outline
_APART = 70  # from a colour that a shape is held out with, in RGB
_VIVID = 90  # between the strongest and the weakest of red, green and blue; backgrounds have less
_COVERED = 0.1  # at most this share of a shape's box may be covered
_ALWAYS = (0.0, 1.0)


def gallery(seed: int, side: int, aspect: str) -> SyntheticClip:
    """A clip of one frame with as many still shapes as find room; several may look alike, and none is asked about.

    What a shape does not teach has the label -1.
    """
    dice = Dice(f"gallery {seed}")
    extent = ASPECTS[aspect]
    actors: list[Actor] = []
    labels: list[tuple[int, int]] = []
    for _ in range(_TRIES):
        nameless = dice.chance(_NAMELESS)
        actor = _still(_nameless(dice) if nameless else _named(dice), extent, dice)
        if all(_apart(actor, other) for other in actors):
            actors.append(actor)
            labels.append((-1, actor.labels[1]) if nameless else (actor.labels[0], -1))
    clock = Clock(Fraction(1), 1, 1)
    family = dice.choice(list(TRAIN_FAMILIES))
    scene = Scene(f"gallery-{seed}", extent, clock, family, tuple(actors), ())
    colours, shapes = np.array(labels).T
    boxes = np.stack([actor.boxes(clock.shown) for actor in actors])
    pictures = scene.render(clock.shown, picture_size(scene, side))
    seen = np.ones((len(actors), 1), bool)
    return SyntheticClip(scene, pictures, clock.times, (), colours, shapes, boxes, seen)


Look = tuple[str, str, tuple[int, int, int]]  # colour, shape, and the colour as it is


def _named(dice: Dice) -> Look:
    colour, shape = dice.choice(TRAIN_PAIRS)
    return colour, shape, tuple(min(255, max(0, value + dice.integer(-10, 10))) for value in COLOURS[colour])


def _nameless(dice: Dice) -> Look:
    """A shape of any colour but those near a colour that it is never to be shown with; its name means nothing."""
    while True:
        rgb, shape = tuple(dice.integer(0, 255) for _ in range(3)), dice.choice(list(SHAPES))
        held_out = [COLOURS[colour] for colour, other in HELD_OUT_PAIRS if other == shape]
        if max(rgb) - min(rgb) >= _VIVID and all(math.dist(rgb, colour) >= _APART for colour in held_out):
            return next(iter(COLOURS)), shape, rgb


def _still(look: Look, extent: tuple[float, float], dice: Dice) -> Actor:
    colour, shape, rgb = look
    size = dice.choice(list(SIZES))
    radius = dice.uniform(*SIZES[size])
    return Actor(
        colour=colour,
        shape=shape,
        size=size,
        rgb=rgb,
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
