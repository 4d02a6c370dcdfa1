# SPDX-License-Identifier: Apache-2.0
"""Which documents are generated from the models, so that nothing is written twice?

`python -m gate.documentation` writes the JSON schemas, docs/config.md and the help block of README.md; a test fails when one
of them is not current.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gate import config, policy, report
from gate.document import Record
from gate.files import write_text
from gate.float16 import record

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS: dict[str, type[Record]] = {
    "float16": record.Float16Record,
    "gate": config.Config,
    "policy": policy.Policy,
    "report": report.Report,
    "waivers": config.Waivers,
}
HELP = re.compile(r"(<!-- help -->\n```text\n).*?(```\n<!-- /help -->)", re.DOTALL)


def documents() -> Iterator[tuple[Path, str]]:
    """Yield each generated document and what it should say."""
    for name, model in SCHEMAS.items():
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema()
        yield ROOT / "docs" / "schemas" / f"{name}.schema.json", json.dumps(schema, indent=2, sort_keys=True) + "\n"
    yield ROOT / "docs" / "config.md", config_page()
    readme = ROOT / "README.md"
    yield readme, HELP.sub(lambda found: found[1] + help_text() + found[2], readme.read_text(encoding="utf-8"))


def help_text() -> str:
    """Return what `gate --help` prints."""
    from typer.testing import CliRunner

    from gate.cli import app

    return CliRunner().invoke(app, ["--help"], prog_name="gate", env={"COLUMNS": "100"}).output.strip() + "\n"


def config_page() -> str:
    """Write docs/config.md: each key of gate.yml, of a policy and of waivers.yml."""
    lines = [
        "# gate.yml, policies and waivers, key by key",
        "",
        "Generated from the models by `make docs`; do not edit. JSON schemas for editors: `docs/schemas/`.",
        "",
        "Sizes are decimal (`6 MB`) unless written `MiB`; changes of a proportion are `points`; `%` of a size is relative. YAML",
        "anchors are refused. Numbers in exponent form need a sign and a point (`1.0e+6`): YAML 1.1 reads `1e6` as text.",
    ]
    for title, model in (
        ("gate.yml", config.Config),
        ("A policy file", policy.Policy),
        ("waivers.yml", config.Waivers),
    ):
        lines += ["", f"## {title}"]
        for name, part in _parts(model):
            lines += [
                "",
                f"### {name}",
                "",
                part.__doc__.strip().splitlines()[0] if part.__doc__ else "",
                "",
                "| key | what | default |",
                "|---|---|---|",
            ]
            lines += [_row(key, info) for key, info in part.model_fields.items()]
    return "\n".join(lines) + "\n"


def _row(key: str, info: FieldInfo) -> str:
    text = (info.description or "").replace("|", "\\|")
    return f"| `{key}` | {text}{_choices(info.annotation)} | {_default(info)} |"


def _choices(annotation: Any) -> str:
    values = [str(v) for literal in _literals(annotation) for v in get_args(literal)]
    return f" ({', '.join(f'`{v}`' for v in values)})" if values else ""


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, tuple):
        for argument in get_args(annotation):
            yield from _literals(argument)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel) or value in ((), {}):
        return ""
    return f"`{value}`"


def _parts(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield a model and the models inside it, once each, with the path of the key."""
    yield path or "(top level)", model
    for key, info in model.model_fields.items():
        for inner in _models(info.annotation):
            many = "[]" if "tuple" in str(info.annotation) else ""
            yield from _parts(inner, f"{path}.{key}{many}".lstrip("."))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, tuple):
        for argument in get_args(annotation):
            yield from _models(argument)


def main() -> None:
    """Write every generated document."""
    for path, text in documents():
        write_text(path, text)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
