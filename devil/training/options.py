"""What `devil-train` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from devil.command import Count, Flag, Folder, Number, Real

Dtype = Literal["fp32", "fp16", "bf16"]
Format = Literal["chat", "hc_stvg", "vidstg", "refcoco"]


@dataclass(frozen=True)
class TrainOptions:
    """Train one stage of DEViL. A run that was stopped continues when the same command is started again."""

    stage: Literal[1, 2, 3]
    """1 images; 2 videos, detector frozen; 3 videos, everything together."""
    data: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Annotations, in the format that --format names."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the new checkpoint. The run's states and its log go to DIR-run."""
    format: Format = "chat"
    """Format of the annotations: chat records (a JSON list or JSON lines), or a published data set's own files."""
    root: Folder = None
    """Folder of the videos or images, and for VidSTG of VidOR's annotations. By default the annotations' own."""
    model: Folder = None
    """Checkpoint folder, or Hub id, to start from. By default the shipped devil-tiny. From other published weights,
    begin with python -m devil.model.starting."""
    epochs: Real = 2.0
    """Passes over the data."""
    steps: Count = None
    """Optimizer steps, instead of --epochs."""
    batch: Count = None
    """Clips per optimizer step, over all processes. By default 128 in stages 1 and 2, 32 in stage 3."""
    detector_rate: Real = 1e-4
    """Learning rate of the detector."""
    language_rate: Real = 1e-5
    """Learning rate of language model and projector."""
    lora: Number = 256
    """Rank of the language model's adapters. With 0 its own weights are trained."""
    vision: Flag = False
    """Also train the vision encoder."""
    frames: Count = None
    """Frames sampled from a clip. By default the model's own number."""
    precision: Dtype = "fp32"
    """Precision of the arithmetic; weights stay fp32. fp16 needs a GPU."""
    save_as: Dtype = "fp16"
    """Precision of the saved weights."""
    checkpointing: Flag = False
    """Recompute the language model's activations instead of keeping them."""
    flash_attention: Flag = False
    """Use the flash-attn package in the language model."""
    tensorboard: Flag = False
    """Also write TensorBoard events to DIR-run."""
    seed: Number = 0
    """Everything random follows from it."""
    save_every: Number = 100
    """Steps between two states to resume from."""
    json: Flag = False
    """Print the result as one JSON line at the end of stdout."""
    debug: Flag = False
    """Show tracebacks."""

    @property
    def run_folder(self) -> Path:
        """Folder of the run's states and its log."""
        return self.output.with_name(self.output.name + "-run")
