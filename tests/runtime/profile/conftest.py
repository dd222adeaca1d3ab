"""A contender of the small scripted model, with its workload."""

import pytest

from devil.runtime.profile.contender import Contender, Setup

SENTENCE = "the red circle"


@pytest.fixture(scope="session")
def recorded(bundle, clip_path):
    """A contender and its workload; loaded once."""
    found = Contender(Setup(bundle, "onnxruntime", threads=1))
    return found, found.record(str(clip_path), SENTENCE)


@pytest.fixture
def workload(recorded):
    return recorded[1]


@pytest.fixture
def contender(recorded):
    """With its cache filled anew: a test may have given it other runs."""
    found, workload = recorded
    found.take(workload)
    return found


@pytest.fixture
def document():
    """A profile of two contenders, as `devil-profile` writes it."""

    def latency(p50):
        return {"count": 10, "mean": p50, "least": p50 / 2, "p50": p50, "p90": 1.5 * p50, "p99": 2 * p50}

    def contender(name, factor):
        stages = {"read": 0.1, "vision": 0.3, "grounder": 0.6, "total": 1.0}
        graphs = {"vision": (0.25, 16, "frames"), "decode": (0.002, 1, "tokens")}
        return {
            "name": name,
            "engine": "onnxruntime",
            "open_seconds": 0.5,
            "weight_bytes": 30_000_000,
            "memory": {"loaded": None, "peak": 200_000_000, "gpu": 3_000_000_000},
            "stages": {stage: latency(factor * seconds) for stage, seconds in stages.items()},
            "graphs": {
                case: {**latency(factor * p50), "items": items, "unit": unit, "per_second": items / (factor * p50)}
                for case, (p50, items, unit) in graphs.items()
            },
        }

    return {"schema": 1, "contenders": [contender("fp32", 1), contender("fp16", 0.5)], "accuracy": None}
