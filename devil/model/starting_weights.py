"""Which weights a training begins with: published ones by groups, random ones where nothing is published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from devil.config import DetectorConfig, DevilConfig
from devil.config_json import read_json
from devil.errors import CheckpointError
from devil.model.detector import Detector
from devil.model.detector.starting import detector_config, from_original, from_transformers
from devil.model.fitting import check_entries, check_sizes, expected_shapes
from devil.model.hub import local_folder
from devil.model.sources.base import WeightSource
from devil.model.sources.in_memory import InMemory
from devil.model.sources.joined import Joined
from devil.model.sources.pickle_file import PickleFile
from devil.model.sources.renamed import Renamed
from devil.model.sources.safetensors_file import SUFFIX, SafetensorsFile
from devil.model.vision import Projector
from devil.model.weights import open_files

# Weights that are published together, by what their keys begin with; the first that fits counts.
GROUPS = {
    "model.g_dino.llm_feat_map.": "the layer between language model and detector",
    "model.g_dino.": "the detector",
    "model.mm_projector.": "the projector",
    "model.vision_encoder.": "the vision encoder",
    "": "the language model",
}
_NEEDED = ("", "model.vision_encoder.")


def open_detector(path: Path) -> tuple[WeightSource, DetectorConfig]:
    """Grounding DINO's weights by DEViL's keys, and its sizes.

    Args:
        path: a published file, or a folder (or Hub id) of transformers' GroundingDinoForObjectDetection.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    values = {}
    if path.is_file():
        source = from_original(SafetensorsFile(path) if path.suffix == SUFFIX else PickleFile(path))
    else:
        folder = local_folder(path)
        values = read_json(folder / "config.json")
        if values.get("model_type") != "grounding-dino":
            raise CheckpointError(f"{path} holds a {values.get('model_type')}, no grounding-dino", "name its folder")
        source = from_transformers(open_files(folder))
    config = detector_config(source.entries, path, values)
    return Renamed(source, lambda name: f"model.g_dino.{name}"), config


def join(sources: Mapping[Path, WeightSource], config: DevilConfig, seed: int) -> tuple[WeightSource, list[str]]:
    """All weights of a model.

    Args:
        sources: by their paths, first the language model's. A group of weights comes whole from the last that has it.
        seed: of the groups that none has.

    Returns:
        The weights, and the groups that are random.

    Raises:
        CheckpointError: the language model or the vision encoder is nowhere, or a source has a key too few, too many or
            misshapen.
    """
    base, first = next(iter(sources.items()))
    check_sizes(first.entries, config, base)
    expected = expected_shapes(config, first.entries)
    left = set(GROUPS)
    for path, source in reversed(sources.items()):
        own = {_group(key) for key in source.entries} & left
        entries = {key: entry for key, entry in source.entries.items() if _group(key) in own}
        check_entries(entries, {key: shape for key, shape in expected.items() if _group(key) in own}, path)
        left -= own
    absent = [GROUPS[group] for group in _NEEDED if group in left]
    if absent:
        raise CheckpointError(f"no folder holds {' or '.join(absent)}", "name one that does")
    return Joined([_random(left, config, seed), *sources.values()]), [
        GROUPS[group] for group in GROUPS if group in left
    ]


def _group(key: str) -> str:
    return next(group for group in GROUPS if key.startswith(group))


def _random(groups: set[str], config: DevilConfig, seed: int) -> WeightSource:
    """The weights of some groups as their modules begin."""
    hidden = config.language.hidden
    tensors: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = {
            "model.g_dino.": Detector(config.detector, hidden),
            "model.mm_projector.": Projector(config.vision.hidden, hidden),
        }
    for prefix, module in modules.items():
        tensors |= {prefix + name: tensor for name, tensor in module.state_dict().items()}
    return InMemory({key: tensor for key, tensor in tensors.items() if _group(key) in groups})
