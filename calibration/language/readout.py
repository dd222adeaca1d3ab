"""Integers of the readout to logits.

Its input is the RST too, so there is no norm that could take scales: GPTQ alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from devil.calibration.language.decoder import LayeredDecoder
from devil.calibration.language.passes import LanguagePass
from devil.calibration.language.rounding import dequantised, gptq
from devil.calibration.language.statistics import InputStatistics, relative_error
from devil.calibration.language.stored import Integers
from devil.export.scheme import HEAD, Scheme

_ROWS = 1 << 15  # that are rounded together: those of a large vocabulary would take several times their memory


def round_readout(
    decoder: LayeredDecoder,
    states: Sequence[Tensor],
    passes: Sequence[LanguagePass],
    scheme: Scheme,
    scale_type: torch.dtype,
) -> tuple[Integers, float]:
    """The integers, and the relative error of the logits.

    Where the readout is tied to the embedding it has integers of its own all the same: the lookup has another form in
    the file.

    Args:
        states: outputs of the last layer, by pass.

    Raises:
        CalibrationError: these are no numbers.
    """
    weight, bits = decoder.head(), scheme.bits_of(HEAD)
    inputs = InputStatistics(weight.shape[1])
    for own, one in zip(states, passes, strict=True):
        # Nobody reads the other tokens out, but the few that are read cannot tell how all inputs depend on each other.
        inputs.add_read(decoder.hidden(own), torch.from_numpy(one.asked))
    inputs.check(HEAD)
    moment = inputs.mean_moment
    stretches = [gptq(part, moment, bits, scheme.block, scale_type) for part in weight.split(_ROWS)]
    codes, scales = (torch.cat(every) for every in zip(*stretches, strict=True))
    return (codes, scales), relative_error(dequantised(codes, scales), weight, moment)
