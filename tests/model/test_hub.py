"""Model folders by name: paths as they are, Hub ids through huggingface_hub, and one line where neither works."""

from pathlib import Path

import huggingface_hub
import pytest

from devil.errors import CheckpointError
from devil.evaluation.answerers import ModelAnswerer
from devil.model import hub as hub_module
from devil.model.checkpoint import load_model
from devil.model.hub import local_folder
from tests.tiny import tiny_checkpoint


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the Hub: what it was asked for, and what it answers."""
    asked, answer = [], {}

    def snapshot_download(repo_id, allow_patterns, ignore_patterns):
        asked.append((repo_id, allow_patterns, ignore_patterns))
        if isinstance(answer["is"], Exception):
            raise answer["is"]
        return str(answer["is"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    hub_module._fetched.cache_clear()
    yield asked, answer
    hub_module._fetched.cache_clear()


def test_a_folder_is_itself_even_where_its_name_looks_like_an_id(tmp_path, monkeypatch, hub):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert local_folder("org/name").samefile(tmp_path / "org" / "name")
    assert hub[0] == []


def test_a_path_that_was_mistyped_is_not_looked_up(tmp_path, monkeypatch, hub):
    (tmp_path / "stage1").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="stage1/best is not a folder"):
        local_folder("stage1/best")
    assert hub[0] == []


def test_an_id_of_the_hub_is_fetched_without_code(tmp_path, hub):
    asked, answer = hub
    answer["is"] = tiny_checkpoint(tmp_path)
    assert load_model("org/devil-7b").devil.frames == 8
    (repo, wanted, _), *_ = asked
    assert repo == "org/devil-7b"
    assert not any(pattern.endswith((".py", "*")) for pattern in wanted)


@pytest.mark.parametrize(
    ("there", "pickles"),
    [
        (["config.json", "model.safetensors"], None),
        (["config.json"], ["*.bin", "*.pth"]),
        (["adapter_config.json", "adapter_model.safetensors"], ["non_lora_trainables.bin"]),
        (["adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.safetensors"], None),
    ],
)
def test_pickles_are_fetched_only_for_weights_that_lie_in_no_safetensors(tmp_path, hub, there, pickles):
    asked, answer = hub
    for name in there:
        (tmp_path / name).touch()
    answer["is"] = tmp_path
    assert local_folder("org/name") == local_folder("org/name") == tmp_path
    assert [wanted for _, wanted, _ in asked] == [["*.json", "*.safetensors"], *([pickles] if pickles else [])]


def test_an_id_of_the_hub_can_be_evaluated_under_its_name(tmp_path, hub):
    hub[1]["is"] = tiny_checkpoint(tmp_path)
    assert ModelAnswerer(Path("org/devil-7b")).identity["model"] == "devil-7b"


def test_offline_one_line_says_how_to_place_the_files(hub):
    hub[1]["is"] = huggingface_hub.errors.LocalEntryNotFoundError("no connection")
    with pytest.raises(CheckpointError, match=r"hf download org/devil-7b --local-dir DIR\), copy DIR here and name it"):
        local_folder("org/devil-7b")


@pytest.mark.parametrize("name", ["nothing-here", "./no/folder", "/no/folder", "a/b/c", "org/na me"])
def test_what_cannot_be_an_id_is_not_asked_for(name, hub):
    with pytest.raises(CheckpointError, match="is not a folder"):
        local_folder(name)
    assert hub[0] == []
