"""One graph of a bundle on TensorRT: its memory, its stream, and how a run is sent there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from devil.contract import GraphSpec, Precision
from devil.engine_profile import Profile, chosen, named_sizes
from devil.errors import EngineError
from devil.runtime.engines.base import Feeds, checked_feeds
from devil.runtime.engines.cuda_device import CudaDevice
from devil.runtime.engines.tensorrt.allocator import Allocate, output_allocator
from devil.runtime.engines.tensorrt.api import Api
from devil.runtime.engines.tensorrt.bound import NOTHING_BOUND, Bound
from devil.runtime.engines.tensorrt.buffers import Inputs, Outputs, Staging
from devil.runtime.engines.tensorrt.cache import CachePool, TensorRtCache
from devil.runtime.engines.tensorrt.contexts import Contexts
from devil.runtime.engines.tensorrt.form import PAST, Form
from devil.runtime.engines.tensorrt.results import Output, TensorRtPending, as_array, tensor_bytes
from devil.runtime.engines.tensorrt.rows import DeviceRow, adjacent, resident, row_shape


class TensorRtRunner:
    """One graph, loaded; see `devil.runtime.engines.base.AsyncRunner`.

    Args:
        engine: TensorRT's, deserialised.
        profiles: the sizes that it was built for, in TensorRT's order.
        compiled: file for the kernels that TensorRT-RTX compiles.

    Raises:
        EngineError: the engine does not follow the contract, or the GPU has no room for its activations.
    """

    def __init__(
        self,
        api: Api,
        device: CudaDevice,
        engine: Any,
        spec: GraphSpec,
        precision: Precision,
        profiles: Sequence[Profile],
        compiled: Path,
    ):
        self.api, self.device, self.spec, self.precision = api, device, spec, precision
        self.profiles = tuple(profiles)
        self.form = Form.of(api, engine, spec, precision, profiles)
        self.stream = device.stream()
        repeats = spec.name == "language" and not self.form.on_host  # captured copies go to the device
        self.contexts = Contexts(api, engine, device, self.stream, spec.name, repeats, compiled)
        self._inputs = Inputs(device, self.form.largest, f"inputs of {spec.name}")
        self._values = Staging(device, {name: self.form.largest[name] for name in self.form.on_host})
        self._outputs = Outputs(device, f"outputs of {spec.name}")
        self._allocators: dict[tuple[Any, str], Any] = {}  # by context and output
        self._pool = CachePool(self)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return self.run_bound(feeds, NOTHING_BOUND)

    def run_bound(self, feeds: Feeds, bound: Bound) -> dict[str, np.ndarray]:
        """As `run`, with tensors that stay where they are."""
        outputs = self._enqueue(feeds, bound, self._outputs.memory)
        with self._explained():
            places = {
                name: self._outputs.download(name, output.memory, output.bytes, self.stream)
                for name, output in outputs.items()
            }
            self.stream.synchronize()
        return {name: as_array(places[name], output.shape, output.kind) for name, output in outputs.items()}

    def submit(self, feeds: Feeds) -> TensorRtPending:
        purpose = f"kept outputs of {self.spec.name}"
        outputs = self._enqueue(feeds, NOTHING_BOUND, lambda _, size: self.device.allocate(size, purpose))
        done = self.device.event()
        done.record(self.stream)
        for output in outputs.values():
            output.memory.used_until(done)
        return TensorRtPending(self.device, self.spec.name, outputs, done, [*feeds.values()])

    def cache(self, rows: int, capacity: int) -> TensorRtCache:  # noqa: ARG002 - it has the engine's capacity
        return TensorRtCache(self, self._pool, rows)

    def takes(self, sizes: Mapping[str, int]) -> bool:
        return chosen(self.profiles, sizes) is not None

    def most(self, dimension: str, sizes: Mapping[str, int]) -> int:
        self.profile(sizes)
        fitting = (profile for profile in self.profiles if not any(profile.misfits(sizes)))
        return max(profile.ranges[dimension].max for profile in fitting)

    def profile(self, sizes: Mapping[str, int]) -> int:
        """Number of the profile for these sizes.

        Raises:
            EngineError: none takes them; the message has the limit and what raises it.
        """
        index = chosen(self.profiles, sizes)
        if index is None:
            misfit = min((list(profile.misfits(sizes)) for profile in self.profiles), key=len)[0]
            told = f"the {self.api.backend} engine of graph {self.spec.name!r} was built for other sizes: {misfit}"
            raise EngineError(told, "build it again")
        return index

    def set_inputs(self, context: Any, shapes: Mapping[str, Sequence[int]], addresses: Mapping[str, int]) -> None:
        """Tells a context where everything lies, and how large the inputs are."""
        for name, address in addresses.items():
            self.api.wanted(context.set_tensor_address(name, address), f"set_tensor_address of {name}")
        for name, shape in shapes.items():
            if name in self.form.inputs:
                self.api.wanted(context.set_input_shape(name, tuple(shape)), f"set_input_shape of {name} to {shape}")

    def _enqueue(self, feeds: Feeds, bound: Bound, allocate: Allocate) -> dict[str, Output]:
        """Sends inputs and kernels to the stream."""
        rows = {name: feed for name, feed in feeds.items() if resident(feed)}
        arrays = checked_feeds(self.spec, self.precision, feeds, without=PAST if bound.addresses else "", held=rows)
        shapes = {name: array.shape for name, array in arrays.items()}
        shapes |= {name: row_shape(self.spec, self.precision, name, items) for name, items in rows.items()}
        index = self.profile(named_sizes(self.spec, shapes) | dict(bound.sizes))
        context = self.contexts.of(index)
        with self._explained():
            addresses = self._uploaded({name: array for name, array in arrays.items() if name in self.form.inputs})
            addresses |= {name: self._gathered(name, items) for name, items in rows.items() if name in self.form.inputs}
            self.set_inputs(context, shapes | dict(bound.shapes), addresses | dict(bound.addresses))
            outputs = self._set_outputs(context, bound, allocate)
            self.api.wanted(context.execute_async_v3(self.stream.handle), "execute_async_v3")
            return {name: output() for name, output in outputs.items()}

    def _uploaded(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Addresses of inputs: on the device, or on the host where TensorRT reads values when the run is sent."""
        self._inputs.upload({name: arrays[name] for name in arrays if name not in self.form.on_host}, self.stream)
        addresses = {name: self._inputs.memory[name].address for name in arrays}
        for name in self.form.on_host & arrays.keys():
            place = self._values.fill(name, arrays[name])
            addresses[name] = place.ctypes.data
        return addresses

    def _gathered(self, name: str, rows: Sequence[DeviceRow]) -> int:
        """Address of rows that lie on the device, side by side."""
        for ready in {id(row.ready): row.ready for row in rows}.values():
            self.stream.wait_for_event(ready)
        if adjacent(rows):
            return rows[0].address
        place = self._inputs.memory[name].address
        for index, row in enumerate(rows):
            self.device.cuda.memcpy_dtod_async(place + index * row.bytes, row.address, row.bytes, self.stream)
        return place

    def _set_outputs(self, context: Any, bound: Bound, allocate: Allocate) -> dict[str, Callable[[], Output]]:
        """Gives every output its memory. What comes back tells, once the run was sent, where it lies."""
        outputs: dict[str, Callable[[], Output]] = {}
        for name, kind in self.form.outputs.items():
            if name in bound.addresses:
                continue
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=0) >= 0:
                output = Output(allocate(name, tensor_bytes(shape, kind)), shape, kind)
                self.api.wanted(context.set_tensor_address(name, output.memory.address), f"address of {name}")
                outputs[name] = lambda output=output: output
            else:  # only the run itself knows the size
                allocator = self._allocator(context, name)
                allocator.begin(allocate)
                outputs[name] = lambda allocator=allocator, kind=kind: Output(*allocator.end(), kind)
        return outputs

    def _allocator(self, context: Any, name: str) -> Any:
        """The one allocator of a context's output: contexts keep every one that they are ever given."""
        if (context, name) not in self._allocators:
            allocator = output_allocator(self.api, name)
            self.api.wanted(context.set_output_allocator(name, allocator), f"allocator of {name}")
            self._allocators[context, name] = allocator
        return self._allocators[context, name]

    def _explained(self) -> Any:
        return self.device.explained_with(self.api, f"graph {self.spec.name!r} failed")
