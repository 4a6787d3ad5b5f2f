"""The doctor: every check runs, says what to do, and the summary is the same on every machine that is ready."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from nlbook_tools import doctor
from nlbook_tools.commands.doctor import command


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.check()


def test_this_environment_is_ready(report):
    assert report.ready, str(report)
    assert [c.name for c in report] == list(doctor.CHECKS)
    assert all(c.mend for c in report if c.status != doctor.OK)


def test_the_summary_names_nothing_of_this_machine(report):
    assert report.summary() == f"Ready: {len(doctor.CHECKS)} of {len(doctor.CHECKS)} checks passed"
    assert not re.search(r"/|\d\.\d|GiB", report.summary())


def test_a_failure_is_named_with_what_to_do(report):
    bad = doctor.Check("data", doctor.FAIL, "digits.npz changed", "get it back")
    mixed = doctor.Report([*(c for c in report if c.name != "data"), bad])
    assert not mixed.ready
    assert mixed.summary().splitlines()[1:] == ["  data: get it back"]
    assert "-> get it back" in str(mixed)


def test_a_warning_does_not_stop_the_reader():
    warned = doctor.Report([doctor.Check("chromium", doctor.WARN, "not found", "apt-get install chromium")])
    assert warned.ready and warned.summary() == "Ready: 1 of 1 checks passed"


def test_packages_out_of_range_or_missing_are_found():
    required = ["numpy>=99", "no-such-package-here", "torch>=2", "triton>=99; sys_platform == 'nowhere'"]
    numpy, missing = doctor._problems(required)
    assert numpy.startswith("numpy") and numpy.endswith("is not >=99") and missing == "no-such-package-here is missing"


def test_a_check_that_breaks_is_a_finding():
    def broken():
        raise RuntimeError("boom")

    found = doctor._run("gpu", broken)
    assert found.status == doctor.FAIL and "RuntimeError: boom" in found.found and found.mend


def test_a_store_that_cannot_be_written_fails(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NLBOOK_STORE", str(tmp_path / "store"))
    assert doctor._store()[0] == doctor.OK and not (tmp_path / "store").exists()  # looking creates nothing

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    status, found, mend = doctor._store()
    assert status == doctor.FAIL and "Permission denied" in found and "NLBOOK_STORE" in mend


def test_changed_data_fails(monkeypatch, tmp_path):
    from nlbook.book import data

    (tmp_path / "checksums.txt").write_text("0" * 64 + "  digits.npz\n")
    (tmp_path / "digits.npz").write_bytes(b"cut off")
    monkeypatch.setattr(data, "folder", lambda: tmp_path)
    status, found, _ = doctor._data()
    assert status == doctor.FAIL and "changed or cut off" in found


def test_the_command_prints_json_and_exits_by_the_finding(monkeypatch):
    fine, bad = doctor.Check("gpu", doctor.OK, "none"), doctor.Check("data", doctor.FAIL, "gone", "restore it")
    monkeypatch.setattr(doctor, "check", lambda: doctor.Report([fine]))
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 0
    assert json.loads(result.output) == [{"name": "gpu", "status": "ok", "found": "none", "mend": ""}]
    monkeypatch.setattr(doctor, "check", lambda: doctor.Report([fine, bad]))
    result = CliRunner().invoke(command)
    assert result.exit_code == 1 and "restore it" in result.output
