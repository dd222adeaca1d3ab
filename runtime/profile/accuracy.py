"""How far what contenders compute is apart, on the same inputs, by polygraphy's comparator; the worst tensors first."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devil.contract import GraphSpec
from devil.errors import MissingPackageError
from devil.fidelity import SAME_SLOT, match_slots
from devil.runtime.profile.workload import Case

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """One tensor of one case, of two contenders.

    Attributes:
        case, tensor: which.
        largest, mean: of the absolute differences.
        relative: the largest over the reference's largest value; what tensors are ordered by.
        cosine: of the two tensors as vectors.
        slots: share of detections that were compared: those that have a box of their own in both, wherever rounding
            put them among near-ties; 1 for tensors that hold no detections.
    """

    case: str
    tensor: str
    largest: float
    mean: float
    relative: float
    cosine: float
    slots: float = 1.0


def check_polygraphy() -> None:
    """
    Raises:
        MissingPackageError: it is not installed.
    """
    if importlib.util.find_spec("polygraphy") is None:
        raise MissingPackageError("polygraphy", "comparing what engines compute", "profile")


def compare(
    case: Case, spec: GraphSpec, reference: Callable[[], Outputs], others: Mapping[str, Callable[[], Outputs]]
) -> dict[str, list[Difference]]:
    """One case of several contenders.

    Args:
        spec: of the case's graph.
        reference: gives the outputs that the others are compared with.
        others: give theirs, by the contender's name.

    Returns:
        Per name the differences of every output, the worst first.

    Raises:
        MissingPackageError: polygraphy is not installed.
    """
    check_polygraphy()
    from polygraphy.comparator import Comparator
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        runners = [_runner(name, case, spec, run) for name, run in {"": reference, **others}.items()]
        results = Comparator.run(runners, data_loader=[dict(case.feeds)])
        found = {name: dict(results[name][0]) for name in ("", *others)}
        return {name: _differences(case, found[""], found[name]) for name in others}


def _differences(case: Case, expected: Outputs, found: Outputs) -> list[Difference]:
    from polygraphy.comparator import Comparator, RunResults, SimpleCompareFunc

    slots = 1.0
    if case.graph == "grounder":
        expected, found, slots = _matched(expected, found)
    results = RunResults()
    results.add([dict(expected)], runner_name="expected")
    results.add([dict(found)], runner_name="found")
    compared = Comparator.compare_accuracy(results, compare_func=SimpleCompareFunc(check_error_stat="max"))
    ((_, ((tensors,),)),) = [(pair, (iterations,)) for pair, iterations in compared[0].items()]
    differences = [
        _difference(case.name, name, expected[name], found[name], (tensor.max_absdiff, tensor.mean_absdiff), slots)
        for name, tensor in tensors.items()
    ]
    return sorted(differences, key=lambda difference: -difference.relative)


def _difference(
    case: str, name: str, expected: np.ndarray, found: np.ndarray, told: Sequence[float], slots: float
) -> Difference:
    ours, theirs = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    norms = np.linalg.norm(ours) * np.linalg.norm(theirs)
    peak = float(np.abs(theirs).max()) if theirs.size else 0.0
    return Difference(
        case=case,
        tensor=name,
        largest=float(told[0]),
        mean=float(told[1]),
        relative=float(told[0]) / max(peak, 1e-30),
        cosine=float(ours @ theirs / max(norms, 1e-30)),
        slots=slots,
    )


def _matched(expected: Outputs, found: Outputs) -> tuple[Outputs, Outputs, float]:
    """Detections [pairs, …] that both have, side by side, and their share of all."""
    frames = len(expected["logits"])
    ours: dict[str, list[np.ndarray]] = {name: [] for name in expected}
    theirs: dict[str, list[np.ndarray]] = {name: [] for name in expected}
    kept = total = 0
    for frame in range(frames):
        one, other = ({name: side[name][frame] for name in expected} for side in (found, expected))
        rows, columns, overlaps = match_slots(one, other)
        same = overlaps >= SAME_SLOT
        kept, total = kept + int(same.sum()), total + len(same)
        for name in expected:
            ours[name].append(one[name][rows[same]])
            theirs[name].append(other[name][columns[same]])
    joined: list[dict[str, Any]] = [
        {name: np.concatenate(parts) for name, parts in side.items()} for side in (theirs, ours)
    ]
    return joined[0], joined[1], kept / max(total, 1)


def _runner(name: str, case: Case, spec: GraphSpec, run: Callable[[], Outputs]) -> Any:
    """A contender's case as polygraphy runs things."""
    import time
    from collections import OrderedDict

    from polygraphy.backend.base import BaseRunner
    from polygraphy.common import TensorMetadata

    class CaseRunner(BaseRunner):
        def get_input_metadata_impl(self) -> TensorMetadata:
            metadata = TensorMetadata()
            for tensor in spec.inputs:
                if tensor.name in case.feeds:  # a cache is none of its inputs
                    shape = [size if isinstance(size, int) else None for size in tensor.shape]
                    metadata.add(tensor.name, dtype=case.feeds[tensor.name].dtype, shape=shape)
            return metadata

        def infer_impl(self, feed_dict: Mapping[str, np.ndarray]) -> OrderedDict[str, np.ndarray]:  # noqa: ARG002
            # The contender has the feeds already: they were sent to its process once.
            start = time.perf_counter()
            outputs = OrderedDict(run())
            self.inference_time = time.perf_counter() - start
            return outputs

    return CaseRunner(name=name)
