# SPDX-License-Identifier: Apache-2.0
"""Is a package read without all of coremltools, and are its messages coremltools' own?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import coremltools as ct

from tests.mil.models import mixed

READ = """
import sys
from gate.mil.program import load_program
from gate.mil.messages import messages
program = load_program(sys.argv[1])
assert "coremltools" not in sys.modules
ours = messages("Model_pb2").Model
from coremltools.proto import Model_pb2
assert Model_pb2.Model is ours and messages("MIL_pb2").DataType is not None
assert isinstance(__import__("coremltools").utils.load_spec(sys.argv[1]), ours)
print(program.default_function)
"""


def test_a_package_is_read_without_the_rest_of_coremltools(tmp_path: Path) -> None:
    path = tmp_path / "mixed.mlpackage"
    ct.models.MLModel(mixed().get_spec(), weights_dir=mixed().weights_dir, skip_model_load=True).save(str(path))
    ran = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "main", ran.stderr
