"""Blind clips: sentences name what is shown, and nothing else is hidden."""

import numpy as np
import torch

from devil.data.clips import training_clip
from devil.data.dice import Dice
from devil.data.shapes import COLOURS, SHAPES
from devil.training.blinding import blinded, hide
from devil.training.symbols import SymbolTokens


def test_a_blind_clip_is_asked_about_what_only_one_shape_shows():
    met = set()
    for seed in range(80):
        clip = training_clip(seed, size=32)
        blind, queries = blinded(clip, Dice(f"blind {seed}"))
        met.add(blind)
        assert queries
        for query in queries if blind else ():
            words = query.sentence.replace("?", "").split()
            colour, shape = list(COLOURS)[clip.colours[query.target]], SHAPES[clip.shapes[query.target]]
            named = [word for word in words if word in COLOURS or word in SHAPES]
            assert named == [shape if blind == "colour" else colour]
            shown = clip.shapes if blind == "colour" else clip.colours
            assert (shown == shown[query.target]).sum() == 1
            assert ("shape" in words) == (blind == "shape")
            original = next(one for one in clip.queries if (one.target, one.kind) == (query.target, query.kind))
            assert query.sentence.endswith("?") == original.sentence.endswith("?")
    assert met == {None, "colour", "shape"}


def test_hiding_changes_one_look_of_shapes_and_nothing_else():
    torch.manual_seed(0)
    symbols = SymbolTokens(64)
    owner = np.random.RandomState(0).randint(-1, 3, (3, 4, 6))
    tokens = torch.randn(3, 4, 6, 64)
    seen = hide(tokens, owner, (None, "colour", "shape"), symbols)
    assert torch.equal(seen[0], tokens[0])
    for clip, name in ((1, "colour"), (2, "shape")):
        change, owned = seen[clip] - tokens[clip], torch.from_numpy(owner[clip] >= 0)
        assert (change[~owned] == 0).all()
        projection = getattr(symbols, f"of_{name}s")
        torch.testing.assert_close(change @ projection, change, atol=1e-4, rtol=0)
        shown = seen[clip] @ projection
        for shape in range(3):  # a shape looks the same in all its frames
            looks = shown[torch.from_numpy(owner[clip] == shape)]
            assert (looks - looks[0]).abs().max() < 1e-4
            assert (looks.norm(dim=1) / getattr(symbols, name).norm(dim=1).mean() - 1).abs().max() < 1e-3
