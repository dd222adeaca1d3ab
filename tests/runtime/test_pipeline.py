"""The runtime against the PyTorch model, and what the pipeline promises about its answers."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from devil.answer import Span
from devil.clip import load_clip
from devil.errors import EngineError, SentenceError, VideoError
from devil.export.bundle import write_bundle
from devil.export.graphs import GraphBuilder
from devil.export.plan import Plan
from devil.model.checkpoint import TOKENIZER, load_model
from devil.model.inference import TorchGrounder
from devil.prompt import PromptWriter
from devil.runtime import render as drawing
from devil.runtime.answer import boxes_per_frame
from devil.runtime.drafting import TemplateDraft
from devil.runtime.limits import Limits
from devil.runtime.pipeline import Grounder
from devil.runtime.sampling import Sampling
from devil.tube import Tube, to_pixels
from tests.scripted import ANSWER

SENTENCES = ("the red circle", "a blue square that moves")


@pytest.fixture(scope="module")
def grounder(bundle):
    return Grounder.open(bundle, threads=1)


@pytest.fixture(scope="module")
def video(grounder, clip_path):
    return grounder.encode(clip_path)


def torch_answer(checkpoint, path, sentence):
    model = load_model(checkpoint)
    return TorchGrounder(model, PromptWriter(checkpoint / TOKENIZER, model.devil)).ground(
        load_clip(path, model.devil), sentence
    )


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_runtime_answers_as_the_pytorch_model(video, checkpoint, clip_path, sentence):
    expected = torch_answer(checkpoint, clip_path, sentence)
    found = video.ground(sentence)
    assert found.text == expected.text == ANSWER
    assert found.span == expected.span
    np.testing.assert_allclose(found.rst, expected.rst, atol=2e-5)
    boxes = to_pixels(expected.boxes, found.info.width, found.info.height)
    np.testing.assert_allclose(found.tube.boxes, boxes, atol=0.02)
    np.testing.assert_allclose(found.tube.scores, expected.scores, atol=1e-4)
    assert found.problems == ()


def test_the_rst_depends_on_the_sentence_and_not_on_what_was_asked_before(grounder, clip_path):
    video = grounder.encode(clip_path)
    first, second, again = (video.ground(sentence).rst for sentence in (*SENTENCES, SENTENCES[0]))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(first, again)


def test_sentences_asked_together_are_answered_as_alone(grounder, clip_path):
    together = grounder.encode(clip_path).ground_many([*SENTENCES, SENTENCES[0]])
    for sentence, ours in zip((*SENTENCES, SENTENCES[0]), together, strict=True):
        alone = grounder.encode(clip_path).ground(sentence)
        assert (ours.sentence, ours.text, ours.span) == (sentence, alone.text, alone.span)
        np.testing.assert_allclose(ours.rst, alone.rst, atol=2e-5)
        np.testing.assert_allclose(ours.tube.boxes, alone.tube.boxes, atol=0.02)


def test_sentences_asked_together_share_the_time_of_the_language_model(grounder, clip_path):
    first, second = grounder.encode(clip_path).ground_many(SENTENCES)
    assert set(first.timings) == {"read", "vision", "prefill", "language", "backbone", "grounder", "link"}
    assert set(second.timings) == {"language", "grounder", "link"}
    assert first.timings["language"] == second.timings["language"]
    assert grounder.encode(clip_path).ground_many([]) == []


def test_drafts_halve_the_steps_and_change_no_answer(grounder, clip_path, monkeypatch):
    drafted = grounder.encode(clip_path).ground(SENTENCES[0])
    monkeypatch.setattr(grounder, "drafts", {False: TemplateDraft([], str)})
    plain = grounder.encode(clip_path).ground(SENTENCES[0])
    assert drafted.text == plain.text
    np.testing.assert_allclose(drafted.rst, plain.rst, atol=2e-5)
    assert plain.decoding["steps"] >= 2 * drafted.decoding["steps"]
    assert plain.decoding == {"tokens": 6, "steps": 6, "drafted": 0, "accepted": 0}


def test_words_can_be_drawn_with_a_seed(video):
    wild = [video.ground(SENTENCES[0], sampling=Sampling(temperature=50.0, seed=seed)).text for seed in (1, 1, 2)]
    assert wild[0] == wild[1] != wild[2]
    assert video.ground(SENTENCES[0], sampling=Sampling(top_k=1)).text == video.ground(SENTENCES[0]).text == ANSWER


def test_words_are_told_as_they_are_said(video):
    heard = []
    answers = video.ground_many(SENTENCES, on_text=lambda index, text: heard.append((index, text)))
    for index, answer in enumerate(answers):
        texts = [text for which, text in heard if which == index]
        assert len(texts) == answer.decoding["tokens"]
        assert texts[-1] == answer.text
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


def test_reading_the_prompt_shows_progress(grounder, clip_path):
    heard = []
    grounder.encode(clip_path, lambda *news: heard.append(news))
    *_, (stage, done, total) = heard
    assert (stage, done) == ("reading the prompt", total)
    assert total > grounder.config.max_tokens / 2  # visual tokens and words


def test_a_video_beyond_the_context_is_refused_before_the_model_looks(grounder, clip_path, monkeypatch):
    monkeypatch.setattr(grounder, "config", dataclasses.replace(grounder.config, max_new_tokens=5000))
    monkeypatch.setattr(grounder, "vision", None)
    with pytest.raises(VideoError, match="the model holds 2048"):
        grounder.encode(clip_path)


def test_the_rst_can_be_read_at_the_input_position(scripted, clip_path):
    checkpoint, bundle = scripted(rst_position="input")
    found = Grounder.open(bundle).encode(clip_path).ground(SENTENCES[0])
    np.testing.assert_allclose(found.rst, torch_answer(checkpoint, clip_path, SENTENCES[0]).rst, atol=2e-5)


def test_the_tube_lies_on_sampled_frames_inside_the_span_and_the_picture(video):
    answer = video.ground(SENTENCES[0])
    tube, info = answer.tube, answer.info
    assert set(tube.frames.tolist()) <= set(video.clip.indices.tolist())
    assert (np.diff(tube.frames) > 0).all()
    assert tube.times.tolist() == [float(info.times[frame]) for frame in tube.frames]
    assert (tube.boxes >= 0).all()
    assert (tube.boxes[:, 2] <= info.width).all()
    assert (tube.boxes[:, 3] <= info.height).all()


def test_a_dense_tube_has_a_box_on_every_decoded_frame_of_the_span(video):
    sampled, dense = video.ground(SENTENCES[0]).tube, video.ground(SENTENCES[0], dense=True).tube
    assert dense.frames.tolist() == list(range(sampled.frames[0], sampled.frames[-1] + 1))


def test_span_only_asks_the_detector_about_the_span_alone(grounder, clip_path):
    video = grounder.encode(clip_path)
    answer = video.ground(SENTENCES[0], span_only=True)
    assert sorted(video.tubes.features) == video.clip.rows_in_span(answer.span).tolist()
    whole = video.ground(SENTENCES[0])
    assert whole.tube.frames.tolist() == answer.tube.frames.tolist()
    assert len(video.tubes.features) == len(video.clip.frames)


def test_a_second_sentence_pays_for_nothing_of_the_video(grounder, clip_path):
    video = grounder.encode(clip_path)
    first, second = (set(video.ground(sentence).timings) for sentence in SENTENCES)
    assert first == {"read", "vision", "prefill", "language", "backbone", "grounder", "link"}
    assert second == {"language", "grounder", "link"}


def test_an_image_gets_one_box_and_no_span(grounder, checkpoint, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (77, 131, 3), np.uint8)).save(path)
    answer = grounder.encode(path).ground(SENTENCES[0])
    assert answer.tube.frames.tolist() == [0]
    assert answer.span is None  # whatever the words say: an image has no time
    assert answer.problems == ()
    expected = torch_answer(checkpoint, path, SENTENCES[0])
    np.testing.assert_allclose(answer.tube.boxes, to_pixels(expected.boxes, 131, 77), atol=0.02)
    answer.render(tmp_path / "drawn.png")
    assert Image.open(tmp_path / "drawn.png").size == (131, 77)


def test_a_bundle_fixed_to_a_frame_size_answers_about_any_video(builder, checkpoint, clip_path, tmp_path):
    graphs = GraphBuilder(load_model(checkpoint), (64, 96))
    graphs._traced["vision"] = builder._traced["vision"]  # does not depend on the frame size
    write_bundle(graphs, Plan.of("fp32"), checkpoint / TOKENIZER, "fixed", tmp_path / "fixed")
    video = Grounder.open(tmp_path / "fixed").encode(clip_path)
    assert video.clip.frames.shape[1:3] == (64, 96)
    assert video.ground(SENTENCES[0]).tube is not None


@pytest.mark.parametrize(
    ("answer", "span", "has_tube", "problem"),
    [
        ("[BOX]", None, True, "tells no span, so the tube covers the whole video"),
        ("from 0.4 to 1.0", (0.4, 1.0), False, "no [BOX]"),
        ("", None, False, "tells no span"),
        ("It happens from 18.0 to 19.0 seconds. [BOX]", (18.0, 19.0), True, "after the video's end"),
    ],
)
def test_what_an_answer_lacks_is_reported_and_not_invented(scripted, clip_path, answer, span, has_tube, problem):
    found = Grounder.open(scripted(answer)[1]).encode(clip_path).ground(SENTENCES[0])
    assert (found.span and (found.span.start, found.span.end)) == span
    assert (found.tube is not None) == has_tube
    assert problem in " ".join(found.problems)
    assert json.loads(json.dumps(found.to_json()))["problems"] == list(found.problems)
    assert answer in repr(found)
    assert len(repr(found)) < 500


def test_a_sentence_longer_than_the_model_holds_is_one_line(video):
    with pytest.raises(SentenceError, match="tokens"):
        video.ground("the red circle " * 10_000)
    assert video.ground(SENTENCES[0]).text == ANSWER  # and the video can still be asked


def test_boxes_between_sampled_frames_are_interpolated_in_time():
    """Frame times are uneven; a box that moves evenly in time must lie on the line between its neighbours."""
    times = [0.0, 0.1, 0.4, 0.5, 1.0, 2.0]
    boxes = np.array([[0, 0, 10, 10], [20, 40, 30, 50]], np.float32)
    tube = Tube(np.array([1, 4]), np.array([0.1, 1.0]), boxes, np.ones(2))
    found = boxes_per_frame(tube, times)
    assert sorted(found) == [1, 2, 3, 4]
    np.testing.assert_allclose(found[2], boxes[0] + (boxes[1] - boxes[0]) * (0.3 / 0.9), rtol=1e-6)


def test_a_segment_is_answered_from_its_own_start_and_drawn_where_it_lies(grounder, clip_path, tmp_path, monkeypatch):
    whole = grounder.encode(clip_path).clip.info
    first = len(whole) // 2
    answer = grounder.encode(clip_path, segment=(first, len(whole) - 1)).ground(SENTENCES[0])
    assert answer.origin == float(whole.times[first])
    assert answer.span == Span(0.4, 1.0)
    assert answer.tube.frames[0] >= first
    drawn = []
    monkeypatch.setattr(drawing, "render", lambda _info, _boxes, _caption, span, *_rest: drawn.append(span))
    answer.render(tmp_path / "drawn.mp4")
    assert drawn == [(0.4 + answer.origin, 1.0 + answer.origin)]


def test_a_refused_sentence_does_not_lose_the_videos_timings(grounder, clip_path):
    video = grounder.encode(clip_path)
    with pytest.raises(SentenceError):
        video.ground(" ")
    assert "vision" in video.ground(SENTENCES[0]).timings


def test_a_span_that_ends_after_the_video_is_reported(scripted, clip_path):
    found = Grounder.open(scripted("from 0.4 to 19.9 seconds. [BOX]")[1]).encode(clip_path).ground(SENTENCES[0])
    assert "the span ends after the video's end at" in found.problems[0]


def test_a_sentence_too_long_is_refused_before_the_vision_step(grounder, clip_path, monkeypatch):
    monkeypatch.setattr(grounder, "vision", None)
    long = "red " * grounder.config.language.context
    with pytest.raises(SentenceError, match=r"sentence 2: .* the model holds"):
        grounder.encode(clip_path, sentences=[SENTENCES[0], long])


def test_limits_make_a_video_smaller(grounder, bundle, clip_path):
    limited = Grounder.open(bundle, threads=1, limits=Limits(frames=3))
    video = limited.encode(clip_path)
    assert len(video.clip.times) == 3 < len(grounder.encode(clip_path).clip.times)
    assert video.ground(SENTENCES[0]).text == ANSWER
    context = grounder.config.max_new_tokens + 1
    with pytest.raises(VideoError, match=f"the model holds {context}"):
        Grounder.open(bundle, threads=1, limits=Limits(context=context)).encode(clip_path)


def test_a_bundle_that_does_not_fit_into_memory_is_refused_before_it_is_loaded(bundle, monkeypatch):
    monkeypatch.setattr("devil.runtime.pipeline.available_memory", lambda: 100 << 20)
    monkeypatch.setattr("devil.runtime.pipeline.open_bundle", lambda _: pytest.fail("read"))
    with pytest.raises(EngineError, match="even the smallest input is too much"):
        Grounder.open(bundle)
    with pytest.raises(pytest.fail.Exception, match="read"):
        Grounder.open(bundle, check_memory=False)
