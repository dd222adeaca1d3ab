"""AWQ and GPTQ on random Qwen2 models: the function is kept, the errors shrink, and a stopped run goes on."""

import copy
import dataclasses
import filecmp

import numpy as np
import pytest
import torch

from devil.calibration.language.calibrate import LanguageRecipe, calibrate_language
from devil.calibration.language.decoder import LayeredDecoder, watched_inputs
from devil.calibration.language.passes import LanguagePass
from devil.calibration.language.rounding import dequantised, gptq, weighted_nearest
from devil.calibration.language.scaling import FOLDS, search_scales
from devil.calibration.language.statistics import InputStatistics, output_error
from devil.calibration.language.stored import folded
from devil.config import LanguageConfig
from devil.errors import CalibrationError
from devil.export import quantised
from devil.export.language import build_language
from devil.export.onnx_file import save_model
from devil.export.quantisation import nearest
from devil.export.scheme import Scheme
from tests.qwen2 import CONFIGS, expected, language_runner, prompt, reference

CONFIG = LanguageConfig(hidden=128, layers=2, heads=4, kv_heads=2, mlp=192, vocab=211, context=512)
RECIPE = LanguageRecipe(Scheme(4, 64, 16, 4), torch.float32)


def outlying(config):
    """The reference with a few channels that are forty times as large as the others, as language models have them."""
    model = copy.deepcopy(reference(config))
    with torch.no_grad():
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight[::37] *= 40
    return model


def one_pass(config, seed, length=60):
    ids, table = prompt(config, length, 9, seed)
    mask = np.tri(length, dtype=bool)
    return LanguagePass(ids, table, np.arange(length), mask, np.arange(length))


def passes(config, count=4):
    return [one_pass(config, seed) for seed in range(count)]


@torch.no_grad()
def states(decoder, one):
    """Final-norm hidden states of a pass."""
    found = decoder.embed(one, decoder.read("model.embed_tokens.weight"))
    for index in range(decoder.config.layers):
        found = decoder.run(decoder.layer(index), found, one)
    return decoder.hidden(found).numpy()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_layer_by_layer_is_the_whole_model(config):
    one = one_pass(config, 3)
    found = states(LayeredDecoder(config, reference(config).state_dict().__getitem__), one)
    np.testing.assert_allclose(found, expected(config, one.token_ids, one.table)[1], atol=2e-5)


def test_recorded_runs_are_one_pass_even_where_slots_were_written_twice(tmp_path):
    config = CONFIGS["head_dim 16, tied"]
    ids, table = prompt(config, 20, 5)
    first, last = config.vocab, len(table)
    draft = np.array([7, 8, 9])
    # A prefix in two chunks (the second one sees two rows of the table), a draft that is thrown away, what is said.
    pieces = [(0, ids[:6]), (6, ids[6:12]), (12, draft), (13, ids[13:20])]
    cache, runs, outputs = language_runner(tmp_path, config).cache(1, 32), [], []
    for start, own in pieces:
        rows = own[own >= first] - first
        stretch = slice(int(rows.min()), int(rows.max()) + 1) if rows.size else slice(0, 0)
        shown = table[stretch] if rows.size else np.zeros((1, config.hidden), np.float32)
        slots = start + np.arange(len(own))
        runs.append(
            {
                "token_ids": np.where(own >= first, own - stretch.start, own)[None],
                "visual_table": shown,
                "positions": slots[None],
                "write_index": np.array([start]),
                "mask": (np.arange(slots[-1] + 1) <= slots[:, None])[None, None],
                "output_index": np.arange(len(own))[None],
            }
        )
        outputs.append(cache.run(runs[-1])["hidden"][0])
    one = LanguagePass.of_runs(runs, config.vocab)
    assert len(one) == sum(len(own) for _, own in pieces)
    assert last == 5
    found = states(LayeredDecoder(config, reference(config).state_dict().__getitem__), one)
    np.testing.assert_allclose(found, np.concatenate(outputs), atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_folded_scales_leave_the_function_unchanged(config):
    one, random = one_pass(config, 1), torch.Generator().manual_seed(0)
    decoder = LayeredDecoder(config, reference(config).state_dict().__getitem__)
    layer = decoder.layer(1)
    before = decoder.embed(one, decoder.read("model.embed_tokens.weight"))
    scales = {}
    for fold in FOLDS:
        width = layer.get_submodule(fold.linears[0]).in_features
        drawn = torch.rand(width, generator=random) * 3 + 0.2
        if fold.maker == "self_attn.v_proj":  # heads of a group share the value that they read
            groups = drawn.reshape(config.kv_heads, -1, config.head_dim)
            drawn = groups[:, :1].expand_as(groups).flatten()
        scales[fold.maker] = drawn
    expected_states = decoder.run(layer, before, one)
    state = {key: folded(values, *key.rsplit(".", 1), scales, config) for key, values in layer.state_dict().items()}
    changed = {key for key, values in state.items() if not torch.equal(values, layer.state_dict()[key])}
    assert len(changed) == len(state) - 2  # all but the biases of query and key
    layer.load_state_dict(state, assign=True)
    torch.testing.assert_close(decoder.run(layer, before, one), expected_states, atol=1e-4, rtol=1e-4)


def test_gptq_of_independent_inputs_is_rounding_to_nearest():
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    importance = torch.rand(128, generator=torch.Generator().manual_seed(1)) + 0.1
    codes, scales = gptq(weight, torch.diag(importance), 4, 64, torch.float16)
    plain_codes, plain_scales = weighted_nearest(weight, importance, 4, 64, torch.float16)
    assert scales.dtype == torch.float16
    torch.testing.assert_close(scales, plain_scales)
    torch.testing.assert_close(codes, plain_codes)


def test_gptq_by_hand():
    # Two inputs that are nearly the same: the first weight is rounded from 1.4 to 1, and the second takes the 0.4 over.
    weight = torch.tensor([[1.4, 1.4, 7.0, 7.0]])
    moment = torch.eye(4)
    moment[0, 1] = moment[1, 0] = 0.999
    codes, scales = gptq(weight, moment, 4, 4, torch.float32)
    assert scales.item() == 1.0
    assert codes.tolist() == [[1, 2, 7, 7]]


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_makes_outputs_of_dependent_inputs_better(bits):
    random = torch.Generator().manual_seed(2)
    inputs = torch.randn(400, 24, generator=random) @ torch.randn(24, 128, generator=random)
    inputs += 0.2 * torch.randn(400, 128, generator=random)
    weight, moment = torch.randn(32, 128, generator=random), inputs.T @ inputs / 400
    errors = {
        name: output_error(dequantised(*found) - weight, moment)
        for name, found in {
            "nearest": nearest("w", weight, bits, 64, torch.float32),
            "gptq": gptq(weight, moment, bits, 64, torch.float32),
        }.items()
    }
    assert errors["gptq"] < 0.5 * errors["nearest"]


def test_inputs_that_are_always_zero_do_not_spoil_the_rest():
    moment = torch.eye(64)
    moment[5, 5] = 0
    codes, scales = gptq(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), moment, 4, 64, torch.float32)
    assert torch.isfinite(scales).all()
    assert codes.float().abs().max() <= 8


def test_scales_stretch_the_inputs_that_are_large():
    random = torch.Generator().manual_seed(4)
    rows = torch.randn(300, 64, generator=random)
    rows[:, 3] *= 50
    inputs, weight = InputStatistics(64), torch.randn(16, 64, generator=random)
    inputs.add(rows)

    def round_weight(values, _moment):
        return dequantised(*nearest("w", values, 4, 64, torch.float32))

    scales = search_scales([weight], inputs, inputs.mean_size, round_weight)
    assert scales.argmax() == 3
    assert scales[3] > 2 * scales.median()

    def error(tried):
        difference = round_weight(weight * tried, None) / tried - weight
        return float((rows @ difference.T).square().sum())

    sizes = rows.abs().mean(0)
    others = [error(sizes**power / (sizes.max() * sizes.min()) ** (power / 2)) for power in (0, 0.25, 0.5, 0.75)]
    assert error(scales) <= min(others) * 1.001
    assert error(scales) < 0.8 * others[0]  # without scales


def test_a_calibrated_model_is_nearer_to_the_original_on_text_it_was_not_calibrated_on(tmp_path):
    model, test = outlying(CONFIG), one_pass(CONFIG, 9)
    weights = model.state_dict()
    exact = states(LayeredDecoder(CONFIG, weights.__getitem__), test)
    calibrated = calibrate_language(weights.__getitem__, CONFIG, passes(CONFIG), RECIPE, tmp_path / "work")
    errors = {}
    for name, read, quantise in (
        ("nearest", weights.__getitem__, nearest),
        ("calibrated", calibrated.read, calibrated.quantise),
    ):
        rounded = {}
        for key in weights:
            values = read(key)
            if values.ndim == 2 and ".layers." in key:
                values = dequantised(*quantise(key, values, 4, 64, torch.float32, 0))
            rounded[key] = values
        found = states(LayeredDecoder(CONFIG, rounded.__getitem__), test)
        errors[name] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert errors["calibrated"] < 0.75 * errors["nearest"]


def test_the_graph_holds_what_was_chosen_whatever_rows_it_asks_for_together(tmp_path, monkeypatch):
    weights = outlying(CONFIG).state_dict()
    calibrated = calibrate_language(weights.__getitem__, CONFIG, passes(CONFIG, 2), RECIPE, tmp_path / "work")
    monkeypatch.setattr(quantised, "_STRETCH", 5 * CONFIG.hidden)  # five rows at a time
    model = build_language(CONFIG, calibrated.read, "fp32", RECIPE.scheme, calibrated.quantise)
    save_model(model, tmp_path / "language.onnx")
    key = "model.layers.1.self_attn.o_proj.weight"
    stored = tmp_path / "work" / "layer-0001" / "self_attn.o_proj.codes.npy"
    found = model.graph.initializers[f"{key}.int4"].const_value.numpy()
    np.testing.assert_array_equal(found.astype(np.int8), np.load(stored).T)
    norm = model.graph.initializers["model.layers.0.input_layernorm.weight"].const_value.numpy()
    assert np.abs(norm - weights["model.layers.0.input_layernorm.weight"].numpy()).max() > 0.01


def test_a_stopped_run_goes_on_with_the_next_layer_and_chooses_the_same(tmp_path):
    weights = reference(CONFIG).state_dict().__getitem__
    calibrate_language(weights, CONFIG, passes(CONFIG, 1), RECIPE, tmp_path / "one")

    def stopping(_stage, done, _total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_language(weights, CONFIG, passes(CONFIG, 1), RECIPE, tmp_path / "two", stopping)
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["layer-0000"]
    written = (tmp_path / "two" / "layer-0000" / "folds.npz").stat().st_mtime_ns
    calibrate_language(weights, CONFIG, passes(CONFIG, 1), RECIPE, tmp_path / "two")
    assert (tmp_path / "two" / "layer-0000" / "folds.npz").stat().st_mtime_ns == written
    for folder in ("layer-0001", "head"):
        names = [path.name for path in (tmp_path / "one" / folder).glob("*.npy")]
        assert names
        assert filecmp.cmpfiles(tmp_path / "one" / folder, tmp_path / "two" / folder, names, shallow=False)[0] == names


def test_layers_that_are_excepted_keep_their_weights(tmp_path):
    kept = "model.layers.0.mlp.down_proj"
    recipe = LanguageRecipe(Scheme(4, 64, 16, 16, ((kept, 16),)), torch.float32)
    weights = reference(CONFIG).state_dict().__getitem__
    calibrated = calibrate_language(weights, CONFIG, passes(CONFIG, 1), recipe, tmp_path / "work")
    torch.testing.assert_close(calibrated.read(f"{kept}.weight"), weights(f"{kept}.weight"))
    model = build_language(CONFIG, calibrated.read, "fp32", recipe.scheme, calibrated.quantise)
    assert f"{kept}.weight" in model.graph.initializers
    assert "model.layers.1.mlp.down_proj.weight.int4" in model.graph.initializers


def test_a_tied_readout_has_integers_of_its_own_that_make_better_logits(tmp_path):
    config = dataclasses.replace(CONFIG, tied=True)
    weights, asked = outlying(config).state_dict(), passes(config)
    weights["model.norm.weight"][::37] *= 40  # channels that matter more than others
    scheme, recipe = Scheme(4, 64, 4, 4), LanguageRecipe(Scheme(4, 64, 4, 4), torch.float32)
    calibrated = calibrate_language(weights.__getitem__, config, asked, recipe, tmp_path / "work")
    save_model(build_language(config, calibrated.read, "fp32", scheme, calibrated.quantise), tmp_path / "language.onnx")
    model = build_language(config, calibrated.read, "fp32", scheme, calibrated.quantise)
    table = weights["model.embed_tokens.weight"]
    plain = nearest("w", table, 4, 64, torch.float32)

    def stored(name):
        return model.graph.initializers[f"model.embed_tokens.weight.{name}"].const_value.numpy()

    looked_up = np.concatenate([stored("rows4") & 15, stored("rows4") >> 4], 1).astype(np.int8) - 8
    np.testing.assert_array_equal(looked_up, plain[0].numpy())
    readout = stored("int4").astype(np.float32).T * stored("scales").T.repeat(64, 1)
    decoder = LayeredDecoder(config, weights.__getitem__)
    hidden = torch.from_numpy(np.concatenate([states(decoder, one) for one in passes(config, 6)[4:]]))
    errors = [float((hidden @ (torch.as_tensor(one) - table).T).norm()) for one in (readout, dequantised(*plain))]
    assert errors[0] < 0.8 * errors[1]


def test_errors_of_layers_are_those_of_the_outputs_that_their_integers_give(tmp_path):
    weights, one = reference(CONFIG).state_dict().__getitem__, one_pass(CONFIG, 0)
    one = dataclasses.replace(one, asked=np.arange(0))  # all tokens weigh alike
    recipe = LanguageRecipe(Scheme(4, 64, 16, 16), torch.float32)
    calibrated = calibrate_language(weights, CONFIG, [one], recipe, tmp_path)
    key, decoder, seen = "model.layers.0.self_attn.q_proj", LayeredDecoder(CONFIG, weights), {}
    with watched_inputs(layer := decoder.layer(0), seen.__setitem__):
        decoder.run(layer, decoder.embed(one, weights("model.embed_tokens.weight")), one)
    exact = seen["self_attn.q_proj"] @ weights(f"{key}.weight").T
    found = dequantised(*calibrated.quantise(f"{key}.weight", torch.empty(128, 0), 4, 64, torch.float32, 0))
    scales = calibrated.read(f"{key}.weight") / weights(f"{key}.weight")
    wrong = (seen["self_attn.q_proj"] / scales[0]) @ found.T - exact
    assert calibrated.errors()[key] == pytest.approx(float(wrong.norm() / exact.norm()), rel=1e-3)
    assert len(calibrated.errors()) == 7 * CONFIG.layers


def test_activations_that_are_no_numbers_are_named(tmp_path):
    weights = dict(reference(CONFIG).state_dict())
    weights["model.layers.1.input_layernorm.weight"] = torch.full((128,), torch.nan)
    with pytest.raises(CalibrationError, match=r"input of model\.layers\.1\.self_attn\.q_proj has values"):
        calibrate_language(weights.__getitem__, CONFIG, passes(CONFIG, 1), RECIPE, tmp_path / "work")


def test_nothing_recorded_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="nothing was recorded"):
        calibrate_language(reference(CONFIG).state_dict().__getitem__, CONFIG, [], RECIPE, tmp_path / "work")
