"""Whether a calibrated bundle is sold: within its budget, smaller or faster, and nowhere slower than the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from devil.calibration.verdict.budget import Budget
from devil.calibration.verdict.figures import Figure, figures_json, losses
from devil.calibration.verdict.timing import Latency

SLOWER = 1.05  # times the original's seconds: two timings of one graph differ by less


@dataclass(frozen=True)
class Candidate:
    """A bundle that was judged.

    Attributes:
        name: in the report.
        bytes: of its files.
        latency: on this machine's engine.
        scores: against the truth.
        changes: of these, against the original.
        agreements: with the original's answers.
        graphs: those that it has in lower precision than the original.
    """

    name: str
    bytes: int
    latency: Latency
    scores: Mapping[str, Figure]
    changes: Mapping[str, Figure]
    agreements: Mapping[str, Figure]
    graphs: tuple[str, ...] = ()

    @property
    def losses(self) -> dict[str, float]:
        return losses(self.changes, self.agreements)

    def to_json(self) -> dict[str, Any]:
        return {
            "graphs": list(self.graphs),
            "bytes": self.bytes,
            "seconds": {**self.latency.graphs, "total": self.latency.total},
            "scores": figures_json(self.scores),
            "changes": figures_json(self.changes),
            "agreements": figures_json(self.agreements),
            "losses": self.losses,
        }


@dataclass(frozen=True)
class Verdict:
    """What is decided, and from what.

    Attributes:
        result: name of the bundle that was asked for.
        original: name of the bundle that it replaces.
        budget: what it may lose.
        candidates: by name; result and original among them.
        complaints: why the result is refused; empty where it is not.
        alternative: name of the best candidate that is not refused, where the result is; the original if all are.
        accepted: whether it is written all the same.
    """

    result: str
    original: str
    budget: Budget
    candidates: Mapping[str, Candidate]
    complaints: tuple[str, ...]
    alternative: str | None
    accepted: bool = False

    @property
    def passed(self) -> bool:
        return not self.complaints

    def to_json(self) -> dict[str, Any]:
        return {
            "result": self.result,
            "original": self.original,
            "passed": self.passed,
            "accepted": self.accepted,
            "complaints": list(self.complaints),
            "alternative": self.alternative,
            "budget": asdict(self.budget),
            "candidates": {name: candidate.to_json() for name, candidate in self.candidates.items()},
        }


def decide(
    result: str, original: str, candidates: Mapping[str, Candidate], budget: Budget, accept: bool = False
) -> Verdict:
    """The verdict on a result.

    Args:
        candidates: by name, result and original among them.
        accept: the user takes it as it is.
    """
    base = candidates[original]
    found = {name: complaints(candidate, base, budget) for name, candidate in candidates.items() if name != original}
    alternative = None
    if found[result]:
        good = [candidates[name] for name, against in found.items() if not against]
        best = min(good, key=lambda candidate: (candidate.latency.total, candidate.bytes), default=base)
        alternative = best.name
    return Verdict(
        result, original, budget, candidates, tuple(found[result]), alternative, accept and bool(found[result])
    )


def complaints(candidate: Candidate, original: Candidate, budget: Budget) -> list[str]:
    """What speaks against a candidate."""
    return budget.broken(candidate.losses) + [
        f"{graph} takes {candidate.latency.graphs[graph] / original.latency.graphs[graph]:.2f} times as long"
        for graph in slower_graphs(candidate, original)
    ]


def slower_graphs(candidate: Candidate, original: Candidate) -> Sequence[str]:
    """Graphs in lower precision that take longer than those they replace."""
    seconds, before = candidate.latency.graphs, original.latency.graphs
    return [graph for graph in candidate.graphs if seconds[graph] > SLOWER * before[graph]]
