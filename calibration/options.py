"""What a calibration is asked for; the flags of devil-calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from devil.command import File, Flag, Folder, Threads

# Of the result. The language model's weights become integers in all of them; fp8 keeps 8 bits there.
Target = Literal["int8", "fp8", "int4", "mixed"]
Graph = Literal["vision", "language", "backbone", "grounder"]
RangeRule = Literal["auto", "max", "percentile", "entropy", "mse"]

Paths = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...", help_behavior_hint="")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]


@dataclass(frozen=True)
class CalibrateOptions:
    """Turns a bundle into one of lower precision, and says what that costs in accuracy and gains in speed.

    Runs the bundle on a few clips, records what every graph is fed, chooses ranges and scales from that, and compares
    the result with the original on other clips. A result that is out of its budget, or slower than what it replaces,
    is refused.
    """

    bundle: Folder = None
    """Bundle of floats to start from. By default the reference checkpoint is exported once into the user's cache."""

    videos: Paths = ()
    """Videos and images, or folders of them, to calibrate on; they need --sentences. By default the synthetic clips of
    the calibration split."""

    sentences: File = None
    """Text file with what is asked of the videos, one sentence per line; a line "NAME<tab>sentence" asks only that
    video."""

    annotations: File = None
    """Chat records to calibrate on instead: their videos and sentences."""

    precision: Target = "int8"
    """int8: integers in every graph. fp8: E4M3 in the vision encoder and the detector, for GPUs from SM89 on. int4: as
    int8, with 4-bit weights in the language model. mixed: the cheapest choice per layer within the budget."""

    graphs: Annotated[tuple[Graph, ...], tyro.conf.arg(metavar="GRAPH...", help_behavior_hint="")] = ()
    """Quantise only these graphs: some of vision, language, backbone, grounder. By default all four."""

    output: Folder = None
    """Folder to write. By default <model name>-<precision>-calibrated in the current folder."""

    clips: Number = 32
    """Calibrate on at most so many videos, chosen to differ from each other."""

    frames_per_clip: Number = 4
    """Keep so many frames of every video for the ranges of the vision encoder and the detector."""

    capture_mb: Number = 1024
    """Megabytes of disk that recorded inputs may take."""

    ranges: RangeRule = "auto"
    """How the range of an activation is chosen; auto takes what measured best for each graph."""

    block_size: Annotated[Literal[32, 64, 128] | None, tyro.conf.arg(metavar="32|64|128", help_behavior_hint="")] = None
    """Successive weights of the language model that share a scale, by default 64."""

    kept_weights: Annotated[Literal[8, 16], tyro.conf.arg(metavar="8|16", help_behavior_hint="")] = 8
    """Bits, in the file, of the vision encoder's and the detector's weights whose layers compute in floats. 8 takes
    bytes where the graph's error hides the loss; 16 leaves all of them as the bundle has them. By default 8."""

    budget: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE...", help_behavior_hint="")] = ()
    """What the result may lose, for example viou=0.5 (points of m_vIoU) text=3 (percent of answers that change)."""

    judge_clips: Number = 40
    """Judge the result by so many questions about clips that were not calibrated on."""

    beside: Paths = ()
    """Further bundles of the same model to judge beside the result, for example one of fp16."""

    accept: Flag = False
    """Write the result although it is out of its budget or slower; the manifest then says so."""

    target: Annotated[str | None, tyro.conf.arg(metavar="SM", help_behavior_hint="")] = None
    """GPU that the bundle is for, for example sm89: a precision that it does not compute is refused before the work."""

    work: Folder = None
    """Folder of recordings, ranges and measurements; a stopped calibration continues there. By default in the user's
    cache."""

    threads: Threads = 0
    """CPU threads. By default, or with 0, all cores."""

    force: Flag = False
    """Replace a bundle that lies at the output path. Anything else there is never replaced."""

    json: Flag = False
    """Print the result as one JSON document on the last line of stdout."""

    debug: Flag = False
    """Show the traceback of an error."""

    @property
    def chosen_graphs(self) -> tuple[Graph, ...]:
        """The graphs to quantise, in the contract's order."""
        every: tuple[Graph, ...] = ("vision", "language", "backbone", "grounder")
        return tuple(graph for graph in every if not self.graphs or graph in self.graphs)
