"""One clip."""

import pytest

from devil.data.clips import picture_size
from devil.data.scene import make_scene
from devil.data.writer import write_scene


@pytest.fixture(scope="session")
def clip_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    scene = make_scene(5, "heldout")
    write_scene(path, scene, picture_size(scene, 90))
    return path
