"""RST to tube: the detector on a clip's frames, and the linker through them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from devil.answer import Span
from devil.clip import Clip
from devil.config import level_shapes
from devil.preprocess import resize
from devil.progress import Progress
from devil.runtime.batches import batches
from devil.runtime.engines.base import GraphRunner
from devil.runtime.stopwatch import Stopwatch
from devil.tube import Detections, SlotTracker, Tube, to_pixels
from devil.video import iterate_frames

BATCH_PIXELS = 1 << 20  # frames go through the backbone in batches of about this many pixels


class TubeFinder:
    """One clip's detector. Features of the sampled frames are computed when a sentence first needs them and then kept.

    Args:
        clip: the frames.
        backbone, grounder: the loaded graphs.
        progress: called with (stage, done, total).
    """

    def __init__(self, clip: Clip, backbone: GraphRunner, grounder: GraphRunner, progress: Progress):
        self.clip = clip
        self.features: dict[int, np.ndarray] = {}  # row of clip.frames → [L, C]
        self._backbone, self._grounder, self._progress = backbone, grounder, progress
        self._shapes = np.array(level_shapes(*clip.frames.shape[1:3]), np.int64)

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

    def _clip_features(self, seen: np.ndarray, watch: Stopwatch) -> Iterator[np.ndarray]:
        """Features [N, L, C] of the rows `seen` of the sampled frames, batch by batch; computed once per row."""
        frames = self.clip.frames
        for part in batches(len(seen), frames[0].size // 3, BATCH_PIXELS):
            self._progress("detecting", part.start, len(seen))
            rows = seen[part].tolist()
            missing = [row for row in rows if row not in self.features]
            if missing:
                with watch.stage("backbone"):
                    found = self._backbone.run({"frames": frames[missing]})["features"]
                self.features.update(zip(missing, found, strict=True))
            yield np.stack([self.features[row] for row in rows])

    def _video_features(self, indices: np.ndarray, watch: Stopwatch) -> Iterator[np.ndarray]:
        """Features [N, L, C] of frames of the file, read and forgotten batch by batch."""
        size, waiting = self.clip.frames.shape[1:3], []
        for done, (_, frame) in enumerate(iterate_frames(self.clip.info, indices.tolist()), 1):
            waiting.append(resize(frame, size, "bilinear"))
            if len(waiting) * size[0] * size[1] >= BATCH_PIXELS or done == len(indices):
                self._progress("detecting", done, len(indices))
                with watch.stage("backbone"):
                    features = self._backbone.run({"frames": np.stack(waiting)})["features"]
                waiting = []
                yield features

    def _ask(self, features: np.ndarray, rst: np.ndarray, watch: Stopwatch) -> Detections:
        with watch.stage("grounder"):
            found = self._grounder.run({"features": features, "level_shapes": self._shapes, "rst": rst})
        return Detections(found["logits"], found["boxes"], found["embeddings"])
