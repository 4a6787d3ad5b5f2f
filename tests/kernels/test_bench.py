"""What `nlbook bench kernels --json` says beside the times."""

from __future__ import annotations

import json

import pytest
import torch
from nlbook_tools import gpu
from nlbook_tools.bench.core import Report, Row
from nlbook_tools.bench.kernels import Machine, linear_memory_work, measured, memory_reports


def test_the_work_and_every_ratio_are_in_the_json():
    on = Machine("cpu", torch.float32, flops=1e9, bandwidth=1e8)
    rows = [
        Row("token loop", 4.0, 3.9, 4.2, 1.0),
        Row("lean", 2.0, 1.9, 2.1, 0.5),
        Row("chunked", 0.5, 0.4, 0.6, 0.125),
    ]
    found = json.loads(json.dumps(measured(Report("t", "token loop", rows), 2e8, 1e7, on).as_dict()))
    facts = found["facts"]
    assert (facts["flops"], facts["bytes"], facts["device"]) == (2e8, 1e7, "cpu")
    assert facts["share_of_roof"]["chunked"] == pytest.approx(0.4)  # 0.2 s at 1 GFLOP/s, of 0.5 s
    assert facts["times_faster_than"]["chunked"] == {"token loop": 8.0, "lean": 4.0}
    assert "torch" in facts["versions"] and "40% of this machine's roof" in found["note"]
    assert {"median", "low", "high", "ratio"} <= set(found["rows"][0])


def test_the_roof_is_the_slower_of_arithmetic_and_memory():
    rows = [Row("chunked", 1.0, 1.0, 1.0, 1.0)]
    slow = Machine("cpu", torch.float32, flops=1e12, bandwidth=1e8)
    facts = measured(Report("t", "chunked", rows), 2e8, 1e7, slow).facts
    assert facts["share_of_roof"]["chunked"] == pytest.approx(0.1)


def test_the_work_of_a_chunk_is_counted():
    """One chunk of 2 tokens, width 4: Q K^T and K K^T, the solve, A E, and K S, Q S, K^T E."""
    flops, size = linear_memory_work(1, 1, 2, 4, 2, 4)
    assert flops == 2 * (2 * 2 * 2 * 4) + 2 * 2 * 2 * 4 + 2 * 2 * 2 * 4 + 3 * (2 * 2 * 4 * 4)
    assert size == 2 * (4 * 4 * 4 + 3 * 4)


def test_make_gpu_says_that_it_needs_one_and_its_parts_fit_eight_minutes(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "needs one" in capsys.readouterr().err
    assert sum(gpu.SECONDS.values()) <= 480 and set(gpu.SECONDS) <= set(gpu.PARTS)


@pytest.mark.filterwarnings("ignore::nlkernels.interpret.InterpreterWarning")
def test_every_form_of_the_gpu_s_bench_runs_small_in_the_interpreter():
    """The same function with the sizes of `make gpu --dry`; its tables name every operator and every form."""
    pytest.importorskip("triton", reason="Triton exists for Linux only")
    on = Machine("cpu", torch.float32, flops=1e9, bandwidth=1e8)
    reports = memory_reports(on, 1, (1, 1, 4, 2), compiled=False, fused=True)
    assert len(reports) == 8 and all({"token loop", "chunked", "triton"} <= {r.name for r in t.rows} for t in reports)
