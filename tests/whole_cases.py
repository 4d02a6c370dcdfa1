# SPDX-License-Identifier: Apache-2.0
"""What does the whole gate say about a case of feasibility, of a pitfall or of compression? The second table of `make cases`.

Every check is asked, as `gate check` does. FAIL: one of them fails. ROUTE: none fails, and a finding names the op of the route that
does not work. WARN: none fails, and a finding of severity warning names it. PASS: none fails. Whatever is expected, the case's op, layer
or rule must be named in a finding or in a message.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate import policy
from gate.policy import Policy
from gate.report import Finding, Outcome, Result, Role, Severity
from tests.case_source import Case, make_trial

PREFIXES = ("conv_", "dyn_", "pit_", "cmp_")


@dataclass(frozen=True)
class Row:
    """One case, what was said, and by which check."""

    case: str
    expected: str
    said: str
    check: str
    named: bool
    op: str
    message: str
    seconds: float

    @property
    def right(self) -> bool:
        return self.said == self.expected and self.named


def judge_case(case: Case, work: Path) -> Row:
    """Judge one case by every check."""
    started = time.monotonic()
    trial = make_trial(case.config, work)
    results = trial.judge(_policy(case), Role.SHIP).results
    said, result = _said(results, case)
    found = _named(case, results)
    op = next((f.op or f.rule for f in found), "")
    message = next((f.message for f in found), result.message)
    return Row(
        case.name,
        case.verdict,
        said,
        result.check,
        bool(found) or not case.culprits,
        op,
        message,
        time.monotonic() - started,
    )


def _said(results: tuple[Result, ...], case: Case) -> tuple[str, Result]:
    for outcome in (Outcome.FAIL, Outcome.ERROR):
        if (bad := next((r for r in results if r.outcome is outcome), None)) is not None:
            return outcome.upper(), bad
    named = _named(case, results)
    if case.verdict == "ROUTE" and any(f.rule.startswith("convert.") for f in named):
        return "ROUTE", results[0]
    warned = [r for r in results if any(f.severity is Severity.WARNING for f in r.findings)]
    if case.verdict != "PASS" and warned:
        return "WARN", warned[0]
    return "PASS", results[0]


def _named(case: Case, results: tuple[Result, ...]) -> list[Finding]:
    """The findings that name the case's op; of a case without one, the warnings."""
    severities = (Severity.WARNING,) if case.verdict == "WARN" else tuple(Severity)
    found = [f for r in results for f in r.findings if f.severity in severities]
    return [f for f in found if not case.culprits or any(_names(f, name) for name in case.culprits)]


def _names(finding: Finding, name: str) -> bool:
    text = f"{finding.op or ''} {finding.layer or ''} {finding.message}"
    return re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", text) is not None


def _policy(case: Case) -> Policy:
    """The policy file that says what the case's coremltools call says."""
    given: dict[str, Any] | None = case.facts.get("compress")
    if given is None:
        return policy.load("float16", case.path.parent)
    body = {"name": "case", "summary": "of the case", "precision": "float16", "steps": [_step(given)]}
    return Policy.model_validate(body | {"requires": {"deployment_target": case.facts.get("target", "iOS17")}})


def _step(given: dict[str, Any]) -> dict[str, Any]:
    kind = {"palettize": "palettize", "linear": "quantize", "prune": "prune"}[given["method"]]
    names = {"nbits": "bits", "enable_per_channel_scale": "per_channel_scale", "target_sparsity": "sparsity"}
    fields = {names.get(key, key): value for key, value in given.items() if key != "method"}
    if "sparsity" in fields:
        fields["sparsity"] = f"{100 * fields['sparsity']:g} %"
    return {kind: fields}


def line(row: Row) -> str:
    """One line of the table."""
    mark = "ok " if row.right else "***"
    told = row.op or ("" if row.named else "not named")
    return f"{mark} {row.case:38} {row.expected:5} {row.said:5} {row.check:12} {told[:44]:44} {row.message[:80]} [{row.seconds:.1f} s]"


def summary(rows: list[Row]) -> str:
    """How many verdicts are right, and whether a control failed."""
    controls = [row for row in rows if row.expected == "PASS"]
    flagged = sum(row.said in ("FAIL", "ERROR") for row in controls)
    wrong = ", ".join(row.case for row in rows if not row.right)
    return (
        f"{sum(row.right for row in rows)} of {len(rows)} get the expected verdict and name the expected op; "
        f"{flagged} of {len(controls)} controls fail; {sum(row.seconds for row in rows):.0f} s{'; not: ' + wrong if wrong else ''}"
    )
