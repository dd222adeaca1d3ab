"""`devil-ground`: one video, one sentence, one answer; or a file of sentences and their answers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from devil.assets import demo_request
from devil.bundle import read_manifest
from devil.command import Count, File, Flag, Folder, Threads, check_threads, run_command
from devil.errors import DevilError, OutputError, SentenceError, UsageError
from devil.files import check_writable
from devil.progress import ProgressBars
from devil.prompt import checked_sentence
from devil.runtime.answer import Answer, answers_document, save_document
from devil.runtime.engines.choice import EngineName, check_gpu_here
from devil.runtime.limits import Limits
from devil.runtime.reference_bundle import reference_bundle
from devil.video import VideoInfo, probe

Text = Annotated[str | None, tyro.conf.arg(help_behavior_hint="")]


class NothingGroundedError(DevilError):
    """The model answered without naming an object.

    Args:
        answers: all answers.
        result: the document about them.
    """

    def __init__(self, answers: list[Answer], result: dict[str, Any]):
        nothing = [answer.text for answer in answers if answer.tube is None]
        which = "the answer names" if len(answers) == 1 else f"{len(nothing)} of {len(answers)} answers name"
        super().__init__(f"{which} no object ({_beginning(nothing[0])!r})", "ask for something visible in the video")
        self.result = result


def _beginning(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


@dataclass(frozen=True)
class GroundOptions:
    """Finds what a sentence describes in a video or an image: when it happens, and where, frame by frame."""

    video: Annotated[File, tyro.conf.Positional, tyro.conf.arg(metavar="[VIDEO]")] = None
    """Video or image file."""
    sentence: Annotated[Text, tyro.conf.Positional, tyro.conf.arg(metavar="[SENTENCE]")] = None
    """What to find, for example "the red circle that moves left"."""
    sentences: File = None
    """Ask every line of this text file instead; they are answered together, in less time than one by one."""
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
    max_frames: Count = None
    """Sample at most so many frames. By default the model's own number."""
    max_tokens: Count = None
    """Take at most so many visual tokens. By default the model's own number."""
    context: Count = None
    """Hold at most so many tokens of video, sentences and answers. By default the model's own number."""
    ignore_memory: Flag = False
    """Try it even where the free memory is estimated to be too small."""
    engine: EngineName = "auto"
    """What runs the graphs. auto takes TensorRT where the bundle has engines for this GPU, else ONNX Runtime on the GPU
    (cuda), else on the CPU (onnxruntime). mixed takes TensorRT for the graphs that have an engine alone."""
    trust_engines: Flag = False
    """Run TensorRT engines without comparing them with ONNX Runtime on their first use here."""
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

    path, sentences = _request(options)
    info = _check(options, path, sentences)
    with ProgressBars() as progress:
        bundle = options.bundle or reference_bundle(progress)
        progress("opening the bundle", 0, 1)
        grounder = Grounder.open(
            bundle,
            options.threads,
            _limits(options),
            size=(info.height, info.width),
            is_image=info.is_image,
            check_memory=not options.ignore_memory,
            engine=options.engine,
            trust_engines=options.trust_engines,
        )
        video = grounder.encode(path, progress, sentences=sentences)
        answers = video.ground_many(sentences, dense=options.dense, span_only=options.span_only)
        document = answers_document(answers) if options.sentences else answers[0].to_json()
        if options.output:
            save_document(document, options.output)
        if options.render and answers[0].tube:
            answers[0].render(options.render, lambda done, total: progress("drawing", done, total))
    _summarise(answers, options)
    if any(answer.tube is None for answer in answers):
        raise NothingGroundedError(answers, document)
    return document


def main(args: list[str] | None = None) -> int:
    return run_command(GroundOptions, ground, "devil-ground", args)


def _request(options: GroundOptions) -> tuple[Path, list[str]]:
    if options.sentences and (options.sentence is not None or options.demo or options.render):
        raise UsageError("--sentences goes with no SENTENCE, --demo or --render", "ask one sentence to draw its answer")
    if options.demo:
        path, sentence = demo_request()
        return options.video or path, [options.sentence or sentence]
    if options.video is None:
        raise UsageError("no video was named", "devil-ground VIDEO SENTENCE, or devil-ground --demo")
    if options.sentences:
        return options.video, _read_sentences(options.sentences)
    if options.sentence is None:
        raise UsageError("no sentence was given", 'devil-ground VIDEO "the red circle that moves left"')
    return options.video, [options.sentence]


def _read_sentences(path: Path) -> list[str]:
    """The lines of a text file, without empty ones."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SentenceError(f"{path} cannot be read ({error.strerror})", "name a text file") from error
    except UnicodeDecodeError as error:
        raise SentenceError(f"{path} is not UTF-8 text", "save it as UTF-8") from error
    sentences = [line for line in lines if line.strip()]
    if not sentences:
        raise SentenceError(f"{path} holds no sentence", "write one sentence per line")
    return sentences


def _check(options: GroundOptions, path: Path, sentences: list[str]) -> VideoInfo:
    """Fails before the long work, not after it."""
    from devil.runtime.render import check_output

    limits = _limits(options)
    limits.check()
    check_threads(options.threads)
    check_gpu_here(options.engine)
    for sentence in sentences:
        checked_sentence(sentence)
    outputs = [output for output in (options.output, options.render) if output]
    for output in outputs:
        check_writable(output)
        if output.exists() and not options.force:
            raise OutputError(f"{output} exists", "add --force to overwrite it, or name another file")
    info = probe(path)
    if options.render:
        check_output(info, options.render)
    for source, what in ((path, "video"), (options.sentences, "file of sentences")):
        if source and any(output.exists() and output.samefile(source) for output in outputs):
            raise OutputError(f"an output is the {what} itself", "name another file")
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise OutputError(f"--output and --render both name {options.output}", "name two files")
    if options.bundle:
        limits.applied(read_manifest(options.bundle).config)
    return info


def _limits(options: GroundOptions) -> Limits:
    return Limits(options.max_frames, options.max_tokens, options.context)


def _summarise(answers: list[Answer], options: GroundOptions) -> None:
    written = [path for path in (options.output, options.render if answers[0].tube else None) if path]
    texts = ["\n".join(_lines(answer)) for answer in answers]
    sys.stdout.write("\n\n".join(texts) + "".join(f"\nwritten   {path}" for path in written) + "\n")


def _lines(answer: Answer) -> list[str]:
    span = f"{answer.span.start:.1f} to {answer.span.end:.1f} s" if answer.span else "none told"
    lines = [f"sentence  {answer.sentence}", f"answer    {answer.text}", f"span      {span}"]
    if answer.tube:
        lines.append(f"tube      {len(answer.tube.frames)} boxes, score {answer.tube.score:.2f}")
    lines += [f"problem   {problem}" for problem in answer.problems]
    lines.append("seconds   " + ", ".join(f"{stage} {value:.2f}" for stage, value in answer.timings.items()))
    return lines


if __name__ == "__main__":
    sys.exit(main())
