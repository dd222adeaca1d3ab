"""`devil-ground`: one video, one sentence, one answer; or a file of sentences and their answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from devil.assets import demo_request
from devil.command import check_threads, run_command
from devil.errors import DevilError, OutputError, SentenceError, UsageError
from devil.files import check_writable
from devil.progress import ProgressBars
from devil.prompt import checked_sentence
from devil.runtime.answer import Answer, answers_document, save_document
from devil.runtime.engines.choice import check_gpu_here
from devil.runtime.options import GroundOptions
from devil.runtime.reference_bundle import config_of, reference_bundle
from devil.video import VideoInfo, probe


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
            options.limits,
            size=(info.height, info.width),
            is_image=info.is_image,
            check_memory=not options.ignore_memory,
            engine=options.engine,
            trust_engines=options.trust_engines,
        )
        video = grounder.encode(path, progress, sentences=sentences)
        answers = video.ground_many(sentences, options.dense, options.span_only, sampling=options.sampling)
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

    options.limits.check()
    options.sampling  # noqa: B018 - raises
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
    options.limits.applied(config_of(options.bundle))
    return info


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
