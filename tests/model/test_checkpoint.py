"""Checkpoint folders: what is written comes back, and what is broken is one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from devil.errors import CheckpointError
from devil.model.checkpoint import TOKENIZER, WEIGHTS, load_model, part_of, save_model
from devil.model.devil import DevilModel
from devil.model.fitting import EMBEDDING, HEAD, empty_model
from devil.model.random_checkpoint import RandomCheckpointOptions, write_random_checkpoint
from tests.tiny import tiny_checkpoint, tiny_config, tiny_model

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


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"vocab_size": 99}, "says vocab_size 99 but the weights have"),
        ({"hidden_size": 64}, "says hidden_size 64 but the weights have 32: use the config"),
        ({"num_hidden_layers": 1}, "says num_hidden_layers 1 but the weights have 2"),
        ({"num_hidden_layers": 3, "hidden_size": 64}, "hidden_size 64 but .* 32, num_hidden_layers 3 but .* 2"),
        ({"intermediate_size": 47}, r"misshapen .*mlp\.down_proj\.weight \(32, 48\) \(expected \(32, 47\)\)"),
        ({"num_key_value_heads": 4}, r"misshapen .*k_proj\.bias"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_one_line(folder, changes, line):
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=line):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.bool, torch.float8_e4m3fn])
def test_weights_of_a_type_that_is_no_float_are_named(folder, dtype):
    key = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda tensors: tensors.update({key: tensors[key].to(dtype)}))
    with pytest.raises(CheckpointError, match=rf"another type than .*{key} \({str(dtype)[6:]}\): save them as float16"):
        load_model(folder)


def test_nan_is_found_in_the_part_that_is_read(folder):
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(torch.nan))
    load_model(folder, {"vision", "detector"})
    with pytest.raises(CheckpointError, match=r"no numbers in model\.norm\.weight"):
        load_model(folder)


def test_parts_can_be_loaded_without_the_others(written):
    model, whole = load_model(written, {"vision", "detector"}), load_model(written)
    for name, parameter in model.named_parameters():
        assert parameter.is_meta == (part_of(name) == "language"), name
    patches = torch.arange(2 * 4 * 588).remainder(251).to(torch.uint8).view(2, 4, 588)
    positions = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    frames = torch.arange(64 * 64 * 3).remainder(251).to(torch.uint8).view(1, 64, 64, 3)
    with torch.no_grad():
        assert torch.equal(model.visual_tokens(patches, positions), whole.visual_tokens(patches, positions))
        assert torch.equal(model.detector.features(frames), whole.detector.features(frames))


def test_a_left_out_part_is_still_checked(folder):
    change_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"lacks weights: model\.layers\.1"):
        load_model(folder, {"vision"})


def test_an_empty_model_has_the_buffers_of_a_real_one():
    empty, real = empty_model(tiny_config()), DevilModel(tiny_config())
    assert all(parameter.is_meta for parameter in empty.parameters())
    found, expected = dict(empty.named_buffers()), dict(real.named_buffers())
    assert found.keys() == expected.keys()
    for name, buffer in expected.items():
        assert torch.equal(found[name], buffer), name


def test_a_tied_head_is_one_weight_however_it_was_saved(folder):
    change_config(folder, tie_word_embeddings=True)
    change_weights(folder, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    model = load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    change_weights(folder, lambda tensors: tensors.pop(HEAD))
    assert load_model(folder).lm_head.weight is not None
    change_weights(folder, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING] + 1}))
    with pytest.raises(CheckpointError, match=r"config\.json ties lm_head\.weight"):
        load_model(folder)


def test_loading_does_not_hold_the_checkpoint_twice(written, tmp_path):
    """Memory beyond the model is that of one weight: the files are mapped, not read."""
    write_random_checkpoint(RandomCheckpointOptions(tmp_path / "random"))  # 0.16 GB in half precision
    program = (
        "import sys, torch\n"
        "from devil.model.checkpoint import load_model\n"
        "def anonymous():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(line for line in lines if line.startswith('RssAnon')).split()[1]) * 1024\n"
        "load_model(sys.argv[1])\n"
        "before = anonymous()\n"
        "model = load_model(sys.argv[2])\n"
        "print(anonymous() - before, sum(p.numel() * 4 for p in model.parameters()))\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    arguments = [sys.executable, "-c", program, str(written), str(tmp_path / "random")]
    held, size = map(int, subprocess.run(arguments, capture_output=True, check=True, text=True).stdout.split())
    assert size > 3e8
    assert held < 1.1 * size
