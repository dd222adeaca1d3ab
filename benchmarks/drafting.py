"""Drafts on devil-tiny's own answers about clips that it has never seen: steps with and without, tokens compared."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import Row, figure

from devil.data.clips import picture_size
from devil.data.scene import make_scene
from devil.data.writer import write_scene
from devil.progress import no_progress
from devil.runtime.drafting import no_draft
from devil.runtime.pipeline import Grounder
from devil.runtime.reference_bundle import reference_bundle


def drafting_rows(clips: int) -> list[Row]:
    """Every sentence about held-out clips, answered plainly and with drafts."""
    grounder = Grounder.open(reference_bundle(no_progress), threads=1)
    draft, writer = grounder.drafts[False], grounder.writer
    plain_steps = steps = same = sentences = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(clips):
            scene = make_scene(seed, "heldout")
            path = Path(folder) / f"{seed}.mp4"
            write_scene(path, scene, picture_size(scene, 128))
            session = grounder.encode(path).session
            opening = len(writer.opening())
            prompts = [writer.instruction(query.sentence)[opening:] for query in scene.queries]
            answers = (session.generate(prompts, draft=way) for way in (no_draft, draft))
            for plain, drafted in zip(*answers, strict=True):
                plain_steps, steps = plain_steps + plain.steps, steps + drafted.steps
                same += plain.token_ids == drafted.token_ids
                sentences += 1
    ratio = plain_steps / steps
    return [
        figure(f"drafts: answers with identical tokens, of {sentences}", same, "", "all", same == sentences),
        figure("drafts: steps per answer, plain", plain_steps / sentences, "steps"),
        figure("drafts: steps per answer", steps / sentences, "steps"),
        figure("drafts: times fewer steps", ratio, "times", "≥ 2", ratio >= 2),
    ]
