"""The installed commands. Each loads its room when it is called, so that an interrupt meanwhile is no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

Main = Callable[[list[str] | None], int]


def _command(name: str, module: str) -> Main:
    """`main` of a module, which takes up to a second to load."""

    def main(args: list[str] | None = None) -> int:
        try:
            loaded: Main = import_module(module).main
        except KeyboardInterrupt:
            sys.stderr.write(f"{name}: interrupted; nothing was begun\n")
            return 130
        return loaded(args)

    return main


build = _command("devil-build", "devil.export.tensorrt.cli")
calibrate = _command("devil-calibrate", "devil.calibration.cli")
doctor = _command("devil-doctor", "devil.runtime.doctor.cli")
evaluate = _command("devil-eval", "devil.evaluation.cli")
export = _command("devil-export", "devil.export.cli")
ground = _command("devil-ground", "devil.runtime.cli")
profile = _command("devil-profile", "devil.runtime.profile.cli")
train = _command("devil-train", "devil.training.cli")
