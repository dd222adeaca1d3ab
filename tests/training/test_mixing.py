"""Mixed clips: what is said, what is shown and what is meant turn together, and nothing else changes."""

import dataclasses

import numpy as np
import pytest
import torch

from devil.config import PRESETS
from devil.data.clips import training_clip
from devil.data.dice import Dice
from devil.data.shapes import COLOURS, SHAPES
from devil.prompt import PromptWriter
from devil.training.mixing import UNMIXED, draw_mixture, meant, name_tokens, said, shown
from devil.training.tokenizer import tiny_tokenizer

DRAWN = [draw_mixture(Dice(f"mixture {number}")) for number in range(60)]
MIXED = next(m for m in DRAWN if not (m.colours == UNMIXED.colours).all() and not (m.shapes == UNMIXED.shapes).all())


@pytest.mark.parametrize("half", ["colours", "shapes"])
def test_a_mixture_turns_the_looks_about_their_mean(half):
    table = torch.randn(len(getattr(UNMIXED, half)), 40, dtype=torch.float64)
    turned = 0
    for mixture in DRAWN:
        mixed = getattr(mixture, half).double() @ table
        torch.testing.assert_close(mixed.mean(0), table.mean(0), atol=1e-5, rtol=0)
        flat = torch.eye(len(table), dtype=torch.float64)
        distances = torch.cdist(getattr(mixture, half).double(), getattr(mixture, half).double())
        torch.testing.assert_close(distances, torch.cdist(flat, flat), atol=1e-5, rtol=0)
        turned += bool((getattr(mixture, half) != getattr(UNMIXED, half)).any())
    assert 20 < turned < 55


def test_some_clips_stay_as_they_are_and_no_two_mixtures_are_alike():
    plain = [mixture.plain for mixture in DRAWN]
    assert 5 < sum(plain) < 30
    distinct = {tuple(mixture.colours.flatten().tolist()) for mixture in DRAWN if not mixture.plain}
    assert len(distinct) > 25


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer().save(str(path))
    return PromptWriter(path, PRESETS["tiny"])


def test_every_name_is_one_token_wherever_a_sentence_has_it(writer):
    colours, shapes = name_tokens(writer)
    assert len({*colours, *shapes}) == len(COLOURS) + len(SHAPES)
    for seed in range(40):
        for query in training_clip(seed, size=32).queries:
            words = query.sentence.rstrip("?").split()
            ids = writer.text(query.sentence)
            for names, tokens in ((COLOURS, colours), (SHAPES, shapes)):
                assert [token in ids for token in tokens] == [name in words for name in names]


def test_words_of_a_mixed_clip_are_mixtures_of_words(writer):
    torch.manual_seed(0)
    words, embeddings = name_tokens(writer), torch.randn(700, 16)
    ids = np.array([writer.text("which red ring is visible? the red ring")] * 2)
    change = said(embeddings, ids, (UNMIXED, MIXED), words)
    assert (change[0] == 0).all()
    red, ring = words[0][list(COLOURS).index("red")], words[1][SHAPES.index("ring")]
    for place, token in enumerate(ids[1]):
        wanted = embeddings[token]
        if token == red:
            wanted = sum(MIXED.colours[0, other] * embeddings[words[0][other]] for other in range(len(COLOURS)))
        if token == ring:
            row = MIXED.shapes[SHAPES.index("ring")]
            wanted = sum(row[other] * embeddings[words[1][other]] for other in range(len(SHAPES)))
        torch.testing.assert_close(embeddings[token] + change[1, place], wanted, atol=1e-5, rtol=0)


def test_tokens_of_a_mixed_clip_show_mixtures_and_keep_what_else_they_show():
    torch.manual_seed(0)
    codes = torch.randn(len(COLOURS), 32), torch.randn(len(SHAPES), 32)
    clips = [training_clip(seed, size=32) for seed in (0, 1)]
    owner = np.random.RandomState(0).randint(-1, min(len(clip.colours) for clip in clips), (2, 3, 5))
    rest = torch.randn(2, 3, 5, 32)
    looks = [torch.cat([codes[0][c.colours] + codes[1][c.shapes], torch.zeros(1, 32)]) for c in clips]
    tokens = rest + torch.stack([look[mine] for look, mine in zip(looks, owner, strict=True)])
    seen = shown(tokens, owner, clips, (UNMIXED, MIXED), codes)
    assert torch.equal(seen[0], tokens[0])
    mixed = (MIXED.colours @ codes[0])[clips[1].colours] + (MIXED.shapes @ codes[1])[clips[1].shapes]
    wanted = rest[1] + torch.cat([mixed, torch.zeros(1, 32)])[owner[1]]
    torch.testing.assert_close(seen[1], wanted, atol=1e-5, rtol=0)


def test_vectors_of_names_under_mixtures():
    table, names = torch.randn(len(SHAPES), 8), torch.tensor([3, 0, 3])
    vectors = meant(table, torch.stack([UNMIXED.shapes, MIXED.shapes, MIXED.shapes]), names)
    wanted = torch.stack([table[3], MIXED.shapes[0] @ table, MIXED.shapes[3] @ table])
    torch.testing.assert_close(vectors, wanted)


def test_half_mixed_is_not_plain():
    assert UNMIXED.plain
    assert not dataclasses.replace(UNMIXED, shapes=MIXED.shapes).plain
