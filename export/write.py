"""Writing one graph of a bundle, and knowing before how many bytes that takes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from devil.bundle import FileRecord
from devil.export.graphs import GraphBuilder
from devil.export.link import link_weights
from devil.export.onnx_file import store_model, weight_bytes
from devil.export.opening import part_values
from devil.export.plan import Plan
from devil.export.weight_file import Wrote

OnStage = Callable[[str], None]  # is told what begins, and how far it is


def write_graph(
    folder: Path, name: str, builder: GraphBuilder, plan: Plan, on_stage: OnStage = lambda _: None
) -> dict[str, FileRecord]:
    """Writes the graph `name` and its weights into `folder`; returns what the manifest says of its files.

    Raises:
        CheckpointError: a weight is broken, or the precision cannot hold it.
        OutputError: weights cannot be linked.
    """
    path = folder / f"{name}.onnx"
    on_stage(f"{name}: building")
    model = builder.build(name, plan)
    linked = link_weights(model, builder.source, path) if plan.linked and name == "language" else {}
    records = store_model(model, path, _counter(name, weight_bytes(model, path), on_stage))
    del model
    gc.collect()  # graphs are full of cycles, and hold what the tracer moved
    return linked | records


def bytes_to_write(builder: GraphBuilder, plan: Plan) -> int:
    """Bytes of weights of a whole bundle. The language graph, which is written lazily, is built to know its part."""
    values = part_values(builder.model, "vision") + part_values(builder.model, "detector")
    others = values * (4 if plan.floats("vision") == "fp32" else 2)
    if plan.linked:
        return others
    language = builder.build("language", plan)
    return others + sum(value.const_value.nbytes for value in language.graph.initializers.values())


def _counter(graph: str, total: int, on_stage: OnStage) -> Wrote:
    """Tells how many of a graph's bytes are written, whenever another hundredth is."""
    done = told = 0

    def wrote(count: int) -> None:
        nonlocal done, told
        done += count
        if done - told > total / 100:
            told = done
            on_stage(f"{graph}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    return wrote
