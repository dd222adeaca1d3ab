"""What a calibrated bundle may lose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from devil.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """The most that is let through, against the bundle that was calibrated. None: no matter.

    Attributes:
        viou: points (of 100) of m_vIoU that may be lost.
        tiou: points of m_tIoU that may be lost.
        text: percent of the answers whose words may change.
        rst: the least mean cosine of an answer's RST with the original's, 0–1.
        box: the least mean IoU of an answer's boxes with the original's, 0–1.
    """

    viou: float | None = 0.5
    tiou: float | None = None
    text: float | None = 3.0
    rst: float | None = None
    box: float | None = None

    @classmethod
    def of(cls, precision: str, given: Iterable[str] = ()) -> Budget:
        """The default of a precision, with what the flags `NAME=VALUE` say instead.

        Four bits change words that mean the same, so nothing is asked of them there.

        Raises:
            UsageError: a word that is none, an unknown name, or a value that cannot be meant.
        """
        default = cls(viou=1.0, text=None) if precision == "int4" else cls()
        return replace(default, **dict(_parsed(word) for word in given))

    def words(self) -> list[str]:
        """One phrase per limit."""
        return [_LIMITS[name].format(limit) for name, limit in asdict(self).items() if limit is not None]

    def too_fine(self, answers: int) -> str:
        """What to say where one changed answer is already too much; empty where it is not, or none may change.

        Args:
            answers: how many the result is judged by.
        """
        if self.text is None or not self.text or not answers or 100 / answers <= self.text:
            return ""
        return f"one of {answers} answers is {100 / answers:.3g} %: more --judge-clips judge finer"

    def broken(self, losses: Mapping[str, float]) -> list[str]:
        """One phrase per figure that is out of the budget, or is no number.

        Args:
            losses: by the names above; `rst` and `box` may be missing where nothing could be compared.
        """
        phrases = []
        for name, limit in asdict(self).items():
            if limit is None or name not in losses:
                continue
            value, is_floor = losses[name], name in ("rst", "box")
            good = value >= limit if is_floor else value <= limit
            if not good:
                phrases.append(f"{_WORDS[name].format(value)} (budget {limit:g})")
        return phrases

    def excess(self, losses: Mapping[str, float]) -> float:
        """The largest loss as a multiple of its limit; infinite where one is no number, or nothing may be lost.

        Args:
            losses: as for `broken`.
        """
        shares = [0.0]
        for name, limit in asdict(self).items():
            if limit is None or name not in losses:
                continue
            lost, most = (1 - losses[name], 1 - limit) if name in ("rst", "box") else (losses[name], limit)
            if most > 0 and math.isfinite(lost):
                shares.append(lost / most)
            elif not lost <= most:  # which is so of what is no number
                shares.append(math.inf)
        return max(shares)


_WORDS = {
    "viou": "{:.2f} points of m_vIoU lost",
    "tiou": "{:.2f} points of m_tIoU lost",
    "text": "{:.1f} % of the answers changed",
    "rst": "RST cosine {:.4f}",
    "box": "box IoU {:.4f}",
}

_LIMITS = {
    "viou": "at most {:g} points of m_vIoU lost",
    "tiou": "at most {:g} points of m_tIoU lost",
    "text": "at most {:g} % of the answers changed",
    "rst": "RST cosine at least {:g}",
    "box": "box IoU at least {:g}",
}


def _parsed(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    if name not in _WORDS:
        raise UsageError(f"--budget {word!r} names nothing known", f"write {', '.join(_WORDS)}, for example viou=0.5")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    most = 1 if name in ("rst", "box") else 100
    if not 0 <= number <= most:
        raise UsageError(f"--budget {word!r} has no value from 0 to {most}", f"write for example {name}={most / 2:g}")
    return name, number
