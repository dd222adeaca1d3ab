"""Work cut into batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator

BATCH_PATCHES = 1 << 14  # frames go through the vision encoder in batches of about this many patches


def batches(count: int, size: int, budget: int) -> Iterator[slice]:
    """Slices over `count` items of `size` each, at most `budget` together but at least one."""
    step = max(1, budget // size)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
