# SPDX-License-Identifier: Apache-2.0
"""What does `handover.json` say? The record of a hand-over, light enough to be read where no engine is installed."""

from pathlib import Path

from pydantic import Field, ValidationError

from gate.document import Record, dotted
from gate.errors import UsageError
from gate.report import Digest, Name, PackageFile, Role, Run, Text

RECORD = "handover.json"
MAX_RECORD_BYTES = 32_000_000


class HandedCandidate(Record):
    """One package to judge, and what it was made from."""

    role: Role = Field(description="ship or explore")
    policy: Name = Field(description="name of the policy")
    given: Text = Field(description="the policy as gate.yml names it")
    summary: Text = Field(default="", description="what the policy does, in one line")
    policy_digest: Digest = Field(description="digest of the policy as read")
    package: Name = Field(description="the package, below the folder")
    package_digest: Digest | None = Field(description="digest of program and weights")
    before: Name | None = Field(default=None, description="the package that compression started from")
    base: Name | None = Field(default=None, description="the package that the baseline shipped")


class HandedModel(Record):
    """One model entry."""

    name: Name = Field(description="name of the entry")
    source: Text = Field(default="", description="where it comes from")
    source_digest: Digest | None = Field(default=None, description="digest of the source and its weights")
    deployment_target: Text = Field(default="", description="minimum OS")
    route: Text | None = Field(default=None, description="conversion route that was taken")
    float32: Name | None = Field(default=None, description="what the converter means, without rounding")
    float16: Name | None = Field(default=None, description="the same in half precision")
    finished: Name | None = Field(default=None, description="the package as the team handed it over")
    origin: Text = Field(default="", description="where the samples come from, in words")
    kinds: tuple[Name, ...] = Field(default=(), max_length=10_000, description="kind of each sample")
    reference: Text = Field(default="", description="what the answers are compared with")
    no_reference: Text = Field(default="", description="why there is none")
    samples: Name = Field(description=".npz of the samples and the reference's answers")
    items: Name | None = Field(default=None, description=".npz of the data set's items")
    answers: Name | None = Field(default=None, description=".npz of the reference's answers to the items")
    candidates: tuple[HandedCandidate, ...] = Field(default=(), max_length=1_000, description="the shipped one first")


class Handover(Record):
    """handover.json."""

    version: int = Field(default=1, ge=1, le=1, description="version of this format")
    run: Run = Field(description="circumstances of the run that converted")
    models: tuple[HandedModel, ...] = Field(max_length=1_000, description="the model entries")
    files: tuple[PackageFile, ...] = Field(max_length=100_000, description="every other file of the folder")


def read_record(folder: Path) -> Handover:
    """Read the record of a hand-over; what does not fit the schema is a UsageError."""
    return parse_record(read_bytes(folder), folder)


def read_bytes(folder: Path) -> bytes:
    """Return the bytes of the record; their digest is that of the whole hand-over."""
    file = folder / RECORD
    if not file.is_file() or file.is_symlink():
        raise UsageError(f"--from {folder}: no {RECORD}; expected a folder that `gate check --hand-over` wrote")
    with file.open("rb") as stream:
        raw = stream.read(MAX_RECORD_BYTES + 1)
    if len(raw) > MAX_RECORD_BYTES:
        raise UsageError(f"--from {folder}: {RECORD} has more than {MAX_RECORD_BYTES} bytes")
    return raw


def parse_record(raw: bytes, folder: Path) -> Handover:
    """Read the record; UsageError names what does not fit."""
    try:
        return Handover.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"--from {folder}: {RECORD}: {dotted(first['loc'])}: {first['msg']}") from None
