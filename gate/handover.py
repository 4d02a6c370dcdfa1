# SPDX-License-Identifier: Apache-2.0
"""What does another machine need, to judge the same packages without the team's code and without torch?

A folder of data: packages, inputs, reference outputs, the data set's items with the reference's answers, the configuration, and
`handover.json`, which names every file with its digest. `write` side on the machine that converts; `read` side anywhere. Nothing
in it is executed: arrays are read without pickles, and a file that is not listed, differs, or is no plain file is refused.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from gate import data
from gate.bench import Bench, References, Sample
from gate.candidate import Candidate, read_package
from gate.checks.base import Subject
from gate.config import Config, ModelEntry, Waiver, load, load_waivers
from gate.conversion import Conversion
from gate.errors import NoAnswer, UsageError
from gate.files import sha256_file, write_text
from gate.handed import RECORD, HandedCandidate, HandedModel, Handover, parse_record, read_bytes
from gate.limits import under_base
from gate.policy import Policy
from gate.policy import load as load_policy
from gate.protocol import read_arrays
from gate.report import PackageFile, Run

Array = npt.NDArray[Any]

CONFIG = "gate.yml"
BASE_CONFIG = "base-gate.yml"
ROWS = 256  # items that the reference is asked about at once


def start(folder: Path) -> "Writer":
    """Return a writer into an empty folder; an older hand-over is replaced, and anything else is left alone."""
    if (folder / RECORD).is_file():
        shutil.rmtree(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--hand-over {folder}: expected an empty folder, or an older hand-over")
    folder.mkdir(parents=True, exist_ok=True)
    return Writer(folder)


# --- write -----------------------------------------------------------------------------------------------------------


@dataclass
class Writer:
    """Collects what is handed over, candidate by candidate; `seal` ends it."""

    folder: Path
    models: dict[str, HandedModel] = field(default_factory=dict)

    def add(self, subject: Subject, source: str, digest: str | None) -> None:
        """Add one candidate, and its model entry before its first."""
        name, policy = subject.entry.name, subject.candidate.policy
        model = self.models.get(name) or self._model(subject, source, digest)
        given = _given(subject, policy)
        candidate = HandedCandidate(
            role=subject.candidate.role,
            policy=policy.name,
            given=given,
            summary=policy.summary,
            policy_digest=policy.digest,
            package=self._copy(subject.candidate.package.path),
            package_digest=subject.candidate.package.digest,
            before=self._keep(subject.before),
            base=self._keep(subject.base_package),
        )
        self._side_file(subject.config, given)
        self.models[name] = model.model_copy(update={"candidates": (*model.candidates, candidate)})

    def forget(self, name: str) -> None:
        """Leave out a model entry, to hand it over again as it counts."""
        self.models.pop(name, None)

    def seal(self, config: Config, file: Path, run: Run, base: Path | None = None) -> None:
        """Write the configuration, and base's where its limits count, and the record; without the record it is no hand-over."""
        shutil.copyfile(file, self._path(CONFIG))
        if base is not None:
            shutil.copyfile(base, self._path(BASE_CONFIG))
            config = config.model_copy(update={"waivers": None})
        for name in filter(None, (config.waivers, *(o.classes for m in config.models for o in m.outputs))):
            self._side_file(config, name)
        if base is not None and (accepted := load(base).waivers):
            shutil.copyfile(base.parent / accepted, self._path(accepted))
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        listed = tuple(
            PackageFile(path=p.relative_to(self.folder).as_posix(), sha256=sha256_file(p), bytes=p.stat().st_size)
            for p in files
        )
        record = Handover(run=run, models=tuple(self.models.values()), files=listed)
        write_text(self.folder / RECORD, record.model_dump_json(indent=1) + "\n")

    def _model(self, subject: Subject, source: str, digest: str | None) -> HandedModel:
        bench, conversion, name = subject.bench, subject.conversion, subject.entry.name
        samples = f"models/{name}/samples.npz"
        _save(self._path(samples), _columns(bench.samples, "in") | _columns(bench.reference or (), "out"))
        items, answers = self._items(bench, name)
        return HandedModel(
            name=name,
            source=source,
            source_digest=digest,
            deployment_target=subject.config.target(subject.entry),
            route=conversion.route,
            float32=self._keep(conversion.float32),
            float16=self._keep(conversion.float16),
            finished=self._keep(conversion.finished),
            origin=bench.origin,
            kinds=bench.kinds,
            reference=bench.reference_name,
            no_reference=bench.no_reference,
            samples=samples,
            items=items,
            answers=answers,
        )

    def _items(self, bench: Bench, name: str) -> tuple[str | None, str | None]:
        """Write the items in the files' own form, and what the reference answers to each."""
        if bench.dataset is None:
            return None, None
        every = bench.dataset.batch(np.arange(len(bench.dataset)))
        side = {"id": every.ids, "slice": bench.dataset.slices, "cluster": bench.dataset.clusters}
        arrays = {**every.inputs, **{key: np.array(value) for key, value in side.items() if value is not None}}
        items, answers = f"models/{name}/items.npz", f"models/{name}/answers.npz"
        _save(self._path(items), arrays | ({} if every.labels is None else {"label": every.labels}))
        if bench.references is None:
            return items, None
        _save(self._path(answers), _reference_rows(bench))
        return items, answers

    def _keep(self, package: Path | None) -> str | None:
        return None if package is None else self._copy(package)

    def _copy(self, package: Path) -> str:
        """Copy a package once, under the digest of its files."""
        files = read_package(package).files
        digest = hashlib.sha256("".join(f"{f.path}\0{f.sha256}\n" for f in files).encode()).hexdigest()
        name = f"packages/{digest[:32]}{package.suffix}"
        target = self._path(name)
        if not target.exists():
            shutil.copytree(package, target) if package.is_dir() else shutil.copyfile(package, target)
        return name

    def _side_file(self, config: Config, name: str) -> None:
        """Copy a small file that gate.yml names: a policy of the team's own, labels, waivers."""
        file = config.folder / name
        if file.is_file():
            shutil.copyfile(file, self._path(name))

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise UsageError(f"{name}: lies outside the folder of gate.yml and cannot be handed over; put it inside")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _given(subject: Subject, policy: Policy) -> str:
    """Return the policy as gate.yml names it, under which the other machine finds it again."""
    for given in subject.entry.policies:
        if given != "auto" and load_policy(given, subject.config.folder) == policy:
            return given
    raise NoAnswer(f"{policy.name}: a policy that a search found is not handed over; name its file under ship: instead")


def _columns(rows: Sequence[Mapping[str, Array]], side: str) -> dict[str, Array]:
    """Name each array by side, row and name: rows may differ in shape."""
    return {
        f"{side}/{index}/{name}": np.asarray(array) for index, row in enumerate(rows) for name, array in row.items()
    }


def _rows(arrays: Mapping[str, Array], side: str) -> tuple[dict[str, Array], ...]:
    rows: dict[int, dict[str, Array]] = {}
    for key, array in arrays.items():
        where, index, name = key.split("/", 2)
        if where == side:
            rows.setdefault(int(index), {})[name] = array
    return tuple(rows[index] for index in sorted(rows))


def _reference_rows(bench: Bench) -> dict[str, Array]:
    assert bench.dataset is not None
    count = len(bench.dataset)
    parts = [
        bench.reference_rows(bench.dataset.batch(np.arange(start, min(start + ROWS, count))))
        for start in range(0, count, ROWS)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


# --- read ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Handed:
    """A hand-over that holds what it says."""

    folder: Path
    record: Handover
    digest: str
    config: Config

    def subjects(self, model: HandedModel, **around: Any) -> Iterator[tuple[HandedCandidate, Subject]]:
        """Yield each candidate of a model entry, ready to be judged."""
        entry = self.entry(model)
        bench, accepted = self._bench(model), self.waivers()
        conversion = Conversion(
            float32=self._package(model.float32),
            float16=self._package(model.float16),
            finished=self._package(model.finished),
            route=model.route,
        )
        for handed in model.candidates:
            package = self._package(handed.package)
            assert package is not None  # it is required
            candidate = Candidate(handed.role, self._policy(handed), read_package(package))
            yield (
                handed,
                Subject(
                    config=self.config,
                    entry=entry,
                    candidate=candidate,
                    conversion=conversion,
                    bench=bench,
                    before=self._package(handed.before),
                    base_package=self._package(handed.base),
                    waivers=accepted,
                    **around,
                ),
            )

    def entry(self, model: HandedModel) -> ModelEntry:
        """The entry of gate.yml."""
        return next(entry for entry in self.config.models if entry.name == model.name)

    def waivers(self) -> tuple[Waiver, ...]:
        """The accepted exceptions that were handed over with the configuration."""
        return load_waivers(self.folder / self.config.waivers) if self.config.waivers else ()

    def _package(self, name: str | None) -> Path | None:
        return self.folder / name if name else None

    def _policy(self, handed: HandedCandidate) -> Policy:
        policy = load_policy(handed.given, self.config.folder)
        if policy.digest != handed.policy_digest:
            raise UsageError(f"policy {handed.policy}: this version of the gate has another one; use the same version")
        return policy

    def _bench(self, model: HandedModel) -> Bench:
        arrays = self._arrays(model.samples)
        samples, reference = _rows(arrays, "in"), _rows(arrays, "out")
        dataset = data.load_npz(self.folder / model.items, model.items) if model.items else None
        answers = self._arrays(model.answers) if model.answers else None
        return Bench(
            samples,
            model.origin,
            reference or None,
            model.reference,
            model.no_reference,
            dataset,
            samples[0],
            references=_known(samples, reference) if reference else None,
            kinds=model.kinds,
            stored=answers,
        )

    def _arrays(self, name: str) -> dict[str, Array]:
        try:
            return read_arrays(self.folder / name)
        except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
            raise UsageError(f"{name}: expected an .npz of plain arrays: {error}") from None


def _known(samples: Sequence[Sample], reference: Sequence[Mapping[str, Array]]) -> References:
    """Answer as the reference did to the samples; nothing else can be asked here."""
    answers = {_sample_digest(sample): dict(row) for sample, row in zip(samples, reference, strict=True)}

    def references(asked: Sequence[Sample]) -> list[dict[str, Array]]:
        found = [answers.get(_sample_digest(sample)) for sample in asked]
        if any(row is None for row in found):
            raise NoAnswer("the reference's answer to an input was not handed over")
        return [row for row in found if row is not None]

    return references


def _sample_digest(sample: Sample) -> bytes:
    parts = (
        f"{name} {array.dtype.str} {array.shape}\0".encode() + array.tobytes() for name, array in sorted(sample.items())
    )
    return hashlib.sha256(b"".join(parts)).digest()


def read(folder: Path) -> Handed:
    """Read a hand-over and verify each of its files; UsageError where it is not what it says."""
    raw = read_bytes(folder)
    record = parse_record(raw, folder)
    for listed in record.files:
        _verify(folder, listed)
    _refuse_unlisted(folder, record)
    config = load(folder / CONFIG)
    if config.digest != record.run.config_digest:
        raise UsageError(f"--from {folder}: {CONFIG} is not the configuration of the run; its digest differs")
    if (folder / BASE_CONFIG).is_file():
        config = _under_base(folder, config)
    return Handed(folder, record, hashlib.sha256(raw).hexdigest(), config)


def _under_base(folder: Path, config: Config) -> Config:
    """Put the base branch's limits in; side files of the hand-over lie beside both configurations."""
    governed = under_base(load(folder / BASE_CONFIG), config)
    governed._folder = config.folder
    return governed


def _verify(folder: Path, listed: PackageFile) -> None:
    path = folder / listed.path
    inside = path.resolve().is_relative_to(folder.resolve()) and not path.is_symlink()
    if not inside or not path.is_file() or path.stat().st_size != listed.bytes or sha256_file(path) != listed.sha256:
        raise UsageError(f"--from {folder}: {listed.path}: missing, or not the file that {RECORD} names")


def _refuse_unlisted(folder: Path, record: Handover) -> None:
    """Raise UsageError where the record points to what it does not list, or knows an entry that the configuration does not."""
    listed = {file.path for file in record.files}
    there = {str(parent) for name in listed for parent in PurePosixPath(name).parents} | listed
    for model in record.models:
        packages = (
            model.float32,
            model.float16,
            model.finished,
            *(n for c in model.candidates for n in (c.package, c.before, c.base)),
        )
        for name in filter(None, (*packages, model.samples, model.items, model.answers)):
            if name not in there or name == ".":
                raise UsageError(f"--from {folder}: {RECORD}: {name} is named, but not listed among its files")
