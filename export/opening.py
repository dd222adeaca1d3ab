"""A checkpoint as the exporter takes it: only as much of it in memory as the graphs and their checks need."""

from __future__ import annotations

from dataclasses import replace

from devil.config import DevilConfig
from devil.config_json import load_config
from devil.export.beforehand import check_model
from devil.export.graphs import GraphBuilder
from devil.export.link import check_linkable
from devil.export.mapped import fill_mapped
from devil.export.options import ExportOptions
from devil.files import check_room, existing_folder
from devil.model.checkpoint import PARTS, Part, weights_of
from devil.model.devil import DevilModel
from devil.model.fitting import check_weights, empty_model
from devil.model.hub import local_folder
from devil.model.weights import open_weights

WHOLE = 300_000_000  # bytes in float32 of a language model that is still compared with PyTorch whole


def open_builder(options: ExportOptions) -> GraphBuilder:
    """A builder of the checkpoint's graphs, with the first decoder layers only where so asked.

    The vision encoder and the detector, which are traced, are there in float32, and so is the language model where it
    is small. They lie in a nameless file on the output's disk, so that the system can page them.

    Raises:
        CheckpointError: the checkpoint is missing, broken, or its weights are not the config's.
        UsageError: the model does not have the sizes that were asked for.
        OutputError: the disk has no room for that file, or the language model's weights cannot be linked as asked.
    """
    size, folder = options.fixed_size, local_folder(options.checkpoint)
    source = open_weights(folder)
    config = load_config(folder)
    check_model(config, options)
    check_weights(source, config, folder)
    model = empty_model(_cut(config, options.layers))
    parts: tuple[Part, ...] = PARTS if part_values(model, "language") * 4 <= WHOLE else ("vision", "detector")
    if options.link_weights:
        matrices = [name for name, weight in weights_of(model, ("language",)).items() if weight.dim() > 1]
        check_linkable(source, matrices, options.precision, options.bundle)
    check_room(options.bundle, 4 * sum(part_values(model, part) for part in parts))
    fill_mapped(model, source, parts, existing_folder(options.bundle))
    layers_of = None if options.layers is None else config.language.layers
    return GraphBuilder(model, size, source, layers_of, keep=False)


def part_values(model: DevilModel, part: Part) -> int:
    """How many values the weights of a part have together."""
    return sum(weight.numel() for weight in weights_of(model, (part,)).values())


def _cut(config: DevilConfig, layers: int | None) -> DevilConfig:
    language = config.language
    if layers is None:
        return config
    return replace(config, language=replace(language, layers=layers))
