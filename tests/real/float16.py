# SPDX-License-Identifier: Apache-2.0
"""What does the float16 check say about trained models? The numbers of docs/float16.md.

    python -m tests.real.float16

P1 and P3 come with labels; P3's state is what the float32 model itself carried on. basic-pitch is a finished float32 package, cast by
coremltools' own pass; examples/basic-pitch/prepare.py must have run.
"""

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the source worker loads this file by its path
from tests.real.models import Sample, digits, recognizer, speech, voice_activity  # noqa: E402

Items = Iterator[tuple[dict[str, Any], int]]
ITEMS = 500  # of the digits; enough for the sixteen that are drawn


def build_digits() -> torch.nn.Module:
    """P1."""
    return recognizer()


def example_digits() -> tuple[torch.Tensor, ...]:
    """The first digit."""
    return (torch.from_numpy(digits()[0].inputs["image"]),)


def items_digits() -> Items:
    """Digits with their labels."""
    for sample in digits()[::10][:ITEMS]:
        yield {"image": sample.inputs["image"][0]}, sample.label


def build_voice() -> torch.nn.Module:
    """P3."""
    return voice_activity()


def example_voice() -> tuple[torch.Tensor, ...]:
    """A step of 32 ms in the middle, with what was carried up to it."""
    return tuple(map(torch.from_numpy, carried()[300].inputs.values()))


def items_voice() -> Items:
    """All steps, each with the state that float32 carried up to it."""
    for sample in carried():
        yield {name: np.asarray(array) for name, array in sample.inputs.items()}, sample.label


def carried() -> list[Sample]:
    """The steps of P3, with the state of the float32 model."""
    model, memory, steps = voice_activity(), np.zeros((2, 1, 128), np.float32), []
    for sample in speech():
        steps.append(Sample({"audio": sample.inputs["audio"], "memory": memory}, sample.label))
        with torch.inference_mode():
            memory = model(*map(torch.from_numpy, steps[-1].inputs.values()))[1].numpy()
    return steps


def source(name: str, **more: Any) -> dict[str, Any]:
    """The model entry of one of them."""
    file = Path(__file__).name
    return {
        "name": name,
        "source": {"factory": f"{file}:build_{name}", "example": f"{file}:example_{name}"},
        "dataset": f"{file}:items_{name}",
        **more,
    }


def main() -> None:
    """Print what the check and the cure say."""
    from gate import policy, remedy
    from tests.case_source import make_config, make_trial

    logging.disable(logging.WARNING)
    half = policy.load("float16", ROOT)
    pitch = yaml.safe_load((ROOT / "examples/basic-pitch/gate.yml").read_text())["models"][0]
    pitch = {**pitch, "ship": "float16", "explore": [], "budgets": {}}
    with tempfile.TemporaryDirectory() as folder:
        for place, entry in (
            (Path(__file__).parent, source("digits")),
            (Path(__file__).parent, source("voice", convert={"route": "export-default"})),
            (ROOT / "examples/basic-pitch", pitch),
        ):
            trial = make_trial(make_config(place, **entry), Path(folder) / entry["name"])
            record = remedy.examine(trial, half)
            print(f"\n{trial.bench.origin}\n{record.text()}")
            for m in record.result.measurements:
                print(f"    {m.name} {m.value:.4g} {m.unit}", flush=True)


if __name__ == "__main__":
    main()
