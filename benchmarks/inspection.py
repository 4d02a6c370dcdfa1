# SPDX-License-Identifier: Apache-2.0
"""How long do `gate inspect` and `gate diff` take on the ResNet-50 shape, and what do they say that a plain script does not?

Beside them runs what a user would write with coremltools alone: a walk over the spec for op counts and convolution MACs, and
`get_weights_metadata` for the weights; two such walks compared by name are its diff. Both sides read the same packages in one run.
(The file is not called inspect.py: a script's folder comes first on Python's path, and the standard library has that name.)

    python benchmarks/inspection.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import torch

from gate.diff import Difference, Encoding, diff
from gate.inspect import Inspection, inspect
from tests.resnet import resnet50

EXPECTED_MACS = (
    4.1e9  # of ResNet-50 at 224 pixels, as published (He et al., 2015: 3.8 without, 4.1 with the stride in the 3x3)
)


def packages(folder: Path) -> tuple[Path, Path]:
    """Convert the network to float16, and give it 4-bit palettes."""
    traced = torch.jit.trace(resnet50(), torch.rand(1, 3, 224, 224))
    inputs = [ct.TensorType("x", shape=(1, 3, 224, 224), dtype=np.float32)]
    plain = ct.convert(traced, inputs=inputs, minimum_deployment_target=ct.target.iOS17)
    settings = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    palette = cto.palettize_weights(plain, cto.OptimizationConfig(settings))
    paths = folder / "float16.mlpackage", folder / "palette-4bit.mlpackage"
    for model, path in zip((plain, palette), paths, strict=True):
        model.save(str(path))
    return paths


def plain_inspect(package: Path) -> dict[str, Any]:
    """Walk the spec: op counts, the MACs of convolutions and linear layers, and coremltools' own list of weights."""
    model = ct.models.MLModel(str(package), skip_model_load=True)
    (function,) = model.get_spec().mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    shapes = {o.name: _shape(o.type.tensorType) for op in block.operations for o in op.outputs}
    macs = {}
    for op in block.operations:
        if op.type in ("conv", "linear"):
            weight = shapes[op.inputs["weight"].arguments[0].name]
            macs[op.outputs[0].name] = math.prod(shapes[op.outputs[0].name]) * math.prod(weight[1:])
    held = cto.get_weights_metadata(model, weight_threshold=0)
    return {"ops": Counter(op.type for op in block.operations), "macs": macs, "weights": held}


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(d.constant.size for d in tensor.dimensions)


def plain_diff(before: Path, after: Path) -> dict[str, float]:
    """Compare the weights of two packages by name: largest change of those that both have."""
    old, new = (plain_inspect(package)["weights"] for package in (before, after))
    return {
        name: float(np.abs(old[name].val - new[name].val).max())
        for name in old.keys() & new.keys()
        if old[name].val.ndim > 1
    }


def best(task: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Return the shortest time in seconds, and the answer."""
    times, answer = [], None
    for _ in range(rounds):
        started = time.perf_counter()
        answer = task()
        times.append(time.perf_counter() - started)
    return min(times), answer


def measure(rounds: int) -> dict[str, Any]:
    """Run both sides in turn."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = packages(Path(folder))
        ours, facts = best(lambda: inspect(before), rounds)
        theirs, walked = best(lambda: plain_inspect(before), rounds)
        ours_diff, found = best(lambda: diff(before, after), rounds)
        theirs_diff, compared = best(lambda: plain_diff(before, after), rounds)
    return {
        "inspect_s": ours,
        "plain_inspect_s": theirs,
        "diff_s": ours_diff,
        "plain_diff_s": theirs_diff,
        **_said(facts, found),
        "plain_ops_with_macs": len(walked["macs"]),
        "plain_weights_compared": len(compared),
    }


def _said(facts: Inspection, found: Difference) -> dict[str, Any]:
    (main,) = facts.functions
    return {
        "ops_with_macs": main.arithmetic,
        "ops_with_weights": sum(bool(layer.parameters) for layer in main.layers),
        "unknown_ops": len(main.unknown),
        "macs": main.macs,
        "macs_error": main.macs / EXPECTED_MACS - 1,
        "diff": found.summary,
        "weights_compared": sum(w.kind is Encoding.REENCODED and w.max_change is not None for w in found.weights),
    }


def main() -> None:
    """Print a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    figures = measure(parser.parse_args().rounds)
    print(f"{'':24}{'gate':>10}{'coremltools':>14}")
    for name, ours, theirs in (("inspect, s", "inspect_s", "plain_inspect_s"), ("diff, s", "diff_s", "plain_diff_s")):
        print(f"{name:24}{figures[ours]:>10.2f}{figures[theirs]:>14.2f}")
    print(f"{'ops with MACs':24}{figures['ops_with_macs']:>10}{figures['plain_ops_with_macs']:>14}")
    print(f"{'weights compared':24}{figures['weights_compared']:>10}{figures['plain_weights_compared']:>14}")
    print(f"{figures['macs'] / 1e9:.3f} G MACs, {100 * figures['macs_error']:+.2f} % from 4.1 G; {figures['diff']}")
    ratios = {name: round(figures[name] / figures[f"plain_{name}"], 3) for name in ("inspect_s", "diff_s")}
    machine = {"torch": torch.__version__, "coremltools": ct.__version__, "python": platform.python_version()}
    print(json.dumps({"benchmark": "inspect", "ratios": ratios, "figures": figures, "machine": machine}))


if __name__ == "__main__":
    main()
