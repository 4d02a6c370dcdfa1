# SPDX-License-Identifier: Apache-2.0
"""Where does half precision lose what is missing at the outputs, and what mends it?

    tiers         how engines that round more often would answer
    trials        what reaches the outputs when chosen ops alone lose precision
    blame         the ops that do the damage, by injection
    causes        why, how far over the edge, and the rewrite
    investigate   the above for one model, with layer and source line
    cure          the smallest set of layers to keep in float32, converted again and judged

This module is light; the others load torch.
"""

from enum import StrEnum


class Tier(StrEnum):
    """A rounding of the whole program, from what is sure to what is feared."""

    DECLARED = "declared"
    CLIFFS = "cliffs"
    NARROW = "narrow"
    ACCUMULATE16 = "accumulate16"

    @property
    def blocks(self) -> bool:
        """May a model fail for it?"""
        return self in (Tier.DECLARED, Tier.CLIFFS)

    @property
    def rounding(self) -> str:
        """The evaluator's precision for a single op."""
        return "narrow" if self is Tier.CLIFFS else self.value
