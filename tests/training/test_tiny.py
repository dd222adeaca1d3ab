"""The recipe of devil-tiny, a step of each phase."""

import json

import pytest
import torch

from devil.config import PRESETS
from devil.model.checkpoint import load_model
from devil.training.tiny import BUILDS_ON, PHASES, Course, TinyOptions, main, run

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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--phases", "joint"], "joint builds on looks"),
        (["--phases", "symbols"], "symbols builds on finding"),
        (["--looks", "0"], "--looks is 0: give a number of steps above 0"),
        (["--threads", "-1"], "--threads is -1"),
    ],
)
def test_what_cannot_be_meant_is_told_before_the_first_step(tmp_path, capsys, arguments, said):
    assert main(["--output", str(tmp_path / "tiny"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "tiny-run").exists()


def test_phases_build_on_earlier_ones_only():
    for phase, needed in BUILDS_ON.items():
        assert {PHASES.index(before) < PHASES.index(phase) for before in needed} <= {True}


@pytest.mark.slow
def test_a_phase_of_other_steps_is_no_continuation(tmp_path, capsys):
    command = ["--output", str(tmp_path / "tiny"), "--phases", "looks", "--looks"]
    assert main([*command, "1"]) == 0
    assert f"written   {tmp_path / 'tiny'}\n" in capsys.readouterr().out
    assert main([*command, "2"]) == 1
    assert "steps 1 instead of 2" in capsys.readouterr().err
