# SPDX-License-Identifier: Apache-2.0
"""What does a policy make of a package, and what did each step promise about each weight?

Weights are compressed one by one, side by side, and kept by content, so that a change to two layers costs two layers; the
package is written once at the end. What comes back is the promise: `checks/integrity.py` holds the package to it.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gate.compress import entry
from gate.compress.activations import Activations, insert_pairs, plan_activations
from gate.compress.calibration import Calibration
from gate.compress.cast import cast_float16, raise_target
from gate.compress.encode import Skip
from gate.compress.encoded import Encoded
from gate.compress.entry import Task
from gate.compress.invariants import problem
from gate.compress.package import Key, write_package
from gate.compress.plan import Consumer, Plan, plan
from gate.compress.workers import Job, Reasons, Workers
from gate.errors import PolicyError
from gate.mil import Unsupported
from gate.mil.program import Program, load_program
from gate.policy import Action, Palettize, Policy, Target

__all__ = [
    "Activations",
    "Calibration",
    "Compressed",
    "Consumer",
    "Promise",
    "Skip",
    "Workers",
    "cast_float16",
    "compress",
    "encode_weights",
    "raise_target",
]

NO_ITEMS = (
    "it needs items to calibrate on: add `calibration: items.npz` to the model entry, or `splits: {calibrate: 10 %}` "
    "to take them from its dataset"
)
CHAINS = {  # forms that coremltools writes, too; a quantized palette has integers in its tables
    ("prune", "quantize"),
    ("prune", "palettize"),
    ("palettize", "quantize"),
    ("prune", "palettize", "quantize"),
}


@dataclass(frozen=True)
class Promise:
    """What each step of the policy did to one weight, or why it left it alone."""

    function: str
    weight: str
    consumers: tuple[Consumer, ...]
    layer: str | None
    dtype: str
    shape: tuple[int, ...]
    actions: tuple[Action | None, ...]
    skips: tuple[Skip | None, ...]

    @property
    def applied(self) -> tuple[Action, ...]:
        """The actions that were applied, in order."""
        return tuple(action for action in self.actions if action is not None)


@dataclass(frozen=True)
class Compressed:
    """A package under a policy, and how it came about."""

    path: Path
    policy: str
    steps: tuple[str, ...]
    promises: tuple[Promise, ...]
    computed: int = 0
    reused: int = 0
    refused: tuple[str, ...] = ()  # cache entries that did not hold, and why
    activations: Activations | None = None


@dataclass(frozen=True, eq=False)
class _Result:
    encoded: Encoded | None
    reasons: Reasons


def compress(
    package: Path,
    policy: Policy,
    out: Path,
    *,
    target: Target,
    layers: Mapping[str, str] | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    workers: Workers | None = None,
    calibration: Calibration | None = None,
) -> Compressed:
    """Apply the steps of `policy` to `package` and write the result to `out`.

    `layers` maps MIL names to layer paths, for overrides. `cache` is a folder of compressed weights; `workers` lets several
    policies share processes; `calibration` has the items that 8-bit activations need. PolicyError when the target cannot carry
    the policy; ToolchainError when coremltools fails.
    """
    policy.refuse_unless_carried_by(target, package.name)
    _refuse_unknown_chain(policy)
    program = _program(package, policy)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".compress-") as scratch:
        source, activations = package, None
        if policy.activations:
            if calibration is None or not calibration.samples:
                raise PolicyError(f"{package.name}: policy {policy.name} quantizes activations; {NO_ITEMS}")
            with_settings = partial(
                compress, target=target, layers=layers, jobs=jobs, cache=cache, workers=workers, calibration=None
            )
            observed = _observed(package, policy, Path(scratch), with_settings)
            activations = plan_activations(package, policy, calibration, layers or {}, observed)
            source = insert_pairs(package, activations, Path(scratch) / f"a8-{package.name}")
            program = load_program(source)
        if _opset(program) < _opset_of(policy):
            source = raise_target(source, policy.needed_target, Path(scratch) / package.name)
            program = load_program(source)
        plans = plan(program, policy, layers or {})
        store = _Store(cache or Path(scratch) / "entries", jobs)
        with nullcontext(workers) if workers else Workers(jobs) as pool:
            results = store.results(_tasks(plans), pool)
        _write(source, plans, results, out)
    return Compressed(
        path=out,
        policy=policy.name,
        steps=tuple(step.kind for step in policy.weight_steps),
        promises=tuple(_promise(item, results) for item in plans),
        computed=store.computed,
        reused=store.reused,
        refused=tuple(store.refused),
        activations=activations,
    )


def encode_weights(
    package: Path,
    policy: Policy,
    *,
    layers: Mapping[str, str],
    cache: Path,
    workers: Workers,
    jobs: int = 1,
) -> tuple[tuple[Plan, Encoded | None], ...]:
    """Return what `policy` makes of each weight of `package`, without writing a package; None where it leaves one alone.

    The package must be of an opset that can hold the result (`raise_target`).
    """
    _refuse_unknown_chain(policy)
    plans = plan(_program(package, policy), policy, layers)
    results = _Store(cache, jobs).results(_tasks(plans), workers)
    found = (results.get((item.weight.function, item.weight.name)) for item in plans)
    return tuple((item, result.encoded if result else None) for item, result in zip(plans, found, strict=True))


def _observed(package: Path, policy: Policy, scratch: Path, with_settings: Callable[..., Compressed]) -> Path:
    """Return the package that calibration runs: weights as they are, or as the steps before the activations leave them."""
    if policy.steps[0].quantize_activations:
        return package
    weights_only = policy.model_copy(update={"steps": policy.weight_steps})
    return with_settings(package, weights_only, scratch / f"w-{package.name}").path


def _refuse_unknown_chain(policy: Policy) -> None:
    for actions in policy.combinations():
        kinds = tuple(type(action).__name__.lower() for action in actions)
        if len(kinds) > 1 and kinds not in CHAINS:
            known = "; ".join(", then ".join(chain) for chain in sorted(CHAINS))
            raise PolicyError(
                f"policy {policy.name}: steps {', then '.join(kinds)} cannot be stored together; known: {known}"
            )
        if kinds[-2:] == ("palettize", "quantize"):
            _refuse_unquantizable_table(policy.name, *actions[-2:])


def _refuse_unquantizable_table(policy: str, palette: Action, table: Action) -> None:
    """A table has no channels of its own, and one scale at most."""
    if getattr(table, "granularity", None) != "per_tensor":
        raise PolicyError(
            f"policy {policy}: quantize after palettize stores the table's entries, which have no channels; "
            f"found granularity {getattr(table, 'granularity', None)}, expected per_tensor"
        )
    if getattr(palette, "per_channel_scale", False):
        raise PolicyError(
            f"policy {policy}: per_channel_scale and quantize would both scale the table, and it has one scale; "
            "remove one of them"
        )


def _program(package: Path, policy: Policy) -> Program:
    if not package.is_dir():
        what = f"policy {policy.name} compresses .mlpackage folders, found a single file; use as-is"
        raise PolicyError(f"{package.name}: {what}")
    try:
        return load_program(package)
    except Unsupported as problem:
        raise PolicyError(f"{package.name}: policy {policy.name} cannot compress it: {problem}") from problem


def _opset(program: Program) -> int:
    """Return the oldest opset of its functions: 6 is iOS16's."""
    return min(int(function.opset.removeprefix("CoreML")) for function in program.functions.values())


def _opset_of(policy: Policy) -> int:
    """Return the opset that can hold the policy's result."""
    return policy.needed_target.version - 10 if policy.steps else 0


Tasks = Mapping[Key, Task]


def _tasks(plans: Sequence[Plan]) -> Tasks:
    return {(p.weight.function, p.weight.name): task for p in plans if (task := _task(p)) is not None}


def _task(item: Plan) -> Task | None:
    actions = tuple(action for action in item.actions if action is not None)
    weight = item.weight
    if not actions or weight.constant.file is None:
        return None
    return Task(weight.constant.file.path, weight.constant.offset, weight.dtype, weight.shape, actions, weight.axes)


class _Store:
    """Compressed weights by content: read and verified, or computed and kept."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder = folder
        self.jobs = max(1, jobs)
        self.computed = 0
        self.reused = 0
        self.refused: list[str] = []

    def results(self, tasks: Tasks, workers: Workers) -> dict[Key, _Result]:
        """Return the result of each task; equal tasks are one."""
        with ThreadPoolExecutor(self.jobs) as pool:
            keys = dict(zip(tasks, pool.map(Task.key, tasks.values()), strict=True))
            unique = {keys[name]: (name, task) for name, task in tasks.items()}
            entries = zip(unique, pool.map(self._read, unique, [task for _, task in unique.values()]), strict=True)
            found = dict(entries)
        missing = [key for key, result in found.items() if result is None]
        found |= self._compute({key: unique[key] for key in missing}, workers)
        self.computed, self.reused = len(missing), len(unique) - len(missing)
        return {name: result for name in tasks if (result := found[keys[name]]) is not None}

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str, task: Task) -> _Result | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            encoded = entry.load(path)
            census = task.census() if any(isinstance(action, Palettize) for action in task.actions) else None
            wrong = problem(task.weight(), encoded, task.actions, census)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # who wrote it may be anybody
            wrong = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        if wrong is None:
            return _Result(encoded, (None,) * len(task.actions))
        self.refused.append(f"cache entry {path.name[:12]}… was refused: {wrong}")
        path.unlink(missing_ok=True)
        return None

    def _compute(self, missing: Mapping[str, tuple[Key, Task]], workers: Workers) -> dict[str, _Result]:
        jobs = [Job(name[1], task, self._path(key)) for key, (name, task) in missing.items()]
        reasons = workers.run(jobs)
        return {key: self._computed(self._path(key), reasons[self._path(key)]) for key in missing}

    def _computed(self, path: Path, reasons: Reasons) -> _Result:
        if all(reasons):
            return _Result(None, reasons)
        result = _Result(entry.load(path), reasons)
        if any(reasons):  # only what every step was applied to is kept: a reason cannot be verified cheaply
            path.unlink()
        return result


def _write(source: Path, plans: Sequence[Plan], results: Mapping[Key, _Result], out: Path) -> None:
    encoded = {name: result.encoded for name, result in results.items() if result.encoded is not None}
    if encoded:
        write_package(source, encoded, out)
        return
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(source, out, symlinks=True)


def _promise(item: Plan, results: Mapping[Key, _Result]) -> Promise:
    weight = item.weight
    actions, skips = list(item.actions), list(item.skips)
    result = results.get((weight.function, weight.name))
    if result is not None:
        tried = [index for index, action in enumerate(actions) if action is not None]
        for index, reason in zip(tried, result.reasons, strict=True):
            if reason is not None:
                actions[index], skips[index] = None, Skip(reason)
    return Promise(
        weight.function,
        weight.name,
        weight.consumers,
        weight.layer,
        weight.dtype,
        weight.shape,
        tuple(actions),
        tuple(skips),
    )
