# SPDX-License-Identifier: Apache-2.0
"""Which ops did coremltools make out of several?

A package does not record its passes, but names tell: an op that swallowed the one after it takes that one's name and keeps
its own in its parameters, and weights that were folded get new ones. Ops that stand for several by their type are counted apart,
since the author may have written them so.
"""

import re
from collections.abc import Iterator

from gate.mil.program import Constant, Function, Op

FOLDING = ("conv", "conv_transpose", "linear")
COMPOSITES = frozenset(
    {"gelu", "instance_norm", "l2_norm", "layer_norm", "prelu", "scaled_dot_product_attention", "sigmoid_hard", "silu"}
)
STEERING = ("strides", "dilations", "groups", "pad", "pad_type")
SUFFIX = re.compile(r"_cast_(fp16|fp32|u?int\d+)$|_to_(fp16|fp32)$")
FOLDED_WEIGHT = re.compile(r"^const_\d+$|_weight_\d+$")


def folded(function: Function) -> Iterator[Op]:
    """Yield the layers whose weights hold a norm, a scale or a bias that was an op of its own."""
    named_by_author = {*function.body.outputs}
    for op in function.body.walk():
        told = op.type in FOLDING and not named_by_author & {*op.outputs} and _was_called_otherwise(op)
        if told or (op.type in FOLDING and _has_new_weights(op)):
            yield op


def composites(function: Function) -> Iterator[Op]:
    """Yield the ops that stand for several."""
    return (op for op in function.body.walk() if op.type in COMPOSITES)


def _was_called_otherwise(op: Op) -> bool:
    own = SUFFIX.sub("", op.name)
    for name in STEERING:
        for given in op.inputs.get(name, ()):
            before = re.fullmatch(rf"(.+)_{name}_\d+", given.name) if isinstance(given, Constant) else None
            if before is not None:
                return before[1] != own
    return False


def _has_new_weights(op: Op) -> bool:
    weight = next((a for a in op.inputs.get("weight", ()) if isinstance(a, Constant)), None)
    return weight is not None and FOLDED_WEIGHT.search(SUFFIX.sub("", weight.name)) is not None
