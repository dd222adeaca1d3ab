"""Swin transformer (arXiv 2103.14030) for frames of any size, in the key names of the published detector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devil.config import SwinConfig
from devil.model.detector.attention import Softmax

OTHER_REGION = -100.0  # added to the score of tokens that only the cyclic shift made neighbours


class PatchEmbed(nn.Module):
    def __init__(self, config: SwinConfig):
        super().__init__()
        self.patch = config.patch
        self.proj = nn.Conv2d(3, config.embed, config.patch, config.patch)
        self.norm = nn.LayerNorm(config.embed)

    def forward(self, image: Tensor) -> Tensor:
        """[N, H/4, W/4, C] from an image [N, 3, H, W], padded with zeros at the right and bottom."""
        height, width = image.shape[2:]
        padded = F.pad(image, (0, _lacking(width, self.patch), 0, _lacking(height, self.patch)))
        return self.norm(self.proj(padded).permute(0, 2, 3, 1))


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

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """[N, windows, T, C] from tokens of that shape; mask [windows, 1, T, T] is added to the scores."""
        count, number, tokens, hidden = windows.shape
        qkv = self.qkv(windows).view(count, number, tokens, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)  # [N, windows, heads, T, C/heads]
        scores = (q * (hidden // self.heads) ** -0.5) @ k.transpose(-1, -2) + self._bias()
        if mask is not None:
            scores = scores + mask
        mixed = self.softmax(scores).to(v.dtype) @ v
        return self.proj(mixed.transpose(2, 3).reshape(count, number, tokens, hidden))

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
    def __init__(self, hidden: int, heads: int, window: int, mlp_ratio: int, shifted: bool):
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(hidden)
        self.attn = WindowAttention(hidden, heads, window)
        self.norm2 = nn.LayerNorm(hidden)
        self.mlp = Mlp(hidden, mlp_ratio * hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[N, H, W, C] from x of that shape and the stage's shift mask, which only shifted blocks use."""
        count, height, width, hidden = x.shape
        size = self.window
        rows, columns = _ceil_div(height, size), _ceil_div(width, size)
        y = F.pad(self.norm1(x), (0, 0, 0, columns * size - width, 0, rows * size - height))
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = y.reshape(count, rows, size, columns, size, hidden).transpose(2, 3)
        y = self.attn(y.reshape(count, rows * columns, size * size, hidden), mask if self.shift else None)
        y = y.reshape(count, rows, columns, size, size, hidden).transpose(2, 3)
        y = y.reshape(count, rows * size, columns * size, hidden)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y[:, :height, :width]
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Halves the map: four neighbours become one token of twice the channels."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * hidden)
        self.reduction = nn.Linear(4 * hidden, 2 * hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        count, height, width, hidden = x.shape
        rows, columns = _ceil_div(height, 2), _ceil_div(width, 2)
        x = F.pad(x, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
        x = x.reshape(count, rows, 2, columns, 2, hidden).permute(0, 1, 3, 4, 2, 5)  # column parity before row parity
        return self.reduction(self.norm(x.reshape(count, rows, columns, 4 * hidden)))


class SwinStage(nn.Module):
    def __init__(self, config: SwinConfig, stage: int):
        super().__init__()
        hidden, last = config.embed * 2**stage, stage == len(config.depths) - 1
        self.window = config.window
        self.blocks = nn.ModuleList(
            SwinBlock(hidden, config.heads[stage], config.window, config.mlp_ratio, shifted=block % 2 == 1)
            for block in range(config.depths[stage])
        )
        self.downsample = None if last else PatchMerging(hidden)

    def forward(self, x: Tensor) -> Tensor:
        mask = shift_mask(x, self.window)
        for block in self.blocks:
            x = block(x, mask)
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
        x = self.patch_embed(image)
        for stage, layer in enumerate(self.layers):
            x = layer(x)
            if stage >= self.first_output:
                maps.append(self.get_submodule(f"norm{stage}")(x).permute(0, 3, 1, 2))
            if layer.downsample is not None:
                x = layer.downsample(x)
        return maps


def shift_mask(x: Tensor, window: int) -> Tensor:
    """[windows, 1, T, T]: OTHER_REGION between tokens of a shifted window that are not neighbours in the map x."""

    def regions(length: int) -> Tensor:
        """[windows, window]: which of an axis' three pieces each shifted position belongs to."""
        number = _ceil_div(length, window)
        position = torch.arange(number * window, device=x.device)
        last, wrapped = (number - 1) * window, number * window - window // 2
        return ((position >= last).long() + (position >= wrapped).long()).reshape(number, window)

    rows, columns = regions(x.shape[1]), regions(x.shape[2])
    region = 3 * rows[:, None, :, None] + columns[None, :, None, :]
    region = region.reshape(rows.shape[0] * columns.shape[0], window * window)
    return ((region[:, None, :, None] != region[:, None, None, :]) * OTHER_REGION).to(x.dtype)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)


def _ceil_div(length: int, step: int) -> int:
    return (length + step - 1) // step


def _lacking(length: int, step: int) -> int:
    """How much `length` needs to become a multiple of `step`."""
    return _ceil_div(length, step) * step - length
