"""Bundles whose language model is the checkpoint's own file, linked."""

import errno
import os
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from devil.bundle import open_bundle
from devil.errors import BundleError, OutputError
from devil.export import link, opening
from devil.export.layer_check import verify_layers
from devil.export.plan import Plan
from devil.export.write import write_graph
from devil.model.checkpoint import save_model
from tests.export.writing import write
from tests.qwen2 import causal_feeds, prompt
from tests.tiny import tiny_model

LINKED = "language.onnx.weights-0.safetensors"


def answer(folder, config):
    """All outputs of a bundle's language graph for one prompt."""
    session = onnxruntime.InferenceSession(folder / "language.onnx", providers=["CPUExecutionProvider"])
    ids, table = prompt(config, 12, 3)
    feeds = causal_feeds(ids[None], np.array([0]), np.array([12])) | {"visual_table": table}
    cache = np.zeros((1, config.kv_heads, 12, config.head_dim), np.float32)
    past = {spec.name: cache for spec in session.get_inputs() if spec.name.startswith("past_")}
    return session.run(None, feeds | past)


def test_a_linked_bundle_has_the_checkpoints_file_and_equals_the_copied_one(opened, checkpoint, bundles, tmp_path):
    mode = (checkpoint / "model.safetensors").stat().st_mode
    folder = write(opened(), checkpoint, tmp_path / "bundle", Plan("fp32", "fp32", linked=True))
    found, own = (folder / LINKED).stat(), (checkpoint / "model.safetensors").stat()
    assert found.st_ino == own.st_ino
    assert own.st_mode == mode
    assert not (folder / "language.onnx.data").exists()
    bundle = open_bundle(folder)
    assert bundle.manifest.files[LINKED].linked
    for ours, theirs in zip(
        answer(folder, bundle.config.language), answer(bundles["fp32"], bundle.config.language), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    weights = onnx.load(bundles["fp32"] / "language.onnx").graph.initializer
    used = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in weights)
    assert bundle.manifest.graph_bytes("language") == used < bundle.manifest.files[LINKED].bytes
    assert bundle.graph_hash("language") != open_bundle(bundles["fp32"]).graph_hash("language")


def test_a_linked_bundle_outlives_the_checkpoint_but_not_another_file_in_its_place(opened, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "model")
    plan = Plan("fp32", "fp32", linked=True)
    folder = write(opened(tmp_path / "model"), checkpoint, tmp_path / "bundle", plan)
    shutil.rmtree(tmp_path / "model")
    open_bundle(folder)
    tensors = {key: value + 1e-3 for key, value in load_file(checkpoint / "model.safetensors").items()}
    (folder / LINKED).unlink()
    save_file(tensors, folder / LINKED, metadata={"format": "pt"})
    with pytest.raises(BundleError, match="is not the checkpoint's file that was linked"):
        open_bundle(folder)


def test_weights_of_another_type_are_not_linked_and_nothing_is_left(opened, checkpoint, tmp_path):
    with pytest.raises(
        OutputError, match=r"weight is float32 in the checkpoint and float16 in the graph.*without --link"
    ):
        write(opened(), checkpoint, tmp_path / "bundle", Plan("fp16", "fp16", linked=True))
    assert not list(tmp_path.iterdir())


def no_filling(*_):
    raise AssertionError("weights were written")


def test_weights_of_another_type_are_refused_before_any_are_written(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "fill_mapped", no_filling)
    with pytest.raises(OutputError, match=r"is float32 in the checkpoint and bfloat16 in the graph.*without --link"):
        opened(precision="bf16", link_weights=True)
    assert not list(tmp_path.iterdir())


def test_another_disk_is_refused_before_any_weights_are_written(opened, tmp_path, monkeypatch):
    def other_disk(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(opening, "fill_mapped", no_filling)
    monkeypatch.setattr(link.os, "link", other_disk)
    with pytest.raises(OutputError, match=r"cannot be linked into the bundle .*to the checkpoint's disk"):
        opened(link_weights=True)
    assert not list(tmp_path.iterdir())


def test_weights_that_can_be_linked_pass_the_early_check(opened, tmp_path):
    opened(link_weights=True)
    assert not list(tmp_path.iterdir())


def test_another_disk_is_refused_with_the_way_out(opened, checkpoint, tmp_path, monkeypatch):
    def other_disk(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(link.os, "link", other_disk)
    with pytest.raises(
        OutputError, match=r"cannot be linked into the bundle .*write the bundle to the checkpoint's disk"
    ):
        write(opened(), checkpoint, tmp_path / "bundle", Plan("fp32", "fp32", linked=True))


def test_half_of_a_half_precision_checkpoint_is_linked_and_its_final_norm_is_not(opened, checkpoint, tmp_path):
    save_model(tiny_model(), tmp_path / "half", checkpoint / "tokenizer.json", torch.float16)
    graphs = opened(tmp_path / "half")
    records = write_graph(tmp_path, "language", graphs, Plan("fp16", "fp16", linked=True))
    assert records.keys() == {LINKED, "language.onnx"}  # the norm, in float32, is small enough for the graph
    [norm] = [
        tensor
        for tensor in onnx.load(tmp_path / "language.onnx", load_external_data=False).graph.initializer
        if tensor.name == "model.norm.weight"
    ]
    assert norm.data_type == onnx.TensorProto.FLOAT
    verify_layers(tmp_path / "language.onnx", graphs, Plan("fp16", "fp16", linked=True))
