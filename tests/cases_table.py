# SPDX-License-Identifier: Apache-2.0
"""What does the gate say about the failures from the field? `make cases` prints the table.

    python -m tests.cases_table [PREFIX…]

Without a prefix: the float16 cases, and those that `fidelity` and exact integers decide; then the float16 cases of our own.

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
TIERS = {"wide": "declared", "narrow": "narrow", "acc16": "accumulate16"}  # the cases' names for our roundings
ARGUED = {  # where what we say is not the label itself
    "pit_809_gather_int16_data": "no cure by precision: a pass narrows integers; the advice is to remove it",
    "pit_823_rmsnorm_eps_inflation": "ROUTE: the trace route is wrong, another converts rightly and is taken",
}


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
    named_tier: str = ""  # the rounding at which the case was said to fail, in our words

    @property
    def right(self) -> bool:
        if self.expected == "ROUTE":
            return self.said == "PASS"
        return self.said == self.expected and (not self.named_tier or self.tier == self.named_tier)

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
    named = TIERS.get(case.facts.get("tier", ""), "") if case.verdict in ("FAIL", "WARN") and result is half else ""
    return Row(case.name, case.verdict, said, tier, culprits, case.culprits, result.message, spent, cure, named)


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
    """Print the tables; return 1 where a case got the wrong answer."""
    logging.disable(logging.WARNING)
    tables = (
        ("From the field", CASES, tuple(prefixes) or PREFIXES),
        ("Our own, written after the table above was right", MORE_CASES, tuple(prefixes) or ("fp16_",)),
    )
    cases = [(title, _numeric(load_cases(*chosen, folder=folder))) for title, folder, chosen in tables]
    rows = [row for title, some in cases if some for row in _table(title, some)]
    print(f"\nTogether: {_summary(rows)}" if rows else "")
    whole = [row for folder in (CASES, MORE_CASES) for row in _whole(prefixes or whole_cases.PREFIXES, folder)]
    print(f"\nTogether: {whole_cases.summary(whole)}" if whole else "")
    return int(any(not row.right for row in (*rows, *whole)))


def _numeric(cases: Sequence[Case]) -> list[Case]:
    """The cases that are decided by numbers alone."""
    return [case for case in cases if case.name.startswith(PREFIXES)]


def _whole(prefixes: Sequence[str], folder: Path) -> list[whole_cases.Row]:
    """The cases that every check has a word in: those from the field, and our own of the same kinds."""
    cases = [c for c in load_cases(*prefixes, folder=folder) if c.name.startswith(whole_cases.PREFIXES)]
    if not cases:
        return []
    rows = []
    print(f"\nFeasibility, pitfalls and compression, {folder.name}: {len(cases)} cases")
    with tempfile.TemporaryDirectory() as work:
        for case in cases:
            rows.append(whole_cases.judge_case(case, Path(work) / case.name))
            print(whole_cases.line(rows[-1]), flush=True)
    print(f"  {whole_cases.summary(rows)}")
    return rows


def _table(title: str, cases: Sequence[Case]) -> list[Row]:
    """Print the rows as they come, and what each group of cases came to."""
    print(f"\n{title}: {len(cases)} cases")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            rows.append(judge_case(case, Path(folder)))
            print(_line(rows[-1]), flush=True)
    groups = sorted({_group(row) for row in rows})
    for group in groups:
        print(f"  {group:8} {_summary([row for row in rows if _group(row) == group])}")
    return rows


def _group(row: Row) -> str:
    """Cases of a hundred belong together; of our own, failures and controls."""
    head, second, *_ = row.case.split("_")
    kind = f"{second[0]}xx" if second[:1].isdigit() else "controls" if second == "ok" else "losses"
    return f"{head}_{kind}"


def _line(row: Row) -> str:
    mark = "ok " if row.right else "***"
    rank = "-" if not row.accepted else str(row.rank or "none")
    named = ",".join(row.culprits) or "-"
    told = ARGUED.get(row.case) or row.cure or row.message[:90]
    return f"{mark} {row.case:36} {row.expected:5} {row.said:5} {row.tier:12} rank {rank:4} {named:40} {told} [{row.seconds:.1f} s]"


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
