# SPDX-License-Identifier: Apache-2.0
"""Earlier reports: what may be compared with, and what is refused with the reason."""

import pytest

from gate.baseline import MAX_BYTES, load_baseline, read_report
from gate.errors import UsageError
from gate.report import Candidate, CheckName, Model, Outcome, PackageFile, Result, Role, Run, make_report


def report(outcome=Outcome.PASS, sizes=(100, 200)):
    models = tuple(
        Model(
            name=f"m{i}",
            candidates=(
                Candidate(
                    role=Role.SHIP,
                    policy="float16",
                    files=(PackageFile(path="a", sha256="0" * 64, bytes=count),) if count else (),
                    results=(Result(check=CheckName.SIZE, outcome=outcome, message="m"),),
                ),
            ),
        )
        for i, count in enumerate(sizes)
    )
    return make_report(Run(config_digest="0" * 64), models)


def written(tmp_path, record):
    path = tmp_path / "report.json"
    path.write_text(record.model_dump_json())
    return path


def test_sizes_come_from_the_shipped_candidate(tmp_path):
    baseline, findings = load_baseline(written(tmp_path, report()))

    assert findings == ()
    assert baseline.package_bytes("m1") == 200
    assert baseline.package_bytes("unknown") is None
    assert baseline.total_bytes() == 300


def test_a_total_with_a_missing_package_is_unknown(tmp_path):
    baseline, _ = load_baseline(written(tmp_path, report(sizes=(100, 0))))

    assert baseline.total_bytes() is None


def test_a_baseline_that_failed_its_own_gate_is_refused(tmp_path):
    baseline, findings = load_baseline(written(tmp_path, report(Outcome.FAIL)))

    assert baseline is None
    assert findings[0].rule == "baseline.failed"


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema_version": 99}', "\x00", '{"outcome": "pass"}'])
def test_what_is_no_report_is_wrong_usage(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a report of this version"):
        read_report(path)


def test_a_report_as_large_as_none_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "report.json"
    with path.open("wb") as stream:
        stream.truncate(100 * MAX_BYTES)

    with pytest.raises(UsageError, match=rf"expected at most {MAX_BYTES} bytes"):
        read_report(path)


def test_a_missing_report_is_named(tmp_path):
    with pytest.raises(UsageError, match="no such report"):
        read_report(tmp_path / "r.json")


def test_a_folder_in_place_of_a_report_says_what_to_name(tmp_path):
    with pytest.raises(UsageError, match=r"a folder, expected a report\.json; name the file, such as .*report\.json"):
        read_report(tmp_path)
    written(tmp_path, report())
    with pytest.raises(UsageError, match=rf"a folder, expected a report\.json; name {tmp_path / 'report.json'}$"):
        read_report(tmp_path)


def test_no_baseline_is_no_finding():
    assert load_baseline(None) == (None, ())
