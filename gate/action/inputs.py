# SPDX-License-Identifier: Apache-2.0
"""What was asked of the action? Its inputs, read strictly: GitHub enforces neither types nor `required`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from gate.errors import UsageError
from gate.shard import MAX_PARTS

DEFAULT_SHARDS = 4


class Mode(StrEnum):
    ALL = "all"
    EVALUATE = "evaluate"
    REPORT = "report"
    PLAN = "plan"
    MERGE = "merge"
    ANSWER = "answer"


class Runtime(StrEnum):
    AUTO = "auto"
    CONTAINER = "container"
    NATIVE = "native"


class Engine(StrEnum):
    AUTO = "auto"
    MIL = "mil"
    COREML = "coreml"


class FailOn(StrEnum):
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NEVER = "never"


class CommentMode(StrEnum):
    ALWAYS = "always"
    ON_CHANGE = "on-change"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class HandOver(StrEnum):
    NO = "no"
    AFTER = "after"  # a Mac confirms what was judged here
    FIRST = "first"  # a Mac runs the models, and nothing is run here


E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True)
class Inputs:
    """The inputs of action.yml. A composite action gets none by itself: its steps hand them over as INPUT_…"""

    mode: Mode = Mode.ALL
    config: str = "gate.yml"
    models: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    engine: Engine = Engine.AUTO
    runtime: Runtime = Runtime.AUTO
    fail_on: FailOn = FailOn.FAIL
    comment: CommentMode = CommentMode.ON_CHANGE
    comment_id: str = "default"
    artifact: str = "coreml-gate"
    report: str = ""
    image: str = ""
    time_limit_minutes: int = 60
    baseline: str = ""
    shard: str = ""
    plan: str = ""
    source: str = ""  # the input is called `from`
    hand_over: HandOver = HandOver.NO
    device: str = ""
    development_team: str = ""
    cache: str = ""
    cache_key: str = ""

    @property
    def shards(self) -> int:
        """With mode `plan`: how many jobs at most."""
        if self.shard and not (self.shard.isascii() and self.shard.isdigit() and 0 < int(self.shard) <= MAX_PARTS):
            raise UsageError(
                f"input shard: found {self.shard!r}, expected with mode plan a number from 1 to {MAX_PARTS}"
            )
        return int(self.shard or DEFAULT_SHARDS)

    @staticmethod
    def read(environ: Mapping[str, str]) -> "Inputs":
        """Read the inputs; raise UsageError naming the input, what was found and what is possible."""
        default = Inputs()
        return Inputs(
            mode=_choice(environ, "mode", Mode),
            config=_text(environ, "config") or default.config,
            models=tuple(re.split(r"[\s,]+", _text(environ, "models"))) if _text(environ, "models") else (),
            policies=tuple(re.split(r"[\s,]+", _text(environ, "policies"))) if _text(environ, "policies") else (),
            engine=_choice(environ, "engine", Engine),
            runtime=_choice(environ, "runtime", Runtime),
            fail_on=_choice(environ, "fail-on", FailOn),
            comment=_choice(environ, "comment", CommentMode, default.comment),
            comment_id=_text(environ, "comment-id") or default.comment_id,
            artifact=_text(environ, "artifact") or default.artifact,
            report=_text(environ, "report"),
            image=_image(environ),
            time_limit_minutes=_minutes(environ, "time-limit-minutes", default.time_limit_minutes),
            baseline=_text(environ, "baseline"),
            shard=_text(environ, "shard"),
            plan=_text(environ, "plan"),
            source=_text(environ, "from"),
            hand_over=_choice(environ, "hand-over", HandOver),
            device=_text(environ, "device"),
            development_team=_text(environ, "development-team"),
            cache=_text(environ, "cache"),
            cache_key=_text(environ, "cache-key"),
        )


def _text(environ: Mapping[str, str], name: str) -> str:
    return environ.get(f"INPUT_{name.upper().replace('-', '_')}", "").strip()


def _choice(environ: Mapping[str, str], name: str, kind: type[E], default: E | None = None) -> E:
    text = _text(environ, name)
    if not text:
        return default or next(iter(kind))
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"input {name}: found {text!r}, expected one of {', '.join(kind)}") from None


def _image(environ: Mapping[str, str]) -> str:
    text = _text(environ, "image")
    if text and not re.fullmatch(r"\w[\w./:-]*@sha256:[0-9a-f]{64}", text):
        raise UsageError(f"input image: found {text!r}, expected a name with its digest: name@sha256:…")
    return text


def _minutes(environ: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environ, name)
    if text and not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_440):
        raise UsageError(f"input {name}: found {text!r}, expected whole minutes from 1 to 1440")
    return int(text) if text else default
