# SPDX-License-Identifier: Apache-2.0
"""What does one line of the results say, and what do they add up to?"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.conformance.known import why
from tests.conformance.suite import group_of


class Outcome(StrEnum):
    """How a test ended; `crashed` and `timeout` are noted by the runner, since the test's process is gone."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    CRASHED = "crashed"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Result:
    """One test."""

    id: str
    reached: int
    """calls of `MLModel.predict`"""
    formats: list[str]
    """of the models on which it was called"""
    outcome: Outcome
    seconds: float
    reason: str
    ops: list[str]
    """op types of those models, kept for a test that did not pass"""
    beyond_float16: bool = False
    """fails only because it measures float16 values by the tolerance of float32 (see the plugin)"""

    @property
    def counts(self) -> bool:
        """Tell whether the test is evidence: it asked an ML program for numbers, and coremltools expects it to work.

        Skipped and expected failures after `predict` are coremltools' own verdict about the test, not about the answer. A
        test that also asks a model of another format (a neural network, a tree ensemble) cannot pass without Apple's runtime,
        and one that measures float16 by float32's tolerance not even with it. All of them are counted apart.
        """
        expected = self.outcome not in (Outcome.SKIPPED, Outcome.XFAILED) and not self.beyond_float16
        return self.formats == ["mlProgram"] and expected

    def as_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def read(path: Path) -> dict[str, Result]:
    """Read the results of an unfinished run; the last line about a test holds."""
    if not path.exists():
        return {}
    records = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return {record["id"]: Result(**{**record, "outcome": Outcome(record["outcome"])}) for record in records}


def summarize(results: Iterable[Result]) -> dict[str, Any]:
    """Add up results per group; list the failures that count, and per function what float16 can't meet."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    half: Counter[str] = Counter()
    failures = []
    for result in results:
        groups[group_of(result.id)] += tally(result)
        if result.beyond_float16:
            half[result.id.partition("[")[0]] += 1
        if result.counts and result.outcome is not Outcome.PASSED:
            failures.append(result)
    return {
        "totals": with_share(sum(groups.values(), Counter())),
        "groups": {name: with_share(groups[name]) for name in sorted(groups)},
        "beyond_float16": dict(sorted(half.items())),
        "failures": [explained(result) for result in sorted(failures, key=lambda r: r.id)],
    }


def tally(result: Result) -> Counter[str]:
    """Count one test under each heading that it belongs to."""
    expected = result.outcome in (Outcome.SKIPPED, Outcome.XFAILED)
    return Counter(
        {
            "ran": 1,
            "reached": int(result.counts),
            "passed": int(result.counts and result.outcome is Outcome.PASSED),
            f"without_predict_{result.outcome}": int(not result.reached),
            "other_format": int(result.reached > 0 and result.formats != ["mlProgram"]),
            "beyond_float16": int(result.beyond_float16),
            "skipped_or_expected_to_fail": int(expected and result.reached > 0),
        }
    )


def explained(result: Result) -> dict[str, str | None]:
    return {"id": result.id, "outcome": str(result.outcome), "reason": result.reason, "why": why(result.id)}


def with_share(counts: Counter[str]) -> dict[str, Any]:
    reached = counts["reached"]
    share = round(counts["passed"] / reached, 5) if reached else None
    return {**{name: count for name, count in sorted(counts.items()) if count}, "share": share}
