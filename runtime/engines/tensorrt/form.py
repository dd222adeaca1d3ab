"""What goes into an engine and comes out of it, checked against the contract."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devil.contract import GraphSpec, Precision, TensorSpec
from devil.engine_profile import Profile
from devil.errors import EngineError
from devil.runtime.engines import half
from devil.runtime.engines.tensorrt.api import DTYPES, Api

PAST, PRESENT = "past_", "present_"  # the KV cache's tensors, in and out
_UNREAD = {"level_shapes"}  # of a grounder that is fixed to one frame size; TensorRT may drop what nothing reads


@dataclass(frozen=True)
class Form:
    """The tensors of an engine.

    Attributes:
        inputs, outputs: the type of each, by the contract's names.
        on_host: inputs whose values TensorRT reads on the host, because shapes follow from them.
        largest: most bytes of each input.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    on_host: frozenset[str]
    largest: Mapping[str, int]

    @classmethod
    def of(cls, api: Api, engine: Any, spec: GraphSpec, precision: Precision, profiles: Sequence[Profile]) -> Form:
        """
        Raises:
            EngineError: a tensor is missing, unknown, or of another type or shape than the contract says; the engine
                has other profiles; or it copies the cache instead of writing in place.
        """
        trt = api.trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        wanted = {tensor.name: (True, tensor) for tensor in spec.inputs}
        wanted |= {tensor.name: (False, tensor) for tensor in spec.outputs}
        differing = sorted((modes.keys() ^ wanted.keys()) - _UNREAD)
        differing += [
            name
            for name in names
            if name in wanted and not _follows(engine, name, modes[name], *wanted[name], precision)
        ]
        if engine.num_optimization_profiles != len(profiles):
            differing.append(f"{engine.num_optimization_profiles} profiles instead of {len(profiles)}")
        if differing:
            told = f"the {api.backend} engine is not the {precision} graph {spec.name!r} of this model"
            raise EngineError(f"{told}: {', '.join(differing)} differ", "build it again")
        _check_cache(engine, names)
        kinds = {name: wanted[name][1].numpy_dtype(precision) for name in names}
        inputs = {name: kinds[name] for name in names if modes[name]}
        host = trt.TensorLocation.HOST
        return cls(
            inputs=inputs,
            outputs={name: kinds[name] for name in names if not modes[name]},
            on_host=frozenset(name for name in inputs if engine.get_tensor_location(name) == host),
            largest=_largest(spec, inputs, profiles),
        )


def _follows(
    engine: Any, name: str, is_input: bool, wanted_input: bool, tensor: TensorSpec, precision: Precision
) -> bool:
    shape = tuple(engine.get_tensor_shape(name))
    kind = DTYPES.get(engine.get_tensor_dtype(name).name)
    if is_input != wanted_input or kind != tensor.numpy_dtype(precision) or len(shape) != len(tensor.shape):
        return False
    # An engine may fix a size that the contract leaves open, never the other way round.
    return all(isinstance(size, str) or size == has for size, has in zip(tensor.shape, shape, strict=True))


def _check_cache(engine: Any, names: Sequence[str]) -> None:
    """Caches are written where they lie; TensorRT 10 does not tell and is taken at its word."""
    aliased = getattr(engine, "get_aliased_input_tensor", None)
    if aliased is None:
        return
    copied = [name for name in names if name.startswith(PRESENT) and aliased(name) != name.replace(PRESENT, PAST, 1)]
    if copied:
        raise EngineError(f"the engine copies its KV cache instead of writing in place ({copied[0]})", "build it again")


def _largest(spec: GraphSpec, inputs: Mapping[str, str], profiles: Sequence[Profile]) -> dict[str, int]:
    def sizes(name: str) -> Iterator[int]:
        return (math.prod(profile.shapes(spec)[name][2]) for profile in profiles)

    return {
        name: max(sizes(name)) * half.stored_dtype(kind).itemsize
        for name, kind in inputs.items()
        if not name.startswith(PAST)  # a cache has its own memory
    }
