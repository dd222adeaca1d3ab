"""What exports of large models rest on: partial models, mapped weights, room, memory."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys

import onnxruntime
import pytest
import torch

from devil.bundle import read_manifest
from devil.contract import contract
from devil.errors import OutputError, UsageError
from devil.export.plan import Plan
from devil.export.write import write_graph
from devil.model.checkpoint import load_model
from devil.model.random_checkpoint import RandomCheckpointOptions, write_random_checkpoint
from tests.export.writing import write
from tests.tiny import tiny_model, traced_alike


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
