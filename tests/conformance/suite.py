# SPDX-License-Identifier: Apache-2.0
"""Which of coremltools' tests are in the suite, in which groups, and under which settings?

Left out are the folders that cannot reach an ML program: the frontends of TensorFlow, the `neuralnetwork` back end, and the
converters of scikit-learn and XGBoost.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

# coremltools reads these when its test modules are imported. By default it runs float16 alone, with tolerances of 0.5; the float32
# runs, with the tight ones (1e-4), are asked for here. RUN_BACKWARD_COMPATIBILITY runs each op in every later opset too.
ENVIRONMENT = {
    "PYMIL_TEST_TARGETS": "mlprogram",
    "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
    "RUN_BACKWARD_COMPATIBILITY": "1",
}

# The newest macOS that coremltools 9.0's tests ask for is 15; iOS18 programs run there.
MACOS_VERSION = (15, 5)

FOLDERS = (
    "converters/mil/mil",
    "converters/mil/frontend/torch",
    "converters/mil/frontend/milproto",
    "converters/mil/backend/mil",
    "converters/mil/test_inputs_outputs_shape.py",
    "optimize",
    "test/optimize",
    "test/ml_program",
    "test/api",
    "test/pipeline",
    "test/modelpackage",
    "test/blob",
)

# Does not import with torch 2.13, which has dropped `torch.export.export_for_training` and `torch.ao.quantization.quantize_pt2e`;
# its tests look at annotated graphs and never predict.
LEFT_OUT = ("test/optimize/torch/quantization/test_coreml_quantizer.py",)

# First match wins: (group, part of the test's id).
GROUPS = (
    ("states", "stateful"),
    ("states", "test_states.py"),
    ("compressed weights", "test_constexpr_ops.py"),
    ("compressed weights", "test_compression.py"),
    ("quantization", "quantization"),
    ("MIL ops", "mil/mil/ops/tests/"),
    ("MIL passes", "mil/mil/passes/tests/"),
    ("torch ops", "test_torch_ops.py"),
    ("torch conversion", "frontend/torch/"),
    ("compression", "/optimize/"),
)


def group_of(test_id: str) -> str:
    """Name the group of a test."""
    return next((group for group, part in GROUPS if part in test_id), "programs and packages")


FLOAT32, OTHERS = "float32 back ends, off by default", "float16 back ends, and tests without one"
FLOAT32_BACKENDS = ("precision='fp32'", "('mlprogram', 'fp32')")  # as coremltools.converters.mil.testing_reqs adds them


def configuration_of(test_id: str) -> str:
    """Tell whether coremltools runs a test only when INCLUDE_MIL_FP32_UNIT_TESTS asks for float32 back ends."""
    return FLOAT32 if any(part in test_id for part in FLOAT32_BACKENDS) else OTHERS


def site_packages() -> Path:
    """Find the folder that holds coremltools, without importing it."""
    spec = importlib.util.find_spec("coremltools")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("coremltools is not installed: pip install 'coreml-gate[engine]'")
    return Path(spec.origin).parent.parent


def paths(names: Iterable[str]) -> list[str]:
    """Return what is there of these names below coremltools, for pytest's command line."""
    root = site_packages() / "coremltools"
    return [str(root / name) for name in names if (root / name).exists()]
