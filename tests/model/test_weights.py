"""Weights one at a time: the places are exact, all formats give the same values, and broken files are one line."""

import json
import os
import pickle
import shutil
import struct
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from devil.errors import CheckpointError
from devil.model.sources.finite import all_finite
from devil.model.sources.pickle_file import PickleFile
from devil.model.sources.safetensors_file import SafetensorsFile
from devil.model.weights import open_weights
from tests.tiny import tiny_checkpoint, tiny_model

SAFE, BIN = "model.safetensors", "pytorch_model.bin"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def save(tensors, path):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


def split(folder, name):
    """Replaces the one file by two shards called like `name`, and their index."""
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    stem, suffix = name.split(".")
    weight_map = {}
    for number, keys in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        shard = f"{stem}-{number:05d}-of-00002.{suffix}"
        save({key: tensors[key] for key in keys}, folder / shard)
        weight_map |= dict.fromkeys(keys, shard)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tensors


def check_same(source, tensors):
    assert set(source.entries) == set(tensors)
    for key, expected in tensors.items():
        assert torch.equal(source.read(key), expected), key
        assert source.entries[key].shape == tuple(expected.shape)
        assert source.entries[key].dtype == str(expected.dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", [SAFE, BIN])
def test_one_file_and_shards_give_the_same_weights(folder, name):
    if name == BIN:
        torch.save(load_file(folder / SAFE), folder / BIN)
        tensors = load_file(folder / SAFE)
        (folder / SAFE).rename(folder / "aside")
        check_same(open_weights(folder), tensors)
        (folder / "aside").rename(folder / SAFE)
        (folder / BIN).unlink()
    tensors = split(folder, name)
    check_same(open_weights(folder), tensors)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_place_holds_the_tensors_bytes(folder, sharded):
    tensors = split(folder, SAFE) if sharded else load_file(folder / SAFE)
    for key, entry in open_weights(folder).entries.items():
        with entry.place.path.open("rb") as file:
            file.seek(entry.place.offset)
            assert file.read(entry.place.length) == tensors[key].numpy().tobytes(), key


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool, torch.float8_e4m3fn],
)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (7,)])
def test_every_type_and_shape_is_read_as_stored(tmp_path, dtype, shape):
    stored = torch.randint(0, 2, shape).to(dtype)
    save_file({"first": torch.zeros(3, dtype=torch.uint8), "odd": stored}, tmp_path / SAFE)  # not at a round offset
    source = SafetensorsFile(tmp_path / SAFE)
    found = source.read("odd")
    assert found.dtype == dtype
    assert found.shape == shape
    assert found.float().tolist() == stored.float().tolist()


def test_what_is_done_to_a_weight_stays_out_of_its_file(folder):
    before = (folder / SAFE).read_bytes()
    open_weights(folder).read("model.norm.weight").zero_()
    assert (folder / SAFE).read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2])
@pytest.mark.parametrize("position", [0, 4321, 300_000])
def test_values_that_are_no_numbers_are_found(dtype, value, position):
    values = torch.randn(300_001, dtype=torch.float64).clamp(-4, 4)
    values[7], values[8] = torch.finfo(dtype).max, torch.finfo(dtype).tiny
    assert all_finite(values.to(dtype))
    values[position] = value
    assert not all_finite(values.to(dtype))


@pytest.mark.parametrize("name", [SAFE, BIN])
def test_nan_is_named_with_its_key_when_it_is_read(folder, name):
    tensors = load_file(folder / SAFE)
    tensors["model.norm.weight"][2] = np.nan
    (folder / SAFE).unlink()
    save(tensors, folder / name)
    source = open_weights(folder)
    source.read("lm_head.weight")
    with pytest.raises(CheckpointError, match=rf"{name} holds values that are no numbers in model\.norm\.weight"):
        source.read("model.norm.weight")


def test_box_heads_and_position_indices_of_the_published_detector_are_one_weight_each(folder):
    tensors = load_file(folder / SAFE)
    for key in [key for key in tensors if ".bbox_embed.0." in key]:
        copy = key.replace("bbox_embed.0", "transformer.decoder.bbox_embed.1")
        tensors[copy] = tensors[key].clone()
    index = "model.g_dino.backbone.0.layers.0.blocks.0.attn.relative_position_index"
    save_file(tensors | {index: torch.zeros(16, 16, dtype=torch.int64)}, folder / SAFE)
    assert set(open_weights(folder).entries) == set(tiny_model().state_dict())
    tensors[copy] += 1
    save_file(tensors, folder / SAFE)
    with pytest.raises(CheckpointError, match=r"bbox_embed\.1\..* differs from .*bbox_embed\.0\."):
        open_weights(folder).read(key)


def test_a_pickle_from_before_zip_files_is_read(folder):
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    torch.save(tensors, folder / BIN, _use_new_zipfile_serialization=False)
    check_same(open_weights(folder), tensors)


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize("protocol", ["zip", "old", "plain"])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, capsys, protocol):
    path = tmp_path / BIN
    if protocol == "plain":
        path.write_bytes(pickle.dumps({"a": Harmful()}, protocol=2))
    else:
        torch.save({"a": Harmful()}, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(CheckpointError, match=r"is refused: to load it, \S*print would have to run"):
        PickleFile(path)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{"a": 1}, [torch.ones(1)], {"model": {"a": "text"}}])
def test_a_pickle_of_something_else_is_one_line(tmp_path, content):
    torch.save(content, tmp_path / BIN)
    with pytest.raises(CheckpointError, match="holds something else than weights by name"):
        PickleFile(tmp_path / BIN)


@pytest.mark.parametrize("name", [SAFE, BIN])
@pytest.mark.parametrize("left", [0, 5, 100, -9])
def test_a_truncated_file_is_one_line(folder, name, left):
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    save(tensors, folder / name)
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    with pytest.raises(CheckpointError, match=rf"{name} (cannot be read|is no file of weights)") as caught:
        open_weights(folder)
    assert "\n" not in str(caught.value)


def test_a_header_that_lies_about_its_values_is_one_line(tmp_path):
    header = json.dumps({"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / SAFE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(CheckpointError, match="cannot be read"):
        SafetensorsFile(tmp_path / SAFE)


def change_index(folder, change):
    path = folder / f"{SAFE}.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda places: places.pop("model.norm.weight"), r"disagree on where model\.norm\.weight lies"),
        (lambda places: places.update(extra=min(places.values())), "disagree on where extra lies"),
        (lambda places: places.update({"lm_head.weight": "model-00003-of-00002.safetensors"}), "lacks model-00003"),
        (lambda places: places.update({"lm_head.weight": "../model.safetensors"}), "not an index of the shards beside"),
        (lambda places: places.update({"lm_head.weight": 3}), "not an index"),
        (lambda places: places.clear(), "not an index"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_one_line(folder, change, line):
    split(folder, SAFE)
    change_index(folder, change)
    with pytest.raises(CheckpointError, match=line):
        open_weights(folder)


def test_a_missing_index_is_named(folder):
    split(folder, SAFE)
    (folder / f"{SAFE}.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds model-00001-of-00002\.safetensors but no index"):
        open_weights(folder)


def test_a_model_of_another_type_is_one_line(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(CheckpointError, match=r"model_type 'llama': known are devil_qwen2, qwen2"):
        open_weights(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may give a sparse file its whole size")
def test_a_file_larger_than_the_memory_is_opened(tmp_path):
    count = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    header = json.dumps({"weight": {"dtype": "F16", "shape": [count], "data_offsets": [0, 2 * count]}}).encode()
    with (tmp_path / SAFE).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2 * count)
    assert SafetensorsFile(tmp_path / SAFE).entries["weight"].shape == (count,)
