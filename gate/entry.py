# SPDX-License-Identifier: Apache-2.0
"""What happens to one model entry: source → bench → conversion → a candidate per policy → its results.

What goes wrong is told where it belongs: the team's own fault is `feasibility: fail`, infrastructure is `error`, and a path
or function that does not exist stops the run as wrong usage.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from gate import calibration, data, heap, metrics, unread, waivers
from gate.ahead import Ahead
from gate.baseline import Baseline
from gate.bench import Array, Bench, Drawn, Sample, answered, check_items, first_items, is_steady, make_samples
from gate.candidate import Candidate, computes_float32, program_digest, read_package
from gate.checks import CHECKS, base, feasibility
from gate.checks.accuracy import metric_for
from gate.compress import Calibration, Compressed, Workers, cast_float16, compress
from gate.config import Config, ModelEntry, Splits, Waiver
from gate.conversion import Conversion, convert, failed
from gate.data import Dataset, Part
from gate.earlier import per_item_path
from gate.engine import Engine
from gate.errors import DamagedPackage, GateError, NoAnswer, SourceFault, UsageError
from gate.evidence import check_labels
from gate.files import sha256_file
from gate.handover import Writer
from gate.importing import import_ahead
from gate.interface import interface_of
from gate.mil import BadPackage, MilError
from gate.patterns import by_own_layer, kinds_in, names_of, unmatched
from gate.policy import Policy, Precision, Target
from gate.report import Candidate as CandidateRecord
from gate.report import CheckName, Data, Result, Role
from gate.source import Reference, Source, StoredReference, reference_for, why_unread

SEARCH_SHARE = (
    0.3  # of the items, where gate.yml keeps none for a search; the more certify, the smaller the drop proven
)


@dataclass(frozen=True)
class Circumstances:
    """What a model entry is judged under."""

    config: Config
    engine: Engine
    baseline: Baseline | None
    waivers: tuple[Waiver, ...]
    cache: Path | None
    workers: Workers
    work: Path  # packages/, logs/ and per_item/ go here
    release: Baseline | None = None
    refused: Mapping[str, str] = field(default_factory=dict)  # yardstick -> why its report is not compared with
    handover: Writer | None = None  # what another machine gets to judge
    left: tuple[CheckName, ...] = ()  # checks that are left to that machine


@dataclass
class Trial:
    """One model entry on its way through the gate."""

    entry: ModelEntry
    source: Source
    around: Circumstances
    scratch: Path
    conversion: Conversion = field(default_factory=Conversion)
    bench: Bench = field(default_factory=lambda: Bench((), ""))
    digest: str | None = None
    searches: bool = False  # is its policy to be found?
    search_items: Dataset | None = None
    unread: str | None = None  # why only its size can be judged
    ahead: Ahead | None = None

    @property
    def target(self) -> Target:
        """The entry's deployment target."""
        return self.around.config.target(self.entry)

    def prepare(self) -> None:
        """Ask the source, build the bench and convert; a fault becomes the conversion's."""
        try:
            if self.entry.source.kind in ("coreml", "converter"):
                self._prepare_finished()
            else:
                self._prepare_torch()
        except (SourceFault, NoAnswer) as error:
            self.conversion = failed(error)

    def _prepare_torch(self) -> None:
        import_ahead("torch")  # the worker takes as long to start
        self.digest = self.source.describe().digest
        self.bench = self._make_bench(self.source.example_inputs())
        self.conversion = convert(self.source, self.entry, self.target, self.around.engine, self.bench)

    def _prepare_finished(self) -> None:
        package = self.source.finished.package
        self.conversion = Conversion(finished=package)
        self.unread = why_unread(package)
        if self.unread is not None:
            return
        try:
            told = unmatched(self.entry.keep_float32, names_of(kinds_in(package), {}), ())
            self.digest = program_digest(package)
        except MilError as error:
            where = self.entry.source.location
            fault = DamagedPackage if isinstance(error, BadPackage) else SourceFault
            raise fault(f"{where}: {error}".replace(f"{package}/", "")) from error
        self.conversion = Conversion(finished=package, findings=tuple(told))
        self.bench = self._make_bench(self.source.example_inputs())

    def _make_bench(self, example: dict[str, Array]) -> Bench:
        dataset = self._dataset()
        for items in filter(None, (dataset, self.search_items)):
            check_items(example, self.entry, items)
        if dataset is not None:
            self._check_labels(dataset)
        reference = reference_for(
            self.entry, self.around.config, self.source, run_package=self._run_package, base=self._base_package()
        )
        drawn = self._samples(example, dataset, reference)
        if reference is None:
            why = "There is no reference: a finished package needs one in gate.yml, such as reference: {onnx: …}."
            return Bench(
                drawn.samples,
                drawn.origin,
                no_reference=why,
                dataset=dataset,
                example=example,
                kinds=drawn.kinds,
                own_metric=self._own_metric(),
            )
        drawn, answers = answered(drawn, reference.references)
        return Bench(
            drawn.samples,
            drawn.origin,
            answers,
            reference.kind,
            dataset=dataset,
            example=example,
            references=reference.references,
            kinds=drawn.kinds,
            own_metric=self._own_metric(),
            steps=self.source.steps if reference.kind.startswith("source") else None,
            steady=not reference.kind.startswith("source") or is_steady(drawn, answers, reference.references),
        )

    def _check_labels(self, dataset: Dataset) -> None:
        """Refuse labels that the metric cannot read, as far as they alone can tell."""
        choice = metric_for(self.entry.metric, self.entry.budgets.accuracy, dataset)
        if choice is not None and not metrics.is_own(choice):
            check_labels(dataset, metrics.load(choice))

    def _base_package(self) -> Path | None:
        """The package that the baseline shipped, where its report brings one."""
        baseline = self.around.baseline
        shipped = baseline.shipped(self.entry.name) if baseline else None
        if baseline is None or shipped is None or shipped.package is None:
            return None
        package = (baseline.folder / shipped.package).resolve()
        inside = package.is_relative_to(baseline.folder.resolve())
        return package if inside and package.is_dir() else None

    def _own_metric(self) -> Callable[[], metrics.OwnCode] | None:
        """The team's metric, run by the worker; its file is looked at when it is first needed."""
        choice = self.entry.metric
        if choice is None or not metrics.is_own(choice):
            return None

        def per_item(outputs: Mapping[str, Array], labels: Any) -> Array:
            rows = [{name: values[i] for name, values in outputs.items()} for i in range(len(labels))]
            return metrics.own_rows(choice, self.source.metric(rows, list(labels)).per_item)

        def code() -> metrics.OwnCode:
            facts = self.source.metric((), ())
            metrics.check_direction(choice, facts.higher_is_better)
            return metrics.OwnCode(per_item, self._aggregate if facts.aggregates else None)

        return code

    def _aggregate(self, rows: Array, weights: Array) -> Array:
        return self.source.aggregate(rows.tolist(), weights)

    def _samples(self, example: dict[str, Array], dataset: Dataset | None, reference: Reference | None) -> Drawn:
        """Stored outputs answer to the items of the data set in their order, and to nothing else."""
        if not isinstance(reference, StoredReference):
            return make_samples(example, self.entry.inputs, dataset)
        if dataset is None:
            raise UsageError(f"models.{self.entry.name}.reference: stored outputs need the dataset that they answer to")
        return first_items(example, dataset)

    def _run_package(self, package: Path, samples: Sequence[Sample]) -> list[dict[str, Array]]:
        return self.around.engine.load(package).predict(samples)

    def _dataset(self) -> Dataset | None:
        found = self._items()
        if found is None:
            return None
        parts = data.split(found, self.splits)
        if self.searches:
            if not len(parts[Part.SEARCH]):
                raise UsageError(f"models.{self.entry.name}.dataset: no item is kept for the search; see splits")
            self.search_items = found.subset(parts[Part.SEARCH])
        if not len(parts[Part.CONFIRM]):
            raise UsageError(
                f"models.{self.entry.name}.dataset: none of the {len(found)} items of {found.where} is kept to certify; "
                "give some the split confirm"
            )
        return found.subset(parts[Part.CONFIRM])

    def _items(self) -> Dataset | None:
        where = self.entry.dataset
        if where is None:
            return None
        if isinstance(where, str) and ".py:" in where:
            items = self.source.items()
            side = {"id": items.ids, "slice": items.slices, "cluster": items.clusters}
            return data.from_items(where, items.inputs, items.labels, side)
        return data.load(where, self.around.config.folder, self.entry.inputs)

    @property
    def splits(self) -> Splits:
        """The division of the items; a search that none was kept for takes a stated part of them."""
        given = self.entry.splits
        if not self.searches or given.search:
            return given
        return given.model_copy(update={"search": SEARCH_SHARE, "confirm": 1 - SEARCH_SHARE - given.calibrate})

    def judge(self, policy: Policy, role: Role) -> CandidateRecord:
        """Build the candidate of one policy and ask every check about it."""
        record = CandidateRecord(role=role, policy=policy.name, summary=policy.summary, policy_digest=policy.digest)
        if not self.conversion.usable:
            return record.model_copy(update={"results": (feasibility.judge(self.conversion),)})
        try:
            before = self.before(policy)
            candidate, compressed = self._build(policy, role, before)
            subject = self.subject(candidate, compressed, before)
            self._hand_over(subject)
        except (SourceFault, NoAnswer) as error:
            return record.model_copy(update={"results": (feasibility.judge(failed(error)),)})
        package = candidate.package
        update = {
            "package": package.path.relative_to(self.around.work).as_posix(),
            "package_digest": package.digest,
            "files": package.files,
            "interface": interface_of(package.path),
            "results": self._results(subject),
        }
        return record.model_copy(update=update)

    def _hand_over(self, subject: base.Subject) -> None:
        if self.around.handover is not None:
            source = f"{self.entry.source.kind} {self.entry.source.location}"
            self.around.handover.add(subject, source, self.digest)

    def _results(self, subject: base.Subject) -> tuple[Result, ...]:
        today = date.today()
        return tuple(
            waivers.waive(answer, self.entry.name, self.around.waivers, today) for answer in self._answers(subject)
        )

    def _answers(self, subject: base.Subject) -> tuple[Result, ...]:
        if self.unread is not None:
            return unread.results(subject, self.unread)
        return tuple(result for check in CHECKS for result in self._ask(check, subject))

    def _ask(self, check: base.Check, subject: base.Subject) -> tuple[Result, ...]:
        if check.name in self.around.left:
            return (base.not_run(check.name, "Left to the machine that profiles first.", required=True),)
        try:
            return base.run(check, subject)
        finally:
            heap.trim()

    def before(self, policy: Policy) -> Path:
        """The package in the policy's precision, from which compression starts."""
        conversion = self.conversion
        if conversion.finished is not None:
            return self._finished_in(policy, conversion.finished)
        if policy.precision is Precision.FLOAT32:
            return _there(conversion.float32)
        if not policy.keep_float32:
            return _there(conversion.float16)
        return self.source.convert(
            conversion.route or "", Precision.FLOAT16, keep_float32=policy.keep_float32, target=self.target
        ).package

    def _finished_in(self, policy: Policy, finished: Path) -> Path:
        """A finished package is cast by coremltools' own pass when a float16 policy asks for it."""
        if self.unread is not None:
            unread.refuse_policy(policy, self.unread)
            return finished
        kept = (*self.entry.keep_float32, *policy.keep_float32)
        if policy.precision is not Precision.FLOAT16:
            return finished
        if not computes_float32(finished):
            if kept:
                raise UsageError(
                    f"model {self.entry.name!r}: keep_float32: found {finished.name} in float16 already, expected a float32 package "
                    "to cast; keep the ops when it is converted, or hand over the float32 package"
                )
            return finished
        cast = self.scratch / f"float16{'-' + policy.digest[:12] if kept else ''}.mlpackage"
        if not cast.exists():
            cast_float16(finished, cast, kept)
        return cast

    def _build(self, policy: Policy, role: Role, before: Path) -> tuple[Candidate, Compressed | None]:
        out = self._out(policy, before.suffix if self.unread else ".mlpackage")
        if not policy.steps:
            shutil.copytree(before, out) if before.is_dir() else shutil.copyfile(before, out)
            return Candidate(role, policy, read_package(out)), None
        work = self._compression(policy, before, out)
        compressed = self.ahead.take(policy.name, work) if self.ahead else work()
        return Candidate(role, policy, read_package(out)), compressed

    def begin(self, policies: Iterable[Policy], ahead: Ahead) -> None:
        """Begin to compress what needs neither the source's process nor items of the data set."""
        self.ahead = ahead
        for policy in policies if self.conversion.usable and self.unread is None else ():
            if policy.steps and not policy.activations and not policy.keep_float32:
                with suppress(GateError):  # it is told where the candidate is judged
                    ahead.begin(policy.name, self._compression(policy, self.before(policy), self._out(policy)))

    def _compression(self, policy: Policy, before: Path, out: Path) -> Callable[[], Compressed]:
        return partial(
            compress,
            before,
            by_own_layer(policy, self.conversion.layers, self.conversion.folded),
            out,
            target=self.target,
            layers=self.conversion.layers,
            cache=self.around.cache,
            workers=self.around.workers,
            calibration=self._calibration() if policy.activations else None,
        )

    def _out(self, policy: Policy, suffix: str = ".mlpackage") -> Path:
        folder = self.around.work / "packages" / self.entry.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{policy.name}{suffix}"

    def _calibration(self) -> Calibration:
        """The items that activation ranges come from: their own file, or their part of the data set."""
        return calibration.items(self.entry, self.around.config, self.bench.example, self._items, self.bench.dataset)

    def subject(self, candidate: Candidate, compressed: Compressed | None, before: Path) -> base.Subject:
        """All that the checks may look at."""
        around = self.around
        return base.Subject(
            config=around.config,
            entry=self.entry,
            candidate=candidate,
            conversion=self.conversion,
            bench=self.bench,
            engine=around.engine,
            baseline=around.baseline,
            release=around.release,
            refused=around.refused,
            compressed=compressed,
            before=before,
            base_package=self._base_package(),
            waivers=around.waivers,
            out=around.work,
        )

    def data_record(self, shipped: Policy) -> Data | None:
        """Which data the numeric checks used, and the digest of the shipped candidate's answers."""
        dataset = self.bench.dataset
        if dataset is None:
            return None
        per_item = per_item_path(self.around.work, self.entry.name, shipped.name)
        return Data(
            dataset=dataset.digest,
            items=len(dataset.ids),
            labelled=dataset.labels is not None,
            per_item=sha256_file(per_item) if per_item.is_file() else None,
        )


def _there(package: Path | None) -> Path:
    if package is None:
        raise NoAnswer("the conversion has no package of this precision")
    return package
