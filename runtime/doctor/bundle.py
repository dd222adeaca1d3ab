"""What a bundle needs, and what of it is already there."""

from __future__ import annotations

from collections.abc import Iterator

from devil.bundle import Bundle
from devil.contract import GRAPHS
from devil.engine_store import EngineStore
from devil.gpu import machine_name
from devil.runtime.doctor.facts import Facts, Finding
from devil.runtime.memory_plan import plan

ROOM_OF_ENGINES = 1.5  # an engine holds its graph's weights; a build also writes its timing cache and a scratch file


def bundle_findings(facts: Facts, bundle: Bundle) -> Iterator[Finding]:
    """Findings about one bundle on this machine."""
    manifest = bundle.manifest
    weights = sum(map(manifest.graph_bytes, GRAPHS))
    cut = f", the first {bundle.config.language.layers} of {manifest.layers_of} layers" if manifest.layers_of else ""
    yield Finding(
        "bundle", "model", "good", f"{manifest.model} in {manifest.precision}{cut}, {weights / 1e9:.2f} GB of weights"
    )
    size = manifest.frame_size
    yield Finding("bundle", "frames", "good", f"fixed to {size[0]}x{size[1]}" if size else "of any size")
    yield Finding("bundle", "memory", "good", f"a full video is estimated to need {plan(manifest, bundle.config)}")
    yield from _engines(facts, bundle, weights)


def here(facts: Facts, backend: str) -> str | None:
    """What verdicts on a backend's engines hold for on this machine; None where it runs none."""
    version = next((found.version for found in facts.software.tensorrts if found.kind == backend), "")
    if not version or not facts.driver.gpus:
        return None
    return machine_name(facts.driver.gpus[0], facts.driver, f"{backend} {version}")


def _engines(facts: Facts, bundle: Bundle, weights: int) -> Iterator[Finding]:
    engines = EngineStore(bundle).engines()
    for engine in engines:
        key = engine.key
        text = f"{key.backend} {key.version} for {', '.join(key.capabilities)}, {engine.bytes / 1e6:.1f} MB"
        judged = [
            f"{machine}: {'passed' if gate.get('passed') else 'FAILED'}" for machine, gate in engine.gates.items()
        ]
        failed = [machine for machine, gate in engine.gates.items() if not gate.get("passed")]
        state = "bad" if here(facts, key.backend) in failed else "note" if failed else "good"
        gates = f"; numeric gate {', '.join(judged)}" if judged else "; not run yet, so not compared yet"
        mend = f"remove {engine.path} and build it again" if failed else ""
        yield Finding("bundle", f"{key.graph} engine", state, text + gates, mend)
    if not engines and facts.driver.gpus and facts.software.tensorrts and facts.system.disk < ROOM_OF_ENGINES * weights:
        told = f"engines take about {ROOM_OF_ENGINES * weights / 1e9:.1f} GB, {facts.system.disk / 1e9:.1f} are free"
        yield Finding("bundle", "disk", "bad", told, "free some space")
