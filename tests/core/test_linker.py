"""The linker against an assignment found by trying every permutation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devil.linker import Linker, link


def brute_force_link(embeddings, logits, alpha=0.1):
    """Reference §4 in plain loops; permutations in place of the Hungarian algorithm."""
    memory = [row.copy() for row in embeddings[0]]
    orders = [list(range(len(memory)))]
    for frame, scores in zip(embeddings[1:], logits[1:], strict=True):

        def cost(order, frame=frame):
            return sum(
                1 - memory[s] @ frame[q] / (np.linalg.norm(memory[s]) * np.linalg.norm(frame[q]))
                for s, q in enumerate(order)
            )

        best = min(itertools.permutations(range(len(memory))), key=cost)
        span = scores.max() - scores.min()
        for slot, query in enumerate(best):
            confidence = (scores[query] - scores.min()) / span if span > 0 else 0.0
            memory[slot] = (1 - alpha * confidence) * memory[slot] + alpha * confidence * frame[query]
        orders.append(list(best))
    return np.array(orders)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_linking_equals_trying_every_permutation(frames, queries, seed):
    rng = np.random.default_rng(seed)
    embeddings, logits = rng.normal(size=(frames, queries, 6)), rng.normal(size=(frames, queries))
    assert link(embeddings, logits).tolist() == brute_force_link(embeddings, logits).tolist()


@pytest.mark.parametrize("queries", [1, 7, 15])
def test_shuffled_queries_are_put_back(queries):
    rng = np.random.default_rng(3)
    slots = rng.normal(size=(queries, 32))
    shuffles = [np.arange(queries)] + [rng.permutation(queries) for _ in range(5)]
    embeddings = np.stack([(slots + 0.01 * rng.normal(size=slots.shape))[shuffle] for shuffle in shuffles])
    order = link(embeddings, rng.normal(size=(6, queries)))
    for shuffle, found in zip(shuffles, order, strict=True):
        assert shuffle[found].tolist() == list(range(queries))


def test_equal_logits_leave_the_memory_alone():
    linker = Linker()
    first = np.eye(3)
    linker.step(first, np.zeros(3))
    linker.step(np.roll(first, 1, 0) * 5, np.full(3, 2.0))
    assert linker._memory.tolist() == first.tolist()


def test_a_zero_embedding_does_not_break_linking():
    order = link(np.zeros((3, 4, 8)), np.zeros((3, 4)))
    assert sorted(order[2].tolist()) == [0, 1, 2, 3]


def test_no_frames_give_no_links():
    assert link(np.zeros((0, 4, 8)), np.zeros((0, 4))).shape == (0, 4)
