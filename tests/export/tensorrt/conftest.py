"""The shipped model's bundles, traced once and written without the comparison with PyTorch, which other tests make."""

import shutil

import pytest

from devil.bundle import TOKENIZER, Bundle, FileRecord, Manifest, write_manifest
from devil.contract import GRAPHS


@pytest.fixture(scope="session")
def reference_builder():
    from devil.assets import reference_checkpoint
    from devil.export.graphs import GraphBuilder
    from devil.model.checkpoint import load_model

    return GraphBuilder(load_model(reference_checkpoint()))


@pytest.fixture(scope="session")
def written(reference_builder, tmp_path_factory):
    """Call with a precision for the bundle of the shipped model."""
    from devil.assets import reference_checkpoint
    from devil.export.plan import Plan
    from devil.export.write import write_graph

    made = {}

    def write(precision):
        if precision not in made:
            folder, plan, files = tmp_path_factory.mktemp("tiny") / precision, Plan.of(precision), {}
            folder.mkdir()
            for graph in GRAPHS:
                files |= write_graph(folder, graph, reference_builder, plan)
            shutil.copyfile(reference_checkpoint() / TOKENIZER, folder / TOKENIZER)
            files[TOKENIZER] = FileRecord.of(folder / TOKENIZER)
            manifest = Manifest("devil-tiny", precision, reference_builder.model.devil, files, **plan.manifest)
            write_manifest(folder, manifest)
            made[precision] = Bundle(folder, manifest)
        return made[precision]

    return write
