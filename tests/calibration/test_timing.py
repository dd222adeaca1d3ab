"""Bundles are timed in turns, on caches that begin empty, and a graph that several have is timed once."""

from types import SimpleNamespace

import numpy as np
import pytest

from devil.calibration.captures import CalibrationClip, Captures, Run, begin, write_clip
from devil.calibration.verdict import timing
from devil.calibration.verdict.timing import time_bundles
from devil.contract import GRAPHS


class Machine:
    """Graphs that take the seconds that are said, on a clock that only they move."""

    def __init__(self, monkeypatch, seconds):
        self.seconds, self.now, self.ran, self.caches = seconds, 0.0, [], []
        monkeypatch.setattr(timing, "_load", lambda bundle, graph, _threads: _Runner(self, bundle.graph_hash(graph)))
        monkeypatch.setattr(timing, "open_bundle", lambda path, **_: SimpleNamespace(graph_hash=path.__getitem__))
        monkeypatch.setattr(timing.time, "process_time", lambda: self.now)


class _Runner:
    def __init__(self, machine, name):
        self._machine, self._name = machine, name

    def run(self, _feeds):
        self._machine.ran.append(self._name)
        self._machine.now += self._machine.seconds[self._name]

    def cache(self, rows, capacity):
        self._machine.caches.append((self._name, rows, capacity))
        return self


@pytest.fixture
def captures(tmp_path):
    """Two clips; only the second one has runs of the detector."""
    begin(tmp_path, {})
    feeds = {"x": np.zeros(1)}
    spoken = [Run("vision", 0, feeds), *(Run("language", 0, feeds, 0, capacity) for capacity in (256, 512))]
    found = [Run("backbone", 1, feeds), Run("grounder", 1, feeds)]
    for number, runs in enumerate((spoken, found)):
        write_clip(tmp_path, number, CalibrationClip(tmp_path, ("x",)), runs, [])
    return Captures(tmp_path)


def bundle(**hashes):
    """Stands in for a bundle's path: the hash of each graph."""
    return {graph: hashes.get(graph, f"{graph} fp32") for graph in GRAPHS}


def test_bundles_take_turns_and_what_they_share_is_run_once(monkeypatch, captures):
    seconds = {f"{graph} fp32": 1.0 for graph in GRAPHS} | {"language int8": 0.25, "vision int8": 3.0}
    machine = Machine(monkeypatch, seconds)
    paths = {"fp32": bundle(), "int8": bundle(language="language int8"), "slow": bundle(vision="vision int8")}
    known = {}
    found = time_bundles(paths, captures, known=known, rounds=2)
    # Two runs of the language model belong to one clip.
    assert found["fp32"].graphs == {"vision": 1, "language": 2, "backbone": 1, "grounder": 1}
    assert found["int8"].graphs == {"vision": 1, "language": 0.5, "backbone": 1, "grounder": 1}
    assert found["slow"].graphs["vision"] == 3
    assert found["fp32"].total == 5
    spoken = [name for name in machine.ran if name.startswith("language")]
    assert spoken == ["language fp32", "language int8"] * 2 * 3  # run by run, one round that does not count
    assert machine.ran.count("backbone fp32") == 3
    assert machine.caches.count(("language int8", 1, 512)) == 3  # a new one each round, with room for all runs

    machine.ran.clear()
    assert time_bundles(paths, captures, known=known, rounds=2) == found
    assert not machine.ran


def test_a_slow_moment_of_the_machine_changes_no_median(monkeypatch, captures):
    machine = Machine(monkeypatch, {f"{graph} fp32": 1.0 for graph in GRAPHS})
    ran = machine.ran

    class Hiccup(dict):
        def __getitem__(self, name):
            return 50.0 if name == "grounder fp32" and ran.count(name) == 3 else 1.0

    machine.seconds = Hiccup()
    assert time_bundles({"fp32": bundle()}, captures, rounds=3)["fp32"].graphs["grounder"] == 1
