# SPDX-License-Identifier: Apache-2.0
"""Where calibration items come from, what is refused without them, and a run of `w8a8` on a trained network."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from gate import calibration, data
from gate.config import load
from gate.errors import ConfigError
from gate.pipeline import check
from gate.plan import Options, make_plan
from gate.report import CheckName, Outcome

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
ENTRY = """
version: 1
app: {{deployment_target: iOS17}}
models:
  - name: digits
    source: {{factory: model.py:build, example: model.py:example}}
    inputs: [{{name: image, values: [0, 1]}}]
    outputs: [{{name: logits}}]
    ship: w8a8
    dataset: eval.npz
    metric: accuracy
    {more}
"""


@pytest.fixture
def digits(tmp_path):
    """Copy the example; return a function that writes its gate.yml."""
    folder = tmp_path / "digits"
    shutil.copytree(DIGITS, folder, ignore=shutil.ignore_patterns("out", "__pycache__"))

    def written(more: str = "") -> Path:
        path = folder / "gate.yml"
        path.write_text(ENTRY.format(more=more))
        return path

    return written


def items(path: Path) -> tuple:
    config = load(path)
    (entry,) = config.models
    judged = data.load("eval.npz", config.folder)
    judged = judged.subset(data.split(judged, entry.splits)[data.Part.CONFIRM])
    example = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    return calibration.items(entry, config, example, lambda: data.load("eval.npz", config.folder), judged)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", r"policy w8a8 quantizes activations and needs items to calibrate on; add `calibration: items.npz`"),
        ("calibration: model.py:example", r"a function is called for the dataset only"),
    ],
    ids=["none", "a function"],
)
def test_without_items_it_is_refused_before_any_work(more, message, digits, tmp_path):
    with pytest.raises(ConfigError, match=message):
        make_plan(Options(config=digits(more), out=tmp_path / "out"))


def test_items_come_from_their_own_file(digits):
    found = items(digits("calibration: calibration.npz"))
    assert found.origin == "128 items of calibration.npz"
    assert found.samples[0]["image"].shape == (1, 1, 8, 8)
    assert found.remarks == ()


def test_items_come_from_their_part_of_the_data_set(digits):
    found = items(digits("splits: {calibrate: 20 %, confirm: 80 %}"))
    assert 50 < len(found.samples) < 100
    assert found.remarks == ()


def test_items_that_are_judged_too_are_told(digits):
    found = items(digits("calibration: eval.npz"))
    assert "360 of 360 calibration items are also items that accuracy is judged on" in found.remarks[0]


def test_a_run_says_what_was_quantized_and_that_the_key_is_used(digits, tmp_path):
    report = check(Options(config=digits("calibration: calibration.npz"), out=tmp_path / "out"))
    results = {result.check: result for result in report.models[0].shipped.results}
    assert results[CheckName.INTEGRITY].outcome is Outcome.PASS
    assert (
        "7 ops compute on 8-bit inputs, in 8 ranges from 128 items of calibration.npz"
        in results[CheckName.INTEGRITY].message
    )
    lost = {m.name: m.value for m in results[CheckName.ACCURACY].measurements}["accuracy_drop"]
    assert lost <= 0.01
    assert not [finding for finding in report.findings if "calibration" in finding.message]
