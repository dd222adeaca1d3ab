"""`devil-eval`: how well a bundle or a checkpoint grounds, as figures and as a page to look at."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from devil.cache import cache_folder
from devil.command import Count, File, Flag, Folder, Threads, check_threads, run_command
from devil.errors import UsageError, VideoError
from devil.evaluation.answerers import Answerer, BundleAnswerer, ModelAnswerer
from devil.evaluation.asking import ask_all, run_values
from devil.evaluation.datasets import SYNTHETIC, Dataset, load_dataset
from devil.evaluation.report import report_page
from devil.evaluation.samples import SampleLog, run_in
from devil.evaluation.summary import summarise
from devil.files import check_folder_writable, check_writable, write_text
from devil.model.hub import local_folder
from devil.progress import Progress, ProgressBars
from devil.runtime.engines.choice import EngineName, check_gpu_here
from devil.runtime.limits import Limits
from devil.runtime.reference_bundle import config_of, reference_bundle
from devil.video import VideoInfo, probe

METRICS, REPORT = "metrics.json", "report.html"


@dataclass(frozen=True)
class EvalOptions:
    """Asks a model about every clip of a data set and scores its answers against the truth."""

    dataset: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = SYNTHETIC
    """synthetic (200 held-out clips), hc_stvg_v1, hc_stvg_v2, vidstg, charades_sta, activitynet, or chat records."""
    bundle: Folder = None
    """Folder that devil-export wrote. By default the reference checkpoint is exported once into the user's cache."""
    model: Folder = None
    """Checkpoint folder to evaluate in PyTorch instead."""
    root: Folder = None
    """Folder of the data set's videos (and of its published annotations); a chat-record file's own by default."""
    annotations: File = None
    """Annotations of a published data set that lie elsewhere or are of another split than its test split."""
    control: Flag = False
    """Ask each synthetic clip about another object: does the box follow the sentence?"""
    limit: Count = None
    """Ask only the first N questions."""
    output: Folder = None
    """Folder to write, by default eval-DATASET-MODEL-PRECISION-ENGINE. A stopped run continues there."""
    max_frames: Count = None
    """Sample at most so many frames of a video; bundles only. By default the model's own number."""
    max_tokens: Count = None
    """Take at most so many visual tokens; bundles only. By default the model's own number."""
    context: Count = None
    """Hold at most so many tokens of video, sentence and answer; bundles only. By default the model's own number."""
    ignore_memory: Flag = False
    """Try it even where the free memory is estimated to be too small; bundles only."""
    engine: EngineName = "auto"
    """What runs a bundle's graphs: see devil-ground. By default the best this machine has."""
    trust_engines: Flag = False
    """Run TensorRT engines without comparing them with ONNX Runtime on their first use here; bundles only."""
    threads: Threads = 0
    """CPU threads of a bundle's engine. By default, or with 0, all cores."""
    force: Flag = False
    """Start anew, whatever evaluation lies in the output folder."""
    json: Flag = False
    """Print the figures as one JSON line at the end of stdout."""
    debug: Flag = False
    """Show tracebacks."""

    @property
    def limits(self) -> Limits:
        return Limits(self.max_frames, self.max_tokens, self.context)


def evaluate(options: EvalOptions) -> dict[str, Any]:
    """Does what `devil-eval` does; the figures as JSON values (docs/evaluation.md)."""
    _check(options)
    with ProgressBars() as progress:
        dataset = load_dataset(
            options.dataset, options.root, options.annotations, options.control, cache_folder(), progress
        )
        answerer = _answerer(options, dataset, progress)
        run = run_values(answerer, dataset)
        folder = options.output or Path(_default_folder(answerer, dataset))
        log = _opened(folder, run, options.force)
        try:
            asked = ask_all(dataset, answerer, log, options.limit, progress)
        except KeyboardInterrupt:
            same = "the same command without --force" if options.force else "the same command"
            answers = sum(not asked.problem for asked in log.asked.values())  # the others are asked again
            raise KeyboardInterrupt(f"{folder} holds {answers} answers, {same} continues") from None
        progress("drawing", 0, 1)
        values = summarise(dataset, asked) | {"run": run}
        write_text(folder / METRICS, json.dumps(values, indent=1) + "\n")
        title = "{model} ({precision}, {engine})".format_map(answerer.identity) + f" on {dataset.name}"
        write_text(folder / REPORT, report_page(title, values, asked, dataset))
    _summarise(title, values, folder)
    return values


def main(args: list[str] | None = None) -> int:
    return run_command(EvalOptions, evaluate, "devil-eval", args)


def _check(options: EvalOptions) -> None:
    """Fails before the long work, not after it."""
    if options.bundle and options.model:
        raise UsageError("a bundle and a checkpoint were named", "give --bundle or --model")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit is {options.limit}", "give at least 1, or leave it out")
    if options.model and (given := _of_bundles(options)):
        raise UsageError(f"a checkpoint takes no {', '.join(given)}", "leave that out, or evaluate a --bundle")
    check_threads(options.threads)
    options.limits.check()
    check_gpu_here(options.engine)
    if options.output is None:
        check_folder_writable("eval")  # the current folder; the whole name is told by what answers
    else:
        for name in (METRICS, REPORT):
            check_writable(options.output / name)
        run_in(options.output)
    if options.model:
        local_folder(options.model)
    else:
        options.limits.applied(config_of(options.bundle))


def _of_bundles(options: EvalOptions) -> list[str]:
    """The flags that say something of how a bundle is run, where they were given."""
    default = EvalOptions()
    return [
        f"--{name.replace('_', '-')}"
        for name in ("max_frames", "max_tokens", "context", "ignore_memory", "engine", "trust_engines", "threads")
        if getattr(options, name) != getattr(default, name)
    ]


def _answerer(options: EvalOptions, dataset: Dataset, progress: Progress) -> Answerer:
    if options.model:
        progress("loading the model", 0, 1)
        return ModelAnswerer(options.model)
    bundle = options.bundle or reference_bundle(progress)
    progress("opening the bundle", 0, 1)
    check_memory, trust = not options.ignore_memory, options.trust_engines
    return BundleAnswerer(bundle, options.threads, options.limits, check_memory, options.engine, trust, _first(dataset))


def _opened(folder: Path, run: Mapping[str, Any], force: bool) -> SampleLog:
    """The log of answers; figures of a run that is begun anew do not outlive its answers.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    log = SampleLog(folder, run, force)
    for name in (METRICS, REPORT):
        check_writable(folder / name)
        if force:
            (folder / name).unlink(missing_ok=True)
    return log


def _first(dataset: Dataset) -> VideoInfo | None:
    """The first file of a data set that can be read: the others are taken to be as large."""
    for path in dict.fromkeys(case.path for case in dataset.cases):
        try:
            return probe(path)
        except VideoError:
            continue  # it is left out, with its reason, when it is asked about
    return None


def _default_folder(answerer: Answerer, dataset: Dataset) -> str:
    words = "eval", Path(dataset.name).stem, *(answerer.identity[key] for key in ("model", "precision", "engine"))
    return "-".join("-".join(words).split()).lower()


def _summarise(title: str, values: Mapping[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "value", "95 % interval", "baseline", box=None)
    for name, value in values["metrics"].items():
        table.add_row(name, *_cells(value, values["intervals"][name]), *_cells(values["baseline"][name]))
    if "control" in values:
        control = values["control"]
        table.add_row(
            f"box follows the sentence ({control['judged']} judged)", *_cells(control["moved"], control["interval"])
        )
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    console.print(f"{title}: {values['samples']} sentences", markup=False)
    console.print(table)
    for reason, count in values["skipped"].items():
        console.print(f"left out  {count} × {reason}", markup=False)
    console.print(f"written   {folder / REPORT}", markup=False)


def _cells(value: float | None, interval: list[float] | None = None) -> tuple[str, ...]:
    shown = "" if value is None else f"{value:.3f}"
    return (shown, f"{interval[0]:.3f} to {interval[1]:.3f}") if interval else (shown,)


if __name__ == "__main__":
    sys.exit(main())
