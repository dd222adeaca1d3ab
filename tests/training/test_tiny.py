"""The recipe of devil-tiny, a step of each phase."""

import json

import pytest
import torch

from devil.config import PRESETS
from devil.model.checkpoint import load_model
from devil.training.tiny import PHASES, Course, TinyOptions, main, run

ONE_STEP = dict.fromkeys(PHASES, 1)


@pytest.mark.slow
def test_the_recipe_writes_a_checkpoint_without_its_training_heads(tmp_path):
    said = run(TinyOptions(tmp_path / "tiny", **ONE_STEP))
    model = load_model(tmp_path / "tiny")
    assert model.devil == PRESETS["tiny"]
    assert said["steps"] == ONE_STEP
    assert (tmp_path / "tiny" / "model.safetensors").stat().st_size < 20e6
    for phase in PHASES:
        (line,) = (tmp_path / "tiny-run" / phase / "log.jsonl").read_text().splitlines()
        assert json.loads(line)["loss"] > 0


@pytest.mark.slow
def test_phases_run_apart_are_put_together(tmp_path):
    for phase in ("looks", "finding"):
        command = ["--output", str(tmp_path / "tiny"), "--phases", phase, f"--{phase}", "1"]
        assert main(command) == 0
    fresh, found = Course.begin(tmp_path / "fresh"), load_model(tmp_path / "tiny")
    changed = {
        name.split(".")[1]
        for name, value in fresh.model.state_dict().items()
        if not torch.allclose(value, found.state_dict()[name], atol=2e-4, rtol=1e-3)
    }
    assert {"vision_encoder", "g_dino"} <= changed
    assert "layers" not in changed
