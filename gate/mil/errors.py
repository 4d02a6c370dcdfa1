# SPDX-License-Identifier: Apache-2.0
"""What can go wrong when a MIL program is read or run?

    MilError
    ├── BadPackage      the file is not what it says it is: truncated, inconsistent, hostile
    ├── Unsupported     a sound model that this evaluator does not run
    │   └── UnsupportedOp   op types without a kernel, all named, before anything runs
    ├── BadInput        an input or state that does not fit the model's description
    └── OpFailed        one op could not compute its result

`gate.mil` could be a project of its own, so the tree does not hang under `gate.errors`.
"""


class MilError(Exception):
    """Anything `gate.mil` says about a model or its inputs."""


class BadPackage(MilError):
    """The package contradicts itself or its format."""


class Unsupported(MilError):
    """The model is sound, but of a kind that is not evaluated."""


class UnsupportedOp(Unsupported):
    """Some op types have no kernel."""

    def __init__(self, types: tuple[str, ...], where: str) -> None:
        self.types = types
        super().__init__(f"{where}: no kernel for {', '.join(types)}; nothing was run")


class BadInput(MilError):
    """An input or a state does not fit the model's description."""


class OpFailed(MilError):
    """One op could not compute its result."""
