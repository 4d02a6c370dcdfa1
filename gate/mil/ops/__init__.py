# SPDX-License-Identifier: Apache-2.0
"""One module for each family of MIL ops; importing this package registers every kernel."""

from gate.mil.ops import (
    activation,
    constexpr_ops,
    conv,
    elementwise_binary,
    elementwise_unary,
    linear,
    normalization,
    pool,
    reduction,
    scatter_gather,
    tensor_operation,
    tensor_transformation,
)

__all__ = [
    "activation",
    "constexpr_ops",
    "conv",
    "elementwise_binary",
    "elementwise_unary",
    "linear",
    "normalization",
    "pool",
    "reduction",
    "scatter_gather",
    "tensor_operation",
    "tensor_transformation",
]
