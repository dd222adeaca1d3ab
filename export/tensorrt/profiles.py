"""Optimisation profiles of a bundle's graphs: the sizes its runtime asks for, from the model's own numbers."""

from __future__ import annotations

from dataclasses import dataclass

from devil.config import DevilConfig, level_shapes
from devil.engine_profile import Profile, Range
from devil.errors import UsageError
from devil.export.tensorrt.options import EngineOptions

_IMAGE_TOKENS = 1024  # attention over a frame takes memory with the square of its tokens
_ASPECT = (9, 16)  # of the usual video
_DECODED = 32  # tokens of one decoding step: sentences side by side, with their drafts

Values = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a bundle's engines.

    Args:
        config: the bundle's.
        frame: (height, width) that the detector's graphs are fixed to, or None.
        options: what was asked for.
        tuned: kernels are chosen while the engine is built, for the usual sizes of each profile. TensorRT-RTX chooses
            them where it runs, for the sizes it meets; more profiles then only make building slower.

    Raises:
        UsageError: asked-for sizes that the model cannot have.
    """

    config: DevilConfig
    frame: tuple[int, int] | None
    options: EngineOptions
    tuned: bool = True

    def profiles(self, graph: str) -> tuple[Profile, ...]:
        """The profiles of a graph's engine, in TensorRT's order."""
        return {
            "vision": self._vision,
            "language": self._language,
            "backbone": self._detector,
            "grounder": self._detector,
        }[graph]()

    @property
    def fixed(self) -> dict[str, int]:
        """Named dimensions that engines must have as numbers: TensorRT updates a KV cache of static length only."""
        return {"M": self.slots}

    @property
    def slots(self) -> int:
        """Slots of the KV cache."""
        most = self.config.language.context
        slots = self.options.context or most
        if not self.config.max_new_tokens < slots <= most:
            least = self.config.max_new_tokens + 1
            raise UsageError(f"--context is {slots}", f"the model takes {least} to {most}")
        return slots

    def _vision(self) -> tuple[Profile, ...]:
        """Many frames of a video; and one large frame: an image, or a video of few frames."""
        config, merged = self.config, self.config.vision.merge**2
        usual = max(1, config.max_tokens // config.frames)
        largest = self.options.image_tokens or min(config.max_tokens, max(_IMAGE_TOKENS, usual))
        if largest > config.max_tokens:
            raise UsageError(f"--image-tokens is {largest}", f"the model takes at most {config.max_tokens}")
        usual = min(usual, largest)
        frames = min(self.options.vision_batch, config.frames)
        video = {"F": Range(1, frames, frames), "P": Range(merged, usual * merged, usual * merged)}
        profiles = [Profile("video", video)]
        if largest > usual:
            image = {"F": Range.fixed(1), "P": Range(merged, largest * merged, largest * merged)}
            profiles.append(Profile("image", image))
        return tuple(profiles)

    def _language(self) -> tuple[Profile, ...]:
        """Reading a prompt chunk by chunk; and decoding, one token or a draft of each sentence per step.

        Where kernels are not tuned, one profile serves both: two layers of the 7B model in int4 then build in 60 % of
        the time and with a quarter less memory. (The vision encoder's two stay: one for both would reserve memory for
        many large frames.)
        """
        chunk, slots = min(self.options.chunk, self.slots), self.slots
        decoded = min(_DECODED, chunk)
        common = {"B": Range.fixed(1), "M": Range.fixed(slots), "T": Range(1, max(1, slots // 2), slots)}
        prefill = {"S": Range(1, chunk, chunk), "K": Range(1, 1, chunk), "V": Range(1, chunk, chunk)}
        decode = {"S": Range(1, 1, decoded), "K": Range(1, 1, decoded), "V": Range(1, 1, decoded)}
        if not self.tuned:
            both = {name: Range(1, 1, chunk) for name in prefill}
            return (Profile("prefill and decode", common | both),)
        return Profile("prefill", common | prefill), Profile("decode", common | decode)

    def _detector(self) -> tuple[Profile, ...]:
        batch = Range(1, self.options.batch, self.options.batch)
        if self.frame:
            height, width = map(Range.fixed, self.frame)
        else:
            height, width = self._frame_ranges()
        shapes = (level_shapes(getattr(height, side), getattr(width, side)) for side in ("min", "opt", "max"))
        lengths = Range(*(sum(rows * columns for rows, columns in levels) for levels in shapes))
        return (Profile("frames", {"N": batch, "H": height, "W": width, "L": lengths}),)

    def _frame_ranges(self) -> tuple[Range, Range]:
        """Heights and widths of frames whose shorter side is the detector's."""
        least = self.config.detector.min_side
        usual = max(least, least * _ASPECT[1] // _ASPECT[0])
        height, width = self.options.largest_frame or (usual, usual)
        if min(height, width) < least:
            raise UsageError(f"--max-frame is {height}x{width}", f"the detector's frames have at least {least} pixels")
        if self.options.largest_frame and height > width:  # upright videos
            return Range(least, min(usual, height), height), Range(least, least, width)
        return Range(least, least, height), Range(least, min(usual, width), width)


def check_sizes(config: DevilConfig, frame: tuple[int, int] | None, options: EngineOptions) -> None:
    """
    Args:
        config, frame: of the bundle, see `Sizes`.

    Raises:
        UsageError: asked-for sizes that the model cannot have.
    """
    for graph in options.chosen_graphs:
        Sizes(config, frame, options).profiles(graph)


def level_shape_values(profile: Profile) -> Values:
    """What the grounder's input `level_shapes` holds at the profile's smallest, usual and largest sizes."""
    return tuple(
        tuple(
            size
            for level in level_shapes(getattr(profile.ranges["H"], side), getattr(profile.ranges["W"], side))
            for size in level
        )
        for side in ("min", "opt", "max")
    )
