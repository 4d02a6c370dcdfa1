# SPDX-License-Identifier: Apache-2.0
"""What was asked, measured and decided? `report.json` is the schema of record; everything else is a view of it.

Outcomes are stored, and validated to follow from the results beneath them, so an edited report does not load. Numbers are
finite: an overflow is told as a count. Text that came from outside is length-capped here and escaped where it is shown.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, FiniteFloat, StringConstraints, model_validator

from gate.document import Record
from gate.errors import Exit

SCHEMA_VERSION = 1

Text = Annotated[str, StringConstraints(max_length=4_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=400)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Outcome(StrEnum):
    """What a check can answer."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not_run"
    ERROR = "error"


class Basis(StrEnum):
    """How a number was got."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    ELIGIBLE = "eligible"
    PLANNED = "planned"
    REPORTED = "reported"


class CheckName(StrEnum):
    """The checks, in the order in which a report shows them."""

    FEASIBILITY = "feasibility"
    FIDELITY = "fidelity"
    INTEGRITY = "integrity"
    INTERFACE = "interface"
    FLOAT16 = "float16"
    SIZE = "size"
    MEMORY = "memory"
    ACCURACY = "accuracy"
    LATENCY = "latency"
    APP_SIZE = "app_size"


class Unit(StrEnum):
    """What a measurement is counted in. A fraction of 1 is shown as per cent."""

    BYTES = "bytes"
    FRACTION = "fraction"
    POINTS = "points"  # of a proportion, as a fraction: 0.01 is one point
    DECIBEL = "dB"
    MILLISECONDS = "ms"
    COUNT = "count"
    RATIO = "ratio"
    NUMBER = "number"


class Bound(StrEnum):
    """On which side of its limit a number should be."""

    AT_MOST = "at_most"
    AT_LEAST = "at_least"


class Severity(StrEnum):
    """How much a finding matters. Only an outcome blocks; an `error` finding says why one did."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Role(StrEnum):
    """The shipped candidate decides; explored ones are rows for information."""

    SHIP = "ship"
    EXPLORE = "explore"


class Environment(Record):
    """Where a number was got. Two environments may answer one check; they never overwrite each other."""

    engine: Name = Field(
        description="mil (ours, anywhere), coreml (Apple's runtime), or static (read from the package)"
    )
    os: Text = Field(default="", description="operating system and version")
    device: Text = Field(default="", description="machine or phone")
    compute_units: Text = Field(default="", description="compute units that Core ML was told to use")


class Finding(Record):
    """One thing that was noticed, with what to do about it."""

    rule: Name = Field(description="stable id of the rule, such as float16.overflow")
    severity: Severity = Field(description="info, warning or error")
    message: Text = Field(description="what was found")
    advice: Text = Field(default="", description="what to do")
    op: Text | None = Field(default=None, description="MIL op type and name")
    layer: Text | None = Field(default=None, description="layer path in the torch module")
    source: Text | None = Field(default=None, description="user's file and line, file.py:41")
    evidence: Text | None = Field(default=None, description="link or measurement that supports the rule")

    @property
    def sentence(self) -> str:
        """What was found, at which op and line."""
        return " ".join(
            (self.message, *((f"at {self.op}",) if self.op else ()), *((f"({self.source})",) if self.source else ()))
        )


class Measurement(Record):
    """One number with its unit, and the limit and baseline that it was held against."""

    name: Name = Field(description="what was measured, in snake case")
    value: FiniteFloat = Field(description="the number, in `unit`")
    unit: Unit = Field(description="what it is counted in")
    limit: FiniteFloat | None = Field(default=None, description="the budget, in the same unit")
    bound: Bound = Field(default=Bound.AT_MOST, description="whether the limit is a ceiling or a floor")
    baseline: FiniteFloat | None = Field(default=None, description="the same number before the change")
    low: FiniteFloat | None = Field(default=None, description="lower end of the interval")
    high: FiniteFloat | None = Field(default=None, description="upper end of the interval")
    n: int | None = Field(default=None, ge=0, description="items that were used")
    confidence: float | None = Field(default=None, gt=0, lt=1, description="confidence of each end of the interval")
    method: Text | None = Field(default=None, description="how the interval or number was computed")


class Series(Record):
    """A curve: error along the network, sensitivity, memory over time."""

    name: Name = Field(description="what is drawn")
    x: tuple[FiniteFloat | Text, ...] = Field(max_length=100_000, description="positions or labels")
    y: tuple[FiniteFloat | None, ...] = Field(max_length=100_000, description="values; null where there is none")
    unit: Unit = Field(description="unit of y")
    x_name: Text = Field(default="", description="what x counts, for the axis")
    x_unit: Unit | None = Field(default=None, description="unit of x, where x is numbers")

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r}: {len(self.x)} x values, {len(self.y)} y values")
        return self


class WaiverNote(Record):
    """The accepted exception that turned a failure into a pass."""

    reason: Text = Field(description="why it was accepted")
    owner: Text = Field(description="who accepted it")
    expires: Text = Field(description="last day it holds, YYYY-MM-DD")


class Result(Record):
    """The answer of one check in one environment. Its key is (check, against, environment, slice)."""

    check: CheckName = Field(description="which check")
    outcome: Outcome = Field(description="pass, fail, inconclusive, not_run or error")
    basis: Basis = Field(default=Basis.MEASURED, description="how the numbers were got")
    environment: Environment = Field(default=Environment(engine="static"), description="where they were got")
    against: Name | None = Field(default=None, description="yardstick: source, base or release")
    slice: Name | None = Field(default=None, description="part of the data that this row is about")
    measurements: tuple[Measurement, ...] = Field(
        default=(), max_length=10_000, description="the numbers, the deciding one first"
    )
    series: tuple[Series, ...] = Field(default=(), max_length=100, description="curves")
    message: Text = Field(description="the answer in one plain sentence")
    remedy: Text | None = Field(default=None, description="what to do when it is not a pass")
    findings: tuple[Finding, ...] = Field(default=(), max_length=10_000, description="details for engineers")
    required: bool = Field(
        default=False, description="a budget asked for this answer in this environment: not_run is then no answer"
    )
    identical: bool = Field(default=False, description="the two sides are equal bit for bit")
    waiver: WaiverNote | None = Field(default=None, description="the exception that made a failure pass")

    @property
    def key(self) -> tuple[object, ...]:
        """What makes this answer unique within its candidate."""
        return (self.check, self.against, self.environment, self.slice)


class PackageFile(Record):
    """One file of a package, by the bytes on disk."""

    path: Name = Field(description="path inside the package")
    sha256: Digest = Field(description="digest of the raw bytes")
    bytes: int = Field(ge=0, description="size on disk")


def _refuse_duplicates(results: tuple[Result, ...], where: str) -> None:
    seen: set[object] = set()
    for result in results:
        if result.key in seen:
            raise ValueError(f"{where}: two results for {result.check} with the same yardstick, slice and environment")
        seen.add(result.key)


class InterfaceFeature(Record):
    """One input, output or state, as the app sees it."""

    name: Name = Field(description="name that the app uses")
    kind: Text = Field(description="array, image, class or state")
    dtype: Text = Field(default="", description="element type; empty for labels")
    shape: tuple[int, ...] = Field(default=(), max_length=32, description="default shape")
    enumerated: tuple[tuple[int, ...], ...] = Field(default=(), max_length=1_000, description="shapes that it may have")
    ranges: tuple[tuple[int, int | None], ...] = Field(
        default=(), max_length=32, description="smallest and largest size of each axis; null for no upper bound"
    )
    optional: bool = Field(default=False, description="whether the app may leave it out")
    color: Text = Field(default="", description="colour layout of an image")


class Interface(Record):
    """What the app's code sees of a package; the next report is compared with it."""

    inputs: tuple[InterfaceFeature, ...] = Field(default=(), max_length=1_000, description="inputs, in order")
    outputs: tuple[InterfaceFeature, ...] = Field(default=(), max_length=1_000, description="outputs, in order")
    states: tuple[InterfaceFeature, ...] = Field(default=(), max_length=1_000, description="states")
    functions: tuple[Name, ...] = Field(default=(), max_length=1_000, description="functions of the program")
    predicted_class: Text | None = Field(default=None, description="output that names the class of a classifier")
    probabilities: Text | None = Field(default=None, description="output with the probability of each class")
    classes: int | None = Field(default=None, ge=0, description="number of class labels")
    classes_digest: Digest | None = Field(default=None, description="digest of the labels in their order")


class Candidate(Record):
    """One model entry under one policy."""

    role: Role = Field(description="ship or explore")
    policy: Name = Field(description="name of the policy")
    summary: Text = Field(default="", description="what the policy does, in one line")
    policy_digest: Digest | None = Field(default=None, description="digest of the policy as read")
    package: Text | None = Field(default=None, description="path of the package below the output folder")
    package_digest: Digest | None = Field(
        default=None, description="digest of the program and weights, free of UUIDs and order"
    )
    files: tuple[PackageFile, ...] = Field(default=(), max_length=10_000, description="files of the package")
    interface: Interface | None = Field(default=None, description="what the app's code sees of the package")
    results: tuple[Result, ...] = Field(default=(), max_length=1_000, description="answers, in the order of the checks")
    seconds: FiniteFloat = Field(default=0.0, ge=0, description="time spent on this candidate")

    @model_validator(mode="after")
    def _unique_keys(self) -> Self:
        _refuse_duplicates(self.results, f"candidate {self.policy}")
        return self


class Data(Record):
    """Which data the numeric checks used."""

    dataset: Digest = Field(description="digest of the items and labels")
    items: int = Field(ge=0, description="how many items")
    labelled: bool = Field(description="whether they carry labels")
    per_item: Digest | None = Field(default=None, description="digest of per_item.jsonl")


class Model(Record):
    """One model entry of gate.yml."""

    name: Name = Field(description="name of the entry")
    source: Text = Field(default="", description="where it comes from")
    source_digest: Digest | None = Field(default=None, description="digest of the source and its weights")
    reference: Text = Field(default="", description="what its answers were compared with")
    route: Text | None = Field(default=None, description="conversion route that was taken")
    deployment_target: Text = Field(default="", description="minimum OS, such as iOS17")
    data: Data | None = Field(default=None, description="data that was used")
    log: Text | None = Field(default=None, description="path of the toolchain's own output, below the output folder")
    self_declared: bool = Field(
        default=False, description="judged under its own limits, since the base branch does not know it"
    )
    content_digest: Digest | None = Field(
        default=None,
        description="digest of the files that the entry rests on, as git keeps them, and of its configuration",
    )
    carried: Text | None = Field(
        default=None, description="day and commit of the run that judged it, where this run did not judge it again"
    )
    seconds: FiniteFloat = Field(default=0.0, ge=0, description="time spent on this entry")
    candidates: tuple[Candidate, ...] = Field(max_length=1_000, description="the shipped one first")

    @model_validator(mode="after")
    def _one_ships(self) -> Self:
        shipped = [c.policy for c in self.candidates if c.role is Role.SHIP]
        if len(shipped) != 1 or self.candidates[0].role is not Role.SHIP:
            raise ValueError(f"model {self.name!r}: exactly one candidate ships, and it comes first; found {shipped}")
        return self

    @property
    def shipped(self) -> Candidate:
        """The candidate that decides."""
        return self.candidates[0]


class App(Record):
    """The app as a whole: the shipped candidates of all models."""

    results: tuple[Result, ...] = Field(default=(), max_length=1_000, description="answers about the app")

    @model_validator(mode="after")
    def _unique_keys(self) -> Self:
        _refuse_duplicates(self.results, "app")
        return self


class Part(Record):
    """Which part of a run a report holds. `gate merge` joins the parts, and knows from any one of them what is missing."""

    index: int = Field(ge=1, description="number of this part")
    units: tuple[tuple[Name, ...], ...] = Field(
        min_length=1, max_length=1_000, description="what each part judges: MODEL/POLICY, in the order of the parts"
    )

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.index > len(self.units):
            raise ValueError(f"part {self.index} of {len(self.units)}")
        return self


class Run(Record):
    """Under which circumstances the report was made."""

    commit: Text | None = Field(default=None, description="commit that was judged")
    base_commit: Text | None = Field(default=None, description="commit that it was compared with")
    event: Text | None = Field(default=None, description="GitHub event, or none on the command line")
    config: Text = Field(default="gate.yml", description="configuration file, as given")
    config_digest: Digest = Field(description="digest of the configuration that was applied")
    config_from: Text = Field(
        default="working tree", description="whose limits were applied: base, head, base and head, or working tree"
    )
    approved_by: Text | None = Field(default=None, description="who accepted this change's limits, and how")
    started: Text = Field(default="", description="UTC time, ISO 8601")
    seconds: FiniteFloat = Field(default=0.0, ge=0, description="time spent")
    sandbox: Text = Field(
        default="none", description="what kept the model's code apart: container, namespaces, process or none"
    )
    fail_on: Text = Field(default="fail", description="which outcome blocks: fail, inconclusive or never")
    tools: dict[Name, Text] = Field(default_factory=dict, description="versions of the tools")
    part: Part | None = Field(default=None, description="which part of the run this report holds; none for all of it")
    handover: Digest | None = Field(
        default=None,
        description="digest of the hand-over that it answers: packages, inputs and reference of another run",
    )


class Report(Record):
    """The record of all of it."""

    schema_version: int = Field(
        default=SCHEMA_VERSION, ge=SCHEMA_VERSION, le=SCHEMA_VERSION, description="version of this schema"
    )
    outcome: Outcome = Field(description="the verdict: the worst answer about a shipped candidate or the app")
    run: Run = Field(description="circumstances")
    findings: tuple[Finding, ...] = Field(default=(), max_length=1_000, description="findings about the run itself")
    app: App = Field(default=App(), description="the app as a whole")
    models: tuple[Model, ...] = Field(default=(), max_length=1_000, description="the model entries that were judged")

    @model_validator(mode="after")
    def _outcome_follows(self) -> Self:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"model names appear twice: {names}")
        if self.outcome is not (derived := verdict(self.deciding())):
            raise ValueError(f"outcome is {self.outcome}, but it follows from the results to be {derived}")
        return self

    def deciding(self) -> tuple[Result, ...]:
        """Every result that counts: of the app and of the shipped candidates."""
        return self.app.results + tuple(result for model in self.models for result in model.shipped.results)


def verdict(results: tuple[Result, ...]) -> Outcome:
    """Return the worst outcome; nothing to judge passes, and `not_run` counts only where an answer was required.

    A failure outweighs a missing answer: both block, and the failure is what the author can mend (design, exit codes).
    """
    counted = {Outcome.ERROR if r.outcome is Outcome.NOT_RUN and r.required else r.outcome for r in results}
    for outcome in (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE):
        if outcome in counted:
            return outcome
    return Outcome.PASS


def exit_code(outcome: Outcome, fail_on: str) -> Exit:
    """Return what a command or a job ends with. Inconclusive is neutral unless the team says otherwise."""
    if fail_on == "never":
        return Exit.PASS
    neutral = Exit.NO_ANSWER if fail_on == "inconclusive" else Exit.PASS
    codes = {Outcome.FAIL: Exit.FAIL, Outcome.ERROR: Exit.NO_ANSWER, Outcome.INCONCLUSIVE: neutral}
    return codes.get(outcome, Exit.PASS)


def make_report(run: Run, models: tuple[Model, ...], app: App = App(), findings: tuple[Finding, ...] = ()) -> Report:  # noqa: B008
    """Assemble a report; its outcome follows from its parts."""
    results = app.results + tuple(result for model in models for result in model.shipped.results)
    return Report(outcome=verdict(results), run=run, models=models, app=app, findings=findings)
