"""What tests of training share."""

import pytest

from devil.prompt import PromptWriter
from tests.tiny import tiny_config, tiny_tokenizer


@pytest.fixture(scope="session")
def writer(tmp_path_factory):
    """Writes prompts for the tiny model of tests."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny_tokenizer().save(str(path))
    return PromptWriter(path, tiny_config())
