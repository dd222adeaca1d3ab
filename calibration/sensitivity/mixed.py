"""Mixed precision: every layer of every graph in the lowest precision that the budget lets it have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from devil.bundle import Bundle
from devil.calibration.forms import Form
from devil.calibration.graph import GraphCalibration
from devil.calibration.language.calibrate import SEARCH
from devil.calibration.language.graph import VERSION, bundle_weights, language_passes
from devil.calibration.language.stored import CalibratedWeights
from devil.calibration.layers import Layer
from devil.calibration.ranges import Rule
from devil.calibration.sensitivity.assignment import Assignment, Losses, Option, assign, most_saving
from devil.calibration.sensitivity.clips import ClipSplit
from devil.calibration.sensitivity.language import LanguageTask
from devil.calibration.sensitivity.log import TrialLog
from devil.calibration.sensitivity.tasks import Arrays, BoxTask, Graph, WordTask
from devil.calibration.sessions import open_session
from devil.calibration.verdict.budget import Budget
from devil.calibration.verdict.charts import Bar
from devil.contract import contract
from devil.export.scheme import HEAD, Scheme
from devil.progress import Progress, no_progress
from devil.runtime.engines.base import checked_feeds

_VERSION = 3  # of what is measured how, and of how layers are rounded
# Integers make these faster. Of convolutions, and of Gemm with its float bias, ONNX Runtime has no integer kernel: they
# would be rounded and computed in floats all the same.
_LOWERED = ("MatMul",)

# Where the budget says nothing: what a whole bundle may lose on the recorded clips. devil-tiny keeps its texts and
# m_vIoU within the default budget at these.
_DEFAULTS = {"rst": 0.01, "text": 0.03, "box": 0.04}


@dataclass(frozen=True)
class MixedChoice:
    """What was found for one graph.

    Attributes:
        graph: which.
        options: every layer's, in the graph's order, with its losses.
        assignment: the layers that are lowered, and what they lose together.
        measured_on: which clips the losses are of (`ClipSplit.record`).
    """

    graph: str
    options: tuple[Option, ...]
    assignment: Assignment = field(default_factory=lambda: Assignment((), {}, 0))
    measured_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lowered(self) -> frozenset[str]:
        """Names of the layers that are lowered."""
        return frozenset(option.layer for option in self.assignment.lowered)

    def bars(self, labels: Mapping[str, str] | None = None) -> list[Bar]:
        """For the report: each layer's largest loss alone.

        Args:
            labels: what layers are called there, by name.
        """
        lowered, labels = self.lowered, labels or {}
        return [
            Bar(labels.get(option.layer, option.layer), self.graph, option.worst, option.layer not in lowered)
            for option in self.options
        ]

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "lowered": len(self.lowered),
            "layers": len(self.options),
            "losses": {name: round(value, 6) for name, value in self.assignment.losses.items()},
            **self.measured_on,
        }


def limits(budget: Budget, tightness: float = 1.0) -> dict[str, float]:
    """The most that the graphs together may lose on the recorded clips.

    Args:
        tightness: of a second try, below 1, where the judgement on other clips went against the first.
    """
    found = dict(_DEFAULTS)
    if budget.rst is not None:
        found["rst"] = 1 - budget.rst
    if budget.text is not None:
        found["text"] = budget.text / 100
    if budget.box is not None:
        found["box"] = 1 - budget.box
    return {name: tightness * value for name, value in found.items()}


class MixedPrecision:
    """Finds the choice graph by graph. What was measured is kept in a folder, and is not measured again.

    Args:
        bundle: of floats.
        clips: recorded with it; those that losses are measured on, and those that integers and ranges were chosen on.
        work: folder for the measurements.
        allowed: limits of the graphs together, as `limits` gives them; each graph may use half of those it shares.
        threads: CPU threads.
    """

    def __init__(
        self, bundle: Bundle, clips: ClipSplit, work: Path, allowed: Losses, threads: int = 0,
        progress: Progress = no_progress,
    ):  # fmt: skip
        self._bundle, self._clips, self._work, self._threads = bundle, clips, work, threads
        self._progress = progress
        self._shares = {
            "vision": {name: allowed[name] / 2 for name in ("rst", "text")},
            "language": {name: allowed[name] / 2 for name in ("rst", "text")},
            "backbone": {"box": allowed["box"] / 2},
            "grounder": {"box": allowed["box"] / 2},
        }
        self._boxes: BoxTask | None = None

    def graph(self, calibration: GraphCalibration, rule: Rule, form: Form = "int8") -> MixedChoice:
        """The choice of the vision encoder's, the backbone's or the grounder's products: `form` or floats."""
        kinds = {node.name: node.op_type for node in calibration.model.graph}
        name, layers = calibration.graph, {one.name: one for one in calibration.layers if kinds[one.name] in _LOWERED}
        losses = self._losses_of(name)
        log = self._log(name, {"rule": rule, "form": form})

        def measure(chosen: Sequence[str]) -> Losses:
            trial = " ".join(sorted(chosen))

            def run_it() -> dict[str, float]:
                model = calibration.quantised({layers[layer]: form for layer in chosen}, rule)
                return losses(self._runner(name, model))

            return log.losses(trial, run_it)

        saved = {layer.name: _products(layer, calibration) for layer in layers.values()}
        return self._choose(name, saved, form, measure)

    def language(self, calibrated: CalibratedWeights, scheme: Scheme) -> MixedChoice:
        """The choice of the language model's linear layers: what was chosen in 4 bits, or 8 bits."""
        config = self._bundle.config
        tested = self._clips.tested_on
        passes = language_passes(tested, config.language.vocab)
        task = LanguageTask(
            config, bundle_weights(self._bundle), calibrated, scheme, passes, tested.answer_count
        )  # fmt: skip
        log = self._log("language", {"search": SEARCH, "chosen": VERSION, "scheme": asdict(scheme)})

        def measure(chosen: Sequence[str]) -> Losses:
            return log.losses(" ".join(sorted(chosen)), lambda: task.losses(chosen))

        return self._choose("language", dict(task.linears()), f"int{scheme.bits}", measure)

    def _choose(
        self, graph: str, saved: Mapping[str, float], form: str, measure: Callable[[Sequence[str]], Losses]
    ) -> MixedChoice:
        options = []
        for done, (layer, gain) in enumerate(saved.items()):
            self._progress(f"sensitivity of {graph}", done, len(saved))
            options.append(Option(layer, form, gain, measure([layer])))
        self._progress(f"sensitivity of {graph}", len(saved), len(saved))
        share = self._shares[graph]
        found = assign(
            most_saving(options, share), share, lambda chosen: measure([option.layer for option in chosen]),
            self._progress, f"assigning {graph}",
        )  # fmt: skip
        return MixedChoice(graph, tuple(options), found, self._clips.record())

    def _losses_of(self, graph: str) -> Callable[[Graph], Losses]:
        if graph == "vision":
            return WordTask(self._bundle, self._clips.tested_on, self._threads).vision
        if self._boxes is None:
            self._boxes = BoxTask(self._bundle, self._clips.tested_on, self._threads)
        return getattr(self._boxes, graph)

    def _runner(self, graph: str, model: ir.Model) -> Graph:
        spec, precision = contract(self._bundle.config)[graph], self._bundle.manifest.graph_precision(graph)
        session = open_session(model, self._bundle.folder, self._threads)
        names = [tensor.name for tensor in spec.outputs]

        def run(feeds: Arrays) -> Arrays:
            return dict(zip(names, session.run(names, checked_feeds(spec, precision, feeds)), strict=True))

        return run

    def _log(self, graph: str, how: Mapping[str, Any]) -> TrialLog:
        """What was measured of a graph that is quantised in this way."""
        about = {
            "version": _VERSION,
            "graphs": [self._bundle.graph_hash(name) for name in ("vision", "language", "backbone", "grounder")],
            **how,
            "captures": self._clips.tested_on.about,
            "tested_on": self._clips.tested_on.clips,
            "chosen_on": self._clips.chosen_on.clips,
        }
        return TrialLog(self._work / f"sensitivity-{graph}.jsonl", about)


def language_scheme(choice: MixedChoice, scheme: Scheme) -> Scheme:
    """The scheme with 8 bits for the layers that are not lowered."""
    kept = [option.layer for option in choice.options if option.layer not in choice.lowered]
    exceptions = tuple((layer, 8) for layer in kept if layer != HEAD)
    head = 8 if HEAD in kept else scheme.head_bits
    return Scheme(scheme.bits, scheme.block, 8, head, exceptions)


def chosen_layers(choice: MixedChoice, layers: Sequence[Layer], form: Form) -> dict[Layer, Form]:
    """What `GraphCalibration.quantised` takes."""
    return {layer: form for layer in layers if layer.name in choice.lowered}


def _products(layer: Layer, calibration: GraphCalibration) -> float:
    """Multiplications of a layer over the recorded frames: what 8 bits make cheaper."""
    return float(calibration.histograms[layer.input].total * layer.outputs)
