"""Precisions that a GPU does not compute in: refused where engines were asked for, gone without where nobody did."""

import pytest

from devil.errors import EngineError
from devil.export import cli
from devil.export.beforehand import check_gpus
from devil.export.options import ExportOptions
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.target import NoEngines, Target


def test_integers_of_the_language_model_keep_nobody_from_engines_of_the_other_graphs():
    check_gpus(ExportOptions(precision="int4", engines=EngineOptions(graphs=("vision", "grounder"))), ["sm75"])
    with pytest.raises(EngineError, match="sm75 has no 4-bit weights"):
        check_gpus(ExportOptions(precision="int4", engines=EngineOptions(graphs=("language",))), ["sm75"])
    with pytest.raises(EngineError, match="sm75 has no bf16"):
        check_gpus(ExportOptions(precision="bf16", engines=EngineOptions(graphs=("vision",))), ["sm89", "sm75"])


def test_an_export_goes_without_engines_that_nobody_asked_for(monkeypatch):
    monkeypatch.setattr(cli, "choose", lambda _: Target("tensorrt", "10.16.2", ("sm75",)))
    found = cli._target(ExportOptions(precision="bf16"))
    assert isinstance(found, NoEngines)
    assert "sm75 has no bf16" in found.reason
    with pytest.raises(EngineError, match="sm75 has no bf16"):
        cli._target(ExportOptions(precision="bf16", engines=EngineOptions(backend="tensorrt")))
    assert isinstance(cli._target(ExportOptions(precision="fp16")), Target)
