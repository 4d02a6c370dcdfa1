# SPDX-License-Identifier: Apache-2.0
"""Attention in one op (iOS18)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gate.mil.ops.registry import kernel


@kernel(since="CoreML8")
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(q · kᵀ / √e + mask) · v; a bool mask says who takes part."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask)
