# SPDX-License-Identifier: Apache-2.0
"""What must agree: layers, light imports, generated documents, names in code and docs, the action and the README."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gate import documentation
from gate.config import Budgets
from gate.report import CheckName

ROOT = Path(__file__).resolve().parent.parent
GATE = ROOT / "gate"

# From the top: a module imports from lower lines only, or from its own unit. See the drawing in CONTRIBUTING.md.
LAYERS = (
    {"__main__", "documentation"},
    {"cli", "action"},
    {"scaffold", "remedy", "answer"},
    {"pipeline"},
    {"plan"},
    {"unchanged"},
    {"merge", "approval", "onboarding", "history", "contents"},
    {"prepare", "github", "lfs", "render", "doctor", "shard"},
    {"search"},
    {"entry"},
    {"handover"},
    {"unread"},
    {"checks"},
    {"float16", "app_size", "carry", "archive", "ahead"},
    {"conversion", "waivers", "limits", "calibration", "app_memory"},
    {"divergence"},
    {"inspect", "diff", "footprint", "suspects"},
    {"compress", "candidate", "advice"},
    {"interface", "alignment"},
    {"memory", "rules", "devices", "fusions"},
    {"macs", "patterns"},
    {"shapes"},
    {"regressions", "parts"},
    {"groups", "wording"},
    {"comparison", "earlier"},
    {"source", "baseline", "evidence"},
    {"bench", "timing", "remote", "kept"},
    {"engine", "sandbox", "worker"},
    {"convert", "handed", "jail", "data", "metrics", "difference", "steps"},
    {"stats", "boxes", "checkpoint", "choices"},
    {"protocol", "trail"},
    {"mil"},
    {"config", "growth"},
    {"policy", "report"},
    {"document"},
    {"errors", "files", "heap", "importing", "naming", "quantity", "tools"},
)
RANK = {name: index for index, layer in enumerate(LAYERS) for name in layer}
LIGHT = (
    *("config", "policy", "report", "render", "github", "cli", "waivers", "baseline", "limits", "shard", "merge"),
    *("history", "contents", "carry", "handed"),
)


def unit(path: Path) -> str:
    relative = path.relative_to(GATE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Units of gate that a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gate.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "gate":
            found |= {alias.name for alias in node.names if not alias.name.startswith("_")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gate."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted(GATE.rglob("*.py")), ids=lambda path: str(path.relative_to(GATE)))
def test_imports_point_down(path):
    here = unit(path)
    if here == "__init__":
        return
    assert here in RANK, f"{here} has no layer; add it to LAYERS"
    upward = {other for other in imports(path) if other != here and RANK[other] <= RANK[here]}
    assert not upward, f"{path.name} imports {upward} from its own layer or above"


def test_the_evaluator_imports_nothing_else_of_the_gate():
    assert all(imports(path) <= {"mil"} for path in (GATE / "mil").rglob("*.py"))


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_loads_without_the_engine(name):
    code = f"import sys, gate.{name}; print([m for m in ('torch', 'coremltools', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("path", "text"), list(documentation.documents()), ids=lambda value: value.name if isinstance(value, Path) else ""
)
def test_generated_documents_are_current(path, text):
    assert path.read_text() == text, f"{path.name} is stale; run `make docs`"


def test_checks_have_one_name_everywhere():
    from gate.checks import CHECKS

    names = [name.value for name in CheckName]
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "checks.md").read_text(), re.MULTILINE)
    assert headings == names
    ours = [check.name.value for check in CHECKS]
    assert ours == [name for name in names if name in ours], "CHECKS are in the order of the report"
    for name in ours:
        assert (GATE / "checks" / f"{name}.py").is_file()
    assert set(Budgets.model_fields) <= set(names)


def test_every_kernel_has_a_test_row():
    from gate.mil.ops.registry import KERNELS

    text = "".join(path.read_text() for path in (ROOT / "tests" / "mil").glob("*.py"))
    kinds = {key[0] if isinstance(key, tuple) else key for key in KERNELS}
    missing = sorted(kind for kind in kinds if f'"{kind.removeprefix("constexpr_")}"' not in text)
    assert not missing, f"no row in tests/mil for {missing}"


def test_every_module_says_which_question_it_answers():
    for path in GATE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree) or not tree.body, f"{path.relative_to(ROOT)} has no docstring"


def test_the_actions_inputs_are_the_readmes_table():
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    table = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [name for name in table if name in inputs] == list(inputs)


def test_the_shipped_policies_are_documented():
    text = (ROOT / "docs" / "policies.md").read_text()
    for path in (ROOT / "policies").glob("*.yaml"):
        assert f"`{path.stem}`" in text, f"{path.stem} is not in docs/policies.md"


def test_no_module_is_named_for_nothing():
    for path in GATE.rglob("*.py"):
        assert path.stem not in ("utils", "util", "helpers", "common", "manager", "misc")
        assert path.stem == "__init__" or path.parent != GATE or path.stem not in sys.stdlib_module_names - {"inspect"}


def test_the_readme_is_a_readme_and_no_manual():
    assert 130 <= len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_version_is_one():
    assert (
        importlib.import_module("gate").__version__ in (ROOT / "CHANGELOG.md").read_text()
        or "[Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    )
