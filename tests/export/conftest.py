"""The tiny model's bundles, written once for all export tests."""

import pytest

from devil.contract import PRECISIONS
from devil.export.bundle import write_bundle
from devil.export.opening import open_builder
from devil.export.options import ExportOptions
from devil.export.plan import Plan
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def bundles(builder, checkpoint, tmp_path_factory):
    """Folder of the exported bundle of each precision."""
    folder = tmp_path_factory.mktemp("bundles")
    for precision in PRECISIONS:
        write_bundle(builder, Plan.of(precision), checkpoint / "tokenizer.json", "tiny", folder / precision)
    return {precision: folder / precision for precision in PRECISIONS}


@pytest.fixture
def opened(builder, checkpoint, tmp_path):
    """Call with options for a builder of the checkpoint that need not trace."""

    def make(folder=checkpoint, **options):
        graphs = open_builder(ExportOptions(model=folder, output=tmp_path / "bundle", **options))
        graphs._traced = builder._traced
        return graphs

    return make
