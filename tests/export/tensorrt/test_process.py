"""The builder's process: what it answers arrives, and however it dies becomes one line."""

import os
import sys

import pytest

from devil.engine_profile import Profile, Range
from devil.errors import EngineError
from devil.export.tensorrt import process
from devil.export.tensorrt.job import BuildJob

PROFILE = Profile("frames", {"N": Range(1, 4, 8)})


@pytest.fixture
def job(tmp_path):
    return BuildJob(
        "bundle", "grounder", "tensorrt-rtx", (PROFILE,), str(tmp_path / "engine"), ("sm89",), {"M": 64}, memory=5
    )


def child(code):
    return sys.executable, "-c", "import json, os, sys, signal\nrequest = json.load(sys.stdin)\n" + code


def run(job, code, told=lambda *_: None):
    return process.build(job, told, child(code))


def test_a_job_arrives_as_it_was_sent(job):
    assert BuildJob.loads(job.dumps()) == job
    code = "print(json.dumps({'done': json.loads(request['build'])['profiles']}))"
    assert run(job, code) == [PROFILE.values()]


def test_progress_is_passed_on_as_it_comes(job):
    heard = []
    code = """
for percent in (10, 90):
    print(json.dumps({"progress": ["Timing", percent]}), flush=True)
print(json.dumps({"done": {}}))
"""
    assert run(job, code, lambda *told: heard.append(told)) == {}
    assert heard == [("Timing", 10), ("Timing", 90)]


def test_what_the_builder_refuses_is_its_own_line(job):
    with pytest.raises(EngineError, match=r"^TensorRT refuses node_3: export again$"):
        run(job, "print(json.dumps({'error': ['TensorRT refuses node_3', 'export again']}))")


@pytest.mark.parametrize(
    ("name", "mend"), [("SIGSEGV", "docs/tensorrt.md"), ("SIGABRT", "docs/tensorrt.md"), ("SIGKILL", "out of memory")]
)
def test_a_killed_builder_is_one_line_with_the_signal_and_the_phase(job, name, mend):
    code = f"""
print(json.dumps({{"progress": ["Parsing", 1]}}), flush=True)
sys.stderr.write("terminate called\\nafter throwing")
sys.stderr.flush()
os.kill(os.getpid(), signal.{name})
"""
    with pytest.raises(EngineError) as died:
        run(job, code)
    line = str(died.value)
    assert "\n" not in line
    for part in (f"killed by {name}", "graph 'grounder' with tensorrt-rtx", "'Parsing'", "terminate called", mend):
        assert part in line


def test_an_exit_without_a_word_is_a_failure(job):
    with pytest.raises(EngineError, match="exit code 3"):
        run(job, "sys.exit(3)")
    with pytest.raises(EngineError, match="exit code 0"):
        run(job, "")


def test_a_builder_that_dies_before_it_reads_is_a_failure(job):
    with pytest.raises(EngineError, match="exit code 7"):
        process.build(job, lambda *_: None, (sys.executable, "-c", "import os; os._exit(7)"))


def test_an_interrupted_build_leaves_no_process(job, tmp_path):
    code = f"""
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
print(json.dumps({{"progress": ["Timing", 1]}}), flush=True)
signal.pause()
"""

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, code, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
