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
from tests.conformance.suite import configuration_of, group_of


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
    within_steps: bool = False
    """fails only because it asks a float16 program for less than one float16 step (see the plugin)"""

    @property
    def counts(self) -> bool:
        """Tell whether the test is evidence: it asked an ML program for numbers, and coremltools expects it to work.

        Skipped and expected failures after `predict` are coremltools' own verdict about the test, not about the answer. A
        test that also asks a model of another format (a neural network, a tree ensemble) cannot pass without Apple's runtime.
        They are counted apart.
        """
        return self.formats == ["mlProgram"] and self.outcome not in (Outcome.SKIPPED, Outcome.XFAILED)

    @property
    def agrees(self) -> bool:
        """Tell whether the answer is right as far as float16 can say."""
        return self.outcome is Outcome.PASSED or self.within_steps

    def as_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def read(path: Path) -> dict[str, Result]:
    """Read the results of an unfinished run; the last line about a test holds."""
    if not path.exists():
        return {}
    records = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return {record["id"]: Result(**{**record, "outcome": Outcome(record["outcome"])}) for record in records}


def summarize(results: Iterable[Result]) -> dict[str, Any]:
    """Add up results per group and configuration; list what does not agree, and what agrees to float16 steps only."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    configurations: dict[str, Counter[str]] = defaultdict(Counter)
    steps: Counter[str] = Counter()
    failures = []
    for result in results:
        groups[group_of(result.id)] += tally(result)
        configurations[configuration_of(result.id)] += tally(result)
        if result.counts and result.within_steps:
            steps[result.id.partition("[")[0]] += 1
        if result.counts and not result.agrees:
            failures.append(result)
    return {
        "totals": with_share(sum(groups.values(), Counter())),
        "configurations": {name: with_share(configurations[name]) for name in sorted(configurations)},
        "groups": {name: with_share(groups[name]) for name in sorted(groups)},
        "within_steps": dict(sorted(steps.items())),
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
            "within_steps": int(result.counts and result.within_steps),
            f"without_predict_{result.outcome}": int(not result.reached),
            "other_format": int(result.reached > 0 and result.formats != ["mlProgram"]),
            "skipped_or_expected_to_fail": int(expected and result.reached > 0),
        }
    )


def explained(result: Result) -> dict[str, str | None]:
    return {"id": result.id, "outcome": str(result.outcome), "reason": result.reason, "why": why(result.id)}


def with_share(counts: Counter[str]) -> dict[str, Any]:
    """Add the share that agrees, and the share that passes as the tests are written."""
    reached = counts["reached"]
    agree = counts["passed"] + counts["within_steps"]
    shares = {"share": agree, "share_as_written": counts["passed"]}
    counted = {name: count for name, count in sorted(counts.items()) if count}
    return {**counted, **{name: round(n / reached, 5) if reached else None for name, n in shares.items()}}
