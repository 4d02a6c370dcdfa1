# SPDX-License-Identifier: Apache-2.0
"""Which ops does a torch module run, and what does each compute?

Runs in the worker. The module itself is watched, and not a trace or an export of it: those are what may have gone wrong.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gate.trail import Seen, Step, Trail, see

BOOKKEEPING = frozenset({"lift_fresh", "detach", "alias"})  # compute nothing
MOST_STEPS = 20_000  # a trail that is cut off says nothing


def watch(run: Callable[[], Sequence[torch.Tensor]], folder: Path) -> Trail:
    """Run a module and note every op, with the innermost line below `folder` that led to it."""
    watcher = _Watcher(folder)
    with watcher:
        outputs = run()
    whole = len(watcher.steps) < MOST_STEPS
    return Trail(tuple(watcher.steps), watcher.values, watcher.numbers(outputs) if whole else ())


class _Watcher(TorchDispatchMode):
    def __init__(self, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.folder = f"{folder}/"
        self.steps: list[Step] = []
        self.values: dict[int, Seen] = {}
        self.alive: list[torch.Tensor] = []  # so that no two tensors share an id
        self.number: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        reads = self.numbers(tree_leaves((args, kwargs)))
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in BOOKKEEPING:
            self.alive.append(result)
            self.number |= {id(result): number for number in reads}
        elif len(self.steps) < MOST_STEPS:
            makes = tuple(self.note(one) for one in tree_leaves(result) if isinstance(one, torch.Tensor))
            self.steps.append(Step(name, self.place(), reads, makes))
        return result

    def numbers(self, tensors: Iterable[Any]) -> tuple[int, ...]:
        """Numbers of those values that an op made; inputs and weights have none."""
        return tuple(self.number[id(one)] for one in tensors if id(one) in self.number)

    def note(self, tensor: torch.Tensor) -> int:
        """Number a value; one that was changed in place is another value."""
        number = len(self.values)
        self.alive.append(tensor)
        self.number[id(tensor)] = number
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        exact = not real.is_floating_point()
        self.values[number] = see((real if exact else real.double()).detach().cpu().numpy())
        return number

    def place(self) -> str | None:
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self.folder):
                return f"{frame.f_code.co_filename.removeprefix(self.folder)}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment]
        return None
