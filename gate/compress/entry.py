# SPDX-License-Identifier: Apache-2.0
"""How does a compressed weight travel between processes and runs?

One safetensors file per weight: raw bytes per part, and form, shapes and types as JSON in its header. No pickles; what does not
fit is one `ValueError`. Whether the numbers are right is another question (`invariants.py`).
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gate.compress.encode import Axes
from gate.compress.encoded import PARTS, Array, Encoded, Form, Tensor
from gate.compress.invariants import Census
from gate.mil.blob import BITS, BlobFile, packed_bytes, unpack
from gate.policy import Action, Palettize, Prune, Quantize

FORMAT = 1  # raised when an entry of an older gate must not be used
TOOLS = ("coremltools", "numpy", "scikit-learn")  # whose version may change a result
KINDS: dict[str, type[Action]] = {"palettize": Palettize, "quantize": Quantize, "prune": Prune}


@dataclass(frozen=True)
class Task:
    """One weight to compress: where its bytes lie, and what to do with it."""

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    actions: tuple[Action, ...]
    axes: Axes

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def weight(self) -> Array:
        """Read the weight; the file is mapped, not loaded."""
        return _weight(self.file, self.offset, self.dtype, self.shape)

    def key(self) -> str:
        """Digest of all that decides the result: content, parameters, tool versions."""
        content = _digest(self.file, self.offset, self._state())
        facts = [FORMAT, content, self.dtype, self.shape, _written(self.actions), asdict(self.axes), tool_versions()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def census(self) -> Census | None:
        """Count its float16 patterns; None where that does not pay."""
        return _census(self.file, self.offset, self.dtype, self.shape, self._state())

    def _state(self) -> tuple[int, ...]:
        """Tell this file from one that replaces it."""
        state = self.file.stat()
        return state.st_ino, state.st_mtime_ns, state.st_size

    def to_json(self) -> dict[str, Any]:
        """Write it for the worker."""
        return {
            "file": str(self.file),
            "offset": self.offset,
            "dtype": self.dtype,
            "shape": self.shape,
            "actions": _written(self.actions),
            "axes": asdict(self.axes),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Task":
        """Read what `to_json` wrote."""
        actions = tuple(KINDS[kind].model_validate(fields) for kind, fields in data["actions"])
        return cls(
            Path(data["file"]), data["offset"], data["dtype"], tuple(data["shape"]), actions, Axes(**data["axes"])
        )


def _weight(file: Path, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
    return unpack(BlobFile(file).read(offset).data, dtype, math.prod(shape)).reshape(shape)


@lru_cache(maxsize=4096)  # several policies ask about the same weights; `state` tells a file that was replaced
def _digest(file: Path, offset: int, state: tuple[int, ...]) -> str:
    return hashlib.sha256(BlobFile(file).read(offset).data.data).hexdigest()


@lru_cache(maxsize=64)  # 0.2 MB each
def _census(file: Path, offset: int, dtype: str, shape: tuple[int, ...], state: tuple[int, ...]) -> Census | None:
    return Census.of(_weight(file, offset, dtype, shape))


@cache  # reading package metadata 54 times takes longer than hashing the weights
def tool_versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {name: version(name) for name in TOOLS}


def _written(actions: Sequence[Action]) -> list[tuple[str, dict[str, Any]]]:
    return [(type(action).__name__.lower(), _fields(action)) for action in actions]


def _fields(action: Action) -> dict[str, Any]:
    """Dump an action so that it loads again: a proportion is read as text only."""
    fields = action.model_dump(mode="json")
    if isinstance(action, Prune):
        fields["sparsity"] = f"{action.sparsity * 100!r} %"
    return fields


def save(path: Path, encoded: Encoded) -> None:
    """Write an entry under a temporary name, then rename it."""
    from safetensors.numpy import save_file

    header = {
        "form": encoded.form,
        "shape": encoded.shape,
        "axis": encoded.axis,
        "parts": {name: (part.dtype, part.shape) for name, part in encoded.parts.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        data = {name: np.ascontiguousarray(part.data) for name, part in encoded.parts.items()}
        save_file(data, draft, {"encoded": json.dumps(header)})
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def load(path: Path) -> Encoded:
    """Read an entry; ValueError when it is not one, or its parts do not fit each other."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["encoded"])
            parts = {name: _tensor(file.get_tensor(name), *header["parts"][name]) for name in file.keys()}  # noqa: SIM118
        form, shape, axis = Form(header["form"]), tuple(header["shape"]), header["axis"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a compressed weight ({type(error).__name__}: {error})") from None
    if not (axis is None or (type(axis) is int and 0 <= axis < len(shape))):
        raise ValueError(f"axis {axis!r} of shape {shape}")
    needed, optional = PARTS[form]
    if not needed <= parts.keys() <= needed | optional:
        raise ValueError(f"a {form} weight has parts {sorted(needed)}, found {sorted(parts)}")
    return Encoded(form, shape, parts, axis)


def _tensor(data: Array, dtype: str, shape: Sequence[int]) -> Tensor:
    if data.dtype != np.uint8 or data.ndim != 1 or dtype not in BITS:
        raise ValueError(f"a part must be bytes of a known type, found {data.dtype} as {dtype}")
    if data.size != packed_bytes(dtype, math.prod(shape)):
        raise ValueError(
            f"{dtype}{tuple(shape)} needs {packed_bytes(dtype, math.prod(shape))} bytes, found {data.size}"
        )
    return Tensor(dtype, tuple(shape), data)
