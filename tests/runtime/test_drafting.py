"""Drafts are lossless: whatever is proposed, tokens and RSTs are those of plain decoding, and each accepted token saves
one step."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devil.config import TokenConfig
from devil.model.stand_in_tokenizer import stand_in_tokenizer
from devil.prompt import BOX, PromptWriter, image_answer, stvg_answer
from devil.runtime.decoding import Decoding
from devil.runtime.drafting import answer_draft, no_draft
from devil.runtime.language import LanguageSession
from devil.runtime.sampling import Sampling, chooser, most_likely
from tests.qwen2 import CONFIGS, devil_config, language_runner, prompt
from tests.tiny import tiny_config, tiny_tokenizer

NAME = "head_dim 16, tied"


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    return language_runner(tmp_path_factory.mktemp("language"), CONFIGS[NAME])


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    """Tokenizers in which a time is one token, and in which it is its digits and its point."""
    folder = tmp_path_factory.mktemp("tokenizers")
    tiny_tokenizer().save(str(folder / "whole.json"))
    stand_in_tokenizer().save(str(folder / "digits.json"))
    return {
        "whole": PromptWriter(folder / "whole.json", tiny_config()),
        "digits": PromptWriter(folder / "digits.json", devil_config(CONFIGS[NAME], tokens=TokenConfig())),
    }


@functools.cache
def asked():
    return tuple(tuple(prompt(CONFIGS[NAME], length, 0, seed=length)[0]) for length in (9, 2, 14))


def talking(runner, **changes):
    talk = LanguageSession(runner, devil_config(CONFIGS[NAME], **{"max_new_tokens": 12} | changes))
    talk.prefill(*prompt(CONFIGS[NAME], 30, 9))
    return talk


def guessing(answers, lengths, wrong):
    """Guesses of given lengths from whichever answer fits, with a wrong token at some places."""

    def draft(tokens):
        said = next((answer for answer in answers if answer[: len(tokens)] == tuple(tokens)), ())
        guess = list(said[len(tokens) : len(tokens) + lengths[len(tokens) % len(lengths)]])
        return [3 if len(tokens) + place in wrong else token for place, token in enumerate(guess)]

    return draft


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 14), min_size=1, max_size=5),
    wrong=st.sets(st.integers(0, 12)),
    limit=st.integers(0, 12),
    position=st.sampled_from(("predict", "input")),
    sampling=st.sampled_from((None, Sampling(temperature=0.9, top_p=0.9, seed=5))),
)
def test_any_draft_leaves_the_answers_as_they_are(runner, lengths, wrong, limit, position, sampling):
    words = talking(runner).generate(asked(), sampling=sampling)
    tokens = TokenConfig(end=words[0].token_ids[10], box=words[1].token_ids[1])  # tokens that occur
    talk = talking(runner, tokens=tokens, rst_position=position)
    plain = talk.generate(asked(), limit, sampling=sampling)
    heard = [[] for _ in plain]
    drafted = talk.generate(
        asked(),
        limit,
        sampling=sampling,
        draft=guessing([answer.token_ids for answer in plain], lengths, wrong),
        on_token=lambda index, token: heard[index].append(token),
    )
    for ours, theirs, told in zip(drafted, plain, heard, strict=True):
        assert ours.token_ids == theirs.token_ids == tuple(told)
        assert ours.finished == theirs.finished
        assert len(ours.rsts) == len(theirs.rsts)
        for one, other in zip(ours.rsts, theirs.rsts, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
        assert theirs.drafted == 0
        assert ours.accepted <= ours.drafted
        assert ours.steps == theirs.steps - ours.accepted


@pytest.mark.parametrize("wrong", range(12))
def test_a_draft_holds_up_to_its_first_wrong_token(runner, wrong):
    (plain,) = talking(runner).generate(asked()[:1])
    answer = plain.token_ids
    assert 3 not in answer
    (ours,) = talking(runner).generate(asked()[:1], draft=guessing([answer], (11, *[0] * 11), {wrong}))
    assert ours.token_ids == answer
    assert (ours.drafted, ours.accepted) == (11, min(wrong, 11))


def test_a_right_guess_of_everything_needs_no_step(runner):
    for question in asked():
        (plain,) = talking(runner).generate([question])
        (ours,) = talking(runner).generate([question], draft=guessing([plain.token_ids], (12,), set()))
        assert ours.token_ids == plain.token_ids
        assert (plain.steps, ours.steps) == (11, 0)


def scripted(writer, config, answer, draft, choose=most_likely):
    """A model that says `answer` and its end, and nonsense behind a wrong guess."""
    random = np.random.default_rng(0)
    script = [*answer, config.tokens.end]
    vocab = writer.tokenizer.get_vocab_size()
    decoding = Decoding([7, 7], config, 64, (), choose, draft, lambda _: None)
    while decoding.running:
        said = len(decoding.tokens)
        logits = np.zeros((decoding.asked, vocab), np.float32)
        fits = True
        for row in range(decoding.asked):
            token = script[said + row] if fits and said + row < len(script) else int(random.integers(vocab))
            logits[row, token] = 9
            fits = fits and row + 1 < decoding.asked and decoding.fed[row + 1 - decoding.asked] == token
        decoding.take(logits, np.zeros((decoding.asked, 1), np.float32))
    return decoding.generation(0, 0)


def said(writers, kind, text, *, draft=None, is_image=False):
    writer = writers[kind]
    *answer, _ = writer.answer(text)
    draft = draft or answer_draft(writer, is_image)
    found = scripted(writer, writer.config, answer, draft)
    assert found.token_ids == tuple(answer)
    assert found.finished
    return found


@pytest.mark.parametrize(
    ("kind", "times", "tokens", "steps"),
    [
        ("whole", (3.2, 7.9), 6, 2),  # [It happens from] 3.2 [to] 7.9 [seconds. BOX] end
        ("whole", (0.0, 19.5), 6, 2),
        ("digits", (3.2, 7.9), 16, 4),  # 3 [.] 2 [to] 7 [.] 9 [seconds. BOX] end
        ("digits", (13.2, 127.9), 19, 7),  # each further digit is a step
    ],
)
def test_the_taught_answer_needs_a_step_per_digit_of_news(writers, kind, times, tokens, steps):
    found = said(writers, kind, stvg_answer(*times))
    assert (len(found.token_ids), found.steps) == (tokens, steps)


@pytest.mark.parametrize("kind", ["whole", "digits"])
def test_the_taught_answer_about_an_image_needs_no_step(writers, kind):
    assert said(writers, kind, image_answer(), is_image=True).steps == 0


@pytest.mark.parametrize("kind", ["whole", "digits"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        BOX,
        "It happens",
        "It happens from 3.2",
        "It happens from  3.2 to 4.0 seconds. [BOX]",
        "It happens from 3 to 4 seconds. [BOX]",
        "It happens from 3.25 to 4.25 seconds. [BOX]",
        "It happens from 1.2.3 to 4 seconds. [BOX]",
        "It happens from . to .5 seconds. [BOX]",
        "It happens from 3.2 to 4.0 seconds. [BOX] [BOX]",
        "It happens from 3.2 to 4.0 seconds. [BOX]. It happens from 3.2 to 4.0 seconds. [BOX]",
        "It is here. [BOX]",
        "from 3.2 to 4.0",
    ],
)
def test_other_answers_are_said_as_they_are(writers, kind, text):
    said(writers, kind, text)


@pytest.mark.parametrize("kind", ["whole", "digits"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_answer_that_leaves_the_template_anywhere_is_said_as_it_is(writers, kind, data):
    writer = writers[kind]
    *answer, _ = writer.answer(stvg_answer(data.draw(st.sampled_from((0.0, 3.2, 12.7))), 15.4))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(answer)))
        new = data.draw(st.sampled_from((*answer, *writer.text("5"), *writer.text("."), *writer.text(" and"))))
        answer[place : place + data.draw(st.integers(0, 2))] = [new]
    found = scripted(writer, writer.config, answer, answer_draft(writer, False))
    plain = scripted(writer, writer.config, answer, no_draft)
    assert found.token_ids == plain.token_ids == tuple(answer)
    assert found.steps == plain.steps - found.accepted


@pytest.mark.parametrize("kind", ["whole", "digits"])
def test_words_of_its_own_are_learned_from_an_answer(writers, kind):
    draft = answer_draft(writers[kind], False)
    texts = [f"The event is seen between {start} and {end} s at {BOX}" for start, end in ((1.5, 2.5), (3.0, 9.5))]
    first = said(writers, kind, texts[0], draft=draft)
    draft.learn(first.token_ids)
    second = said(writers, kind, texts[1], draft=draft)
    assert first.accepted < 3
    assert second.steps == {"whole": 2, "digits": 4}[kind]
    said(writers, kind, stvg_answer(1.0, 2.0), draft=draft)


@pytest.mark.parametrize("text", ["", "nothing of that kind", "It happens from 3.2 to 4.0"])
def test_answers_without_a_box_at_their_end_are_no_examples(writers, text):
    draft = answer_draft(writers["digits"], False)
    for _ in range(2):
        draft.learn(said(writers, "digits", text, draft=draft).token_ids)
        assert said(writers, "digits", stvg_answer(3.2, 7.9), draft=draft).steps == 4  # as if nothing had been heard


def test_odd_answers_never_push_the_taught_one_out(writers):
    draft = answer_draft(writers["digits"], False)
    for word in ("one", "two", "three", "four", "five", "six"):
        draft.learn(said(writers, "digits", f"{word} {BOX}", draft=draft).token_ids)
    first = said(writers, "digits", stvg_answer(3.2, 7.9), draft=draft)
    draft.learn(first.token_ids)
    assert said(writers, "digits", stvg_answer(3.2, 7.9), draft=draft).steps == 4


def test_a_draw_is_the_same_behind_a_draft(writers):
    """One random number per token said, none for what a wrong draft would have been followed by."""
    writer = writers["whole"]
    *answer, _ = writer.answer(stvg_answer(3.2, 7.9))
    sampling = Sampling(temperature=3.0, seed=11)
    drafts = (no_draft, answer_draft(writer, False), lambda _: [5] * 3)
    found = [
        scripted(writer, writer.config, answer, draft, chooser(sampling)).token_ids[: len(answer)] for draft in drafts
    ]
    assert found[0] == found[1] == found[2]
