# SPDX-License-Identifier: Apache-2.0
"""What do the steps of one run tell each other? Two files in the work folder, out of reach of the evaluated code."""

from enum import StrEnum

from pydantic import Field

from gate.document import Record


class Sandbox(StrEnum):
    CONTAINER = "container"
    NAMESPACES = "namespaces"
    NONE = "none"


class LimitsOf(StrEnum):
    """Whose limits count."""

    WORKING_TREE = "working tree"  # no pull request: what is there
    BASE = "base"  # the pull request touches no file that holds limits
    BOTH = "both"  # it does; base's and its own
    OWN = "own"  # base has none


class Plan(Record):
    """What `prepare` decided, for the two other steps. The folder that holds it is out of reach of the evaluated code."""

    concerned: tuple[str, ...] = Field(description="model entries to judge; none when the change touches none")
    sandbox: Sandbox = Field(description="what keeps their code apart")
    image: str = Field(default="", description="container image, by digest or as built here")
    commit: str = Field(default="", description="commit that is judged")
    base_commit: str = Field(default="", description="commit that it is compared with")
    event: str = Field(default="", description="GitHub event")
    limits: LimitsOf = Field(default=LimitsOf.WORKING_TREE, description="whose limits count")
    approved_by: str = Field(default="", description="who accepted that the pull request changes limits")
    edited: tuple[str, ...] = Field(default=(), description="files of the evaluation itself that the change edits")
    config: str = Field(default="gate.yml", description="the configuration, relative to the repository root")
    carried: tuple[str, ...] = Field(default=(), description="entries of which nothing changed, with a last result")
    contents: dict[str, str] = Field(default_factory=dict, description="digest of what each entry rests on")
    handed: str = Field(default="", description="folder of a hand-over to judge, instead of the checkout")
    earlier: tuple[str, ...] = Field(default=(), description="which earlier reports were fetched: base, release")

    @property
    def config_from(self) -> str:
        """Where the limits come from, as the report says it."""
        both = "head" if self.approved_by else "base and head"
        return {LimitsOf.BOTH: both, LimitsOf.OWN: "head"}.get(self.limits, self.limits.value)


class Evaluated(Record):
    """How `gate check` ended."""

    exit_code: int = Field(description="its exit code")
    message: str = Field(default="", description="the end of what it printed")
