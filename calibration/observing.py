"""Histograms of what the layers of a graph take, over all recorded runs; kept on the disk once they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from devil.bundle import Bundle
from devil.calibration.activations import ActivationReader, one_by_one
from devil.calibration.captures import Captures
from devil.calibration.histogram import Histogram
from devil.calibration.loading import load_graph
from devil.errors import CalibrationError
from devil.files import atomic_file
from devil.progress import Progress

_VERSION = 2  # of what is counted how


def observe(
    bundle: Bundle, graph: str, names: Collection[str], captures: Captures, work: Path, threads: int, progress: Progress
) -> dict[str, Histogram]:
    """A histogram of each value.

    Args:
        names: of values of the graph.
        work: folder in which they are kept; a graph that was observed is not run again.

    Raises:
        CalibrationError: a value holds what is no number; it is named.
        OutputError: the disk is full.
    """
    names = sorted(names)
    path = work / f"histograms-{graph}.npz"
    key = _key(bundle, graph, names, captures)
    found = _read(path, key, names)
    if found is not None:
        return found
    reader = ActivationReader(load_graph(bundle.path(graph)), names, bundle.folder, threads)
    histograms = {name: Histogram() for name in names}
    total = captures.count(graph)
    for done, run in enumerate(captures.runs(graph)):
        progress(f"observing {graph}", done, total)
        for feeds in one_by_one(graph, run.feeds):
            for name, values in reader.read(feeds):
                _add(histograms[name], values, name, graph, captures.clip(run.clip).path)
    progress(f"observing {graph}", total, total)
    _write(path, key, histograms)
    return histograms


def _add(histogram: Histogram, values: np.ndarray, name: str, graph: str, clip: Path) -> None:
    try:
        histogram.add(values)
    except ValueError:
        raise CalibrationError(
            f"tensor {name} of graph {graph} has values that are no numbers on {clip.name}",
            "calibrate a bundle of fp32, or leave the clip out",
        ) from None


def _key(bundle: Bundle, graph: str, names: Collection[str], captures: Captures) -> str:
    """Changes with whatever the histograms depend on."""
    about = [_VERSION, bundle.graph_hash(graph), list(names), captures.about, captures.clips]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _write(path: Path, key: str, histograms: dict[str, Histogram]) -> None:
    every = list(histograms.values())
    with atomic_file(path) as temporary:
        np.savez_compressed(
            temporary,
            key=np.array(key),
            counts=np.array([histogram.counts for histogram in every]),
            numbers=np.array([(histogram.exponent, histogram.total, histogram.zeros) for histogram in every]),
            ends=np.array([(histogram.lowest, histogram.highest) for histogram in every]),
        )


def _read(path: Path, key: str, names: Collection[str]) -> dict[str, Histogram] | None:
    """What was kept; None where there is nothing, or something else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            counts, numbers, ends = stored["counts"], stored["numbers"].tolist(), stored["ends"].tolist()
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return {
        name: Histogram(counts[index], int(exponent), *ends[index], int(total), int(zeros))
        for index, (name, (exponent, total, zeros)) in enumerate(zip(names, numbers, strict=True))
    }
