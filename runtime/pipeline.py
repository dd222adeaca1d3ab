"""(video, sentence) to (span, tube): what a bundle computes, stage by stage, per-video work done once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from devil.answer import Span, parse_span
from devil.bundle import Bundle, open_bundle, read_manifest
from devil.clip import load_clip
from devil.contract import contract
from devil.progress import Progress, no_progress
from devil.prompt import PromptWriter
from devil.runtime.answer import Answer
from devil.runtime.available_memory import available_memory
from devil.runtime.batches import BATCH_PATCHES, batches
from devil.runtime.decoding import Generation
from devil.runtime.drafting import answer_draft
from devil.runtime.engines.base import AsyncRunner, Engine
from devil.runtime.engines.choice import EngineName, open_engine
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.language import LanguageSession
from devil.runtime.limits import NO_LIMITS, Limits
from devil.runtime.memory_plan import check_fits
from devil.runtime.sampling import Sampling
from devil.runtime.stopwatch import Stopwatch
from devil.runtime.tubes import TubeFinder


class Grounder:
    """An opened bundle on an engine.

    >>> grounder = Grounder.open("devil-tiny-fp16")
    >>> video = grounder.encode("clip.mp4")
    >>> answer = video.ground("the red circle while it moves left")
    """

    def __init__(self, bundle: Bundle, engine: Engine, limits: Limits = NO_LIMITS):
        import scipy.optimize  # noqa: F401 - the linker's; loaded here, the first sentence does not wait for it

        self.bundle, self.engine, self.config = bundle, engine, limits.applied(bundle.config)
        self.writer = PromptWriter(bundle.tokenizer_path, self.config)
        self.drafts = {is_image: answer_draft(self.writer, is_image) for is_image in (False, True)}
        specs = contract(bundle.config)
        self.vision, self.language, self.backbone, self.grounder = (
            engine.load(bundle.path(name), specs[name], bundle.manifest.graph_precision(name))
            for name in ("vision", "language", "backbone", "grounder")
        )

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike,
        threads: int = 0,
        limits: Limits = NO_LIMITS,
        size: tuple[int, int] | None = None,
        is_image: bool = False,
        check_memory: bool = True,
        engine: EngineName = "auto",
        trust_engines: bool = False,
    ) -> Grounder:
        """Checks a bundle and loads its graphs into an engine.

        Args:
            folder: a bundle written by `devil-export`.
            threads: CPU threads; 0 takes all cores.
            limits: what a video may take, where that is to be less than the model's own numbers.
            size: (height, width) of the videos to come, in pixels, for the check of memory; 16:9 by default.
            is_image: images will come, which take one frame and all visual tokens.
            check_memory: refuse what is estimated not to fit into this machine's free memory; only looked at where the
                graphs run on the CPU.
            engine: which runs them; the best this machine has by default.
            trust_engines: run TensorRT engines that were not compared with ONNX Runtime on this machine.

        Raises:
            BundleError: incomplete, altered, foreign or too new.
            ConfigError: a limit that cannot be meant.
            EngineError: no engine here runs this precision, or memory is too small: nothing has been loaded then.
        """
        manifest = read_manifest(folder)
        config = limits.applied(manifest.config)
        chosen = open_engine(Bundle(Path(folder), manifest), engine, threads, trust_engines)
        on_cpu = isinstance(chosen, OnnxRuntimeEngine)
        available = available_memory() if check_memory and on_cpu else None
        if available is not None:
            check_fits(manifest, config, available, size, is_image)
        return cls(open_bundle(folder), chosen, limits)

    def encode(
        self,
        path: str | os.PathLike,
        progress: Progress = no_progress,
        segment: tuple[int, int] | None = None,
        sentences: Sequence[str] = (),
    ) -> Video:
        """The per-video work, once: reading, vision encoder, the prompt's prefill.

        Args:
            path: a video or image file.
            progress: called with (stage, done, total) now and then, here and for the sentences asked later.
            segment: first and last frame of the part to look at, both included; spans then count from its first frame.
            sentences: some that will be asked: one that cannot be is refused before the long work.

        Raises:
            VideoError: the file cannot be read, has no such segment, or is too much for the model's context.
            SentenceError: a sentence is empty, or too long for what the video leaves of the model's context.
        """
        return Video(self, path, progress, segment, sentences)


class Video:
    """One video (or image) that sentences can be asked about; made by `Grounder.encode`.

    Attributes:
        clip: what the model sees of it.
        tubes: its detector.
        session: its conversation with the language model.
    """

    def __init__(
        self,
        grounder: Grounder,
        path: str | os.PathLike,
        progress: Progress,
        segment: tuple[int, int] | None = None,
        sentences: Sequence[str] = (),
    ):
        self._grounder, self._progress = grounder, progress
        self._watch = Stopwatch()
        progress("reading", 0, 1)
        with self._watch.stage("read"):
            self.clip = load_clip(path, grounder.config, grounder.bundle.manifest.frame_size, segment)
        self.tubes = TubeFinder(self.clip, grounder.backbone, grounder.grounder, progress)
        self._opening = grounder.writer.opening(self.clip.info.is_image)
        prefix = self._prefix()
        self.session = LanguageSession(grounder.language, grounder.config)
        self.session.check_prefix(len(prefix))
        self.session.check_sentences([len(self._prompt(sentence)) for sentence in sentences], len(prefix))
        with self._watch.stage("vision"):
            table = self._visual_tokens()
        with self._watch.stage("prefill"):
            self.session.prefill(prefix, table, on_chunk=partial(progress, "reading the prompt"))

    def ground(
        self,
        sentence: str,
        dense: bool = False,
        span_only: bool = False,
        on_text: Callable[[int, str], None] | None = None,
        sampling: Sampling | None = None,
    ) -> Answer:
        """`ground_many` for one sentence."""
        return self.ground_many([sentence], dense, span_only, on_text, sampling)[0]

    def ground_many(
        self,
        sentences: Sequence[str],
        dense: bool = False,
        span_only: bool = False,
        on_text: Callable[[int, str], None] | None = None,
        sampling: Sampling | None = None,
    ) -> list[Answer]:
        """Finds what each sentence describes. The language model answers them side by side, each as if asked alone.

        Args:
            sentences: in plain words.
            dense: a box on every decoded frame from the span's first sampled frame to its last; the linker then runs
                over these frames alone.
            span_only: run the detector on the span's frames alone. Faster; the linker then starts at the span's first
                frame, so the tube may follow another slot than linking the whole clip would.
            on_text: called with a sentence's index and its answer so far, whenever a token joins it.
            sampling: how the words are drawn; the most likely ones by default.

        Raises:
            SentenceError: a sentence is empty or too long; nothing is computed then.
        """
        self._progress("answering", 0, 1)
        if not (dense or span_only):  # which frames these need is only known after the answer
            self.tubes.start()
        watch = Stopwatch()
        with watch.stage("language"):
            generations = self._say(sentences, on_text, sampling)
        answers = []
        for sentence, said in zip(sentences, generations, strict=True):
            # The first sentence pays for the video; what is done for all together is shared evenly.
            self._watch.add("language", watch.seconds["language"] / len(sentences))
            answers.append(self._answer(sentence, said, dense, span_only))
            self._watch = Stopwatch()
        return answers

    def _say(
        self, sentences: Sequence[str], on_text: Callable[[int, str], None] | None, sampling: Sampling | None
    ) -> list[Generation]:
        """What the language model says of each sentence."""
        writer, is_image = self._grounder.writer, self.clip.info.is_image
        draft = self._grounder.drafts[is_image]
        heard: list[list[int]] = [[] for _ in sentences]

        def on_token(index: int, token: int) -> None:
            heard[index].append(token)
            on_text(index, writer.decode(heard[index]))

        prompts = [self._prompt(sentence) for sentence in sentences]
        generations = self.session.generate(
            prompts, sampling=sampling, draft=draft, on_token=on_token if on_text else None
        )
        for said in generations:
            if said.finished:
                draft.learn(said.token_ids)
        return generations

    def _answer(self, sentence: str, said: Generation, dense: bool, span_only: bool) -> Answer:
        """Words to span, RST to tube."""
        grounder, watch = self._grounder, self._watch
        text = grounder.writer.decode(said.token_ids)
        span = None if self.clip.info.is_image else parse_span(text)
        tube = track = None
        if said.rst is not None:
            tube, track = self.tubes.find(said.rst, span, dense, span_only, watch)
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
            decoding={
                "tokens": len(said.token_ids),
                "steps": said.steps,
                "drafted": said.drafted,
                "accepted": said.accepted,
            },
            track=track,
            origin=self.clip.origin,
        )

    def _prefix(self) -> list[int]:
        """All that every sentence's prompt begins with, the words of the instruction too."""
        kept, is_image = self.clip.kept.sum(1).tolist(), self.clip.info.is_image
        writer = self._grounder.writer
        seen = writer.image_prefix(kept[0]) if is_image else writer.video_prefix(self.clip.times, kept)
        return seen + self._opening

    def _prompt(self, sentence: str) -> list[int]:
        """What stands behind the prefix."""
        return self._grounder.writer.instruction(sentence, self.clip.info.is_image)[len(self._opening) :]

    def _visual_tokens(self) -> np.ndarray:
        """The kept visual tokens of all sampled frames, [V, hidden]."""
        clip, tokens = self.clip, []
        vision, patches = self._grounder.vision, clip.patches.shape[1]
        most = vision.most("F", {"P": patches}) if isinstance(vision, AsyncRunner) else None
        budget = BATCH_PATCHES if most is None else min(BATCH_PATCHES, most * patches)
        for rows in batches(len(clip.patches), patches, budget):
            self._progress("looking", rows.start, len(clip.patches))
            found = vision.run({"patches": clip.patches[rows], "positions": clip.positions})
            tokens.append(found["visual_tokens"][clip.kept[rows]])
        return np.concatenate(tokens)

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
