"""(video, sentence) to (span, tube): what a bundle computes, stage by stage, per-video work done once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from devil.bundle import Bundle, open_bundle, read_manifest
from devil.contract import contract
from devil.errors import EngineError
from devil.progress import Progress, no_progress
from devil.prompt import PromptWriter
from devil.runtime.available_memory import available_memory
from devil.runtime.drafting import answer_draft
from devil.runtime.encoded_video import Video
from devil.runtime.engines.base import Engine
from devil.runtime.engines.choice import EngineName, open_engines
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.limits import NO_LIMITS, Limits
from devil.runtime.memory_plan import check_fits

_log = logging.getLogger(__name__)


class Grounder:
    """An opened bundle on an engine.

    >>> grounder = Grounder.open("devil-tiny-fp16")
    >>> video = grounder.encode("clip.mp4")
    >>> answer = video.ground("the red circle while it moves left")
    """

    def __init__(self, bundle: Bundle, engine: Engine, limits: Limits = NO_LIMITS):
        import scipy.optimize  # noqa: F401 - the linker's; loaded here, the first sentence does not wait for it

        self.bundle, self.engine, self.config = bundle, engine, limits.applied(bundle.config)
        self.writer = PromptWriter(bundle.tokenizer_path, self.config)
        self.drafts = {is_image: answer_draft(self.writer, is_image) for is_image in (False, True)}
        specs = contract(bundle.config)
        self.vision, self.language, self.backbone, self.grounder = (
            engine.load(bundle.path(name), specs[name], bundle.manifest.graph_precision(name))
            for name in ("vision", "language", "backbone", "grounder")
        )

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike,
        threads: int = 0,
        limits: Limits = NO_LIMITS,
        size: tuple[int, int] | None = None,
        is_image: bool = False,
        check_memory: bool = True,
        engine: EngineName = "auto",
        trust_engines: bool = False,
    ) -> Grounder:
        """Checks a bundle and loads its graphs into an engine.

        Args:
            folder: a bundle written by `devil-export`.
            threads: CPU threads; 0 takes all cores.
            limits: what a video may take, where that is to be less than the model's own numbers.
            size: (height, width) of the videos to come, in pixels, for the check of memory; 16:9 by default.
            is_image: images will come, which take one frame and all visual tokens.
            check_memory: refuse what is estimated not to fit into this machine's free memory; only looked at where the
                graphs run on the CPU.
            engine: which runs them; the best this machine has by default.
            trust_engines: run TensorRT engines that were not compared with ONNX Runtime on this machine.

        Raises:
            BundleError: incomplete, altered, foreign or too new.
            UsageError: a limit that cannot be meant.
            EngineError: no engine here runs this precision, or memory is too small: nothing has been loaded then.
        """
        manifest = read_manifest(folder)
        config = limits.applied(manifest.config)
        bundle, refused = None, None
        for chosen in open_engines(Bundle(Path(folder), manifest), engine, threads, trust_engines):
            on_cpu = isinstance(chosen, OnnxRuntimeEngine)
            try:
                available = available_memory() if check_memory and on_cpu else None
                if available is not None:
                    check_fits(manifest, config, available, size, is_image)
                bundle = bundle or open_bundle(folder)
                return cls(bundle, chosen, limits)
            except EngineError as error:
                if engine != "auto" or on_cpu:  # nothing comes after it
                    if refused:
                        raise refused from None
                    raise
                _log.warning("%s is not used: %s", chosen.name, error)
                refused = refused or EngineError(error.message, error.mend)  # a traceback keeps what was loaded
        raise AssertionError("the CPU is always among the engines of auto")

    def encode(
        self,
        path: str | os.PathLike,
        progress: Progress = no_progress,
        segment: tuple[int, int] | None = None,
        sentences: Sequence[str] = (),
    ) -> Video:
        """The per-video work, once: reading, vision encoder, the prompt's prefill.

        Args:
            path: a video or image file.
            progress: called with (stage, done, total) now and then, here and for the sentences asked later.
            segment: first and last frame of the part to look at, both included; spans then count from its first frame.
            sentences: some that will be asked: one that cannot be is refused before the long work.

        Raises:
            VideoError: the file cannot be read, has no such segment, or is too much for the model's context.
            SentenceError: a sentence is empty, or too long for what the video leaves of the model's context.
        """
        return Video(self, path, progress, segment, sentences)
