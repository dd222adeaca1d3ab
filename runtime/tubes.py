"""RST to tube: the detector on a clip's frames, and the linker through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from devil.answer import Span
from devil.clip import Clip
from devil.config import level_shapes
from devil.errors import EngineError
from devil.preprocess import resize
from devil.progress import Progress
from devil.runtime.batches import batches
from devil.runtime.engines.base import AsyncRunner, GraphRunner, Pending, Row
from devil.runtime.stopwatch import Stopwatch
from devil.tube import Detections, SlotTracker, Tube, to_pixels
from devil.video import iterate_frames

BATCH_PIXELS = 1 << 20  # frames go through the backbone in batches of about this many pixels
DEVICE_PIXELS = 1 << 22  # the same on a GPU, which small batches leave idle


class TubeFinder:
    """One clip's detector. Features of the sampled frames are computed when a sentence first needs them and then kept;
    on a GPU they are computed beside the language model, and stay there.

    Args:
        clip: the frames.
        backbone, grounder: the loaded graphs.
        progress: called with (stage, done, total).

    Raises:
        EngineError: an engine was built for smaller frames.
    """

    def __init__(self, clip: Clip, backbone: GraphRunner, grounder: GraphRunner, progress: Progress):
        self.clip = clip
        self.features: dict[int, Row] = {}  # row of clip.frames → [L, C]
        self._backbone, self._grounder, self._progress = backbone, grounder, progress
        height, width = clip.frames.shape[1:3]
        self._shapes = np.array(level_shapes(height, width), np.int64)
        self._started: list[Pending] = []
        self._batch = self._most_frames(height, width)

    def start(self) -> None:
        """Starts the backbone on all sampled frames where that takes no time from the caller."""
        if isinstance(self._backbone, AsyncRunner):
            for rows in self._batches(list(range(len(self.clip.frames)))):
                self._submit([row for row in rows if row not in self.features])

    def find(
        self, rst: np.ndarray, span: Span | None, dense: bool, span_only: bool, watch: Stopwatch
    ) -> tuple[Tube, Tube]:
        """The tube inside the span, and the same slot's in every frame that was looked at.

        Args:
            rst: float32 [hidden]
            span: all frames without one.
            dense, span_only: as for `Video.ground_many`.
            watch: gets the seconds of each stage.
        """
        clip, tracker = self.clip, SlotTracker()
        inside = clip.rows_in_span(span)
        if dense and not clip.info.is_image:
            indices = np.arange(clip.indices[inside[0]], clip.indices[inside[-1]] + 1)
            tracked, features = indices, self._video_features(indices, watch)
        else:
            indices = clip.indices[inside]
            seen = inside if span_only else np.arange(len(clip.frames))
            tracked, features = clip.indices[seen], self._clip_features(seen, watch)
        for batch in features:
            detections = self._ask(batch, rst, watch)
            with watch.stage("link"):
                tracker.add(detections)
        rows = np.searchsorted(tracked, indices)
        boxes, scores = tracker.track(rows)
        times = np.array([float(clip.info.times[index]) for index in tracked])
        track = Tube(tracked, times, to_pixels(boxes, clip.info.width, clip.info.height), scores)
        return track.at(rows), track

    def _clip_features(self, seen: np.ndarray, watch: Stopwatch) -> Iterator[Sequence[Row]]:
        """Features [L, C] of the rows `seen` of the sampled frames, batch by batch; computed once per row."""
        done = 0
        for rows in self._batches(seen.tolist()):
            self._progress("detecting", done, len(seen))
            missing = [row for row in rows if row not in self.features]
            if self._started or missing:
                with watch.stage("backbone"):
                    self._compute(missing)
            yield [self.features[row] for row in rows]
            done += len(rows)

    def _batches(self, rows: list[int]) -> Iterator[list[int]]:
        return (rows[part] for part in batches(len(rows), 1, self._batch))

    def _most_frames(self, height: int, width: int) -> int:
        """Frames of one run."""
        is_async = isinstance(self._backbone, AsyncRunner)
        most = [(DEVICE_PIXELS if is_async else BATCH_PIXELS) // (height * width)]
        if is_async:
            most.append(self._backbone.most("N", {"H": height, "W": width}))
        if isinstance(self._grounder, AsyncRunner):
            most.append(self._grounder.most("N", {"L": int(self._shapes.prod(1).sum())}))
        return max(1, min(number for number in most if number is not None))

    def _compute(self, missing: list[int]) -> None:
        """Waits for what was started, and runs the backbone on the rows that nobody has asked for yet."""
        try:
            while self._started:
                self._started.pop(0).wait()
        except EngineError:
            self.features.clear()  # who knows which of them are good
            raise
        if missing:
            found = self._run(self.clip.frames[missing])
            self.features.update(zip(missing, found, strict=True))

    def _submit(self, missing: list[int]) -> None:
        if missing:
            pending = self._backbone.submit({"frames": self.clip.frames[missing]})
            self.features.update(zip(missing, pending.rows("features"), strict=True))
            self._started.append(pending)

    def _run(self, frames: np.ndarray) -> Sequence[Row]:
        if isinstance(self._backbone, AsyncRunner):
            pending = self._backbone.submit({"frames": frames})
            pending.wait()
            return pending.rows("features")
        return self._backbone.run({"frames": frames})["features"]

    def _video_features(self, indices: np.ndarray, watch: Stopwatch) -> Iterator[Sequence[Row]]:
        """Features [L, C] of frames of the file, read and forgotten batch by batch."""
        size, waiting = self.clip.frames.shape[1:3], []
        for done, (_, frame) in enumerate(iterate_frames(self.clip.info, indices.tolist()), 1):
            waiting.append(resize(frame, size, "bilinear"))
            if len(waiting) == self._batch or done == len(indices):
                self._progress("detecting", done, len(indices))
                with watch.stage("backbone"):
                    features = self._run(np.stack(waiting))
                waiting = []
                yield features

    def _ask(self, features: Sequence[Row], rst: np.ndarray, watch: Stopwatch) -> Detections:
        with watch.stage("grounder"):
            found = self._grounder.run({"features": features, "level_shapes": self._shapes, "rst": rst})
        return Detections(found["logits"], found["boxes"], found["embeddings"])
