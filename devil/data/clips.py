"""Synthetic clips as arrays: what training consumes, without a video file in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from devil.data.scene import Query, Scene, Split, make_scene
from devil.data.script import Kind


@dataclass(frozen=True)
class SyntheticClip:
    """A scene as the model samples it: T frames, K shapes.

    Attributes:
        scene: where it comes from.
        frames: uint8 [T, H, W, 3].
        times: the prompt's timestamps, seconds float64 [T].
        queries: what can be asked; `first` and `last` index the frames, `target` the shapes.
        colours, shapes: indices into `COLOURS` and `SHAPES`, int64 [K].
        boxes: x1, y1, x2, y2 as fractions, float32 [K, T, 4]; zeros where not visible.
        visible: bool [K, T].
    """

    scene: Scene
    frames: np.ndarray
    times: np.ndarray
    queries: tuple[Query, ...]
    colours: np.ndarray
    shapes: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray

    def inside(self, query: Query) -> np.ndarray:
        """Which frames the answer covers, bool [T]."""
        frames = np.arange(len(self.times))
        return (frames >= query.first) & (frames <= query.last)

    def span(self, query: Query) -> tuple[float, float]:
        """The answer's timestamps, seconds: of the first and the last frame in which the event holds."""
        return float(self.times[query.first]), float(self.times[query.last])


def training_clip(
    seed: int,
    split: Split = "train",
    frames: int = 16,
    size: int | tuple[int, int] = 96,
    aspect: str | None = "1:1",
    kind: Kind | None = None,
) -> SyntheticClip:
    """The clip of a seed, as the model would sample it from its video file.

    Args:
        size: the shorter side, or (height, width), in pixels.
        aspect: as for `make_scene`; None draws one, so clips differ in shape.
    """
    scene = make_scene(seed, split, frames, aspect, kind)
    shown = scene.clock.shown
    labels = np.array([actor.labels for actor in scene.actors])
    visible = np.stack([actor.visible(shown) for actor in scene.actors])
    boxes = np.stack([actor.boxes(shown) for actor in scene.actors]) * visible[..., None]
    pictures = scene.render(shown, picture_size(scene, size))
    return SyntheticClip(scene, pictures, scene.clock.times, scene.queries, labels[:, 0], labels[:, 1], boxes, visible)


def picture_size(scene: Scene, size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a scene whose shorter side has `size` pixels; both even, as video codecs want."""
    if not isinstance(size, int):
        return size
    width, height = (2 * round(side * size / 2) for side in scene.extent)
    return height, width
