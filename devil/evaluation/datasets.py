"""The data sets that can be evaluated on: where their files lie, and what is asked of each video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devil.cache import made_once
from devil.data.annotation import Problem, Record
from devil.data.hcstvg import read_hcstvg
from devil.data.moments import Moment, read_activitynet, read_charades
from devil.data.records import read_records
from devil.data.scene import Split, make_scene
from devil.data.vidstg import read_vidstg
from devil.data.writer import ANNOTATIONS, CONTROL, write_dataset
from devil.errors import AnnotationError, UsageError
from devil.files import sha256
from devil.progress import Progress

SYNTHETIC = "synthetic"
CONTROL_MARK = " control"  # behind the name of a data set that is asked about other objects
CLIPS = 200  # of the fixed held-out split
_SPLIT: Split = "heldout"
_READERS = ("annotation", "hcstvg", "moments", "records", "refcoco", "vidstg")  # modules of devil.data

# Data set → its test annotations as published.
PUBLISHED = {
    "hc_stvg_v1": "test.json",
    "hc_stvg_v2": "valv2.json",
    "vidstg": "test_annotations.json",
    "charades_sta": "charades_sta_test.txt",
    "activitynet": "val_1.json",
}
NAMES = (SYNTHETIC, *PUBLISHED)


@dataclass(frozen=True)
class Dataset:
    """Questions with known answers.

    Attributes:
        name: as reports show it.
        digest: changes with the annotations.
        cases: what is asked, in the file's order: with a tube as truth (Record) or only a span (Moment).
        problems: records that the reader left out.
        control: whether each clip is asked about another object than its own question's.
    """

    name: str
    digest: str
    cases: tuple[Record | Moment, ...]
    problems: tuple[Problem, ...]
    control: bool = False

    @property
    def is_temporal(self) -> bool:
        """Whether only spans are known, no boxes."""
        return any(isinstance(case, Moment) for case in self.cases)


def load_dataset(
    name: str, root: Path | None, annotations: Path | None, control: bool, cache: Path, progress: Progress
) -> Dataset:
    """Reads a data set, or makes the synthetic one in the cache if it is not there.

    Args:
        name: one of `NAMES`, or the path of a file of chat records.
        root: folder of the videos.
        annotations: of a published data set, where its file lies elsewhere than in `root`.
        control: of the synthetic one, ask each clip about another object.
        cache: folder for what can be made again.
        progress: called with (stage, done, total).

    Raises:
        UsageError: an unknown name, or options that do not fit it.
        AnnotationError: the annotations cannot be read, or none of them can be used.
    """
    if control and name != SYNTHETIC:
        raise UsageError("--control is made for the synthetic clips", "use --dataset synthetic")
    if annotations and name not in PUBLISHED:
        mend = "leave it out" if name == SYNTHETIC else f"name either with --dataset, or one of {', '.join(PUBLISHED)}"
        raise UsageError(f"--annotations says where a published data set's lie, and {name} is none", mend)
    if root and name == SYNTHETIC:
        raise UsageError("the synthetic clips take no --root", "leave it out")
    if name == SYNTHETIC:
        path = held_out_split(cache, progress)
        path = path.with_name(CONTROL) if control else path
        cases, problems = read_records(path)
    elif name in PUBLISHED:
        if root is None:
            raise UsageError(f"{name} needs its videos", "name their folder with --root")
        path = annotations or root / PUBLISHED[name]
        cases, problems = _published(name, path, root)
    else:
        path = Path(name)
        if not path.is_file():
            known = ", ".join(NAMES)
            raise UsageError(f"{name} is neither a file nor a known data set", f"known are {known}")
        cases, problems = read_records(path, root)
    if not cases:
        reason = problems[0].reason if problems else "it is empty"
        raise AnnotationError(f"{path} has no record that can be used ({reason})", "check --root and the file")
    shown = name if name in NAMES else path.name
    return Dataset(shown + CONTROL_MARK if control else shown, sha256(path), tuple(cases), tuple(problems), control)


def held_out_split(cache: Path, progress: Progress, count: int = CLIPS) -> Path:
    """The annotations of the held-out clips."""
    return synthetic_split(_SPLIT, count, cache, progress)


def synthetic_split(split: Split, count: int, cache: Path, progress: Progress) -> Path:
    """The annotations of a split's first clips, which are written into the cache once per version of the generator."""

    def write(folder: Path) -> None:
        write_dataset(folder, split, count, progress=lambda done: progress("writing clips", done, count))

    folder = cache / f"{split}-{count}-{_generator_digest()}"
    return made_once(folder, lambda path: (path / ANNOTATIONS).is_file(), write) / ANNOTATIONS


def shown_objects(case: Record, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where two objects of a synthetic control clip are: the one its sentence names, and the clip's own question's.

    Args:
        case: read from `CONTROL`.
        frames: of the file, int [T].

    Returns:
        Boxes x1, y1, x2, y2 as fractions, float64 [T, 4] each; nan in both where not both are visible.
    """
    scene = make_scene(int(case.path.stem.rpartition("-")[2]), _SPLIT)
    own = scene.queries[0].target
    named = next(query.target for query in scene.queries if query.target != own and query.sentence == case.sentence)
    moments = np.asarray(frames) / float(scene.clock.rate)
    (one, one_seen), (two, two_seen) = scene.boxes(named, moments), scene.boxes(own, moments)
    both = (one_seen & two_seen)[:, None]
    return np.where(both, one, np.nan), np.where(both, two, np.nan)


def _published(name: str, path: Path, root: Path) -> tuple[list[Record] | list[Moment], list[Problem]]:
    if name == "vidstg":
        return read_vidstg(path, root, root)
    readers = {"charades_sta": read_charades, "activitynet": read_activitynet}
    return readers.get(name, read_hcstvg)(path, root)


def _generator_digest() -> str:
    """Changes whenever the generator's code does: all of `devil.data` but the readers."""
    import hashlib

    import devil.data

    files = sorted(Path(devil.data.__file__).parent.glob("*.py"))
    sources = [file for file in files if file.stem not in _READERS]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
