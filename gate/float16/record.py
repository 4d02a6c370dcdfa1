# SPDX-License-Identifier: Apache-2.0
"""What does `gate float16 --json` say? The record itself; its schema is docs/schemas/float16.schema.json."""

from pydantic import Field, FiniteFloat

from gate.document import Record
from gate.quantity import percent
from gate.report import Finding, Name, Outcome, Result, Text


class CulpritRecord(Record):
    """One op that is to blame, the worst first."""

    op: Text = Field(description="MIL op type")
    name: Text = Field(description="MIL name in the float32 program")
    layer: Text | None = Field(default=None, description="layer path in the torch module")
    source: Text | None = Field(default=None, description="user's file and line")
    damage: FiniteFloat = Field(
        description="what this op alone, in float16, does to the outputs: error as a fraction of their range; 10 for infinities or NaN"
    )
    local_error: FiniteFloat = Field(description="what it loses by itself, as a fraction of its result's range")
    cause: Text = Field(
        description="overflow, underflow, cancellation, resolution, accumulation, composite, integers or converter"
    )
    margin: Text = Field(description="how far its values are over the edge")
    advice: Text = Field(description="the rewrite that helps")
    evidence: Text | None = Field(default=None, description="where that is told")


class CureRecord(Record):
    """The least that has to stay in float32: converted again and judged."""

    keep_float32: tuple[Text, ...] = Field(
        description="patterns for gate.yml or a policy: LAYER, LAYER/OP or LAYER/OP:NUMBER"
    )
    policy: Text = Field(description="the policy fragment, YAML")
    call: Text = Field(description="the same as a coremltools call")
    ops: int = Field(ge=0, description="ops of the float32 program that are kept")
    minimal: bool = Field(description="whether every smaller set of the candidates was tried")
    conversions: int = Field(ge=1, description="conversions that it took")
    bytes_before: int = Field(ge=0, description="package size in float16 throughout")
    bytes_after: int = Field(ge=0, description="package size with the cure")
    casts_before: int = Field(ge=0, description="casts between float types before")
    casts_after: int = Field(ge=0, description="casts between float types after")
    after: Result = Field(description="the float16 check of the mended package")


class Float16Record(Record):
    """Blame and cure of one model."""

    schema_version: int = Field(default=1, ge=1, le=1, description="version of this schema")
    model: Name = Field(description="model entry of gate.yml")
    result: Result = Field(description="the float16 check, as in report.json")
    fidelity: Result | None = Field(
        default=None, description="the float32 program against the source: a converter's bug comes first"
    )
    tier: Text | None = Field(default=None, description="rounding under which the model was investigated")
    spread: bool = Field(default=False, description="many small losses, no single op to blame")
    untrained: bool = Field(
        default=False, description="the weights are at their initial values, so the numbers mislead"
    )
    kept_float32: tuple[Text, ...] = Field(
        default=(), description="ops that the float16 program computes in float32 already"
    )
    culprits: tuple[CulpritRecord, ...] = Field(default=(), description="ops to blame, the worst first")
    tried: int = Field(default=0, ge=0, description="trials that were run")
    evaluations: FiniteFloat = Field(default=0.0, ge=0, description="their cost, in evaluations of the model")
    cure: CureRecord | None = Field(default=None, description="what to keep in float32")
    no_cure: Text | None = Field(default=None, description="why there is none")
    findings: tuple[Finding, ...] = Field(default=(), description="anything else that was noticed")

    @property
    def failed(self) -> bool:
        """Does the model need mending?"""
        results = (self.result, *([self.fidelity] if self.fidelity else []))
        return any(r.outcome is Outcome.FAIL for r in results)

    def text(self) -> str:
        """Show it for a person."""
        return "\n".join(_lines(self))


def _lines(record: Float16Record) -> list[str]:
    lines = [f"{record.model}: {record.result.outcome.upper()}  {record.result.message}"]
    if record.fidelity is not None and record.fidelity.outcome is Outcome.FAIL:
        lines += [f"  fidelity first: {record.fidelity.message}"]
        lines += [f"    {f.op} {f.source or ''}: {f.message} {f.advice}" for f in record.fidelity.findings if f.op]
    if record.untrained:
        lines.append("  note: the weights are at their initial values; a trained model may lose more or less")
    if record.kept_float32:
        lines.append(
            f"  already in float32: {', '.join(record.kept_float32[:8])}{' …' if len(record.kept_float32) > 8 else ''}"
        )
    if record.spread:
        lines.append("  no single op is to blame: many small losses add up")
    for rank, culprit in enumerate(record.culprits[:5], 1):
        lines += _culprit_lines(rank, culprit)
    if record.tier:
        lines.append(f"  {record.tried} trials, the time of {record.evaluations:.1f} evaluations of the model")
    lines += [f"  {f.message} {f.advice}".rstrip() for f in record.findings]
    return lines + _cure_lines(record)


def _culprit_lines(rank: int, culprit: CulpritRecord) -> list[str]:
    alone = (
        "makes outputs infinite or NaN" if culprit.damage >= 10 else f"alone: {percent(culprit.damage)} of the range"
    )
    where = " ".join(part for part in (culprit.layer, culprit.source) if part)
    return [
        f"  {rank}. {culprit.op} {culprit.name}  {where}",
        f"     {alone}; {culprit.cause}: {culprit.margin}",
        f"     {culprit.advice}{f' ({culprit.evidence})' if culprit.evidence else ''}",
    ]


def _cure_lines(record: Float16Record) -> list[str]:
    cure = record.cure
    if cure is None:
        return [f"  no cure by precision: {record.no_cure}"] if record.no_cure else []
    return [
        f"  cure: {cure.ops} op{'s' if cure.ops != 1 else ''} in float32{' (the least possible)' if cure.minimal else ''}",
        f"  converted and judged: {cure.after.message}",
        f"  cost: {cure.bytes_after - cure.bytes_before:+,} bytes, {cure.casts_after - cure.casts_before:+d} casts",
        *(f"    {line}" for line in cure.policy.splitlines()),
        *(f"    {line}" for line in cure.call.splitlines()),
    ]
