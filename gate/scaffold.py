# SPDX-License-Identifier: Apache-2.0
"""What would a first gate.yml for this repository be?

Looks for finished packages, converter scripts and module factories by reading files, never by importing them. Sizes are
measured: a package's on disk, a converted model's by running the gate once. A limit is the measured size plus 10 %.
"""

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from pydantic import Field

from gate.candidate import read_package
from gate.config import Config
from gate.deployment import package_needs
from gate.document import Record, load_yaml, parse
from gate.errors import ConfigError, GateError, UsageError
from gate.files import shipped, write_text
from gate.policy import Target
from gate.quantity import points, size

SLACK = 1.10
SKIPPED = {
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "build",
    "dist",
    "__pycache__",
    "gate-out",
    "site-packages",
    "DerivedData",
    "Pods",
}
MAX_FILES = 20_000
NAME_CHARACTERS = 70  # gate.yml allows 80; a number may follow
WORKFLOWS = {"gate.yml": "coreml-gate.yml", "gate-report.yml": "coreml-gate-report.yml"}


class Scaffold(Record):
    """What was found and written."""

    written: tuple[str, ...] = Field(description="files that were written")
    models: tuple[str, ...] = Field(description="model entries, with where they come from")
    notes: tuple[str, ...] = Field(description="what to complete by hand")

    def text(self) -> str:
        """Show it for a person."""
        lines = (
            [f"found    {m}" for m in self.models]
            + [f"wrote    {w}" for w in self.written]
            + [f"note     {n}" for n in self.notes]
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Found:
    """One model that a repository seems to hold."""

    name: str
    source: dict[str, str]  # as gate.yml holds it
    folder: str
    package_bytes: int | None = None
    ios: int | None = None  # the least that loads it
    note: str | None = None


def write(folder: Path, *, force: bool) -> Scaffold:
    """Write gate.yml and the two workflow files; refuse to overwrite what is there."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    targets = {"gate.yml": folder / "gate.yml"} | {
        name: folder / ".github" / "workflows" / name for name in WORKFLOWS.values()
    }
    taken = [str(path.relative_to(folder)) for path in targets.values() if path.exists()]
    if taken and not force:
        raise UsageError(f"{folder}: {', '.join(taken)} already there; use --force to overwrite")
    found = _measured(_unique(list(scan(folder))), folder)
    if not found:
        raise UsageError(
            f"{folder}: found no .mlpackage, no ct.convert( and no function that returns a torch module; write gate.yml by hand (docs/config.md)"
        )
    data = min(_datasets(folder), key=_trained_on, default=None)
    text = render(found, data)
    parse(Config, load_yaml(text.encode(), "gate.yml", ConfigError), "gate.yml", ConfigError)
    write_text(targets["gate.yml"], text)
    for shipped_name, name in WORKFLOWS.items():
        write_text(targets[name], (shipped("workflows") / shipped_name).read_text(encoding="utf-8"))
    return Scaffold(
        written=tuple(str(path.relative_to(folder)) for path in targets.values()),
        models=tuple(f"{f.name}: {' '.join(f.source.values())}" for f in found),
        notes=tuple(f"{f.name}: {f.note}" for f in found if f.note),
    )


def scan(folder: Path) -> Iterator[Found]:
    """Yield what looks like a model, packages first."""
    paths = list(_walk(folder))
    for path in paths:
        if path.suffix == ".mlpackage":
            relative = path.relative_to(folder)
            yield Found(_name(path.stem), {"coreml": relative.as_posix()}, relative.parent.as_posix())
    for path in paths:
        if path.suffix == ".py" and ":" not in str(path.relative_to(folder)):  # path.py:function could not name it
            yield from _functions(path, folder)


def _walk(folder: Path) -> Iterator[Path]:
    waiting, seen = [folder], 0
    while waiting and seen < MAX_FILES:
        for path in sorted(waiting.pop().iterdir()):
            seen += 1
            if path.name in SKIPPED or path.is_symlink():
                continue
            if path.suffix == ".mlpackage" or path.is_file():
                yield path
            elif path.is_dir():
                waiting.append(path)


def _functions(path: Path, folder: Path) -> Iterator[Found]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    relative = path.relative_to(folder)
    functions = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith(("_", "test"))
    ]
    modules = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any("Module" in ast.unparse(b) for b in node.bases)
    }
    example = next((f.name for f in functions if f.name in ("example", "example_inputs", "inputs")), None)
    for function in functions:
        where = f"{relative.as_posix()}:{function.name}"
        text = ast.unparse(function)
        if re.search(r"\b(ct|coremltools)\.convert\(", text):
            yield Found(_name(path.stem), {"converter": where}, relative.parent.as_posix())
        elif _returns_module(function, modules):
            note = None if example else "write a function that returns example inputs, and name it in `example`"
            yield Found(
                _name(path.stem if path.stem != "model" else relative.parent.name or "model"),
                {"factory": where, "example": f"{relative.as_posix()}:{example or 'example'}"},
                relative.parent.as_posix(),
                note=note,
            )


def _returns_module(function: ast.FunctionDef, modules: set[str]) -> bool:
    if function.args.posonlyargs or any(default is None for default in _missing_defaults(function)):
        return False
    if function.returns is not None and ast.unparse(function.returns) in {*modules, "nn.Module", "torch.nn.Module"}:
        return True
    nodes = list(ast.walk(function))
    assigned = [node for node in nodes if isinstance(node, ast.Assign) and _made_of(node.value) in modules]
    made = modules | {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}
    return any(
        isinstance(node, ast.Return) and node.value is not None and _made_of(node.value) in made for node in nodes
    )


def _missing_defaults(function: ast.FunctionDef) -> list[ast.expr | None]:
    count = len(function.args.args) - len(function.args.defaults)
    return [None] * count


def _made_of(value: ast.expr) -> str | None:
    """Return `Net` of `Net(...)` and `Net(...).eval()`, and `net` of `net` and `net.eval()`."""
    while isinstance(value, ast.Call):
        value = value.func.value if isinstance(value.func, ast.Attribute) else value.func
    return value.id if isinstance(value, ast.Name) else None


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:NAME_CHARACTERS] or "model"


def _unique(found: list[Found]) -> list[Found]:
    taken: set[str] = set()
    unique = []
    for item in found:
        name, number = item.name, 2
        while name in taken:
            name, number = f"{item.name}-{number}", number + 1
        taken.add(name)
        unique.append(replace(item, name=name))
    return unique


def _measured(found: list[Found], folder: Path) -> list[Found]:
    return [item if item.note else _measure(item, folder) for item in found]


def _measure(item: Found, folder: Path) -> Found:
    if "coreml" in item.source:
        path = folder / item.source["coreml"]
        return replace(item, package_bytes=read_package(path).bytes, ios=package_needs(path))
    from gate import pipeline

    with TemporaryDirectory(prefix="gate-init-") as scratch:
        # beside the repository's files, since the paths in it are relative to its folder
        config = folder / f".gate-init-{item.name}.yml"
        try:
            write_text(config, yaml.safe_dump({"version": 1, "models": [{"name": item.name, "source": item.source}]}))
            judged = pipeline.check(pipeline.Options(config=config, out=Path(scratch))).models[0].shipped
            ios = package_needs(Path(scratch) / judged.package) if judged.package else None
        except GateError as error:
            return replace(item, note=f"could not be measured: {str(error).splitlines()[0]}")
        finally:
            config.unlink(missing_ok=True)
    if not judged.files:
        return replace(item, note=f"did not convert: {judged.results[0].message}")
    return replace(item, package_bytes=sum(file.bytes for file in judged.files), ios=ios)


def _datasets(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield labelled .npz files with the number of their items."""
    import numpy as np

    for path in _walk(folder):
        if path.suffix == ".npz":
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    if "label" in arrays.files:
                        yield path.relative_to(folder).as_posix(), len(arrays["label"])
            except (ValueError, OSError, MemoryError):
                continue


def _trained_on(data: tuple[str, int]) -> bool:
    """Is a file, by its name, of items that the model or its ranges have seen? Such items judge nothing."""
    return re.search(r"train|calib", Path(data[0]).stem, re.IGNORECASE) is not None


def render(found: list[Found], data: tuple[str, int] | None) -> str:
    """Write gate.yml with comments."""
    lines = [
        "# The gate of this repository's Core ML models. Every key: docs/config.md.",
        "version: 1",
        "app:",
        "  minimum_device: iphone-12      # drives memory and availability",
        f"  deployment_target: {_target(found)}       # the minimum OS of the app; models may override it",
    ]
    known = [f.package_bytes for f in found if f.package_bytes is not None]
    if len(known) == len(found):
        lines.append(
            f"  budgets: {{app_size: {{total: {_limit(sum(known))}}}}}  # measured {size(sum(known))}, plus 10 %"
        )
    lines.append("models:")
    for item in found:
        lines += _entry(item, data)
    return "\n".join(lines) + "\n"


def _target(found: list[Found]) -> Target:
    """The default, or what loads every package; where none does, the latest."""
    need = max([Target.IOS17.version, *(f.ios for f in found if f.ios is not None)])
    return next((target for target in Target if target.version >= need), Target.IOS26)


def _entry(item: Found, data: tuple[str, int] | None) -> list[str]:
    return [
        f"  - {_key('name', item.name)}",
        f"    {_key('paths', [f'{item.folder}/**' if item.folder != '.' else '**'])}",
        f"    {_key('source', item.source)}",
        *(f"    {line}" for line in (*_policies(item), *_note(item), *_budgets(item, data), *_data(data))),
    ]


def _key(name: str, value: str | list[str] | dict[str, str]) -> str:
    """Write a key with its value on one line, quoted where YAML asks for it: a file may be called `a}, {b #1`."""
    if isinstance(value, str):
        return _one_line({name: value}, flow=False)
    return f"{name}: {_one_line(value, flow=True)}"


def _one_line(value: list[str] | dict[str, str], *, flow: bool) -> str:
    text = yaml.safe_dump(value, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.rstrip("\n")


def _policies(item: Found) -> Iterator[str]:
    if "coreml" not in item.source:
        yield "# ship: float16              # the policy that decides; explore others as rows:"
        yield "# explore: [int8, palette-6bit, palette-4bit]"


def _note(item: Found) -> Iterator[str]:
    """Write what is to complete on one line of plain characters: it may quote an error, which may quote anything."""
    if item.note:
        yield "# " + "".join(c if c.isprintable() else "?" for c in " ".join(item.note.split()))


def _budgets(item: Found, data: tuple[str, int] | None) -> Iterator[str]:
    """Write the measured limit, and as a comment what the data can prove; removing `# ` is all that it takes to ask for it."""
    if item.package_bytes is not None:
        yield "budgets:"
        yield f"  size: {_limit(item.package_bytes)}               # measured {size(item.package_bytes)}, plus 10 %"
        yield from (f"  # {line}" for line in _accuracy(data))
    elif data is not None:
        yield "# budgets:"
        yield from (f"#   {line}" for line in _accuracy(data))


def _accuracy(data: tuple[str, int] | None) -> Iterator[str]:
    if data is not None:
        yield f"accuracy: {{drop: {_margin(data[1])}, against: source}}"


def _data(data: tuple[str, int] | None) -> Iterator[str]:
    if data is not None:
        path, items = data
        told = f"{items} labelled items: a loss of {_margin(items)} or more can be ruled out, at best"
        yield f"# {_key('dataset', path)}   # {told}"
        yield "# metric: accuracy"


def _margin(items: int) -> str:
    """Return the smallest drop that so many items can prove, rounded up to a tenth of a point."""
    from gate.stats import provable_margin

    return points(math.ceil(provable_margin(items, 0.0, 0.95) * 1000) / 1000)


def _limit(count: int) -> str:
    """Write a measured size plus 10 %, rounded up to three figures, in the unit that reads best."""
    unit, scale = ("MB", 1e6) if count >= 1e6 else ("KB", 1e3)
    value = count * SLACK / scale
    step = 10 ** (math.floor(math.log10(value)) - 2) if value > 0 else 1
    return f"{math.ceil(value / step) * step:g} {unit}"
