"""Lets tests import the helpers beside them (`from tests.… import …`) from anywhere; exports one model once."""

import signal
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.append(ROOT)  # behind everything else: ./devil must not shadow an installed package

# Tests interrupt what they run; a runner that was started in the background has SIGINT ignored, also in its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def builder():
    """The graphs of the small random model. Tracing is what takes long; lowering and writing do not."""
    from devil.export.graphs import GraphBuilder
    from tests.tiny import tiny_model

    return GraphBuilder(tiny_model())


@pytest.fixture(scope="session")
def scripted(builder, tmp_path_factory):
    """Call with an answer (and an RST position) for the (checkpoint, fp32 bundle) of a model that gives it."""
    from devil.export.bundle import write_bundle
    from devil.export.plan import Plan
    from devil.model.checkpoint import TOKENIZER, load_model
    from tests.scripted import ANSWER, scripted_checkpoint
    from tests.tiny import traced_alike

    def make(answer=ANSWER, rst_position="predict"):
        folder = tmp_path_factory.mktemp("scripted")
        checkpoint = scripted_checkpoint(folder, answer, rst_position)
        graphs = traced_alike(builder, load_model(checkpoint))
        write_bundle(graphs, Plan.of("fp32"), checkpoint / TOKENIZER, "scripted", folder / "bundle")
        return checkpoint, folder / "bundle"

    return make


@pytest.fixture(scope="session")
def answering(scripted):
    """(checkpoint, bundle) of the model that always gives `tests.scripted.ANSWER`."""
    return scripted()


@pytest.fixture(scope="session")
def checkpoint(answering):
    return answering[0]


@pytest.fixture(scope="session")
def bundle(answering):
    return answering[1]
