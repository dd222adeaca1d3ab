"""How much each linear layer of the language model loses in 4 bits, and several of them together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from devil.calibration.language.decoder import LayeredDecoder, Read, layer_key
from devil.calibration.language.passes import LanguagePass
from devil.calibration.language.rounding import dequantised
from devil.calibration.language.stored import CalibratedWeights
from devil.calibration.sensitivity.tasks import Readout, word_losses
from devil.config import DevilConfig
from devil.export.scheme import HEAD as HEAD_NAME
from devil.export.scheme import Scheme
from devil.model.fitting import EMBEDDING


class LanguageTask:
    """Losses of the language model with some linear layers rounded to what was chosen for them.

    Layers in front of the first rounded one give what they always give, so that is kept: [N, hidden] per layer and
    pass.

    Args:
        config: of the model.
        read: gives the float tensors.
        calibrated: what was chosen.
        scheme: bits and blocks that it was chosen for.
        passes: what the model is asked.
        answers: how many answers these make.
    """

    def __init__(
        self, config: DevilConfig, read: Read, calibrated: CalibratedWeights, scheme: Scheme,
        passes: Sequence[LanguagePass], answers: int,
    ):  # fmt: skip
        self._answers = answers
        self._config, self._calibrated, self._scheme, self._passes = config, calibrated, scheme, passes
        self._decoder = LayeredDecoder(config.language, read)
        self._before: list[list[Tensor]] = []
        self._expected = self._run(frozenset(), keep=True)

    def linears(self) -> Iterator[tuple[str, int]]:
        """Name and number of weights of every layer that can be rounded."""
        for index in range(self._config.language.layers):
            for name, module in self._decoder.layer(index).named_modules():
                if isinstance(module, nn.Linear):
                    yield f"{layer_key(index)}.{name}", module.weight.numel()
        yield HEAD_NAME, self._decoder.head().numel()

    def losses(self, rounded: Collection[str]) -> dict[str, float]:
        """With these layers in integers and all others in floats."""
        return word_losses(self._run(frozenset(rounded)), self._expected, self._config, self._answers)

    @torch.no_grad()
    def _run(self, rounded: frozenset[str], keep: bool = False) -> list[Readout]:
        decoder, count = self._decoder, self._config.language.layers
        first = next((i for i in range(count) if any(key.startswith(f"{layer_key(i)}.") for key in rounded)), count)
        if keep:
            table = decoder.read(EMBEDDING)
            self._before = [[decoder.embed(one, table) for one in self._passes]]
            first = 0
        states = self._before[first]
        for index in range(first, count):
            layer = self._layer(index, rounded)
            states = [decoder.run(layer, own, one) for own, one in zip(states, self._passes, strict=True)]
            if keep:
                self._before.append(states)
        head = self._weight(HEAD_NAME, decoder.head(), rounded)
        return [self._readout(own, one, head) for own, one in zip(states, self._passes, strict=True)]

    def _layer(self, index: int, rounded: frozenset[str]) -> nn.Module:
        """A layer with the weights that the graph would have; the scales that were folded go through all of it."""
        layer, key = self._decoder.layer(index), layer_key(index)
        if not any(name.startswith(f"{key}.") for name in rounded):
            return layer
        weights = {}
        for name in layer.state_dict():
            values = self._calibrated.read(f"{key}.{name}").float()
            weights[name] = self._weight(f"{key}.{name}".removesuffix(".weight"), values, rounded)
        layer.load_state_dict(weights, assign=True)
        return layer

    def _weight(self, name: str, values: Tensor, rounded: frozenset[str]) -> Tensor:
        if name not in rounded:
            return values
        bits, block = self._scheme.bits_of(name), self._scheme.block
        return dequantised(*self._calibrated.quantise(f"{name}.weight", values, bits, block, torch.float32, 0))

    def _readout(self, states: Tensor, one: LanguagePass, head: Tensor) -> Readout:
        hidden = self._decoder.hidden(states[torch.from_numpy(one.asked)])
        return Readout((hidden @ head.T).numpy(), hidden.numpy(), np.asarray(one.token_ids)[one.asked])
