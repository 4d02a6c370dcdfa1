# SPDX-License-Identifier: Apache-2.0
"""Whose limits count on a pull request: those of the base branch, or those that it brings itself?

The base branch's. A pull request that changes them is judged under both, and the worse answer stands until somebody approves the
change; the merge does so for good. What a limit is: the fields in GOVERNED and the files that they name, the app's budgets
and smallest device, and the waivers. What is judged (source, inputs, policies, conversion) is always the pull request's: that
is what would ship. Why, and what that leaves open: docs/adr/0005.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.config import RESERVED, Config, ImageFolder, ModelEntry, load
from gate.document import read_yaml
from gate.errors import ConfigError
from gate.files import sha256_file
from gate.report import (
    App,
    Candidate,
    CheckName,
    Finding,
    Model,
    Outcome,
    Result,
    Role,
    Severity,
    verdict,
)

GOVERNED = ("reference", "dataset", "metric", "budgets", "splits")
ITEMS, TWIN = (".jsonl", ".ndjson"), ".onnx"  # files that rest on others
APP = "app"
APP_KEYS = ("budgets", "minimum_device", "increased_memory_limit")
RANKS = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS)  # the worst first, as `verdict` counts them
SHOWN = 300
RULES = CHANGED, REMOVED, BOTH = (
    "limits.changed",
    "limits.removed",
    "limits.both",
)  # in the order in which they are told


@dataclass(frozen=True)
class Change:
    """One limit that the pull request changes."""

    model: str  # or `app`, for what holds for all
    key: str
    before: str
    after: str

    @property
    def text(self) -> str:
        """`tagger.budgets.size: 6 MB, now 8 MB`."""
        return f"{self.model}.{self.key}: {self.before}, now {self.after}"


@dataclass(frozen=True)
class Limits:
    """The base branch's limits, ready to judge the pull request under."""

    base: Config
    config: Config  # the pull request's, with base's limits in it
    changes: tuple[Change, ...]
    new: frozenset[str]  # entries that the base branch does not know
    removed: tuple[ModelEntry, ...]

    def touch(self, model: str) -> bool:
        """Does a change concern this model entry?"""
        return any(change.model in (model, APP) for change in self.changes)


def compare(base_file: Path, head_file: Path) -> Limits:
    """Read both configurations, and say what differs in limits. `base_file` lies in a copy of the repository with base's files."""
    base, head = load(base_file), load(head_file)
    shown = read_yaml(base_file, ConfigError), read_yaml(head_file, ConfigError)
    known, own = {entry.name: entry for entry in base.models}, {entry.name for entry in head.models}
    return Limits(
        base=base,
        config=under_base(base, head),
        changes=(*_app_changes(base, head, shown), *_entry_changes(base, head, shown)),
        new=frozenset(own - set(known)),
        removed=tuple(entry for name, entry in known.items() if name not in own),
    )


def under_base(base: Config, head: Config) -> Config:
    """Return the pull request's configuration with the base branch's limits in it."""
    known = {entry.name: entry for entry in base.models}
    entries = tuple(
        _governed(known[entry.name], entry, base.folder) if entry.name in known else entry for entry in head.models
    )
    app = head.app.model_copy(update={key: getattr(base.app, key) for key in APP_KEYS})
    return head.model_copy(update={"app": app, "models": entries, "waivers": _absolute(base.waivers, base.folder)})


def _governed(base: ModelEntry, head: ModelEntry, folder: Path) -> ModelEntry:
    """Put base's limits into an entry; files that they name are base's, by absolute path."""
    given: dict[str, Any] = {key: getattr(base, key) for key in GOVERNED}
    if base.reference:
        files = {key: _absolute(getattr(base.reference, key), folder) for key in ("package", "onnx", "outputs")}
        given["reference"] = base.reference.model_copy(update=files)
    if isinstance(base.dataset, ImageFolder):
        given["dataset"] = base.dataset.model_copy(
            update={key: _absolute(getattr(base.dataset, key), folder) for key in ("images", "labels")}
        )
    elif base.dataset:
        given["dataset"] = _absolute(base.dataset, folder)
    if base.metric and base.metric.name.endswith(".py"):
        given["metric"] = base.metric.model_copy(update={"name": _absolute(base.metric.name, folder)})
    return head.model_copy(update=given)


def _absolute(name: str | None, folder: Path) -> str | None:
    return str(folder / name) if name else None


# --- what differs ----------------------------------------------------------------------------------------------------


def governing_files(config: Config) -> tuple[str, ...]:
    """Name the files and folders that hold limits, relative to gate.yml."""
    named = [config.waivers] if config.waivers else []
    for entry in config.models:
        named += _files(entry).values()
    return tuple(dict.fromkeys(named))


def _files(entry: ModelEntry) -> dict[str, str]:
    """The files that the governed fields of an entry name, by key; a function's is the file that it is in."""
    reference, data = entry.reference, entry.dataset
    found: dict[str, str | None] = {}
    if reference:
        found |= {f"reference.{key}": getattr(reference, key) for key in ("package", "onnx", "outputs")}
    if isinstance(data, ImageFolder):
        found |= {"dataset.images": data.images, "dataset.labels": data.labels}
    elif data:
        found["dataset"] = data.split(":", maxsplit=1)[0]
    if entry.metric and entry.metric.name.endswith(".py"):
        found["metric"] = entry.metric.name
    return {key: name for key, name in found.items() if name}


def _named_by(lines: Iterable[str]) -> Iterator[str]:
    """Name the files that a data set of JSON lines names, relative to its folder; what is no item is told when it is judged."""
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            texts = (text for key, text in record.items() if key not in RESERVED and isinstance(text, str))
            yield from filter(is_name, texts)


def is_name(text: str) -> bool:
    """Can a file have this name, its length aside? JSON and YAML write what no path holds: NUL, half a surrogate pair."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _app_changes(base: Config, head: Config, shown: tuple[Any, Any]) -> Iterator[Change]:
    for key in APP_KEYS:
        if getattr(base.app, key) != getattr(head.app, key):
            before, after = (_written(document, "app", key) for document in shown)
            yield Change(APP, key, before, after)
    yield from _file_change(APP, "waivers", (base, base.waivers), (head, head.waivers))


def _entry_changes(base: Config, head: Config, shown: tuple[Any, Any]) -> Iterator[Change]:
    known = {entry.name: entry for entry in base.models}
    for entry in head.models:
        before = known.get(entry.name)
        if before is not None:
            yield from _fields(before, entry, shown)
            ours, theirs = _files(before), _files(entry)
            for key in ours.keys() & theirs.keys():
                yield from _file_change(entry.name, key, (base, ours[key]), (head, theirs[key]))


def _fields(before: ModelEntry, after: ModelEntry, shown: tuple[Any, Any]) -> Iterator[Change]:
    for key in GOVERNED:
        ours, theirs = getattr(before, key), getattr(after, key)
        if ours == theirs:
            continue
        documents = tuple(_entry(document, after.name) for document in shown)
        if key != "budgets":
            yield Change(after.name, key, _written(documents[0], key), _written(documents[1], key))
            continue
        for check in type(ours).model_fields:
            if getattr(ours, check) != getattr(theirs, check):
                texts = (_written(document, key, check) for document in documents)
                yield Change(after.name, f"budgets.{check}", *texts)


def _entry(document: Any, name: str) -> Any:
    return next(entry for entry in document["models"] if entry["name"] == name)


def _written(document: Any, *keys: str) -> str:
    """A value as the file has it."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    if document is None:
        return "none"
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _file_change(
    model: str, key: str, before: tuple[Config, str | None], after: tuple[Config, str | None]
) -> Iterator[Change]:
    """Has a file that holds limits other content, even where the key that names it stayed?"""
    ours, theirs = (_content(config, name) for config, name in (before, after))
    if ours != theirs:
        yield Change(model, key, f"{before[1] or 'none'} ({ours})", f"{after[1] or 'none'} ({theirs})")


def _content(config: Config, name: str | None) -> str:
    """A short digest of a file and of those that it rests on, or of every file below a folder."""
    path = config.folder / name if name else None
    if path is None or not path.exists():
        return "absent"
    if path.is_dir():
        return f"sha256 {_digest(path, set(_below(path)))[:12]}"
    others = set(rested_on(path, path.suffix)) - {path.name}
    return f"sha256 {(_digest(path.parent, {path.name, *others}) if others else sha256_file(path))[:12]}"


def _digest(folder: Path, names: set[str]) -> str:
    whole = hashlib.sha256()
    for name in sorted(names):
        whole.update(f"{name}\0{_state(folder / name)}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def rested_on(file: Path, suffix: str) -> Iterator[str]:
    """Name what a file of items or an ONNX twin reads besides itself, relative to its folder."""
    if suffix in ITEMS:
        with file.open(encoding="utf-8", errors="replace") as stream:
            yield from _named_by(stream)
    elif suffix == TWIN:  # exporters name external weights after the model
        yield from (beside.name for beside in file.parent.iterdir() if beside.name.startswith(file.name))


def _below(folder: Path) -> Iterator[str]:
    """Name every file and link below a folder, behind links too; a folder that was seen is not entered again."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        entered = os.path.realpath(here) not in seen
        seen.add(os.path.realpath(here))
        if not entered:
            folders.clear()
            continue
        links = [name for name in folders if Path(here, name).is_symlink()]
        yield from (os.path.relpath(Path(here, name), folder) for name in (*files, *links))


def _state(path: Path) -> str:
    """What a path holds: the digest of a file, or where a link leads that leads to none."""
    try:
        if path.is_file():
            return sha256_file(path)
        return f"link {path.readlink()}" if path.is_symlink() else "absent"
    except OSError:  # a name too long for a file
        return "absent"


# --- which answer stands -----------------------------------------------------------------------------------------------


def worse(ours: Model, theirs: Model) -> Model:
    """Return the worse answer about each candidate; of two alike, the one under base's limits (`ours`).

    Candidate by candidate, so that parts of a run, each of which judges some of them, keep the same ones as the whole.
    """
    pairs = zip(ours.candidates, theirs.candidates, strict=True)
    kept = tuple(min(pair, key=lambda candidate: RANKS.index(verdict(candidate.results))) for pair in pairs)
    record = ours if kept[0] is ours.shipped else theirs
    return record.model_copy(update={"candidates": kept})


def worse_app(ours: App, theirs: App) -> App:
    """Likewise for the app."""
    return min((ours, theirs), key=lambda app: RANKS.index(verdict(app.results)))


def missing(entry: ModelEntry) -> Model:
    """The answer about an entry that the pull request takes out of gate.yml: nobody would judge that model any more."""
    result = Result(
        check=CheckName.FEASIBILITY,
        outcome=Outcome.FAIL,
        message=f"The base branch judges {entry.name}; this pull request takes it out of gate.yml.",
        remedy="put the entry back, or let a maintainer approve the change of limits",
    )
    return Model(
        name=entry.name,
        source=f"{entry.source.kind} {entry.source.location}",
        candidates=(Candidate(role=Role.SHIP, policy=entry.shipped_policy, results=(result,)),),
    )


def notes(
    limits: Limits, pairs: Sequence[tuple[str, Outcome, Outcome]], approved_by: str | None, label: str | None
) -> Iterator[Finding]:
    """Say which limits change, what either side says, and whose count. `pairs`: subject, under base's limits, under its own."""
    how = f" (approved: {approved_by})" if approved_by else ""
    for change in limits.changes:
        yield Finding(rule=CHANGED, severity=Severity.WARNING, message=f"This pull request changes {change.text}{how}.")
    for entry in limits.removed:
        message = f"This pull request takes {entry.name} out of gate.yml{how}."
        yield Finding(rule=REMOVED, severity=Severity.WARNING, message=message)
    for subject, base, own in pairs:
        yield note(subject, base, own, approved_by, label)


def note(subject: str, base: Outcome, own: Outcome, approved_by: str | None, label: str | None) -> Finding:
    """Say what either side's limits make of a subject, and whose count."""
    return Finding(
        rule=BOTH,
        severity=Severity.WARNING,
        message=f"{subject}: {base} under the base branch's limits, {own} under its own.",
        advice=_advice(base, own, approved_by, label),
    )


def _advice(base: Outcome, own: Outcome, approved_by: str | None, label: str | None) -> str:
    if approved_by:
        return "Its own count, since the change was approved."
    if RANKS.index(base) >= RANKS.index(own):
        return "The worse of both counts."
    approve = f"set the label {label} after the last push" if label else "name a label under approval: in gate.yml"
    return f"The base branch's count. If the change is intended: {approve}, or add a waiver to waivers.yml on the base branch."
