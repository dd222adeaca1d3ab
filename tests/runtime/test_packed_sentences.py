"""Sentences answered side by side in one cache row against each of them asked alone, and against transformers."""

import dataclasses

import numpy as np
import pytest

from devil.config import TokenConfig
from devil.errors import EngineError, SentenceError
from devil.runtime.language import LanguageSession
from devil.runtime.packed_run import Piece
from devil.runtime.sampling import Sampling
from devil.runtime.slots import SHARED, Slots
from tests.qwen2 import CONFIGS, devil_config, expected, language_runner, prompt

NAMES = list(CONFIGS)
PREFIX = 30


@pytest.fixture(scope="module")
def runners(tmp_path_factory):
    """One loaded graph per config."""
    return {name: language_runner(tmp_path_factory.mktemp("language"), config) for name, config in CONFIGS.items()}


def talking(runners, name, **changes):
    """A session that has read a prefix with visual tokens."""
    talk = LanguageSession(runners[name], devil_config(CONFIGS[name], **changes))
    talk.prefill(*prompt(CONFIGS[name], PREFIX, 9))
    return talk


def questions(name, lengths):
    return [prompt(CONFIGS[name], length, 0, seed=length)[0] for length in lengths]


def same(ours, theirs):
    assert ours.token_ids == theirs.token_ids
    assert ours.finished == theirs.finished
    assert len(ours.rsts) == len(theirs.rsts)
    for one, other in zip(ours.rsts, theirs.rsts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_logits_of_packed_sentences_equal_the_reference_of_each(name, chunk, runners):
    """Twice in a row, so that the second pieces lie behind other sentences' first ones."""
    config, talk = CONFIGS[name], talking(runners, name)
    prefix, table = prompt(config, PREFIX, 9)
    whole = questions(name, (5, 2, 11))
    cuts = list(enumerate(zip(whole, (3, 1, 6), strict=True)))
    packed = talk.packed
    first = [Piece(owner, ids[:cut], PREFIX, asked=cut) for owner, (ids, cut) in cuts]
    second = [Piece(owner, ids[cut:], PREFIX + cut, asked=len(ids) - cut) for owner, (ids, cut) in cuts]
    found = zip(packed.run(first, chunk), packed.run(second[::-1], chunk)[::-1], strict=True)
    for ids, (early, late) in zip(whole, found, strict=True):
        logits, hidden = expected(config, np.concatenate([prefix, ids]), table)
        np.testing.assert_allclose(np.concatenate([early.logits, late.logits]), logits[PREFIX:], atol=1e-4)
        np.testing.assert_allclose(np.concatenate([early.hidden, late.hidden]), hidden[PREFIX:], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [(1,), (7, 21), (21, 1, 7, 13, 4), tuple(range(1, 12))])
def test_each_answer_is_the_one_asked_alone(name, lengths, runners):
    config = devil_config(CONFIGS[name])
    asked = questions(name, lengths)
    plain = [talking(runners, name).generate([ids])[0] for ids in asked]
    # Tokens that occur become [BOX] and the end, so that answers end at different times and have RSTs.
    box = plain[-1].token_ids[0]
    end = next(token for token in reversed(plain[0].token_ids) if token != box)
    for position in ("predict", "input"):
        changes = {"tokens": TokenConfig(end=end, box=box), "rst_position": position}
        alone = [talking(runners, name, **changes).generate([ids])[0] for ids in asked]
        together = talking(runners, name, **changes).generate(asked)
        for ours, theirs in zip(together, alone, strict=True):
            same(ours, theirs)
            assert ours.steps == theirs.steps
        assert any(answer.rsts for answer in alone)
    assert config.max_new_tokens == max(len(answer.token_ids) for answer in plain)


def test_a_session_is_as_good_as_new_after_a_batch(runners):
    talk = talking(runners, "head_dim 8")
    asked = questions("head_dim 8", (9, 3, 14))
    before = talk.generate(asked)
    assert talk.packed.slots.used == PREFIX
    for ours, theirs in zip(talk.generate(asked), before, strict=True):
        same(ours, theirs)
    same(talk.generate([asked[1]])[0], before[1])


def test_the_prefix_is_held_once_however_many_sentences_there_are(runners):
    talk = LanguageSession(runners["head_dim 8"], devil_config(CONFIGS["head_dim 8"], max_new_tokens=4))
    talk.prefill(*prompt(CONFIGS["head_dim 8"], 400, 9))
    talk.generate(questions("head_dim 8", (6,) * 10))
    assert talk.packed.cache.rows == 1
    assert talk.packed.cache.capacity == 512  # 400 + 10 · (6 + 4), in steps of 256


def test_many_sentences_are_answered_group_after_group(runners, monkeypatch):
    asked = questions("head_dim 8", (9, 3, 14, 2, 5))
    whole = talking(runners, "head_dim 8").generate(asked)
    monkeypatch.setattr("devil.runtime.language.TOGETHER", 2)
    heard = []
    grouped = talking(runners, "head_dim 8").generate(asked, on_token=lambda index, _: heard.append(index))
    for ours, theirs in zip(grouped, whole, strict=True):
        same(ours, theirs)
    assert list(dict.fromkeys(heard)) == [0, 1, 2, 3, 4]
    assert max(heard[: heard.index(2)]) == 1


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([], []),
        ([10], [(0, 1)]),
        ([20, 14, 1], [(0, 2), (2, 3)]),  # 64 - 30 slots are free
        ([34, 34], [(0, 1), (1, 2)]),
        ([1] * 34, [(0, 32), (32, 34)]),
    ],
)
def test_sentences_side_by_side_never_need_more_slots_than_the_context(runners, sizes, groups):
    talk = LanguageSession(runners["head_dim 8"], devil_config(dataclasses.replace(CONFIGS["head_dim 8"], context=64)))
    talk.prefill(*prompt(CONFIGS["head_dim 8"], PREFIX, 9))
    assert list(talk._groups(sizes)) == [range(*group) for group in groups]


def test_no_sentence_is_no_answer(runners):
    assert talking(runners, "head_dim 8").generate([]) == []


def test_tokens_are_told_as_they_come_sentence_by_sentence(runners):
    asked = questions("head_dim 8", (9, 3))
    heard = []
    answers = talking(runners, "head_dim 8").generate(
        asked, max_new_tokens=6, on_token=lambda index, token: heard.append((index, token))
    )
    # side by side: the k-th tokens of all sentences come before the next ones
    expected_order = [(index, answer.token_ids[step]) for step in range(6) for index, answer in enumerate(answers)]
    assert heard == expected_order


def test_any_stop_id_ends_an_answer_and_is_not_part_of_it(runners):
    asked = questions("head_dim 8", (9, 3))
    plain = talking(runners, "head_dim 8").generate(asked)
    stops = (plain[0].token_ids[6], plain[1].token_ids[11])
    stopped = talking(runners, "head_dim 8").generate(asked, stop_ids=stops)
    for ours, theirs in zip(stopped, plain, strict=True):
        first = min(theirs.token_ids.index(stop) for stop in stops if stop in theirs.token_ids)
        assert (ours.token_ids, ours.finished) == (theirs.token_ids[:first], True)


def test_a_batch_with_one_sentence_too_long_is_refused_before_anything_is_computed(runners, monkeypatch):
    config = dataclasses.replace(CONFIGS["head_dim 8"], context=64)
    talk = LanguageSession(runners["head_dim 8"], devil_config(config, max_new_tokens=10))
    talk.prefill(*prompt(config, PREFIX, 9))
    fits, too_long = prompt(config, 24, 0)[0], prompt(config, 25, 0)[0]
    assert len(talk.generate([fits, fits, fits])) == 3  # each by itself fits, whatever the cache row holds in all
    monkeypatch.setattr(talk.packed, "run", lambda *_: pytest.fail("computed something"))
    with pytest.raises(SentenceError, match=r"sentence 3: the video, .* need 65 tokens, the model holds 64.* 1 token"):
        talk.generate([fits, fits, too_long])
    with pytest.raises(SentenceError, match="sentence 2: the prompt behind the video is empty"):
        talk.generate([fits, []])


def test_a_failed_batch_leaves_the_prefix_usable(runners, monkeypatch):
    talk = talking(runners, "head_dim 8")
    asked = questions("head_dim 8", (9, 3))
    before = talk.generate(asked)
    run = talk.packed.cache.run
    with monkeypatch.context() as patch:
        patch.setattr(talk.packed.cache, "run", lambda feeds: run(feeds) | {"logits": np.full((1, 2, 101), np.nan)})
        with pytest.raises(EngineError, match="overflowed"):
            talk.generate(asked)
    for ours, theirs in zip(talk.generate(asked), before, strict=True):
        same(ours, theirs)


def test_a_failed_prefix_is_none(runners, monkeypatch):
    config = CONFIGS["head_dim 8"]
    talk, fresh = (LanguageSession(runners["head_dim 8"], devil_config(config)) for _ in range(2))
    run, runs = talk.packed.cache.run, []

    def failing(feeds):
        runs.append(feeds)
        if len(runs) == 2:
            raise EngineError("no")
        return run(feeds)

    with monkeypatch.context() as patch:
        patch.setattr(talk.packed.cache, "run", failing)
        with pytest.raises(EngineError):
            talk.prefill(*prompt(config, PREFIX, 9), chunk=10)
    asked = questions("head_dim 8", (9,))
    same(talk.generate(asked)[0], fresh.generate(asked)[0])


def test_sampled_answers_do_not_depend_on_company(runners):
    asked = questions("head_dim 8", (9, 3, 14))
    sampling = Sampling(temperature=0.8, top_k=20, seed=3)
    together = talking(runners, "head_dim 8").generate(asked, sampling=sampling)
    for ids, ours in zip(asked, together, strict=True):
        same(ours, talking(runners, "head_dim 8").generate([ids], sampling=sampling)[0])
    other = talking(runners, "head_dim 8").generate(asked, sampling=dataclasses.replace(sampling, seed=4))
    assert all(ours.token_ids != theirs.token_ids for ours, theirs in zip(together, other, strict=True))


def test_slots_at_the_end_are_handed_out_again_and_others_are_hidden():
    slots = Slots()
    assert slots.claim(np.array([SHARED, SHARED, 0, 0, 1])) == 0
    slots.release(np.array([3]))  # a rejected draft of sentence 0, before sentence 1's token
    assert slots.used == 5
    assert slots.claim(np.array([0, 1])) == 5
    np.testing.assert_array_equal(
        slots.mask(5, 2), [[True, True, True, False, False, True, False], [True, True, False, False, True, False, True]]
    )
    slots.release(np.array([5, 6]))
    assert slots.used == 5
    slots.release_all_of(1)
    assert slots.used == 3
    slots.keep_prefix()
    assert slots.used == 2
    assert slots.claim(np.zeros(1000, int)) == 2  # more than it began with
    assert slots.mask(1001, 1).all()
