"""Turns, warm-ups and budgets; contenders in processes of their own."""

import os
import signal

import pytest

from devil.errors import EngineError
from devil.runtime.profile.contender import Setup
from devil.runtime.profile.latency import Latency
from devil.runtime.profile.measuring import measure_all
from devil.runtime.profile.turns import Amount
from devil.runtime.profile.worker import Worker
from tests.runtime.profile.conftest import SENTENCE


def test_percentiles_are_the_textbooks():
    found = Latency.of([float(value) for value in range(101)])
    assert (found.count, found.mean, found.least) == (101, 50.0, 0.0)
    assert (found.p50, found.p90, found.p99) == (50.0, 90.0, 99.0)
    assert Latency.of([2.0]) == Latency(1, 2.0, 2.0, 2.0, 2.0, 2.0)


class FakeCaller:
    """A contender whose runs take `pace` seconds by its own word; writes down who was asked what."""

    def __init__(self, name, pace, calls, workload):
        self.name, self.pace, self.calls, self.workload = name, pace, calls, workload

    def call(self, method, *arguments):
        self.calls.append((self.name, method, *arguments[:2]))
        if method == "measure":
            _, times, budget = arguments
            count = next(done for done in range(1, times + 1) if done == times or done * self.pace >= budget)
            return [self.pace] * count
        return {
            "stages": {"read": self.pace, "total": 2 * self.pace},
            "record": self.workload,
            "memory": {"loaded": 1, "peak": 2},
            "describe": {"engine": "fake"},
            "most_frames": {},
        }.get(method)


@pytest.fixture
def measured(workload):
    """Call with an Amount for (document, calls) of a fast and a slow contender."""

    def run(**amount):
        calls = []
        callers = [FakeCaller(name, pace, calls, workload) for name, pace in (("fast", 0.1), ("slow", 1.0))]
        return measure_all(callers, {}, "clip.mp4", SENTENCE, Amount(**amount)), calls

    return run


def test_contenders_are_measured_in_turns_and_warm_ups_do_not_count(measured):
    document, calls = measured(runs=2, iterations=12, warm_up=3, seconds=1e9)
    turns = [
        (name, times)
        for name, method, *rest in calls
        if method == "measure" and rest[0] == "decode"
        for times in rest[1:]
    ]
    assert turns == [("fast", 3), ("slow", 3)] + [(name, count) for count in (5, 5, 2) for name in ("fast", "slow")]
    fast, slow = document["contenders"]
    assert fast["graphs"]["decode"]["count"] == slow["graphs"]["decode"]["count"] == 12
    assert fast["stages"]["read"]["count"] == 2
    assert [name for name, method, *_ in calls if method == "stages"] == ["fast", "slow"] * 3
    assert slow["graphs"]["backbone"]["per_second"] == slow["graphs"]["backbone"]["items"] / 1.0


def test_a_slow_contender_stops_at_its_budget_and_is_measured_once_at_least(measured):
    document, _ = measured(runs=1, iterations=50, warm_up=0, seconds=3.0)
    fast, slow = document["contenders"]
    assert fast["graphs"]["vision"]["count"] == 30
    assert slow["graphs"]["vision"]["count"] == 3
    document, _ = measured(runs=1, iterations=50, warm_up=0, seconds=0.0)
    assert [values["graphs"]["vision"]["count"] for values in document["contenders"]] == [1, 1]


def test_a_contender_measures_as_often_as_it_is_told(contender):
    assert len(contender.measure("decode", 3)) == 3
    assert len(contender.measure("decode", 50, 0.0)) == 1
    assert min(contender.measure("decode", 2)) > 0


def test_a_contender_in_a_process_answers_refuses_and_may_die(bundle, clip_path):
    with Worker("tiny", Setup(bundle, threads=1)) as worker:
        assert worker.call("describe")["model"] == "scripted"
        stages = worker.call("stages", str(clip_path), SENTENCE)
        assert stages["total"] >= sum(seconds for stage, seconds in stages.items() if stage != "total") - 1e-6
        memory = worker.call("memory")
        assert memory["peak"] is None or memory["peak"] > memory["loaded"] > 0
        with pytest.raises(EngineError, match=r"^tiny: .*clip.avi does not exist"):
            worker.call("stages", "clip.avi", SENTENCE)
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"tiny: its process died of SIGKILL \(describe\): run devil-doctor"):
            worker.call("describe")


def test_a_contender_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(EngineError, match=r"nothing: .*holds no manifest.json"):
        Worker("nothing", Setup(tmp_path))
