"""A profile as text: the same figures as its JSON document, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TOP_LAYERS = 10
TOP_KINDS = 8

Values = Mapping[str, Any]


def text(document: Values) -> str:
    """The whole report; lines are not wrapped."""
    contenders = document["contenders"]
    sections = [
        _contenders(contenders),
        _stages(contenders),
        _graphs(contenders),
        *(_layers(contender) for contender in contenders if "layers" in contender),
        *(_accuracy(compared) for compared in document["accuracy"] or ()),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _contenders(contenders: Sequence[Values]) -> list[str]:
    rows = [
        (
            values["name"],
            values["engine"],
            f"{values['open_seconds']:.2f} s",
            _megabytes(values["weight_bytes"]),
            _megabytes(values["memory"]["loaded"]),
            _megabytes(values["memory"]["peak"]),
            _megabytes(values["memory"]["gpu"]),
        )
        for values in contenders
    ]
    return _table(("contender", "engine", "opened in", "weights", "loaded", "peak memory", "GPU in use"), rows)


def _stages(contenders: Sequence[Values]) -> list[str]:
    """Medians side by side; every stage also as its share of the whole."""
    names = list(dict.fromkeys(stage for values in contenders for stage in values["stages"]))
    rows = []
    for name in names:
        cells = [name]
        for values in contenders:
            found, total = values["stages"].get(name), values["stages"]["total"]["p50"]
            cells.append(f"{_seconds(found['p50'])} {found['p50'] / total:4.0%}" if found else "")
        rows.append(cells)
    return _table(("stage, p50", *(values["name"] for values in contenders)), rows)


def _graphs(contenders: Sequence[Values]) -> list[str]:
    rows = []
    for case in contenders[0]["graphs"]:
        first = contenders[0]["graphs"][case]["p50"]
        for values in contenders:
            found = values["graphs"][case]
            rows.append(
                (
                    case if values is contenders[0] else "",
                    values["name"],
                    *(_seconds(found[name]) for name in ("p50", "p90", "p99")),
                    f"{found['per_second']:.4g} {found['unit']}/s",
                    str(found["count"]),
                    "" if values is contenders[0] else f"{first / found['p50']:.2f}x",
                )
            )
    return _table(("graph", "contender", "p50", "p90", "p99", "throughput", "runs", "speed"), rows)


def _layers(contender: Values) -> list[str]:
    lines = []
    if not contender["layers"]:
        return [f"{contender['name']}: {contender['engine']} does not tell the time of its layers"]
    for case, found in contender["layers"].items():
        total = sum(kind["seconds"] for kind in found["kinds"]) or 1.0
        kinds = [
            (row["kind"], str(row["layers"]), _seconds(row["seconds"]), f"{row['seconds'] / total:4.0%}")
            for row in found["kinds"][:TOP_KINDS]
        ]
        layers = [
            (row["name"], row["kind"], row["types"], _seconds(row["seconds"]), f"{row['seconds'] / total:4.0%}")
            for row in found["layers"][:TOP_LAYERS]
        ]
        lines += [*_table((f"{contender['name']}, {case}: kind", "layers", "time", "share"), kinds), ""]
        lines += [*_table(("slowest layers", "kind", "type", "time", "share"), layers), ""]
    return lines[:-1]


def _accuracy(compared: Values) -> list[str]:
    rows = [
        (
            f"{tensor['case']}.{tensor['tensor']}",
            f"{tensor['relative']:.2e}",
            f"{tensor['largest']:.2e}",
            f"{tensor['mean']:.2e}",
            f"{tensor['cosine']:.7f}",
            f"{tensor['slots']:.0%}" if tensor["slots"] < 1 or tensor["case"] == "grounder" else "",
        )
        for tensor in compared["tensors"]
    ]
    head = f"{compared['name']} against {compared['against']}"
    return _table((head, "max error/max", "max error", "mean error", "cosine", "same boxes"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def lines() -> Iterator[str]:
        for row in (head, *rows):
            yield "  ".join(
                cell.ljust(width) if column == 0 or not cell[:1].isdigit() else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

    return list(lines())


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f} MB"
