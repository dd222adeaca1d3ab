"""Precisions that a GPU does not compute in: refused where engines were asked for, gone without where nobody did."""

from dataclasses import replace

import pytest

from devil.bundle import FileRecord, Manifest
from devil.config import PRESETS
from devil.contract import GRAPHS
from devil.errors import EngineError
from devil.export import cli
from devil.export.beforehand import check_gpus
from devil.export.options import ExportOptions
from devil.export.tensorrt import build as built
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.target import NoEngines, Target

FILES = {name: FileRecord(1, "0" * 64) for name in (*(f"{graph}.onnx" for graph in GRAPHS), "tokenizer.json")}
MANIFEST = Manifest("tiny", "int4", PRESETS["tiny"], FILES, graph_precisions=dict.fromkeys(GRAPHS, "fp16"))


def test_integers_of_the_language_model_keep_nobody_from_engines_of_the_other_graphs():
    check_gpus(ExportOptions(precision="int4", engines=EngineOptions(graphs=("vision", "grounder"))), ["sm75"])
    with pytest.raises(EngineError, match="sm75 has no 4-bit weights"):
        check_gpus(ExportOptions(precision="int4", engines=EngineOptions(graphs=("language",))), ["sm75"])
    with pytest.raises(EngineError, match="sm75 has no bf16"):
        check_gpus(ExportOptions(precision="bf16", engines=EngineOptions(graphs=("vision",))), ["sm89", "sm75"])


@pytest.mark.parametrize("gpu", ["sm75", "sm80", "sm86"])
@pytest.mark.parametrize("head_bits", [None, 4, 8, 16])
@pytest.mark.parametrize("embedding_bits", [None, 4])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_the_builder_would_refuse_is_refused_before_the_export(precision, embedding_bits, head_bits, gpu):
    options = ExportOptions(precision=precision, head_bits=head_bits, embedding_bits=embedding_bits)
    written = replace(MANIFEST, precision=precision, quantisation={"language": options.scheme.record("search")})
    if (options.scheme.bits, options.scheme.head_bits) == (8, 4) and gpu != "sm86":
        with pytest.raises(EngineError, match=f"{gpu} has no 4-bit weights, which --head-bits 4 .*: use --head-bits 8"):
            check_gpus(options, [gpu])
    assert _refused(check_gpus, options, [gpu]) == _refused(built.check_gpus, written, options.engines, [gpu])


def _refused(check, *arguments):
    try:
        check(*arguments)
    except EngineError:
        return True
    return False


def test_an_export_goes_without_engines_that_nobody_asked_for(monkeypatch):
    monkeypatch.setattr(cli, "choose", lambda _: Target("tensorrt", "10.16.2", ("sm75",)))
    found = cli._target(ExportOptions(precision="bf16"))
    assert isinstance(found, NoEngines)
    assert "sm75 has no bf16" in found.reason
    with pytest.raises(EngineError, match="sm75 has no bf16"):
        cli._target(ExportOptions(precision="bf16", engines=EngineOptions(backend="tensorrt")))
    assert isinstance(cli._target(ExportOptions(precision="fp16")), Target)
