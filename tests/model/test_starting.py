"""Starting points of training: published layouts give the same outputs in DEViL as in transformers, key by key."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    SwinConfig,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3VisionModel,
)

from devil.config import VisionConfig, level_shapes
from devil.errors import CheckpointError
from devil.model.checkpoint import TOKENIZER, load_model
from devil.model.starting import StartingOptions, main, write_start
from devil.model.starting_weights import GROUPS
from devil.model.vision import transformers_config
from devil.prompt import BOX, PromptWriter
from tests.tiny import tiny_checkpoint, tiny_tokenizer

SAFE = "model.safetensors"
VISION = VisionConfig(hidden=32, layers=2, heads=2, mlp=48)
VOCABULARY = 700  # more rows than the tokenizer has tokens, as Qwen2.5 has
SMALL = {
    "backbone": {"embed": 16, "depths": [1, 1, 1, 1], "heads": [1, 2, 4, 8], "window": 4},
    "hidden": 64, "encoder_layers": 1, "decoder_layers": 2, "ffn": 64, "queries": 16,
}  # fmt: skip
RANDOM = list(GROUPS.values())


def randomise(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.08)
    return model.eval()


def videollama3():
    text = {
        "model_type": "qwen2", "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    }  # fmt: skip
    config = VideoLlama3Config(text_config=text, vision_config=transformers_config(VISION).to_dict())
    return randomise(VideoLlama3ForConditionalGeneration(config), 1)


def grounding_dino():
    backbone = SwinConfig(
        embed_dim=16, depths=[1, 2, 1, 1], num_heads=[1, 2, 4, 8], window_size=4, out_indices=[2, 3, 4]
    )
    text = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32, vocab_size=30)
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=64, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=80, decoder_ffn_dim=80, num_queries=16,
        disable_custom_kernels=True,
    )  # fmt: skip
    return randomise(GroundingDinoForObjectDetection(config), 2)


def finish(folder):
    """The tokenizer of a chat model that DEViL has not touched; and random detectors small enough for tests."""
    values = json.loads(tiny_tokenizer().to_str())
    values["added_tokens"] = values["added_tokens"][:3]
    (folder / TOKENIZER).write_text(json.dumps(values))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"detector_config": SMALL}))


@pytest.fixture(scope="module")
def theirs():
    return videollama3()


@pytest.fixture(scope="module")
def their_detector():
    return grounding_dino()


@pytest.fixture(scope="module")
def base(tmp_path_factory, theirs):
    folder = tmp_path_factory.mktemp("base")
    theirs.save_pretrained(folder)
    finish(folder)
    return folder


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory, their_detector):
    folder = tmp_path_factory.mktemp("detector")
    their_detector.save_pretrained(folder)
    return folder


def start(tmp_path, name="start", **options):
    """The model that the written folder gives, and what was random."""
    random = write_start(StartingOptions(output=tmp_path / name, dtype="float32", **options))
    return load_model(tmp_path / name), random


@torch.no_grad()
def check_language(model, theirs):
    ids = torch.arange(50)[None] * 13
    hidden = theirs.model.language_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(model(input_ids=ids).logits, theirs.lm_head(hidden), atol=2e-5, rtol=0)


@torch.no_grad()
def check_vision(model, encoder, projector):
    """transformers takes normalised patches [frames · patches, ·] and the grid of every frame."""
    height, width = 4, 6
    blocks = [
        (2 * row + y, 2 * column + x)
        for row in range(height // 2) for column in range(width // 2) for y in range(2) for x in range(2)
    ]  # fmt: skip
    patches = torch.randint(0, 256, (2, height * width, 3 * 14 * 14), dtype=torch.uint8)
    pixels = (patches.flatten(0, 1) / 255 - 0.5) / 0.5
    found = encoder(
        pixel_values=pixels, grid_thw=torch.tensor([[1, height, width]] * 2), merge_sizes=torch.tensor([2, 2])
    )
    expected = projector(found.last_hidden_state)
    tokens = model.visual_tokens(patches, torch.tensor(blocks))
    torch.testing.assert_close(tokens.flatten(0, 1), expected, atol=2e-5, rtol=0)


class GivenText(nn.Module):
    def __init__(self, text):
        super().__init__()
        self.text = text

    def forward(self, *_arguments, **_keywords):
        return SimpleNamespace(last_hidden_state=self.text[:, None])


@torch.no_grad()
def check_detector(model, theirs, monkeypatch):
    """As test_detector_transformers: one given text token, no query decay, the published inverse sigmoid."""

    def logit(values, eps):  # noqa: ARG001
        return torch.log(values.clamp(min=1e-3) / (1 - values).clamp(min=1e-3))

    monkeypatch.setattr(torch.special, "logit", logit)
    ours = model.detector
    monkeypatch.setattr(ours.transformer.decoder, "kept", (16, 16, 16))
    rst = torch.randn(2, 32)
    monkeypatch.setattr(theirs.model, "text_backbone", GivenText(rst))
    monkeypatch.setattr(theirs.model, "text_projection", ours.llm_feat_map)
    frames = torch.randint(0, 256, (2, 97, 131, 3), dtype=torch.uint8)
    pixels = (frames / 255 - torch.tensor(ours.config.mean)) / torch.tensor(ours.config.std)
    expected = theirs(
        pixel_values=pixels.permute(0, 3, 1, 2), input_ids=torch.full((2, 1), 7), attention_mask=torch.ones(2, 1)
    )
    found = ours(frames, torch.tensor(level_shapes(97, 131)), rst)
    torch.testing.assert_close(found.logits, expected.logits[:, :, 0], atol=2e-4, rtol=0)
    torch.testing.assert_close(found.boxes, expected.pred_boxes, atol=2e-5, rtol=0)


def test_videollama3_of_transformers_and_its_detector(
    tmp_path, base, theirs, detector_folder, their_detector, monkeypatch
):
    model, random = start(tmp_path, base=base, detector=detector_folder)
    assert random == ["the layer between language model and detector"]
    check_language(model, theirs)
    check_vision(model, theirs.model.vision_model, theirs.model.projector)
    check_detector(model, their_detector, monkeypatch)
    assert model.devil.language.rope_theta == 5e5
    assert model.devil.detector.backbone.depths == (1, 2, 1, 1)


def test_tokens_that_the_base_lacks_are_added_behind_its_own(tmp_path, base):
    model, _ = start(tmp_path, base=base)
    writer = PromptWriter(tmp_path / "start" / TOKENIZER, model.devil)
    before = json.loads((base / TOKENIZER).read_text())["added_tokens"]
    assert model.devil.tokens.image > max(token["id"] for token in before)
    assert writer.answer(BOX) == [model.devil.tokens.box, model.devil.tokens.end]


def test_a_base_without_rows_for_the_new_tokens_is_refused(tmp_path, base):
    folder = original_layout(base, tmp_path / "full", "")
    rows = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(rows | {"vocab_size": 539}))
    with pytest.raises(CheckpointError, match=r"has 539 embeddings for \d+ tokens, with DEViL's: resize"):
        start(tmp_path, base=folder)


def original_layout(base, folder, level):
    """A folder as VideoLLaMA3's authors save it; the training code's has one level more around the encoder."""
    folder.mkdir()
    values = json.loads((base / "config.json").read_text())
    text = values["text_config"] | {
        "model_type": "videollama3_qwen2", "vision_encoder_config": values["vision_config"], "rope_theta": 5e5,
        "image_token_index": 3, "mm_projector_type": "mlp2x_gelu", "use_token_compression": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({key: text[key] for key in text if key != "rope_parameters"}))
    prefixes = {
        "model.language_model.": "model.",
        "model.vision_model.": f"model.vision_encoder.{level}",
        "model.projector.": "model.mm_projector.",
    }
    tensors = {}
    for key, value in load_file(base / SAFE).items():
        prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
        tensors[prefixes.get(prefix, "") + key.removeprefix(prefix)] = value
    save_file(tensors, folder / SAFE)
    finish(folder)
    return folder


@pytest.mark.parametrize("level", ["", "vision_encoder."])
def test_videollama3_as_its_authors_save_it(tmp_path, base, theirs, level):
    model, random = start(tmp_path, base=original_layout(base, tmp_path / "original", level))
    assert random == RANDOM[:2]
    check_language(model, theirs)
    check_vision(model, theirs.model.vision_model, theirs.model.projector)
    assert model.devil.compress_tokens
    assert model.devil.language.rope_theta == 5e5


@pytest.mark.parametrize("model_type", ["video_llama_3_vision", "videollama3_vision_encoder"])
def test_a_vision_encoder_alone_replaces_the_bases(tmp_path, base, theirs, model_type):
    other = VideoLlama3VisionModel(transformers_config(VisionConfig(hidden=32, layers=3, heads=2, mlp=64)))
    randomise(other, 5).save_pretrained(tmp_path / "navit")
    config = tmp_path / "navit" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": model_type}))
    (tmp_path / "navit" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "size": 3}))
    model, random = start(tmp_path, base=base, vision=tmp_path / "navit")
    assert random == RANDOM[:2]
    check_language(model, theirs)
    check_vision(model, other, theirs.model.projector)


def test_a_language_model_alone_needs_a_vision_encoder(tmp_path, theirs):
    theirs.model.language_model.save_pretrained(tmp_path / "qwen")
    tensors = {f"model.{key}": value for key, value in load_file(tmp_path / "qwen" / SAFE).items()}
    save_file(tensors | {"lm_head.weight": theirs.lm_head.weight.detach()}, tmp_path / "qwen" / SAFE)
    finish(tmp_path / "qwen")
    with pytest.raises(CheckpointError, match="describes no vision encoder: name the folder of one with --vision"):
        start(tmp_path, base=tmp_path / "qwen")
    theirs.model.vision_model.save_pretrained(tmp_path / "navit")
    model, random = start(tmp_path, base=tmp_path / "qwen", vision=tmp_path / "navit")
    assert random == RANDOM[:3]
    check_language(model, theirs)
    check_vision(model, theirs.model.vision_model, model.model.mm_projector)


def published_file(path, detector):
    """The original's state dict as published: copies, indices, BERT, and the prefix of distributed training."""
    state = {key: value for key, value in detector.state_dict().items() if not key.startswith("llm_feat_map")}
    for key in [key for key in state if key.startswith("bbox_embed.0.")]:
        for copy in range(2):
            own = key.replace(".0.", f".{copy}.", 1)
            state[own] = state[f"transformer.decoder.{own}"] = state[key]
    state["backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    state |= {"bert.embeddings.word_embeddings.weight": torch.ones(3, 2), "feat_map.weight": torch.ones(64, 768)}
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, path)
    return state


def test_the_published_file_is_transformers_model(tmp_path, base):
    """With eight heads, as published: weights do not tell them."""
    folder = tmp_path / "detector"
    config = grounding_dino().config
    config.encoder_attention_heads = config.decoder_attention_heads = 8
    randomise(GroundingDinoForObjectDetection(config), 4).save_pretrained(folder)
    expected, _ = start(tmp_path, "from-folder", base=base, detector=folder)
    published_file(tmp_path / "swin.pth", expected.detector)
    found, random = start(tmp_path, "from-file", base=base, detector=tmp_path / "swin.pth")
    assert random == RANDOM[:1]
    assert found.devil == expected.devil
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_only_the_detector_of_a_devil_folder_is_replaced(tmp_path, detector_folder):
    before = tiny_checkpoint(tmp_path)
    model, random = start(tmp_path, base=before, detector=detector_folder)
    assert random == []  # the layer between language model and detector fits and stays
    kept = load_model(before).state_dict()
    assert torch.equal(model.lm_head.weight, kept["lm_head.weight"])
    assert model.devil.detector.ffn == 80


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda state: state.pop("transformer.level_embed"), "holds no Grounding DINO"),
        (lambda state: state.pop("transformer.enc_output.bias"), r"lacks weights: .*transformer\.enc_output\.bias"),
        (lambda state: state.update(extra=torch.ones(1)), r"unknown weights: model\.g_dino\.extra"),
        (
            lambda state: state.update({"transformer.enc_output.bias": torch.ones(3)}),
            r"misshapen weights: .*enc_output\.bias \(3,\) \(expected \(64,\)\)",
        ),
    ],
)
def test_a_published_file_that_does_not_fit_is_one_line(tmp_path, base, change, line):
    model, _ = start(tmp_path, base=base, detector=None, name="whole")
    state = published_file(tmp_path / "broken.pth", model.detector)
    change(state)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=line):
        start(tmp_path, base=base, detector=tmp_path / "broken.pth")
    assert not (tmp_path / "start").exists()


def test_a_missing_piece_of_a_stacked_weight_is_found(tmp_path, base, their_detector):
    their_detector.save_pretrained(tmp_path / "detector")
    tensors = load_file(tmp_path / "detector" / SAFE)
    tensors.pop("model.decoder.layers.1.self_attn.key.weight")
    save_file(tensors, tmp_path / "detector" / SAFE)
    with pytest.raises(CheckpointError, match=r"1\.self_attn\.in_proj_weight \(128, 64\) \(expected \(192"):
        start(tmp_path, base=base, detector=tmp_path / "detector")


def test_the_command_says_what_is_random(tmp_path, base, capsys):
    args = ["--base", str(base), "--output", str(tmp_path / "start"), "--json"]
    assert main(args) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["random"] == RANDOM[:2]
    assert main(args) == 1
    assert "exists: remove it" in capsys.readouterr().err


def test_values_beyond_half_precision_are_not_written_as_infinite(tmp_path, base):
    folder = original_layout(base, tmp_path / "loud", "")
    tensors = load_file(folder / SAFE)
    tensors["model.norm.weight"][0] = 1e6
    save_file(tensors, folder / SAFE)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has values beyond float16: use --dtype bfloat16"):
        write_start(StartingOptions(base=folder, output=tmp_path / "start"))
    assert not (tmp_path / "start").exists()
