"""Seeded scenes of moving coloured shapes: what happens, what it looks like, and what can be asked about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from devil.data.actor import Actor
from devil.data.backgrounds import HELD_OUT_FAMILIES, TRAIN_FAMILIES, background
from devil.data.casting import cast
from devil.data.clock import Clock, draw_clock
from devil.data.dice import Dice
from devil.data.script import KINDS, Kind, events, kinds_loosely
from devil.data.sentences import Form, draw_sentence
from devil.data.shapes import coverage

Split = Literal["train", "heldout", "calibration"]
SPLITS: tuple[Split, ...] = ("train", "heldout", "calibration")
ASPECTS = {"1:1": (1.0, 1.0), "4:3": (4 / 3, 1.0), "3:4": (1.0, 4 / 3), "16:9": (16 / 9, 1.0)}
KIND_WEIGHTS: dict[Kind, float] = {kind: 5.0 if kind == "life" else 2.0 for kind in KINDS}
_PALE = 0.75  # how far a flashing shape goes towards white


@dataclass(frozen=True)
class Query:
    """A sentence about a scene and where its answer lies.

    Attributes:
        sentence: names one shape and one thing it does.
        kind: which event.
        form: whether it tells or asks.
        target: index of the actor.
        first, last: the sampled frames in which the event holds, both included.
        start, end: the event's exact limits, seconds; the end is excluded.
        main: whether the actor was made for this event (its span is then 3 to 9 of 16 frames).
    """

    sentence: str
    kind: Kind
    form: Form
    target: int
    first: int
    last: int
    start: float
    end: float
    main: bool


@dataclass(frozen=True)
class Scene:
    """A clip in continuous time.

    Attributes:
        name: split and seed.
        extent: width and height in units of the shorter side.
        clock: its frames and the sampled ones.
        family: of the background.
        actors: the shapes; later ones are drawn over earlier ones.
        queries: what can be asked; the first is the clip's own question, about actor 0.
    """

    name: str
    extent: tuple[float, float]
    clock: Clock
    family: str
    actors: tuple[Actor, ...]
    queries: tuple[Query, ...]

    def render(self, times: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The scene at the given instants (seconds), uint8 [T, height, width, 3], for size (height, width)."""
        still = background(self.family, self.name, *size)
        pictures = np.empty((len(times), *still.shape), np.uint8)
        pictures[:] = still
        for actor in self.actors:
            _draw(actor, np.asarray(times, np.float64), pictures)
        return pictures

    def boxes(self, target: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of an actor, x1 y1 x2 y2 as fractions float32 [T, 4], and where they are visible, bool [T]."""
        return self.actors[target].boxes(times), self.actors[target].visible(times)


def make_scene(
    seed: int, split: Split = "train", frames: int = 16, aspect: str | None = None, kind: Kind | None = None
) -> Scene:
    """The scene of a seed.

    Args:
        seed: any whole number; scenes of different splits are unrelated.
        split: "heldout" uses backgrounds and, for the shape its own question is about, colour–shape pairs that the
            other splits never show.
        frames: how many frames the model samples; events begin and end between sampled frames.
        aspect: a key of `ASPECTS`; drawn where None.
        kind: of the clip's own question; drawn where None.
    """
    name = f"{split}-{seed}"
    dice = Dice(f"scene {name}")
    clock = draw_clock(dice, frames)
    extent = ASPECTS[aspect or dice.choice(list(ASPECTS))]
    family = dice.choice(list(HELD_OUT_FAMILIES if split == "heldout" else TRAIN_FAMILIES))
    kind = kind or dice.weighted(KIND_WEIGHTS)
    members = cast(kind, KIND_WEIGHTS, split == "heldout", clock, extent, dice)
    actors = tuple(member.actor for member in members)
    doing = [kinds_loosely(member.script, frames) for member in members]
    queries = []
    for target, member in enumerate(members):
        found = events(member.script, frames)
        for event in sorted(found, key=lambda event: event != member.kind):  # an actor's own event first
            segment = found[event]
            if segment.last - segment.first + 1 < min(2, frames // 8):
                continue  # one frame of rest or movement at the clip's end cannot be seen
            sentence, form = draw_sentence(event, target, actors, doing, dice)
            start, end = member.edges[segment.first], member.edges[segment.last + 1]
            main = event == member.kind
            queries.append(Query(sentence, event, form, target, segment.first, segment.last, start, end, main))
    return Scene(name, extent, clock, family, actors, tuple(queries))


def _draw(actor: Actor, times: np.ndarray, pictures: np.ndarray) -> None:
    """Blends a shape into pictures uint8 [T, H, W, 3], in place."""
    shown = np.flatnonzero(actor.visible(times))
    if not len(shown):
        return
    height, width = pictures.shape[1:3]
    scale = np.array([width, height]) / actor.extent  # pixels per unit
    centres, which = np.unique(actor.centres(times[shown]), axis=0, return_inverse=True)
    reach = actor.radius * scale
    sides = np.minimum(np.ceil(2 * reach).astype(int) + 2, (width, height))
    corners = np.clip((centres * scale - reach).astype(int) - 1, 0, (width, height) - sides)
    columns = corners[:, :1] + np.arange(sides[0])  # [U, w]
    rows = corners[:, 1:] + np.arange(sides[1])  # [U, h]
    u = ((columns + 0.5) / scale[0] - centres[:, :1]) / actor.radius
    v = ((rows + 0.5) / scale[1] - centres[:, 1:]) / actor.radius
    alpha = coverage(
        actor.shape, u.astype(np.float32)[:, None, :], v.astype(np.float32)[:, :, None], float(reach.min())
    )
    # Blending in 16 bits: 255 · 128 just fits, and needs no conversion to floating point.
    alpha = np.repeat(np.round(alpha * 128).astype(np.int16)[..., None], 3, axis=-1)  # [U, h, w, 3]
    rest = 128 - alpha
    full = np.array(actor.rgb, np.int16)
    faces = [alpha * full]
    pale = actor.pale(times[shown])
    if pale.any():
        faces.append(alpha * np.round(full + (255 - full) * _PALE).astype(np.int16))
    looks = np.stack((shown - np.arange(len(shown)), which.reshape(-1), pale))
    turns = np.flatnonzero((np.diff(looks) != 0).any(axis=0)) + 1
    for run in np.split(np.arange(len(shown)), turns):  # frames in a row that show it alike
        place, face = looks[1:, run[0]]
        x, y = corners[place]
        first, last = shown[run[0]], shown[run[-1]]
        window = pictures[first : last + 1, y : y + sides[1], x : x + sides[0]]
        np.copyto(window, (window * rest[place] + faces[face][place]) >> 7, casting="unsafe")
