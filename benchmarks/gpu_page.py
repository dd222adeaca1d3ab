"""The page of gpu_check.py: one row per engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FRAMES_PER_SECOND = 200  # of the detector at 640 × 360 in fp16 on an H200


def page(found: Mapping[str, Any]) -> str:
    """The result for people."""
    lines = [f"# {found['gpu']} ({found['capability']}), {found['when'][:10]}", ""]
    lines += [f"Driver {found['driver']}, commit {found['commit'][:12]}. Tests marked `gpu`: {found['tests']}.", ""]
    lines += ["| engine | same text, span | tube IoU | seconds per video and sentence | detector frames/s | memory |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, values in found["engines"].items():
        if "problem" in values:
            lines.append(f"| {name} | did not run: {values['problem']} | | | | |")
            continue
        same, speed = values["agreement"], values.get("detector", {}).get("frames_per_second")
        goal = f"{speed:.0f} (goal {FRAMES_PER_SECOND} on an H200)" if speed else "not measured"
        lines.append(
            f"| {name} | {same['texts']:.3f}, {same['spans']:.3f} | {same['tube_iou']:.4f} "
            f"| {values['stages']['total']:.3f} | {goal} | {memory(values['growth'])} |"
        )
    return "\n".join(lines) + "\n"


def memory(growth: Mapping[str, Any]) -> str:
    """How much more of it is in use after many sentences, in words."""
    gpu, host = growth["gpu_mb"], growth["host_mb"]
    told = [f"{value:+d} MB {where}" for value, where in ((gpu, "GPU"), (host, "host")) if value is not None]
    return f"{', '.join(told) or 'not told here'} over {growth['sentences']} sentences"
