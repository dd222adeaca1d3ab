"""The check of a GPU, as far as it can be checked without one: its refusal, its page, and what it counts."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from devil.bundle import open_bundle
from devil.gpu import Driver, Gpu
from devil.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from devil.runtime.pipeline import Grounder

L4 = Driver((Gpu("NVIDIA L4", "sm89", 24 << 30),), (12, 8), "570.86.15")
PART = {
    "engine": "cuda",
    "agreement": {"clips": 3, "texts": 1.0, "spans": 1.0, "tube_iou": 0.99},
    "stages": {"total": 0.25},
    "growth": {"sentences": 30, "gpu_mb": 12, "host_mb": -1},
}


@pytest.fixture
def check():
    import gpu_check

    return gpu_check


def test_without_a_gpu_it_refuses_with_the_drivers_problem_and_writes_nothing(check, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "read_driver", lambda: Driver(problem="no NVIDIA driver", mend="install it"))
    monkeypatch.setattr(check, "run", lambda _: pytest.fail("something was begun"))
    with pytest.raises(SystemExit, match="gpu_check: no NVIDIA driver: install it"):
        check.main(check.Options(output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def commands(check, monkeypatch):
    """A machine with a GPU: CUDA works, TensorRT cannot build, TensorRT-RTX dies. What was started is listed."""
    started = []

    def run(command):
        started.append(command)
        answer = (0, "", "")
        if "--part" in command:
            name = command[command.index("--part") + 1]
            answer = (0, f"noise\n{json.dumps(PART)}\n", "") if name == "cuda" else (-35, "", "")
        elif "devil.export.tensorrt.cli" in command and "tensorrt" in command:
            answer = (1, "", "devil-build: no | memory\n")
        elif "pytest" in command:
            answer = (0, "....\n7 passed in 3.21s\n", "")
        elif "devil.runtime.doctor.cli" in command:
            answer = (0, 'words\n{"chosen": "cuda"}\n', "")
        elif command[0] == "git":
            answer = (0, "0123456789abcdef\n", "")
        return subprocess.CompletedProcess(command, *answer)

    monkeypatch.setattr(check, "read_driver", lambda: L4)
    monkeypatch.setattr(check, "installed", lambda: ("tensorrt", "tensorrt-rtx"))
    monkeypatch.setattr(check, "run", run)
    return started


def test_every_engine_is_measured_and_one_that_dies_leaves_the_others(check, commands, tmp_path, capsys):
    check.main(check.Options(quick=True, output=tmp_path, json=True))
    (document,) = tmp_path.glob("nvidia-l4-*.json")
    found = json.loads(document.read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert found["engines"]["cuda"].items() >= PART.items()
    assert found["engines"]["tensorrt"] == {"problem": "devil-build: devil-build: no / memory"}
    assert found["engines"]["tensorrt-rtx"] == {"problem": "died of SIGRTMIN+1"}
    assert (found["doctor"], found["tests"], found["capability"]) == ({"chosen": "cuda"}, "7 passed in 3.21s", "sm89")
    page = document.with_suffix(".md").read_text()
    assert "| cuda | 1.000, 1.000 | 0.9900 | 0.250 | not measured | +12 MB GPU, -1 MB host over 30 sentences |" in page
    assert "| tensorrt-rtx | did not run: died of SIGRTMIN+1 |" in page
    assert {row.count("|") for row in page.splitlines() if row.startswith("|")} == {7}
    assert any("devil.export" in command for command in commands)  # devil-tiny, where no bundle is named


@pytest.mark.parametrize(
    ("gpu", "host", "words"),
    [
        (0, 3, "+0 MB GPU, +3 MB host over 9 sentences"),
        (None, 3, "+3 MB host over 9 sentences"),
        (None, None, "not told here over 9 sentences"),
    ],
)
def test_memory_that_nobody_tells_is_no_number(gpu, host, words):
    from gpu_page import memory

    assert memory({"sentences": 9, "gpu_mb": gpu, "host_mb": host}) == words


class Counting:
    """A grounder that only counts, and whose process grows by a megabyte per video."""

    def __init__(self):
        self.videos = self.sentences = 0

    def encode(self, _path):
        self.videos += 1
        return self

    def ground(self, _sentence):
        self.sentences += 1


def test_growth_is_told_between_the_first_sentences_and_the_last(monkeypatch):
    import gpu_measures

    grounder = Counting()
    monkeypatch.setattr(gpu_measures, "gpu_megabytes", lambda: None)
    monkeypatch.setattr(gpu_measures, "resident_megabytes", lambda: 100 + grounder.videos)
    found = gpu_measures.growth(grounder, sentences=100)
    assert (grounder.videos, grounder.sentences) == (10, 100)
    assert found == {"sentences": 100, "gpu_mb": None, "host_mb": 7}  # 21 sentences take three videos


def test_tubes_overlap_where_both_are():
    from gpu_measures import overlap

    def answer(frames, box):
        return SimpleNamespace(tube=SimpleNamespace(frames=np.array(frames), boxes=np.array([box] * len(frames))))

    one = answer([0, 1, 2], (0, 0, 10, 10))
    assert overlap(one, one) == 1
    assert overlap(one, answer([1, 2, 3], (0, 0, 10, 10))) == pytest.approx(2 / 4)
    assert overlap(one, answer([0, 1, 2], (0, 0, 10, 5))) == pytest.approx(0.5)
    nothing = SimpleNamespace(tube=None)
    assert (overlap(nothing, nothing), overlap(one, nothing)) == (1, 0)


def test_an_engine_is_measured_whole(check, bundle, monkeypatch):
    """On the CUDA provider's engine with its tensors on the CPU."""
    import gpu_measures

    engine = OnnxRuntimeCudaEngine(threads=1, device="cpu")
    open_plain = Grounder.open
    monkeypatch.setattr(
        Grounder,
        "open",
        lambda folder, engine: Grounder(open_bundle(folder), on_cpu) if engine == "cuda" else open_plain(folder, 1),
    )
    on_cpu = engine
    monkeypatch.setattr(gpu_measures, "open_detector", lambda _bundle, _name: engine)
    found = check.measured(check.Options(quick=True, bundle=bundle, part="cuda"))
    assert found["agreement"] == {"clips": 3, "texts": 1.0, "spans": 1.0, "tube_iou": pytest.approx(1, abs=0.01)}
    assert found["stages"]["total"] > max(found["stages"][stage] for stage in ("vision", "backbone", "grounder"))
    speed = gpu_measures.detector_speed(bundle, "cuda", "64x64", rounds=1)
    assert (speed["batch"], speed["frames"]) == (8, 64)
    assert speed["frames_per_second"] == pytest.approx(64 / speed["seconds"])
