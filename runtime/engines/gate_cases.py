"""Seeded inputs that an engine is judged on: every profile at its usual and at its smallest sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from devil.config import DevilConfig, level_shapes
from devil.engine_profile import Profile
from devil.preprocess import patch_positions

_FRAMES = 2  # more say nothing new
_PROMPT, _VISUAL = 33, 9  # tokens of the language graph's prompt, and how many of them are visual
_STEPS = (1, 1, 1, 3)  # new tokens of the decoding steps behind it: repeated ones are captured and launched


@dataclass(frozen=True)
class Case:
    """Runs of one graph, of the language graph on one cache.

    Attributes:
        name: for the report.
        runs: what each is fed.
    """

    name: str
    runs: Sequence[Mapping[str, np.ndarray]]


def cases(config: DevilConfig, graph: str, profiles: Sequence[Profile]) -> Iterator[Case]:
    """The cases of a graph. Those of the grounder have `frames` for the backbone in place of features."""
    if graph == "language":
        yield Case("prompt and decoding", _language(config, profiles))
        return
    seen = set()
    for profile in profiles:
        for side in ("opt", "min"):
            sizes = {name: getattr(size, side) for name, size in profile.ranges.items()}
            case = _vision(config, sizes) if graph == "vision" else _frames(config, graph, sizes)
            if case.name not in seen:
                seen.add(case.name)
                yield case


def _vision(config: DevilConfig, sizes: Mapping[str, int]) -> Case:
    frames, tokens = min(_FRAMES, sizes["F"]), max(1, sizes["P"] // config.vision.merge**2)
    rows = math.isqrt(tokens)
    columns = tokens // rows
    positions = patch_positions(rows * config.vision.side, columns * config.vision.side, config.vision)
    shape = (frames, len(positions), 3 * config.vision.patch**2)
    patches = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Case(f"{frames} frames of {rows}x{columns} tokens", [{"patches": patches, "positions": positions}])


def _frames(config: DevilConfig, graph: str, sizes: Mapping[str, int]) -> Case:
    number, height, width = min(_FRAMES, sizes["N"]), sizes["H"], sizes["W"]
    random = np.random.default_rng(1)
    feeds = {"frames": _pictures(random, number, height, width)}
    if graph == "grounder":
        feeds["level_shapes"] = np.array(level_shapes(height, width), np.int64)
        feeds["rst"] = random.normal(size=config.language.hidden).astype(np.float32)
    return Case(f"{number} frames of {height}x{width} pixels", [feeds])


def _pictures(random: np.random.Generator, number: int, height: int, width: int) -> np.ndarray:
    """Patches of colour with noise on them, uint8 [number, height, width, 3]: flat enough to have objects."""
    side = 24
    coarse = random.integers(0, 220, (number, math.ceil(height / side), math.ceil(width / side), 3))
    large = np.kron(coarse, np.ones((1, side, side, 1), np.int64))[:, :height, :width]
    return (large + random.integers(0, 36, large.shape)).astype(np.uint8)


def _language(config: DevilConfig, profiles: Sequence[Profile]) -> list[Mapping[str, np.ndarray]]:
    """A prompt with visual tokens, and decoding steps behind it."""
    language, random = config.language, np.random.default_rng(2)
    most = max(profile.ranges["S"].max for profile in profiles)
    prompt = min(_PROMPT, most)
    visual = min(_VISUAL, prompt)
    ids = random.integers(0, language.vocab, prompt + sum(_STEPS))
    ids[:visual] = language.vocab + np.arange(visual)
    table = (0.05 * random.normal(size=(visual, language.hidden))).astype(np.float32)  # as large as words
    runs, start = [], 0
    for count in (prompt, *(min(step, most) for step in _STEPS)):
        new = np.arange(start, start + count)
        runs.append(
            {
                "token_ids": ids[None, new],
                "visual_table": table if start == 0 else np.zeros((1, language.hidden), np.float32),
                "positions": new[None],
                "write_index": np.array([start]),
                "mask": (np.arange(start + count) <= new[:, None])[None, None],
                "output_index": np.arange(count)[None, -4:],
            }
        )
        start += count
    return runs
