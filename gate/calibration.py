# SPDX-License-Identifier: Apache-2.0
"""On which items are activation ranges measured?

On the file that `calibration:` names, or on the part of the data set that `splits.calibrate` sets aside. Labels are not looked at.
Items that also certify would make the verdict too good; they are told.
"""

from collections.abc import Callable

import numpy as np

from gate import data
from gate.bench import Sample, check_items, fit
from gate.compress import Calibration
from gate.config import Config, ModelEntry
from gate.data import Dataset, Part
from gate.errors import ConfigError


def refuse_missing(entry: ModelEntry, policy: str) -> None:
    """Raise ConfigError where a policy quantizes activations and the entry has no items for it."""
    if entry.calibration is None and not entry.splits.calibrate:
        raise ConfigError(
            f"models.{entry.name}: policy {policy} quantizes activations and needs items to calibrate on; add "
            "`calibration: items.npz` (one array per input, no labels needed), or `splits: {calibrate: 10 %, confirm: 90 %}` "
            "to take them from its dataset"
        )
    if entry.calibration is not None and ".py:" in entry.calibration:
        raise ConfigError(
            f"models.{entry.name}.calibration: {entry.calibration}: a function is called for the dataset only; "
            "store its items as an .npz, or use splits.calibrate"
        )
    if entry.calibration is None and entry.dataset is None:
        raise ConfigError(f"models.{entry.name}.splits.calibrate: there is no dataset to take a part of")


def items(
    entry: ModelEntry, config: Config, example: Sample, load_all: Callable[[], Dataset | None], judged: Dataset | None
) -> Calibration:
    """Return the items as the model takes them."""
    found = _dataset(entry, config, load_all)
    check_items(example, entry, found)
    batch = found.batch(np.arange(len(found)))
    samples = tuple(
        {name: fit(batch.inputs[name][i], like) for name, like in example.items()} for i in range(len(batch.ids))
    )
    return Calibration(samples, f"{len(samples)} items of {found.where}", _remarks(found, judged))


def _dataset(entry: ModelEntry, config: Config, load_all: Callable[[], Dataset | None]) -> Dataset:
    if entry.calibration is not None:
        return data.load(entry.calibration, config.folder, entry.inputs)
    everything = load_all()
    assert everything is not None  # refuse_missing
    return everything.subset(data.split(everything, entry.splits)[Part.CALIBRATE])


def _remarks(found: Dataset, judged: Dataset | None) -> tuple[str, ...]:
    shared = data.overlap(found, judged) if judged is not None else ()
    if not shared:
        return ()
    remark = (
        f"{len(shared)} of {len(found)} calibration items are also items that accuracy is judged on, such as {shared[0]}: "
        "the ranges know them, and new items may do worse"
    )
    return (remark,)
