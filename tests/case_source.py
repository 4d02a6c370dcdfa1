# SPDX-License-Identifier: Apache-2.0
"""How does a case become something the gate can judge? In process: the cases are ours, so no sandbox stands between.

`CaseSource` answers what `gate.source.Source` asks its worker by calling the worker's own functions, and keeps converted packages by
content, so that only what changed is converted again.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gate import convert, protocol, worker
from gate.compress import Workers
from gate.config import Config, ModelEntry
from gate.engine.mil import MilEngine
from gate.entry import Circumstances, Trial
from gate.protocol import Startup, Verb
from gate.sandbox import Kind, Limits
from gate.source import Source, _startup

CASES = Path(__file__).parent / "cases"
MORE_CASES = Path(__file__).parent / "cases_more"  # written from descriptions of failures only
PACKAGES = Path(__file__).parents[1] / "out" / "cases"


@dataclass(frozen=True)
class Case:
    """One failure from the field, with what a correct gate must say about it."""

    path: Path
    facts: dict[str, Any]
    verified: dict[str, Any]
    module: Any

    @property
    def name(self) -> str:
        return str(self.facts["id"])

    @property
    def verdict(self) -> str:
        return str(self.facts["verdict"])

    @property
    def culprits(self) -> tuple[str, ...]:
        """Op types that a correct answer may name first."""
        named = self.facts["culprit_op"] or []
        return tuple(self.verified.get("acceptable_culprits") or ([named] if isinstance(named, str) else named))

    @cached_property
    def config(self) -> Config:
        """The gate.yml that the author of such a model would write."""
        entry: dict[str, Any] = {
            "name": self.name,
            "source": {"factory": f"{self.path.name}:build", "example": f"{self.path.name}:inputs"},
            "inputs": list(self._inputs()),
        }
        if (path := self.facts.get("path")) and self.verdict != "ROUTE":
            entry["convert"] = {"route": path}
        target = self.facts.get("target", "iOS17")
        config = Config.model_validate({"version": 1, "app": {"deployment_target": target}, "models": [entry]})
        config._folder = self.path.parent.resolve()
        return config

    def _inputs(self) -> Iterator[dict[str, Any]]:
        flexible = self.facts.get("dynamic", {})
        names = list(inspect.signature(self.module.build().forward).parameters)
        enumerated = self.facts.get("enumerated")
        for index, tensor in enumerate(self.module.inputs() if flexible or enumerated else ()):
            shape: list[Any] = list(tensor.shape)
            for axis, (low, high) in flexible.get(index, {}).items():
                shape[axis] = {"range": [low, high]}
            for axis in range(len(shape)) if enumerated else ():
                sizes = sorted({one[axis] for one in enumerated})
                shape[axis] = {"any_of": sizes} if len(sizes) > 1 else sizes[0]
            yield {"name": names[index], "shape": shape}


def load_case(path: Path) -> Case:
    """Import one case."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Case(path, module.CASE, getattr(module, "VERIFIED", {}), module)


def load_cases(*prefixes: str, folder: Path = CASES) -> list[Case]:
    """Import the cases whose names start so; all without a prefix."""
    return [load_case(path) for path in sorted(folder.glob("*.py")) if not prefixes or path.name.startswith(prefixes)]


@dataclass
class CaseSource(Source):
    """A source whose worker is in this process."""

    packages: Path = PACKAGES

    @cached_property
    def worker(self) -> worker.Worker:
        self._private = self.workdir / "private"
        startup: Startup = _startup(self.entry, self.config, (), self._private)
        for folder in (startup.requests, startup.answers):
            Path(folder).mkdir(parents=True, exist_ok=True)
        return worker.Worker(startup)

    def _ask(self, verb: Verb, **arguments: Any) -> Any:
        if verb is Verb.CONVERT:
            return self._convert_here(**arguments)
        return worker.VERBS[verb](self.worker, **arguments)

    def _convert_here(self, **arguments: Any) -> dict[str, Any]:
        """Convert, or take what was converted from the same bytes by the same code before."""
        kept = self.packages / self._key(arguments)
        record = kept.with_suffix(".json")
        answers = Path(self.worker.startup.answers)
        if not record.is_file():
            answer = self._convert_now(arguments)
            kept.parent.mkdir(parents=True, exist_ok=True)
            if answer.get("package"):
                shutil.rmtree(kept, ignore_errors=True)
                shutil.move(answers / answer["package"], kept)
            record.write_text(json.dumps(answer))
        answer = json.loads(record.read_text())
        if "failure" in answer:
            raise self._error(Verb.CONVERT, protocol.Failure.model_validate(answer["failure"]))
        name = "package-1.mlpackage"
        shutil.rmtree(answers / name, ignore_errors=True)
        shutil.copytree(kept, answers / name)
        return {**answer, "package": name}

    def _convert_now(self, arguments: dict[str, Any]) -> dict[str, Any]:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return worker.convert(self.worker, **arguments)
            except Exception as problem:
                return {"failure": worker._failure(problem).model_dump(mode="json")}

    def _key(self, arguments: dict[str, Any]) -> str:
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True, default=str).encode())
        digest.update(repr((self.entry.inputs, self.entry.source.args)).encode())
        digest.update((self.config.folder / self.entry.source.location.split(":")[0]).read_bytes())
        digest.update(Path(convert.__file__).read_bytes())
        for tool in ("coremltools", "torch", "numpy"):
            digest.update(importlib.metadata.version(tool).encode())
        return f"{self.entry.name}-{digest.hexdigest()[:16]}"


def make_trial(config: Config, work: Path) -> Trial:
    """Prepare the one model entry of a configuration as the pipeline does."""
    entry: ModelEntry = config.models[0]
    source = CaseSource(
        entry=entry,
        config=config,
        workdir=work / entry.name,
        log=work / "log",
        limits=Limits(600, 10**10),
        kind=Kind.NONE,
    )
    circumstances = Circumstances(config, MilEngine(), None, (), None, Workers(1), work)
    scratch = work / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    trial = Trial(entry, source, circumstances, scratch)
    with contextlib.redirect_stderr(io.StringIO()):
        trial.prepare()
    return trial


def make_config(folder: Path, **entry: Any) -> Config:
    """A configuration of one model entry whose code lies in a folder."""
    config = Config.model_validate({"version": 1, "app": {"deployment_target": "iOS17"}, "models": [entry]})
    config._folder = folder.resolve()
    return config
