"""What exports of large models rest on: linked files, partial models, checks by samples, room, memory."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from devil.bundle import open_bundle, read_manifest
from devil.config_json import load_config
from devil.contract import contract
from devil.errors import BundleError, ExportFidelityError, OutputError, UsageError
from devil.export import link, opening
from devil.export.bundle import write_bundle
from devil.export.graphs import GraphBuilder
from devil.export.layer_check import verify_layers
from devil.export.opening import open_builder
from devil.export.options import ExportOptions
from devil.export.plan import Plan
from devil.export.scheme import Scheme
from devil.export.spot_check import check_stored
from devil.export.write import write_graph
from devil.model.checkpoint import load_model, save_model
from devil.model.devil import DevilModel
from devil.model.fitting import empty_model
from devil.model.random_checkpoint import RandomCheckpointOptions, write_random_checkpoint
from devil.model.weights import open_weights
from tests.qwen2 import causal_feeds, prompt
from tests.tiny import tiny_config, tiny_model, traced_alike

LINKED = "language.onnx.weights-0.safetensors"
QUANTISED = Plan("int4", "fp16", Scheme(4, 32, embedding_bits=4, head_bits=4))


@pytest.fixture
def opened(builder, checkpoint, tmp_path):
    """Call with options for a builder of the checkpoint that need not trace."""

    def make(folder=checkpoint, **options):
        graphs = open_builder(ExportOptions(model=folder, output=tmp_path / "bundle", **options))
        graphs._traced = builder._traced
        return graphs

    return make


def answer(folder, config):
    """All outputs of a bundle's language graph for one prompt."""
    session = onnxruntime.InferenceSession(folder / "language.onnx", providers=["CPUExecutionProvider"])
    ids, table = prompt(config, 12, 3)
    feeds = causal_feeds(ids[None], np.array([0]), np.array([12])) | {"visual_table": table}
    cache = np.zeros((1, config.kv_heads, 12, config.head_dim), np.float32)
    past = {spec.name: cache for spec in session.get_inputs() if spec.name.startswith("past_")}
    return session.run(None, feeds | past)


def write(graphs, checkpoint, folder, plan):
    write_bundle(graphs, plan, checkpoint / "tokenizer.json", "tiny", folder)
    return folder


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


def test_a_partial_bundle_is_the_first_layers_and_says_so(opened, checkpoint, tmp_path):
    graphs = opened(layers=1)
    manifest = read_manifest(write(graphs, checkpoint, tmp_path / "bundle", Plan.of("fp32")))
    assert (manifest.config.language.layers, manifest.layers_of) == (1, 2)
    assert manifest.fidelity["language"]["measures"]["relative"] < 1e-4  # against PyTorch with that one layer
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "language.onnx", providers=["CPUExecutionProvider"])
    assert [spec.name for spec in session.get_outputs()] == [
        spec.name for spec in contract(manifest.config)["language"].outputs
    ]


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_the_model_does_not_have_are_refused(layers, opened):
    with pytest.raises(UsageError, match=f"--layers is {layers}: the model has 1 to 2"):
        opened(layers=layers)


def test_mapped_weights_are_the_checkpoints_and_leave_no_file(opened, checkpoint, tmp_path):
    mapped = opened().model.state_dict()
    for name, tensor in load_model(checkpoint).state_dict().items():
        assert torch.equal(mapped[name], tensor), name
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve")
def test_a_disk_that_fills_meanwhile_is_an_error_and_leaves_no_file(opened, tmp_path, monkeypatch):
    def full(_handle, _start, _size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"cannot take .* GB for a while \(No space left.*free some space"):
        opened()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve")
def test_the_room_of_mapped_weights_is_taken_at_once(opened, monkeypatch):
    taken = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _handle, _start, size: taken.append(size))
    weights = opened().model.parameters()
    assert taken == [4 * sum(weight.numel() for weight in weights)]


@pytest.mark.parametrize("plan", [Plan.of("fp32"), Plan.of("fp16"), QUANTISED], ids=lambda plan: plan.precision)
def test_a_model_too_large_for_pytorch_is_checked_by_layers_and_samples(plan, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "WHOLE", 0)
    wide = widened(checkpoint, tmp_path)
    graphs = open_builder(ExportOptions(model=wide, output=tmp_path / "bundle"))
    assert graphs.model.lm_head.weight.is_meta
    write_graph(tmp_path, "language", graphs, plan)
    found = verify_layers(tmp_path / "language.onnx", graphs, plan)
    assert found.method.startswith("first and last of 2 layers")
    assert found.measures["cosine"] > {"fp32": 0.99999, "fp16": 0.9999, "int4": 0.9}[plan.precision]


@pytest.mark.parametrize("plan", [Plan.of("fp32"), QUANTISED], ids=lambda plan: plan.precision)
def test_samples_notice_every_weight_that_lies_elsewhere(plan, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "WHOLE", 0)
    graphs = open_builder(ExportOptions(model=widened(checkpoint, tmp_path), output=tmp_path / "bundle"))
    write_graph(tmp_path, "language", graphs, plan)
    path = tmp_path / "language.onnx"
    model, written = onnx.load(path, load_external_data=False), path.read_bytes()
    weights = [tensor for tensor in model.graph.initializer if tensor.external_data and "scales" not in tensor.name]
    assert len(weights) >= 8
    for tensor in weights:
        [offset] = [entry for entry in tensor.external_data if entry.key == "offset"]
        before, offset.value = offset.value, str(int(offset.value) + 64 if tensor is weights[0] else 0)
        if before != offset.value:
            onnx.save(model, path)
            with pytest.raises(ExportFidelityError, match="is not the checkpoint's"):
                verify_layers(path, graphs, plan)
        offset.value = before
    path.write_bytes(written)
    verify_layers(path, graphs, plan)


@pytest.mark.parametrize("size", [0.0, 1e-9, 3e-7, 2e-6])
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_words_that_were_never_trained_pass_the_samples(size, precision, checkpoint, tmp_path):
    bits = Scheme.of(precision).bits
    plan = Plan(precision, "fp16", Scheme(bits, 32, embedding_bits=bits, head_bits=bits))
    source = open_weights(widened(checkpoint, tmp_path, last_word=size))
    graphs = GraphBuilder(empty_model(load_config(tmp_path / "wide")), source=source)
    write_graph(tmp_path, "language", graphs, plan)
    check_stored(tmp_path / "language.onnx", source, plan.scheme)


def widened(checkpoint, folder, last_word=None):
    """The checkpoint with an MLP whose width blocks of 32 divide, all weights random; the last word's can be scaled."""
    config = tiny_config()
    torch.manual_seed(0)
    model = DevilModel(replace(config, language=replace(config.language, mlp=64))).eval()
    if last_word is not None:
        with torch.no_grad():
            model.model.embed_tokens.weight[-1] *= last_word
            model.lm_head.weight[-1] *= last_word
    save_model(model, folder / "wide", checkpoint / "tokenizer.json", torch.float32)
    return folder / "wide"


def test_digests_made_while_writing_are_those_of_the_files(bundles):
    for folder in bundles.values():
        for name, record in read_manifest(folder).files.items():
            assert record.sha256 == hashlib.sha256((folder / name).read_bytes()).hexdigest(), name
            assert record.bytes == (folder / name).stat().st_size


def test_too_little_room_is_said_before_anything_is_written(builder, checkpoint, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(OutputError, match=r"needs \d{6,} bytes .* and 5000 .* are free: free some space"):
        write(traced_alike(builder, tiny_model()), checkpoint, tmp_path / "bundle", Plan.of("fp32"))
    assert not list(tmp_path.iterdir())


def test_progress_tells_the_bytes(builder, tmp_path):
    told = []
    write_graph(tmp_path, "backbone", builder, Plan.of("fp32"), told.append)
    assert told[0] == "backbone: building"
    assert any(" of " in line and line.endswith(" MB") for line in told)


PEAK = """
import json, sys, threading
from pathlib import Path
from devil.export.graphs import GraphBuilder
from devil.export.plan import Plan
from devil.export.write import write_graph
from devil.config_json import load_config
from devil.model.fitting import empty_model
from devil.model.weights import open_weights

def anonymous():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

model, output, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
builder = GraphBuilder(empty_model(load_config(model)), source=open_weights(model))
before, peak, over = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not over.wait(0.002):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
records = write_graph(output, "language", builder, Plan.of(precision))
over.set()
watcher.join()
print(json.dumps({"grown": peak - before, "bytes": sum(record.bytes for record in records.values())}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    options = RandomCheckpointOptions(output=tmp_path / "model", size="0.5b", layers=1, dtype="bfloat16")
    write_random_checkpoint(options)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "model"), str(tmp_path), "fp16"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["bytes"] > 290e6  # the embedding alone has 272 MB
    assert found["grown"] < 100e6  # pieces of 4 million values, what is hashed, and what importing leaves behind
