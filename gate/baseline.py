# SPDX-License-Identifier: Apache-2.0
"""What did an earlier report say about the same model entry?

A baseline that failed its own gate, or that another schema wrote, is refused with the reason: comparing with it would bless
what it failed for.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gate.document import dotted
from gate.errors import UsageError
from gate.report import Candidate, Finding, Outcome, Report, Severity

MAX_BYTES = 32_000_000
REPORT = "report.json"


@dataclass(frozen=True)
class Baseline:
    """An earlier report that may be compared with."""

    report: Report
    folder: Path

    def shipped(self, model: str) -> Candidate | None:
        """The shipped candidate of a model entry, if the baseline knows it."""
        return next((m.shipped for m in self.report.models if m.name == model), None)

    def package_bytes(self, model: str) -> int | None:
        """Size of the shipped package."""
        shipped = self.shipped(model)
        return sum(file.bytes for file in shipped.files) if shipped and shipped.files else None

    def total_bytes(self) -> int | None:
        """Size of all shipped packages together."""
        sizes = [self.package_bytes(model.name) for model in self.report.models]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None


def read_report(path: Path) -> Report:
    """Read report.json; what does not fit the schema is a UsageError."""
    if not path.is_file():
        raise UsageError(f"{path}: {_found(path)}")
    with path.open("rb") as stream:
        return parse_report(stream.read(MAX_BYTES + 1), str(path))


def _found(path: Path) -> str:
    """Say what is there instead of a report, and what to name."""
    if not path.is_dir():
        return "no such report"
    inside = [f for f in (path / REPORT, path / "gate-out" / REPORT) if f.is_file()]
    return f"a folder, expected a report.json; name {inside[0] if inside else f'the file, such as {path / REPORT}'}"


def parse_report(data: bytes, where: str) -> Report:
    """Read a report that somebody else may have written; what does not fit the schema is a UsageError."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where}: more than a report may have, expected at most {MAX_BYTES} bytes")
    try:
        return Report.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{where}: not a report of this version: {dotted(first['loc'])}: {first['msg']}") from None


def load_baseline(path: Path | None, kind: str = "baseline") -> tuple[Baseline | None, tuple[Finding, ...]]:
    """Read an earlier report; one that must not be compared with is left out, and a finding says why."""
    if path is None:
        return None, ()
    report = read_report(path)
    if report.outcome in (Outcome.FAIL, Outcome.ERROR):
        how = "failed its own gate" if report.outcome is Outcome.FAIL else "has no answer to some of its own questions"
        message = f"{kind} {path.name} {how}; it is not compared with"
        advice = "use the report of a commit that passed"
        return None, (Finding(rule=f"{kind}.failed", severity=Severity.WARNING, message=message, advice=advice),)
    return Baseline(report, path.parent), ()
