"""Bars of progress."""

from devil.progress import ProgressBars


def test_a_stage_that_comes_again_is_counted_anew():
    with ProgressBars() as bars:
        bars("judging", 0, 2)
        bars("judging", 2, 2)
        (task,) = bars._bars.tasks
        assert task.finished
        bars("judging", 0, 3)
        assert (task.finished, task.completed, task.total) == (False, 0, 3)
        assert task.time_remaining is None
        bars("writing", 1, 1)
        assert [one.description for one in bars._bars.tasks] == ["judging", "writing"]
