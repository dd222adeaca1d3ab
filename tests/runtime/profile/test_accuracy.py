"""How far contenders are apart: known differences are found, near-ties may swap places, the worst comes first."""

import sys

import numpy as np
import pytest

from devil.config import PRESETS
from devil.contract import contract
from devil.errors import MissingPackageError
from devil.runtime.profile.accuracy import compare
from devil.runtime.profile.workload import Case

CONFIG = PRESETS["tiny"]


def case_of(graph, contender_name="vision"):
    spec = contract(CONFIG)[graph]
    feeds = {
        tensor.name: np.zeros(
            [size if isinstance(size, int) else 2 for size in tensor.shape], tensor.numpy_dtype("fp32")
        )
        for tensor in spec.inputs
        if not tensor.name.startswith("past_")
    }
    return Case(contender_name, graph, feeds, 2, "frames"), spec


@pytest.fixture
def detections():
    random = np.random.default_rng(0)
    centres, sizes = random.uniform(0.2, 0.8, (2, 8, 2)), random.uniform(0.1, 0.3, (2, 8, 2))
    values = {
        "logits": random.normal(size=(2, 8)),
        "boxes": np.concatenate([centres, sizes], -1),
        "embeddings": random.normal(size=(2, 8, 16)),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def test_a_known_difference_is_found_and_the_worst_comes_first():
    pytest.importorskip("polygraphy")
    case, spec = case_of("language", "decode")
    random = np.random.default_rng(1)
    expected = {name: random.uniform(-4, 4, (1, 1, 8)).astype(np.float32) for name in ("logits", "hidden")}
    found = {name: value.copy() for name, value in expected.items()}
    found["hidden"][0, 0, 3] += 0.5
    found["logits"] += 0.001
    worst, best = compare(case, spec, lambda: expected, {"other": lambda: found})["other"]
    assert (worst.case, worst.tensor, best.tensor) == ("decode", "hidden", "logits")
    assert worst.largest == pytest.approx(0.5, rel=1e-5)
    assert worst.mean == pytest.approx(0.5 / 8, rel=1e-5)
    assert worst.relative == pytest.approx(0.5 / np.abs(expected["hidden"]).max(), rel=1e-5)
    assert best.cosine == pytest.approx(1, abs=1e-6)
    assert worst.cosine < best.cosine


def test_detections_that_swap_places_are_the_same(detections):
    pytest.importorskip("polygraphy")
    case, spec = case_of("grounder", "grounder")
    swapped = {name: value[:, ::-1].copy() for name, value in detections.items()}
    for difference in compare(case, spec, lambda: detections, {"other": lambda: swapped})["other"]:
        assert (difference.largest, difference.slots) == (0, 1)


def test_a_detection_that_the_other_lacks_is_counted_and_not_compared(detections):
    pytest.importorskip("polygraphy")
    case, spec = case_of("grounder", "grounder")
    other = {name: value.copy() for name, value in detections.items()}
    other["boxes"][0, 0] = (0.01, 0.01, 0.01, 0.01)
    other["logits"][1, 3] += 0.25
    found = {
        difference.tensor: difference
        for difference in compare(case, spec, lambda: detections, {"o": lambda: other})["o"]
    }
    assert {difference.slots for difference in found.values()} == {15 / 16}
    assert found["boxes"].largest == 0
    assert found["logits"].largest == pytest.approx(0.25, rel=1e-5)


def test_several_contenders_are_each_compared_with_the_first(detections):
    pytest.importorskip("polygraphy")
    case, spec = case_of("grounder", "grounder")
    other = {**detections, "logits": detections["logits"] + 1}
    found = compare(case, spec, lambda: detections, {"same": lambda: detections, "shifted": lambda: other})
    assert max(difference.largest for difference in found["same"]) == 0
    assert (found["shifted"][0].tensor, found["shifted"][0].largest) == ("logits", pytest.approx(1, rel=1e-5))


def test_without_polygraphy_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    case, spec = case_of("vision")
    with pytest.raises(MissingPackageError, match=r"polygraphy.*devil-deploy\[profile\]"):
        compare(case, spec, dict, {})
