"""Lets tests import the helpers beside them (`from tests.… import …`) from anywhere; exports one model once."""

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.append(ROOT)  # behind everything else: ./devil must not shadow an installed package


@pytest.fixture(scope="session")
def builder():
    """The graphs of the small random model. Tracing is what takes long; lowering, writing and other words do not."""
    from devil.export.graphs import GraphBuilder
    from tests.tiny import tiny_model

    return GraphBuilder(tiny_model())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of the model that always says the same."""
    from tests.scripted import scripted_checkpoint

    return scripted_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def bundle(checkpoint, builder, tmp_path_factory):
    """Its fp32 bundle."""
    from devil.export.bundle import write_bundle
    from devil.export.graphs import GraphBuilder
    from devil.model.checkpoint import TOKENIZER, load_model

    folder = tmp_path_factory.mktemp("bundles") / "fp32"
    graphs = GraphBuilder(load_model(checkpoint))
    graphs._traced = builder._traced  # only the words differ from the model that is traced already
    write_bundle(graphs, "fp32", checkpoint / TOKENIZER, "scripted", folder, lambda _: None)
    return folder
