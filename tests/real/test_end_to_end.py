# SPDX-License-Identifier: Apache-2.0
"""Do real, trained models answer as torch does, on all of their labelled data, in `float32` and in `declared`?

The numbers are in docs/evaluator.md, under "Real models".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch

import gate.mil
from tests.real.models import REAL, Array, Real, Sample, installed

logging.getLogger("coremltools").setLevel(logging.CRITICAL)
Outputs = dict[str, Array]
Predict = Callable[[dict[str, Array]], Outputs]

# Of each output's range: what float32 may differ by when sums are taken in another order.
FLOAT32_ERROR = 1e-5


def convert(real: Real, module: torch.nn.Module, precision: str) -> Any:
    example = real.samples()[0].inputs
    arrays = tuple(map(torch.from_numpy, example.values()))
    inputs = [ct.TensorType(name, shape=array.shape, dtype=np.float32) for name, array in example.items()]
    options: dict[str, Any] = {
        "outputs": [ct.TensorType(name) for name in real.outputs],
        "minimum_deployment_target": ct.target.iOS17,
        "compute_precision": getattr(ct.precision, precision),
    }
    if real.route == "trace":
        return ct.convert(torch.jit.trace(module, arrays), inputs=inputs, **options)
    exported = torch.export.export(module, arrays).run_decompositions()
    return ct.convert(exported, inputs=inputs, **options)


def answers(real: Real, samples: list[Sample], predict: Predict) -> Iterator[Outputs]:
    """Predict one after the other, handing on what is carried."""
    memory: dict[str, Array] = {}
    for sample in samples:
        outputs = predict({**sample.inputs, **memory})
        memory = {name: np.float32(outputs[output]) for output, name in real.carried}
        yield outputs


def torch_predict(real: Real, module: torch.nn.Module) -> Predict:
    def predict(inputs: dict[str, Array]) -> Outputs:
        with torch.inference_mode():
            found = module(*map(torch.from_numpy, inputs.values()))
        tensors = found if isinstance(found, tuple) else (found,)
        return {name: tensor.numpy() for name, tensor in zip(real.outputs, tensors, strict=True)}

    return predict


def evaluate(real: Real, samples: list[Sample], model: Any, precision: str) -> list[Outputs]:
    evaluator = gate.mil.load(model, precision=precision)
    if real.carried:
        return list(answers(real, samples, evaluator.predict))
    return list(evaluator.predict_batch(sample.inputs for sample in samples))


def range_error(wanted: list[Outputs], found: list[Outputs]) -> float:
    """The largest difference, of the range of its output over all items."""
    return max(
        max(float(np.abs(np.float32(f[name]) - w[name]).max()) for w, f in zip(wanted, found, strict=True))
        / max(float(np.abs(w[name]).max()) for w in wanted)
        for name in wanted[0]
    )


def right(real: Real, samples: list[Sample], found: list[Outputs]) -> int:
    return sum(real.answer(outputs) == sample.label for sample, outputs in zip(samples, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_trained_model_answers_as_torch_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    real = REAL[name]
    if missing := [wheel for wheel in real.wheels if not installed(wheel)]:
        pytest.skip(
            f"not installed: {', '.join(missing)} (tests/real/requirements.txt, examples/mnist/requirements.txt)"
        )
    module, samples = real.build(), real.samples()
    wanted = list(answers(real, samples, torch_predict(real, module)))
    exact = evaluate(real, samples, convert(real, module, "FLOAT32"), "float32")
    declared = evaluate(real, samples, convert(real, module, "FLOAT16"), "declared")

    errors = range_error(wanted, exact), range_error(wanted, declared)
    counts = [right(real, samples, found) for found in (wanted, exact, declared)]
    with capsys.disabled():
        print(f"\n{name}: {len(samples)} items, right {counts}, errors {errors[0]:.1e} {errors[1]:.1e}")
    assert errors[0] <= FLOAT32_ERROR
    assert 0 < errors[1] <= real.float16_error  # zero would mean that nothing was rounded
    assert counts[0] == counts[1]
    assert abs(counts[2] - counts[0]) <= len(samples) // 1000 + 1


@pytest.mark.slow
def test_basic_pitch_answers_as_its_onnx_twin_does(capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    try:
        wheel = distribution("basic-pitch")
    except PackageNotFoundError:
        pytest.skip("not installed: basic-pitch==0.4.0 (examples/basic-pitch/requirements.txt)")
    folder = Path(str(wheel.locate_file("basic_pitch/saved_models/icassp_2022")))
    twin = onnxruntime.InferenceSession(folder / "nmp.onnx", providers=["CPUExecutionProvider"])
    windows, pitches = zip(*tones(), strict=True)
    names = [output.name for output in twin.get_outputs()]
    wanted = [dict(zip(names, twin.run(None, {twin.get_inputs()[0].name: w}), strict=True)) for w in windows]
    errors = {}
    for precision in ("float32", "declared"):
        evaluator = gate.mil.load(folder / "nmp.mlpackage", precision=precision)
        (entry,) = evaluator.inputs
        found = [evaluator.predict({entry.name: window}) for window in windows]
        errors[precision] = paired_error(wanted, found)
        assert [heard(outputs) for outputs in found] == list(pitches)
    with capsys.disabled():
        print(f"\nP4 basic-pitch: {len(windows)} windows, errors {errors}")
    assert max(errors.values()) <= 1e-3


def tones() -> Iterator[tuple[Array, int]]:
    """Sine tones with their MIDI numbers, as basic-pitch's own tests have them: 69 is A4."""
    time = np.arange(43_844) / 22_050
    for pitch in (57, 60, 64, 67, 69, 72):
        yield (
            (0.5 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time)).astype(np.float32).reshape(1, -1, 1),
            pitch,
        )


def heard(outputs: Outputs) -> int:
    """The MIDI number of the strongest note; the output of 88 keys with the most energy over time is `note`."""
    keys = [np.float32(o)[0] for o in outputs.values() if o.shape[-1] == 88]
    return 21 + int(max(keys, key=lambda k: k.sum()).sum(0).argmax())


def paired_error(wanted: list[Outputs], found: list[Outputs]) -> float:
    """Pair outputs by shape and nearness, since the twins name them differently."""
    worst = 0.0
    for name in wanted[0]:
        scale = max(float(np.abs(w[name]).max()) for w in wanted)
        alike = [n for n in found[0] if found[0][n].shape == wanted[0][name].shape]
        worst = max(
            worst,
            min(
                max(float(np.abs(np.float32(f[n]) - w[name]).max()) for w, f in zip(wanted, found, strict=True)) / scale
                for n in alike
            ),
        )
    return worst
