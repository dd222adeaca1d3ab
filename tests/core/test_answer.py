import pytest
from hypothesis import given
from hypothesis import strategies as st

from devil.answer import Span, parse_span
from devil.prompt import stvg_answer


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("It happens from 3.2 to 7.9 seconds. [BOX]", (3.2, 7.9)),
        ("From 3 to 7", (3, 7)),
        ("from 3.2s to 7.9s", (3.2, 7.9)),
        ("from 3.2 seconds to 7.9 seconds", (3.2, 7.9)),
        ("from 7.9 to 3.2", (3.2, 7.9)),
        ("between 0.0 and 12.5 seconds", (0, 12.5)),
        ("at 3.2 - 7.9", (3.2, 7.9)),
        ("3.2–7.9 s", (3.2, 7.9)),
        ("1 - 2, then from 4 to 5", (4, 5)),
        ("from 2 to 2", (2, 2)),
        ("FROM 1.0 TO 2.0", (1, 2)),
        ("from  1.0\nto  2.0", (1, 2)),
    ],
)
def test_spans_are_read(text, span):
    assert parse_span(text) == Span(*span)


@pytest.mark.parametrize(
    "text", ["", "[BOX]", "from here to there", "3.2", "from 3.2", "between 1 or 2", "a-b", "from -1"]
)
def test_text_without_a_span_gives_none(text):
    assert parse_span(text) is None


def test_numbers_too_large_for_a_float_give_none():
    assert parse_span(f"from 1 to {'9' * 400}") is None


@given(st.integers(0, 99999), st.integers(0, 99999))
def test_taught_answers_are_read_back(first, second):
    start, end = sorted((first / 10, second / 10))
    assert parse_span(stvg_answer(start, end)) == Span(start, end)


@given(st.text(max_size=200))
def test_any_text_is_survived(text):
    parse_span(text)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, float("inf")), (float("nan"), 1)])
def test_impossible_spans_are_refused(start, end):
    with pytest.raises(ValueError, match="not a span"):
        Span(start, end)
