"""devil-calibrate from the command line: what it writes, what it refuses, and with which exit code."""

import json
from dataclasses import replace

import pytest

from devil.bundle import open_bundle
from devil.calibration.cli import RefusedError, bundles_beside, main
from devil.calibration.verdict.budget import Budget
from devil.calibration.verdict.decision import decide
from devil.calibration.verdict.figures import Figure
from devil.errors import UsageError
from tests.calibration.test_verdict import FP32, candidate


@pytest.fixture
def command(bundle, clips, options, tmp_path):
    """Calls the command on the clips of the shared recording; returns the exit code."""

    def call(*flags, output=tmp_path / "int8"):
        given = ("--bundle", bundle, "--annotations", clips, "--work", options.work, "--output", output)
        fixed = ("--clips", 2, "--frames-per-clip", 2, "--judge-clips", 1, "--threads", 1, "--ranges", "max")
        return main([str(word) for word in (*given, *fixed, *flags)])

    return call


def test_a_result_that_is_accepted_is_written_with_what_speaks_against_it(command, tmp_path, capsys):
    code = command("--graphs", "vision", "backbone", "--budget", "box=1", "--accept", "--json")
    out = capsys.readouterr().out
    assert code == 0
    report = json.loads(out.splitlines()[-1])
    manifest = open_bundle(tmp_path / "int8").manifest
    assert report["bundle"] == str(tmp_path / "int8")
    assert report["calibrated_on"]["clips"] == 2
    assert list(manifest.quantisation) == ["vision", "backbone", "accepted"]
    assert manifest.quantisation["accepted"] == report["verdict"]["complaints"]
    assert "<svg" in (tmp_path / "int8.verdict.html").read_text()
    assert json.loads((tmp_path / "int8.verdict.json").read_text()) == report

    assert command("--graphs", "vision", output=tmp_path / "int8") == 1  # a bundle lies there
    assert main(["--bundle", str(tmp_path / "int8"), "--output", str(tmp_path / "again")]) == 1
    assert "is quantised already (vision, backbone):" in capsys.readouterr().err


def test_a_result_out_of_its_budget_is_refused_with_what_would_be_within_it(command, tmp_path, capsys):
    code = command("--graphs", "backbone", "--budget", "box=1")
    told = capsys.readouterr().err
    assert code == 1
    assert not (tmp_path / "int8").exists()
    assert "box IoU" in told
    assert "best within the budget" in told
    note, line = told.splitlines()
    assert note == (
        "devil-calibrate: note: a budget of 3 % changed answers lets none change; "
        "one of 1 answers is 100 %: more --judge-clips judge finer"
    )
    assert "judge finer" not in line  # boxes are what is refused
    assert (tmp_path / "int8.verdict.html").exists()


@pytest.mark.parametrize(
    ("flags", "told", "code"),
    [
        (("--precision", "fp8", "--target", "sm86"), "sm86 has no 8-bit floats", 1),
        (("--precision", "int4", "--block-size", "128"), "blocks of 128 do not divide the", 1),
        (("--budget", "speed=1"), "names nothing known", 2),
        (("--judge-clips", "0"), "--judge-clips is 0", 2),
        (("--clips", "0"), "--clips is 0", 2),
        (("--threads", "-1"), "--threads is -1", 2),
    ],
)
def test_bad_options_are_refused_before_the_work(command, flags, told, code, capsys):
    assert command(*flags) == code
    assert told in capsys.readouterr().err


def test_help_tells_every_flag(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--precision", "--sentences", "--budget", "--accept", "--work"))


@pytest.mark.parametrize(
    ("other", "whole", "told"),
    [
        ("fp16", ["fp16"], "best within the budget: the bundle fp16 as it is"),
        ("part", [], "best within the budget: --graphs vision language backbone grounder"),
    ],
)
def test_a_refusal_names_a_bundle_that_was_judged_beside_as_such(other, whole, told):
    slow, good = candidate("int8", (0.5, 0.5, 1.5, 0.5)), candidate(other, (0.9, 0.9, 0.9, 0.9))
    verdict = decide("int8", "fp32", {one.name: one for one in (FP32, slow, good)}, Budget.of("int8"))
    assert told in str(RefusedError(verdict, {}, whole))


@pytest.mark.parametrize(("count", "limit", "hint"), [(33, 3, True), (34, 3, False), (33, 0, False), (10, 10, False)])
def test_a_budget_that_lets_no_answer_change_says_so(count, limit, hint):
    changed = candidate("int8", (0.5, 0.5, 0.5, 0.5))
    changed = replace(changed, agreements={**changed.agreements, "same_text": Figure(0.85, count=count)})
    budget = Budget.of("int8", [f"text={limit}"])
    verdict = decide("int8", "fp32", {one.name: one for one in (FP32, changed)}, budget)
    assert (
        "; one of 33 answers is 3.03 %: more --judge-clips judge finer" in str(RefusedError(verdict, {}, []))
    ) == hint
    assert bool(budget.too_fine(count)) == hint


def test_bundles_beside_that_the_report_could_not_tell_apart_are_refused(bundle, tmp_path):
    (tmp_path / bundle.name).symlink_to(bundle)
    (tmp_path / "other").mkdir()
    for path in bundle.iterdir():
        (tmp_path / "other" / path.name).symlink_to(path)
    assert bundles_beside([tmp_path / "other"], bundle, tmp_path / "out") == {"other": tmp_path / "other"}
    for paths in ([bundle], [tmp_path / "other", tmp_path / "other"], [tmp_path / "other"]):
        output = tmp_path / ("other" if len(paths) == 1 else "out")
        with pytest.raises(UsageError, match="two bundles are named"):
            bundles_beside(paths, bundle, output)
