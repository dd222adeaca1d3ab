"""The sizes that an engine is built for: per dimension of the contract the smallest, the usual and the largest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devil.contract import GraphSpec
from devil.errors import EngineError

Shape = tuple[int, ...]

# What raises a limit, by dimension of the contract. The flags are those of devil-build.
RAISED_BY = {
    "F": "--vision-batch",
    "P": "--image-tokens",
    "B": "",
    "S": "--chunk",
    "K": "--chunk",
    "V": "--chunk",
    "T": "--context",
    "M": "--context",
    "N": "--batch",
    "H": "--max-frame",
    "W": "--max-frame",
    "L": "--max-frame",
}
BATCHES = ("F", "N")  # a caller may cut these: their items are computed independently


@dataclass(frozen=True)
class Range:
    """Sizes of one dimension: what TensorRT calls min, opt and max.

    Raises:
        EngineError: they are not in order, or negative.
    """

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.opt <= self.max:
            raise EngineError(f"sizes {self.min}, {self.opt}, {self.max} are not a range", "order them")

    @classmethod
    def fixed(cls, size: int) -> Range:
        return cls(size, size, size)

    @property
    def is_fixed(self) -> bool:
        return self.min == self.max


@dataclass(frozen=True)
class Profile:
    """One optimisation profile: what it is for, and the range of every dimension of its graph.

    Attributes:
        name: such as "decode"; an engine has one or several, in the order in which TensorRT numbers them.
        ranges: by the contract's name of the dimension.
    """

    name: str
    ranges: Mapping[str, Range]

    def shapes(self, spec: GraphSpec) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Per input of the graph its smallest, usual and largest shape.

        Raises:
            EngineError: the profile lacks a dimension of the graph.
        """
        missing = sorted(_dimensions(spec) - self.ranges.keys())
        if missing:
            raise EngineError(f"profile {self.name!r} of graph {spec.name!r} lacks {missing[0]}", "build it again")
        return {
            tensor.name: tuple(
                tuple(size if isinstance(size, int) else getattr(self.ranges[size], side) for size in tensor.shape)
                for side in ("min", "opt", "max")
            )
            for tensor in spec.inputs
        }

    def misfits(self, sizes: Mapping[str, int]) -> Iterator[str]:
        """Why it does not take these sizes, one phrase per dimension; nothing where it does."""
        for name, size in sizes.items():
            allowed = self.ranges.get(name)
            if allowed is None or allowed.min <= size <= allowed.max:
                continue
            flag = RAISED_BY.get(name, "")
            mend = f", which {flag} of devil-build sets" if flag else ""
            limit = f"at most {allowed.max}" if size > allowed.max else f"at least {allowed.min}"
            yield f"{name} is {size} and profile {self.name!r} takes {limit}{mend}"

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            "ranges": {name: [size.min, size.opt, size.max] for name, size in sorted(self.ranges.items())},
        }

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Profile:
        """The inverse of `values`."""
        return cls(str(values["name"]), {name: Range(*map(int, sizes)) for name, sizes in values["ranges"].items()})


def named_sizes(spec: GraphSpec, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The contract's named dimensions of a graph, read off the shapes of its inputs.

    Inputs that are not in `shapes` (a bound cache) are left out.
    """
    return {
        size: int(found)
        for tensor in spec.inputs
        if tensor.name in shapes
        for size, found in zip(tensor.shape, shapes[tensor.name], strict=True)
        if isinstance(size, str)
    }


def chosen(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> int | None:
    """Index of the profile that takes these sizes and is meant for the nearest ones; None where none takes them."""
    fitting = [index for index, profile in enumerate(profiles) if not any(profile.misfits(sizes))]
    return min(fitting, key=lambda index: _distance(profiles[index], sizes), default=None)


def _distance(profile: Profile, sizes: Mapping[str, int]) -> float:
    """How far sizes are from those the profile is tuned for: the sum of the factors, as larger over smaller."""
    pairs = ((size, profile.ranges[name].opt) for name, size in sizes.items() if name in profile.ranges)
    return sum(max(size, best, 1) / max(min(size, best), 1) for size, best in pairs)


def _dimensions(spec: GraphSpec) -> set[str]:
    return {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}
