"""What an export is asked for; the flags of devil-export."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from devil.assets import reference_checkpoint
from devil.command import Flag, Folder
from devil.contract import Precision
from devil.errors import ConfigError


@dataclass(frozen=True)
class ExportOptions:
    """Export a DEViL checkpoint as a bundle of ONNX graphs.

    Writes a folder with the four graphs, the tokenizer and a manifest, after checking every graph against PyTorch.
    Without arguments it exports the reference checkpoint that ships in the package.
    """

    model: Folder = None
    """Checkpoint folder in the Hugging Face format. By default the shipped devil-tiny."""

    precision: Precision = "fp32"
    """Floating type of the graphs. fp32 is exact, fp16 is for GPUs and half the size, bf16 is for recent GPUs."""

    output: Folder = None
    """Folder to write. By default <model name>-<precision> in the current folder."""

    frame_size: Annotated[str | None, tyro.conf.arg(metavar="HxW", help_behavior_hint="")] = None
    """Fix the detector's frames to this height and width in pixels, for speed. By default any size is taken."""

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
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None.

        Raises:
            ConfigError: `frame_size` is not of the form HxW.
        """
        if self.frame_size is None:
            return None
        match = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", self.frame_size)
        if not match:
            raise ConfigError(f"frame size {self.frame_size!r} is not HxW", "write for example --frame-size 360x640")
        return int(match[1]), int(match[2])
