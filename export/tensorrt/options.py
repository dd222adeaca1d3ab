"""What engines are asked for; flags of devil-build and devil-export."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from devil.command import Count, Flag, Number
from devil.contract import GRAPHS, GraphName
from devil.engine_key import Hardware, capability_number
from devil.errors import EngineError, UsageError
from devil.export.sizes import parsed_size

BackendChoice = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]
_Text = Annotated[str | None, tyro.conf.arg(help_behavior_hint="")]
LARGEST_EFFORT = 5


@dataclass(frozen=True)
class EngineOptions:
    """Which engines are built, for which GPUs and sizes."""

    backend: BackendChoice = "auto"
    """What builds engines. auto takes TensorRT, else TensorRT-RTX, where there is a GPU for it (TensorRT-RTX also
    without one, if --target says for which GPUs), and builds nothing otherwise; ONNX Runtime needs no engines."""

    target: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SM...", help_behavior_hint="")] = ()
    """GPUs to build for, by compute capability, for example sm89 sm120. By default this machine's. TensorRT builds for
    no other."""

    graphs: Annotated[tuple[GraphName, ...], tyro.conf.arg(metavar="GRAPH...", help_behavior_hint="")] = ()
    """Graphs to build engines of: some of vision, language, backbone, grounder. By default all four."""

    batch: Number = 8
    """Most frames that the detector takes at once."""

    max_frame: Annotated[_Text, tyro.conf.arg(metavar="HxW")] = None
    """Largest height and width in pixels of the detector's frames. By default those of 16:9 videos, upright ones
    too."""

    vision_batch: Number = 16
    """Most frames that the vision encoder takes at once."""

    image_tokens: Count = None
    """Most visual tokens of one frame or image. By default the model's number, but at most 1024."""

    context: Count = None
    """Slots of the KV cache: tokens of video, sentences and answers. By default the model's context."""

    chunk: Number = 256
    """Most tokens that the language model reads at once."""

    builder_memory: Annotated[float | None, tyro.conf.arg(metavar="GB", help_behavior_hint="")] = None
    """GPU memory that the builder may use for trying kernels and that a layer may use for scratch. By default all."""

    effort: Annotated[int | None, tyro.conf.arg(metavar="0-5", help_behavior_hint="")] = None
    """How long the builder searches for fast kernels, 0 to 5. By default TensorRT's own."""

    hardware: Hardware = "none"
    """TensorRT: which GPUs besides the model it is built on an engine runs on. Others than none may run slower."""

    version_compatible: Flag = False
    """TensorRT: engines that newer ones of the same major version run too. They may be slower, and carry code that runs
    on the CPU: take them from nobody you do not trust."""

    rebuild: Flag = False
    """Build also what is there and fits."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """`target` as capabilities in ascending order; empty where none was named.

        Raises:
            UsageError: no capabilities.
        """
        try:
            numbers = {capability_number(name) for name in self.target}
        except EngineError as error:
            raise UsageError(f"--target: {error.message}", "write for example --target sm89 sm120") from None
        return tuple(f"sm{number}" for number in sorted(numbers))

    @property
    def chosen_graphs(self) -> tuple[str, ...]:
        """`graphs` in the contract's order."""
        return tuple(graph for graph in GRAPHS if graph in (self.graphs or GRAPHS))

    @property
    def largest_frame(self) -> tuple[int, int] | None:
        """`max_frame` as (height, width).

        Raises:
            UsageError: it is malformed.
        """
        return parsed_size(self.max_frame, "--max-frame") if self.max_frame else None

    def check(self) -> None:
        """
        Raises:
            UsageError: a number that cannot be meant, or a contradiction.
        """
        for name in ("batch", "vision_batch", "image_tokens", "context", "chunk", "builder_memory"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} is {value}", "give more than 0")
        if self.effort is not None and not 0 <= self.effort <= LARGEST_EFFORT:
            raise UsageError(f"--effort is {self.effort}", f"give 0 to {LARGEST_EFFORT}")
        self.largest_frame  # noqa: B018 - raises
        if self.capabilities and self.backend == "onnxruntime":
            raise UsageError("--backend onnxruntime has no engines", "leave --target out")
