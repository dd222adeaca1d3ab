"""The table and the picture show the document's figures."""

import numpy as np

from devil.runtime.profile import chart
from devil.runtime.profile.report import text


def test_the_table_has_every_figure_side_by_side(document):
    lines = text(document).splitlines()
    stages = next(line for line in lines if line.startswith("grounder"))
    assert stages.split() == ["grounder", "600.00", "ms", "60%", "300.00", "ms", "60%"]
    fast = next(line for line in lines if line.split()[:1] == ["fp16"] and "tokens/s" in line)
    assert fast.split() == ["fp16", "1.00", "ms", "1.50", "ms", "2.00", "ms", "1000", "tokens/s", "10", "2.00x"]
    assert lines[1].split()[-4:] == ["200", "MB", "3000", "MB"]


def test_layers_and_differences_follow_when_they_were_measured(document):
    layer = {"name": "node_1", "kind": "MatMul", "types": "float16", "seconds": 0.003}
    kinds = [{"kind": "MatMul", "layers": 1, "seconds": 0.003}, {"kind": "Cast", "layers": 9, "seconds": 0.001}]
    document["contenders"][0]["layers"] = {"vision": {"kinds": kinds, "layers": [layer]}}
    tensor = {
        "case": "decode",
        "tensor": "logits",
        "largest": 0.5,
        "mean": 0.1,
        "relative": 0.125,
        "cosine": 0.5,
        "slots": 1.0,
    }
    document["accuracy"] = [{"name": "fp16", "against": "fp32", "tensors": [tensor]}]
    lines = [line.split() for line in text(document).splitlines()]
    assert ["node_1", "MatMul", "float16", "3.00", "ms", "75%"] in lines
    assert ["decode.logits", "1.25e-01", "5.00e-01", "1.00e-01", "0.5000000"] in lines


def test_bars_are_as_long_as_the_times(document):
    """The slower contender's bar fills the width; a stage has its share of the pixels, of the faster one half."""
    pixels = np.asarray(chart.draw(document))

    def width(colour, row):
        rgb = tuple(int(colour[index : index + 2], 16) for index in (1, 3, 5))
        return int((pixels[row] == rgb).all(-1).sum())

    first = 32 + 40 + 22 + 30  # title, name, and below the digits in the bar
    full = chart.WIDTH - 2 * 32
    second = first + 34 + 14 + 22
    for index, share in enumerate((0.1, 0.3, 0.6)):
        colour = chart._COLOURS[index]
        assert abs(width(colour, first) - share * full) <= 2
        assert abs(width(colour, second) - share * full / 2) <= 2


def test_a_picture_of_one_contender_with_long_names_can_be_drawn(document):
    document["contenders"] = document["contenders"][:1]
    document["contenders"][0]["name"] = "a folder with a very long name, tensorrt-rtx"
    assert chart.draw(document).size[0] == chart.WIDTH
