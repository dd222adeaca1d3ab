"""Decoding steps as CUDA graphs: sizes are rounded up to few kinds, each captured once and launched from then on.

A step's cost on a fast GPU is mostly that of sending its hundreds of kernels one by one. A captured step is one call,
with the copies of its inputs and outputs. TensorRT wants a context of its own for every captured run, and one run
before it that is not captured.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from devil.engine_profile import named_sizes
from devil.errors import EngineError
from devil.runtime.engines.cuda_graph import CudaGraph
from devil.runtime.engines.tensorrt.bound import Bound
from devil.runtime.engines.tensorrt.buffers import Staging
from devil.runtime.engines.tensorrt.form import PRESENT
from devil.runtime.engines.tensorrt.results import Output, as_array, tensor_bytes

if TYPE_CHECKING:
    from devil.runtime.engines.tensorrt.runner import TensorRtRunner

_TOKENS = (1, 2, 4, 8, 16, 32)  # new tokens of a step are rounded up to one of these
_SLOTS = 256  # attended slots to a multiple of this
_MOST = 24  # steps that are kept captured, the last used ones
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepSizes:
    """Sizes of a captured step: new tokens, attended slots; all new tokens are read out."""

    tokens: int
    slots: int

    @classmethod
    def of(cls, feeds: Mapping[str, np.ndarray], capacity: int) -> StepSizes | None:
        """The sizes that a run is rounded up to; None where it is no decoding step."""
        rows, tokens, slots = feeds["mask"].shape[0], *feeds["mask"].shape[2:]
        padded = next((size for size in _TOKENS if size >= tokens), None)
        if rows != 1 or padded is None or len(feeds["visual_table"]) != 1:
            return None
        first = int(feeds["write_index"][0])
        needed = max(slots, first + padded)  # padding is written behind the new tokens, into slots that are free
        if needed > capacity:
            return None
        return cls(padded, min(-(-needed // _SLOTS) * _SLOTS, capacity))


def padded(feeds: Mapping[str, np.ndarray], sizes: StepSizes) -> dict[str, np.ndarray]:
    """The same step in larger sizes.

    The last token is repeated with all that belongs to it: a token that sees nothing would write NaN into the cache,
    and 0 · NaN is NaN. Nobody may look at what is written behind the last token before it is written again.
    """
    tokens = feeds["token_ids"].shape[1]
    again = np.minimum(np.arange(sizes.tokens), tokens - 1)
    mask = np.zeros((1, 1, sizes.tokens, sizes.slots), bool)
    mask[..., : feeds["mask"].shape[3]] = feeds["mask"][:, :, again]
    asked = feeds["output_index"].shape[1]
    return {
        **feeds,
        "token_ids": feeds["token_ids"][:, again],
        "positions": feeds["positions"][:, again],
        "mask": mask,
        "output_index": feeds["output_index"][:, np.minimum(np.arange(sizes.tokens), asked - 1)],
    }


class DecodeSteps:
    """The captured steps of one cache."""

    def __init__(self, runner: TensorRtRunner, bound: Bound):
        self._runner, self._bound = runner, bound
        self._steps: OrderedDict[StepSizes, _Step] = OrderedDict()
        self._outputs: dict[tuple, tuple[Output, np.ndarray]] = {}  # steps run one by one and share what they write to

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """The outputs of a decoding step, or None where the run is none.

        Args:
            feeds: checked, in the types that the engine takes.
        """
        sizes = StepSizes.of(feeds, self._bound.sizes["M"]) if self._runner.contexts.repeats else None
        if sizes is None or not self._runner.takes({"S": sizes.tokens, "T": sizes.slots, "K": sizes.tokens}):
            return None
        if sizes not in self._steps:
            while len(self._steps) >= _MOST:
                self._steps.popitem(last=False)
            self._steps[sizes] = _Step(self._runner, self._bound, padded(feeds, sizes), self._output)
        self._steps.move_to_end(sizes)
        asked = feeds["output_index"].shape[1]
        return {name: array[:, :asked] for name, array in self._steps[sizes].run(padded(feeds, sizes)).items()}

    def _output(self, name: str, shape: tuple[int, ...], kind: str) -> tuple[Output, np.ndarray]:
        """Where steps write an output of that shape, and where it is copied to."""
        if (name, shape) not in self._outputs:
            device, size = self._runner.device, tensor_bytes(shape, kind)
            output = Output(device.allocate(size, "decoding steps"), shape, kind)
            self._outputs[name, shape] = output, device.pinned(size)
        return self._outputs[name, shape]


class _Step:
    """One kind of step, with memory of its own: captured copies keep their addresses.

    Args:
        feeds: an example; all that come later have its shapes.
        output: gives the memory of an output by name, shape and type.
    """

    def __init__(
        self, runner: TensorRtRunner, bound: Bound, feeds: Mapping[str, np.ndarray], output: Callable[..., Any]
    ):
        self._runner, self._graph = runner, None
        self._ran = False
        sizes = {name: array.nbytes for name, array in feeds.items()}
        shapes = {name: array.shape for name, array in feeds.items()}
        device, self._sizes = runner.device, sizes
        self._staging = Staging(device, sizes)
        self._inputs = {name: device.allocate(size, "decoding steps") for name, size in sizes.items()}
        profile = runner.profile(named_sizes(runner.spec, shapes) | dict(bound.sizes))
        self._context = runner.contexts.another(profile)
        addresses = dict(bound.addresses) | {name: memory.address for name, memory in self._inputs.items()}
        with device.explained_with(runner.api, "a decoding step cannot be prepared"):
            runner.set_inputs(self._context, shapes | dict(bound.shapes), addresses)
            self._outputs = {}
            for name, kind in runner.form.outputs.items():
                if name.startswith(PRESENT):
                    continue
                found, place = output(name, tuple(self._context.get_tensor_shape(name)), kind)
                runner.api.wanted(self._context.set_tensor_address(name, found.memory.address), f"address of {name}")
                self._outputs[name] = found, place

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        runner = self._runner
        for name, array in feeds.items():
            self._staging.fill(name, array)
        with runner.device.explained_with(runner.api, "a decoding step failed"):
            if self._graph:
                self._graph.launch(runner.stream.handle)
            else:
                self._enqueue()
            runner.stream.synchronize()
            found = {name: as_array(place, to.shape, to.kind) for name, (to, place) in self._outputs.items()}
        if not self._ran:
            self._ran = True
            self._capture()
        return found

    def _capture(self) -> None:
        """Records the run just made, to launch it from now on; where that does not work, it is sent as before."""
        runner = self._runner
        if not runner.contexts.capturable:
            return
        try:
            with runner.device.explained_with(runner.api, "a step cannot be captured"):
                self._graph = CudaGraph(runner.stream.handle, self._enqueue)
        except EngineError as error:
            runner.contexts.capturable = False
            _log.warning("decoding goes on without CUDA graphs: %s", error)

    def _enqueue(self) -> None:
        runner, cuda = self._runner, self._runner.device.cuda
        for name, size in self._sizes.items():
            cuda.memcpy_htod_async(self._inputs[name].address, self._staging.bytes(name, size), runner.stream)
        runner.api.wanted(self._context.execute_async_v3(runner.stream.handle), "execute_async_v3")
        for output, place in self._outputs.values():
            cuda.memcpy_dtoh_async(place[: output.bytes], output.memory.address, runner.stream)
