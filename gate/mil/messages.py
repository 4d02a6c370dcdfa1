# SPDX-License-Identifier: Apache-2.0
"""Where are coremltools' message classes, without all of coremltools?

`import coremltools` takes seconds, since it looks for scikit-learn, XGBoost and the rest of what it converts; the
generated protobuf modules, which are all that reading a package needs, take hundredths. So their folder is imported as
a package of our own name. protobuf keeps one class for each message whatever module asks for it, so coremltools'
own code takes these messages as its own (`tests/mil/test_messages.py`).
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

PACKAGE = "gate_coreml_messages"


@cache
def messages(module: str) -> Any:
    """Return one of coremltools' generated modules, such as `Model_pb2`."""
    if "coremltools" in sys.modules:
        return import_module(f"coremltools.proto.{module}")
    found = find_spec("coremltools")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")
    spec = ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(Path(found.submodule_search_locations[0]) / "proto")]
    sys.modules.setdefault(PACKAGE, module_from_spec(spec))
    return import_module(f"{PACKAGE}.{module}")
