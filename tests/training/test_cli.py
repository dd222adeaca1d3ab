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


def test_a_published_set_is_read_in_its_own_format(folder, capsys):
    video = json.loads((folder / "set" / "annotations.json").read_text())[0]
    boxes = [[10, 10, 30, 30]] * 2
    entry = {
        "caption": "the red shape appears", "img_size": [video["height"], video["width"]],
        "img_num": video["frame_count"], "st_frame": 1, "ed_frame": 2, "bbox": boxes,
    }  # fmt: skip
    (folder / "set" / "train.json").write_text(json.dumps({video["video"][0].rpartition("/")[2]: entry}))
    args = command(folder, 3, "person", "--lora", "0", "--format", "hc_stvg", "--steps", "1")
    args[3] = str(folder / "set" / "train.json")
    assert main(args) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["records"] == 1


def test_a_file_without_usable_records_is_one_line(folder, capsys):
    (folder / "empty.json").write_text("[]")
    args = command(folder, 2, "none")
    args[3] = str(folder / "empty.json")
    assert main(args) == 1
    assert "empty.json has no record that can be used (it is empty)" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value"), [("--steps", "0"), ("--epochs", "-1"), ("--lora", "-2"), ("--batch", "0")])
def test_a_number_that_cannot_be_meant_is_one_line(folder, capsys, flag, value):
    assert main([*command(folder, 2, "none"), flag, value]) == 2
    assert f"{flag} is {value}" in capsys.readouterr().err
    assert not (folder / "none").exists()


def test_an_output_folder_with_other_things_in_it_is_left_alone(folder, capsys):
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("precious")
    assert main(command(folder, 2, "mine")) == 1
    assert "mine also holds notes.txt" in capsys.readouterr().err
    assert (folder / "mine" / "notes.txt").read_text() == "precious"


def test_an_output_that_cannot_be_written_is_refused_before_training(folder, capsys):
    (folder / "file").write_text("")
    assert main(command(folder, 2, "file")) == 1
    assert "file is a file" in capsys.readouterr().err
