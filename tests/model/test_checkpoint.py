"""Checkpoint folders: what is written comes back, and what is broken is one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from devil.errors import CheckpointError
from devil.model.checkpoint import TOKENIZER, WEIGHTS, load_model, save_model
from tests.tiny import tiny_checkpoint, tiny_model

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def folder(written, tmp_path):
    """A copy to break."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in written.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def change_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_what_was_written_is_read_back(written):
    model, expected = load_model(written), tiny_model()
    assert not model.training
    assert model.devil == expected.devil
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_half_precision_is_read_as_float32(written, tmp_path):
    save_model(tiny_model(), tmp_path / "half", written / TOKENIZER, torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / WEIGHTS).values()} == {torch.float16}
    expected = tiny_model().state_dict()
    for name, tensor in load_model(tmp_path / "half").state_dict().items():
        assert torch.equal(tensor, expected[name].half().float()), name


def test_every_file_can_be_read_by_whoever_may_read_the_folder(written, tmp_path):
    (tmp_path / "plain").write_text("")
    ordinary = (tmp_path / "plain").stat().st_mode
    assert {path.name for path in written.iterdir()} == {"config.json", TOKENIZER, WEIGHTS}
    assert {path.stat().st_mode for path in written.iterdir()} == {ordinary}


def test_shards_are_read_like_one_file(folder):
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / shard)
    (folder / WEIGHTS).unlink()
    where = {name: shard for shard, part in shards.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    assert torch.equal(load_model(folder).lm_head.weight, tiny_model().lm_head.weight)
    (folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks b\.safetensors"):
        load_model(folder)


def test_weights_that_only_training_needs_are_left_out(folder):
    change_weights(folder, lambda tensors: tensors.update({"model.criterion.empty_weight": torch.zeros(2)}))
    load_model(folder)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda tensors: tensors.pop("lm_head.weight"), "lacks weights: lm_head.weight"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "unknown weights: extra"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}),
            r"misshapen .*model\.norm\.weight \(3,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, line):
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=line):
        load_model(folder)


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), r"no weights .*model\.safetensors or pytorch_model\.bin"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"), "is no file of weights"),
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]), "cannot be read"),
        (lambda folder: (folder / INDEX).write_text("[]"), "not an index"),
        (lambda folder: (folder / INDEX).write_text("{"), "not an index"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json does not exist"),
    ],
)
def test_a_broken_folder_is_one_line(folder, harm, line):
    harm(folder)
    with pytest.raises(CheckpointError, match=line):
        load_model(folder)


def test_no_folder_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="is not a folder"):
        load_model(tmp_path / "none")
