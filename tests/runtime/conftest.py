"""Bundles of a model that says what a test wants, and one clip."""

import pytest

from devil.data.clips import picture_size
from devil.data.scene import make_scene
from devil.data.writer import write_scene
from devil.export.bundle import write_bundle
from devil.export.graphs import GraphBuilder
from devil.model.checkpoint import TOKENIZER, load_model
from tests.scripted import ANSWER, scripted_checkpoint


@pytest.fixture(scope="session")
def scripted(builder, tmp_path_factory):
    """Call with an answer (and an RST position) for the (checkpoint, fp32 bundle) of a model that gives it."""

    def make(answer=ANSWER, rst_position="predict"):
        folder = tmp_path_factory.mktemp("scripted")
        checkpoint = scripted_checkpoint(folder, answer, rst_position)
        graphs = GraphBuilder(load_model(checkpoint))
        graphs._traced = builder._traced  # only the words differ from the model that is traced already
        write_bundle(graphs, "fp32", checkpoint / TOKENIZER, "scripted", folder / "bundle", lambda _: None)
        return checkpoint, folder / "bundle"

    return make


@pytest.fixture(scope="session")
def answering(scripted):
    """(checkpoint, bundle) of the model that gives `tests.scripted.ANSWER`."""
    return scripted()


@pytest.fixture(scope="session")
def checkpoint(answering):
    return answering[0]


@pytest.fixture(scope="session")
def bundle(answering):
    return answering[1]


@pytest.fixture(scope="session")
def clip_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    scene = make_scene(5, "heldout")
    write_scene(path, scene, picture_size(scene, 90))
    return path
