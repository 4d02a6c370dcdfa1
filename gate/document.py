# SPDX-License-Identifier: Apache-2.0
"""How is a YAML file of ours read, and how is a mistake in it told?

Anchors, duplicate keys and oversized files are refused before anything is built from them; a mistake is told by file, path
and nearest known key: `gate.yml: models[0].budgets.siz: unknown key (did you mean "size"?)`.
"""

import difflib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gate.errors import UsageError

MAX_BYTES = 1_000_000  # a gate.yml of 1 MB is a mistake or an attack
MAX_DIGITS = 40  # Python reads no whole number of thousands of digits, and none of ours needs twenty


class Record(BaseModel):
    """A frozen record that crosses a border: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


R = TypeVar("R", bound=Record)


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


class _StrictLoader(yaml.SafeLoader):
    """YAML without anchors (they expand without bound) and without duplicate keys (the last would win silently)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("anchors and aliases are not allowed; write it out", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise _refused("a key must be plain text", key_node)
            if key in seen:
                raise _refused(f"key {key!r} appears twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise _refused(f"a number of {len(node.value)} digits, expected at most {MAX_DIGITS}", node)
        return super().construct_yaml_int(node)

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> Any:
        try:
            return super().construct_yaml_timestamp(node)
        except (ValueError, AttributeError):  # of 2026-13-45, and of `!!timestamp x`
            raise _refused(f"found {node.value!r}, expected a day that exists, such as 2027-01-31", node) from None


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _StrictLoader.construct_yaml_timestamp)


def read_yaml(path: Path, error: type[UsageError]) -> Any:
    """Read one YAML document; every mistake is an `error` that names file and line."""
    if not path.is_file():
        raise error(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise error(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    return load_yaml(path.read_bytes(), str(path), error)


def load_yaml(content: bytes, where: str, error: type[UsageError]) -> Any:
    """Read one YAML document from memory."""
    try:
        return yaml.load(content.decode("utf-8"), Loader=_StrictLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise error(f"{where}{line}: {problem.problem or problem.context}") from None
    # the last three: what PyYAML lets through of `!!bool x` and its kin
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as problem:
        raise error(f"{where}: not a YAML file: {problem}") from None


def parse(model: type[R], data: Any, where: str, error: type[UsageError]) -> R:
    """Validate `data`; every mistake in it is listed in one `error`, each with its path and the nearest known key."""
    if not isinstance(data, dict):
        raise error(
            f"{where}: found {type(data).__name__}, expected a mapping with keys {', '.join(model.model_fields)}"
        )
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        lines = list(dict.fromkeys(f"{where}: {line}" for line in _mistakes(model, problem)))
        raise error("\n".join(lines)) from None


def _mistakes(model: type[BaseModel], problem: ValidationError) -> Iterator[str]:
    errors = problem.errors(include_url=False)
    for item in errors:
        if item["type"] == "too_short" and any(
            other["loc"][: len(item["loc"])] == item["loc"] for other in errors if other is not item
        ):
            continue  # the list is short only because an entry of it is wrong, and that is told already
        path = dotted(item["loc"])
        match item["type"]:
            case "extra_forbidden":
                yield f"{path}: unknown key{_nearest(model, item['loc'])}"
            case "missing":
                yield f"{path}: required, but missing"
            case "value_error":
                yield f"{path}: {item['ctx']['error']}"
            case _:
                message = item["msg"][0].lower() + item["msg"][1:]
                yield f"{path}: {message}, found {_short(item['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def dotted(loc: tuple[int | str, ...]) -> str:
    """Write a pydantic location as a reader would: models[0].budgets.size."""
    text = ""
    for part in loc:
        if isinstance(part, str) and part.startswith("<"):
            continue  # the tag of a union member: <range>
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(document)"


def _nearest(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    known = sorted(_keys_at(model, loc[:-1]))
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    if close:
        return f' (did you mean "{close[0]}"?)'
    return f" (known here: {', '.join(known)})" if known else ""


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """Follow a location through the models and return the keys that are known there."""
    here: list[type[BaseModel]] = [model]
    for part in loc:
        if isinstance(part, str):
            fields = [m.model_fields[part].annotation for m in here if part in m.model_fields]
            if fields:
                here = [m for annotation in fields for m in _models_in(annotation)]
    return {name for m in here for name in m.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, list, tuple, dict) or hasattr(annotation, "__metadata__"):
        for argument in get_args(annotation):
            yield from _models_in(argument)
