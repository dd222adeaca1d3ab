"""Bundles: what opens, what is refused, and with which line."""

import json
from dataclasses import replace

import pytest

from devil.bundle import FileRecord, Manifest, contract_values, open_bundle, write_manifest
from devil.config import PRESETS
from devil.contract import GRAPHS
from devil.errors import BundleError

NAMES = [f"{graph}.onnx" for graph in GRAPHS] + ["vision.onnx.data", "tokenizer.json"]


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "tiny-fp16"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name.encode() * 3)
    files = {name: FileRecord.of(folder / name) for name in NAMES}
    fidelity = {"vision": [{"output": "visual_tokens"}]}
    write_manifest(folder, Manifest("tiny", "fp16", PRESETS["tiny"], files, (360, 640), fidelity, {"onnx": "1"}))
    return folder


def change(folder, **values):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_was_written_is_read_back(bundle):
    opened = open_bundle(bundle)
    assert opened.config == PRESETS["tiny"]
    assert opened.precision == "fp16"
    assert opened.manifest.frame_size == (360, 640)
    assert opened.path("grounder").read_bytes() == b"grounder.onnx" * 3
    assert opened.tokenizer_path.name == "tokenizer.json"


def test_equal_manifests_give_equal_bytes(bundle):
    before = (bundle / "manifest.json").read_bytes()
    write_manifest(bundle, open_bundle(bundle).manifest)
    assert (bundle / "manifest.json").read_bytes() == before


def test_engines_may_lie_in_the_bundle(bundle):
    (bundle / "engines").mkdir()
    (bundle / "engines" / "grounder.engine").touch()
    assert open_bundle(bundle).engines.is_dir()


def test_graph_hash_changes_with_the_weights_file(bundle):
    opened = open_bundle(bundle)
    before = opened.graph_hash("vision")
    other = dict(opened.manifest.files) | {"vision.onnx.data": FileRecord(1, "f" * 64)}
    write_manifest(bundle, Manifest("tiny", "fp16", PRESETS["tiny"], other))
    (bundle / "vision.onnx.data").write_bytes(b"x")
    assert open_bundle(bundle, verify=False).graph_hash("vision") != before


def test_a_folder_that_is_none_or_holds_no_manifest_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is not a folder"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\xff"])
def test_a_broken_manifest_is_refused(bundle, text):
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"schema": 3}, "made by a newer version .*update devil-deploy"),
        ({"schema": 1}, "has schema 1, not 2: run devil-export again"),
        ({"schema": None}, "has schema None"),
        ({"precision": "fp12"}, "precision 'fp12'"),
        ({"files": {}}, "does not list vision.onnx"),
        ({"files": {"../vision.onnx": {"bytes": 1, "sha256": "0"}}}, "not a plain file name"),
        ({"files": {"C:\\vision.onnx": {"bytes": 1, "sha256": "0"}}}, "not a plain file name"),
        ({"files": {"vision.onnx": 7}}, "is broken"),
        ({"files": None}, "is broken"),
        ({"weight_bytes": {"vision": "many"}}, "is broken"),
        ({"config": {"model_type": "llama"}}, "is broken .*model_type 'llama'"),
        ({"contract": {}}, "other inputs or outputs"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(bundle, values, line):
    change(bundle, **values)
    with pytest.raises(BundleError, match=line):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["contract", "graph_precisions", "quantisation", "layers_of", "weight_bytes"])
def test_a_missing_field_is_refused(bundle, name):
    values = json.loads((bundle / "manifest.json").read_text())
    del values[name]
    (bundle / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="is broken"):
        open_bundle(bundle)


def test_a_missing_file_is_refused(bundle):
    (bundle / "backbone.onnx").unlink()
    with pytest.raises(BundleError, match=r"backbone\.onnx is missing"):
        open_bundle(bundle)


def test_an_altered_file_is_refused_by_hash_and_by_size(bundle):
    (bundle / "tokenizer.json").write_bytes(b"Tokenizer.json" * 3)
    with pytest.raises(BundleError, match=r"tokenizer\.json was altered"):
        open_bundle(bundle)
    open_bundle(bundle, verify=False)
    (bundle / "tokenizer.json").write_bytes(b"")
    with pytest.raises(BundleError, match=r"tokenizer\.json was altered"):
        open_bundle(bundle, verify=False)


@pytest.mark.parametrize("name", ["extra.onnx", ".hidden", "language.onnx.data"])
def test_a_foreign_file_is_refused(bundle, name):
    (bundle / name).touch()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        open_bundle(bundle)


def test_contract_survives_json():
    values = contract_values(PRESETS["tiny"])
    assert json.loads(json.dumps(values)) == values


def test_integer_weights_leave_every_graph_a_floating_type(bundle):
    files = open_bundle(bundle).manifest.files
    floats = {"vision": "fp16", "language": "fp32", "backbone": "fp16", "grounder": "fp16"}
    made = Manifest(
        "tiny", "int4", PRESETS["tiny"], files, graph_precisions=floats, quantisation={"language": {}}, layers_of=7
    )
    write_manifest(bundle, made)
    manifest = open_bundle(bundle).manifest
    assert manifest.precision == "int4"
    assert {graph: manifest.graph_precision(graph) for graph in GRAPHS} == floats
    assert (manifest.quantisation, manifest.layers_of) == ({"language": {}}, 7)


def test_bytes_of_weights_are_read_back_and_else_those_of_the_graphs_files(bundle):
    manifest = open_bundle(bundle).manifest
    assert manifest.graph_bytes("vision") == 3 * len("vision.onnx" + "vision.onnx.data")
    write_manifest(bundle, replace(manifest, weight_bytes={"vision": 7}))
    manifest = open_bundle(bundle).manifest
    assert manifest.weight_bytes == {"vision": 7}
    assert (manifest.graph_bytes("vision"), manifest.graph_bytes("backbone")) == (7, 3 * len("backbone.onnx"))


def test_integers_without_floating_types_are_refused(bundle):
    change(bundle, precision="int8", graph_precisions={"vision": "fp16"})
    with pytest.raises(BundleError, match="no floating type for graph language"):
        open_bundle(bundle)


def test_a_linked_file_is_known_by_samples(bundle):
    manifest = open_bundle(bundle).manifest
    linked = FileRecord.of(bundle / "vision.onnx.data", linked=True)
    files = {**manifest.files, "vision.onnx.data": linked}
    write_manifest(bundle, Manifest("tiny", "fp16", PRESETS["tiny"], files))
    assert open_bundle(bundle).manifest.files["vision.onnx.data"] == linked
    (bundle / "vision.onnx.data").write_bytes(b"?" * linked.bytes)
    open_bundle(bundle, verify=False)
    with pytest.raises(BundleError, match="not the checkpoint's file that was linked"):
        open_bundle(bundle)
