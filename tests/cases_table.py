# SPDX-License-Identifier: Apache-2.0
"""What does the gate say about the failures from the field? `make cases` prints the table.

    python -m tests.cases_table [PREFIX…]

Without a prefix: the float16 cases, and those that `fidelity` and exact integers decide.

Each float16 case must get its verdict at the tier that it names, its culprit first or among the first three; no negative control may
fail. Fidelity and integer cases are held to their outcome. Converted packages are kept below out/cases.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gate import policy, remedy
from gate.candidate import Candidate, read_package
from gate.checks import base, fidelity, float16
from gate.entry import Trial
from gate.report import Outcome, Result, Role, Severity
from tests import whole_cases
from tests.case_source import CASES, MORE_CASES, Case, load_cases, make_trial

PREFIXES = ("fp16_", "pit_808", "pit_809", "pit_823", "pit_824", "pit_826", "dyn_703")


@dataclass(frozen=True)
class Row:
    """One case and what was said."""

    case: str
    expected: str
    said: str
    tier: str
    culprits: tuple[str, ...]  # op types, ranked
    accepted: tuple[str, ...]
    message: str
    seconds: float
    cure: str = ""

    @property
    def right(self) -> bool:
        return self.said == self.expected or (self.expected == "ROUTE" and self.said == "PASS")

    @property
    def rank(self) -> int | None:
        """Place of the first accepted culprit, from 1; None where it is not among those named."""
        return next((i for i, kind in enumerate(self.culprits, 1) if kind in self.accepted), None)


def judge_case(case: Case, work: Path) -> Row:
    """Convert, run and judge one case."""
    started = time.monotonic()
    trial = make_trial(case.config, work)
    if not trial.conversion.usable:
        fault = trial.conversion.fault or trial.conversion.no_answer or ""
        return Row(case.name, case.verdict, "FAIL", "convert", (), (), fault, time.monotonic() - started)
    exact, half = (one(trial) for one in (judge_fidelity, judge_float16))
    said, tier, result = ("FAIL", "float32", exact) if exact.outcome is Outcome.FAIL else _said(half)
    if said == "PASS" and exact.findings:
        said, tier, result = "WARN", "float32", exact
    culprits = tuple(f.op.split()[0] for f in result.findings if f.op)
    cure = _cured(trial) if result is half and said == "FAIL" else ""
    spent = time.monotonic() - started
    return Row(case.name, case.verdict, said, tier, culprits, case.culprits, result.message, spent, cure)


def _cured(trial: Trial) -> str:
    """Say what was kept in float32, converted and judged again."""
    record = remedy.examine(trial, policy.load("float16", trial.around.config.folder))
    if record.cure is None:
        return f"no cure: {record.no_cure}"
    kept = " ".join(record.cure.keep_float32)
    return f"cured by {record.cure.ops}{' (minimal)' if record.cure.minimal else ''}: {kept}"


def judge_fidelity(trial: Trial) -> Result:
    """The fidelity check on a case."""
    return base.run(fidelity.CHECK, _subject(trial))[0]


def judge_float16(trial: Trial) -> Result:
    """The float16 check on a case."""
    return base.run(float16.CHECK, _subject(trial))[0]


def _subject(trial: Trial) -> base.Subject:
    package = trial.conversion.float16
    assert package is not None
    candidate = Candidate(Role.SHIP, policy.load("float16", trial.around.config.folder), read_package(package))
    return trial.subject(candidate, None, package)


def _said(result: Result) -> tuple[str, str, Result]:
    rules = {f.rule for f in result.findings}
    narrow = "Neural Engine" in result.message or "float16.narrow" in rules
    tier = "narrow" if narrow else "accumulate16" if "float16.accumulate16" in rules else "declared"
    if result.outcome is not Outcome.PASS:
        return result.outcome.upper(), tier, result
    warned = any(f.severity is Severity.WARNING for f in result.findings)
    return ("WARN", tier, result) if warned else ("PASS", "", result)


def main(prefixes: Sequence[str]) -> int:
    """Print the table; return 1 where a case got the wrong answer."""
    logging.disable(logging.WARNING)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in load_cases(*(prefixes or PREFIXES)):
            row = judge_case(case, Path(folder))
            rows.append(row)
            print(_line(row), flush=True)
    print(_summary(rows) if rows else "")
    whole = _print_whole(prefixes or whole_cases.PREFIXES)
    return int(any(not row.right for row in (*rows, *whole)))


def _print_whole(prefixes: Sequence[str]) -> list[whole_cases.Row]:
    """The cases that the whole gate judges: those from the field, and more of the same kinds."""
    cases = [case for folder in (CASES, MORE_CASES) for case in load_cases(*prefixes, folder=folder)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            if case.name.startswith(whole_cases.PREFIXES):
                rows.append(whole_cases.judge_case(case, Path(folder) / case.name))
                print(whole_cases.line(rows[-1]), flush=True)
    if rows:
        print(whole_cases.summary(rows))
    return rows


def _line(row: Row) -> str:
    mark = "ok " if row.right else "***"
    rank = "-" if not row.accepted else str(row.rank or "none")
    named = ",".join(row.culprits) or "-"
    return f"{mark} {row.case:36} {row.expected:5} {row.said:5} {row.tier:12} rank {rank:4} {named:40} {row.cure or row.message[:90]} [{row.seconds:.1f} s]"


def _summary(rows: Sequence[Row]) -> str:
    blamed = [row for row in rows if row.accepted and row.case.startswith("fp16")]
    first = sum(row.rank == 1 for row in blamed)
    top = sum(row.rank is not None and row.rank <= 3 for row in blamed)
    controls = [row for row in rows if row.expected == "PASS"]
    flagged = [row.case for row in controls if row.said in ("FAIL", "ERROR")]
    return (
        f"{sum(row.right for row in rows)} of {len(rows)} verdicts; culprit first in {first}, among three in {top} of {len(blamed)}; "
        f"{sum(row.cure.startswith('cured') for row in rows)} of {sum(bool(row.cure) for row in rows)} cured; "
        f"{len(flagged)} of {len(controls)} controls fail; {sum(row.seconds for row in rows):.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
