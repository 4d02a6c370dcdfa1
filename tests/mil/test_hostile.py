# SPDX-License-Identifier: Apache-2.0
"""Does every damaged package give one clear error, in bounded time and memory?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import pytest
import torch

import gate.mil.evaluator  # noqa: F401 (registers the kernels)
from gate.mil.ops.registry import find
from tests.mil import mutations
from tests.mil.models import mixed

OUTCOMES = {"ran", "BadPackage", "Unsupported", "UnsupportedOp", "OpFailed", "BadInput", "MilError"}
PEAK_MB = 2048


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=4, weight_threshold=0))
    path = tmp_path_factory.mktemp("hostile") / "m.mlpackage"
    cto.palettize_weights(mixed(ct.target.iOS18), config).save(str(path))
    return path


def outcomes(package: Path, first: int, last: int) -> tuple[list[list[str]], int]:
    command = [sys.executable, mutations.__file__, str(package), str(first), str(last)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    *lines, peak = run.stdout.splitlines()
    assert run.returncode == 0, f"the process died: {run.stderr[-500:]}"
    return [line.split(" ", 2) for line in lines], int(peak.split()[1])


def check(package: Path, first: int, last: int) -> None:
    rows, peak_mb = outcomes(package, first, last)
    assert len(rows) == last - first
    assert [row for row in rows if row[2].split(":")[0] not in OUTCOMES] == []
    assert peak_mb <= PEAK_MB


def test_a_damaged_package_gives_a_clear_error(package: Path) -> None:
    check(package, 0, 3 * len(mutations.MUTATIONS))


@pytest.mark.slow
def test_five_hundred_damaged_packages_give_clear_errors(package: Path) -> None:
    check(package, 0, 500)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cycle", "which nothing before it computes"),
        ("missing_name", "reads 'nowhere', which nothing before it computes"),
        ("truncate-weights", "do not lie inside the file|no metadata can be there|shorter than the 64-byte header"),
        ("nest", "nested blocks|not a Core ML model message|no kernel for|no parameter"),
    ],
)
def test_the_error_says_what_is_wrong(package: Path, kind: str, message: str) -> None:
    import re

    seed = sorted(mutations.MUTATIONS).index(kind)
    name, outcome = mutations.attempt(package, seed)
    assert name == kind
    assert re.search(message, outcome), outcome


HUGE = 2**20
ABSURD = {
    "resize_nearest_neighbor": {"target_size_height": HUGE, "target_size_width": HUGE},
    "upsample_nearest_neighbor": {"scale_factor_height": float(HUGE), "scale_factor_width": float(HUGE)},
    "resize_bilinear": {"target_size_height": HUGE, "target_size_width": HUGE},
    "upsample_bilinear": {"scale_factor_height": float(HUGE), "scale_factor_width": float(HUGE)},
    "resize": {"shape": [HUGE, HUGE], "resized_dims": 2},
    "affine": {"transform_matrix": torch.zeros(1, 6), "output_height": HUGE, "output_width": HUGE},
    "crop_resize": {"roi": torch.zeros(1, 1, 4, 1, 1), "target_height": HUGE, "target_width": HUGE},
    "conv_transpose": {"weight": torch.zeros(1, 1, 2, 2), "strides": [HUGE, HUGE]},
    "tile": {"reps": [1, 1, HUGE, HUGE]},
    "pad": {"pad": [HUGE] * 4},
}


@pytest.mark.parametrize("op_type", ABSURD)
def test_a_size_that_no_model_has_is_refused_before_memory_is_taken(op_type: str) -> None:
    kernel = find(op_type, "CoreML5")
    assert kernel is not None
    with pytest.raises(ValueError, match="elements"):
        kernel.function(x=torch.zeros(1, 1, 2, 2), **ABSURD[op_type])
