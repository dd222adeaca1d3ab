"""The language graph of a bundle again, with integers for its weights that its own recorded inputs chose."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from devil.bundle import Bundle
from devil.calibration.captures import Captures
from devil.calibration.language.calibrate import SEARCH, LanguageRecipe, calibrate_language
from devil.calibration.language.decoder import Read
from devil.calibration.language.passes import LanguagePass
from devil.calibration.language.stored import CalibratedWeights
from devil.calibration.loading import load_graph
from devil.contract import FLOAT
from devil.errors import BundleError
from devil.export.language import build_language
from devil.export.scheme import Scheme
from devil.progress import Progress, no_progress

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = 3  # of what is chosen and kept how


def bundle_weights(bundle: Bundle) -> Read:
    """The float tensors of a bundle's language graph by their checkpoint's keys, read when they are asked for.

    Raises:
        BundleError: its weights are integers already.
    """
    if "language" in bundle.manifest.quantisation:
        raise BundleError(
            f"{bundle.folder} is quantised already", "calibrate a bundle of fp32 or fp16 that devil-export wrote"
        )
    values = load_graph(bundle.path("language")).graph.initializers

    def read(key: str) -> Tensor:
        return torch.from_numpy(values[key].const_value.numpy().copy())

    return read


def language_passes(captures: Captures, vocab: int) -> list[LanguagePass]:
    """Everything that the language graph was asked, one pass per cache."""
    runs = captures.runs("language")
    return [
        LanguagePass.of_runs([run.feeds for run in together], vocab)
        for _, together in groupby(runs, key=lambda run: (run.clip, run.cache))
    ]


def choose_integers(
    bundle: Bundle, captures: Captures, scheme: Scheme, work: Path, progress: Progress = no_progress
) -> CalibratedWeights:
    """Scales and integers for a bundle's language model.

    Args:
        bundle: of floats.
        captures: recorded with it.
        scheme: bits and blocks.
        work: folder in which what was chosen is kept.

    Raises:
        BundleError: the bundle is quantised already.
        CalibrationError: nothing was recorded, or an activation is no number.
        ConfigError: the blocks do not fit the model.
    """
    config = bundle.config.language
    scheme.check_model(config)
    passes = language_passes(captures, config.vocab)
    about = [VERSION, SEARCH, bundle.graph_hash("language"), captures.about, captures.clips, asdict(scheme)]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folder = work / f"language-{key}"  # another choice never takes up this one's layers
    return calibrate_language(bundle_weights(bundle), config, passes, recipe(bundle, scheme), folder, progress)


def recipe(bundle: Bundle, scheme: Scheme) -> LanguageRecipe:
    return LanguageRecipe(scheme, getattr(torch, FLOAT[bundle.manifest.graph_precision("language")]))


def integer_graph(bundle: Bundle, calibrated: CalibratedWeights, scheme: Scheme) -> ir.Model:
    """The graph with these integers; layers that the scheme excepts are rounded to nearest, or stay floats."""
    precision = bundle.manifest.graph_precision("language")
    return build_language(bundle.config.language, calibrated.read, precision, scheme, calibrated.quantise)
