"""How much more memory a 10-minute 1080p clip takes than a 10-second one, sampled to 64 frames in both sizes.

The long clip is the short one's packets repeated, so making it costs seconds. Each is read in a process of its own.

python benchmarks/video_memory.py [--quick] [--json]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from harness import Row, command_line, figure, report

RATE, SECONDS, HEIGHT, WIDTH = 30, 10, 1080, 1920
GOAL_MB = 100


@dataclass(frozen=True)
class Options:
    quick: bool = False
    """One minute instead of ten."""
    json: bool = False
    """End with one JSON document."""
    read: str = ""
    """Only read this clip and print what that took."""


def make_short(path: Path) -> None:
    """Ten seconds of 1080p: a bright square moving over noise, with B-frames and default groups of pictures."""
    noise = np.random.default_rng(0).integers(60, 120, (HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"preset": "superfast", "bf": "2", "crf": "35"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(RATE * SECONDS):
            image = noise.copy()
            image[300:600, 4 * index : 4 * index + 300] = 230
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def repeat(source: Path, path: Path, times: int) -> None:
    """Copies the packets of `source` one after another `times` times."""
    with av.open(str(path), "w") as output:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(source)) as reader:
                video = reader.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in reader.demux(video):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                        output.mux(packet)
                offset += video.duration


def read(path: str) -> dict[str, float]:
    """Samples a clip as the runtime does; peak memory of this process in MB and seconds spent."""
    from devil.clip import load_clip
    from devil.config import PRESETS
    from devil.video import probe

    start = time.perf_counter()
    probe(path)
    probed = time.perf_counter()
    load_clip(path, PRESETS["7b"])
    done = time.perf_counter()
    return {"probe_s": probed - start, "read_s": done - probed, "peak_mb": own_peak_mb()}


def own_peak_mb() -> float:
    """Peak memory of this process alone.

    On Linux `ru_maxrss` also counts what the parent held when it started this process, and so hides growth below that.
    """
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def memory_rows(minutes: int) -> list[Row]:
    """What a clip of ten seconds and one of `minutes` take, each read in a process of its own."""
    rows, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
        make_short(short)
        repeat(short, long, minutes * 60 // SECONDS)
        for name, path in ((f"{SECONDS} s", short), (f"{minutes} min", long)):
            command = [sys.executable, __file__, "--read", str(path)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            peaks.append(found["peak_mb"])
            rows.append(figure(f"{name} of 1080p, frame times", found["probe_s"], "s"))
            rows.append(figure(f"{name} of 1080p, 64 frames in both sizes", found["read_s"], "s"))
            rows.append(figure(f"{name} of 1080p, peak memory", found["peak_mb"], "MB"))
    growth = peaks[1] - peaks[0]
    case = f"peak memory, {minutes} min against {SECONDS} s of 1080p"
    return [*rows, figure(case, growth, "MB", f"< {GOAL_MB}", growth < GOAL_MB)]


def main(options: Options) -> None:
    if options.read:
        sys.stdout.write(json.dumps(read(options.read)))
        return
    report("video_memory", memory_rows(1 if options.quick else 10), options.json)


if __name__ == "__main__":
    main(command_line(Options, __doc__))
