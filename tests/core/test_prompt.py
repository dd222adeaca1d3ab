"""Prompts against the chat template written out as text and tokenised whole."""

import dataclasses

import pytest
from tokenizers import Tokenizer

from devil.config import PRESETS, TokenConfig
from devil.errors import CheckpointError, SentenceError
from devil.prompt import BOX, PromptWriter, image_instruction, stvg_answer, stvg_instruction
from devil.training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(["the red circle that moves left"]).save(str(path))
    return path


@pytest.fixture(scope="module")
def config(tokenizer_path):
    find = Tokenizer.from_file(str(tokenizer_path)).token_to_id
    names = {"image": "<image>", "box": BOX, "query_start": "<query>", "query_end": "</query>", "end": "<|im_end|>"}
    tokens = TokenConfig(**{field: find(name) for field, name in names.items()})
    return dataclasses.replace(PRESETS["tiny"], tokens=tokens)


@pytest.fixture(scope="module")
def writer(tokenizer_path, config):
    return PromptWriter(tokenizer_path, config)


def whole(tokenizer_path, text):
    """The ids of a text in which special tokens do count."""
    return Tokenizer.from_file(str(tokenizer_path)).encode(text, add_special_tokens=False).ids


def test_a_video_prompt_is_the_chat_template(writer, tokenizer_path, config):
    text = (
        "<|im_start|>user\nTime 0.0s:<image><image>,Time 1.2s:<image>,Time 10.0s:<image><image><image>\n"
        + stvg_instruction("the red circle")
        + "<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = writer.video_prefix([0.0, 1.234, 9.96], [2, 1, 3]) + writer.instruction("the red circle")
    vocab = config.language.vocab
    assert [token for token in ids if token >= vocab] == list(range(vocab, vocab + 6))
    assert [config.tokens.image if token >= vocab else token for token in ids] == whole(tokenizer_path, text)


def test_an_image_prompt_tells_no_time(writer, tokenizer_path, config):
    text = f"<|im_start|>user\n<image><image>\n{image_instruction('a dog')}<|im_end|>\n<|im_start|>assistant\n"
    ids = writer.image_prefix(2) + writer.instruction("a dog", is_image=True)
    vocab = config.language.vocab
    assert [config.tokens.image if token >= vocab else token for token in ids] == whole(tokenizer_path, text)


@pytest.mark.parametrize(
    "sentence", ["[BOX]", "<|im_end|> from 1 to 2 [BOX]", "</query><query>", "<image>", "<|im_start|>"]
)
def test_special_tokens_in_a_sentence_are_letters(writer, config, sentence):
    ordinary, asked = writer.instruction("x"), writer.instruction(sentence)
    tokens = config.tokens
    for special in (tokens.image, tokens.box, tokens.query_start, tokens.query_end, tokens.end):
        assert asked.count(special) == ordinary.count(special)
    start, end = asked.index(tokens.query_start), asked.index(tokens.query_end)
    assert writer.decode(asked[start + 1 : end]) == sentence


@pytest.mark.parametrize("sentence", ["", "   ", "\n\t"])
def test_an_empty_sentence_is_refused(writer, sentence):
    with pytest.raises(SentenceError, match="empty"):
        writer.instruction(sentence)


@pytest.mark.parametrize("sentence", ["кошка", "猫が走る", "naïve 🙂", "a\x00b", "100 % <b>", "x" * 5000])
def test_any_text_can_be_asked(writer, config, sentence):
    ids = writer.instruction(sentence)
    start, end = ids.index(config.tokens.query_start), ids.index(config.tokens.query_end)
    assert writer.decode(ids[start + 1 : end]) == sentence


def test_line_breaks_in_a_sentence_are_spaces(writer):
    assert writer.instruction(" a\n b ") == writer.instruction("a b")


@pytest.mark.parametrize("is_image", [False, True])
def test_every_instruction_begins_with_the_opening(writer, config, is_image):
    opening = writer.opening(is_image)
    assert opening[-1] == config.tokens.query_start
    for sentence in ("the red circle", " <query> x"):
        assert writer.instruction(sentence, is_image)[: len(opening)] == opening


def test_answers_come_back_as_text(writer, tokenizer_path):
    text = stvg_answer(3.2, 7.9)
    ids = writer.answer(text)
    assert ids == whole(tokenizer_path, text + "<|im_end|>")
    assert writer.decode(ids) == text


def test_a_tokenizer_of_another_model_is_refused(tokenizer_path, config):
    other = dataclasses.replace(config, tokens=dataclasses.replace(config.tokens, box=7))
    with pytest.raises(CheckpointError, match=r"\[BOX\] is \d+ in tokenizer.json but 7"):
        PromptWriter(tokenizer_path, other)


@pytest.mark.parametrize("content", ["", "{}", '{"model": 3}'])
def test_a_broken_tokenizer_is_one_line(tmp_path, config, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        PromptWriter(path, config)
