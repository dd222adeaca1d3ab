"""What the builder is told, what of its work is kept, and what a failure leaves; the builder itself is a stand-in."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from devil.bundle import TOKENIZER, Bundle, FileRecord, Manifest, write_manifest
from devil.config import PRESETS
from devil.contract import GRAPHS
from devil.engine_key import Host
from devil.engine_store import EngineStore
from devil.errors import EngineError, UsageError
from devil.export import cli as export_cli
from devil.export.options import ExportOptions
from devil.export.tensorrt import cli, process
from devil.export.tensorrt.build import build_engines
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.prepared import CUSTOM, DEFORMABLE
from devil.export.tensorrt.target import NoEngines, Target

RTX = Target("tensorrt-rtx", "1.7.1.116", ("sm86", "sm89"), ahead=True)


def graph_file(path, custom):
    node = helper.make_node(DEFORMABLE if custom else "Identity", ["x"], ["y"], domain=CUSTOM if custom else "")
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])), str(path))


@pytest.fixture
def bundle(tmp_path):
    folder, files = tmp_path / "bundle", {}
    folder.mkdir()
    for graph in GRAPHS:
        graph_file(folder / f"{graph}.onnx", custom=graph == "grounder")
        files[f"{graph}.onnx"] = FileRecord.of(folder / f"{graph}.onnx")
    (folder / TOKENIZER).touch()
    files[TOKENIZER] = FileRecord.of(folder / TOKENIZER)
    manifest = Manifest("tiny", "fp16", PRESETS["tiny"], files)
    write_manifest(folder, manifest)
    return Bundle(folder, manifest)


@pytest.fixture
def tensorrt(tmp_path):
    plugin = tmp_path / "libplugin.so"
    plugin.write_bytes(b"plugin")
    return Target("tensorrt", "10.15.1.29", ("sm89",), device="NVIDIA L4", plugin=plugin)


@pytest.fixture
def jobs(monkeypatch):
    """The jobs that a stand-in for the builder was given."""
    given = []

    def build(job, told):
        given.append(job)
        told("Timing", 50)
        Path(job.output).write_bytes(job.graph.encode())
        return {"seconds": 1.0, "cpu_seconds": 1.0, "peak_bytes": 1, "layers": {}}

    monkeypatch.setattr(process, "build", build)
    return given


def test_every_graph_becomes_an_engine_that_is_found_and_kept(bundle, jobs):
    heard = []
    outcome = build_engines(bundle, EngineOptions(), RTX, lambda *told: heard.append(told))
    assert [job.graph for job in jobs] == list(GRAPHS)
    assert not any(built.reused for built in outcome.engines)
    assert ("building vision", 50, 100) in heard
    for graph in GRAPHS:
        found = EngineStore(bundle).find(graph, Host("tensorrt-rtx", "1.7.1.116", "sm86"))
        assert found.read() == graph.encode()
    again = build_engines(bundle, EngineOptions(), RTX)
    assert all(built.reused for built in again.engines)
    assert len(jobs) == len(GRAPHS)
    build_engines(bundle, EngineOptions(rebuild=True, graphs=("vision",)), RTX)
    assert len(jobs) == len(GRAPHS) + 1


def test_ahead_of_time_the_gpus_are_named_and_nothing_is_measured(bundle, jobs):
    build_engines(bundle, EngineOptions(graphs=("grounder",)), RTX)
    assert jobs[0].capabilities == ("sm86", "sm89")
    assert (jobs[0].plugin, jobs[0].timing_cache) == ("", "")


def test_on_the_gpu_the_builder_looks_itself_measures_and_loads_the_plugin_where_it_is_needed(bundle, jobs, tensorrt):
    options = EngineOptions(builder_memory=2.5, effort=4, hardware="none", version_compatible=True)
    outcome = build_engines(bundle, options, tensorrt)
    by_graph = {job.graph: job for job in jobs}
    assert {graph for graph, job in by_graph.items() if job.plugin} == {"grounder"}
    job = by_graph["grounder"]
    assert (job.capabilities, job.memory, job.effort, job.version_compatible) == ((), 2_500_000_000, 4, True)
    assert job.timing_cache.endswith("engines/timing/tensorrt-10.15.1.29-sm89.cache")
    keys = {built.engine.key.graph: built.engine.key for built in outcome.engines}
    assert keys["grounder"].plugin == tensorrt.plugin_hash
    assert keys["vision"].plugin == ""
    assert keys["vision"].device == "NVIDIA L4"


def test_only_the_language_graph_has_a_fixed_cache(bundle, jobs):
    build_engines(bundle, EngineOptions(context=1024), RTX)
    assert {job.graph: job.fixed for job in jobs} == {
        graph: {"M": 1024} if graph == "language" else {} for graph in GRAPHS
    }


def test_another_plugin_or_other_sizes_are_other_engines(bundle, jobs, tensorrt):
    build_engines(bundle, EngineOptions(graphs=("grounder",)), tensorrt)
    tensorrt.plugin.write_bytes(b"another")
    build_engines(bundle, EngineOptions(graphs=("grounder",)), tensorrt)
    build_engines(bundle, EngineOptions(graphs=("grounder",), batch=2), tensorrt)
    assert len(jobs) == 3


def test_a_dead_builder_leaves_no_engine_and_the_next_one_builds(bundle, jobs, monkeypatch):
    def die(job, _told):
        Path(job.output).write_bytes(b"half")
        raise EngineError("the builder was killed by SIGSEGV")

    with monkeypatch.context() as patched:
        patched.setattr(process, "build", die)
        with pytest.raises(EngineError, match="SIGSEGV"):
            build_engines(bundle, EngineOptions(graphs=("vision",)), RTX)
    assert EngineStore(bundle).engines() == []
    assert not [path for path in bundle.engines.iterdir() if path.suffix != ".lock"]
    assert len(build_engines(bundle, EngineOptions(graphs=("vision",)), RTX).engines) == len(jobs) == 1


def test_sizes_are_refused_before_anything_is_built(bundle, jobs):
    with pytest.raises(UsageError, match="--context"):
        build_engines(bundle, EngineOptions(context=1 << 20), RTX)
    assert jobs == []
    assert not bundle.engines.exists()


def test_the_command_tells_what_was_built_as_a_table_and_as_json(bundle, jobs, capsys, monkeypatch):
    monkeypatch.setattr(cli, "choose", lambda _options: RTX)
    assert cli.main([str(bundle.folder), "--graphs", "vision", "grounder", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert [engine["graph"] for engine in result["engines"]] == [job.graph for job in jobs] == ["vision", "grounder"]
    assert result["capabilities"] == ["sm86", "sm89"]
    assert "GridSample" in lines[-2]


@pytest.mark.parametrize("target", [RTX, NoEngines("no GPU here")])
def test_an_export_whose_engines_fail_says_that_the_bundle_is_there(bundle, jobs, capsys, monkeypatch, target):
    def die(_job, _told):
        raise EngineError("the builder was killed by SIGABRT", "see docs/tensorrt.md")

    monkeypatch.setattr(process, "build", die)
    asked = replace(ExportOptions(), output=bundle.folder)
    if isinstance(target, NoEngines):
        assert export_cli._engines(bundle.folder, asked, target)["engines"] == []
        assert "no engines: no GPU here" in capsys.readouterr().out
        return
    with pytest.raises(EngineError, match=r"was written and runs without engines, .* SIGABRT"):
        export_cli._engines(bundle.folder, asked, target)
    assert jobs == []
