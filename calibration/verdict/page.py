"""The verdict as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from devil.calibration.layers import MEANINGS
from devil.calibration.verdict.asking import Replies
from devil.calibration.verdict.charts import GRAPH_COLOURS, Bar, bar_chart, worst_first
from devil.calibration.verdict.decision import Candidate, Verdict
from devil.calibration.verdict.figures import Figure, box_agreement
from devil.calibration.verdict.scatter import Point, scatter
from devil.contract import GRAPHS
from devil.evaluation.samples import Asked
from devil.evaluation.strips import TRUE, data_uri, strip
from devil.metrics import tube_iou

BARS = 40  # layers shown, the worst ones
CLIPS = 4  # of each kind

_STYLE = f"""
body {{ font: 15px/1.45 system-ui, sans-serif; color: #1c1c1e; background: #fff; max-width: 88rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; }}
.quiet {{ color: #6b6b70; }} .small {{ font-size: .8rem; }} .good {{ color: #1d7a35; }} .bad {{ color: #b3261e; }}
.verdict {{ font-size: 1.1rem; margin: .8rem 0; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-size: .87rem; }}
th, td {{ padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e3e6; white-space: nowrap;
  font-variant-numeric: tabular-nums; }}
td {{ vertical-align: top; }} th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
figure {{ margin: 0 0 1.6rem; }} figure img, svg {{ display: block; max-width: 100%; height: auto; }}
figcaption {{ margin-bottom: .3rem; }} q {{ font-weight: 600; }}
i {{ font-style: normal; }} .true {{ color: {TRUE}; }} .told {{ color: #b96d00; }}
"""


def verdict_page(
    title: str, verdict: Verdict, layers: Sequence[Bar], unit: str, before: Replies, after: Replies
) -> str:
    """The page as HTML.

    Args:
        title: what was calibrated to what.
        verdict: what was decided.
        layers: error of every layer that was looked at, in any order; may be empty.
        unit: of these errors, in words.
        before, after: answers of the original and of the result, for the pictures.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        _judgement(verdict),
        "<h2>Candidates</h2>" + _candidates(verdict),
        "<h2>Milliseconds per graph</h2><p class=quiet>Of one clip's recorded runs, processor time, on this machine."
        "</p>" + _latencies(verdict),
        "<h2>Accuracy against speed</h2>" + _scatter(verdict),
        _layers(layers, unit),
        _pictures(before, after),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang=en><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n{body}\n'
        "</body></html>\n"
    )


def _judgement(verdict: Verdict) -> str:
    limits = ", ".join(verdict.budget.words()) or "none"
    about = f"<p class=quiet>Budget against {escape(verdict.original)}: {escape(limits)}. Brackets hold 95 % "
    about += "bootstrap intervals over the questions.</p>"
    if verdict.passed:
        return f"<p class=verdict><b class=good>Kept.</b> {escape(verdict.result)} is within its budget.</p>{about}"
    word = "Accepted by the user against the verdict" if verdict.accepted else "Refused"
    return (
        f"<p class=verdict><b class=bad>{word}.</b> {escape('; '.join(verdict.complaints))}. "
        f"The best that is not refused: <b>{escape(verdict.alternative or verdict.original)}</b>.</p>{about}"
    )


def _candidates(verdict: Verdict) -> str:
    head = ("", "MB", "ms per clip", "m_tIoU", "m_vIoU", "change, points", "same text", "RST cosine", "box IoU")
    rows = []
    for candidate in verdict.candidates.values():
        agreements, is_original = candidate.agreements, candidate.name == verdict.original
        rows.append(
            (
                candidate.name,
                f"{candidate.bytes / 1e6:.1f}",
                f"{1000 * candidate.latency.total:.0f}",
                _figure(candidate.scores["m_tIoU"]),
                _figure(candidate.scores["m_vIoU"]),
                *(
                    ("–",) * 4
                    if is_original
                    else (
                        _figure(candidate.changes["m_vIoU"], 2, 100, sign=True),
                        _figure(agreements["same_text"]),
                        _figure(agreements["rst_cosine"], 4),
                        _figure(agreements["box_iou"]),
                    )
                ),
            )
        )
    return _table(head, rows)


def _latencies(verdict: Verdict) -> str:
    rows = [
        (candidate.name, *(_milliseconds(candidate, graph, verdict) for graph in GRAPHS))
        for candidate in verdict.candidates.values()
    ]
    return _table(("", *GRAPHS), rows)


def _milliseconds(candidate: Candidate, graph: str, verdict: Verdict) -> str:
    seconds, before = candidate.latency.graphs[graph], verdict.candidates[verdict.original].latency.graphs[graph]
    ratio = f" ({before / seconds:.2f}×)" if candidate.name != verdict.original and seconds > 0 else ""
    return f"{1000 * seconds:.1f}{ratio}"


def _scatter(verdict: Verdict) -> str:
    points = [
        Point(
            one.name, 1000 * one.latency.total, *(100 * figure for figure in (change.value, change.low, change.high)),
            one.name == verdict.result,
        )
        for one in verdict.candidates.values()
        if (change := one.changes["m_vIoU"]).value is not None
    ]  # fmt: skip
    limit = verdict.budget.viou
    return (
        scatter(points, "milliseconds per clip", "change of m_vIoU, points", None if limit is None else -limit)
        if points
        else ""
    )


def _layers(layers: Sequence[Bar], unit: str) -> str:
    if not layers:
        return ""
    worst = worst_first(layers)
    more = f" The {BARS} worst of {len(layers)}." if len(layers) > BARS else ""
    legend = " ".join(f'<i style="color:{colour}">■ {graph}</i>' for graph, colour in GRAPH_COLOURS.items())
    words = f"{escape(unit)}.{more} Hollow: kept in higher precision."
    about = f"<h2>Error per layer</h2><p>{legend} <span class=quiet>{words}</span></p>"
    return about + bar_chart(worst[:BARS], unit) + _roles(worst[:BARS])


def _roles(layers: Sequence[Bar]) -> str:
    """What the words mean that layers are labelled with; those of the language model have names of their own."""
    told = [f"<b>{role}</b> {escape(words)}" for role, words in MEANINGS.items()
            if any(layer.label.startswith(f"{role} ") for layer in layers)]  # fmt: skip
    if not told:
        return ""
    label = (
        "A label says what the layer is for, how many inputs it makes how many outputs of, and its node in the graph."
    )
    return f"<p class=quiet>{label} {'; '.join(told)}.</p>"


def _pictures(before: Replies, after: Replies) -> str:
    """Clips whose boxes moved most, and clips in between, as both answered them."""
    now = {asked.index: asked for asked in after.asked}
    pairs = [(asked, now[asked.index]) for asked in before.asked if asked.index in now]
    scored = [(overlap, *pair) for pair in pairs if not np.isnan(overlap := box_agreement(pair[1], pair[0]))]
    scored.sort(key=lambda entry: (entry[0], entry[1].index))
    start = max((len(scored) - CLIPS) // 2, CLIPS)
    groups = {"The answers that moved most": scored[:CLIPS], "In between": scored[start : start + CLIPS]}
    legend = "<p><i class=true>■ true</i> <i class=told>■ answered</i></p>"
    shown = "".join(
        f"<h3>{name}</h3>" + "".join(_both(overlap, old, new) for overlap, old, new in group)
        for name, group in groups.items()
        if group
    )
    return f"<h2>Before and after</h2>{legend}{shown}" if shown else ""


def _both(overlap: float, old: Asked, new: Asked) -> str:
    caption = (
        f"<q>{escape(old.sentence)}</q> <span class=quiet>boxes of before and after overlap by</span> {overlap:.2f}"
    )
    rows = []
    for name, asked in (("before", old), ("after", new)):
        picture = strip(asked)
        words = f"{name}: vIoU {tube_iou(asked.sample):.2f}, “{asked.text}”"
        image = f'<img alt="{name}" src="{data_uri(picture)}">' if picture else "the video cannot be read any more"
        rows.append(f"<div class=quiet>{escape(words)}</div>{image}")
    return f"<figure><figcaption>{caption}</figcaption>{''.join(rows)}</figure>"


def _figure(figure: Figure, digits: int = 3, times: float = 1, sign: bool = False) -> str:
    """The value, and on a line of its own the interval."""
    if figure.value is None:
        return "–"
    mark = "+" if sign else ""
    numbers = (times * number for number in (figure.value, figure.low, figure.high))
    value, low, high = (format(number, f"{mark}.{digits}f") for number in numbers)
    return f"{value}\n[{low}, {high}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def _cell(words: str) -> str:
    """Its first line, and further ones small below it."""
    first, *more = words.split("\n")
    return escape(first) + "".join(f'<div class="quiet small">{escape(line)}</div>' for line in more)
