"""The whole run: photos broken by consecutive seeds go through decoders side by side; what fails is kept as a file.

python -m tests.fuzz.run --count 20000 --first 0
"""

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz.decoding import CAP_BYTES, COMMAND, EXPECTED, MAX_PIXELS, MOST_BYTES, Decoder, Verdict
from tests.fuzz.mutants import Mutant, mutant
from tests.fuzz.originals import bombs, originals

MB: Final = 2**20
FLAT_BYTES: Final = 32 * MB
"""What a process may hold more in its last tenth than in its second."""
PROGRESS_S: Final = 2.0


@dataclass(slots=True)
class Row:
    """What became of the photos of one format."""

    outcomes: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0
    slowest: tuple[float, int] = (0.0, 0)  # ms, seed

    @property
    def failed(self) -> int:
        """How many ended as the decoder promises that none ends."""
        return sum(count for outcome, count in self.outcomes.items() if outcome not in EXPECTED)


@dataclass(slots=True)
class Report:
    """What became of the photos that one process was given.

    Args:
        rows: by the format of the photo before it was broken.
        failures: in words; what failed lies in files.
        held: memory beyond the warm process after each photo, in bytes.
        started: processes: more than one if one died.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    started: int = 0

    def add(self, broken: Mutant, verdict: Verdict) -> None:
        """Count one."""
        row = self.rows.setdefault(broken.format, Row())
        row.outcomes[verdict.outcome] += 1
        row.peak_bytes = max(row.peak_bytes, verdict.peak_bytes)
        row.slowest = max(row.slowest, (verdict.ms, broken.seed))
        self.held.append(verdict.held_bytes)

    @property
    def grown_bytes(self) -> float:
        """How much more it held in its last tenth than in its second."""
        tenth = max(1, len(self.held) // 10)
        return statistics.median(self.held[-tenth:]) - statistics.median(self.held[tenth : 2 * tenth] or [0])


def decode_all(
    photos: Mapping[str, bytes],
    bombs: Mapping[str, bytes],
    seeds: Sequence[int],
    report: Report,
    kept: Path,
    command: Sequence[str] = COMMAND,
) -> Report:
    """Break a photo by each seed and have it decoded, one after the other in one process; blocks.

    Args:
        photos, bombs: as in `mutant`.
        report: is filled, and may be looked at meanwhile.
        kept: folder for the photos that fail.
    """
    with Decoder(photos.values(), command) as decoder:
        for seed in seeds:
            broken = mutant(photos, seed, bombs)
            verdict = decoder.decode(broken.data)
            report.add(broken, verdict)
            report.started = decoder.started
            if verdict.outcome not in EXPECTED:
                kept.mkdir(parents=True, exist_ok=True)
                file = kept / f"{seed}-{verdict.outcome}.{broken.format.lower()}"
                file.write_bytes(broken.data)
                ways = ", ".join(broken.ways)
                report.failures.append(
                    f"seed {seed}, {broken.name} ({ways}): {file}: {verdict.outcome}: {verdict.detail}"
                )
    if report.grown_bytes > FLAT_BYTES:
        report.failures.append(f"memory grew by {report.grown_bytes / MB:.0f} MB over {len(report.held)} photos")
    return report


def table(reports: Sequence[Report]) -> str:
    """A line per format, for people."""
    lines = [f"{'format':<8}{'decoded':>9}{'undecodable':>13}{'refused':>9}{'failed':>8}{'peak MB':>9}  slowest (seed)"]
    for name in sorted({name for report in reports for name in report.rows}):
        rows = [report.rows[name] for report in reports if name in report.rows]
        counts = sum((row.outcomes for row in rows), Counter())
        peak = max(row.peak_bytes for row in rows) / MB
        slowest_ms, seed = max(row.slowest for row in rows)
        lines.append(
            f"{name:<8}{counts['decoded']:>9}{counts['undecodable']:>13}{counts['refused']:>9}"
            f"{sum(row.failed for row in rows):>8}{peak:>9.1f}  {slowest_ms:.0f} ms ({seed})"
        )
    grown = max(report.grown_bytes for report in reports) / MB
    lines.append(
        f"{sum(len(report.held) for report in reports)} photos of at most {MAX_PIXELS:,} pixels, "
        f"{MOST_BYTES // MB} MB each, in "
        f"{sum(report.started for report in reports)} processes capped at {CAP_BYTES // MB} MB, "
        f"which grew by {grown:.1f} MB at most"
    )
    return "\n".join(lines)


def main() -> int:
    """Run; exit 1 where something failed."""
    home = Path(os.environ.get("MMCAT_HOME", Path.home() / ".cache" / "mmcat"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="photos")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kept", type=Path, default=home / "fuzz", help="folder for what fails")
    given = parser.parse_args()
    reports = [Report() for _ in range(given.processes)]
    seeds = range(given.first, given.first + given.count)
    with ThreadPoolExecutor(given.processes) as pool:
        work = [
            pool.submit(decode_all, originals(), bombs(), seeds[number :: given.processes], report, given.kept)
            for number, report in enumerate(reports)
        ]
        while not all(one.done() for one in work):
            time.sleep(PROGRESS_S)
            failed = sum(len(report.failures) for report in reports)
            print(f"{sum(len(report.held) for report in reports)} of {given.count}, {failed} failed", flush=True)
        for one in work:
            one.result()
    failures = [failure for report in reports for failure in report.failures]
    print("\n".join([*failures, table(reports)]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
