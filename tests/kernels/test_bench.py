"""What `nlbook bench kernels --json` says beside the times."""

from __future__ import annotations

import json

import pytest
import torch
from nlbook_tools.bench.core import Report, Row
from nlbook_tools.bench.kernels import Machine, linear_memory_work, measured


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
