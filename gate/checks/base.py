# SPDX-License-Identifier: Apache-2.0
"""How does a check give its answer, and what becomes of a check that cannot?

A check is one question about a candidate. In its module, `measure()` gathers facts and pure `judge()` compares them with the
budget. What stops a check from answering becomes an outcome with a reason: never a traceback, never a pass.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gate.baseline import Baseline
from gate.bench import Bench
from gate.candidate import Candidate
from gate.compress import Compressed
from gate.config import Config, ModelEntry, Waiver
from gate.conversion import Conversion
from gate.engine import Engine
from gate.errors import GateError, UsageError, is_full
from gate.mil import MilError
from gate.report import CheckName, Environment, Finding, Outcome, Result, Severity

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """All that a check may look at, about one candidate of one model entry."""

    config: Config
    entry: ModelEntry
    candidate: Candidate
    conversion: Conversion
    bench: Bench
    engine: Engine
    baseline: Baseline | None = None
    release: Baseline | None = None
    refused: Mapping[str, str] = field(default_factory=dict)  # yardstick -> why its report is not compared with
    compressed: Compressed | None = None
    before: Path | None = None  # the package that compression started from
    base_package: Path | None = None  # what the baseline shipped, where its report brings it
    waivers: tuple[Waiver, ...] = ()  # of every entry
    out: Path = field(default=Path())


@dataclass(frozen=True)
class Check:
    """One question about a candidate."""

    name: CheckName
    question: str  # as a reviewer would ask it
    answer: Callable[[Subject], tuple[Result, ...]]


def run(check: Check, subject: Subject) -> tuple[Result, ...]:
    """Return the check's results, or the one result that says why it has none."""
    try:
        return check.answer(subject)
    except UsageError:
        raise  # what was asked cannot be done as written: that is no missing answer
    except (MilError, GateError) as error:
        return (no_answer(check.name, str(error), subject.engine.environment),)
    except Exception as error:
        if isinstance(error, OSError) and is_full(error):
            raise  # the report could not be written either
        LOG.exception("check %s of %s", check.name, subject.entry.name)
        message = f"the gate itself failed: {type(error).__name__}: {error}"
        return (no_answer(check.name, message, subject.engine.environment, "please report this with the log file"),)


def no_answer(check: CheckName, message: str, environment: Environment, remedy: str | None = None) -> Result:
    """An infrastructure or toolchain fault kept the check from answering."""
    return Result(check=check, outcome=Outcome.ERROR, message=message[:4_000], environment=environment, remedy=remedy)


def not_run(check: CheckName, why: str, *, required: bool = False, environment: Environment | None = None) -> Result:
    """Nobody asked, or it is not possible here."""
    where = environment or Environment(engine="static")
    return Result(check=check, outcome=Outcome.NOT_RUN, message=why, required=required, environment=where)


def not_judged(check: CheckName, why: str) -> Finding:
    """A budget is set, and this run could not hold anything against it."""
    return Finding(rule=f"{check}.not_judged", severity=Severity.WARNING, message=why)
