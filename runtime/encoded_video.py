"""A video whose per-video work is done, and the sentences asked about it: words to spans, RSTs to tubes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from devil.answer import Span, parse_span
from devil.clip import load_clip
from devil.progress import Progress
from devil.runtime.answer import Answer
from devil.runtime.batches import BATCH_PATCHES, batches
from devil.runtime.decoding import Generation
from devil.runtime.engines.base import AsyncRunner
from devil.runtime.language import LanguageSession
from devil.runtime.sampling import Sampling
from devil.runtime.stopwatch import Stopwatch
from devil.runtime.tubes import TubeFinder

if TYPE_CHECKING:
    from devil.runtime.pipeline import Grounder


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
