"""The language loop on a model of 0.5 billion random weights: decoding, prefill, long caches, batches, drafts.

python benchmarks/language.py [--quick] [--json] [--folder DIR]

One thread. Contenders take turns in one process, so a slow moment hits all of them. Seconds are processor time: what
other programs take does not count, except for the memory bandwidth that they use.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and onnxruntime-genai are loaded

import functools
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from drafting import drafting_rows
from half_billion import CONFIG, FORMS, Genai, Reference, language_graph, write_checkpoint
from harness import Row, command_line, faster, figure, report
from harness import paired_medians as paired_wall_medians

from devil.runtime.engines.onnxruntime import OnnxRuntimeRunner
from devil.runtime.language import LanguageSession
from devil.runtime.packed_run import Piece
from devil.runtime.slots import SHARED

CONTEXT = 512
paired_medians = functools.partial(paired_wall_medians, clock=time.process_time)


@dataclass(frozen=True)
class Options:
    """Times the language loop against transformers and onnxruntime-genai."""

    quick: bool = False
    """Fewer rounds."""
    json: bool = False
    """End with one JSON document."""
    folder: Path | None = None
    """Keep the models here (5 GB) and take what is there; by default they are made anew and deleted."""


def main(options: Options) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        write_checkpoint(folder)
        graphs = {form: language_graph(folder, form) for form in FORMS}
        reference = Reference(folder)
        rounds = 3 if options.quick else 7
        rows = [
            *speed_rows(graphs, reference, folder, rounds),
            long_cache_row(graphs["fp32"], 8 * rounds),
            *batch_rows(graphs["fp32"], 1 if options.quick else 3),
            *drafting_rows(10 if options.quick else 100),
        ]
    report("language", rows, options.json)


def speed_rows(graphs: dict[str, OnnxRuntimeRunner], reference: Reference, folder: Path, rounds: int) -> list[Row]:
    """Decoding at a context of 512, and prefill of 512 tokens."""
    goals = {"fp32": (1.35, 1.0), "int8": (None, 1.6), "int4": (3.5, None)}
    sessions = {form: filled(runner, CONTEXT) for form, runner in graphs.items()}
    genai = Genai.of(folder, CONTEXT)
    steps = [lambda s=session: decode(s, 1) for session in sessions.values()]
    *ours, theirs, other = paired_medians([*steps, reference.decode, genai.decode if genai else _nothing], 8 * rounds)
    rows = []
    for form, seconds in zip(sessions, ours, strict=True):
        least = goals[form][0]
        rows.append(faster(f"decode at {CONTEXT}, {form}", "transformers fp32", seconds, theirs, "s", least))
    if genai:
        rows.append(faster(f"decode at {CONTEXT}, int4", "onnxruntime-genai int4", ours[-1], other, "s", 0.9))
    else:
        sys.stderr.write("onnxruntime-genai is not installed here: not compared\n")
    prefills = [lambda s=session: prefill(s, CONTEXT) for session in sessions.values()]
    *ours, theirs = paired_medians([*prefills, reference.prefill], rounds)
    for form, seconds in zip(sessions, ours, strict=True):
        least = goals[form][1]
        rows.append(faster(f"prefill of {CONTEXT}, {form}", "transformers fp32", seconds, theirs, "s", least))
    return rows


def long_cache_row(runner: OnnxRuntimeRunner, rounds: int) -> Row:
    """What a step costs where the cache has room for 16384 tokens and 512 are used."""
    sessions = [filled(runner, CONTEXT, capacity) for capacity in (16384, 1024)]
    long, short = paired_medians([lambda s=session: decode(s, 1) for session in sessions], rounds)
    return figure("decode, room for 16384 / for 1024", long / short, "of 1", "≤ 1.1", long / short <= 1.1)


def batch_rows(runner: OnnxRuntimeRunner, rounds: int) -> list[Row]:
    """Ten sentences about one video of 64 frames against one: the language model alone, plain decoding.

    A video: 64 frames of 16 visual tokens and the 9 of their times. A sentence: 50 tokens, and an answer of 16.
    """
    length, prompt, answer = 64 * (16 + 9), [5] * 50, 16
    session = filled(runner, length)
    one, ten = paired_medians(
        [lambda n=count: session.generate([prompt] * n, max_new_tokens=answer) for count in (1, 10)], rounds
    )
    (video,) = paired_medians([lambda: prefill(session, length)], 1)
    ratio = (video + ten) / (video + one)
    return [
        figure("64 frames, the video's prefill", video, "s"),
        figure("64 frames, a sentence behind it", one, "s"),
        figure("64 frames, ten sentences behind it", ten, "s"),
        figure("64 frames, ten sentences / one, with the video", ratio, "times", "≤ 3", ratio <= 3),
        figure("64 frames, ten sentences / one, without it", ten / one, "times"),
    ]


def filled(runner: OnnxRuntimeRunner, length: int, capacity: int = 1024) -> LanguageSession:
    """A session whose prefix is `length` slots of zeros: what they hold does not change what a step costs."""
    session = LanguageSession(runner, CONFIG, capacity)
    session.packed.slots.claim([SHARED] * length)
    session.length = length
    return session


def decode(session: LanguageSession, sentences: int) -> None:
    """One step of several sentences."""
    session.packed.run([Piece(owner, [7], session.length, asked=1) for owner in range(sentences)])
    session.packed.slots.keep_prefix()


def prefill(session: LanguageSession, length: int) -> None:
    """Reads a prefix and asks for the first token behind it."""
    session.packed.slots.clear()
    session.packed.run([Piece(SHARED, [5] * length, 0, asked=1)])


def _nothing() -> None:
    """Stands in for a contender that is not here."""


if __name__ == "__main__":
    main(command_line(Options))
