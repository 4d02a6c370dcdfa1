# SPDX-License-Identifier: Apache-2.0
"""gate.yml: what fits is read, and each mistake is told by path with the nearest known key."""

from pathlib import Path

import pytest

from gate import config
from gate.errors import ConfigError

DESIGN = """
version: 1
app:
  minimum_device: iphone-12
  deployment_target: iOS17
  budgets: {app_size: {total: 50 MB, growth: 2 MB}}
setup:
  requirements: ml/requirements.lock
  pythonpath: [ml]
  fetch: [{url: "https://example.com/tagger.safetensors", sha256: %s, to: ml/w/tagger.safetensors}]
models:
  - name: tagger
    paths: [ml/tagger/**]
    source: {factory: ml/tagger/model.py:build, args: {variant: s}, example: ml/tagger/model.py:example}
    reference: source
    inputs:
      - {name: image, image: [224, 224], color: RGB, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
      - {name: mel, shape: [1, 80, {range: [16, 3000]}]}
      - {name: tokens, shape: [1, {any_of: [300, 1000, 3000]}], dtype: int32}
    outputs: [{name: probs, classes: labels.txt}]
    states: [{name: kv}]
    ship: palette-6bit
    explore: [int8, palette-4bit]
    dataset: {images: eval/, labels: eval.csv}
    metric: {name: map, score_threshold: 0.3, iou: 0.5}
    budgets:
      size: 6 MB
      accuracy: {at_least: 92 %%, drop: 1 point, against: [source, base], confidence: 95 %%}
      fidelity: {error: 0.1 %%}
      float16: {error: 2 %%}
      memory: {share: 50 %%}
      latency: {speedup: 1.5, over: float32}
    keep_float32: ["layers.*.norm"]
    convert: {route: auto}
    splits: {seed: 7, search: 50 %%, confirm: 50 %%}
limits: {time: 10 min, memory: 8 GB}
""" % ("9f" * 32)
SMALL = "version: 1\nmodels:\n  - name: m\n    source: {coreml: m.mlpackage}\n"


def read(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "gate.yml"
    path.write_text(text)
    return config.load(path)


def mistake(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return str(caught.value)


def test_the_contract_of_the_design_is_read(tmp_path):
    loaded = read(tmp_path, DESIGN)

    model = loaded.models[0]
    assert model.budgets.size.limit == 6_000_000
    assert model.budgets.accuracy.drop.value == 0.01
    assert model.metric.parameters == {"score_threshold": 0.3, "iou": 0.5}
    assert model.policies == ("palette-6bit", "int8", "palette-4bit")
    assert loaded.folder == tmp_path.resolve()
    assert loaded.limits.time == 600


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param(
            "size: 6 MB", "siz: 6 MB", 'models[0].budgets.siz: unknown key (did you mean "size"?)', id="budget"
        ),
        pytest.param(
            "at_least:",
            "at_leest:",
            'models[0].budgets.accuracy.at_leest: unknown key (did you mean "at_least"?)',
            id="deep",
        ),
        pytest.param(
            "{factory:", "{factry:", 'models[0].source.factry: unknown key (did you mean "factory"?)', id="source"
        ),
        pytest.param(
            "{range:",
            "{rnge:",
            'models[0].inputs[1].shape[2].rnge: unknown key (did you mean "range"?)',
            id="dimension",
        ),
        pytest.param(
            "6 MB",
            "6 furlongs",
            "models[0].budgets.size.limit: found '6 furlongs', expected a size such as 6 MB",
            id="unit",
        ),
        pytest.param("drop: 1 point", "drop: lots", "models[0].budgets.accuracy.drop: found 'lots'", id="points"),
        pytest.param("version: 1", "version: 2", "version: input should be 1, found 2", id="version"),
        pytest.param(
            "std: [0.229, 0.224, 0.225]",
            "std: [0.2]",
            "models[0].inputs[0]: std: found 1 values, expected 3 for RGB",
            id="channels",
        ),
        pytest.param(
            "std: [0.229, 0.224, 0.225]",
            "values: [1, 0]",
            "models[0].inputs[0]: values: expected two finite numbers, the least first",
            id="values the wrong way round",
        ),
        pytest.param(
            "seed: 7", "seed: -7", "models[0].splits.seed: input should be greater than or equal to 0", id="seed"
        ),
        pytest.param(
            "search: 50 %, confirm: 50 %",
            "search: 100 %, confirm: 0 %",
            "models[0].splits: confirm: found 0 %, expected more",
            id="nothing certifies",
        ),
        pytest.param("iOS17", "iOS7", "app.deployment_target: input should be", id="target"),
        pytest.param(
            "explore: [int8,", "explore: [palette-6bit,", "explore: a policy appears twice", id="policy twice"
        ),
    ],
)
def test_a_mistake_is_told_by_path(tmp_path, old, new, told):
    assert told in mistake(tmp_path, DESIGN.replace(old, new, 1))


def test_every_mistake_is_told_at_once(tmp_path):
    text = mistake(tmp_path, DESIGN.replace("size: 6 MB", "siz: 6 MB").replace("{factory:", "{factry:"))

    assert "siz" in text
    assert "factry" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("a: &x 1\nb: *x\n", "anchors and aliases are not allowed", id="alias bomb"),
        pytest.param("version: 1\nversion: 1\n", "key 'version' appears twice", id="duplicate key"),
        pytest.param("version: [", "gate.yml", id="broken YAML"),
        pytest.param("- a\n", "expected a mapping", id="a list"),
        pytest.param("", "expected a mapping", id="empty"),
        pytest.param("? [a]\n: 1\n", "a key must be plain text", id="complex key"),
        pytest.param("version: 1\nmodels: []\n", "models: tuple should have at least 1 item", id="no models"),
        pytest.param("version: " + "9" * 5000, "gate.yml:1: a number of 5000 digits", id="endless number"),
        pytest.param("version: 0x" + "f" * 5000, "gate.yml:1: a number of 5002 digits", id="endless hexadecimal"),
        pytest.param("version: 2026-13-45", "gate.yml:1: found '2026-13-45', expected a day that exists", id="no date"),
        pytest.param("version: !!bool x", "not a YAML file", id="no truth value"),
        pytest.param("version: !!timestamp x", "gate.yml:1: found 'x', expected a day that exists", id="no time"),
        pytest.param("[" * 3000, "gate.yml", id="nested without end"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path, text, told):
    assert told in mistake(tmp_path, text)


def test_a_missing_or_huge_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "gate.yml")

    assert "expected at most" in mistake(tmp_path, "#" * 1_000_001)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{}", "exactly one of factory, converter, torchscript, exported_program, coreml; found none"),
        ("{coreml: a.mlpackage, torchscript: b.pt}", "found torchscript, coreml"),
        ("{factory: model.py}", "expected path.py:function"),
        ("{coreml: a.mlpackage, args: {a: 1}}", "only a factory or a converter takes arguments"),
    ],
)
def test_a_source_has_exactly_one_kind(tmp_path, source, told):
    assert told in mistake(tmp_path, SMALL.replace("{coreml: m.mlpackage}", source))


def test_a_finished_package_ships_as_it_is_by_default(tmp_path):
    assert read(tmp_path, SMALL).models[0].shipped_policy == "as-is"


def test_the_digest_is_of_the_meaning_not_of_the_layout(tmp_path):
    assert read(tmp_path, SMALL).digest == read(tmp_path, "# a comment\n" + SMALL).digest
    assert read(tmp_path, SMALL).digest != read(tmp_path, SMALL.replace("name: m", "name: n")).digest
