"""Bundles of a small random model: what is in them, how they run, and what refuses to be written."""

import dataclasses
import importlib.util
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from devil.bundle import open_bundle
from devil.config import level_shapes
from devil.contract import GRAPHS, PRECISIONS, contract
from devil.errors import CheckpointError, ExportFidelityError, OutputError, UsageError
from devil.export import bundle as exporting
from devil.export import sampling, verify
from devil.export.bundle import export, write_bundle
from devil.export.cli import main
from devil.export.graphs import GraphBuilder
from devil.export.onnx_file import save_model
from devil.export.options import ExportOptions
from devil.export.plan import Plan
from devil.fidelity import BUDGETS
from devil.files import sha256
from tests.tiny import tiny_config, tiny_model, traced_alike

DETECTOR = ("backbone", "grounder")
NUMPY_TO_ONNX = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}


def session(folder, graph):
    return onnxruntime.InferenceSession(folder / f"{graph}.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture
def stand_ins(monkeypatch, builder):
    """Lets `export` use the graphs that are traced already."""
    monkeypatch.setattr(exporting, "open_builder", lambda _options: builder)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bundle_opens_and_holds_the_contract(bundles, precision):
    bundle = open_bundle(bundles[precision])
    assert bundle.config == tiny_config()
    assert bundle.precision == precision
    for name, spec in contract(bundle.config).items():
        graph = onnx.load(bundle.path(name), load_external_data=False).graph
        for values, tensors in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
            assert [value.name for value in values] == [tensor.name for tensor in tensors]
            for value, tensor in zip(values, tensors, strict=True):
                kind = tensor.numpy_dtype(precision)
                found = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
                assert found == NUMPY_TO_ONNX.get(kind, kind.upper()), tensor.name
                sizes = [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
                assert sizes == list(tensor.shape), tensor.name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_manifest_reports_fidelity_inside_the_budget(bundles, precision):
    fidelity = open_bundle(bundles[precision]).manifest.fidelity
    assert set(fidelity) == set(GRAPHS)
    assert fidelity["grounder"]["measures"]["matched_iou"] >= BUDGETS[precision]["matched_iou"]
    assert fidelity["vision"]["measures"]["relative"] <= BUDGETS[precision]["relative"]


def test_half_precision_halves_the_weights(bundles):
    sizes = {name: (folder / "backbone.onnx.data").stat().st_size for name, folder in bundles.items()}
    assert sizes["fp16"] == sizes["bf16"] == pytest.approx(sizes["fp32"] / 2, rel=0.1)


def test_files_name_no_file_of_this_machine(bundles):
    for path in bundles["fp32"].iterdir():
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b"stack_trace" not in content


@pytest.mark.parametrize(("number", "height", "width"), [(1, 64, 64), (2, 97, 131), (3, 193, 65)])
def test_detector_equals_pytorch_at_sizes_that_were_not_traced(bundles, builder, number, height, width):
    frames = sampling.picture(np.random.default_rng(5), number, height, width)
    rst = np.random.default_rng(6).normal(size=32).astype(np.float32)
    shapes = np.array(level_shapes(height, width))
    with torch.no_grad():
        expected = builder.model.detector(torch.from_numpy(frames), torch.from_numpy(shapes), torch.from_numpy(rst))
    (features,) = session(bundles["fp32"], "backbone").run(None, {"frames": frames})
    feeds = {"features": features, "level_shapes": shapes, "rst": rst}
    logits, boxes, embeddings = session(bundles["fp32"], "grounder").run(None, feeds)
    # Errors of the backbone (GroupNorm over two values amplifies them) pass through both graphs.
    np.testing.assert_allclose(logits, expected.logits, atol=1e-3)
    np.testing.assert_allclose(boxes, expected.boxes, atol=1e-4)
    np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-3)


@pytest.mark.parametrize(("frames", "rows", "columns"), [(1, 1, 1), (5, 3, 1), (2, 4, 7)])
def test_vision_equals_pytorch_at_sizes_that_were_not_traced(bundles, builder, frames, rows, columns):
    case = sampling.vision_case(tiny_config(), frames, rows, columns)
    with torch.no_grad():
        expected = builder.model.visual_tokens(*(torch.from_numpy(array) for array in case.values()))
    (found,) = session(bundles["fp32"], "vision").run(None, case)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_two_exports_are_the_same_bytes(bundles, builder, checkpoint, tmp_path):
    write_bundle(builder, Plan.of("fp16"), checkpoint / "tokenizer.json", "tiny", tmp_path / "again")
    assert {path.name: sha256(path) for path in (tmp_path / "again").iterdir()} == {
        path.name: sha256(path) for path in bundles["fp16"].iterdir()
    }


def test_a_graph_out_of_budget_fails_and_leaves_nothing(builder, checkpoint, tmp_path):
    planted = traced_alike(builder, tiny_model(seed=1))  # graphs of one model, verified against another
    with pytest.raises(ExportFidelityError, match="graph vision in fp32 differs from PyTorch: relative"):
        write_bundle(planted, Plan.of("fp32"), checkpoint / "tokenizer.json", "tiny", tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_graph_out_of_budget_can_be_accepted_and_the_manifest_says_so(builder, checkpoint, tmp_path):
    planted = traced_alike(builder, tiny_model(seed=1))
    plan = dataclasses.replace(Plan.of("fp32"), accept=True)
    write_bundle(planted, plan, checkpoint / "tokenizer.json", "tiny", tmp_path / "b")
    fidelity = json.loads((tmp_path / "b" / "manifest.json").read_text())["fidelity"]
    assert {phrase.split()[0] for phrase in fidelity["vision"]["accepted"]} == {"relative", "cosine"}


@pytest.mark.usefixtures("stand_ins")
def test_interrupt_leaves_the_old_bundle_and_nothing_else(bundles, checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "bundle"
    shutil.copytree(bundles["fp32"], output)
    before = (output / "manifest.json").read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "verify", interrupt)
    code = main(["--model", str(checkpoint), "--precision", "fp16", "--output", str(output), "--force"])
    assert code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (output / "manifest.json").read_bytes() == before


@pytest.mark.usefixtures("stand_ins")
def test_only_force_replaces_a_bundle(bundles, checkpoint, tmp_path):
    output = tmp_path / "bundle"
    shutil.copytree(bundles["fp32"], output)
    with pytest.raises(OutputError, match="already holds a bundle: pass --force"):
        export(ExportOptions(model=checkpoint, precision="fp16", output=output))
    export(ExportOptions(model=checkpoint, precision="fp16", output=output, force=True))
    assert open_bundle(output).precision == "fp16"


def test_what_is_no_bundle_is_never_replaced(checkpoint, bundles, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    shutil.copytree(bundles["fp32"], tmp_path / "mixed")
    (tmp_path / "mixed" / "notes.txt").touch()
    for name in ("photos", "photos/cat.png", "mixed"):
        with pytest.raises(OutputError, match=r"is not a bundle|no part of the bundle"):
            export(ExportOptions(model=checkpoint, output=tmp_path / name, force=True))
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_checkpoint_without_tokenizer_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks tokenizer\.json"):
        export(ExportOptions(model=tmp_path / "model", output=tmp_path / "out"))


def test_another_models_tokenizer_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tbox_index": 0}))
    with pytest.raises(CheckpointError, match=r"\[BOX\] is .* but 0 in config\.json"):
        export(ExportOptions(model=tmp_path / "model", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_flags_that_contradict_each_other_are_refused_before_the_checkpoint_is_read(tmp_path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="leave --link-weights out"):
        export(ExportOptions(model=nowhere, output=tmp_path / "out", precision="int4", link_weights=True))


@pytest.mark.parametrize("size", ["360", "0x10", "axb", "360x", "-1x5", ""])
def test_a_malformed_frame_size_is_refused(size):
    with pytest.raises(UsageError, match="is not HxW"):
        ExportOptions(frame_size=size).fixed_size  # noqa: B018


def test_frames_too_small_for_the_queries_are_refused(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="frames of 8x8 are too small"):
        export(ExportOptions(model=checkpoint, output=tmp_path / "out", frame_size="8x8"))


def test_command_says_one_line_for_a_wrong_folder(tmp_path, capsys):
    assert main(["--model", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1].startswith("devil-export: ")
    assert "nowhere is not a folder" in error
    assert "Traceback" not in error


def test_command_names_a_missing_package(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    assert main([]) == 1
    assert capsys.readouterr().err.strip() == (
        "devil-export: exporting needs onnxscript, which is not installed: pip install 'devil-deploy[export]'"
    )


def test_command_refuses_an_unknown_precision(capsys):
    assert main(["--precision", "fp12"]) == 2
    assert "fp12" in capsys.readouterr().err


@pytest.mark.usefixtures("stand_ins")
def test_command_prints_a_table_and_one_json_line(checkpoint, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["--model", str(checkpoint), "--precision", "fp16", "--output", str(output), "--json"]) == 0
    text = capsys.readouterr().out
    result = json.loads(text.splitlines()[-1])
    assert result["bundle"] == str(output)
    assert result["bytes"] == sum(path.stat().st_size for path in output.iterdir() if path.name != "manifest.json")
    assert "grounder" in text


def test_fixed_frame_size_is_in_the_graphs_and_they_equal_pytorch(builder, tmp_path):
    size = (80, 96)
    fixed = GraphBuilder(builder.model, size)
    paths = {name: save_model(fixed.build(name, Plan.of("fp32")), tmp_path / f"{name}.onnx")[0] for name in DETECTOR}
    shapes = {name: [i.shape for i in session(tmp_path, name).get_inputs()] for name in DETECTOR}
    assert shapes["backbone"] == [["N", 80, 96, 3]]
    length = sum(height * width for height, width in level_shapes(*size))
    assert shapes["grounder"] == [["N", length, 64], [4, 2], [32]]
    for name, path in paths.items():
        verify.verify(path, name, fixed.model, Plan.of("fp32"), size)


@pytest.mark.usefixtures("stand_ins", "bundles")  # everything is traced before the size is set
def test_fixed_frame_size_is_in_the_manifest(builder, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "frame_size", (80, 96))  # dynamic graphs take this size too
    export(ExportOptions(model=checkpoint, output=tmp_path / "fixed", frame_size="80x96"))
    assert open_bundle(tmp_path / "fixed").manifest.frame_size == (80, 96)


def test_verification_notices_what_is_not_a_number(builder, bundles, monkeypatch):
    def nothing(*_args, **_feeds):
        return {"visual_tokens": np.full((3, 10, 32), np.nan, np.float32)}

    monkeypatch.setattr(verify._Graph, "__call__", nothing)
    monkeypatch.setattr(sampling, "vision_cases", lambda config: [sampling.vision_case(config, 3, 2, 5)])
    with pytest.raises(ExportFidelityError, match="relative nan"):
        verify.verify(bundles["fp32"] / "vision.onnx", "vision", builder.model, Plan.of("fp32"))
