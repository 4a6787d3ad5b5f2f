"""The checks: every reason to fail, the store, predictions, the other kinds of exercise, hostile answers."""

from __future__ import annotations

import contextlib
import json
import linecache
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from IPython.utils.capture import capture_output

from nlbook.book import chapters, check
from nlbook.book.check import call, prediction, registry, show, store
from nlbook.book.check.define import (
    Derive,
    Draw,
    Estimate,
    Explain,
    FixTheBug,
    Implement,
    KernelPuzzle,
    Misconception,
    Order,
    Property,
    ReadPicture,
)
from nlbook.book.check.judge import judge
from nlbook.book.check.questions import Option, Prediction, Question
from nlbook.book.check.result import Answered, Result, Solution
from nlbook.book.check.testing import assert_accepts, assert_refuses, check_definition, needed, stub_drift, table
from nlbook.book.check.verdict import REASONS
from nlbook.errors import NLBookError


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("NLBOOK_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(store, "_memory", {})
    return tmp_path / "store"


# -- a few exercises to judge by


def step(M, k, v, eta):
    """One delta write."""
    # BEGIN SOLUTION
    return M + eta * torch.outer(v - M @ k, k)
    # END SOLUTION


def prefix(x):
    """The sum of the tokens before each token."""
    # BEGIN SOLUTION
    return x.cumsum(0) - x
    # END SOLUTION


def two(x):
    """The sum and the largest."""
    # BEGIN SOLUTION
    return x.sum(), {"max": x.max(), "n": len(x)}
    # END SOLUTION


def square(A):
    """A times A, times a fixed matrix."""
    # BEGIN SOLUTION
    return A @ A
    # END SOLUTION


def mean(x, c):
    """The mean of the rows, scaled by c."""
    # BEGIN SOLUTION
    return c * x.mean(0)
    # END SOLUTION


def push(x):
    """The gradient of half the squared sum of sin x."""
    # BEGIN SOLUTION
    return x.sin().sum() * x.cos()
    # END SOLUTION


def pairs(d: Draw):
    d_v, d_k = d.int(2, 5), d.int(2, 4)
    return d.tensor(d_v, d_k), d.tensor(d_k), d.tensor(d_v), d.float(0.1, 1.0)


COMMON = dict(title="t", prompt="p", minutes=3, difficulty=1, objective="99.1", hints=("a", "b", "c"))
STEP = Implement(id="99-step", solution=step, draw=pairs, **COMMON)
PREFIX = Implement(id="99-prefix", solution=prefix, draw=lambda d: (d.tensor(d.int(3, 6), 2),), time_dim=0, **COMMON)
TWO = Implement(id="99-two", solution=two, draw=lambda d: (d.tensor(d.int(2, 6)),), **COMMON)
SQUARE = Implement(id="99-square", solution=square, draw=lambda d: (d.tensor(3, 3),), **COMMON)
MEAN = Implement(id="99-mean", solution=mean, draw=lambda d: (d.tensor(d.int(2, 7), 3), d.float(0.5, 2)), **COMMON)
ITEMS = {i.id: i for i in (STEP, PREFIX, TWO, SQUARE, MEAN)}


def says(item, answer, reason, *words):
    """Judge, and require the reason and every word in the message."""
    v = judge(item, answer)
    assert v.status == "failed", v
    assert v.reason == reason, v
    for word in words:
        assert word in v.message, v
    assert "0x" not in v.message
    return v


# -- the reasons, one by one


def test_solution_passes_and_stub_is_not_tried():
    for item in ITEMS.values():
        assert check_definition(item) == []
    assert judge(STEP, ...).status == judge(STEP, None).status == judge(STEP, STEP.stub()).status == "not tried"


def test_a_stub_below_a_helper_is_not_tried_but_a_missing_operator_is_an_error():
    def helper(M):
        raise NotImplementedError

    assert judge(STEP, lambda M, k, v, eta: helper(M)).status == "not tried"
    says(STEP, lambda M, k, v, eta: torch.linalg.cholesky(M.to(torch.int64)), "runs")


def test_signature():
    says(STEP, 3.0, "signature", "of type float", "step(M, k, v, eta)")
    says(STEP, lambda M, k: M, "signature", "takes (M, k)", "called as step(M, k, v, eta)")
    says(STEP, dict, "signature", "a class")


def test_runs_names_the_line_and_the_smallest_case():
    def broken(M, k, v, eta):
        outer = torch.outer(k, v)
        return M + outer

    v = says(STEP, broken, "runs", "RuntimeError", "in line 3", "`return M + outer`")
    assert dict(v.rows)["M"].startswith("[[")


def test_runs_survives_a_sys_exit_and_a_hostile_exception():
    class Hostile(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def leaves(M, k, v, eta):
        raise SystemExit(0)

    def throws(M, k, v, eta):
        raise Hostile

    says(STEP, leaves, "runs", "SystemExit")
    says(STEP, throws, "runs", "Hostile")


def test_keyboard_interrupt_gets_through():
    def stopped(M, k, v, eta):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(STEP, stopped)


def endless(M, k, v, eta):
    while True:
        M = M + 1


def test_time_limit_names_the_line_and_leaves_no_alarm():
    handler, rest = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    begin = time.monotonic()
    says(replace(STEP, seconds=0.3), endless, "time", "stopped after 0.3 s", "endless loop", "in line")
    assert time.monotonic() - begin < 5
    assert signal.getsignal(signal.SIGALRM) is handler
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (rest > 0)


def test_time_limit_passes_except_exception():
    def stubborn(M, k, v, eta):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    says(replace(STEP, seconds=0.2), stubborn, "time")


def test_somebody_elses_alarm_still_rings():
    rang = []
    old, rest = signal.signal(signal.SIGALRM, lambda *_: rang.append(1)), signal.setitimer(signal.ITIMER_REAL, 0.25)
    try:
        assert call.call(lambda: 3, (), 5.0).value == 3
        time.sleep(0.4)
        assert rang
    finally:
        signal.signal(signal.SIGALRM, old)
        signal.setitimer(signal.ITIMER_REAL, *rest)


def test_time_limit_in_another_thread():
    found = []
    stop = threading.Event()

    def waits(M, k, v, eta):
        stop.wait(20)
        return M

    worker = threading.Thread(target=lambda: found.append(judge(replace(STEP, seconds=0.2), waits)))
    worker.start()
    worker.join(10)
    stop.set()
    assert found[0].reason == "time"
    assert "stop.wait(20)" in found[0].message


def erase(M, k, v, eta):
    return eta * torch.outer(v - M @ k, k)


WRONG = [
    (STEP, lambda M, k, v, eta: None, "type", "is None", "`return`"),
    (STEP, lambda M, k, v, eta: step(M, k, v, eta).tolist(), "type", "tuple or list", "torch.Tensor"),
    (STEP, lambda M, k, v, eta: step(M, k, v, eta).numpy(), "type", "NumPy array"),
    (STEP, lambda M, k, v, eta: (x for x in M), "type", "generator", "`yield`"),
    (TWO, lambda x: x.sum(), "type", "2 values"),
    (TWO, lambda x: (x.sum(), x.max()), "type", "Output 2", "dict"),
    (TWO, lambda x: (x.sum(), {"max": x.max(), "n": len(x)}, 1), "structure", "3 values"),
    (TWO, lambda x: (x.sum(), {"max": x.max()}), "structure", "keys", "'n'"),
    (STEP, lambda M, k, v, eta: step(M, k, v, eta)[None], "shape", "(1, "),
    (STEP, lambda M, k, v, eta: step(M, k, v, eta).mT, "shape", "swapped"),
    (STEP, lambda M, k, v, eta: step(M, k, v, eta).float(), "dtype", "float32", "expected float64"),
    (STEP, lambda M, k, v, eta: step(M, k, v, eta) / 0, "finite", "inf"),
    (STEP, lambda M, k, v, eta: M * float("nan"), "finite", "nan"),
    (STEP, lambda M, k, v, eta: -step(M, k, v, eta), "sign", "wrong sign"),
    (STEP, lambda M, k, v, eta: M - erase(M, k, v, eta), "sign", "moves M the wrong way"),
    (MEAN, lambda x, c: 2 * mean(x, c), "factor", "2 times too large"),
    (MEAN, lambda x, c: 0.5 * mean(x, c), "factor", "2 times too small"),
    (MEAN, lambda x, c: 1.5 * mean(x, c), "factor", "3/2 times too large"),
    (MEAN, lambda x, c: -3 * mean(x, c), "factor", "of the wrong sign and 3 times"),
    (STEP, lambda M, k, v, eta: M + 2 * erase(M, k, v, eta), "factor", "moves M", "2 times too large"),
    (STEP, lambda M, k, v, eta: M - 3 * erase(M, k, v, eta), "factor", "moves M", "of the wrong sign and 3 times"),
    (MEAN, lambda x, c: c * x.sum(0), "factor", "size 0 of x", "sum where a mean"),
    (MEAN, lambda x, c: x.mean(0), "factor", "not multiplied by c"),
    (MEAN, lambda x, c: c * c * x.mean(0), "factor", "multiplied by c once too often"),
    (STEP, lambda M, k, v, eta: M + torch.outer(v - M @ k, k), "factor", "not multiplied by eta"),
    (PREFIX, lambda x: torch.cat([torch.zeros_like(x[:1]), prefix(x)[:-1]]), "off by one", "one step late"),
    (PREFIX, lambda x: x.cumsum(0), "off by one", "one step early"),
    (PREFIX, lambda x: prefix(x).flip(0), "off by one", "backwards"),
    (STEP, lambda M, k, v, eta: M, "unchanged", "M, just as it came in"),
    (SQUARE, lambda A: (A @ A).mT, "transpose", "rows and columns"),
]


@pytest.mark.parametrize(("item", "answer", "reason", "words"), [(*w[:3], w[3:]) for w in WRONG])
def test_the_reason_is_named(item, answer, reason, words):
    says(item, answer, reason, *words)


def test_numbers_come_in_several_forms():
    mixed = judge(TWO, lambda x: (float(x.sum()), {"max": np.float64(x.max()), "n": torch.tensor(len(x))}))
    other_order = judge(TWO, lambda x: [x.sum(), {"n": len(x), "max": x.max()}])
    assert mixed.status == other_order.status == "passed"


def test_the_change_of_an_argument_is_transposed():
    item = replace(STEP, draw=lambda d: (d.tensor(3, 3), d.tensor(3), d.tensor(3), 0.5))
    says(item, lambda M, k, v, eta: M + eta * torch.outer(k, v - M @ k), "transpose", "changes M by the transpose")


def test_misconception_speaks_before_anything_generic():
    miss = Misconception(
        "erases", lambda M, k, v, eta: M - eta * torch.outer(M @ k, k), "This erases but does not write."
    )
    v = says(
        replace(STEP, misconceptions=[miss]), lambda M, k, v, eta: M - eta * torch.outer(M @ k, k), "misconception"
    )
    assert v.message == miss.message


def test_misconception_must_explain_every_case():
    miss = Misconception("never past three", lambda x: prefix(x) * (len(x) != 3), "You lose length three.")
    says(replace(PREFIX, misconceptions=[miss]), lambda x: prefix(x) * (len(x) not in (3, 4)), "value")


def test_value_says_how_far_and_where():
    def noisy(M, k, v, eta):
        return step(M, k, v, eta) * (1 + 1e-7 * torch.rand_like(M))

    says(STEP, noisy, "value", "approximately right")
    says(STEP, lambda M, k, v, eta: step(M.float(), k.float(), v.float(), eta).double(), "value", "float32")

    def last(x):
        out = prefix(x)
        out[-1] += x[-1] ** 3 + 1
        return out

    v = says(PREFIX, last, "value", "Step 2 is the first")  # the smallest case has three tokens
    assert "expected" in dict(v.rows)

    def corner(M, k, v, eta):
        out = step(M, k, v, eta)
        out[0, 1] += 1.0 + v[0] ** 2
        return out

    says(STEP, corner, "value", "in 20 of 20 cases", "1 of ", "the first at [0, 1]")


def test_the_smallest_failing_case_can_be_worked_by_hand():
    """In whole numbers and halves, and with as many digits as tell what is expected from what came."""
    rows = dict(says(STEP, lambda M, k, v, eta: M @ torch.outer(k, k), "value").rows)
    numbers = [float(x) for name in ("M", "k", "v", "eta") for x in re.findall(r"-?[\d.]+", rows[name])]
    assert numbers and all(2 * x == round(2 * x) for x in numbers)
    close = dict(says(STEP, lambda M, k, v, eta: step(M, k, v, eta) + 1e-6 * v[:, None] * k**3, "value").rows)
    assert close["expected"] != close["yours"]


def test_a_known_mistake_that_makes_nan_is_named():
    nan = Misconception(
        "nan", lambda x: prefix(x) + torch.tensor([float("nan")] + [0.0] * (len(x) - 1))[:, None], "0/0"
    )
    says(replace(PREFIX, misconceptions=[nan]), nan.function, "misconception", "0/0")
    says(replace(PREFIX, misconceptions=[nan]), lambda x: x * float("nan"), "finite")


def test_the_smallest_failing_case_is_shown():
    v = says(PREFIX, lambda x: prefix(x) + (len(x) > 3) * x**2, "value")
    rows = dict(v.rows)
    assert len(json.loads(rows["x"])) == 4
    assert len(json.loads(rows["expected"])) == 4


def test_one_output_of_several():
    v = says(TWO, lambda x: (x.sum(), {"max": -x.max(), "n": len(x)}), "sign", "Output 2['max']")
    assert any(k.startswith("yours") for k, _ in v.rows)
    says(TWO, lambda x: (x.sum(), {"max": x.max(), "n": len(x) + 1}), "value", "Output 2['n']")


def test_mutation():
    says(STEP, lambda M, k, v, eta: M.add_(eta * torch.outer(v - M @ k, k)), "mutation", "argument M", ".clone()")
    allowed = replace(STEP, in_place=("M",))
    assert judge(allowed, lambda M, k, v, eta: M.add_(eta * torch.outer(v - M @ k, k))).status == "passed"


def test_gradient():
    item = replace(STEP, differentiable=True)
    assert "finite differences" in judge(item, step).message
    says(item, lambda M, k, v, eta: step(M, k, v, eta).detach(), "gradient", "with respect to M", "cut")
    says(item, lambda M, k, v, eta: M + eta * torch.outer((v - M @ k).detach(), k), "gradient", "off by")

    def in_place(M, k, v, eta):
        new = M.clone()
        new += eta * torch.outer(v - new @ k, k)
        return new

    assert judge(item, in_place).status == "passed"
    assert "cut" in says(item, lambda M, k, v, eta: in_place(M.detach(), k, v, eta), "gradient").message


def test_property():
    law = Property(
        "adding zero changes nothing",
        lambda f, d: None if torch.equal(f(torch.zeros(2, 2)), torch.zeros(2, 2)) else "f(0) is not 0.",
    )
    item = replace(SQUARE, properties=[law])
    assert "adding zero" in judge(item, square).message
    says(item, lambda A: A @ A + (0 if A.dtype == torch.float64 else 1), "property", "adding zero", "f(0) is not 0")


def test_counts():
    item = KernelPuzzle(
        id="99-k",
        solution=square,
        draw=lambda d: (d.tensor(2, 2),),
        par={"loads": 4},
        counter=lambda f: {"loads": 8 if f.__name__ == "slow" else 4, "stores": 4},
        **COMMON,
    )

    def slow(A):
        return A @ A

    says(item, slow, "counts", "8 loads (at most 4)")
    assert judge(item, square).status == "passed"
    item = replace(item, counter=lambda f: f(3))
    says(item, square, "runs", "counted")


def test_every_reason_has_a_test():
    text = Path(__file__).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "says(" in line or ".reason) ==" in line or line.startswith("    (")]
    told = {word for line in lines for word in re.findall(r'"([a-z -]+)"', line)}
    assert set(REASONS) <= told, set(REASONS) - told


def test_prints_are_kept_for_the_failing_case_and_random_numbers_are_seeded(capsys):
    def chatty(M, k, v, eta):
        print("look here")
        return M

    assert dict(says(STEP, chatty, "unchanged").rows)["your code printed"] == "look here"
    assert capsys.readouterr().out == ""
    before = torch.random.get_rng_state()
    noisy = [judge(STEP, lambda M, k, v, eta: M + torch.rand_like(M)).message for _ in range(2)]
    assert noisy[0] == noisy[1]
    assert torch.equal(before, torch.random.get_rng_state())


def test_callables_of_other_kinds_are_judged():
    class Memory(torch.nn.Module):
        def forward(self, M, k, v, eta):
            return M + eta * torch.outer(v - M @ k, k)

    class Wrong:
        def __call__(self, M, k, v, eta):
            return M @ missing  # noqa: F821

    assert judge(STEP, Memory()).status == "passed"
    says(STEP, Wrong(), "runs", "NameError", "in line 2")


# -- answers that try to pass without being right


class Yes:
    """Equal to everything, true of everything."""

    def __eq__(self, other):
        return True

    __hash__ = None  # type: ignore[assignment]
    shape, dtype, ndim = (2, 2), torch.float64, 2

    def __bool__(self):
        return True

    def __sub__(self, other):
        return torch.zeros(2, 2)

    __rsub__ = __sub__

    @property
    def __class__(self):
        return torch.Tensor


class Raises:
    def __eq__(self, other):
        raise RuntimeError("do not compare me")

    def __repr__(self):
        raise RuntimeError("do not print me")


class Lies(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return torch.tensor(True)


class Same(tuple):
    def __eq__(self, other):
        return True

    def __iter__(self):
        raise RuntimeError("do not iterate me")


@pytest.mark.parametrize(
    "thing",
    [Yes(), Raises(), Lies(), object(), Same((1, 2)), "x", True, NotImplemented],
    ids=["yes", "raises", "lies", "object", "tuple", "text", "flag", "notimplemented"],
)
def test_hostile_objects_do_not_pass(thing):
    says(STEP, lambda M, k, v, eta: thing, "type")
    assert judge(STEP, thing).status == "failed"
    assert judge(ESTIMATE, thing).status == "failed"
    assert judge(ORDER, thing).status == "failed"
    assert judge(EXPLAIN, thing).status == "failed"
    assert not Answered(QUESTION, thing).passed


def test_replacing_the_comparison_does_not_help(monkeypatch):
    for owner, name in (
        (torch, "allclose"),
        (torch, "equal"),
        (np, "allclose"),
        (np, "array_equal"),
        (torch.testing, "assert_close"),
        (torch.Tensor, "__eq__"),
        (torch.Tensor, "detach"),
    ):
        monkeypatch.setattr(owner, name, lambda *a, **k: True)
    verdict = judge(STEP, lambda M, k, v, eta: M + 1)
    monkeypatch.undo()
    assert verdict.status == "failed"


def test_an_answer_that_asks_for_its_input_again_gets_a_copy():
    kept = []

    def greedy(M, k, v, eta):
        kept.append(M)
        for old in kept:
            old.zero_()
        return M

    assert judge(STEP, greedy).status == "failed"
    assert judge(STEP, step).status == "passed"


# -- the other kinds


def bytes_of_state():
    """Megabytes of a memory of 8 heads of 512 by 512 numbers in float32."""
    # BEGIN SOLUTION
    return 8 * 512 * 512 * 4 / 1e6
    # END SOLUTION


ESTIMATE = Estimate(
    id="99-e",
    solution=bytes_of_state,
    unit="MB",
    units={"KB": 1e-3},
    within=0.2,
    wrong={4.194304: "That is float16: float32 has four bytes."},
    **COMMON,
)
ORDER = Order(
    id="99-o",
    steps=("write", "read", "project"),
    **COMMON,
    before=(("project", "read", "a read needs its query"), ("read", "write", "a read sees the past")),
)
EXPLAIN = Explain(id="99-x", model="Because the delta rule erases.", rubric=("erases", "writes"), words=4, **COMMON)
QUESTION = Question(
    id="99-q", text="Which?", options=(Option("left", "It is not left."), Option("right", "It is.", True))
)


@pytest.mark.parametrize("answer", [8.4, 8, "8.4 MB", (8400, "KB"), "8_400 KB", np.float64(8.5), torch.tensor(8.0)])
def test_estimate_accepts(answer):
    assert judge(ESTIMATE, answer).status == "passed"


def test_estimate_refuses_with_a_reason():
    says(ESTIMATE, 4.194304, "misconception", "float16")
    says(ESTIMATE, 67.1, "factor", "bits and bytes")
    says(ESTIMATE, 8400, "factor", "times too large")
    says(ESTIMATE, -8.4, "sign", "wrong sign")
    says(ESTIMATE, 2.0, "value", "too small")
    says(ESTIMATE, 20.0, "value", "too large")
    says(ESTIMATE, "8.4 MiB", "unit", "MiB", "MB, KB")
    says(ESTIMATE, "many", "type", "is no number")
    says(ESTIMATE, float("nan"), "type", "finite")
    says(ESTIMATE, torch.zeros(2), "type")
    assert check_definition(ESTIMATE) == []
    assert judge(ESTIMATE, "").status == "not tried"
    item = ReadPicture(id="99-r", solution=bytes_of_state, view="interference:n=4", low=8, high=9, **COMMON)
    assert judge(item, 8.9).status == "passed"
    says(item, 9.1, "value")


def test_order_names_the_first_conflict():
    assert judge(ORDER, ["project", "read", "write"]).status == judge(ORDER, [3, 2, 1]).status == "passed"
    says(ORDER, ["read", "project", "write"], "order", "“project” must come before “read”", "query")
    says(ORDER, ["read", "write", "project"], "order", "project")
    says(ORDER, [1, 3, 2], "order", "“read” must come before “write”")
    says(ORDER, ["project", "read"], "structure", "missing", "write")
    says(ORDER, [1, 1, 2], "structure")
    says(ORDER, ["nap", "read", "write"], "choice", "nap")
    says(ORDER, "project", "type")
    assert judge(ORDER, list(ORDER.steps)).status == "not tried"
    assert check_definition(ORDER) == []
    assert needed(ORDER) == (5, 1)
    circle = replace(ORDER, before=(("read", "write", ""), ("write", "read", "")))
    assert any("circle" in p for p in circle.problems())


def test_explain_is_scored_by_its_writer():
    says(EXPLAIN, "Too short.", "structure", "at least 4 words")
    waiting = judge(EXPLAIN, "It erases what was there.")
    assert (waiting.status, waiting.reason) == ("not tried", "self-score")
    assert judge(EXPLAIN, "It erases what was there.", score=2).status == "passed"
    v = judge(EXPLAIN, "It erases what was there.", score=0)
    assert (v.status, v.reason) == ("failed", "self-score")
    assert judge(EXPLAIN, "It erases what was there.", score=3).status == "failed"
    assert "erases" in Solution(EXPLAIN).source
    with pytest.raises(TypeError, match="no function"):
        Solution(EXPLAIN)()


def half_square(x):
    return 0.5 * x.sin().sum() ** 2


def test_derive_is_judged_by_autograd_and_its_objective_by_differences():
    item = Derive(id="99-d", solution=push, objective_fn=half_square, wrt="x", draw=lambda d: (d.tensor(3),), **COMMON)
    assert check_definition(item) == []
    says(item, lambda x: -push(x), "sign")
    says(item, lambda x: 2 * push(x), "factor", "2 times too large")
    cut = replace(item, objective_fn=lambda x: 0.5 * (x.sin().sum().detach() * x.sin().sum()))
    assert any("finite differences" in p for p in check_definition(cut))


def no_erase(M, k, v, eta):
    """One delta write."""
    return M + eta * torch.outer(v, k)


def test_fix_the_bug_shows_the_broken_function_under_the_right_name():
    miss = Misconception("hebb", no_erase, "It writes but never erases.")
    item = FixTheBug(id="99-f", solution=step, broken=no_erase, draw=pairs, misconceptions=[miss], **COMMON)
    assert check_definition(item) == []
    assert item.stub_source().startswith("def step(M, k, v, eta):")
    unchanged = Result(item, judge(item, item.stub()))
    assert unchanged.status == "not tried"
    assert "Unchanged so far" in unchanged.text() and "expected:" in unchanged.text()
    assert "It writes but" not in unchanged.text() + unchanged.html()  # what is wrong is for the reader to find
    says(item, lambda M, k, v, eta: M + torch.outer(eta * v, k), "misconception", "never erases")
    other = says(item, lambda M, k, v, eta: M - eta * torch.outer(v, k), "value")  # one sign, and no longer unchanged
    assert other.message != unchanged.message
    assert any("docstrings differ" in p for p in replace(item, broken=prefix).problems())


def test_question_explains_every_choice():
    assert Answered(QUESTION, "b").message == "Right: It is."
    assert Answered(QUESTION, " left ").message == "Not quite: It is not left."
    assert Answered(QUESTION, "A").status == "failed"
    unknown = Answered(QUESTION, "z")
    assert unknown.status == "not tried"
    assert "expected one of the letters a, b" in unknown.message
    blank = Answered(QUESTION, None)
    assert "<details>" in blank.html()
    assert "It is not left" in blank.html()
    assert "right" in blank.text() and "It is." not in blank.text()


def test_a_question_is_answered_with_a_click_and_told_about_that_option_alone(own_store):
    shown = check.choice("01-r1")
    assert "application/vnd.jupyter.widget-view+json" in shown._repr_mimebundle_()
    _, field, button, line = shown.widget.children
    button.click()
    assert "Choose one first" in line.value and not own_store.exists()
    wrong, right = (next(o for o in shown.item.options if o.right is it) for it in (False, True))
    field.value = wrong.text
    button.click()
    assert "Not quite" in line.value and "Right" not in line.value
    field.value = right.text
    button.click()
    assert "Right" in line.value and json.loads((own_store / "progress.json").read_text())["01-r1"]["passed"]


# -- definitions


def unmarked(x):
    """No markers."""
    return x


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hints": ("one",)}, "needs 3"),
        ({"difficulty": 4}, "difficulty"),
        ({"minutes": 0}, "minutes"),
        ({"objective": "1"}, "objective"),
        ({"id": "delta"}, "id 'delta'"),
        ({"title": " "}, "title"),
        ({"solution": unmarked}, "BEGIN SOLUTION"),
        ({"draw": None}, "neither draw nor cases"),
        ({"points": -1}, "negative"),
        ({"draw": lambda d: 1 / 0}, "draw fails"),
    ],
)
def test_a_faulty_definition_is_told(change, told):
    assert any(told in p for p in replace(STEP, **change).problems())


def test_check_definition_runs_the_exercise():
    lame = Misconception("the truth", step, "never said")
    assert any("misconception 'the truth'" in p for p in check_definition(replace(STEP, misconceptions=[lame])))
    assert any("does not pass" in p for p in check_definition(replace(STEP, reference=no_erase)))
    assert any("lies outside" in p or "does not pass" in p for p in check_definition(replace(ESTIMATE, low=1, high=2)))


def test_registry(monkeypatch):
    with pytest.raises(NLBookError, match=r"did you mean '01-delta'"):
        check.exercise("01-detla")
    with pytest.raises(NLBookError, match=r"chapter '98' has none"):
        check.hint("98-nothing")
    with pytest.raises(NLBookError, match="got int"):
        check.exercise(7)
    module = type("M", (), {"ITEMS": [STEP, STEP]})
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: module)
    monkeypatch.setitem(registry.FOLDERS, "98", "clocks")
    registry.chapter.cache_clear()
    with pytest.raises(NLBookError, match=r"(?s)stands in chapter 98.*taken twice"):
        registry.chapter("98")
    registry.chapter.cache_clear()


def test_draw_is_seeded_and_grows():
    assert torch.equal(Draw(3).tensor(2, 2), Draw(3).tensor(2, 2))
    assert Draw(0).unit(4, 5).norm(dim=-1).allclose(torch.ones(4, dtype=torch.float64))
    sizes = [Draw(s, (s + 1) / 40).int(1, 40) for s in range(40)]
    assert max(sizes[:10]) <= 11 and max(sizes) > 20 and min(sizes) >= 1
    assert Draw(0).int(3, 3) == 3
    assert Draw(1).pick("a") == "a" and 2 <= Draw(1).float(2, 3) <= 3


def test_the_kit_itself_can_fail():
    with pytest.raises(AssertionError, match="not refused: right"):
        assert_refuses("01-delta", {"right": check.solution("01-delta")})
    with pytest.raises(AssertionError, match="were refused"):
        assert_accepts("01-delta", {"hebb": check.solution("01-hebb")})
    assert "01-delta" in table("01").MUTANTS


def test_stub_drift():
    stub = check.stub("01-delta").source
    assert stub_drift("01-delta", f"import torch\n\n{stub}  # yours\n") is None
    assert "does not define" in stub_drift("01-delta", "x = 1")
    assert "signature" in stub_drift("01-delta", stub.replace("eta: float", "lr: float"))
    assert "docstring" in stub_drift("01-delta", stub.replace("One delta write", "A write"))
    assert "body" in stub_drift("01-delta", stub.replace("raise NotImplementedError", "return M"))


def test_the_readme_example_is_sound(tmp_path):
    readme = Path(chapters.__path__[0], "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0]
    words = {"Misconception", "Implement", "Case", "Draw", "Property"}
    assert all(w in code for w in words)
    name = "<readme>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    space = {"torch": torch, "Tensor": torch.Tensor, "__name__": "readme"}
    exec(compile(code, name, "exec"), space)
    (chapter := tmp_path / "clocks").mkdir()
    (chapter / "questions.toml").write_text(readme.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    asked = registry.asked(chapter)
    assert [i.id for i in asked] == ["05-p1", "05-p2", "05-p3", "05-q1"] and not [
        p for i in asked for p in i.problems()
    ]
    assert space["ITEMS"][0].solution_source().startswith("def running_mean")
    says(space["ITEMS"][0], lambda x: x.cumsum(0), "misconception", "divide by the count")
    assert [p for item in space["ITEMS"] for p in item.problems()] == []
    assert check_definition(space["ITEMS"][0]) == []


# -- showing


def test_result_has_text_and_html():
    r = Result(STEP, judge(STEP, lambda M, k, v, eta: 2 * step(M, k, v, eta)))
    data = r._repr_mimebundle_()
    assert not r and not r.passed and r.reason == "factor" and "2 times too large" in data["text/plain"]
    page = data["text/html"]
    assert page.count("<details>") == 4 and "Hint 3" in page and "return M + eta" in page
    assert "Not yet" in page and "<script" not in page and "BEGIN SOLUTION" not in page
    untried = check.exercise("01-delta", None)
    assert untried.status == "not tried" and "NotImplemented" not in untried.html()
    assert untried.html() == check.exercise("01-delta", None).html()


def test_html_is_escaped():
    def bad(M, k, v, eta):
        raise ValueError("<script>alert(1)</script>")

    assert "<script>" not in Result(STEP, judge(STEP, bad)).html()


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("does the *period* matter", "does the <em>period</em> matter"),
        ("two *words here*.", "two <em>words here</em>."),
        ("O * O * O cubes", "O * O * O cubes"),
        ("1 - beta**n", "1 - beta**n"),
        ("2*3*4", "2*3*4"),
        ("`a * b` and *c*", "<code>a * b</code> and <em>c</em>"),
        ("a < *b*", "a &lt; <em>b</em>"),
        ("a stray ` and `code`", "a stray <code> and </code>code`"),
        ("`x", "`x"),
        ("`a`, `b` and *c*", "<code>a</code>, <code>b</code> and <em>c</em>"),
        ("one *open\n\nand one* more", "one *open\n\nand one* more"),
    ],
)
def test_words_in_asterisks_are_emphasised_and_products_stay(text, html):
    assert show.inline(text) == html


def test_hint_stub_and_solution():
    assert registry.find("01-delta", Implement).hints[1] in repr(check.hint("01-delta", 2))
    with pytest.raises(NLBookError, match="n: got 4"):
        check.hint("01-delta", 4)
    answer = check.solution("01-delta")
    assert "return M" in answer.source and answer.source.startswith("def delta_write")
    assert "SOLUTION" not in answer.source
    k = torch.tensor([1.0, 0.0])
    assert torch.equal(answer(torch.zeros(1, 2), k, torch.tensor([2.0]), 1.0), torch.tensor([[2.0, 0.0]]))
    assert "raise NotImplementedError" in check.stub("01-delta").source


def test_exercises_command():
    from nlbook_tools.commands.exercises import command

    out = CliRunner().invoke(command, [])
    assert out.exit_code == 0 and "01-delta" in out.output and "minutes" in out.output
    listed = json.loads(CliRunner().invoke(command, ["01", "--json"]).output)
    assert {"id", "title", "kind", "minutes", "difficulty", "objective", "points"} == set(listed[0])
    assert "no exercises of 98" in CliRunner().invoke(command, ["98"]).output
    assert CliRunner().invoke(command, ["01", "--problems"]).exit_code == 0


# -- the store and progress


def test_progress_counts_tries_and_keeps_a_pass(own_store):
    check.exercise("01-delta", STEP.stub())
    assert not own_store.exists()  # nothing was tried, nothing is written
    check.exercise("01-delta", no_erase)
    check.exercise("01-delta", step)
    check.exercise("01-delta", no_erase)
    record = json.loads((own_store / "progress.json").read_text())["01-delta"]
    assert record["tries"] == 2 and record["passed"] and record["status"] == "failed"
    row = check.progress().rows[0]
    assert row[0] == "01" or any(r[0] == "01" for r in check.progress().rows)
    row = next(r for r in check.progress().rows if r[0] == "01")
    assert row[1].startswith("1 of ")
    check.forget("01")
    assert next(r for r in check.progress().rows if r[0] == "01")[1].startswith("0 of ")


@pytest.fixture
def bank(monkeypatch):
    """Four predictions of a chapter 99."""
    two = (Option("Hebb", "Hebb adds up."), Option("delta", "Delta erases what it finds.", True))
    items = (
        Prediction(id="99-p1", question="How many?", unit="pairs", low=0, high=32, why="because keys overlap"),
        Prediction(id="99-p2", question="Which?", options=two),
        Prediction(id="99-p3", question="Share of m?", points=("last 10", "last 50"), low=0, high=1, why="1 - 0.9^n"),
        Prediction(id="99-p4", question="Where?", low=0, high=99, answer=40.0, between=(20, 40), why="a grid"),
    )
    known, real = {p.id: p for p in items}, registry.chapter
    monkeypatch.setattr(registry, "chapter", lambda number: known if number == "99" else real(number))
    assert not [fault for item in items for fault in item.problems()]
    return known


def test_store_beside_the_notebook(bank, tmp_path, monkeypatch):
    monkeypatch.delenv("NLBOOK_STORE")
    monkeypatch.chdir(tmp_path)
    check.predict("99-p1", answer=3)
    assert json.loads((tmp_path / ".nlbook" / "predictions.json").read_text())["99-p1"]["entries"][0]["answer"] == 3
    assert [p.name for p in (tmp_path / ".nlbook").iterdir()] == ["predictions.json"]


def test_a_broken_file_is_set_aside(bank, own_store):
    own_store.mkdir()
    (own_store / "predictions.json").write_text("{ not json")
    check.predict("99-p1", answer=3)
    assert (own_store / "predictions.broken").read_text() == "{ not json"
    assert json.loads((own_store / "predictions.json").read_text())["99-p1"]


def test_a_store_that_cannot_be_written_stays_in_memory(bank, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NLBOOK_STORE", str(tmp_path / "file" / "store"))
    check.predict("99-p1", answer=3)
    assert check.predict("99-p1").recorded == 3


# -- predictions


def entries(own_store, id="99-p1"):
    return json.loads((own_store / "predictions.json").read_text())[id]["entries"]


def test_unanswered_is_quiet_and_the_same_each_time(bank, own_store):
    p = check.predict("99-p1")
    assert p.recorded is None and p.html() == check.predict("99-p1").html()
    bundle = p._repr_mimebundle_()
    assert {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"} == set(bundle)
    assert "How many?" in bundle["text/html"] and "0 to 32 (pairs)" in bundle["text/html"]
    assert not own_store.exists()
    shown = check.reveal("99-p1", 26.2)
    assert "prediction" not in shown.text().lower().replace("measured (99-p1)", "") and "26.2 pairs" in shown.text()
    assert check.predictions().rows == []


def test_number_widget_records(bank):
    p = check.predict("99-p1")
    question, field, button, line = p.widget.children
    assert "How many?" in question.value and "pairs" in field.description and button.description == "Record"
    update = {"method": "update", "state": {"value": 12}, "buffer_paths": []}  # as the browser sends it
    field._handle_msg({"content": {"data": update}, "buffers": []})
    button._handle_custom_msg({"event": "click"}, [])
    assert p.recorded == 12
    assert "Recorded: 12 pairs" in line.value and 'role="status"' in line.value
    field.value = 99
    assert field.value == 32  # bounded


def test_option_widget_records(bank):
    p = check.predict("99-p2")
    _, field, button, line = p.widget.children
    button.click()
    assert p.recorded is None and "Choose one" in line.value
    field.index = 1
    button.click()
    assert p.recorded == "delta"
    again = check.predict("99-p2")
    assert (
        again.widget.children[1].value == "delta" and "Recorded: delta" in again.text() and "b) delta" in again.text()
    )


def test_a_sketched_curve_is_several_numbers(bank):
    p = check.predict("99-p3")
    assert "last 50: a number from 0 to 1" in p.text()
    _, field, button, line = p.widget.children
    assert [s.description for s in field.children] == ["last 10:", "last 50:"]
    field.children[0].value, field.children[1].value = 0.6, 0.9
    button.click()
    assert p.recorded == [0.6, 0.9] and "0.6, 0.9" in line.value
    assert check.reveal("99-p3", torch.tensor([0.65, 0.99])).right
    assert check.reveal("99-p3", [0.2, 0.99]).right is False
    assert check.predictions().rows[0][2] == "0.6, 0.9"
    with pytest.raises(NLBookError, match="2 numbers from 0 to 1"):
        check.predict("99-p3", answer=[0.5])


def test_a_prediction_after_the_reveal_is_kept_and_marked(bank, own_store):
    check.predict("99-p1", answer=12)
    check.predict("99-p1", answer=20)
    assert "C" not in check.reveal("99-p1", 20.5).text()
    late = check.predict("99-p1", answer=21)
    assert "after the reveal" in late.text()
    assert [(e["answer"], e["after_reveal"]) for e in entries(own_store)] == [(12, False), (20, False), (21, True)]
    assert all(e["time"].endswith("+00:00") for e in entries(own_store))
    assert check.predictions().rows[0][2:] == ["20 pairs", "20.5 pairs", "right"]


def test_only_late_predictions_do_not_count(bank):
    check.reveal("99-p1", 20.5)
    check.predict("99-p1", answer=20.5)
    assert "made after the reveal" in check.reveal("99-p1", 20.5).text()
    assert check.predictions().rows[0][-1] == "after the reveal"
    assert "No prediction has been compared" in check.predictions().text()


def test_running_the_cell_again_adds_nothing(bank, own_store):
    for _ in range(3):
        check.predict("99-p1", answer=12)
        check.reveal("99-p1", 12)
    assert len(entries(own_store)) == 1 and not entries(own_store)[0]["after_reveal"]


def test_in_a_notebook_the_result_opens_when_a_prediction_is_recorded(bank, own_store, monkeypatch):
    monkeypatch.setattr(prediction, "in_notebook", lambda: True)
    asked, shown = check.predict("99-p2"), check.reveal("99-p2")  # both cells have run, and nothing was predicted
    shown._repr_mimebundle_()
    (folded,) = prediction._waiting["99-p2"]
    assert folded.value.startswith("<details>")
    asked.widget.children[1].value = asked.item.options[0].text
    asked.widget.children[2].click()
    assert "Your prediction: " in folded.value and not folded.value.startswith("<details>")
    assert not entries(own_store, "99-p2")[0]["after_reveal"]  # it counts


def test_reveal_needs_the_id_alone_and_explains_the_choice(bank):
    assert "Delta erases" in check.reveal("99-p2").text()  # nobody predicted: the right one is explained
    check.forget("99")
    check.predict("99-p2", answer="a")
    shown = check.reveal("99-p2")
    assert shown.right is False and "Hebb adds" in shown.text() and "Delta erases" in shown.text()
    assert check.reveal("99-p2", "Hebb").right and "chapter 99: 1 of 1 right" in check.predictions().text()
    with pytest.raises(NLBookError, match="measured: got 'Oja'"):
        check.reveal("99-p2", "Oja")
    with pytest.raises(NLBookError, match="measured: got None"):
        check.reveal("99-p1")


@pytest.mark.parametrize(("guess", "hit"), [(15, False), (17, True), (30, True), (43, True), (45, False)])
def test_a_number_known_to_an_interval_is_compared_with_the_interval(bank, guess, hit):
    check.predict("99-p4", answer=guess)
    assert check.reveal("99-p4").right is hit


@pytest.mark.parametrize(
    ("id", "answer"), [("p1", 33), ("p1", float("nan")), ("p1", "C"), ("p1", True), ("p2", "Oja"), ("p2", 1)]
)
def test_an_impossible_prediction_is_refused(bank, id, answer, own_store):
    with pytest.raises(NLBookError, match="answer: got"):
        check.predict(f"99-{id}", answer=answer)
    assert not own_store.exists()


def test_a_faulty_question_is_refused(bank):
    faults = {
        "either options or both": {},
        "not below": {"low": 3, "high": 3},
        "no explanation": {"low": 0, "high": 3},
        "exactly one of them right": {"options": (Option("a", "b"), Option("c", "d"))},
    }
    for fault, given in faults.items():
        assert any(fault in p for p in Prediction(id="99-p7", question="?", **given).problems()), fault
    with pytest.raises(NLBookError, match="expected the id of a registered prediction"):
        check.predict("99-p7")


# -- where a verdict is seen


def test_a_verdict_is_seen_anywhere_in_a_cell_and_in_a_plain_script(tmp_path, capsys):
    check.choice("01-r1", "a")
    assert capsys.readouterr().out.startswith("01-r1")
    from IPython.core.interactiveshell import InteractiveShell

    code = "from nlbook.book import check\ncheck.reveal('03-p3')\n"
    code += "first = check.choice('01-r1', 'a')\ncheck.choice('01-r2', 'a')"
    shell = InteractiveShell.instance()
    try:
        with capture_output() as out:
            shell.run_cell(code)
        shown = out.stdout + "".join(o.data["text/plain"] for o in out.outputs)
        assert shown.count("Measured (03-p3)") == 1 == shown.count("01-r1") and shown.count("01-r2") == 1
    finally:
        InteractiveShell.clear_instance()
