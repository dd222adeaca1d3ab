"""Choosing the language model's integers layer by layer: what flows into a layer is what the rounded layers before it
give, so later layers make up for errors of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from devil.calibration.language.decoder import LayeredDecoder, Read, layer_key, watched_inputs
from devil.calibration.language.passes import LanguagePass
from devil.calibration.language.readout import round_readout
from devil.calibration.language.rounding import dequantised, gptq, weighted_nearest
from devil.calibration.language.scaling import FOLDS, search_scales, shared_sizes
from devil.calibration.language.statistics import InputStatistics, relative_error
from devil.calibration.language.stored import (
    HEAD,
    CalibratedWeights,
    Integers,
    StoredLayer,
    folded,
    layer_folder,
    store_layer,
)
from devil.config import LanguageConfig
from devil.errors import CalibrationError
from devil.export.quantisation import nearest
from devil.export.scheme import HEAD as HEAD_NAME
from devil.export.scheme import Scheme
from devil.model.fitting import EMBEDDING
from devil.progress import Progress, no_progress

SEARCH = "AWQ scales folded into norms and projections, GPTQ rounding"  # for the manifest


@dataclass(frozen=True)
class LanguageRecipe:
    """What the integers must fit.

    Attributes:
        scheme: bits and blocks.
        scale_type: of the scales: the graph's floating type.
    """

    scheme: Scheme
    scale_type: torch.dtype


@torch.no_grad()
def calibrate_language(
    read: Read,
    config: LanguageConfig,
    passes: Sequence[LanguagePass],
    recipe: LanguageRecipe,
    folder: Path,
    progress: Progress = no_progress,
) -> CalibratedWeights:
    """Chooses scales and integers of all layers and the head.

    Args:
        read: gives the float tensors of the model.
        passes: what it was asked.
        folder: what was chosen is stored here; layers that it has already are not computed again.

    Raises:
        CalibrationError: a layer's inputs are no numbers, or nothing was recorded.
        OutputError: the disk is full.
    """
    if not passes:
        raise CalibrationError("nothing was recorded of the language model", "give videos that can be decoded")
    original = LayeredDecoder(config, read)
    states = _embedded(original, passes, recipe)
    for index in range(config.layers):
        progress("rounding the language model", index, config.layers + 1)
        layer, place = original.layer(index), folder / layer_folder(index)
        if not place.exists():
            chosen = _LayerCalibration(original, layer, index, states, passes, recipe)
            scales, integers, errors = chosen.choose()
            store_layer(place, scales, integers, {name: chosen.bits(name) for name in integers}, errors)
        _round(layer, StoredLayer(place), config)
        states = [original.run(layer, own, one) for own, one in zip(states, passes, strict=True)]
    if not (folder / HEAD).exists():
        scheme, head, errors = recipe.scheme, {}, {}
        if scheme.bits_of(HEAD_NAME) < 16:
            head[HEAD_NAME], errors[HEAD_NAME] = round_readout(original, states, passes, scheme, recipe.scale_type)
        store_layer(folder / HEAD, {}, head, {name: scheme.bits_of(name) for name in head}, errors)
    progress("rounding the language model", config.layers + 1, config.layers + 1)
    return CalibratedWeights(folder, read, config)


class _LayerCalibration:
    """The choice of one layer's scales and integers."""

    def __init__(
        self,
        decoder: LayeredDecoder,
        layer: nn.Module,
        index: int,
        states: Sequence[Tensor],
        passes: Sequence[LanguagePass],
        recipe: LanguageRecipe,
    ):
        self._config, self._recipe, self._index = decoder.config, recipe, index
        self._state = layer.state_dict()
        self._inputs = _collect(decoder, layer, states, passes, layer_key(index))

    def choose(self) -> tuple[dict[str, Tensor], dict[str, Integers], dict[str, float]]:
        """Scales by maker, integers by linear, and the relative errors of these linears' outputs."""
        scales: dict[str, Tensor] = {}
        for folding in FOLDS:
            inputs, linears = self._inputs[folding.linears[0]], [n for n in folding.linears if self.bits(n) < 16]
            if linears:
                weights = [self._weight(name, scales) for name in linears]
                sizes = shared_sizes(folding, inputs.mean_size, self._config)
                scales[folding.maker] = search_scales(weights, inputs, sizes, self._roughly)
        integers, errors = {}, {}
        for folding in FOLDS:
            moment = self._inputs[folding.linears[0]].mean_moment
            if folding.maker in scales:
                moment = moment / (scales[folding.maker][:, None] * scales[folding.maker])
            for name in folding.linears:
                if self.bits(name) < 16:
                    weight = self._weight(name, scales)
                    integers[name] = self._integers(name, weight, moment)
                    errors[name] = relative_error(dequantised(*integers[name]), weight, moment)
        return scales, integers, errors

    def _integers(self, name: str, weight: Tensor, moment: Tensor) -> Integers:
        scheme = self._recipe.scheme
        scheme.check(f"{layer_key(self._index)}.{name}.weight", weight.shape[1])
        return gptq(weight, moment, self.bits(name), scheme.block, self._recipe.scale_type)

    def _roughly(self, weight: Tensor, moment: Tensor) -> Tensor:
        """Rounding as the search for scales takes it: what GPTQ would do costs twenty times as much."""
        scheme = self._recipe.scheme
        found = weighted_nearest(weight, moment.diagonal(), scheme.bits, scheme.block, self._recipe.scale_type)
        return dequantised(*found)

    def _weight(self, name: str, scales: dict[str, Tensor]) -> Tensor:
        return folded(self._state[f"{name}.weight"], name, "weight", scales, self._config)

    def bits(self, name: str) -> int:
        """Of a linear of this layer; 16 where it stays as it is."""
        return self._recipe.scheme.bits_of(f"{layer_key(self._index)}.{name}")


def _collect(
    decoder: LayeredDecoder, layer: nn.Module, states: Sequence[Tensor], passes: Sequence[LanguagePass], key: str
) -> dict[str, InputStatistics]:
    """Statistics of a layer's distinct inputs, by the first linear that each feeds."""
    firsts = {folding.linears[0] for folding in FOLDS}
    found: dict[str, InputStatistics] = {}
    asked = torch.empty(0)

    def watch(name: str, rows: Tensor) -> None:
        if name in firsts:
            found.setdefault(name, InputStatistics(rows.shape[1])).add_read(rows, asked)

    with watched_inputs(layer, watch):
        for own, one in zip(states, passes, strict=True):
            asked = torch.from_numpy(one.asked)
            decoder.run(layer, own, one)
    for name, inputs in found.items():
        inputs.check(f"{key}.{name}")
    return found


def _round(layer: nn.Module, stored: StoredLayer, config: LanguageConfig) -> None:
    """Gives a layer the weights that the graph will have."""
    weights = {}
    for key, values in layer.state_dict().items():
        name, _, kind = key.rpartition(".")
        rounded = kind == "weight" and stored.has(name)
        weights[key] = dequantised(*stored.rows(name)) if rounded else folded(values, name, kind, stored.scales, config)
    layer.load_state_dict(weights, assign=True)


def _embedded(decoder: LayeredDecoder, passes: Sequence[LanguagePass], recipe: LanguageRecipe) -> list[Tensor]:
    """What the first layer sees, with the embedding as the graph will have it."""
    scheme, table = recipe.scheme, decoder.read(EMBEDDING)
    if scheme.embedding_bits < 16:
        table = dequantised(*nearest(EMBEDDING, table, scheme.embedding_bits, scheme.block, recipe.scale_type))
    return [decoder.embed(one, table) for one in passes]
