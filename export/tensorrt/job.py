"""What the builder's process is told, and what it tells back: plain JSON on its standard streams."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from devil.engine_key import Backend, Hardware
from devil.engine_profile import Profile


@dataclass(frozen=True)
class BuildJob:
    """One engine to build.

    Attributes:
        bundle, graph: what from.
        backend: what with.
        capabilities: GPUs to build for where there is none here; empty builds for this machine's.
        profiles: sizes.
        fixed: named dimensions that become numbers before the graph is parsed.
        plugin: the plugin library to load; without one deformable attention runs as the file's own function.
        hardware, version_compatible: compatibility that is asked for.
        memory: bytes of GPU memory for the builder; 0 for all.
        effort: optimisation level, or None for TensorRT's own.
        timing_cache: file to read and to write measured times in, or empty.
        output: file to write.
    """

    bundle: str
    graph: str
    backend: Backend
    profiles: tuple[Profile, ...]
    output: str
    capabilities: tuple[str, ...] = ()
    fixed: Mapping[str, int] | None = None
    plugin: str = ""
    hardware: Hardware = "none"
    version_compatible: bool = False
    memory: int = 0
    effort: int | None = None
    timing_cache: str = ""

    def dumps(self) -> str:
        return json.dumps(asdict(self) | {"profiles": [profile.values() for profile in self.profiles]})

    @classmethod
    def loads(cls, text: str) -> BuildJob:
        values: dict[str, Any] = json.loads(text)
        profiles = tuple(map(Profile.of_values, values["profiles"]))
        return cls(**{**values, "profiles": profiles, "capabilities": tuple(values["capabilities"])})
