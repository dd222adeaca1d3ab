"""What is recorded is what the graphs really meet, and replaying it gives what they gave."""

import numpy as np
import pytest

from devil.errors import UsageError
from devil.runtime.profile.workload import CASES, record
from tests.runtime.profile.conftest import SENTENCE


def test_every_case_has_the_sizes_of_the_real_run(contender, workload, clip_path):
    config, clip = contender.grounder.config, contender.grounder.encode(clip_path).clip
    cases = {case.name: case for case in workload.cases}
    assert tuple(cases) == CASES
    assert cases["vision"].feeds["patches"].shape == clip.patches.shape
    assert cases["backbone"].feeds["frames"].shape == clip.frames.shape
    assert [cases[name].items for name in ("vision", "backbone", "grounder")] == [config.frames] + [
        len(clip.frames)
    ] * 2
    assert cases["prefill"].items == max(feeds["token_ids"].shape[1] for feeds in workload.prefix)
    read = sum(feeds["token_ids"].shape[1] for feeds in workload.prefix)
    assert cases["decode"].feeds["mask"].shape == (1, 1, 1, read + 1)
    assert workload.capacity == read + 1


def test_a_decoding_step_sees_all_that_was_read(contender, workload):
    """Against one run of the same tokens on an empty cache."""
    runs = [*workload.prefix, next(case.feeds for case in workload.cases if case.name == "decode")]
    ids, positions = (np.concatenate([feeds[name] for feeds in runs], 1) for name in ("token_ids", "positions"))
    tables, offset, vocab = [], 0, contender.grounder.config.language.vocab
    for feeds in runs:  # each run numbers the rows of its own stretch of the visual table
        size = feeds["token_ids"].shape[1]
        end = int(feeds["write_index"][0])
        part = ids[:, end : end + size]
        part[part >= vocab] += offset
        tables.append(feeds["visual_table"])
        offset += len(feeds["visual_table"])
    length = ids.shape[1]
    mask = np.zeros((1, 1, length, length), bool)
    for feeds in runs:
        start, seen = int(feeds["write_index"][0]), feeds["mask"]
        mask[:, :, start : start + seen.shape[2], : seen.shape[3]] = seen
    whole = contender.grounder.language.cache(1, workload.capacity).run(
        {
            "token_ids": ids,
            "visual_table": np.concatenate(tables),
            "positions": positions,
            "write_index": np.zeros(1, np.int64),
            "mask": mask,
            "output_index": np.full((1, 1), length - 1),
        }
    )
    found = contender.outputs("decode")
    np.testing.assert_allclose(found["logits"], whole["logits"], atol=1e-4)
    np.testing.assert_allclose(found["hidden"], whole["hidden"], atol=1e-4)


def test_replaying_changes_nothing(contender):
    """Measured runs write the same slots of the cache again."""
    first = {name: contender.outputs(name) for name in CASES}
    for name in CASES:
        contender.measure(name, 2)
    for name in CASES:
        again = contender.outputs(name)
        for tensor, expected in first[name].items():
            np.testing.assert_array_equal(again[tensor], expected)


def test_an_answer_without_box_measures_no_detector(scripted, clip_path):
    from devil.runtime.pipeline import Grounder

    grounder = Grounder.open(scripted("from 0.4 to 1.0")[1], threads=1)
    with pytest.raises(UsageError, match="names no object"):
        record(grounder, str(clip_path), SENTENCE)
