# SPDX-License-Identifier: Apache-2.0
"""What does the team's source say? Our side of the worker: ask it, check what comes back, hand on plain data.

Nothing of theirs is imported here. What only their code can say (reference outputs, items, metric values, source map) is
data that was reported; what can be derived from a package is derived from the package.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gate.config import Config, ModelEntry
from gate.errors import SourceFault
from gate.policy import Precision, Target
from gate.protocol import Description, MetricAnswer, SourceMap
from gate.report import Finding

Arrays = dict[str, np.ndarray[Any, Any]]

ROUTES = ("trace", "export", "export-default", "trace-no-mha")


@dataclass(frozen=True)
class Converted:
    """A package on disk and how it came to be. `route` is None for a converter script or a finished package."""

    package: Path
    source_map: SourceMap
    precision: Precision
    route: str | None = None


@dataclass(frozen=True)
class Items:
    """Labelled items of a data set that is code."""

    inputs: tuple[Arrays, ...]
    labels: tuple[Any, ...]
    ids: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()


class ConversionFailed(SourceFault):
    """No package by this route; `findings` name every op that stood in the way."""

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


@dataclass
class Source:
    """One model entry's source, with one worker behind it that starts when it is first needed."""

    entry: ModelEntry
    config: Config
    sandbox: str  # container, namespaces, process, or none when no worker was needed
    log: Path  # what their code and the toolchain printed
    unsupported: list[Finding] = field(default_factory=list)

    def describe(self) -> Description: ...  # type: ignore[empty-body]
    def example_inputs(self) -> Arrays: ...  # type: ignore[empty-body]
    def reference(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Arrays: ...  # type: ignore[empty-body]
    def references(self, items: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> list[Arrays]: ...  # type: ignore[empty-body]
    def convert(  # type: ignore[empty-body]
        self, route: str, precision: Precision, *, keep_float32: Sequence[str] = (), target: Target | None = None
    ) -> Converted: ...
    def items(self) -> Items: ...  # type: ignore[empty-body]
    def metric(self, outputs: Sequence[Mapping[str, np.ndarray[Any, Any]]], labels: Sequence[Any]) -> MetricAnswer: ...  # type: ignore[empty-body]


class Reference(Protocol):
    """What the answers are compared with."""

    kind: str

    def references(self, items: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> list[Arrays]:
        """Return the reference outputs of each item, in order."""
        ...


@dataclass(frozen=True)
class RouteChoice:
    """The route that was taken, how far it is from the reference, and what was learnt about the others."""

    converted: Converted
    error: float | None
    findings: tuple[Finding, ...]


def choose_route(
    source: Source, *, matches: Callable[[Path], float | None], limit: float = 0.001, target: Target | None = None
) -> RouteChoice:
    """Convert in float32 by the first route that is right and not needlessly large; `matches` gives the error, None if it cannot say."""
    raise NotImplementedError


@contextmanager
def open_source(
    entry: ModelEntry,
    config: Config,
    *,
    workdir: Path,
    time_limit: float,
    memory_limit: int,
    extra_pythonpath: Sequence[Path] = (),
    hidden: Sequence[Path] = (),
    in_container: bool = False,
) -> Iterator[Source]:
    """Yield the source of a model entry; its worker and its private folder are gone afterwards, also on Ctrl-C."""
    raise NotImplementedError
    yield


def reference_for(
    entry: ModelEntry, config: Config, source: Source, *, run_package: Callable[[Path, Sequence[Arrays]], list[Arrays]], base: Path | None = None
) -> Reference | None:
    """Return what the entry's answers are compared with, or None where there is nothing (a finished package alone)."""
    raise NotImplementedError
