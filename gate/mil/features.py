# SPDX-License-Identifier: Apache-2.0
"""What may go in and what comes out, by name? The contract of `MLModel.predict`.

Reads the model description once. `Features.read` turns a caller's dict into tensors or says which feature is
missing, unknown, misshaped or mistyped; `Features.write` turns results into what Core ML would return. Loads torch when it is asked
for tensors only: a Mac without torch reads descriptions, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.mil.blob import Array
from gate.mil.errors import BadInput, BadPackage, Unsupported
from gate.mil.program import Function, Program, StateType, TensorType, described

if TYPE_CHECKING:
    from torch import Tensor

INT32 = np.iinfo(np.int32)
Shape = tuple[int, ...]
Range = tuple[int, int | None]


class Kind(StrEnum):
    """What a feature is to the caller."""

    ARRAY = "array"
    IMAGE = "image"
    CLASS = "class"  # a label, or the dictionary of probabilities
    STATE = "state"


@dataclass(frozen=True)
class Feature:
    """One input, output or state of the description."""

    name: str
    kind: Kind
    dtype: str = ""
    shape: Shape = ()
    enumerated: tuple[Shape, ...] = ()
    ranges: tuple[Range, ...] = ()
    optional: bool = False
    default: float | int | None = None
    color: str = ""  # RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16

    def accepts(self, shape: Shape) -> bool:
        """Say whether an array of this shape may be given."""
        if self.enumerated:
            return shape in self.enumerated
        if self.ranges:
            return len(shape) == len(self.ranges) and all(map(_within, shape, self.ranges))
        return not self.shape or shape == self.shape

    @property
    def expected(self) -> str:
        """Say in words which shapes are accepted."""
        if self.enumerated:
            return " or ".join(map(str, self.enumerated))
        if self.ranges:
            return f"({', '.join(map(_range, self.ranges))})"
        return str(self.shape)

    def refusal(self, shape: Shape) -> str:
        """Say why a shape is not accepted; of flexible ones in Core ML's own words."""
        if self.enumerated:
            found = " x ".join(map(str, shape))
            return f"MultiArray Shape ({found}) was not in enumerated set of allowed shapes: {self.expected}"
        if len(shape) == len(self.ranges):
            for axis, (size, (low, high)) in enumerate(zip(shape, self.ranges, strict=True)):
                if not _within(size, (low, high)):
                    return f"Size ({size}) of dimension ({axis}) is not in allowed range ({low}..{high or ''})"
        return f"shape {shape} found, {self.expected} expected"


def _within(size: int, limits: Range) -> bool:
    low, high = limits
    return low <= size and (high is None or size <= high)


def _range(limits: Range) -> str:
    low, high = limits
    return str(low) if low == high else f"{low}…{'' if high is None else high}"


@dataclass(frozen=True)
class Features:
    """The inputs, outputs and states of one function."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    declared: Mapping[str, TensorType]  # what the program itself says of its inputs

    def read(self, inputs: Any) -> dict[str, Tensor]:
        """Return one tensor for each input of the program; raise BadInput that names the feature."""
        if not isinstance(inputs, Mapping):
            raise BadInput(f"inputs must be a dict of arrays, found {type(inputs).__name__}")
        if extra := inputs.keys() - {f.name for f in self.inputs}:
            names = ", ".join(f.name for f in self.inputs)
            raise BadInput(
                f"no input is called {', '.join(sorted(map(repr, extra)))}; the model takes {names or 'none'}"
            )
        return {f.name: self._tensor(f, inputs.get(f.name)) for f in self.inputs}

    def _tensor(self, feature: Feature, value: Any) -> Tensor:
        if value is None:
            value = _default(feature)
        array = _from_image(feature, value) if feature.kind is Kind.IMAGE else _from_array(feature, value)
        declared = self.declared[feature.name]
        if declared.shape == () and array.size == 1:
            array = array.reshape(())
        found: Tensor = _numerics().tensor(array)
        return found

    def write(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return results as Core ML does: arrays of the described dtype, images, labels."""
        return {f.name: _write(f, results[f.name]) for f in self.outputs}

    def write_all(self, columns: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
        """Yield the results of each of `count` samples as `write` does; a column holds their values, or the stack of their tensors.

        Arrays are parts of one that holds all samples: who keeps one keeps them all.
        """
        names = [f.name for f in self.outputs]
        written = [_write_column(f, columns[f.name]) for f in self.outputs]
        return (dict(zip(names, (column[i] for column in written), strict=True)) for i in range(count))


def read_features(program: Program, function: Function) -> Features:
    """Read the description of one function."""
    description = described(program.spec, function.name)
    tensors = {v.name: v.type for v in function.inputs if isinstance(v.type, TensorType)}
    states = {v.name: v.type.wrapped for v in function.inputs if isinstance(v.type, StateType)}
    inputs = tuple(_feature(f, tensors.get(f.name)) for f in description.input)
    missing = tensors.keys() ^ {f.name for f in inputs}
    if missing:
        raise BadPackage(f"program and description disagree about the inputs {', '.join(sorted(missing))}")
    outputs = tuple(_feature(f, None) for f in description.output)
    known = {v.name for v in function.body.outputs}
    lost = sorted({f.name for f in outputs} - known)
    if lost:
        raise BadPackage(f"the description promises {', '.join(lost)}, which the program does not return")
    return Features(inputs, outputs, tuple(_state(n, t) for n, t in states.items()), tensors)


def _state(name: str, kind: TensorType) -> Feature:
    if kind.shape is None or None in kind.shape:
        raise Unsupported(f"state {name!r}: its shape is not fixed ({kind})")
    return Feature(name, Kind.STATE, kind.dtype, tuple(n for n in kind.shape if n is not None))


def _feature(spec: Any, declared: TensorType | None) -> Feature:
    kind = spec.type.WhichOneof("Type")
    if kind == "multiArrayType":
        return _array_feature(spec, declared)
    if kind == "imageType":
        return _image_feature(spec)
    if kind in ("stringType", "int64Type", "dictionaryType", "doubleType"):
        return Feature(spec.name, Kind.CLASS)
    raise Unsupported(f"feature {spec.name!r}: {kind or 'no type'} is not known in ML programs")


ARRAY_TYPES = {65568: "float32", 65552: "float16", 65600: "float64", 131104: "int32", 131080: "int8"}


def _array_feature(spec: Any, declared: TensorType | None) -> Feature:
    array = spec.type.multiArrayType
    flexible = array.WhichOneof("ShapeFlexibility")
    enumerated = tuple(tuple(s.shape) for s in array.enumeratedShapes.shapes) if flexible == "enumeratedShapes" else ()
    ranges = tuple(map(_limits, array.shapeRange.sizeRanges)) if flexible == "shapeRange" else ()
    given = array.WhichOneof("defaultOptionalValue")
    shape = tuple(array.shape)
    if not shape and declared is not None and declared.sizes is not None:
        shape = tuple(declared.sizes)
    if array.dataType not in ARRAY_TYPES:
        raise Unsupported(f"feature {spec.name!r}: arrays of type {array.dataType} are not known")
    return Feature(
        spec.name,
        Kind.ARRAY,
        ARRAY_TYPES[array.dataType],
        shape,
        enumerated,
        ranges,
        spec.type.isOptional,
        getattr(array, given) if given else None,
    )


def _limits(spec: Any) -> Range:
    return int(spec.lowerBound), None if spec.upperBound < 0 else int(spec.upperBound)


COLORS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}


def _image_feature(spec: Any) -> Feature:
    image = spec.type.imageType
    color = COLORS.get(image.colorSpace)
    if color is None:
        raise Unsupported(f"feature {spec.name!r}: colour space {image.colorSpace} is not known")
    channels = 1 if color.startswith("GRAYSCALE") else 3
    shape = (1, channels, int(image.height), int(image.width))
    flexible = image.WhichOneof("SizeFlexibility")
    enumerated: tuple[Shape, ...] = ()
    ranges: tuple[Range, ...] = ()
    if flexible == "enumeratedSizes":
        enumerated = tuple((1, channels, int(s.height), int(s.width)) for s in image.enumeratedSizes.sizes)
    elif flexible == "imageSizeRange":
        size = image.imageSizeRange
        ranges = ((1, 1), (channels, channels), _limits(size.heightRange), _limits(size.widthRange))
    return Feature(spec.name, Kind.IMAGE, "uint8", shape, enumerated, ranges, spec.type.isOptional, None, color)


def _default(feature: Feature) -> Array:
    if not feature.optional:
        raise BadInput(f"input {feature.name!r} is missing: {feature.kind} of shape {feature.expected}")
    return np.full(feature.shape, feature.default or 0, feature.dtype)


def _from_array(feature: Feature, value: Any) -> Array:
    try:
        array: Any = value.detach().numpy() if _is_tensor(value) else np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(f"input {feature.name!r}: can't be read as an array ({error})") from None
    if array.dtype.kind not in "fiub":
        raise BadInput(f"input {feature.name!r}: {array.dtype} found, {feature.dtype} expected")
    if array.ndim == 0 and feature.shape == (1,):
        array = array.reshape(1)
    if not feature.accepts(array.shape):
        raise BadInput(f"input {feature.name!r}: {feature.refusal(array.shape)}")
    return _integers(feature, array) if feature.dtype.startswith("int") else array


def _integers(feature: Feature, array: Any) -> Array:
    """Return int32 values: fractions are dropped, as Core ML does; what does not fit is refused."""
    if array.size and not (INT32.min <= array.min() <= array.max() <= INT32.max):
        raise BadInput(f"input {feature.name!r}: values up to {array.max()} do not fit int32")
    return np.asarray(array.astype(np.int32))


MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def _from_image(feature: Feature, value: Any) -> Array:
    """Return (1, c, h, w) in the model's channel order, from a PIL image, an (h, w, c) array, or that layout itself."""
    mode = getattr(value, "mode", None)
    if mode is not None and mode != MODES[feature.color]:
        raise BadInput(f"input {feature.name!r}: an image of mode {mode} found, {MODES[feature.color]} expected")
    pixels = np.asarray(value)
    if pixels.dtype.kind not in "fiu" or pixels.ndim not in (2, 3, 4):
        raise BadInput(f"input {feature.name!r}: a {pixels.dtype} array of shape {pixels.shape} is not an image")
    planar = pixels if pixels.ndim == 4 else _planar(pixels, feature)
    if not feature.accepts(planar.shape):
        raise BadInput(f"input {feature.name!r}: image of shape {planar.shape} found, {feature.expected} expected")
    return planar


def _planar(pixels: Array, feature: Feature) -> Array:
    channels = pixels.reshape(*pixels.shape[:2], -1)
    if feature.color == "BGR":
        channels = channels[:, :, ::-1]
    return channels.transpose(2, 0, 1)[None]


def _write(feature: Feature, value: Any) -> Any:
    if feature.kind is Kind.IMAGE:
        return _to_image(feature, value)
    if not _is_tensor(value) or not feature.dtype:
        return value
    return _numerics().array(value.reshape(1) if value.dim() == 0 else value, feature.dtype)  # Core ML has no rank 0


def _write_column(feature: Feature, column: Any) -> Sequence[Any]:
    if feature.kind is Kind.IMAGE or not _is_tensor(column) or not feature.dtype:
        return [_write(feature, value) for value in column]
    stack: Array = _numerics().array(column[:, None] if column.dim() == 1 else column, feature.dtype)
    return list(stack)


@cache
def _numerics() -> Any:
    """Load torch once it is needed; an import statement in a function of each sample costs a tenth of its time."""
    from gate.mil import numerics

    return numerics


def _is_tensor(value: Any) -> bool:
    """Is it torch's, without loading torch to ask?"""
    return hasattr(value, "detach")


def _to_image(feature: Feature, value: Tensor) -> Any:
    """Return a PIL image: pixels are clamped to 0…255 and rounded."""
    try:
        from PIL import Image
    except ImportError:
        raise Unsupported(f"output {feature.name!r} is an image; install Pillow to receive it") from None
    pixels = value[0].permute(1, 2, 0)
    if feature.color == "GRAYSCALE_FLOAT16":
        return Image.fromarray(pixels[:, :, 0].numpy().astype(np.float32))
    whole = pixels.round().clamp(0, 255).byte().numpy()
    if feature.color == "GRAYSCALE":
        return Image.fromarray(whole[:, :, 0])
    return Image.fromarray(np.ascontiguousarray(whole[:, :, ::-1] if feature.color == "BGR" else whole))
