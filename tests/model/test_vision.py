"""The batched vision tower against transformers' own ragged forward."""

import pytest
import torch

from devil.config import VisionConfig
from devil.model.vision import VisionTower


@pytest.mark.parametrize(("frames", "rows", "columns"), [(1, 2, 2), (3, 4, 6), (2, 10, 2)])
def test_vision_tower_equals_transformers_forward(frames, rows, columns):
    torch.manual_seed(0)
    config = VisionConfig(hidden=64, layers=2, heads=4, mlp=96, mean=(0.4, 0.5, 0.6), std=(0.3, 0.5, 0.7))
    tower = VisionTower(config).eval()
    patches = torch.randint(0, 256, (frames, rows * columns, 588), dtype=torch.uint8)
    blocks = torch.cartesian_prod(*(torch.arange(n) for n in (rows // 2, columns // 2, 2, 2)))
    positions = torch.stack([blocks[:, 0] * 2 + blocks[:, 2], blocks[:, 1] * 2 + blocks[:, 3]], 1)

    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    pixels = (patches.view(-1, 3, 14, 14) / 255 - mean) / std
    grid = torch.tensor([[1, rows, columns]] * frames)
    with torch.no_grad():
        expected = tower.vision_encoder(pixels.flatten(1), grid, torch.tensor([2] * frames)).last_hidden_state
        found = tower(patches, positions)

    assert found.shape == (frames, rows * columns // 4, 64)
    torch.testing.assert_close(found.flatten(0, 1), expected, atol=2e-6, rtol=1e-5)
