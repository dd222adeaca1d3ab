"""The loop: schedules, resuming, accumulation, two processes."""

import json
import math
import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from devil.errors import CheckpointError
from devil.training.loop import LOG, LoopConfig, learning_rate, permuted, train
from devil.training.state import STATE, load_trained
from tests.training.processes import together


class Curve(nn.Module):
    """A small regression whose batches differ."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, batch):
        inputs, noise = batch, torch.rand(())
        loss = (self.layers(inputs) - inputs.sum(1, keepdim=True) - noise).square().mean()
        some = {"some": inputs[0, 0]} if inputs[0, 0] > 1 else {}
        return {"loss": loss, "noise": noise, **some}


def draw(number):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(number))


def run(folder, steps=7, stop=None, told=None, accelerator=None, **changes):
    objective = Curve()
    groups = [{"params": list(objective.parameters()), "lr": 1e-2}]
    config = LoopConfig(**({"steps": steps, "save_every": 3, "log_every": 1} | changes))

    def drawn(number):
        if number == stop:
            raise RuntimeError("killed")
        if number == told:
            signal.raise_signal(signal.SIGINT)
        return draw(number)

    train(objective, groups, drawn, config, folder, accelerator)
    return objective, lines(folder)


def lines(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def losses(log):
    return {line["step"]: (line["loss"], line["noise"]) for line in log}


def test_a_killed_run_resumes_to_the_same_losses_and_weights(tmp_path):
    whole, log = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "killed", stop=5)
    assert [line["step"] for line in lines(tmp_path / "killed")] == [1, 2, 3, 4, 5]
    with (tmp_path / "killed" / LOG).open("a") as file:
        file.write('{"step": 6, "se')
    resumed, _ = run(tmp_path / "killed")
    assert [line["step"] for line in lines(tmp_path / "killed")] == [1, 2, 3, 4, 5, 6, 7]
    assert losses(lines(tmp_path / "killed")) == losses(log)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_every_step_is_told(tmp_path):
    objective, told = Curve(), []
    groups = [{"params": list(objective.parameters()), "lr": 1e-2}]
    train(objective, groups, draw, LoopConfig(3), tmp_path, progress=lambda *step: told.append(step))
    assert told == [("training", 1, 3), ("training", 2, 3), ("training", 3, 3)]


def test_an_interrupted_run_ends_its_step_and_continues_behind_it(tmp_path):
    whole, log = run(tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="step 5 is saved, and the same command continues"):
        run(tmp_path / "stopped", told=4)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / "stopped" / STATE, weights_only=True)["step"] == 5
    resumed, again = run(tmp_path / "stopped", stop=4)
    assert losses(again) == losses(log)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_interruption_that_cannot_be_told_still_saves_its_step(tmp_path, monkeypatch):
    def nobody_reads(*_):
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", nobody_reads)
    with pytest.raises(KeyboardInterrupt, match="step 2 is saved"):
        run(tmp_path, told=1)


def test_who_interrupts_twice_need_not_wait_for_the_step(tmp_path):
    def impatient(_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    objective = Curve()
    with pytest.raises(KeyboardInterrupt):
        train(objective, [{"params": list(objective.parameters())}], impatient, LoopConfig(2), tmp_path)
    assert not (tmp_path / STATE).exists()


def test_half_precision_continues_with_the_scale_it_had(tmp_path):
    def scaled():
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        return accelerator

    _, log = run(tmp_path / "whole", accelerator=scaled())
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "killed", stop=4, accelerator=scaled())
    accelerator = scaled()
    run(tmp_path / "killed", accelerator=accelerator)
    assert accelerator.scaler.get_scale() == 64 * 2**3  # doubled after steps 2, 4 and 6
    assert losses(lines(tmp_path / "killed")) == losses(log)


@pytest.mark.parametrize("spoil", [lambda _: b"", lambda _: b"garbage", lambda whole: whole[: len(whole) // 2]])
def test_a_damaged_state_is_one_line_that_says_to_remove_it(tmp_path, spoil):
    run(tmp_path, steps=3)
    (tmp_path / STATE).write_bytes(spoil((tmp_path / STATE).read_bytes()))
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged: remove it") as caught:
        run(tmp_path, steps=3)
    assert "\n" not in str(caught.value)


def test_one_seed_gives_one_run_and_another_seed_another(tmp_path):
    _, one = run(tmp_path / "one")
    _, two = run(tmp_path / "two")
    _, other = run(tmp_path / "other", seed=1)
    assert losses(one) == losses(two)
    assert losses(one)[1][1] != losses(other)[1][1]


def test_accumulated_batches_average_their_gradients(tmp_path):
    objective = Curve()
    objective.forward = lambda batch: {"loss": (objective.layers(batch) - batch.sum(1, keepdim=True)).square().mean()}
    groups = [{"params": list(objective.parameters()), "lr": 1e-2}]
    before = [parameter.clone() for parameter in objective.parameters()]
    train(objective, groups, draw, LoopConfig(1, accumulate=2, clip=math.inf), tmp_path)

    expected = Curve()
    together = torch.cat([draw(0), draw(1)])
    (expected.layers(together) - together.sum(1, keepdim=True)).square().mean().backward()
    for start, parameter, other in zip(before, objective.parameters(), expected.parameters(), strict=True):
        step = -1e-2 * other.grad / (other.grad.abs() + 1e-8)  # AdamW's first step
        torch.testing.assert_close(parameter, start + step, rtol=1e-4, atol=1e-5)


def in_two_processes(folder, lines):
    """Runs lines of Python, which know this file as `loops`, in two processes that train together."""
    script = folder / "run.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "import importlib.util, pathlib, torch\n"
        f"spec = importlib.util.spec_from_file_location('loops', {__file__!r})\n"
        "loops = importlib.util.module_from_spec(spec); spec.loader.exec_module(loops)\n" + lines
    )
    codes, _, errors = together(str(script))
    assert codes == [0, 0], errors


def test_two_processes_give_the_losses_and_weights_of_one(tmp_path):
    in_two_processes(
        tmp_path,
        f"objective, _ = loops.run(pathlib.Path({str(tmp_path / 'two')!r}), steps=3)\n"
        f"torch.save(objective.state_dict(), {str(tmp_path / 'two.pt')!r})\n",
    )
    has = [bool(draw(number)[0, 0] > 1) for number in range(6)]
    assert (True, False) in zip(has[::2], has[1::2], strict=True)  # a loss that one process has and the other has not
    single, log = run(tmp_path / "one", steps=3, accumulate=2)
    both = lines(tmp_path / "two")
    for one, two in zip(log, both, strict=True):
        assert one.pop("seconds") >= 0
        assert one == pytest.approx({name: value for name, value in two.items() if name != "seconds"}, rel=1e-5)
    for name, value in torch.load(tmp_path / "two.pt", weights_only=True).items():
        torch.testing.assert_close(single.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_where_one_process_is_told_to_stop_all_stop_after_the_same_step(tmp_path):
    folder = tmp_path / "two"
    in_two_processes(  # only the second process draws number 3, in the second step
        tmp_path,
        "try:\n"
        f"    loops.run(pathlib.Path({str(folder)!r}), told=3)\n"
        "except KeyboardInterrupt as told:\n"
        "    assert str(told) == 'step 2 is saved, and the same command continues from there', told\n"
        "else:\n"
        "    raise AssertionError('it went on')\n",
    )
    assert torch.load(folder / STATE, weights_only=True)["step"] == 2
    assert [line["step"] for line in lines(folder)] == [1, 2]


def test_the_schedule_warms_up_and_falls_along_a_cosine():
    config = LoopConfig(100, warmup=0.1, floor=0.2)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.2 + 0.8 * 0.5)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert 0.2 <= rates[-1] < 0.21


def test_every_epoch_draws_every_sample_once_in_a_new_order():
    epochs = [[permuted(epoch * 5 + place, 5, seed=3) for place in range(5)] for epoch in range(8)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_state_of_another_model_is_refused():
    with pytest.raises(CheckpointError, match="do not fit"):
        load_trained(nn.Linear(3, 3), {"weight": torch.zeros(2, 3)})


def test_a_run_of_other_parameter_groups_is_not_resumed(tmp_path):
    run(tmp_path, steps=3)
    objective = Curve()
    groups = [
        {"params": list(layer.parameters()), "lr": 1e-2} for layer in objective.layers if list(layer.parameters())
    ]
    with pytest.raises(CheckpointError, match="trained other weights"):
        train(objective, groups, draw, LoopConfig(5), tmp_path)
