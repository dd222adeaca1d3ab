"""How devil-tiny is made from nothing: `python -m devil.training.tiny --output DIR`, in six phases.

looks    vision encoder and projector learn, from crowded pictures, to tell what a perfect eye would tell; from then on
         they are frozen, because clips show training pairs only and would teach to tell shapes by their colour
finding  the detector learns to find a shape by an oracle text vector instead of a sentence
blurring and now by one that is as inexact as an RST
symbols  the language model learns, on a perfect eye's codes, what happens when, and which shape the RST stands for
pictures the language model learns on, with what the vision encoder tells of clips
joint    and now with the detector, which is asked through the RST

Phases that build on none of each other can run side by side (`--phases looks`, …). Each phase continues where it was
killed. Nothing of the held-out split is ever drawn.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from devil.command import check_threads, run_command
from devil.errors import MissingPackageError, UsageError
from devil.files import check_folder_writable
from devil.progress import Progress, ProgressBars, no_progress

Phase = Literal["looks", "finding", "blurring", "symbols", "pictures", "joint"]
PHASES: tuple[Phase, ...] = ("looks", "finding", "blurring", "symbols", "pictures", "joint")
BUILDS_ON: Mapping[Phase, tuple[Phase, ...]] = {
    "looks": (),
    "finding": (),
    "blurring": ("finding",),
    "symbols": ("finding",),  # whose vectors the RST learns to stand for
    "pictures": ("looks", "finding", "symbols"),
    "joint": PHASES[:-1],
}
_BLUR = 0.5
_SHORT = 1000  # batches of clips of half the frames that the symbols begin with


@dataclass(frozen=True)
class TinyOptions:
    """Train devil-tiny from nothing.

    Attributes:
        output: folder of the checkpoint; states and logs go to OUTPUT-run, one folder per phase.
        phases: which to run now; what other phases have reached is loaded.
        looks, finding, blurring, symbols, pictures, joint: steps of each phase.
        threads: of the CPU; 0 for all cores.
        debug: show tracebacks.
        json: end with one line of JSON.
    """

    output: Path
    phases: tuple[Phase, ...] = PHASES
    looks: int = 6000
    finding: int = 1700
    blurring: int = 600
    symbols: int = 3500
    pictures: int = 4500
    joint: int = 1000
    threads: int = 1
    debug: bool = False
    json: bool = False


def main(args: list[str] | None = None) -> int:
    return run_command(TinyOptions, run, "python -m devil.training.tiny", args)


def run(options: TinyOptions) -> dict[str, Any]:
    """Runs the phases asked for, in order, and writes the checkpoint after the last of them.

    Raises:
        UsageError: an option that cannot be meant, or a phase without those that it builds on.
        OutputError: a folder cannot be written, or holds the state of a phase with other steps.
    """
    folder = options.output.with_name(options.output.name + "-run")
    _check(options, folder)
    import torch

    from devil.model.checkpoint import save_model

    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    course = Course.begin(folder)
    sys.stderr.write(f"logs      {folder}\n")
    with ProgressBars() as progress:
        for phase in PHASES:
            if phase in options.phases:
                course.train(phase, getattr(options, phase), progress)
            else:
                course.load(phase)
    save_model(course.model.eval(), options.output, course.tokenizer, torch.float16)
    sys.stdout.write(f"written   {options.output}\n")
    return {"checkpoint": str(options.output), "steps": {phase: getattr(options, phase) for phase in options.phases}}


def _check(options: TinyOptions, folder: Path) -> None:
    """Fails before the long work, not after it."""
    for package in ("torch", "transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package, "training", "train")
    check_threads(options.threads)
    check_folder_writable(options.output)
    from devil.training.state import STATE

    for phase in options.phases:
        if getattr(options, phase) < 1:
            raise UsageError(f"--{phase} is {getattr(options, phase)}", "give a number of steps above 0")
        for before in BUILDS_ON[phase]:
            if before not in options.phases and not (folder / before / STATE).exists():
                raise UsageError(f"{phase} builds on {before}, which {folder} has not", f"add {before} to --phases")


@dataclass(frozen=True)
class Plan:
    """What a phase trains (parts by learning rate), with which losses and batches."""

    rates: dict[str, float]
    weights: dict[str, float]
    draw: Callable[[int], Any]


@dataclass
class Course:
    """The model on its way through the phases, with its training heads."""

    folder: Path
    tokenizer: Path
    model: Any
    teaching: Any
    finding: Any
    plans: dict[Phase, Plan] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path) -> Course:
        """A new model, tokenizer and heads; the same every time."""
        import torch

        from devil.config import PRESETS
        from devil.model.devil import DevilModel
        from devil.prompt import PromptWriter
        from devil.training.beginning import begin
        from devil.training.comparison import begin_comparison
        from devil.training.teaching import TeachingObjective
        from devil.training.tokenizer import tiny_tokenizer
        from devil.training.warmup import WarmupObjective

        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = folder / "tokenizer.json"
        tiny_tokenizer().save(str(tokenizer))
        config = PRESETS["tiny"]
        writer = PromptWriter(tokenizer, config)
        torch.manual_seed(0)
        model = DevilModel(config)
        begin(model, writer)
        finding = WarmupObjective(model.detector)
        teaching = TeachingObjective(model, finding.referents, {})
        begin_comparison(model, teaching.symbols, writer.video_prefix([0.0], [1])[0])
        return cls(folder, tokenizer, model, teaching, finding, _plans(config, writer))

    def train(self, phase: Phase, steps: int, progress: Progress = no_progress) -> None:
        """Trains a phase to its end, from the state it was killed in.

        Raises:
            OutputError: that state is of a phase with another number of steps, whose rates fall differently.
        """
        from devil.training.identity import check_run, keep_run
        from devil.training.loop import LoopConfig, train
        from devil.training.state import STATE

        run, folder = {"steps": steps}, self.folder / phase
        check_run(folder, run, STATE)
        folder.mkdir(parents=True, exist_ok=True)
        keep_run(folder, run)
        plan = self.plans[phase]
        self.teaching.weights = plan.weights
        groups = [{"params": self._parts(name), "lr": rate} for name, rate in plan.rates.items()]
        config = LoopConfig(steps, warmup=0.02, floor=0.03, save_every=100, log_every=25)
        try:
            train(
                self._objective(phase), groups, plan.draw, config, folder,
                progress=lambda _stage, done, total: progress(phase, done, total),
            )  # fmt: skip
        except KeyboardInterrupt as told:
            raise KeyboardInterrupt(*(f"{phase}: {sentence}" for sentence in told.args)) from None

    def load(self, phase: Phase) -> None:
        """Takes over what a phase has reached, if it was ever run."""
        from devil.training.state import STATE, load_state

        if (self.folder / phase / STATE).exists():
            load_state(self._objective(phase), self.folder / phase)

    def _objective(self, phase: Phase) -> Any:
        from devil.training.joint import JointObjective

        if phase == "joint":
            return JointObjective(self.teaching, window=4, detector_weight=0.3)
        self.finding.blur = _BLUR if phase == "blurring" else 0.0
        return self.finding if phase in ("finding", "blurring") else self.teaching

    def _parts(self, name: str) -> list[Any]:
        base, teaching = self.model.model, self.teaching
        modules: dict[str, Sequence[Any]] = {
            "vision": (base.vision_encoder, base.mm_projector, teaching.appearance),
            "language": (base.layers, base.norm, base.embed_tokens, self.model.lm_head),
            "reasons": (teaching.history, teaching.questions, teaching.events),
            "mapping": (base.g_dino.llm_feat_map,),
            "detector": (base.g_dino.backbone, base.g_dino.input_proj, base.g_dino.transformer, base.g_dino.bbox_embed),
            "oracle": (self.finding.referents,),
        }
        return [parameter for module in modules[name] for parameter in module.parameters()]


def _plans(config: Any, writer: Any) -> dict[Phase, Plan]:
    from devil.training.teaching import draw_gallery, draw_symbols, draw_teaching
    from devil.training.warmup import draw_frames

    looks = {"found": 1, "colour": 0.5, "shape": 1, "size": 0.1, "pale": 0.3, "offset": 1.5, "likeness": 3}
    past = {"holds": 0.3, "begins": 0.6, "time": 0.2, "moved": 0.7, "new": 0.3, "before": 1, "shift": 1}
    question = {"answer": 2, "asked_first": 0.2, "asked_last": 0.2, "rst": 1}
    led = ("read_first", "read_last", "find_first", "find_last", "own_time", "look_back", "look_again", "stay", "name")
    attention = dict.fromkeys(led, 0.5)
    words = question | past | attention
    told = ("language", "reasons", "mapping")
    return {
        "looks": Plan({"vision": 1e-3}, looks, lambda n: draw_gallery(n, config, writer, 32)),
        "finding": Plan({"detector": 7e-4, "oracle": 7e-4}, {}, lambda n: draw_frames(n, config, 5, 4)),
        "blurring": Plan({"detector": 2.5e-4}, {}, lambda n: draw_frames(n + 500_000, config, 5, 4)),
        "symbols": Plan(
            dict.fromkeys(told, 1e-3),
            words,
            lambda n: draw_symbols(n, config, writer, 6, 6, config.frames // 2 if n < _SHORT else config.frames),
        ),
        "pictures": Plan(dict.fromkeys(told, 3e-4), words, lambda n: draw_teaching(n, config, writer, 4, 6)),
        "joint": Plan(
            dict.fromkeys(told, 1e-4) | {"detector": 2e-4},
            words,
            lambda n: draw_teaching(n + 1_000_000, config, writer, 4, 6),
        ),
    }


if __name__ == "__main__":
    raise SystemExit(main())
