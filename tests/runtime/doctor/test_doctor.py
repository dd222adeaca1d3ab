"""What the doctor makes of machines: facts of machines that are not here, and this one as it is."""

import json
from dataclasses import asdict, replace

import pytest

from devil.bundle import Bundle, FileRecord, Manifest
from devil.config import PRESETS
from devil.contract import GRAPHS
from devil.engine_key import EngineKey
from devil.engine_profile import Profile, Range
from devil.engine_store import EngineStore
from devil.gpu import Driver, Gpu
from devil.runtime.doctor import cli
from devil.runtime.doctor.candidates import candidates, chosen, host_of
from devil.runtime.doctor.facts import Facts, Operator
from devil.runtime.doctor.judgement import judge
from devil.runtime.doctor.software import OnnxRuntime, Software, TensorRt
from devil.runtime.doctor.system import Jetson, System

NO_DRIVER = Driver(problem="no NVIDIA driver", mend="for a GPU, install NVIDIA's driver")
L4 = Driver((Gpu("NVIDIA L4", "sm89", 24 << 30),), (12, 8), "570.86.15")
CPU_ONLY = OnnxRuntime({"onnxruntime": "1.31.1"}, "1.31.1", "", {"CPUExecutionProvider": True})
WITH_CUDA = OnnxRuntime(
    {"onnxruntime-gpu": "1.31.1"}, "1.31.1", "12.8", {"CPUExecutionProvider": True, "CUDAExecutionProvider": True}
)
NOTHING = Facts(
    System("Linux x86_64", "a CPU", 4, 8 << 30, 50 << 30), NO_DRIVER, Software("3.12.1", {}, None), Operator()
)
FULL = replace(
    NOTHING,
    driver=L4,
    software=Software("3.12.1", {}, WITH_CUDA, (TensorRt("tensorrt", "10.16.2.10", cuda=12),), "2025.1"),
    operator=Operator("/x/libdevil_msda.so", "avx2"),
)
ORIN = replace(
    FULL,
    system=replace(NOTHING.system, jetson=Jetson("NVIDIA Jetson AGX Orin", "36.4.3", "MODE_30W")),
    driver=Driver((Gpu("Orin", "sm87", 64 << 30, integrated=True),), (12, 6)),
)


def with_software(facts, **changes):
    return replace(facts, software=replace(facts.software, **changes))


def make_bundle(tmp_path, precision="fp16"):
    floats = {} if precision in ("fp32", "fp16", "bf16") else dict.fromkeys(GRAPHS, "fp16")
    files = {f"{graph}.onnx": FileRecord(1, graph.encode().hex().ljust(64, "0")) for graph in GRAPHS}
    files["tokenizer.json"] = FileRecord(1, "0" * 64)
    manifest = Manifest("tiny", precision, PRESETS["tiny"], files, graph_precisions=floats)
    return Bundle(tmp_path / "bundle", manifest)


def build_engines(facts, bundle, graphs=GRAPHS):
    """An engine of every graph for that machine, as a builder would add it."""
    host, store = host_of(facts.software.tensorrts[0], facts), EngineStore(bundle)
    for graph in graphs:
        profiles = (Profile("all", {"N": Range(1, 4, 8)}),)
        key = EngineKey(graph, bundle.graph_hash(graph), host.backend, host.version, (host.capability,), profiles)
        with store.building(key) as scratch:
            scratch.write_bytes(b"engine")
            engine = store.add(key, scratch, {})
    return engine


def obstacles(facts, name, bundle=None):
    """What is in the way of one engine, with its mends, as text."""
    found = next(candidate for candidate in candidates(facts, bundle) if candidate.name == name)
    return "; ".join(f"{obstacle.text}: {obstacle.mend}" for obstacle in found.obstacles)


def bad(facts):
    return {finding.name: f"{finding.text}: {finding.mend}" for finding in judge(facts) if finding.state == "bad"}


def test_on_a_machine_with_nothing_it_says_what_to_install(tmp_path):
    assert chosen(candidates(NOTHING)) is None
    assert obstacles(NOTHING, "onnxruntime") == "not installed: pip install 'devil-deploy[cpu]'"
    assert set(bad(NOTHING)) == {"ONNX Runtime"}
    assert chosen(candidates(with_software(NOTHING, onnxruntime=CPU_ONLY), make_bundle(tmp_path))).name == "onnxruntime"


def test_tensorrt_is_chosen_when_its_engines_are_there(tmp_path):
    bundle = make_bundle(tmp_path)
    assert chosen(candidates(FULL)).name == "tensorrt"
    assert chosen(candidates(FULL, bundle)).name == "cuda"
    build_engines(FULL, bundle, GRAPHS[:3])
    assert obstacles(FULL, "tensorrt", bundle) == (
        f"no engine for grounder: devil-build {bundle.folder} --backend tensorrt; or take --engine mixed"
    )
    build_engines(FULL, bundle)
    assert chosen(candidates(FULL, bundle)).name == "tensorrt"


def test_an_engine_that_the_gate_refused_here_is_in_the_way(tmp_path):
    bundle = make_bundle(tmp_path)
    engine = build_engines(FULL, bundle)
    EngineStore(bundle).record_gate(engine, "NVIDIA L4 sm89, driver 550.54, tensorrt 10.16.2.10", {"passed": False})
    assert chosen(candidates(FULL, bundle)).name == "tensorrt"
    EngineStore(bundle).record_gate(engine, "NVIDIA L4 sm89, driver 570.86.15, tensorrt 10.16.2.10", {"passed": False})
    assert "the engine of grounder computes something else" in obstacles(FULL, "tensorrt", bundle)


def test_another_machines_engines_are_refused_with_the_reason(tmp_path):
    bundle = make_bundle(tmp_path)
    build_engines(FULL, bundle)
    told = obstacles(ORIN, "tensorrt", bundle)
    assert "no engine for vision, language, backbone, grounder (" in told
    assert "it was built for sm89, this GPU is sm87" in told


@pytest.mark.parametrize(
    ("facts", "name", "text"),
    [
        (NOTHING, "tensorrt", "no NVIDIA driver"),
        (with_software(FULL, tensorrts=()), "tensorrt", "pip install 'devil-deploy[tensorrt]'"),
        (with_software(ORIN, tensorrts=()), "tensorrt", "--system-site-packages"),
        (
            with_software(FULL, tensorrts=(TensorRt("tensorrt", "10.3.0.30"),)),
            "tensorrt",
            "install TensorRT 10.15 or newer",
        ),
        (with_software(ORIN, tensorrts=(TensorRt("tensorrt", "10.3.0.30"),)), "tensorrt", "update to JetPack 7.2"),
        (with_software(FULL, tensorrts=(TensorRt("tensorrt", problem="no libnvinfer"),)), "tensorrt", "no libnvinfer"),
        (with_software(FULL, tensorrts=(TensorRt("tensorrt", "11.1.0", cuda=13),)), "tensorrt", "to 580 or newer"),
        (with_software(FULL, pycuda=""), "tensorrt", "pycuda is not installed: pip install 'devil-deploy[cuda]'"),
        (with_software(FULL, pycuda_problem="no device"), "tensorrt", "pycuda does not start (no device)"),
        (replace(FULL, driver=Driver((Gpu("Tesla V100", "sm70", 1 << 34),), (12, 8))), "cuda", "oldest that is served"),
        (with_software(FULL, onnxruntime=CPU_ONLY), "cuda", "pip install 'devil-deploy[gpu]'"),
        (
            with_software(FULL, onnxruntime=replace(WITH_CUDA, works={"CUDAExecutionProvider": False})),
            "cuda",
            "does not start: install CUDA 12 and cuDNN 9",
        ),
        (
            with_software(FULL, onnxruntime=replace(WITH_CUDA, cuda="13.0", works={"CUDAExecutionProvider": False})),
            "cuda",
            "built for CUDA 13 and the driver serves up to 12.8: update the driver to 580",
        ),
        (with_software(FULL, onnxruntime=OnnxRuntime(problem="died of SIGILL")), "onnxruntime", "SIGILL"),
    ],
)
def test_what_is_in_the_way_is_named_with_its_mend(facts, name, text):
    assert text in obstacles(facts, name)


def test_a_bundle_that_the_machine_is_too_old_or_too_small_for(tmp_path):
    turing = replace(FULL, driver=replace(L4, gpus=(Gpu("Tesla T4", "sm75", 16 << 30),)))
    assert "sm75 has no bf16" in obstacles(turing, "tensorrt", make_bundle(tmp_path, "bf16"))
    assert "too few kernels for bf16" in obstacles(FULL, "cuda", make_bundle(tmp_path, "bf16"))
    assert "have no bf16" in obstacles(turing, "onnxruntime", make_bundle(tmp_path, "bf16"))
    weights = {"language": {"weights": {"bits": 4, "head_bits": 4}}}
    int4 = make_bundle(tmp_path, "int4")
    int4 = replace(int4, manifest=replace(int4.manifest, quantisation=weights))
    assert "4-bit weights" not in obstacles(FULL, "tensorrt", int4)
    turing = with_software(turing, tensorrts=FULL.software.tensorrts)
    assert "sm75 has no 4-bit weights, which graph language needs (sm86 and up)" in obstacles(turing, "tensorrt", int4)
    small = replace(FULL, system=replace(FULL.system, memory=1 << 20))
    assert "is estimated to need" in obstacles(small, "onnxruntime", make_bundle(tmp_path))
    large = make_bundle(tmp_path)
    large = replace(large, manifest=replace(large.manifest, weight_bytes={"language": 30 << 30}))
    assert "the weights alone take 32.2 GB" in obstacles(FULL, "cuda", large)


@pytest.mark.parametrize(
    ("facts", "name", "text"),
    [
        (replace(NOTHING, driver=Driver(cuda=(12, 8), problem="CUDA does not start (error 803)")), "GPU", "error 803"),
        (
            with_software(FULL, onnxruntime=replace(WITH_CUDA, packages={"onnxruntime": "1", "onnxruntime-gpu": "1"})),
            "ONNX Runtime",
            "overwrite each other's files",
        ),
        (
            with_software(FULL, tensorrts=(TensorRt("tensorrt", "10.9.0", problem="the plugin does not load"),)),
            "TensorRT plugin",
            "this TensorRT's headers",
        ),
        (replace(FULL, system=replace(FULL.system, memory=1 << 20)), "memory", "end other programs"),
    ],
)
def test_what_is_broken_is_bad_and_nothing_else(facts, name, text):
    assert set(bad(facts)) - {"ONNX Runtime"} == {name} - {"ONNX Runtime"}
    assert text in bad(facts)[name]


def test_a_healthy_machine_has_nothing_bad():
    assert not bad(FULL)
    assert not bad(ORIN)


@pytest.mark.parametrize(
    "tensorrt", [TensorRt("tensorrt", problem="no libcuda.so.1"), TensorRt("tensorrt", "10.9.0", problem="no plugin")]
)
def test_a_tensorrt_that_nothing_here_would_run_is_not_bad(tensorrt):
    assert not bad(with_software(NOTHING, onnxruntime=CPU_ONLY, tensorrts=(tensorrt,)))


def test_where_tensorrt_runs_onnx_runtime_may_be_missing():
    assert not bad(with_software(FULL, onnxruntime=None))


def test_notes_name_two_tensorrts_a_slow_operator_and_a_capped_jetson():
    rtx = (*FULL.software.tensorrts, TensorRt("tensorrt-rtx", "1.7.1.116"))
    findings = judge(with_software(ORIN, tensorrts=rtx))
    notes = " ".join(finding.text for finding in findings if finding.state == "note")
    assert "--engine names the one" in notes
    assert "power mode MODE_30W caps the clocks" in notes
    jetson = next(finding.text for finding in findings if finding.name == "Jetson")
    assert jetson == "NVIDIA Jetson AGX Orin, JetPack 6, Jetson Linux 36.4.3, power mode MODE_30W"
    slow = next(finding for finding in judge(NOTHING) if finding.topic == "operator")
    assert (slow.state, "C++ compiler" in slow.mend) == ("note", True)


def test_gates_of_the_engines_are_told(tmp_path):
    bundle = make_bundle(tmp_path)
    engine = build_engines(FULL, bundle)
    store = EngineStore(bundle)
    store.record_gate(engine, "NVIDIA L4", {"passed": True})
    engines = {f.name: f for f in cli.diagnose(FULL, bundle)[0] if f.name.endswith("engine")}
    assert "not compared yet" in engines["vision engine"].text
    assert "NVIDIA L4: passed" in engines["grounder engine"].text
    store.record_gate(engine, "another", {"passed": False})
    engines = {f.name: f for f in cli.diagnose(FULL, bundle)[0] if f.name.endswith("engine")}
    assert engines["grounder engine"].state == "note"  # elsewhere, which is nothing that is wrong here
    assert "build it again" in engines["grounder engine"].mend
    store.record_gate(engine, "NVIDIA L4 sm89, driver 570.86.15, tensorrt 10.16.2.10", {"passed": False})
    engines = {f.name: f for f in cli.diagnose(FULL, bundle)[0] if f.name.endswith("engine")}
    assert engines["grounder engine"].state == "bad"


def test_the_command_examines_this_machine_and_a_bundle(capsys, bundle):
    assert cli.main([str(bundle), "--json"]) == 0
    out = capsys.readouterr().out
    document = json.loads(out.splitlines()[-1])
    assert document["bundle"] == str(bundle)
    assert document["chosen"] in out.splitlines()[-2]
    assert {finding["topic"] for finding in document["findings"]} == {
        "machine",
        "gpu",
        "software",
        "operator",
        "bundle",
    }
    cpu = next(engine for engine in document["engines"] if engine["name"] == "onnxruntime")
    assert not cpu["obstacles"]


def test_a_machine_that_runs_nothing_fails_with_one_line_and_the_whole_diagnosis(capsys, monkeypatch):
    monkeypatch.setattr(cli, "gather", lambda *_: NOTHING)
    assert cli.main(["--json"]) == 1
    out, err = capsys.readouterr()
    assert (
        err
        == "devil-doctor: nothing here runs a bundle (onnxruntime: not installed): pip install 'devil-deploy[cpu]'\n"
    )
    assert json.loads(out.splitlines()[-1])["facts"] == json.loads(json.dumps(asdict(NOTHING)))


def test_what_is_no_bundle_is_refused(capsys, tmp_path):
    assert cli.main([str(tmp_path)]) == 1
    assert "holds no manifest.json" in capsys.readouterr().err
