"""Checkpoints with random weights: DEViL folders that load, run in half precision and do not depend on memory."""

import json

import pytest
import torch
from safetensors.torch import load_file

from devil.config import PRESETS, level_shapes
from devil.errors import OutputError, UsageError
from devil.model.checkpoint import TOKENIZER, load_model, part_of
from devil.model.fitting import empty_model
from devil.model.random_checkpoint import SIZES, RandomCheckpointOptions, main, write_random_checkpoint
from devil.model.stand_in_tokenizer import VOCABULARY, stand_in_tokenizer
from devil.model.stream import write_shards
from devil.model.weights import open_weights
from devil.prompt import PromptWriter, image_answer, stvg_answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "two"
    assert main(["--size", "2-layer", "--output", str(folder), "--shard-bytes", "30000000"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def test_the_folder_is_a_checkpoint_in_shards(folder, model):
    assert model.devil == SIZES["2-layer"]
    shards = sorted(folder.glob("*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(shards) == 3  # the embedding and lm_head are larger than a shard each, all else fits into one
    assert index["metadata"]["total_size"] == sum(p.numel() for p in model.parameters()) * 2
    assert sum(len(load_file(shard)) for shard in shards) == len(index["weight_map"])


def test_activations_stay_near_one_and_finite_in_half_precision(model):
    states = []
    hooks = [
        layer.register_forward_hook(lambda _module, _input, output: states.append(output))
        for layer in model.model.layers
    ]
    ids = torch.arange(300)[None] * 500
    frames = torch.arange(96 * 128 * 3, dtype=torch.int64).view(1, 96, 128, 3).remainder(251).to(torch.uint8)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        found = model.detector(frames, torch.tensor(level_shapes(96, 128)), torch.randn(model.devil.language.hidden))
    for hook in hooks:
        hook.remove()
    assert all(0.05 < state.std() < 5 for state in states)
    assert 0.3 < logits.std() < 3
    assert all(values.isfinite().all() for values in (found.logits, found.boxes, found.embeddings))


def test_the_same_options_give_the_same_bytes_and_a_seed_others(tmp_path, model):
    shapes = {name: tuple(weight.shape) for name, weight in model.model.layers.named_parameters()}
    files = {}
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        options = RandomCheckpointOptions(tmp_path / name, layers=1, seed=seed, dtype="bfloat16")
        write_random_checkpoint(options)
        files[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert files["one"] == files["two"] != files["three"]
    source = open_weights(tmp_path / "one")
    assert source.entries["model.layers.0.mlp.up_proj.weight"].dtype == "bfloat16"
    assert "model.layers.1.mlp.up_proj.weight" not in source.entries
    assert shapes["1.mlp.up_proj.weight"] == source.entries["model.layers.0.mlp.up_proj.weight"].shape


def test_no_two_rows_of_a_large_weight_are_alike(folder):
    table = open_weights(folder).read("model.embed_tokens.weight")
    assert table.shape == (152064, 256)
    assert len(table[:, :32].unique(dim=0)) == len(table)


def language_values(config):
    return sum(p.numel() for name, p in empty_model(config).named_parameters() if part_of(name) == "language")


def test_the_large_sizes_are_the_published_ones():
    assert SIZES["7b"] == PRESETS["7b"]
    assert language_values(SIZES["7b"]) == 7_615_616_512  # Qwen2.5-7B
    assert language_values(SIZES["0.5b"]) == 494_032_768  # Qwen2.5-0.5B


def test_the_stand_in_tokenizer_has_qwens_size_and_ids(folder, model):
    writer = PromptWriter(folder / TOKENIZER, model.devil)  # checks the ids of the special tokens
    tokenizer = stand_in_tokenizer()
    assert tokenizer.get_vocab_size(with_added_tokens=False) == VOCABULARY
    assert tokenizer.token_to_id("<|endoftext|>") == 151643
    assert tokenizer.token_to_id("<|file_sep|>") == 151664
    for text in ("a cat, 3 dögs\n\n  and 日本", stvg_answer(3.5, 12.0), image_answer(), "Time 10.5s:"):
        assert writer.decode(writer.text(text)) == text.strip()
    words = [tokenizer.decode([token]) for token in writer.text(" from 3.5 to 12")]
    assert words == [" from", " ", "3", ".", "5", " to", " ", "1", "2"]


def test_shards_hold_what_was_asked_for(tmp_path):
    values = {f"w{number}": torch.arange(number, dtype=torch.float32) for number in (3, 0, 5, 1)}
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    told = []

    def pieces(name):
        data = values[name].numpy().tobytes()
        return (memoryview(data[start : start + 8]) for start in range(0, len(data), 8))

    write_shards(tmp_path, shapes, "float32", pieces, 20, lambda *now: told.append(now))
    assert told[-1] == ("bytes", 9 * 4, 9 * 4)
    found = {}
    for path in tmp_path.glob("*.safetensors"):
        found |= load_file(path)
        assert sum(value.nbytes for value in load_file(path).values()) <= 20
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in values.items()}


def test_what_lies_there_and_a_full_disk_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="exists: remove it"):
        write_random_checkpoint(RandomCheckpointOptions(tmp_path / "there"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    with pytest.raises(OutputError, match=r"16\.\d GB\) and 1000"):
        write_random_checkpoint(RandomCheckpointOptions(tmp_path / "large", size="7b"))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("changes", [{"layers": 0}, {"shard_bytes": 0}])
def test_numbers_that_cannot_be_meant_are_usage_errors(tmp_path, changes):
    with pytest.raises(UsageError):
        write_random_checkpoint(RandomCheckpointOptions(tmp_path / "new", **changes))
