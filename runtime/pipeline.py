"""(video, sentence) to (span, tube): what a bundle computes, stage by stage, per-video work done once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from devil.answer import Span, parse_span
from devil.bundle import Bundle, open_bundle
from devil.clip import load_clip
from devil.config import level_shapes
from devil.contract import contract
from devil.preprocess import resize
from devil.progress import Progress, no_progress
from devil.prompt import PromptWriter
from devil.runtime.answer import Answer
from devil.runtime.engines.base import Engine
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.language import LanguageSession
from devil.runtime.stopwatch import Stopwatch
from devil.tube import Detections, SlotTracker, Tube, to_pixels
from devil.video import iterate_frames

_BATCH_PIXELS = 1 << 20  # detector frames go through the backbone in batches of about this many pixels
_BATCH_PATCHES = 1 << 14  # and frames through the vision encoder in batches of about this many patches


class Grounder:
    """An opened bundle on an engine.

    >>> grounder = Grounder.open("devil-tiny-fp16")
    >>> video = grounder.encode("clip.mp4")
    >>> answer = video.ground("the red circle while it moves left")
    """

    def __init__(self, bundle: Bundle, engine: Engine):
        import scipy.optimize  # noqa: F401 - the linker's; loaded here, the first sentence does not wait for it

        self.bundle, self.engine, self.config = bundle, engine, bundle.config
        self.writer = PromptWriter(bundle.tokenizer_path, bundle.config)
        specs = contract(bundle.config)
        self.vision, self.language, self.backbone, self.grounder = (
            engine.load(bundle.path(name), specs[name], bundle.precision)
            for name in ("vision", "language", "backbone", "grounder")
        )

    @classmethod
    def open(cls, folder: str | os.PathLike, threads: int = 0) -> Grounder:
        """Checks a bundle and loads its graphs into the engine this machine has.

        Args:
            folder: a bundle written by `devil-export`.
            threads: CPU threads; 0 takes all cores.

        Raises:
            BundleError: incomplete, altered, foreign or too new.
            EngineError: no engine here runs this precision.
        """
        return cls(open_bundle(folder), OnnxRuntimeEngine(threads=threads))

    def encode(
        self, path: str | os.PathLike, progress: Progress = no_progress, segment: tuple[int, int] | None = None
    ) -> Video:
        """The per-video work, once: reading, vision encoder, the prompt's prefill.

        Args:
            path: a video or image file.
            progress: called with (stage, done, total) now and then, here and for the sentences asked later.
            segment: first and last frame of the part to look at, both included; spans then count from its first frame.

        Raises:
            VideoError: the file cannot be read, has no such segment, or is too much for the model's context.
        """
        return Video(self, path, progress, segment)


class Video:
    """One video (or image) that sentences can be asked about; made by `Grounder.encode`.

    The detector's features are computed when a sentence first needs them and then kept.
    """

    def __init__(
        self, grounder: Grounder, path: str | os.PathLike, progress: Progress, segment: tuple[int, int] | None = None
    ):
        self._grounder, self._progress = grounder, progress
        self._watch = Stopwatch()
        progress("reading", 0, 1)
        with self._watch.stage("read"):
            self.clip = load_clip(path, grounder.config, grounder.bundle.manifest.frame_size, segment)
        self._shapes = level_shapes(*self.clip.frames.shape[1:3])
        self._features: dict[int, np.ndarray] = {}
        with self._watch.stage("vision"):
            table = self._visual_tokens()
        with self._watch.stage("prefill"):
            self._session = LanguageSession(grounder.language, grounder.config)
            self._session.prefill(self._prefix(), table)

    def ground(self, sentence: str, dense: bool = False, span_only: bool = False) -> Answer:
        """Finds what the sentence describes.

        Args:
            sentence: in plain words.
            dense: a box on every decoded frame from the span's first sampled frame to its last; the linker then runs
                over these frames alone.
            span_only: run the detector on the span's frames alone. Faster; the linker then starts at the span's first
                frame, so the tube may follow another slot than linking the whole clip would.

        Raises:
            SentenceError: the sentence is empty or too long.
        """
        grounder, watch = self._grounder, self._watch
        self._progress("answering", 0, 1)
        with watch.stage("language"):
            prompt = grounder.writer.instruction(sentence, self.clip.info.is_image)
            said = self._session.generate(prompt)
        text = grounder.writer.decode(said.token_ids)
        span = None if self.clip.info.is_image else parse_span(text)
        tube, track = (None, None) if said.rst is None else self._tubes(said.rst, span, dense, span_only, watch)
        self._watch = Stopwatch()  # the first sentence pays for the video
        return Answer(
            info=self.clip.info,
            sentence=sentence,
            text=text,
            span=span,
            tube=tube,
            rst=said.rst,
            problems=tuple(self._problems(span, said.rst is not None, said.finished)),
            timings=watch.seconds,
            run={
                "model": grounder.bundle.manifest.model,
                "precision": grounder.bundle.precision,
                "engine": grounder.engine.name,
            },
            track=track,
            origin=self.clip.origin,
        )

    def _prefix(self) -> list[int]:
        kept = self.clip.kept.sum(1).tolist()
        writer = self._grounder.writer
        return writer.image_prefix(kept[0]) if self.clip.info.is_image else writer.video_prefix(self.clip.times, kept)

    def _visual_tokens(self) -> np.ndarray:
        """The kept visual tokens of all sampled frames, [V, hidden]."""
        clip, tokens = self.clip, []
        for rows in _batches(len(clip.patches), clip.patches.shape[1], _BATCH_PATCHES):
            self._progress("looking", rows.start, len(clip.patches))
            found = self._grounder.vision.run({"patches": clip.patches[rows], "positions": clip.positions})
            tokens.append(found["visual_tokens"][clip.kept[rows]])
        return np.concatenate(tokens)

    def _tubes(
        self, rst: np.ndarray, span: Span | None, dense: bool, span_only: bool, watch: Stopwatch
    ) -> tuple[Tube, Tube]:
        """The tube inside the span, and the same slot's in every frame that was looked at."""
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
        for part in _batches(len(seen), frames[0].size // 3, _BATCH_PIXELS):
            self._progress("detecting", part.start, len(seen))
            rows = seen[part].tolist()
            missing = [row for row in rows if row not in self._features]
            if missing:
                with watch.stage("backbone"):
                    found = self._grounder.backbone.run({"frames": frames[missing]})["features"]
                self._features.update(zip(missing, found, strict=True))
            yield np.stack([self._features[row] for row in rows])

    def _video_features(self, indices: np.ndarray, watch: Stopwatch) -> Iterator[np.ndarray]:
        """Features [N, L, C] of frames of the file, read and forgotten batch by batch."""
        size, waiting = self.clip.frames.shape[1:3], []
        for done, (_, frame) in enumerate(iterate_frames(self.clip.info, indices.tolist()), 1):
            waiting.append(resize(frame, size, "bilinear"))
            if len(waiting) * size[0] * size[1] >= _BATCH_PIXELS or done == len(indices):
                self._progress("detecting", done, len(indices))
                with watch.stage("backbone"):
                    features = self._grounder.backbone.run({"frames": np.stack(waiting)})["features"]
                waiting = []
                yield features

    def _ask(self, features: np.ndarray, rst: np.ndarray, watch: Stopwatch) -> Detections:
        with watch.stage("grounder"):
            shapes = np.array(self._shapes, np.int64)
            found = self._grounder.grounder.run({"features": features, "level_shapes": shapes, "rst": rst})
        return Detections(found["logits"], found["boxes"], found["embeddings"])

    def _problems(self, span: Span | None, has_box: bool, finished: bool) -> Iterator[str]:
        """What a reader of the answer must know."""
        if not finished:
            yield f"the answer was cut after {self._grounder.config.max_new_tokens} tokens"
        if not has_box:
            yield "the answer has no [BOX], so there is no tube"
        if self.clip.info.is_image:
            return
        end = round(float(self.clip.times[-1]), 1)  # as the prompt told it
        if span is None:
            yield "the answer tells no span" + (", so the tube covers the whole video" if has_box else "")
        elif span.end > end:
            yield f"the span {'begins' if span.start > end else 'ends'} after the video's end at {end:.1f} s"


def _batches(count: int, size: int, budget: int) -> Iterator[slice]:
    """Slices over `count` items of `size` each, at most `budget` together but at least one."""
    step = max(1, budget // size)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
