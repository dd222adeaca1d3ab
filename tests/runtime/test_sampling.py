"""Sampling against transformers' own warpers, and draws against their probabilities."""

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from devil.errors import EngineError, UsageError
from devil.runtime.sampling import Sampling, chooser


def theirs(logits, temperature, top_k, top_p):
    """transformers' probabilities; its order of warpers."""
    scores = TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits)[None].double())
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 5, 1000])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 1.0])
def test_probabilities_equal_transformers(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(0, 2, 101).astype(np.float32)
    ours = Sampling(temperature, top_k, top_p).probabilities(logits)
    np.testing.assert_allclose(ours, theirs(logits, temperature, top_k, top_p), atol=1e-12)


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.0, 0.3, 0.15, 0.05]) + 1e-30).astype(np.float32)
    choose = chooser(Sampling(seed=1))
    counts = np.bincount([choose(logits) for _ in range(20_000)], minlength=5)
    assert counts[1] == 0
    # four standard deviations of the widest count: 4 · √(0.25 / 20000)
    np.testing.assert_allclose(counts / 20_000, [0.5, 0, 0.3, 0.15, 0.05], atol=0.0142)


def test_the_same_seed_draws_the_same_and_another_does_not():
    logits = np.random.default_rng(0).normal(size=1000).astype(np.float32)

    def drawn(seed):
        choose = chooser(Sampling(seed=seed))
        return [choose(logits) for _ in range(20)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1e-3), Sampling(top_k=1), Sampling(top_p=1e-9)])
def test_without_chance_the_most_likely_token_is_chosen(sampling):
    logits = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    assert chooser(sampling)(logits) == logits.argmax()


@pytest.mark.parametrize("sampling", [None, Sampling()])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_is_an_error(sampling, value):
    with pytest.raises(EngineError, match="overflowed"):
        chooser(sampling)(np.array([0, value, 1], np.float32))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(values, line):
    with pytest.raises(UsageError, match=line):
        Sampling(**values)
