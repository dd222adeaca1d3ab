"""`devil-doctor`: what this machine has, what the bundle needs, and which engine would run it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from devil.bundle import Bundle, open_bundle
from devil.command import Flag, Folder, run_command
from devil.errors import DevilError
from devil.progress import ProgressBars
from devil.runtime.doctor.bundle import bundle_findings
from devil.runtime.doctor.candidates import Candidate, candidates, chosen
from devil.runtime.doctor.facts import Facts, Finding, gather
from devil.runtime.doctor.judgement import judge


class NothingRunsError(DevilError):
    """No engine on this machine runs the bundle, or any bundle."""


@dataclass(frozen=True)
class DoctorOptions:
    """Tells what this machine has, what a bundle needs, which engine would run it, and what to install otherwise.

    Exits with 1 where nothing here can run it.
    """

    bundle: Annotated[Folder, tyro.conf.Positional, tyro.conf.arg(metavar="[BUNDLE]")] = None
    """Folder that devil-export wrote. By default only the machine is looked at."""
    verify: Flag = False
    """Read the whole bundle and compare it with its digests."""
    json: Flag = False
    """Print everything as one JSON line at the end of stdout."""
    debug: Flag = False
    """Show tracebacks."""


def examine(options: DoctorOptions) -> dict[str, Any]:
    """Does what `devil-doctor` does; the diagnosis as JSON values (docs/profiling.md)."""
    bundle = open_bundle(options.bundle, verify=options.verify) if options.bundle else None
    with ProgressBars() as progress:
        facts = gather(options.bundle or Path.cwd(), progress)
    findings, found, values = diagnose(facts, bundle)
    _print(findings, found, bundle)
    choice = chosen(found)
    if choice is None:
        raise _nothing_runs(found, bundle, values)
    return values


def diagnose(facts: Facts, bundle: Bundle | None) -> tuple[list[Finding], list[Candidate], dict[str, Any]]:
    """Findings, engines best first, and both as JSON values."""
    findings = [*judge(facts), *(bundle_findings(facts, bundle) if bundle else ())]
    found = candidates(facts, bundle)
    choice = chosen(found)
    values = {
        "schema": 1,
        "bundle": str(bundle.folder) if bundle else None,
        "chosen": choice.name if choice else None,
        "engines": [asdict(candidate) for candidate in found],
        "findings": [asdict(finding) for finding in findings],
        "facts": facts.values(),
    }
    return findings, found, values


def main(args: list[str] | None = None) -> int:
    return run_command(DoctorOptions, examine, "devil-doctor", args)


def _nothing_runs(found: Sequence[Candidate], bundle: Bundle | None, values: dict[str, Any]) -> NothingRunsError:
    """With the mend of the engine that the least is in the way of; of equals the one that asks least of a machine."""
    nearest = min(reversed(found), key=lambda candidate: len(candidate.obstacles))
    obstacle = nearest.obstacles[0]
    what = f"{bundle.folder}" if bundle else "a bundle"
    error = NothingRunsError(f"nothing here runs {what} ({nearest.name}: {obstacle.text})", obstacle.mend)
    error.result = values
    return error


_MARKS = {"good": "ok", "note": "note", "bad": "BAD"}


def _print(findings: Sequence[Finding], found: Sequence[Candidate], bundle: Bundle | None) -> None:
    """Lines that are not wrapped: whoever asks for help pastes them, paths and all."""
    rows = [(finding.topic, _MARKS[finding.state], finding.name, finding.text, finding.mend) for finding in findings]
    choice = chosen(found)
    for candidate in found:
        mark = "USED" if candidate is choice else "no" if candidate.obstacles else "ok"
        text = "; ".join(obstacle.text for obstacle in candidate.obstacles) or candidate.remark or "nothing is missing"
        mends = dict.fromkeys(obstacle.mend for obstacle in candidate.obstacles if obstacle.mend)
        rows.append(("engine", mark, candidate.name, text, "; ".join(mends)))
    lines, last, width = [], "", max(len(row[2]) for row in rows)
    for topic, mark, name, text, mend in rows:
        lines.append(f"{topic if topic != last else '':10}{mark:6}{name:{width}}  {text}")
        if mend:
            lines.append(f"{'':{width + 18}}-> {mend}")
        last = topic
    if choice:
        lines.append(f"{bundle.folder if bundle else 'a bundle'} would run on {choice.name}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
