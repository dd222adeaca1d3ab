"""devil-train from the command line, on a handful of clips."""

import json
import signal

import pytest
import torch

from devil.data.writer import write_dataset
from devil.model.checkpoint import load_model
from devil.training import stage_run
from devil.training.cli import main
from devil.training.grounding import record_batch
from tests.tiny import tiny_checkpoint, tiny_config
from tests.training.processes import together

MODULE = "-m", "devil.training.cli"


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


def lines(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines(run)]


def named(folder, changed, name):
    """Another file of annotations: the first records, changed."""
    records = json.loads((folder / "set" / "annotations.json").read_text())[:3]
    for record in records:
        changed(record)
    (folder / "set" / name).write_text(json.dumps(records))
    return folder / "set" / name


def test_a_stage_writes_a_checkpoint_and_counts_what_it_left_out(folder, capsys):
    assert main(command(folder, 3, "three", "--lora", "0", "--language-rate", "1e-3", "--save-as", "fp32")) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["records"] == 3
    assert sum(said["left_out"].values()) == 1
    before, after = load_model(folder / "tiny"), load_model(folder / "three")
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
    log = lines(folder / "three-run")
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


WHOLE = ("--lora", "0", "--language-rate", "1e-3", "--save-as", "fp32", "--steps", "4", "--save-every", "2")


@pytest.fixture(scope="module")
def whole(folder):
    """The folder of a run of four steps, of two clips each."""
    assert main(command(folder, 3, "whole", *WHOLE)) == 0
    return folder / "whole-run"


def at_call(monkeypatch, number, happens):
    """Lets something happen when a batch is loaded for the `number`-th time, from 1."""
    count = iter(range(1, 1000))

    def loaded(*args):
        if next(count) == number:
            happens()
        return record_batch(*args)

    monkeypatch.setattr(stage_run, "record_batch", loaded)


def die():
    raise RuntimeError("killed")


def test_a_killed_training_continues_to_the_same_losses_and_weights(folder, whole, monkeypatch, capsys):
    at_call(monkeypatch, 7, die)
    assert main(command(folder, 3, "killed", *WHOLE)) == 1
    assert len(lines(folder / "killed-run")) == 3
    monkeypatch.undo()
    assert main(command(folder, 3, "killed", *WHOLE)) == 0, capsys.readouterr().err
    assert losses(folder / "killed-run") == losses(whole)
    continued = load_model(folder / "killed").state_dict()
    for name, value in load_model(folder / "whole").state_dict().items():
        assert torch.equal(value, continued[name]), name


def test_an_interrupted_training_keeps_its_steps_and_says_so(folder, whole, monkeypatch, capsys):
    at_call(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT))
    assert main(command(folder, 3, "stopped", *WHOLE, "--save-every", "100")) == 130
    assert "interrupted; step 3 is saved, and the same command continues from there" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(command(folder, 3, "stopped", *WHOLE)) == 0
    assert losses(folder / "stopped-run") == losses(whole)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("--seed", "7"), "seed 0 instead of 7"),
        (("--steps", "3"), "steps 4 instead of 3"),
        (("--batch", "1", "--detector-rate", "1"), "batch 2 instead of 1, detector_rate 0.0001 instead of 1.0"),
        (("--data", "{other}"), "other data"),
    ],
)
def test_a_run_of_something_else_is_not_taken_for_this_one(folder, whole, capsys, changes, told):
    other = named(folder, lambda record: record.update(kind="other"), "other.json")
    before = (whole / "run.json").read_text(), (whole / "state.pt").stat().st_mtime_ns
    assert main(command(folder, 3, "whole", *WHOLE, *(change.format(other=other) for change in changes))) == 1
    error = capsys.readouterr().err
    assert f"holds a run of {told}: name another --output, or remove" in error
    assert error.count("\n") == 1
    assert ((whole / "run.json").read_text(), (whole / "state.pt").stat().st_mtime_ns) == before


def test_a_state_of_nobody_knows_what_is_not_continued(folder, whole, capsys):
    (folder / "lost-run").mkdir()
    (folder / "lost-run" / "state.pt").write_bytes((whole / "state.pt").read_bytes())
    assert main(command(folder, 3, "lost", *WHOLE)) == 1
    assert "something that it does not tell: name another --output" in capsys.readouterr().err


def test_files_that_cannot_be_trained_on_are_counted_and_the_others_trained_on(folder, capsys):
    (folder / "set" / "clips" / "bad.mp4").write_bytes(b"not a video")
    names = iter(["clips/bad.mp4"])

    def spoil(record):
        record["video"] = [next(names, record["video"][0])]
        record["frame_count"] += 5
        record["used_segment"]["end_fid"] += 3  # files end a little before their annotations say

    args = command(folder, 3, "some", "--lora", "0", "--data", str(named(folder, spoil, "some.json")))
    assert main(args) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["left_out"] == {"video unreadable": 1}
    assert said.err == f"left out  1 × video unreadable\nlog       {folder / 'some-run' / 'log.jsonl'}\n"
    assert f"written   {folder / 'some'}" in said.out.splitlines()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_refuses_what_it_does_not_train_on(folder, capsys, stage):
    def into_images(record):
        record["image"] = record.pop("video")
        record["ground_truth"] = {"start_time": 0, "end_time": 0, "bboxs": record["ground_truth"]["bboxs"][:1]}

    data = named(folder, into_images if stage > 1 else dict, "kinds.json")
    assert main(command(folder, stage, "none", "--lora", "0", "--data", str(data))) == 2
    wanted, found = ("images", "videos") if stage == 1 else ("videos", "images")
    assert f"--stage {stage} trains on {wanted}, and 3 of 3 records are about {found}" in capsys.readouterr().err
    assert not (folder / "none-run").exists()


def test_flash_attention_has_no_fp32(folder, capsys):
    assert main(command(folder, 2, "none", "--flash-attention")) == 2
    assert "--flash-attention has no fp32: add --precision bf16" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_fp16_is_not_taken_for_fp32_where_there_is_no_gpu(folder, capsys):
    assert main(command(folder, 2, "none", "--lora", "0", "--precision", "fp16")) == 2
    assert "--precision fp16 needs a GPU: give bf16 or fp32" in capsys.readouterr().err
    assert not (folder / "none-run").exists()


def test_tensorboard_events_say_what_the_log_says(folder):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(command(folder, 2, "events", "--lora", "0", "--tensorboard")) == 0
    (file,) = (folder / "events-run").rglob("events.out.tfevents*")
    found = events.EventAccumulator(str(file)).Reload()
    log = lines(folder / "events-run")
    assert [event.step for event in found.Scalars("answer")] == [1, 2]
    assert [event.value for event in found.Scalars("answer")] == pytest.approx([line["answer"] for line in log])


def test_two_processes_give_the_losses_of_one_also_where_only_one_has_a_box(folder):
    def shorten(record):
        if record["video"][0].endswith("0001.mp4"):  # an event between two samples, which the detector never sees
            box = record["ground_truth"]["bboxs"][0]
            record["ground_truth"] = {"start_time": 1, "end_time": 2, "bboxs": [box] * 2}

    data = str(named(folder, shorten, "short.json"))
    options = ("--data", data, *WHOLE, "--steps", "3")
    codes, outs, errors = together(*MODULE, *command(folder, 3, "both", *options))
    assert codes == [0, 0], errors
    assert json.loads(outs[0].splitlines()[-1])["records"] == 3
    assert outs[1] == ""
    assert main(command(folder, 3, "single", *options)) == 0
    for one, two in zip(losses(folder / "single-run"), losses(folder / "both-run"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_a_batch_that_two_processes_cannot_share_is_refused(folder):
    codes, _, errors = together(*MODULE, *command(folder, 2, "odd", "--lora", "0", "--batch", "3"))
    assert codes == [2, 2]
    assert all("--batch 3 cannot be shared by 2 processes: give a multiple of 2" in error for error in errors)
    assert not (folder / "odd").exists()
