"""A real builder takes every graph of the shipped model, and none that is not what it should be."""

import shutil
from dataclasses import replace

import onnx
import pytest

from devil.bundle import FileRecord, open_bundle, write_manifest
from devil.contract import GRAPHS, contract
from devil.engine_key import Host
from devil.engine_store import EngineStore
from devil.errors import EngineError
from devil.export.tensorrt.build import build_engines
from devil.export.tensorrt.cli import main
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.prepared import prepare
from devil.export.tensorrt.target import choose
from devil.gpu import Driver

TARGET = ("sm86", "sm89", "sm120")


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def built(bundle, graphs=(), **options):
    options = EngineOptions(backend="tensorrt-rtx", target=TARGET, graphs=graphs, **options)
    return build_engines(bundle, options, choose(options)).engines


@pytest.mark.tensorrt
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "graphs"), [("fp16", ()), ("fp32", ()), ("int4", ("language",))])
def test_the_shipped_models_graphs_build_for_three_gpus(rtx, written, precision, graphs):
    bundle = written(precision)
    engines = {one.engine.key.graph: one.engine for one in built(bundle, graphs)}
    assert engines.keys() == set(graphs or GRAPHS)
    language = bundle.config.language
    layers = engines["language"].built["layers"]
    assert (layers["ATTENTION_INPUT"], layers["ROTARY_EMBEDDING"]) == (language.layers, 2 * language.layers)
    assert layers["KV_CACHE_UPDATE"] == 2 * language.layers
    if precision == "int4":
        assert layers["DEQUANTIZE"] == 7 * language.layers + 1  # all matrices of the layers, and the readout
    if graphs is None:
        detector = bundle.config.detector
        calls = detector.encoder_layers + detector.decoder_layers
        assert engines["grounder"].built["layers"]["GRID_SAMPLE"] == detector.levels * calls
    store = EngineStore(bundle)
    for graph, engine in engines.items():
        assert engine.built["checked_types"] > 100
        for capability in TARGET:
            assert store.find(graph, Host("tensorrt-rtx", rtx.__version__, capability)) == engine
        with pytest.raises(EngineError, match="this GPU is sm75"):
            store.find(graph, Host("tensorrt-rtx", rtx.__version__, "sm75"))
        assert len(engine.read()) == engine.bytes > 1 << 20
    again = built(bundle, graphs)
    assert all(one.reused for one in again)


@pytest.fixture
def damaged(written, tmp_path):
    """Call with a graph and a function that spoils its ONNX model, for a bundle whose manifest knows no better."""

    def damage(graph, spoil):
        folder = tmp_path / "bundle"
        shutil.copytree(written("fp16").folder, folder, ignore=shutil.ignore_patterns("engines"))
        path = folder / f"{graph}.onnx"
        model = onnx.load(str(path), load_external_data=False)
        spoil(model)
        path.write_bytes(model.SerializeToString())
        manifest = written("fp16").manifest
        files = {**manifest.files, path.name: FileRecord.of(path)}
        write_manifest(folder, replace(manifest, files=files))
        return open_bundle(folder)

    return damage


def as_float32(model):
    """The first cast to float16 now gives float32, which the next node does not take."""
    cast = next(
        node for node in model.graph.node if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT16
    )
    cast.attribute[0].i = onnx.TensorProto.FLOAT


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_graph_of_mixed_types_is_refused_with_its_node(damaged):
    bundle = damaged("vision", as_float32)
    with pytest.raises(EngineError, match=r"TensorRT 1\.\S+ refuses \S+ of vision\.onnx"):
        built(bundle, "vision")
    assert EngineStore(bundle).engines() == []


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_graph_of_another_type_than_its_bundle_is_refused_with_the_tensor(damaged):
    def spoil(model):
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT

    with pytest.raises(EngineError, match="not the fp16 graph 'backbone' of this model: features differ"):
        built(damaged("backbone", spoil), "backbone")


def without_function(model):
    del model.functions[:]


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_an_operator_without_its_body_is_refused(damaged):
    with pytest.raises(EngineError, match="MultiScaleDeformableAttention without its function body"):
        built(damaged("grounder", without_function), "grounder")


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_the_command_refuses_an_altered_graph(written, tmp_path, capsys):
    folder = tmp_path / "bundle"
    shutil.copytree(written("fp16").folder, folder, ignore=shutil.ignore_patterns("engines"))
    graph = folder / "grounder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    assert main([str(folder), "--target", *TARGET]) == 1
    assert "was altered after the export" in capsys.readouterr().err


def test_the_plugin_takes_the_functions_place(written):
    bundle = written("fp16")
    spec = contract(bundle.config)["grounder"]
    path = bundle.path("grounder")
    plugin, function = (prepare(path, spec, "fp16", {}, plugin) for plugin in (True, False))
    calls = bundle.config.detector.encoder_layers + bundle.config.detector.decoder_layers
    assert plugin.layers == {"PLUGIN_V3": calls}
    assert function.layers == {"GRID_SAMPLE": calls * bundle.config.detector.levels}
    assert not onnx.load_from_string(plugin.model).functions
    assert onnx.load_from_string(function.model).functions


def test_the_caches_length_becomes_a_number_and_the_types_are_the_graphs(written):
    bundle = written("fp16")
    found = prepare(bundle.path("language"), contract(bundle.config)["language"], "fp16", {"M": 512}, False)
    model = onnx.load_from_string(found.model)
    caches = [value for value in (*model.graph.input, *model.graph.output) if "_key_" in value.name]
    assert {value.type.tensor_type.shape.dim[2].dim_value for value in caches} == {512}
    assert found.types["logits"] == "float32"
    assert found.types["present_key_0"] == "float16"
    assert found.layers["ATTENTION_INPUT"] == bundle.config.language.layers


def test_where_there_is_no_gpu_no_engines_are_built_and_it_says_why(written, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("devil.export.tensorrt.target.read_driver", lambda: Driver(problem="no NVIDIA driver"))
    shutil.copytree(written("fp16").folder, tmp_path / "b", ignore=shutil.ignore_patterns("engines"))
    assert main([str(tmp_path / "b"), "--json"]) == 1
    told = capsys.readouterr().err
    assert "no engines were built: no GPU here (no NVIDIA driver): name the GPUs" in told
    assert main([str(tmp_path / "b"), "--backend", "onnxruntime", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "no engines: ONNX Runtime needs no engines" in shown
    assert '"engines": []' in shown.splitlines()[-1]
    assert not (tmp_path / "b" / "engines").exists()
