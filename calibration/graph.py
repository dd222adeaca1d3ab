"""One graph of a bundle under calibration: its layers, what flows into them, and any of its quantised forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from devil.bundle import Bundle
from devil.calibration.activations import one_by_one
from devil.calibration.captures import Captures
from devil.calibration.compensation import Compensation
from devil.calibration.forms import Form
from devil.calibration.graph_error import graph_error
from devil.calibration.layers import Layer, find_layers
from devil.calibration.loading import load_graph
from devil.calibration.observing import observe
from devil.calibration.qdq import InsertQDQ
from devil.calibration.ranges import RULES, Range, Rule, range_around_zero, range_of
from devil.calibration.rules import is_centred
from devil.calibration.sessions import open_session
from devil.calibration.weights import StoredWeights
from devil.progress import Progress, no_progress

Chosen = Mapping[Layer, Form]

_CHECKED = 16  # frames, of as many clips, that an error is measured on


class GraphCalibration:
    """Vision, backbone or grounder of a bundle.

    Args:
        bundle: of floats.
        graph: which.
        captures: what it was fed.
        work: folder in which the histograms are kept.
        threads: CPU threads; 0 takes the physical cores.

    Raises:
        CalibrationError: an activation is no number; the tensor is named.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: str,
        captures: Captures,
        work: Path,
        threads: int = 0,
        progress: Progress = no_progress,
    ):
        self.bundle, self.graph, self.captures, self.threads = bundle, graph, captures, threads
        self.model = load_graph(bundle.path(graph))
        self.layers = find_layers(self.model)
        self.histograms = observe(bundle, graph, {one.input for one in self.layers}, captures, work, threads, progress)
        self._weights = StoredWeights(Compensation(self.model, self.layers, captures, bundle.folder, threads, progress))
        self._expected: list[dict[str, np.ndarray]] | None = None

    def ranges(self, rule: Rule, form: Form) -> dict[str, Range]:
        """The range of every layer's input, by the input's name.

        Around zero in graphs that are not centred, and where a Conv or Gemm takes it (see `CentreActivations`).
        """
        fixed = {node.inputs[0].name for node in self.model.graph if node.op_type in ("Conv", "Gemm")}
        centred = set(self.histograms) - fixed if is_centred(self.graph) else set()
        return {
            name: (range_of if name in centred else range_around_zero)(histogram, rule, form)
            for name, histogram in self.histograms.items()
        }

    def quantised(self, chosen: Chosen, rule: Rule) -> ir.Model:
        """A copy of the graph with some layers quantised; weights that stay floats lie where they lay."""
        model = self.model.clone()
        for form in sorted(set(chosen.values())):
            together = {one: form for one, its in chosen.items() if its == form}
            InsertQDQ(together, self.ranges(rule, form), self._weights)(model)
        return model

    def error(self, chosen: Chosen, rule: Rule) -> float:
        """Mean error of the outputs over some recorded frames (see `graph_error`)."""
        return self.error_of(self.quantised(chosen, rule))

    def error_of(self, model: ir.Model) -> float:
        """The same of any form of the graph."""
        if self._expected is None:
            self._expected = list(self._outputs(self.model))
        found = self._outputs(model)
        return float(
            np.mean([graph_error(self.graph, ours, theirs) for ours, theirs in zip(found, self._expected, strict=True)])
        )

    def best_rule(self, chosen: Chosen, progress: Progress = no_progress) -> tuple[Rule, dict[Rule, float]]:
        """The rule for ranges whose graph errs least, and every rule's error."""
        errors: dict[Rule, float] = {}
        for done, rule in enumerate(RULES):
            progress(f"ranges of {self.graph}", done, len(RULES))
            errors[rule] = self.error(chosen, rule)
        progress(f"ranges of {self.graph}", len(RULES), len(RULES))
        return min(errors, key=errors.__getitem__), errors

    def _outputs(self, model: ir.Model) -> Iterator[dict[str, np.ndarray]]:
        session = open_session(model, self.bundle.folder, self.threads)
        names = [value.name for value in self.model.graph.outputs]
        for feeds in self._frames():
            yield dict(zip(names, session.run(names, feeds), strict=True))

    def _frames(self) -> Iterator[dict[str, np.ndarray]]:
        """The first frame of recorded runs spread over the clips."""
        clips = self.captures.clips
        step = max(1, -(-len(clips) // _CHECKED))
        for clip in clips[::step]:
            for run in self.captures.runs(self.graph, [clip]):
                yield next(one_by_one(self.graph, run.feeds))
                break
