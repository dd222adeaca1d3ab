"""What synthetic clips teach: labels, which tokens attention is led to, and the tokenizer."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from devil.config import PRESETS, LanguageConfig, VisionConfig
from devil.data.dice import Dice
from devil.data.shapes import COLOURS, HELD_OUT_PAIRS
from devil.model.devil import DevilModel
from devil.prompt import BOX, IMAGE, QUERY_END, QUERY_START, TURN_END, PromptWriter, stvg_answer, timestamp
from devil.training.beginning import begin
from devil.training.comparison import LAYER, begin_comparison
from devil.training.gallery import gallery
from devil.training.heads import ReferentHeads
from devil.training.hints import (
    evidence,
    own_times,
    places_kept,
    shapes_before,
    some_owned,
    wanted_frames,
    wanted_shapes,
)
from devil.training.joint import JointObjective, draw_window
from devil.training.labels import TokenLabels
from devil.training.language import attention_rows, language_pass
from devil.training.mixing import UNMIXED
from devil.training.samples import clip_sample, sample_of
from devil.training.symbols import SymbolTokens
from devil.training.teaching import (
    ANSWER_LENGTH,
    END,
    RST,
    START,
    TeachingObjective,
    draw_gallery,
    draw_symbols,
    draw_teaching,
    referents,
)
from devil.training.tokenizer import tiny_tokenizer

CONFIG = dataclasses.replace(
    PRESETS["tiny"],
    vision=VisionConfig(hidden=32, layers=1, heads=2, mlp=48),
    language=LanguageConfig(hidden=32, layers=2, heads=2, kv_heads=1, mlp=48, vocab=656, context=1024),
)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer().save(str(path))
    return PromptWriter(path, PRESETS["tiny"])


@pytest.fixture(scope="module")
def batch(writer):
    return draw_teaching(3, CONFIG, writer, clips=2, questions=3)


def test_the_tokenizer_has_the_ids_of_the_preset():
    tokenizer, config = tiny_tokenizer(), PRESETS["tiny"]
    told = config.tokens
    named = {IMAGE: told.image, BOX: told.box, QUERY_START: told.query_start, QUERY_END: told.query_end}
    for token, number in (named | {TURN_END: told.end}).items():
        assert tokenizer.token_to_id(token) == number
    assert tokenizer.get_vocab_size() <= config.language.vocab


def test_every_time_is_one_token_and_the_same_one_in_prompt_and_answer(writer):
    for tenth in range(201):
        time = timestamp(tenth / 10)
        (token,) = writer.text(time)
        assert token in writer.text(f",Time {time}s:")
        assert writer.answer(stvg_answer(tenth / 10, 0.0))[1] == token


@pytest.mark.parametrize(
    "text", ["été 12 < 3.75 [BOX] <|im_end|>", "日本語 🙂", "from  1.5\tto 2.5", "The RED circle!"]
)
def test_any_text_can_be_written_and_read_back(writer, text):
    assert writer.decode(writer.text(text)) == text
    assert max(writer.text(text)) < PRESETS["tiny"].language.vocab


def test_places_of_an_answer_are_those_that_predict_its_times_and_its_box(writer, batch):
    packed, length = batch.packed, batch.packed.segments.shape[1]
    ids = packed.token_ids.flatten()
    for number, place in enumerate(packed.answers):
        clip = number // 3
        query = batch.queries[clip][number % 3]
        first, last = batch.samples[clip].clip.span(query)
        assert ids[place + START + 1] == writer.text(timestamp(first))[0]
        assert ids[place + END + 1] == writer.text(timestamp(last))[0]
        assert place + RST + 1 == packed.boxes[number]
        assert ids[place + ANSWER_LENGTH] == CONFIG.tokens.end
        assert place // length == clip


def test_labels_say_whose_centre_lies_in_which_cell():
    sample = clip_sample(11, PRESETS["tiny"], "4:3", 120)
    clip, labels = sample.clip, sample.labels
    rows, columns = np.unique(sample.positions[:, 0]).size // 2, np.unique(sample.positions[:, 1]).size // 2
    assert labels.owner.shape == (16, rows * columns)
    found = 0
    for frame in range(16):
        for cell in range(rows * columns):
            shape = labels.owner[frame, cell]
            if shape < 0:
                assert labels.colour[frame, cell] == labels.shape[frame, cell] == -1
                continue
            found += 1
            x0, y0, x1, y1 = clip.boxes[shape, frame]
            x, y = (x0 + x1) / 2 * columns, (y0 + y1) / 2 * rows
            assert (int(y), int(x)) == divmod(cell, columns)
            assert labels.colour[frame, cell] == clip.colours[shape]
            np.testing.assert_allclose(
                labels.offset[frame, cell], [x % 1, y % 1, (x1 - x0) * columns, (y1 - y0) * rows], atol=1e-5
            )
            assert labels.new[frame, cell] == (frame > 0 and not clip.visible[shape, frame - 1])
    assert found >= clip.visible.sum() * 0.8  # two centres may share a cell


def test_evidence_lies_where_the_event_can_be_seen():
    kinds = set()
    for seed in range(60):
        sample = clip_sample(seed, PRESETS["tiny"], "1:1", 96)
        clip, labels = sample.clip, sample.labels
        for query in clip.queries:
            telling = evidence(clip, query)
            assert telling.any()
            assert not (telling & ~clip.visible[query.target]).any()
            owned = (labels.owner == query.target) & telling[:, None]
            if query.kind in ("starts_moving", "leaves"):
                assert labels.moved[owned].all()
            if query.kind == "stops_moving":
                assert not labels.moved[owned].any()
            if query.kind == "blinks":
                assert labels.pale[owned].all()
            kinds.add(query.kind)
    assert len(kinds) == 6


def test_moved_means_most_of_a_step():
    for seed in range(30):
        sample = clip_sample(seed, PRESETS["tiny"], "1:1", 96)
        centres = (sample.clip.boxes[..., :2] + sample.clip.boxes[..., 2:]) / 2
        for shape, shown in enumerate(sample.clip.visible):
            shift = np.linalg.norm(np.diff(centres[shape], axis=0), axis=1)
            for frame in np.flatnonzero(shown[1:] & shown[:-1]) + 1:
                moved = sample.labels.moved[frame][sample.labels.owner[frame] == shape]
                if moved.size and moved[0]:
                    assert shift[frame - 1] > 0.01  # a bounce may undo most of a step
                elif moved.size:
                    assert shift[frame - 1] < 0.25 * 0.13 * 1.5


def test_attention_is_led_to_the_shape_and_to_the_ends_of_its_span(batch):
    packed = batch.packed
    clips = [sample.clip for sample in batch.samples]
    shapes = wanted_shapes(packed, batch.labels.owner, clips, batch.queries)
    first, last = (wanted_frames(packed, batch.queries, end) for end in ("first", "last"))
    for clip, asked in enumerate(batch.queries):
        for number, query in enumerate(asked):
            frames = packed.frame_of[clip][shapes[clip, number].numpy()]
            assert set(frames) <= set(range(query.first, query.last + 2))
            assert set(packed.frame_of[clip][first[clip, number].numpy()]) == {query.first}
            assert set(packed.frame_of[clip][last[clip, number].numpy()]) == {query.last}
            assert packed.is_visual[clip][shapes[clip, number].numpy()].all()


def test_visual_tokens_are_led_to_their_time_and_to_their_shape_in_the_frame_before(batch, writer):
    packed, owner = batch.packed, batch.labels.owner
    rows = some_owned(packed, owner, 10)
    times, before = own_times(packed, rows).numpy(), shapes_before(packed, owner, rows).numpy()
    tokens = owner.shape[2]
    for clip in range(2):
        visual = np.flatnonzero(packed.is_visual[clip])
        for row, place in enumerate(rows[clip]):
            frame, cell = divmod(int(np.flatnonzero(visual == place)[0]), tokens)
            shape = owner[clip, frame, cell]
            assert shape >= 0
            (told,) = packed.token_ids[clip][times[clip, row]]
            assert told == writer.text(timestamp(batch.samples[clip].clip.times[frame]))[0]
            seen = [divmod(np.flatnonzero(visual == found)[0], tokens) for found in np.flatnonzero(before[clip, row])]
            same = np.flatnonzero(owner[clip, frame - 1] == shape) if frame else []
            assert seen == [(frame - 1, other) for other in same]


def test_everything_taught_has_a_finite_gradient_and_training_heads_stay_out_of_the_checkpoint(batch):
    torch.manual_seed(0)
    model = DevilModel(CONFIG)
    teaching = TeachingObjective(model, ReferentHeads(CONFIG.detector.hidden), {})
    losses, _ = teaching.taught(batch)
    teaching.weights = dict.fromkeys(losses, 1.0)
    objective = JointObjective(teaching, window=2, detector_weight=1.0)
    objective(batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name
    assert model.model.embed_tokens.weight.grad.abs().max() > 0
    assert not any("appearance" in name or "referents" in name for name in model.state_dict())


def test_windows_lie_on_the_tube(batch):
    window = draw_window(dataclasses.replace(batch, mixtures=(UNMIXED, UNMIXED)), 3, Dice("window"))
    assert window.present.any(1).all()
    assert window.frames.shape[0] == window.target.shape[0] * window.target.shape[1] == 6
    colours, _ = referents(batch)
    assert len(colours) == 6


def test_the_detector_is_not_asked_about_clips_that_it_would_see_otherwise(batch):
    strange = dataclasses.replace(UNMIXED, colours=UNMIXED.colours.flip(0))
    window = draw_window(dataclasses.replace(batch, mixtures=(strange, UNMIXED)), 3, Dice("window"))
    assert window.question.tolist() == [question for question in window.question.tolist() if question >= 3]
    assert len(window.frames) == 3


def test_colours_without_a_name_are_never_near_one_that_the_shape_is_held_out_with():
    nameless = 0
    for seed in range(40):
        clip = gallery(seed, 96, "1:1")
        for actor, colour in zip(clip.scene.actors, clip.colours, strict=True):
            held_out = [name for name, shape in HELD_OUT_PAIRS if shape == actor.shape]
            assert all(np.linalg.norm(np.subtract(actor.rgb, COLOURS[name])) > 65 for name in held_out)
            nameless += colour < 0
    assert nameless > 60


def test_what_a_shape_does_not_teach_may_look_like_anything_but_nothing_else_may_change():
    labels = sample_of(gallery(0, 96, "1:1"), PRESETS["tiny"]).labels
    labels = TokenLabels(**{name: value[None] for name, value in vars(labels).items()})
    assert (labels.colour[labels.owner >= 0] < 0).any()
    symbols = SymbolTokens(256)
    codes = symbols(labels)
    nameless = torch.from_numpy((labels.owner >= 0) & (labels.colour < 0))[..., None]
    assert symbols.likeness_loss(codes, labels) == 0
    assert symbols.likeness_loss(codes + nameless * symbols.colour[3], labels) < 1e-9
    assert symbols.likeness_loss(codes + ~nameless * symbols.colour[3], labels) > 0.01
    assert symbols.likeness_loss(codes + nameless * symbols.shape[3], labels) > 0.01
    outlined = torch.from_numpy((labels.owner >= 0) & (labels.shape < 0))[..., None]
    assert symbols.likeness_loss(codes + outlined * symbols.shape[3], labels) < 1e-9
    assert symbols.likeness_loss(codes + outlined * symbols.colour[3], labels) > 0.01


def test_gallery_pictures_show_only_training_pairs_and_teach_no_words(writer):
    crowd = [gallery(seed, 96, "1:1") for seed in range(5)]
    assert np.mean([len(clip.colours) for clip in crowd]) > 3
    again = sample_of(gallery(2, 96, "1:1"), PRESETS["tiny"])
    np.testing.assert_array_equal(again.clip.frames, crowd[2].frames)
    batch = draw_gallery(0, CONFIG, writer, 2)
    torch.manual_seed(0)
    losses, output = TeachingObjective(DevilModel(CONFIG), ReferentHeads(128), {}).taught(batch)
    assert output is None
    assert set(losses) == {"found", "colour", "shape", "size", "pale", "offset", "likeness"}


def test_a_model_begins_able_to_copy_words(writer):
    config = dataclasses.replace(PRESETS["tiny"], language=dataclasses.replace(CONFIG.language, hidden=64))
    model = DevilModel(config)
    begin(model, writer)
    words, head = model.model.embed_tokens.weight, model.lm_head.weight
    assert (words @ head.T).argmax(1).eq(torch.arange(len(words))).float().mean() > 0.9
    (a,), (b,), (c,) = (writer.text(time) for time in ("3.0", "3.1", "9.0"))
    near, far = torch.cosine_similarity(words[a], words[b], 0), torch.cosine_similarity(words[a], words[c], 0)
    assert near > far


def test_shift_is_how_far_a_shape_has_come_in_cells():
    sample = clip_sample(11, PRESETS["tiny"], "4:3", 120)
    columns, rows = (np.unique(sample.positions[:, axis]).size // 2 for axis in (1, 0))
    centres = (sample.clip.boxes[..., :2] + sample.clip.boxes[..., 2:]) / 2 * (columns, rows)
    owner, shown = sample.labels.owner, sample.clip.visible
    seen = [(frame, cell) for frame, cell in np.argwhere(owner >= 0) if frame and shown[owner[frame, cell], frame - 1]]
    assert len(seen) > 10
    for frame, cell in seen:
        shape = owner[frame, cell]
        expected = centres[shape, frame] - centres[shape, frame - 1]
        np.testing.assert_allclose(sample.labels.shift[frame, cell], expected, atol=1e-5)


def test_an_imperfect_eye_misreads_what_rests_the_same_way_in_every_frame():
    labels = clip_sample(3, PRESETS["tiny"], "1:1", 96).labels
    labels = TokenLabels(**{name: value[None] for name, value in vars(labels).items()})
    torch.manual_seed(0)
    symbols = SymbolTokens(256)
    misread = (symbols.noisy(labels) - symbols(labels))[0]
    change = misread.diff(dim=0).square().mean(-1).sqrt().numpy()  # [T - 1, G]
    resting = (labels.owner[0, 1:] == labels.owner[0, :-1]) & (labels.shift[0, 1:] == 0).all(-1)
    resting &= labels.pale[0, 1:] == labels.pale[0, :-1]
    on_its_way = labels.moved[0, 1:]
    assert resting.any()
    assert on_its_way.any()
    assert change[resting].max() < 0.2 < change[on_its_way].min()


def test_two_heads_begin_by_finding_what_rests_and_nothing_else(writer):
    config = PRESETS["tiny"]
    torch.manual_seed(0)
    model, symbols = DevilModel(config), SymbolTokens(config.language.hidden)
    begin(model, writer)
    begin_comparison(model, symbols, writer.video_prefix([0.0], [1])[0])
    batch = draw_symbols(0, config, writer, clips=4, questions=2)
    rows = some_owned(batch.packed, batch.labels.owner, 40)
    with torch.no_grad():
        output = language_pass(model, batch.packed, symbols.noisy(batch.labels).flatten(0, 2))
        attention = attention_rows(model, output, batch.packed, LAYER, torch.from_numpy(rows)).exp()
    kept = places_kept(batch.packed, batch.labels, rows)
    rests = ~kept[..., 0]
    on_kept = (attention[:, 2:] * kept[:, None]).sum(-1).mean(1)
    assert on_kept[rests].mean() > 0.8  # of the attention of a shape that rests goes to where it has rested
    assert on_kept[~rests].mean() > 0.2  # and some of one that moves to the first token, of hundreds
    assert attention[:, 2:, :, 0].mean(1)[rests].mean() < 0.2
    torch.manual_seed(0)
    begin(plain := DevilModel(config), writer)
    with torch.no_grad():
        output = language_pass(plain, batch.packed, symbols.noisy(batch.labels).flatten(0, 2))
        attention = attention_rows(plain, output, batch.packed, LAYER, torch.from_numpy(rows)).exp()
    assert (attention[:, 2:] * kept[:, None]).sum(-1).mean(1)[rests].mean() < 0.3


def test_a_place_is_kept_from_the_frame_where_the_rest_began():
    batch = clip_sample(5, PRESETS["tiny"], "1:1", 96)
    labels = TokenLabels(**{name: value[None] for name, value in vars(batch.labels).items()})
    frames, tokens = labels.owner.shape[1:]
    packed = SimpleNamespace(
        token_ids=np.zeros((1, frames * tokens), int),
        is_visual=np.ones((1, frames * tokens), bool),
        frame_of=np.repeat(np.arange(frames), tokens)[None],
    )
    rows = np.flatnonzero(labels.owner[0].reshape(-1) >= 0)[None]
    kept = places_kept(packed, labels, rows)[0].numpy()
    for row, place in enumerate(rows[0]):
        frame, cell = divmod(int(place), tokens)
        wanted = set()
        while labels.had[0, frame, cell] and not labels.moved[0, frame, cell]:
            if labels.owner[0, frame - 1, cell] != labels.owner[0, frame, cell]:
                break
            frame -= 1
            wanted.add(frame * tokens + cell)
        assert set(np.flatnonzero(kept[row])) == (wanted or {0})
