"""Unmerged folders: every weight equals what PEFT's own merge leaves, and what does not belong together is one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from devil.errors import CheckpointError
from devil.model.checkpoint import TOKENIZER, load_model, save_model, tokenizer_file
from devil.model.weights import open_weights
from tests.tiny import tiny_checkpoint, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
peft = pytest.importorskip("peft")

PROJECTIONS = ["q_proj", "v_proj", "o_proj", "down_proj"]
KINDS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "ranks and alphas by module": {
        "rank_pattern": {"down_proj": 2, r"layers\.0\.self_attn\.q_proj": 5},
        "alpha_pattern": {"down_proj": 1, r"layers\.1\.self_attn\.v_proj": 40},
    },
    "fan_in_fan_out, which PEFT ignores for nn.Linear": {"fan_in_fan_out": True},
    "all biases": {"bias": "all"},
    "a whole module": {"modules_to_save": ["lm_head"]},
    "embedding": {"target_modules": [*PROJECTIONS, "embed_tokens"]},
}


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_unmerged(folder, base, dtype=torch.float32, suffix="safetensors", **kind):
    """Adapts the model of `base`, changes everything that trains, and writes what a training run leaves.

    Returns:
        The weights after PEFT's merge.
    """
    torch.manual_seed(3)
    model = load_model(base).to(dtype)
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 7, "target_modules": PROJECTIONS} | kind)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad or ".mm_projector." in name or ".g_dino." in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    edit_config(folder, base_model_name_or_path=str(base))
    whole = {key: value for key, value in adapted.state_dict().items() if ".mm_projector." in key or ".g_dino." in key}
    torch.save(whole, folder / "non_lora_trainables.bin")
    if suffix == "bin":
        torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    for name in ("config.json", TOKENIZER):
        (folder / name).write_bytes((base / name).read_bytes())
    return adapted.merge_and_unload().state_dict()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture
def unmerged(base, tmp_path):
    """A folder to break."""
    write_unmerged(tmp_path / "unmerged", base)
    return tmp_path / "unmerged"


def check_same(folder, merged):
    source = open_weights(folder)
    assert set(source.entries) == set(merged)
    for key, expected in merged.items():
        found = source.read(key)
        assert found.dtype == expected.dtype, key
        assert torch.equal(found, expected), key
        assert source.entries[key].shape == tuple(expected.shape), key


@pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_weight_equals_pefts_merge(base, tmp_path, kind):
    merged = write_unmerged(tmp_path / "unmerged", base, **kind)
    untouched = open_weights(base)
    adapted = [key for key, value in merged.items() if not torch.equal(untouched.read(key), value)]
    assert any("q_proj" in key for key in adapted)
    assert any("g_dino" in key for key in adapted)
    check_same(tmp_path / "unmerged", merged)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_merged_as_peft_does(base, tmp_path, dtype, suffix):
    save_model(tiny_model(), tmp_path / "half", base / TOKENIZER, dtype)
    check_same(tmp_path / "unmerged", write_unmerged(tmp_path / "unmerged", tmp_path / "half", dtype, suffix))


def test_an_adapter_saved_in_half_precision_is_merged_as_peft_loads_it(unmerged, base):
    change_adapter(unmerged, lambda tensors: tensors.update({key: tensors[key].half() for key in tensors}))
    adapted = peft.PeftModel.from_pretrained(load_model(base), str(unmerged)).merge_and_unload()
    source = open_weights(unmerged)
    for key in (key for key in adapted.state_dict() if "_proj" in key and "model.layers" in key):
        assert torch.equal(source.read(key), adapted.state_dict()[key]), key


def test_a_large_weight_is_merged_in_pieces_to_the_same_values(unmerged, monkeypatch):
    key = "model.layers.0.mlp.down_proj.weight"
    whole = open_weights(unmerged).read(key)
    monkeypatch.setattr("devil.model.sources.lora._PIECE", 3 * whole.shape[1] + 1)  # 32 rows, three at a time
    torch.testing.assert_close(open_weights(unmerged).read(key), whole, rtol=0, atol=1e-6)


def test_a_base_that_knows_no_detector_gets_it_from_what_was_trained_whole(unmerged, base, tmp_path):
    """As DEViL is trained: the base is VideoLLaMA3, whose files have other names and no detector."""
    source = open_weights(unmerged)
    expected = {key: source.read(key) for key in source.entries}
    tensors = load_file(base / "model.safetensors")
    folder = tmp_path / "videollama3"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "videollama3_qwen2"}))
    renamed = {key.replace("encoder.vision_encoder", "encoder"): value for key, value in tensors.items()}
    save_file({key: renamed[key] for key in renamed if ".g_dino." not in key}, folder / "model.safetensors")
    edit_config(unmerged, base_model_name_or_path=str(folder))
    check_same(unmerged, expected)


def test_values_beyond_the_bases_type_are_not_merged_into_infinity(base, tmp_path):
    save_model(tiny_model(), tmp_path / "half", base / TOKENIZER, torch.float16)
    write_unmerged(tmp_path / "unmerged", tmp_path / "half", torch.float16)
    change_adapter(tmp_path / "unmerged", lambda tensors: tensors[KEY.format("B")].fill_(1e5))
    with pytest.raises(CheckpointError, match=r"q_proj\.weight with its adapter goes beyond torch\.float16"):
        open_weights(tmp_path / "unmerged").read("model.layers.0.self_attn.q_proj.weight")


def test_weights_that_the_adapter_leaves_keep_their_place_in_the_base(unmerged, base):
    entries = open_weights(unmerged).entries
    assert entries["model.norm.weight"].place.path == base / "model.safetensors"
    assert entries["model.layers.0.self_attn.q_proj.weight"].place is None


def test_the_merged_model_answers_as_pefts(unmerged, base, tmp_path):
    merged = write_unmerged(tmp_path / "again", base)
    expected = tiny_model()
    expected.load_state_dict(merged)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(load_model(unmerged)(input_ids=ids).logits, expected(input_ids=ids).logits)


def test_a_base_is_found_beside_the_adapter_by_its_name_or_by_argument(unmerged, base, tmp_path):
    edit_config(unmerged, base_model_name_or_path="elsewhere/the-base")
    (tmp_path / "the-base").symlink_to(base)
    expected = open_weights(base).read("model.norm.weight")
    assert torch.equal(open_weights(unmerged).read("model.norm.weight"), expected)
    (tmp_path / "the-base").unlink()
    assert torch.equal(open_weights(unmerged, base=base).read("model.norm.weight"), expected)
    with pytest.raises(CheckpointError, match=r"base elsewhere/the-base .* is not here: put its folder beside"):
        open_weights(unmerged)


def change_adapter(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda tensors: tensors.pop(KEY.format("A")), r"q_proj\.lora_B\.weight, which is no half"),
        (lambda tensors: tensors.update({KEY.format("C"): torch.ones(1)}), r"lora_C\.weight, which is no half"),
        (lambda tensors: tensors.update({KEY.format("A"): torch.ones(3, 31)}), r"another base: A \(3, 31\) and B"),
        (lambda tensors: tensors.update({KEY.format("A"): torch.ones(4, 32)}), r"another base: A \(4, 32\) and B"),
        (
            lambda tensors: tensors.update({KEY.format(h).replace("s.0", "s.9"): torch.ones(32, 32) for h in "AB"}),
            r"another base: this one has no model\.layers\.9",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(unmerged, change, line):
    change_adapter(unmerged, change)
    with pytest.raises(CheckpointError, match=line):
        open_weights(unmerged)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"peft_type": "IA3"}, "is IA3, not LORA"),
        ({"use_dora": True}, "uses use_dora: merge it with PEFT"),
        ({"init_lora_weights": "pissa"}, "uses init_lora_weights pissa: merge it with PEFT"),
        ({"lora_alpha": None}, r"adapter_config\.json .* is broken"),
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
    ],
)
def test_adapters_of_another_kind_are_refused(unmerged, changes, line):
    edit_config(unmerged, **changes)
    with pytest.raises(CheckpointError, match=line):
        open_weights(unmerged)


def test_whole_weights_beside_an_adapter_are_not_guessed_about(unmerged, base):
    (unmerged / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="holds an adapter and whole weights"):
        open_weights(unmerged)


def test_an_unknown_trained_weight_is_named(unmerged):
    path = unmerged / "non_lora_trainables.bin"
    torch.save(torch.load(path, weights_only=True) | {"base_model.model.model.extra": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"unknown weights: model\.extra"):
        load_model(unmerged)


def test_the_tokenizer_is_the_folders_own_or_its_bases(unmerged, base):
    assert tokenizer_file(unmerged) == unmerged / TOKENIZER
    (unmerged / TOKENIZER).unlink()
    assert tokenizer_file(unmerged) == base / TOKENIZER
    with pytest.raises(CheckpointError, match=r"lacks tokenizer\.json"):
        tokenizer_file(unmerged, base=unmerged.parent)


def test_what_was_trained_whole_may_bear_the_original_codes_names(unmerged):
    """The shared box head under the decoder's name, and losses' own weights, as the original training leaves them."""
    path = unmerged / "non_lora_trainables.bin"
    trained = torch.load(path, weights_only=True)
    head, original = "model.g_dino.bbox_embed.0.", "model.g_dino.transformer.decoder.bbox_embed.0."
    moved = {key.replace(head, original): trained.pop(key) for key in list(trained) if head in key}
    assert moved
    expected = load_model(unmerged).state_dict()
    torch.save(trained | moved | {"base_model.model.model.criterion.weight": torch.ones(2)}, path)
    found = load_model(unmerged).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
