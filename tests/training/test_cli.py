"""devil-train from the command line, on a handful of clips."""

import json

import pytest
import torch

from devil.data.writer import write_dataset
from devil.model.checkpoint import load_model
from devil.training.cli import main
from tests.tiny import tiny_checkpoint, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    tiny_checkpoint(folder)
    annotations = write_dataset(folder / "set", "train", count=3, frames=tiny_config().frames)
    records = json.loads(annotations.read_text())
    records.append(records[0] | {"video": ["missing.mp4"]})
    annotations.write_text(json.dumps(records))
    return folder


def command(folder, stage, output, *more):
    return [
        "--stage", str(stage), "--data", str(folder / "set" / "annotations.json"), "--output", str(folder / output),
        "--model", str(folder / "tiny"), "--batch", "2", "--steps", "2", "--json", *more,
    ]  # fmt: skip


def test_a_stage_writes_a_checkpoint_and_counts_what_it_left_out(folder, capsys):
    assert main(command(folder, 3, "three", "--lora", "0", "--language-rate", "1e-3", "--save-as", "fp32")) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["records"] == 3
    assert sum(said["left_out"].values()) == 1
    before, after = load_model(folder / "tiny"), load_model(folder / "three")
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
    log = [json.loads(line) for line in (folder / "three-run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2]
    assert all(line["detector"] > 0 for line in log)


def test_adapters_are_folded_in_before_saving(folder):
    assert main(command(folder, 2, "two", "--lora", "2", "--save-as", "fp32", "--checkpointing")) == 0
    after = load_model(folder / "two")
    assert set(after.state_dict()) == set(load_model(folder / "tiny").state_dict())


def test_a_file_without_usable_records_is_one_line(folder, capsys):
    (folder / "empty.json").write_text("[]")
    args = command(folder, 2, "none")
    args[3] = str(folder / "empty.json")
    assert main(args) == 1
    assert "none of the 0 records" in capsys.readouterr().err
