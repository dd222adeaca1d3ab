"""What devil-ground is asked for; its flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from devil.command import Count, File, Flag, Folder, Threads
from devil.errors import UsageError
from devil.runtime.engines.choice import EngineName
from devil.runtime.limits import Limits
from devil.runtime.sampling import Sampling

Text = Annotated[str | None, tyro.conf.arg(help_behavior_hint="")]


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
    temperature: Annotated[float | None, tyro.conf.arg(metavar="T", help_behavior_hint="")] = None
    """Draw the answer's words at random, the likely ones more often the nearer this is to 0. By default every word is
    the most likely one."""
    seed: Count = None
    """Which random draw --temperature takes: the same seed gives the same answer. By default 0."""
    ignore_memory: Flag = False
    """Try it even where the free memory is estimated to be too small."""
    engine: EngineName = "auto"
    """What runs the graphs. auto takes TensorRT where the bundle has engines for this GPU, else ONNX Runtime on the GPU
    (cuda), else on the CPU (onnxruntime). mixed takes TensorRT for the graphs that have an engine, ONNX Runtime for the
    others."""
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

    @property
    def limits(self) -> Limits:
        return Limits(self.max_frames, self.max_tokens, self.context)

    @property
    def sampling(self) -> Sampling | None:
        """How words are drawn; None for the most likely ones.

        Raises:
            UsageError: a value that cannot be meant, or a seed of nothing.
        """
        if self.temperature is None:
            if self.seed is not None:
                raise UsageError("--seed goes with --temperature", "without it nothing is drawn")
            return None
        return Sampling(self.temperature, seed=self.seed or 0)
