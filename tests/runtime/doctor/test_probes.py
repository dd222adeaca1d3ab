"""How the doctor asks: in processes of their own, and what it makes of answers, deaths and silence."""

import json
import sys
from pathlib import Path

import pytest

from devil.plugins.loader import LIBRARY, candidates
from devil.runtime.doctor import system as machine
from devil.runtime.doctor.facts import read_operator
from devil.runtime.doctor.probe import ProbeError, ask
from devil.runtime.doctor.software import read_software
from devil.runtime.doctor.system import Jetson, read_jetson, read_system


def test_an_answer_is_the_last_line():
    assert ask(["-c", "print('noise'); print('{\"a\": 1}')"]) == {"a": 1}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "died of SIGABRT"),
        ("raise ImportError('libnvinfer.so.10 is missing')", "ImportError: libnvinfer.so.10 is missing"),
        ("print('not json')", "said 'not json'"),
        ("", "said 'it said nothing'"),
    ],
)
def test_whatever_a_probe_dies_of_becomes_words(code, reason):
    with pytest.raises(ProbeError, match=reason):
        ask(["-c", code])


def test_a_probe_that_hangs_is_given_up():
    with pytest.raises(ProbeError, match=r"no answer within 0\.5 s"):
        ask(["-c", "import time; time.sleep(60)"], timeout=0.5)


def test_every_package_is_asked_and_a_broken_one_is_no_surprise():
    def asked(arguments):
        code = arguments[1]
        if "onnxruntime" in code:
            return {"version": "1.31.1", "cuda": "12.8", "works": {"CUDAExecutionProvider": False}}
        if "pycuda" in code:
            raise ProbeError("cuInit failed: no CUDA-capable device is detected")
        if "tensorrt_rtx" in code:
            raise ProbeError("died of SIGABRT")
        return {"version": "10.9.0.34", "creators": []}

    found = read_software(lambda _: True, asked)
    assert found.onnxruntime.works == {"CUDAExecutionProvider": False}
    assert [(trt.kind, trt.version, trt.problem) for trt in found.tensorrts] == [
        ("tensorrt", "10.9.0.34", ""),
        ("tensorrt-rtx", "", "died of SIGABRT"),
    ]
    assert "no CUDA-capable device" in found.pycuda_problem


@pytest.mark.parametrize(
    ("creators", "plugin", "problem"),
    [
        (["MultiScaleDeformableAttention"], True, ""),
        (["Other"], False, "does not register"),
        (None, False, "does not load"),
    ],
)
def test_the_tensorrt_plugin_is_loaded_to_see_whether_it_matches(monkeypatch, creators, plugin, problem):
    path = Path("/x/libdevil_msda_tensorrt.so")
    monkeypatch.setattr("devil.runtime.doctor.software.candidates", lambda _name: [path])

    def asked(arguments):
        if str(path) in arguments[1] and creators is None:
            raise ProbeError("undefined symbol")
        return {"version": "10.9.0.34", "creators": creators or []}

    (found,) = read_software(lambda module: module == "tensorrt", asked).tensorrts
    assert found.version == "10.9.0.34"
    assert bool(found.plugin) == plugin
    assert problem in found.problem


def test_nothing_that_is_not_installed_is_asked():
    def never(_arguments):
        raise AssertionError

    found = read_software(lambda _: False, never)
    assert (found.onnxruntime, found.tensorrts, found.pycuda) == (None, (), "")


def test_this_machines_onnx_runtime_really_runs_a_session():
    assert read_software(lambda module: module == "onnxruntime").onnxruntime.works["CPUExecutionProvider"]


@pytest.mark.skipif(not candidates(LIBRARY), reason="the native library is not built")
def test_an_operator_that_is_too_new_for_the_runtime_says_so():
    assert read_operator("1.31.1").kernel
    old = read_operator("1.2.0")
    assert old.path == ""
    assert "1.2.0" in old.problem


def test_the_system_is_read_where_it_is(tmp_path):
    found = read_system(tmp_path / "not yet" / "bundle")
    assert found.cores >= 1
    assert found.disk > 0
    assert found.memory is None or found.memory > 0
    json.dumps(found.name)


@pytest.mark.parametrize(
    ("release", "model", "expected"),
    [
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
            "NVIDIA Jetson Orin Nano\0",
            ("36.4.3", "JetPack 6"),
        ),
        (
            "# R38 (release), REVISION: 2.0, GCID: 41844464",
            "NVIDIA Jetson AGX Thor Developer Kit\0",
            ("38.2.0", "JetPack 7"),
        ),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "NVIDIA Jetson AGX Orin\0", ("39.2.0", "JetPack 7.2")),
        ("", "NVIDIA Jetson AGX Orin\0", ("", "")),
        ("", "Raspberry Pi 5\0", None),
    ],
)
def test_a_jetson_is_told_by_its_release_and_device_tree(tmp_path, release, model, expected):
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text(model)
    if release:
        (tmp_path / "etc/nv_tegra_release").write_text(release)
    found = read_jetson(tmp_path)
    assert found == (expected and Jetson(model.rstrip("\0"), expected[0], found.power))
    assert expected is None or found.jetpack == expected[1]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for nvpmodel")
def test_the_power_mode_is_asked_of_nvpmodel(tmp_path, monkeypatch):
    script = tmp_path / "nvpmodel"
    script.write_text("#!/bin/sh\necho 'NV Power Mode: MODE_30W'\necho 2\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine._power_mode() == "MODE_30W"
