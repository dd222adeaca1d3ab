"""What was chosen for the language model's weights, on disk layer by layer: a stopped calibration goes on with the next
layer, and a large model's integers never lie in memory together.

    layer-0003/folds.npz              scales that its inputs are multiplied by
    layer-0003/about.json             bits of its integers, and the error of its outputs, by the linear's name
    layer-0003/<name>.codes.npy       int8 [N, K]
    layer-0003/<name>.scales.npy      [N, K / block]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from devil.calibration.language.decoder import Read
from devil.calibration.language.scaling import FOLDS, Fold, made_scales
from devil.config import LanguageConfig
from devil.errors import CalibrationError
from devil.export.quantisation import nearest
from devil.files import atomic_directory

HEAD = "head"  # folder of the readout, which belongs to no layer
_FOLDS, _ABOUT = "folds.npz", "about.json"
_KEY = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")

Integers = tuple[Tensor, Tensor]  # codes int8 [N, K] and scales [N, K / block]


def layer_folder(layer: int) -> str:
    return f"layer-{layer:04d}"


def store_layer(
    folder: Path,
    scales: Mapping[str, Tensor],
    integers: Mapping[str, Integers],
    bits: Mapping[str, int],
    errors: Mapping[str, float],
) -> None:
    """Writes what was chosen for one layer, or for the head, all of it or nothing.

    Args:
        scales: by the maker of each fold.
        integers: by the linear's name in the layer.
        bits: of these.
        errors: of the outputs that they give, root mean square over the outputs' size.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    with atomic_directory(folder) as temporary:
        np.savez(temporary / _FOLDS, **{maker: values.numpy() for maker, values in scales.items()})
        about = {"bits": dict(bits), "errors": dict(errors)}
        (temporary / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
        for name, (codes, block_scales) in integers.items():
            np.save(temporary / f"{name}.codes.npy", codes.numpy())
            np.save(temporary / f"{name}.scales.npy", block_scales.numpy())


class StoredLayer:
    """What was chosen for one layer; codes are read from the disk when they are asked for."""

    def __init__(self, folder: Path):
        self._folder = folder
        try:
            with np.load(folder / _FOLDS, allow_pickle=False) as found:
                self.scales = {maker: torch.from_numpy(found[maker]) for maker in found.files}
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            self.bits: dict[str, int] = about["bits"]
            self.errors: dict[str, float] = about["errors"]
        except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
            raise CalibrationError(f"{folder} cannot be read ({error})", f"remove {folder} and run again") from error

    def has(self, name: str) -> bool:
        return name in self.bits

    def rows(self, name: str, first: int = 0, count: int | None = None) -> Integers:
        """Codes and scales of a linear's rows from `first` on."""
        part = slice(first, None if count is None else first + count)
        codes, scales = (np.load(self._folder / f"{name}.{what}.npy", mmap_mode="r") for what in ("codes", "scales"))
        return torch.from_numpy(np.array(codes[part])), torch.from_numpy(np.array(scales[part]))


class CalibratedWeights:
    """The language model's weights with their folded scales, and the integers that stand for them.

    Args:
        folder: where the layers were stored.
        read: gives the original tensors.
        config: sizes of the model.
    """

    def __init__(self, folder: Path, read: Read, config: LanguageConfig):
        self._read, self._config = read, config
        self._layers = {
            index: StoredLayer(folder / layer_folder(index))
            for index in range(config.layers)
            if (folder / layer_folder(index)).exists()
        }
        self._head = StoredLayer(folder / HEAD) if (folder / HEAD).exists() else None

    def read(self, key: str) -> Tensor:
        """A tensor of the model whose function is the original's."""
        values, match = self._read(key), _KEY.fullmatch(key)
        if not match or int(match[1]) not in self._layers:
            return values
        return folded(values, match[2], match[3], self._layers[int(match[1])].scales, self._config)

    def errors(self) -> dict[str, float]:
        """Of the outputs of every linear that integers were chosen for, by its name in the model."""
        found = {
            f"model.layers.{index}.{name}": error
            for index, layer in self._layers.items()
            for name, error in layer.errors.items()
        }
        return found | (self._head.errors if self._head else {})

    def quantise(
        self, key: str, rows: Tensor, bits: int, block: int, scale_type: torch.dtype, first: int
    ) -> tuple[Tensor, Tensor]:
        """A `devil.export.quantisation.Quantiser` that gives what was chosen.

        What was not, or for another number of bits, is rounded to nearest.
        """
        match = _KEY.fullmatch(key)
        layer, name = (
            (self._layers.get(int(match[1])), match[2]) if match else (self._head, key.removesuffix(".weight"))
        )
        if layer is None or layer.bits.get(name) != bits:
            return nearest(key, rows, bits, block, scale_type)
        return layer.rows(name, first, len(rows))


def folded(values: Tensor, name: str, kind: str, scales: Mapping[str, Tensor], config: LanguageConfig) -> Tensor:
    """One tensor of a layer after its folds.

    Args:
        name: of the part it belongs to; `kind` is weight or bias.
        scales: by maker.
    """
    values = values.float()
    for folding in FOLDS:
        if folding.maker not in scales:
            continue
        values = _folded_once(values, name, kind, folding, scales[folding.maker], config)
    return values


def _folded_once(values: Tensor, name: str, kind: str, folding: Fold, scales: Tensor, config: LanguageConfig) -> Tensor:
    if name in folding.linears and kind == "weight":
        return values * scales
    if name == folding.maker:
        made = made_scales(folding, scales, config)
        return values / (made[:, None] if values.ndim == 2 else made)
    return values
