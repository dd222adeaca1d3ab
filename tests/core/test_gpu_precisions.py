"""GPUs that cannot compute a precision are told before the work."""

import pytest

from devil.bundle import FileRecord, Manifest
from devil.config import PRESETS
from devil.contract import GRAPHS
from devil.errors import EngineError
from devil.gpu_precisions import EXPORTED, check_gpu, check_graph

QUANTISATION = {
    "backbone": {"forms": {"int8": 27}, "weights": "symmetric, one scale per output"},
    "grounder": {"forms": {"fp8": 3, "int8": 30}, "weights": "symmetric, one scale per output"},
    "language": {"weights": {"bits": 4, "block": 64, "head_bits": 8}},
    "accepted": ["slower"],
}
FILES = {name: FileRecord(1, "0" * 64) for name in (*(f"{graph}.onnx" for graph in GRAPHS), "tokenizer.json")}
MANIFEST = Manifest(
    "tiny", "mixed", PRESETS["tiny"], FILES, quantisation=QUANTISATION, graph_precisions=dict.fromkeys(GRAPHS, "fp16")
)
BF16 = Manifest("tiny", "bf16", PRESETS["tiny"], FILES)


@pytest.mark.parametrize(
    ("precision", "gpu", "mend"),
    [("fp8", "sm86", "int8 or int4"), ("int4", "sm75", "int8"), ("int8", "sm70", "fp16"), ("mixed", "sm80", "int8")],
)
def test_a_gpu_that_does_not_compute_the_precision_is_refused(precision, gpu, mend):
    with pytest.raises(EngineError, match=mend):
        check_gpu(precision, gpu)


@pytest.mark.parametrize(
    ("precision", "gpu"), [("fp8", "sm89"), ("int8", "sm87"), ("int4", "sm120"), ("mixed", "sm86")]
)
def test_gpus_that_do_are_let_through(precision, gpu):
    check_gpu(precision, gpu)


def test_no_compute_capability_is_refused():
    with pytest.raises(EngineError, match="compute capability"):
        check_gpu("int8", "ampere")


@pytest.mark.parametrize(("graph", "least"), [("backbone", 75), ("grounder", 89), ("language", 86), ("vision", 0)])
def test_what_a_graph_needs_is_read_from_the_manifest(graph, least):
    for gpu in (70, 75, 80, 86, 89, 120):
        if gpu >= least:
            check_graph(graph, MANIFEST, f"sm{gpu}")
        else:
            with pytest.raises(EngineError, match=f"graph {graph} needs"):
                check_graph(graph, MANIFEST, f"sm{gpu}")


@pytest.mark.parametrize("graph", GRAPHS)
def test_bf16_needs_ampere(graph):
    check_graph(graph, BF16, "sm80")
    with pytest.raises(EngineError, match=r"sm75 has no bf16 .*sm80 and up\): devil-export --precision fp16"):
        check_graph(graph, BF16, "sm75")


@pytest.mark.parametrize(
    ("precision", "gpu", "mend"), [("bf16", "sm75", "fp16 or int8"), ("int4", "sm80", "fp16 or int8")]
)
def test_an_export_names_what_it_can_be_instead(precision, gpu, mend):
    with pytest.raises(EngineError, match=f"use --precision {mend}$"):
        check_gpu(precision, gpu, EXPORTED)
    check_gpu("fp32", gpu, EXPORTED)
