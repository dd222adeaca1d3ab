"""Swin transformer (arXiv 2103.14030) for frames of any size, in the key names of the published detector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devil.config import SwinConfig
from devil.model.detector.attention import Softmax
from devil.model.detector.windows import WindowLayout, map_size, neighbours, window_layout


class PatchEmbed(nn.Module):
    def __init__(self, config: SwinConfig):
        super().__init__()
        self.patch = config.patch
        self.proj = nn.Conv2d(3, config.embed, config.patch, config.patch)
        self.norm = nn.LayerNorm(config.embed)

    def forward(self, image: Tensor) -> Tensor:
        """[N, L, C] from an image [N, 3, H, W], padded with zeros at the right and bottom."""
        frame = (image.shape[2], image.shape[3])
        height, width = map_size(frame, self.patch)
        padded = F.pad(image, (0, width * self.patch - frame[1], 0, height * self.patch - frame[0]))
        return self.norm(self.proj(padded).flatten(2).transpose(1, 2))


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias per relative position."""

    def __init__(self, hidden: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.window = window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)
        self.softmax = Softmax()

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """[N, L, C] from x of that shape."""
        count, _, hidden = x.shape
        windows, tokens = layout.order.shape
        padded = F.pad(x, (0, 0, 0, 1))  # the zeros that slots beyond the map read
        qkv = self.qkv(padded.index_select(1, layout.order.flatten()))
        qkv = qkv.view(count, windows, tokens, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)  # [N, windows, heads, T, C/heads]
        scores = (q * (hidden // self.heads) ** -0.5) @ k.transpose(-1, -2) + self._bias()
        if layout.mask is not None:
            scores = scores + layout.mask
        mixed = (self.softmax(scores).to(v.dtype) @ v).transpose(2, 3).reshape(count, windows * tokens, hidden)
        return self.proj(mixed.index_select(1, layout.place))

    def _bias(self) -> Tensor:
        """[heads, T, T]: the table's row for each pair's (row, column) difference."""
        side = torch.arange(self.window, device=self.relative_position_bias_table.device)
        apart = side[:, None] - side[None, :] + self.window - 1  # [window, window]
        index = apart[:, None, :, None] * (2 * self.window - 1) + apart[None, :, None, :]
        tokens = self.window**2
        return self.relative_position_bias_table[index.reshape(-1)].view(tokens, tokens, self.heads).permute(2, 0, 1)


class Mlp(nn.Module):
    def __init__(self, hidden: int, inner: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden, inner)
        self.fc2 = nn.Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    def __init__(self, hidden: int, heads: int, window: int, mlp_ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden)
        self.attn = WindowAttention(hidden, heads, window)
        self.norm2 = nn.LayerNorm(hidden)
        self.mlp = Mlp(hidden, mlp_ratio * hidden)

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """[N, L, C] from x of that shape."""
        x = x + self.attn(self.norm1(x), layout)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Halves the map: four neighbours become one token of twice the channels."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * hidden)
        self.reduction = nn.Linear(4 * hidden, 2 * hidden, bias=False)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """[N, L/4, 2·C] from x [N, L, C] and the flat positions [L/4, 4] to merge."""
        gathered = F.pad(x, (0, 0, 0, 1)).index_select(1, neighbours.flatten())
        return self.reduction(self.norm(gathered.view(x.shape[0], neighbours.shape[0], 4 * x.shape[2])))


class SwinStage(nn.Module):
    """Blocks that alternate between plain and shifted windows."""

    def __init__(self, config: SwinConfig, stage: int):
        super().__init__()
        hidden, last = config.embed * 2**stage, stage == len(config.depths) - 1
        self.window = config.window
        self.stride = config.patch * 2**stage
        self.blocks = nn.ModuleList(
            SwinBlock(hidden, config.heads[stage], config.window, config.mlp_ratio) for _ in range(config.depths[stage])
        )
        self.downsample = None if last else PatchMerging(hidden)

    def forward(self, x: Tensor, frame: tuple[int, int]) -> Tensor:
        """[N, L, C] from x of that shape, before any downsampling; frame is (H, W) in pixels."""
        shifts = (0, self.window // 2)[: len(self.blocks)]
        layouts = [window_layout(frame, self.stride, self.window, shift, x) for shift in shifts]
        for index, block in enumerate(self.blocks):
            x = block(x, layouts[index % 2])
        return x


class Swin(nn.Module):
    """Backbone that returns its last three stages, each LayerNormed."""

    def __init__(self, config: SwinConfig):
        super().__init__()
        self.patch_embed = PatchEmbed(config)
        self.layers = nn.ModuleList(SwinStage(config, stage) for stage in range(len(config.depths)))
        self.first_output = len(config.depths) - len(config.channels)
        for stage, channels in enumerate(config.channels, self.first_output):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps [N, C_i, H_i, W_i] of strides 8, 16 and 32 from a normalised image [N, 3, H, W]."""
        maps = []
        frame = (image.shape[2], image.shape[3])
        x = self.patch_embed(image)
        for stage, layer in enumerate(self.layers):
            x = layer(x, frame)
            if stage >= self.first_output:
                normed = self.get_submodule(f"norm{stage}")(x)
                maps.append(normed.unflatten(1, map_size(frame, layer.stride)).permute(0, 3, 1, 2))
            if layer.downsample is not None:
                x = layer.downsample(x, neighbours(frame, layer.stride, x))
        return maps


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
