"""The language loop against transformers' generate, and its prefix reuse against starting afresh."""

import dataclasses

import numpy as np
import pytest
import torch

from devil.config import TokenConfig
from devil.errors import BundleError, EngineError, SentenceError, VideoError
from devil.runtime.language import LanguageSession
from devil.runtime.packed_run import Piece
from tests.qwen2 import CONFIGS, devil_config, expected, language_runner, prompt, reference

NAMES = list(CONFIGS)


@pytest.fixture(scope="module")
def runners(tmp_path_factory):
    """One loaded graph per config."""
    return {name: language_runner(tmp_path_factory.mktemp("language"), config) for name, config in CONFIGS.items()}


def session(runners, name, **changes):
    return LanguageSession(runners[name], devil_config(CONFIGS[name], **changes))


def said(talk, ids, **options):
    """The answer to one sentence."""
    (answer,) = talk.generate([ids], **options)
    return answer


def greedy(config, ids, table, count):
    """transformers' own greedy decoding."""
    model = reference(config)
    weights = torch.cat([model.get_input_embeddings().weight, torch.from_numpy(table)]).detach()
    embeddings = weights[torch.from_numpy(ids)][None]
    mask = torch.ones(embeddings.shape[:2], dtype=torch.int64)
    output = model.generate(
        inputs_embeds=embeddings, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return tuple(output[0].tolist())


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_equal_the_reference(name, runners):
    config = CONFIGS[name]
    ids, table = prompt(config, 41, 9)
    talk = session(runners, name)
    talk.prefill(ids[:30], table)
    heard = []
    (answer,) = talk.generate([ids[30:]], max_new_tokens=32, on_token=lambda _, token: heard.append(token))
    theirs = greedy(config, ids, table, 32)
    assert answer.token_ids + (0,) * answer.finished == theirs
    assert tuple(heard) == answer.token_ids
    assert answer.steps == len(theirs) - 1


@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
def test_chunks_do_not_change_the_answer(chunk, runners):
    ids, table = prompt(CONFIGS["head_dim 8"], 60, 25)
    whole, chunked = session(runners, "head_dim 8"), session(runners, "head_dim 8")
    whole.prefill(ids[:45], table)
    chunked.prefill(ids[:45], table, chunk=chunk)
    (ours,), (theirs,) = (
        talk.packed.run([Piece(0, ids[45:], 45, asked=9)], size) for talk, size in ((chunked, chunk), (whole, 1000))
    )
    assert ours.logits.shape == (9, 101)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=2e-5)
    np.testing.assert_allclose(ours.hidden, theirs.hidden, atol=2e-5)


def test_long_prefixes_take_smaller_steps_so_that_scores_stay_bounded(runners, monkeypatch):
    monkeypatch.setattr("devil.runtime.packed_run.SCORE_BYTES", 4 * 6 * 40 * 3)  # 3 tokens against 40 slots, 6 heads
    ids, table = prompt(CONFIGS["head_dim 8"], 40, 9)
    talk = session(runners, "head_dim 8")
    heard = []
    talk.prefill(ids, table, on_chunk=lambda done, total: heard.append((done, total)))
    assert heard == [(min(done, 40), 40) for done in range(3, 43, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_a_second_sentence_equals_a_fresh_session(name, runners):
    ids, table = prompt(CONFIGS[name], 40, 9)
    long, short = prompt(CONFIGS[name], 21, 0, seed=5)[0], prompt(CONFIGS[name], 6, 0, seed=6)[0]
    used, fresh = session(runners, name), session(runners, name)
    used.prefill(ids, table)
    first = said(used, long)
    second = said(used, short)
    fresh.prefill(ids, table)
    assert second.token_ids == said(fresh, short).token_ids
    assert said(used, long).token_ids == first.token_ids


def test_a_new_prefix_replaces_the_old_one(runners):
    config = CONFIGS["head_dim 64"]
    talk, fresh = session(runners, "head_dim 64"), session(runners, "head_dim 64")
    talk.prefill(*prompt(config, 50, 20, seed=1))
    said(talk, [2, 3])
    ids, table = prompt(config, 30, 7, seed=2)
    talk.prefill(ids, table)
    fresh.prefill(ids, table)
    assert said(talk, [4, 5]).token_ids == said(fresh, [4, 5]).token_ids


def test_the_cache_grows_and_keeps_what_it_holds(runners, monkeypatch):
    monkeypatch.setattr("devil.runtime.packed_run.CACHE_STEP", 8)
    config = CONFIGS["head_dim 8"]
    ids, table = prompt(config, 41, 9)
    grown = LanguageSession(runners["head_dim 8"], devil_config(config), capacity=3)
    grown.prefill(ids[:30], table, chunk=4)
    answer = said(grown, ids[30:])
    assert answer.token_ids + (0,) * answer.finished == greedy(config, ids, table, 32)
    assert grown.packed.cache.capacity == 72  # 41 + 31 slots, in steps of 8


def test_a_prompt_without_visual_tokens(runners):
    config = CONFIGS["head_dim 8"]
    ids, _ = prompt(config, 20, 0)
    none = np.zeros((0, config.hidden), np.float32)
    talk = session(runners, "head_dim 8")
    answer = said(talk, ids)  # no prefix either
    assert answer.token_ids + (0,) * answer.finished == greedy(config, ids, none, 32)
    talk.prefill(ids[:7], none)
    assert said(talk, ids[7:]).token_ids == answer.token_ids


def meaning(runners, tokens, ids, table, limit, **changes):
    """What 'head_dim 8' says when those are the tokens that carry meaning."""
    talk = session(runners, "head_dim 8", tokens=tokens, **changes)
    talk.prefill(ids[:30], table)
    return said(talk, ids[30:], max_new_tokens=limit)


def test_the_rst_is_the_hidden_state_that_predicts_or_that_reads_box(runners):
    config = CONFIGS["head_dim 8"]
    ids, table = prompt(config, 41, 9)
    plain = meaning(runners, TokenConfig(end=0, box=1), ids, table, 12).token_ids
    assert len(plain) == 12
    box = plain[5]
    first = plain.index(box)
    _, hidden = expected(config, np.concatenate([ids, plain]), table)
    for position, offset in (("predict", 0), ("input", 1)):
        answer = meaning(runners, TokenConfig(end=0, box=box), ids, table, 12, rst_position=position)
        assert answer.token_ids == plain
        assert len(answer.rsts) == plain.count(box)
        np.testing.assert_allclose(answer.rst, hidden[len(ids) - 1 + first + offset], atol=1e-4)
        assert answer.rst.dtype == np.float32


def test_a_box_that_is_the_last_token_still_has_its_rst(runners):
    config = CONFIGS["head_dim 8"]
    ids, table = prompt(config, 41, 9)
    plain = meaning(runners, TokenConfig(end=0, box=1), ids, table, 12).token_ids
    _, hidden = expected(config, np.concatenate([ids, plain]), table)
    first = plain.index(plain[5])
    answer = meaning(runners, TokenConfig(end=0, box=plain[5]), ids, table, first + 1, rst_position="input")
    assert answer.token_ids == plain[: first + 1]
    np.testing.assert_allclose(answer.rst, hidden[len(ids) + first], atol=1e-4)


def test_the_end_token_stops_and_is_not_part_of_the_answer(runners):
    ids, table = prompt(CONFIGS["head_dim 8"], 41, 9)
    plain = meaning(runners, TokenConfig(end=0, box=1), ids, table, 12).token_ids
    first = plain.index(plain[7])
    answer = meaning(runners, TokenConfig(end=plain[7], box=1), ids, table, 12)
    assert (answer.token_ids, answer.finished) == (plain[:first], True)
    assert answer.rst is None
    cut = meaning(runners, TokenConfig(end=0, box=1), ids, table, 3)
    assert (cut.token_ids, cut.finished, cut.steps) == (plain[:3], False, 2)


def test_what_does_not_fit_the_context_is_refused_before_it_is_computed(runners):
    config = dataclasses.replace(CONFIGS["head_dim 8"], context=64)
    talk = LanguageSession(runners["head_dim 8"], devil_config(config, max_new_tokens=10))
    ids, table = prompt(config, 55, 9)
    with pytest.raises(VideoError, match="need 65 tokens, the model holds 64"):
        talk.prefill(ids, table)
    talk.prefill(ids[:50], table)
    with pytest.raises(SentenceError, match=r"need 65 tokens, the model holds 64.*shorten the sentence by 1 token"):
        talk.generate([ids[50:55]])
    assert len(said(talk, ids[50:54]).token_ids) > 0
    with pytest.raises(SentenceError, match="empty"):
        talk.generate([[]])


def test_an_id_that_means_nothing_is_refused(runners):
    config = CONFIGS["head_dim 8"]
    talk = session(runners, "head_dim 8")
    talk.prefill(*prompt(config, 20, 4))
    for wrong in (-1, config.vocab + 4):
        with pytest.raises(BundleError, match=f"token id {wrong} is neither"):
            talk.generate([[2, wrong]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_overflow_is_an_error_and_not_an_answer(value, runners, monkeypatch):
    talk = session(runners, "head_dim 8")
    run = talk.packed.cache.run

    def overflowing(feeds):
        outputs = run(feeds)
        outputs["logits"][..., 7] = value
        return outputs

    monkeypatch.setattr(talk.packed.cache, "run", overflowing)
    with pytest.raises(EngineError, match="overflowed: export with --precision fp32 or bf16"):
        said(talk, [2, 3])
