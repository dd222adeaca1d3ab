"""Cases of deformable attention, their float64 answer from PyTorch's grid_sample, and error bounds from the dtypes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import strategies as st
from torch.nn import functional

UNIT = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Unit round-off of the storage types."""


@dataclass(frozen=True)
class Case:
    """Inputs of one call. bfloat16 arrays are uint16 bits."""

    name: str
    value: np.ndarray  # [N, S, heads, dim]
    shapes: np.ndarray  # int64 [levels, 2]
    locations: np.ndarray  # float32 [N, Q, heads, levels, points, 2]
    weights: np.ndarray  # [N, Q, heads, levels, points]

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        return self.value, self.shapes, self.locations, self.weights

    def stored(self, value: str, weights: str | None = None) -> Case:
        """The same case with the value, and the weights if asked, in another storage type."""
        return replace(self, value=store(self.value, value), weights=store(self.weights, weights or "fp32"))

    def reference(self) -> np.ndarray:
        return reference(*(widen(array) for array in (self.value, self.shapes, self.locations, self.weights)))

    def bound(self, output: str, blended: str | None = None) -> np.ndarray:
        """Largest error of a kernel that computes in fp32, elementwise over the reference.

        A pixel coordinate below W + 1 is rounded twice at most, which moves a bilinear sample by at most twice its
        largest value per pixel and axis; the sum of n terms costs n + 4 roundings; the result is rounded to `output`.
        Where the corners are `blended` in a narrow type, their weights and the blend cost 8 of its roundings.
        """
        largest = np.abs(widen(self.value)[np.isfinite(widen(self.value))]).max(initial=0.0)
        weight = np.abs(widen(self.weights)).sum((3, 4)).max()
        extent = int(self.shapes.max()) + 1
        terms = 4 * self.weights.shape[3] * self.weights.shape[4]
        scale = UNIT["fp32"] * (8 * extent + terms + 4)
        if blended:
            scale += 8 * UNIT[blended]
        smallest = 2.0**-25 if output == "fp16" else 0.0  # half a subnormal
        return weight * largest * scale + UNIT[output] * np.abs(self.reference()) + smallest


def store(array: np.ndarray, dtype: str) -> np.ndarray:
    """float32 to the storage type; bfloat16 by PyTorch, as its bits."""
    if dtype == "bf16":
        return torch.from_numpy(array).bfloat16().view(torch.int16).numpy().view(np.uint16)
    return array.astype({"fp32": np.float32, "fp16": np.float16}[dtype])


def widen(array: np.ndarray) -> np.ndarray:
    """Any storage type to float64 (integers stay)."""
    if array.dtype == np.uint16:
        with np.errstate(invalid="ignore"):  # signalling NaN
            return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array if array.dtype == np.int64 else array.astype(np.float64)


def reference(value: np.ndarray, shapes: np.ndarray, locations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of bilinear samples in float64, level by level; locations that are not finite are sent far out."""
    value, weights = torch.from_numpy(value), torch.from_numpy(weights)
    # grid_sample converts pixel indices to integers, which must stay in range; 2 is outside every level.
    locations = torch.from_numpy(np.clip(np.nan_to_num(locations, nan=2.0, posinf=2.0, neginf=-2.0), -2.0, 2.0))
    batch, _, heads, dim = value.shape
    queries = locations.shape[1]
    total = torch.zeros(batch * heads, dim, queries, dtype=torch.float64)
    start = 0
    for level, (height, width) in enumerate(shapes.tolist()):
        picture = value[:, start : start + height * width].permute(0, 2, 3, 1).reshape(-1, dim, height, width)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled = functional.grid_sample(picture, grid, padding_mode="zeros", align_corners=False)
        total += (sampled * weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
        start += height * width
    return total.reshape(batch, heads * dim, queries).transpose(1, 2).numpy()


def random_case(
    shapes: list[tuple[int, int]],
    batch: int = 1,
    queries: int = 5,
    heads: int = 2,
    dim: int = 8,
    points: int = 4,
    seed: int = 0,
    spread: tuple[float, float] = (-0.3, 1.3),
    name: str = "random",
) -> Case:
    """Normal values, uniform locations over `spread`, weights that sum to one."""
    random = np.random.default_rng(seed)
    levels = np.array(shapes, np.int64)
    size = (batch, queries, heads, len(shapes), points)
    weights = random.uniform(0.01, 1, size).astype(np.float32)
    return Case(
        name,
        random.normal(size=(batch, int(levels.prod(1).sum()), heads, dim)).astype(np.float32),
        levels,
        random.uniform(*spread, (*size, 2)).astype(np.float32),
        weights / weights.sum((3, 4), keepdims=True),
    )


def _at(case: Case, name: str, locations: object) -> Case:
    return replace(case, name=name, locations=np.broadcast_to(np.float32(locations), case.locations.shape).copy())


def hostile_cases() -> list[Case]:
    """Locations on and beyond every edge, levels of one pixel, prime sizes, the largest counts, odd head sizes."""
    plain = random_case([(7, 5), (3, 2)], batch=2, queries=3, dim=16)
    extremes = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e20, 2.0**31, -(2.0**31), 65504.0, -1.0, 2.0]
    mixed = plain.locations.copy()
    mixed.reshape(-1)[::3] = np.resize(np.float32(extremes), mixed.reshape(-1)[::3].shape)
    half_pixel = 0.5 / np.float32([[5, 7], [2, 3]])[None, None, None, :, None]  # pixel centres of the first row, column
    return [
        *(_at(plain, f"all locations {value}", value) for value in extremes),
        _at(plain, "corner zero", 0.0),
        _at(plain, "corner one", 1.0),
        _at(plain, "one below zero", np.nextafter(np.float32(0), np.float32(-1))),
        _at(plain, "one above one", np.nextafter(np.float32(1), np.float32(2))),
        _at(plain, "pixel centres", half_pixel),
        _at(plain, "last pixel centres", 1 - half_pixel),
        _at(plain, "half a pixel outside", -half_pixel),
        _at(plain, "a whole pixel outside", 1 + half_pixel),
        replace(plain, name="a third hostile", locations=mixed),
        replace(plain, name="weights zero", weights=np.zeros_like(plain.weights)),
        replace(plain, name="weights negative and large", weights=plain.weights * np.float32(-1000)),
        random_case([(1, 1)] * 8, queries=1, heads=1, points=16, name="one-pixel levels, largest counts"),
        random_case([(1, 13), (17, 1)], batch=3, queries=7, heads=3, dim=24, points=5, name="lines of prime length"),
        random_case([(31, 29), (13, 11), (7, 5)], queries=11, heads=5, dim=40, points=3, name="primes"),
        random_case([(19, 23)], batch=5, queries=1, heads=1, dim=64, points=1, name="one sample"),
        random_case([(9, 6), (5, 3), (2, 2), (1, 1)], batch=2, queries=17, heads=8, dim=32, name="the detector's"),
    ]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any sizes within the definition, small enough to be quick."""
    side = st.integers(1, 12)
    return random_case(
        draw(st.lists(st.tuples(side, side), min_size=1, max_size=8)),
        batch=draw(st.integers(1, 3)),
        queries=draw(st.integers(1, 6)),
        heads=draw(st.integers(1, 4)),
        dim=8 * draw(st.integers(1, 8)),
        points=draw(st.integers(1, 16)),
        seed=draw(st.integers(0, 2**32 - 1)),
        spread=draw(st.sampled_from([(0.0, 1.0), (-0.3, 1.3), (-4.0, 5.0)])),
    )
