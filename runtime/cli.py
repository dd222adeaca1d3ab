"""`devil-ground`: one video, one sentence, one answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from devil.assets import demo_request
from devil.command import run_command
from devil.errors import DevilError, OutputError, UsageError
from devil.runtime.answer import Answer
from devil.runtime.reference_bundle import reference_bundle


class NothingGroundedError(DevilError):
    """The model answered without naming an object."""

    def __init__(self, answer: Answer):
        super().__init__(f"the answer names no object ({answer.text!r})", "ask for something visible in the video")
        self.result = answer.to_json()


@dataclass(frozen=True)
class GroundOptions:
    """Finds what a sentence describes in a video or an image: when it happens, and where, frame by frame."""

    video: Annotated[Path | None, tyro.conf.Positional] = None
    """Video or image file."""
    sentence: Annotated[str | None, tyro.conf.Positional] = None
    """What to find, for example "the red circle that moves left"."""
    bundle: Path | None = None
    """Folder that devil-export wrote. By default the reference checkpoint is exported once into the user's cache."""
    output: Path | None = None
    """Write the answer to this JSON file (docs/answer.md says what is in it)."""
    render: Path | None = None
    """Draw the answer on the video and write it to this .mp4 file (an image file for an image)."""
    dense: bool = False
    """A box on every decoded frame of the span, not only on the sampled ones."""
    span_only: bool = False
    """Run the detector on the span's frames alone: faster, and the tube may differ (docs/answer.md)."""
    demo: bool = False
    """Ask the shipped demonstration sentence about the shipped clip."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""
    force: bool = False
    """Overwrite existing output files."""
    json: bool = False
    """Print the answer as one JSON line at the end of stdout."""
    debug: bool = False
    """Show tracebacks."""


def ground(options: GroundOptions) -> dict[str, Any]:
    """Does what `devil-ground` does; the answer as JSON values."""
    from devil.runtime.pipeline import Grounder

    path, sentence = _request(options)
    for output in (options.output, options.render):
        _check_output(output, options.force)
    with _Progress() as progress:
        bundle = options.bundle or reference_bundle(progress)
        progress("opening the bundle", 0, 1)
        grounder = Grounder.open(bundle, threads=options.threads)
        answer = grounder.encode(path, progress).ground(sentence, dense=options.dense, span_only=options.span_only)
        if options.output:
            answer.save(options.output)
        if options.render and answer.tube:
            answer.render(options.render, lambda done, total: progress("drawing", done, total))
    _summarise(answer, options)
    if answer.tube is None:
        raise NothingGroundedError(answer)
    return answer.to_json()


def main(args: list[str] | None = None) -> int:
    return run_command(GroundOptions, ground, "devil-ground", args)


def _request(options: GroundOptions) -> tuple[Path, str]:
    if options.demo:
        path, sentence = demo_request()
        return options.video or path, options.sentence or sentence
    if options.video is None:
        raise UsageError("no video was named", "devil-ground VIDEO SENTENCE, or devil-ground --demo")
    if options.sentence is None:
        raise UsageError("no sentence was given", 'devil-ground VIDEO "the red circle that moves left"')
    return options.video, options.sentence


def _check_output(path: Path | None, force: bool) -> None:
    """Fails before the long work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"{path} is a folder", "name a file")
    if path.exists() and not force:
        raise OutputError(f"{path} exists", "add --force to overwrite it, or name another file")


def _summarise(answer: Answer, options: GroundOptions) -> None:
    span = f"{answer.span.start:.1f} to {answer.span.end:.1f} s" if answer.span else "none told"
    lines = [f"sentence  {answer.sentence}", f"answer    {answer.text}", f"span      {span}"]
    if answer.tube:
        lines.append(f"tube      {len(answer.tube.frames)} boxes, score {answer.tube.score:.2f}")
    lines += [f"problem   {problem}" for problem in answer.problems]
    lines.append("seconds   " + ", ".join(f"{stage} {value:.2f}" for stage, value in answer.timings.items()))
    lines += [f"written   {path}" for path in (options.output, options.render if answer.tube else None) if path]
    sys.stdout.write("\n".join(lines) + "\n")


class _Progress:
    """A bar on stderr where it is a terminal; nothing where it is not."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bars.start()
        self._tasks: dict[str, Any] = {}
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()


if __name__ == "__main__":
    sys.exit(main())
