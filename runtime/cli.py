"""`devil-ground`: one video, one sentence, one answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from devil.assets import demo_request
from devil.command import File, Flag, Folder, Threads, check_threads, run_command
from devil.errors import DevilError, OutputError, UsageError
from devil.files import check_writable
from devil.progress import ProgressBars
from devil.prompt import checked_sentence
from devil.runtime.answer import Answer
from devil.runtime.reference_bundle import reference_bundle
from devil.video import probe

Text = Annotated[str | None, tyro.conf.arg(help_behavior_hint="")]


class NothingGroundedError(DevilError):
    """The model answered without naming an object."""

    def __init__(self, answer: Answer):
        super().__init__(f"the answer names no object ({answer.text!r})", "ask for something visible in the video")
        self.result = answer.to_json()


@dataclass(frozen=True)
class GroundOptions:
    """Finds what a sentence describes in a video or an image: when it happens, and where, frame by frame."""

    video: Annotated[File, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")] = None
    """Video or image file."""
    sentence: Annotated[Text, tyro.conf.Positional, tyro.conf.arg(metavar="SENTENCE")] = None
    """What to find, for example "the red circle that moves left"."""
    bundle: Folder = None
    """Folder that devil-export wrote. By default the reference checkpoint is exported once into the user's cache."""
    output: File = None
    """Write the answer to this JSON file (docs/answer.md says what is in it)."""
    render: File = None
    """Draw the answer on the video and write it to this .mp4 file (an image file for an image)."""
    dense: Flag = False
    """A box on every decoded frame of the span, not only on the sampled ones."""
    span_only: Flag = False
    """Run the detector on the span's frames alone: faster, and the tube may differ (docs/answer.md)."""
    demo: Flag = False
    """Ask the shipped demonstration sentence about the shipped clip."""
    threads: Threads = 0
    """CPU threads. By default, or with 0, all cores."""
    force: Flag = False
    """Overwrite existing output files."""
    json: Flag = False
    """Print the answer as one JSON line at the end of stdout."""
    debug: Flag = False
    """Show tracebacks."""


def ground(options: GroundOptions) -> dict[str, Any]:
    """Does what `devil-ground` does; the answer as JSON values."""
    from devil.runtime.pipeline import Grounder

    path, sentence = _request(options)
    _check(options, path, sentence)
    with ProgressBars() as progress:
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


def _check(options: GroundOptions, path: Path, sentence: str) -> None:
    """Fails before the long work, not after it."""
    from devil.runtime.render import check_output

    check_threads(options.threads)
    checked_sentence(sentence)
    outputs = [output for output in (options.output, options.render) if output]
    for output in outputs:
        check_writable(output)
        if output.exists() and not options.force:
            raise OutputError(f"{output} exists", "add --force to overwrite it, or name another file")
    info = probe(path)
    if options.render:
        check_output(info, options.render)
    if any(output.exists() and output.samefile(path) for output in outputs):
        raise OutputError("an output is the video itself", "name another file")
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise OutputError(f"--output and --render both name {options.output}", "name two files")


def _summarise(answer: Answer, options: GroundOptions) -> None:
    span = f"{answer.span.start:.1f} to {answer.span.end:.1f} s" if answer.span else "none told"
    lines = [f"sentence  {answer.sentence}", f"answer    {answer.text}", f"span      {span}"]
    if answer.tube:
        lines.append(f"tube      {len(answer.tube.frames)} boxes, score {answer.tube.score:.2f}")
    lines += [f"problem   {problem}" for problem in answer.problems]
    lines.append("seconds   " + ", ".join(f"{stage} {value:.2f}" for stage, value in answer.timings.items()))
    lines += [f"written   {path}" for path in (options.output, options.render if answer.tube else None) if path]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
