"""Writing a bundle of the tiny model."""

from devil.export.bundle import write_bundle


def write(graphs, checkpoint, folder, plan):
    write_bundle(graphs, plan, checkpoint / "tokenizer.json", "tiny", folder)
    return folder
