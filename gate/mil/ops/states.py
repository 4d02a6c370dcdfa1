# SPDX-License-Identifier: Apache-2.0
"""Reading and writing what outlives a prediction.

A state's box holds a tensor that no kernel changes in place, so that reading needs no copy.
"""

from __future__ import annotations

from torch import Tensor

from gate.mil.ops.registry import State, kernel


@kernel(exact=True)
def read_state(input: State) -> Tensor:
    return input.value


@kernel(exact=True)
def write_state(input: State, data: Tensor) -> tuple[()]:
    """Serve what `coreml_update_state` becomes in a saved program."""
    input.value = data
    return ()


@kernel(exact=True)
def coreml_update_state(state: State, value: Tensor) -> Tensor:
    state.value = value
    return value
