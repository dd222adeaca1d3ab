"""The engines of a bundle: files in its folder `engines/`, each with a sidecar that says what it was built from.

An engine is run only where its key fits the graph, the TensorRT, the GPU and the sizes. Whatever else lies there is
refused with the reason, and built again. Nothing in the folder belongs to the bundle: it is safe to delete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devil.bundle import Bundle
from devil.engine_key import EngineKey, Host, refusals
from devil.engine_sidecar import StoredEngine, read_sidecar
from devil.errors import EngineError, OutputError
from devil.file_lock import exclusive
from devil.files import sha256

TIMING_CACHES = "timing"  # folder of TensorRT's timing caches inside the store


@dataclass(frozen=True)
class Refusal:
    """An engine that must not run here, and all that is against it."""

    path: Path
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.name}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Lookup:
    """What the store has for a graph on a machine.

    Attributes:
        engine: one that may run, or None.
        refused: the graph's other engines, and why.
    """

    engine: StoredEngine | None
    refused: tuple[Refusal, ...] = ()


class EngineStore:
    """The store of one bundle."""

    def __init__(self, bundle: Bundle):
        self.bundle, self.folder = bundle, bundle.engines

    def lookup(self, graph: str, host: Host, needed: Sequence[Mapping[str, int]] = ()) -> Lookup:
        """The newest engine of a graph that this machine may run. Reads the sidecars, not the engines.

        Args:
            host: what would run it.
            needed: sizes that it must take, by the contract's names; each by one of its profiles.
        """
        graph_hash = self.bundle.graph_hash(graph)
        found, refused = [], []
        for sidecar in self._sidecars(graph):
            try:
                engine = read_sidecar(sidecar)
                reasons = tuple(refusals(engine.key, graph_hash, host, needed))
            except EngineError as error:
                reasons = (str(error),)
            if reasons:
                refused.append(Refusal(sidecar.with_suffix(".engine"), reasons))
            else:
                found.append(engine)
        newest = max(found, key=lambda engine: engine.path.stat().st_mtime_ns, default=None)
        return Lookup(newest, tuple(refused))

    def find(self, graph: str, host: Host, needed: Sequence[Mapping[str, int]] = ()) -> StoredEngine:
        """As `lookup`, for callers that need an engine.

        Raises:
            EngineError: there is none; it says why each of those that are there is refused.
        """
        lookup = self.lookup(graph, host, needed)
        if lookup.engine is None:
            against = "; ".join(map(str, lookup.refused)) or f"{self.folder} holds none"
            raise EngineError(
                f"no {host.backend} engine of graph {graph!r} runs on this {host.capability} ({against})",
                f"devil-build {self.bundle.folder} --backend {host.backend}",
            )
        return lookup.engine

    def get(self, key: EngineKey) -> StoredEngine | None:
        """The engine of exactly this key, where it is there whole; its bytes are not hashed."""
        sidecar = self._path(key).with_suffix(".json")
        with contextlib.suppress(EngineError):
            engine = read_sidecar(sidecar)
            return engine if engine.key == key else None
        return None

    def engines(self) -> list[StoredEngine]:
        """All whole engines, whatever they were built for."""
        found = []
        for sidecar in self._sidecars():
            with contextlib.suppress(EngineError):
                found.append(read_sidecar(sidecar))
        return found

    @contextlib.contextmanager
    def building(self, key: EngineKey, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """Yields a path in the store's folder to build an engine at, while no other process builds for the same key.

        Look whether the store has the engine (`get`) once inside: whoever waited finds what the other process built.
        Pass what was built to `add`; anything left at the path is removed in the end. The lock is the operating
        system's and ends with the process, however that ends.

        Args:
            on_wait: called when another process has the lock.

        Raises:
            OutputError: the folder cannot be written.
        """
        with self._locked(key, on_wait):
            for left in self.folder.glob(f".{key.stem}.*.building"):  # by a process that was killed
                left.unlink(missing_ok=True)
            scratch = self.folder / f".{key.stem}.{os.getpid()}.building"
            try:
                yield scratch
            finally:
                scratch.unlink(missing_ok=True)

    def add(self, key: EngineKey, engine: Path, built: Mapping[str, Any]) -> StoredEngine:
        """Moves a built engine from the file `engine`, which lies in this folder, into the store.

        Engines of the same graph that were built from another export of it, and can never run again, are removed.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        path = self._path(key)
        record = StoredEngine(path, key, engine.stat().st_size, sha256(engine), built)
        # The sidecar goes first: one without its engine, or with another engine's, is refused; an engine without a
        # sidecar would never be found again.
        record.write_sidecar()
        engine.replace(path)
        self._prune(key.graph)
        return record

    def record_gate(self, engine: StoredEngine, machine: str, report: Mapping[str, Any]) -> StoredEngine:
        """Writes what the numeric gate found on a machine into the engine's sidecar, beside other machines' reports.

        Raises:
            EngineError: the engine was removed meanwhile.
            OutputError: the folder cannot be written.
        """
        with self._locked(engine.key):
            current = read_sidecar(engine.sidecar)
            updated = replace(current, gates={**current.gates, machine: dict(report)})
            updated.write_sidecar()
        return updated

    def timing_cache(self, backend: str, version: str, capability: str) -> Path:
        """Where a TensorRT keeps the times it measured on a GPU; they serve every build there."""
        return self.folder / TIMING_CACHES / f"{backend}-{version}-{capability}.cache"

    def _path(self, key: EngineKey) -> Path:
        return self.folder / f"{key.stem}.engine"

    def _sidecars(self, graph: str = "") -> list[Path]:
        return sorted(self.folder.glob(f"{graph}-*.json" if graph else "*.json"))

    @contextlib.contextmanager
    def _locked(self, key: EngineKey, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        lock = self.folder / f".{key.stem}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = lock.open("ab")
        except OSError as error:  # another user's bundle
            mend = "copy the bundle to where you may write"
            raise OutputError(f"cannot write {lock} ({os.strerror(error.errno)})", mend) from error
        with file, exclusive(file, on_wait):
            yield

    def _prune(self, graph: str) -> None:
        current = self.bundle.graph_hash(graph)
        for engine in self.engines():
            if engine.key.graph == graph and engine.key.graph_hash != current:
                for path in self.folder.glob(f"{engine.key.stem}.*"):  # the runtime keeps compiled kernels there too
                    path.unlink(missing_ok=True)
