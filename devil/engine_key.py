"""What an engine was built from and for, what a machine has, and why one does not run on the other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from devil.contract import GRAPHS
from devil.engine_profile import Profile
from devil.errors import EngineError

Backend = Literal["tensorrt", "tensorrt-rtx"]
BACKENDS: tuple[Backend, ...] = ("tensorrt", "tensorrt-rtx")

Hardware = Literal["none", "same-capability", "ampere+"]
"""Which GPUs besides the model it was built on an engine runs on: none, all of the same compute capability, or Ampere
and everything newer. TensorRT-RTX compiles kernels on the machine that runs them, so its engines need no more than the
capability."""

_CAPABILITY = re.compile(r"sm_?(\d{2,3})")
_AMPERE = 80


def capability_number(name: str) -> int:
    """89 for "sm89" or "sm_89".

    Raises:
        EngineError: no compute capability.
    """
    match = _CAPABILITY.fullmatch(name)
    if not match:
        raise EngineError(f"{name!r} is no compute capability", "write for example sm89")
    return int(match[1])


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine's bytes depend on.

    Attributes:
        graph: one of `devil.contract.GRAPHS`.
        graph_hash: `Bundle.graph_hash` of the graph it was built from.
        backend, version: the TensorRT that built it, its version whole ("10.3.0", "1.7.1.116").
        capabilities: the GPUs it was built for, as "sm89", in ascending order.
        profiles: the sizes it takes.
        plugin: SHA-256 of the plugin library whose layers it has; empty where it has none.
        hardware: other GPUs that it runs on.
        device: name of the GPU it was built on; empty where it was built without one.
        version_compatible: newer TensorRT of the same major version runs it too.

    Raises:
        EngineError: an unknown graph or backend, or no or malformed capabilities.
    """

    graph: str
    graph_hash: str
    backend: Backend
    version: str
    capabilities: tuple[str, ...]
    profiles: tuple[Profile, ...]
    plugin: str = ""
    hardware: Hardware = "none"
    device: str = ""
    version_compatible: bool = False

    def __post_init__(self) -> None:
        if self.graph not in GRAPHS:
            raise EngineError(f"{self.graph!r} is no graph of a bundle", f"known are {', '.join(GRAPHS)}")
        if self.backend not in BACKENDS:
            raise EngineError(f"{self.backend!r} builds no engines", f"known are {', '.join(BACKENDS)}")
        numbers = sorted({capability_number(name) for name in self.capabilities})
        if not numbers or not self.profiles:
            raise EngineError("an engine is built for no GPU or no sizes", "name a capability, such as sm89")
        object.__setattr__(self, "capabilities", tuple(f"sm{number}" for number in numbers))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with any part of the key."""
        text = json.dumps(self.values(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def stem(self) -> str:
        """The file's name without suffix."""
        return "-".join((self.graph, self.backend, self.version, "+".join(self.capabilities), self.digest))

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {
            "capabilities": list(self.capabilities),
            "profiles": [profile.values() for profile in self.profiles],
        }

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> EngineKey:
        """The inverse of `values`."""
        return cls(
            **{
                **values,
                "capabilities": tuple(values["capabilities"]),
                "profiles": tuple(map(Profile.of_values, values["profiles"])),
            }
        )


@dataclass(frozen=True)
class Host:
    """What a machine runs engines with.

    Attributes:
        backend, version: the TensorRT that is installed.
        capability: of the GPU, as "sm89".
        plugin: SHA-256 of the plugin library here; empty without one.
        device: the GPU's name.
    """

    backend: Backend
    version: str
    capability: str
    plugin: str = ""
    device: str = ""


def refusals(key: EngineKey, graph_hash: str, host: Host, needed: Sequence[Mapping[str, int]] = ()) -> Iterator[str]:
    """Why a machine must not run an engine for a graph, one phrase each; nothing where it may.

    Args:
        graph_hash: of the graph in the bundle now.
        needed: sizes that some profile of the engine must take, each by the contract's names.
    """
    if key.graph_hash != graph_hash:
        yield "it was built from another export of the graph"
    if key.backend != host.backend:
        yield f"it is for {key.backend}, this is {host.backend}"
    elif not _runs_version(key, host.version):
        yield f"it was built by {key.backend} {key.version}, this is {host.version}"
    if not _runs_capability(key, host.capability):
        yield f"it was built for {', '.join(key.capabilities)}, this GPU is {host.capability}"
    elif key.hardware == "none" and key.device and host.device and key.device != host.device:
        yield f"it was built on {key.device}, this is {host.device} (--hardware same-capability builds for both)"
    if key.plugin and key.plugin != host.plugin:
        yield "it needs the plugin library it was built with, " + (
            "which differs" if host.plugin else "which is absent"
        )
    for sizes in needed:
        misfits = [list(profile.misfits(sizes)) for profile in key.profiles]
        if all(misfits):
            yield min(misfits, key=len)[0]


def _runs_version(key: EngineKey, version: str) -> bool:
    if key.version == version:
        return True
    built, here = _numbers(key.version), _numbers(version)
    return key.version_compatible and built[:1] == here[:1] and here >= built


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _runs_capability(key: EngineKey, capability: str) -> bool:
    here = capability_number(capability)
    built = [capability_number(name) for name in key.capabilities]
    return here in built or (key.hardware == "ampere+" and here >= _AMPERE and min(built) >= _AMPERE)
