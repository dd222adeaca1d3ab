"""Nested phases become one number."""

from devil.export.tensorrt.monitor import Phases


def test_inner_phases_fill_the_outer_ones_step():
    heard = []
    phases = Phases(lambda phase, percent: heard.append((phase, percent)))
    phases.start("build", 2)
    phases.start("optimise", 4)
    for step in range(4):
        phases.step("optimise", step)
    phases.finish("optimise")
    phases.step("build", 0)
    phases.start("serialise", 1)
    phases.step("serialise", 0)
    phases.finish("serialise")
    phases.step("build", 1)
    phases.finish("build")
    percents = [percent for _, percent in heard]
    assert percents == [0, 12, 25, 37, 50, 100]
    assert heard[1] == ("optimise", 12)


def test_more_inner_phases_than_foreseen_never_go_back_or_beyond():
    heard = []
    phases = Phases(lambda _phase, percent: heard.append(percent))
    phases.start("build", 1)
    for _ in range(3):
        phases.start("again", 0)
        phases.step("again", 0)
        phases.step("again", 7)
        phases.finish("again")
    phases.step("unknown", 3)
    assert heard == sorted(set(heard))
    assert heard[-1] == 100
