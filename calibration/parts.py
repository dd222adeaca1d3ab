"""The quantised graphs of a bundle, as the precision that was asked for wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from devil.calibration.bundle import Part
from devil.calibration.forms import Form
from devil.calibration.graph import Chosen, GraphCalibration
from devil.calibration.kept import Kept, KeptBits, store_kept
from devil.calibration.language.calibrate import SEARCH
from devil.calibration.language.graph import choose_integers, integer_graph
from devil.calibration.layer_error import layer_errors, layer_label
from devil.calibration.options import CalibrateOptions
from devil.calibration.ranges import Rule
from devil.calibration.rules import KEPT, chosen_by_rule
from devil.calibration.sensitivity.assignment import Losses
from devil.calibration.sensitivity.clips import ClipSplit, split_clips
from devil.calibration.sensitivity.mixed import MixedPrecision, chosen_layers, language_scheme
from devil.calibration.starting import Recording
from devil.calibration.verdict.charts import Bar
from devil.contract import BundlePrecision, CalibratedPrecision
from devil.export.scheme import Scheme
from devil.progress import Progress

# What 8 bits are where activations are rounded too, and the language model's weights.
_FORMS: Mapping[CalibratedPrecision, Form] = {"int8": "int8", "fp8": "fp8", "int4": "int8", "mixed": "int8"}
_WEIGHTS: Mapping[CalibratedPrecision, BundlePrecision] = {
    "int8": "int8", "fp8": "int8", "int4": "int4", "mixed": "int4",
}  # fmt: skip
_BY_RULE, _BY_SENSITIVITY = "by rule", "by measured sensitivity"
_ERROR, _LOSS = "relative error of the layer's outputs", "largest loss of the task with only this layer lowered"


@dataclass(frozen=True)
class Parts:
    """All quantised graphs.

    Attributes:
        graphs: by name.
        layers: for the report, each layer's error.
        unit: of these errors, in words.
        clips: with `mixed`, the ones that losses were measured on.
    """

    graphs: dict[str, Part]
    layers: list[Bar]
    unit: str
    clips: ClipSplit | None = None


def build_parts(recording: Recording, options: CalibrateOptions, allowed: Losses, progress: Progress) -> Parts:
    """Quantises the chosen graphs.

    Args:
        allowed: with `mixed`, what the graphs may lose on the recorded clips.

    Raises:
        CalibrationError: an activation or a weight is no number, or with `mixed` no clip can tell what a layer loses.
        ConfigError: blocks do not fit the language model.
        OutputError: the disk is full.
    """
    mixed = clips = None
    if options.precision == "mixed":
        clips = split_clips(recording.captures, options.chosen_graphs)
        mixed = MixedPrecision(recording.bundle, clips, recording.work, allowed, options.threads, progress)
        recording = replace(recording, captures=clips.chosen_on)
    graphs, layers = {}, []
    for name in options.chosen_graphs:
        graphs[name], bars = (
            _language(recording, options, mixed, progress)
            if name == "language"
            else _of_activations(name, recording, options, mixed, progress)
        )
        layers += bars
    return Parts(graphs, layers, _LOSS if mixed else _ERROR, clips)


def _of_activations(
    name: str, recording: Recording, options: CalibrateOptions, mixed: MixedPrecision | None, progress: Progress
) -> tuple[Part, list[Bar]]:
    """A graph whose activations are rounded too."""
    graph = GraphCalibration(
        recording.bundle, name, recording.captures, recording.work, options.threads, progress
    )  # fmt: skip
    form = _FORMS[options.precision]
    chosen: Chosen = chosen_by_rule(graph.layers, form)
    rule, errors = _rule(graph, chosen, options, progress)
    if mixed is None:
        part = quantised_part(graph, chosen, rule, errors, _BY_RULE, options.kept_weights)
        found = layer_errors(graph, part.model)
        return part, [Bar(layer_label(layer), name, error, layer not in chosen) for layer, error in found.items()]
    choice = mixed.graph(graph, rule, form)
    chosen = chosen_layers(choice, graph.layers, form)
    part = quantised_part(graph, chosen, rule, errors, _BY_SENSITIVITY, options.kept_weights)
    return Part(part.model, {**part.record, "sensitivity": choice.record()}, part.error), choice.bars(
        {layer.name: layer_label(layer) for layer in graph.layers}
    )


def _language(
    recording: Recording, options: CalibrateOptions, mixed: MixedPrecision | None, progress: Progress
) -> tuple[Part, list[Bar]]:
    scheme = Scheme.of(_WEIGHTS[options.precision], options.block_size)
    chosen = choose_integers(recording.bundle, recording.captures, scheme, recording.work, progress)
    if mixed is None:
        bars = [Bar(layer, "language", error, False) for layer, error in chosen.errors().items()]
        return Part(integer_graph(recording.bundle, chosen, scheme), scheme.record(SEARCH)), bars
    choice = mixed.language(chosen, scheme)
    scheme = language_scheme(choice, scheme)
    record = {**scheme.record(SEARCH), "sensitivity": choice.record()}
    return Part(integer_graph(recording.bundle, chosen, scheme), record), choice.bars()


def _rule(
    graph: GraphCalibration, chosen: Chosen, options: CalibrateOptions, progress: Progress
) -> tuple[Rule, Mapping[Rule, float]]:
    """The range rule that errs least, unless one was asked for; and the errors that say so."""
    if options.ranges == "auto":
        return graph.best_rule(chosen, progress)
    return options.ranges, {options.ranges: graph.error(chosen, options.ranges)}


def quantised_part(
    graph: GraphCalibration,
    chosen: Chosen,
    rule: Rule,
    errors: Mapping[Rule, float],
    choice: str,
    kept_bits: KeptBits = 8,
) -> Part:
    """The graph with these layers quantised, and what the manifest says of it.

    Args:
        errors: of the range rules that were tried, with the layers that the rules choose.
        choice: how the layers were chosen.
        kept_bits: of weights that stay floats to the engine, in the file.
    """
    by_rule = choice == _BY_RULE
    kept = [layer for layer in graph.layers if layer not in chosen]
    forms = list(chosen.values())
    model = graph.quantised(chosen, rule)
    kept_weights = Kept(model, errors[rule] if by_rule and rule in errors else graph.error_of(model))
    if kept_bits == 8:
        kept_weights = store_kept(graph, model, kept_weights.error)
    about = {
        "forms": {form: forms.count(form) for form in sorted(set(forms))},
        "layers": choice,
        "kept": {layer.name: KEPT.get(layer.role, choice) if by_rule else choice for layer in kept},
        "kept_weights": kept_weights.record(),
        "weights": "symmetric, one scale per output, GPTQ",
        "activations": "symmetric, one scale per tensor",
        "centred": _centred(graph, chosen, rule),
        "ranges": rule,
        "range_errors": {name: round(error, 6) for name, error in errors.items()},
        "clips": len(graph.captures.clips),
    }
    return Part(kept_weights.model, about, kept_weights.error)


def _centred(graph: GraphCalibration, chosen: Chosen, rule: Rule) -> int:
    """How many layers take their activation around a centre."""
    ranges = {form: graph.ranges(rule, form) for form in set(chosen.values())}
    return sum(ranges[form][layer.input].centre != 0 for layer, form in chosen.items())
