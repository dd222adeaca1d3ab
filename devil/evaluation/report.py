"""The report page: figures, what was skipped, and the best, median and worst clips. One file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from html import escape
from typing import Any

import numpy as np

from devil.evaluation.datasets import Dataset
from devil.evaluation.samples import Asked
from devil.evaluation.strips import TOLD, TRUE, data_uri, shown_rows, strip
from devil.metrics import span_iou, tube_iou

SHOWN = 3  # clips of each group

_STYLE = f"""
body {{ font: 15px/1.45 system-ui, sans-serif; color: #1c1c1e; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: break-word; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; }}
.quiet {{ color: #6b6b70; }}
.table {{ overflow-x: auto; margin-bottom: 1rem; }} table {{ border-collapse: collapse; }}
th, td {{ padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e3e3e6;
  font-variant-numeric: tabular-nums; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }} thead th {{ font-weight: 600; }}
figure {{ margin: 0 0 1.8rem; }}
figure img, figure svg {{ display: block; width: 100%; max-width: 66rem; height: auto; }}
figcaption {{ margin-bottom: .35rem; }} q {{ font-weight: 600; }}
.true {{ color: {TRUE}; }} .told {{ color: #b96d00; }} i {{ font-style: normal; }}
"""


def report_page(title: str, values: Mapping[str, Any], asked: Sequence[Asked], dataset: Dataset) -> str:
    """The page as HTML.

    Args:
        title: what was evaluated on what.
        values: made by `summarise`.
        asked: everything that was asked.
        dataset: what it was asked of; clips of one without boxes are ranked by their span alone.
    """
    by_span = dataset.is_temporal
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>{_counts(values, asked, dataset)} Brackets hold 95 % bootstrap intervals. The baseline is the "
        "best constant answer: one stretch of the clip and one box, chosen with the truth in view.</p>",
        _figures(values),
        _by_type("By kind of sentence", "kind", values, {one.kind for one in asked}),
        _by_type("By form of sentence", "form", values, {one.form for one in asked}),
        _skipped(values),
        f"<h2>Clips</h2><p><i class=true>■ true</i> <i class=told>■ answered</i> <span class=quiet>boxes are drawn "
        f"inside their spans; ranked by {'tIoU' if by_span else 'vIoU'}.</span></p>",
        *(_group(name, group) for name, group in ranked(asked, by_span).items()),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang=en><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n{body}\n'
        "</body></html>\n"
    )


def ranked(asked: Sequence[Asked], by_span: bool) -> dict[str, list[Asked]]:
    """The best, median and worst answers, none in two groups."""

    def score(one: Asked) -> tuple[float, float]:
        overlap = span_iou(one.sample.true_span, one.sample.span)
        return (overlap, 0.0) if by_span else (tube_iou(one.sample), overlap)

    order = sorted((one for one in asked if one.sample is not None), key=score, reverse=True)
    best, rest = order[:SHOWN], order[SHOWN:]
    worst, rest = rest[-SHOWN:], rest[:-SHOWN]
    start = max((len(rest) - SHOWN) // 2, 0)
    groups = {"Best": best, "Median": rest[start : start + SHOWN], "Worst": worst[::-1]}
    return {name: group for name, group in groups.items() if group}


def _counts(values: Mapping[str, Any], asked: Sequence[Asked], dataset: Dataset) -> str:
    """How many sentences the figures are of."""
    if len(asked) == len(dataset.cases):
        return f"{values['samples']} sentences."
    left_out = f", {values['samples']} of them with an answer" if values["samples"] < len(asked) else ""
    return f"Limited to the first {len(asked)} of {len(dataset.cases)} questions{left_out}."


def _figures(values: Mapping[str, Any]) -> str:
    rows = [
        (name, _number(value), _interval(values["intervals"][name]), _number(values["baseline"][name]))
        for name, value in values["metrics"].items()
    ]
    about = ""
    if "control" in values:
        control = values["control"]
        about = (
            "<p class=quiet>A control run asks each clip about another object than its own question's: an answer has "
            "moved where its boxes overlap the newly named object more than the other one, and is judged where both "
            "are visible in the same frames.</p>"
        )
        name = f"answers that move to the newly named object ({control['judged']} judged)"
        rows.append((name, _number(control["moved"]), _interval(control["interval"]), "–"))
    return "<h2>Figures</h2>" + _table(("metric", "value", "interval", "baseline"), rows) + about


def _by_type(heading: str, column: str, values: Mapping[str, Any], labels: Set[str]) -> str:
    """The figures of some labels; empty where none of them has any."""
    names = list(values["metrics"])
    rows = [
        (kind, str(figures["samples"]), *(_number(figures[name]) for name in names))
        for kind, figures in values["by_type"].items()
        if kind in labels
    ]
    return f"<h2>{heading}</h2>" + _table((column, "sentences", *names), rows) if rows else ""


def _skipped(values: Mapping[str, Any]) -> str:
    if not values["skipped"]:
        return ""
    return "<h2>Left out</h2>" + _table(("reason", "records"), [(k, str(n)) for k, n in values["skipped"].items()])


def _group(name: str, group: Sequence[Asked]) -> str:
    return f"<h3>{name}</h3>" + "".join(_clip(asked) for asked in group)


def _clip(asked: Asked) -> str:
    sample, picture = asked.sample, strip(asked)
    told = f"{sample.span[0]:.1f} to {sample.span[1]:.1f} s" if sample.span else "no span"
    kind = f" <span class=quiet>{escape(asked.kind)}</span>" if asked.kind else ""
    caption = (
        f"<q>{escape(asked.sentence)}</q>{kind} <span class=quiet>tIoU</span> "
        f"{span_iou(sample.true_span, sample.span):.2f} <span class=quiet>vIoU</span> {tube_iou(sample):.2f}<br>"
        f"<i class=true>{sample.true_span[0]:.1f} to {sample.true_span[1]:.1f} s</i> <i class=told>{told}</i> "
        f"<span class=quiet>#{asked.index} answered: {escape(asked.text)}</span>"
    )
    if picture is None:
        return f"<figure><figcaption>{caption}<br>The video cannot be read any more.</figcaption></figure>"
    image = f'<img alt="frames of clip {asked.index}" src="{data_uri(picture)}">'
    return f"<figure><figcaption>{caption}</figcaption>{image}{_timeline(asked)}</figure>"


def _timeline(asked: Asked) -> str:
    """The two spans under the strip; first and last moment lie under the middles of its first and last frame."""
    sample = asked.sample
    length, columns = sample.times[-1], len(shown_rows(len(sample.times)))
    if length <= 0:
        return ""

    def across(time: float) -> float:
        return round(1000 * (float(np.clip(time / length, 0, 1)) * (columns - 1) + 0.5) / columns, 1)

    bars = []
    for top, colour, span in ((3, TRUE, sample.true_span), (12, TOLD, sample.span)):
        bars.append(f'<rect x=0 y={top} width=1000 height=6 fill="#ececef"/>')
        if span:
            start, end = sorted(across(time) for time in span)
            bars.append(f'<rect x={start} y={top} width={max(end - start, 3)} height=6 fill="{colour}"/>')
    marks = [
        f'<rect x={across(sample.times[row])} y=0 width=1 height=21 fill="#8e8e93"/>'
        for row in shown_rows(len(sample.times))
    ]
    return f'<svg viewBox="0 0 1000 21" role=img aria-label="spans">{"".join(bars + marks)}</svg>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=table><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(value: Sequence[float] | None) -> str:
    return "–" if value is None else f"[{value[0]:.3f}, {value[1]:.3f}]"
