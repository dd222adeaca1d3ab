"""`devil-profile`: how long everything takes, where the time goes, and how far engines and precisions are apart."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from devil.assets import demo_request
from devil.command import Count, File, Flag, Folder, Number, Threads, check_threads, run_command
from devil.errors import OutputError, UsageError
from devil.files import atomic_file, check_writable, write_text
from devil.progress import ProgressBars
from devil.prompt import checked_sentence
from devil.runtime.doctor.facts import read_driver_apart
from devil.runtime.doctor.system import read_system
from devil.runtime.engines.choice import EngineName, check_gpu_here
from devil.runtime.limits import Limits
from devil.runtime.profile.contender import Setup
from devil.runtime.profile.measuring import measure
from devil.runtime.profile.report import text
from devil.runtime.profile.turns import Amount
from devil.runtime.reference_bundle import config_of, reference_bundle
from devil.video import probe

SCHEMA = 1
DOCUMENT, TABLE, CHART = "profile.json", "profile.txt", "profile.png"

Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]


@dataclass(frozen=True)
class ProfileOptions:
    """Measures bundles on engines side by side: every stage, every graph, memory, and what they compute.

    What is measured is one sentence about one video, and the runs of each graph that it takes.
    """

    bundles: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[BUNDLE...]", help_behavior_hint="")
    ] = ()
    """Folders that devil-export wrote, of one checkpoint. By default the reference checkpoint's bundle."""
    engine: Annotated[tuple[EngineName, ...], tyro.conf.arg(metavar="ENGINE...")] = ("auto",)
    """Engines to run each of them on: some of auto, onnxruntime, cuda, tensorrt, tensorrt-rtx, mixed. devil-ground
    --help says what they are."""
    trust_engines: Flag = False
    """Run TensorRT engines without comparing them with ONNX Runtime on their first use here."""
    video: File = None
    """Video to measure with. By default the shipped clip."""
    sentence: Text = None
    """Sentence to ask about it. By default the shipped one."""
    runs: Number = 5
    """Whole runs of the pipeline."""
    iterations: Number = 50
    """Most runs of each graph."""
    warm_up: Number = 5
    """Runs of each graph before those that count."""
    seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 20.0
    """Most time for one graph of one contender."""
    layers: Flag = False
    """Also measure every layer of every graph."""
    accuracy: Flag = False
    """Compare what the others compute with the first contender, the worst tensors first. Needs polygraphy."""
    output: Folder = None
    """Folder for profile.json, profile.txt and profile.png. By default only the table is shown."""
    max_frames: Count = None
    """Sample at most so many frames. By default the model's own number."""
    max_tokens: Count = None
    """Take at most so many visual tokens. By default the model's own number."""
    context: Count = None
    """Hold at most so many tokens of video, sentence and answer. By default the model's own number."""
    ignore_memory: Flag = False
    """Try it even where the free memory is estimated to be too small."""
    threads: Threads = 0
    """CPU threads of each engine. By default, or with 0, all cores."""
    force: Flag = False
    """Overwrite a profile in the output folder."""
    json: Flag = False
    """Print the profile as one JSON line at the end of stdout."""
    debug: Flag = False
    """Show tracebacks."""

    @property
    def limits(self) -> Limits:
        return Limits(self.max_frames, self.max_tokens, self.context)


def profile(options: ProfileOptions) -> dict[str, Any]:
    """Does what `devil-profile` does; the profile as JSON values (docs/profiling.md)."""
    video, sentence = _request(options)
    amount = _amount(options)
    with ProgressBars() as progress:
        setups = name_contenders(options.bundles or (reference_bundle(progress),), options)
        measured = measure(setups, str(video), sentence, amount, progress)
    document = {"schema": SCHEMA, "machine": _machine(), **measured}
    if options.output:
        _write(document, options.output)
    sys.stdout.write(text(document) + (f"\nwritten   {options.output}\n" if options.output else ""))
    return document


def main(args: list[str] | None = None) -> int:
    return run_command(ProfileOptions, profile, "devil-profile", args)


def name_contenders(bundles: tuple[Path, ...], options: ProfileOptions) -> dict[str, Setup]:
    """Every bundle on every engine, under names that are as short as they can be."""
    setups = [
        Setup(bundle, engine, options.threads, options.limits, not options.ignore_memory, options.trust_engines)
        for bundle, engine in itertools.product(bundles, options.engine)
    ]
    folders = {bundle: bundle.resolve().name for bundle in bundles}
    if len(set(folders.values())) < len(folders):
        folders = {bundle: str(bundle) for bundle in bundles}
    if len(options.engine) == 1:
        return {folders[setup.bundle]: setup for setup in setups}
    if len(bundles) == 1:
        return {setup.engine: setup for setup in setups}
    return {f"{folders[setup.bundle]}, {setup.engine}": setup for setup in setups}


def _request(options: ProfileOptions) -> tuple[Path, str]:
    """Fails before the long work, not after it."""
    options.limits.check()
    check_threads(options.threads)
    for named in (options.bundles, options.engine):
        if len(set(named)) < len(named):
            raise UsageError("a bundle or an engine is named twice", "name each once")
    driver = read_driver_apart()  # not here: the processes that measure start from this one
    for engine in options.engine:
        check_gpu_here(engine, driver)
    shipped, asked = demo_request()
    if options.video and options.sentence is None:
        raise UsageError("a video was named and no sentence", 'add --sentence "the red circle that moves left"')
    video, sentence = options.video or shipped, options.sentence or asked
    checked_sentence(sentence)
    probe(video)
    for name in (DOCUMENT, TABLE, CHART) if options.output else ():
        path = options.output / name
        check_writable(path)
        if path.exists() and not options.force:
            raise OutputError(f"{path} exists", "add --force to overwrite it, or name another folder")
    for bundle in options.bundles or (None,):
        options.limits.applied(config_of(bundle))
    if options.accuracy and max(1, len(options.bundles)) * len(options.engine) < 2:
        raise UsageError("--accuracy compares contenders and there is one", "name another bundle or --engine")
    return video, sentence


def _amount(options: ProfileOptions) -> Amount:
    from devil.runtime.profile.accuracy import check_polygraphy

    for name, least in (("runs", 1), ("iterations", 1), ("warm_up", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(options, name)}", f"give at least {least}")
    if not options.seconds > 0:
        raise UsageError(f"--seconds is {options.seconds}", "give more than 0")
    if options.accuracy:
        check_polygraphy()
    layers = min(options.iterations, 10) if options.layers else 0
    return Amount(options.runs, options.iterations, options.warm_up, options.seconds, layers, options.accuracy)


def _machine() -> dict[str, Any]:
    return {"system": asdict(read_system(Path.cwd())), "driver": asdict(read_driver_apart())}


def _write(document: dict[str, Any], folder: Path) -> None:
    from devil.runtime.profile.chart import draw

    write_text(folder / DOCUMENT, json.dumps(document, indent=1) + "\n")
    write_text(folder / TABLE, text(document))
    with atomic_file(folder / CHART) as path:
        draw(document).save(path)


if __name__ == "__main__":
    sys.exit(main())
