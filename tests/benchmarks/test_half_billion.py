"""The benchmark's checkpoint: begun again where it was interrupted, and whole or not there."""

import json

import pytest


def test_an_interrupted_checkpoint_is_written_again(monkeypatch, tmp_path):
    import half_billion

    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "tokenizer.json").write_text("{}")
    weights = {"model.norm.weight": half_billion.torch.ones(3), "model.g_dino.x": half_billion.torch.ones(2)}
    half_billion.save_file(weights, tmp_path / "checkpoint" / "model.safetensors")

    def interrupted(_source, _target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(half_billion.shutil, "copyfile", interrupted)
        half_billion.write_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    half_billion.write_checkpoint(tmp_path)
    qwen = tmp_path / "qwen"
    assert json.loads((qwen / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    assert list(half_billion.load_file(qwen / "model.safetensors")) == ["model.norm.weight"]
    assert not (qwen / "tokenizer.json").is_symlink()
