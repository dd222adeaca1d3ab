"""What an export is asked for; the flags of devil-export."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from devil.assets import reference_checkpoint
from devil.command import Flag, Folder
from devil.contract import BundlePrecision
from devil.errors import UsageError
from devil.export.scheme import Bits, BlockSize, Scheme
from devil.export.sizes import parsed_size
from devil.export.tensorrt.options import EngineOptions

_OF_INTEGERS = ("block_size", "activations", "head_bits", "embedding_bits")  # flags that say nothing of floats


@dataclass(frozen=True)
class ExportOptions:
    """Export a DEViL checkpoint as a bundle of ONNX graphs.

    Writes a folder with the four graphs, the tokenizer and a manifest, after checking every graph against PyTorch.
    Without arguments it exports the reference checkpoint that ships in the package.
    """

    model: Folder = None
    """Checkpoint folder in the Hugging Face format. By default the shipped devil-tiny."""

    precision: BundlePrecision = "fp32"
    """fp32 is exact, fp16 is for GPUs and half the size, bf16 is for recent GPUs. int8 and int4 store the language
    model's weights as integers, with everything else in fp16."""

    output: Folder = None
    """Folder to write. By default <model name>-<precision> in the current folder."""

    frame_size: Annotated[str | None, tyro.conf.arg(metavar="HxW", help_behavior_hint="")] = None
    """Fix the detector's frames to this height and width in pixels, for speed. By default any size is taken."""

    link_weights: Flag = False
    """Use the checkpoint's own files as the language model's weights, without a copy. They must be safetensors of the
    asked precision on the output's disk. The bundle keeps them when the checkpoint's folder is removed."""

    layers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Keep only the language model's first N decoder layers, to look for errors. Its answers then mean nothing."""

    block_size: Annotated[BlockSize | None, tyro.conf.arg(metavar="32|64|128", help_behavior_hint="")] = None
    """int8 and int4: successive weights that share a scale, by default 64. Fewer are more exact and take more
    space."""

    activations: Annotated[
        Literal["fp16", "fp32"] | None, tyro.conf.arg(metavar="fp16|fp32", help_behavior_hint="")
    ] = None
    """int8 and int4: floating type of the language graph, by default fp16. fp32 is faster on a CPU and larger."""

    head_bits: Annotated[Bits | None, tyro.conf.arg(metavar="4|8|16", help_behavior_hint="")] = None
    """int8 and int4: bits of the readout to logits, 16 for no integers. By default those of the precision."""

    embedding_bits: Annotated[Bits | None, tyro.conf.arg(metavar="4|8|16", help_behavior_hint="")] = None
    """int8 and int4: bits of the token embedding, 16 for no integers. By default those of the precision."""

    accept: Flag = False
    """Write the bundle even if a graph differs from PyTorch by more than its precision may. The manifest then says
    so."""

    engines: tyro.conf.OmitArgPrefixes[EngineOptions] = field(default_factory=EngineOptions)

    force: Flag = False
    """Replace a bundle that lies at the output path. Anything else there is never replaced."""

    json: Flag = False
    """Print the result as one JSON document on the last line of stdout."""

    debug: Flag = False
    """Show the traceback of an error."""

    @property
    def checkpoint(self) -> Path:
        return reference_checkpoint() if self.model is None else self.model

    @property
    def model_name(self) -> str:
        return self.checkpoint.resolve().name

    @property
    def bundle(self) -> Path:
        """The folder to write."""
        return Path(f"{self.model_name}-{self.precision}") if self.output is None else self.output

    @property
    def scheme(self) -> Scheme | None:
        """How the language model's weights become integers; None where they do not."""
        return Scheme.of(self.precision, self.block_size, self.embedding_bits, self.head_bits)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None.

        Raises:
            UsageError: `frame_size` is not of the form HxW.
        """
        return None if self.frame_size is None else parsed_size(self.frame_size, "--frame-size")

    def check(self) -> None:
        """
        Raises:
            UsageError: a value that cannot be meant, or flags that contradict each other.
        """
        self.fixed_size  # noqa: B018 - raises
        for name in _OF_INTEGERS:
            if not self.scheme and getattr(self, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} is for int8 and int4, not {self.precision}", f"leave {flag} out or add --precision int4"
                )
        if self.scheme and self.link_weights:
            raise UsageError(f"{self.precision} weights are not in the checkpoint", "leave --link-weights out")
        self.engines.check()
