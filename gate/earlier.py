# SPDX-License-Identifier: Apache-2.0
"""May the answers of an earlier report be compared with, item by item?

The base branch's report and the last release's bring their per-item values. They are a yardstick only where nothing but the model
differs: the same metric and parameters, the same data, the same engine and tool versions. What does not fit is refused with the
reason, a UsageError, which the caller tells in the row that it would have been.
"""

from collections.abc import Mapping
from pathlib import Path

from gate.baseline import Baseline
from gate.data import Dataset
from gate.errors import UsageError
from gate.evidence import Evidence, Recorded, read_per_item, recorded
from gate.files import sha256_file
from gate.metrics import Metric
from gate.report import CheckName, Model
from gate.tools import other_versions, tool_versions


def per_item_path(out: Path, entry: str, policy: str) -> Path:
    """Where the items of a candidate are written."""
    return out / "per_item" / entry / f"{policy}.jsonl"


def yardstick(
    earlier: Baseline, entry: str, dataset: Dataset, metric: Metric, engine: str, tools: Mapping[str, str] | None = None
) -> Recorded:
    """Return the earlier answers of a model entry; raise UsageError with the reason where they are no yardstick."""
    model = next((m for m in earlier.report.models if m.name == entry), None)
    if model is None:
        raise UsageError(f"its report has no model entry {entry!r}")
    _require_same_tools(earlier, model, engine, tool_versions() if tools is None else tools)
    return recorded(_items(earlier, model), dataset, metric)


def package_of(earlier: Baseline, entry: str) -> Path | None:
    """Return the package that an earlier report shipped, where it lies beside the report and is what the report says."""
    shipped = earlier.shipped(entry)
    if shipped is None or shipped.package is None or not shipped.files:
        return None
    package = (earlier.folder / shipped.package).resolve()
    if not package.is_relative_to(earlier.folder.resolve()) or not package.is_dir():
        return None
    listed = {file.path: file.sha256 for file in shipped.files}
    found = {p.relative_to(package).as_posix(): sha256_file(p) for p in package.rglob("*") if p.is_file()}
    return package if found == listed else None


def _require_same_tools(earlier: Baseline, model: Model, engine: str, tools: Mapping[str, str]) -> None:
    """Refuse answers of other tools: their rounding differs, and would be taken for a change of the model."""
    if differ := other_versions(earlier.report.run.tools, tools):
        raise UsageError(f"it was measured with other tools ({'; '.join(differ)}); run it again with these")
    measured = {r.environment.engine for r in model.shipped.results if r.check is CheckName.ACCURACY} - {"static"}
    if measured and engine not in measured:
        raise UsageError(f"it was measured by the {', '.join(sorted(measured))} engine, and this run uses {engine}")


def _items(earlier: Baseline, model: Model) -> Evidence:
    """Read the per-item values; their digest must be the one in the report."""
    path = per_item_path(earlier.folder, model.name, model.shipped.policy)
    if model.data is None or model.data.per_item is None or not path.is_file():
        raise UsageError("it brings no per-item values; keep the folder per_item beside its report.json")
    if sha256_file(path) != model.data.per_item:
        raise UsageError(f"{path.name} is not the file that its report names; the digest differs")
    return read_per_item(path)
