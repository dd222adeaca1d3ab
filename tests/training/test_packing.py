"""Packed questions: numbers equal to those of separate sequences, and labels where the answer is."""

import dataclasses

import numpy as np
import pytest
import torch

from devil.config import PRESETS, LanguageConfig
from devil.model.devil import DevilModel
from devil.prompt import BOX, PromptWriter
from devil.training.language import answer_loss, attention_rows, language_pass
from devil.training.packing import block_mask, collate, pack_image, pack_video
from devil.training.tokenizer import tiny_tokenizer

CONFIG = dataclasses.replace(
    PRESETS["tiny"], language=LanguageConfig(hidden=32, layers=2, heads=2, kv_heads=1, mlp=48, vocab=656, context=512)
)
DIALOGUE = [
    ("the red circle leaves", f"It happens from 0.5 to 1.0 seconds. {BOX}"),
    ("which small blue ring is visible?", f"It happens from 0.0 to 0.5 seconds. {BOX}"),
    ("a sentence of other words, 12 of them", "No such thing."),
]
KEPT = [3, 1, 2]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer().save(str(path))
    return PromptWriter(path, CONFIG)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = DevilModel(CONFIG).double()
    for parameter in model.model.layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def packed(writer, dialogue):
    return pack_video(writer, [0.0, 0.5, 1.0], KEPT, dialogue)


def test_questions_in_one_sequence_give_the_numbers_of_separate_sequences(writer, model):
    table = torch.randn(2, sum(KEPT), 32, dtype=torch.float64)
    together = collate([packed(writer, DIALOGUE), packed(writer, DIALOGUE[:2])], sum(KEPT), 656, multiple=8)
    joint = language_pass(model, together, table.flatten(0, 1))
    done = 0
    for clip, dialogue in enumerate((DIALOGUE, DIALOGUE[:2])):
        for question in dialogue:
            alone = collate([packed(writer, [question])], sum(KEPT), 656)
            single = language_pass(model, alone, table[clip])
            count = len(alone.read)
            torch.testing.assert_close(joint.logits[done : done + count], single.logits, rtol=1e-9, atol=1e-9)
            np.testing.assert_array_equal(together.targets[done : done + count], alone.targets)
            done += count
    assert done == len(together.read)


def test_the_answer_and_nothing_else_is_learned(writer):
    one = packed(writer, DIALOGUE[:1])
    expected = writer.answer(DIALOGUE[0][1])
    assert one.targets.tolist() == expected
    assert one.token_ids[one.read[0] + 1 :].tolist() == expected
    assert one.answers.tolist() == [len(one.token_ids) - len(expected) - 1]
    assert one.token_ids[one.boxes[0]] == CONFIG.tokens.box
    assert packed(writer, DIALOGUE[2:]).boxes.tolist() == [-1]
    output_like = torch.zeros(len(expected), 656)
    assert float(answer_loss(type("Output", (), {"logits": output_like}), one)) == pytest.approx(np.log(656), rel=1e-6)


def test_a_packed_prompt_is_the_prompt_of_inference(writer):
    prompt = writer.video_prefix([0.0, 0.5, 1.0], KEPT) + writer.instruction(DIALOGUE[0][0])
    one = packed(writer, DIALOGUE[:1])
    assert one.token_ids[: one.answers[0] + 1].tolist() == prompt
    picture = pack_image(writer, 4, [("the red circle", f"It is here. {BOX}")])
    assert picture.token_ids[: picture.answers[0] + 1].tolist() == writer.image_prefix(4) + writer.instruction(
        "the red circle", is_image=True
    )


def test_tokens_of_the_video_know_their_frame(writer):
    one = packed(writer, DIALOGUE[:1])
    visual = one.frame_of[one.is_visual]
    assert visual.tolist() == [0, 0, 0, 1, 2, 2]
    assert (one.frame_of[one.segments > 0] == -1).all()
    times = {writer.text(time)[0]: frame for frame, time in enumerate(("0.0", "0.5", "1.0"))}
    for place in np.flatnonzero(one.segments == 0):
        if one.token_ids[place] in times:
            assert one.frame_of[place] == times[one.token_ids[place]]


def test_block_mask_equals_its_definition():
    segments = np.array([[0, 0, 1, 1, 2, -1], [0, 1, 1, 2, 2, 2]])
    mask = block_mask(segments)
    for row, own in enumerate(segments):
        for i in range(6):
            for j in range(6):
                assert mask[row, i, j] == (j <= i and (own[j] == 0 or own[j] == own[i]))


def test_recomputed_attention_is_the_attention_of_the_layer(writer, model):
    batch = collate([packed(writer, DIALOGUE), packed(writer, DIALOGUE)], sum(KEPT), 656)
    table = torch.randn(2 * sum(KEPT), 32, dtype=torch.float64)
    output = language_pass(model, batch, table)
    model.set_attn_implementation("eager")
    allowed = torch.from_numpy(block_mask(batch.segments))[:, None]
    mask = torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, torch.finfo(torch.float64).min)
    whole = model.model(
        inputs_embeds=model.embed(torch.from_numpy(batch.token_ids), table),
        attention_mask=mask,
        position_ids=output.positions,
        output_attentions=True,
    )
    model.set_attn_implementation("sdpa")
    length = batch.segments.shape[1]
    rows = torch.from_numpy(batch.answers.reshape(2, -1) % length)
    for layer, expected in enumerate(whole.attentions):
        found = attention_rows(model, output, batch, layer, rows).exp()
        index = rows[:, None, :, None].expand(-1, expected.shape[1], -1, length)
        # transformers' softmax is in float32
        torch.testing.assert_close(found, expected.gather(2, index), rtol=1e-5, atol=1e-7)
