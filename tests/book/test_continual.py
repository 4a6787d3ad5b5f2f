"""Task streams, the field's metrics, and the learners of the fair ablation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kit import refuses

from nlbook.book.chapters.clocks.continual_methods import (
    METHODS,
    Method,
    first_weights,
    named,
    train,
    tune,
)
from nlbook.book.data.continual import (
    KINDS,
    average_accuracy,
    digits,
    forgetting,
    learning_accuracy,
    rotate,
    stream,
)


# ---------------------------------------------------------------------------- streams and metrics
@pytest.mark.parametrize("kind", KINDS)
def test_streams_are_reproducible(kind: str) -> None:
    a, b, c = stream(kind, 3), stream(kind, 3), stream(kind, 4)
    assert len(a) == 5 and all(torch.equal(p, q) for s, t in zip(a, b) for p, q in zip(s, t))
    if kind != "rotated":
        assert any(p.shape != q.shape or not torch.equal(p, q) for s, t in zip(a, c) for p, q in zip(s, t))
    for t in a:
        assert t.x_train.shape[1] == 64 and len(t.x_test) == len(t.y_test) and int(t.y_train.max()) <= 9


def test_what_the_streams_hold() -> None:
    d = digits()
    assert d.x_train.shape == (1400, 64) and d.x_test.shape == (397, 64)
    for t in stream("permuted", 1):
        assert torch.equal(t.x_train.sort(1).values, d.x_train.sort(1).values) and torch.equal(t.y_train, d.y_train)
    pairs = [sorted(t.y_train.unique().tolist()) for t in stream("class", 1)]
    assert all(len(p) == 2 for p in pairs) and sorted(c for p in pairs for c in p) == list(range(10))
    assert sum(len(t.x_test) for t in stream("class", 1)) == 397
    assert torch.equal(stream("rotated")[0].x_train, rotate(d.x_train, 0.0))
    torch.testing.assert_close(rotate(d.x_train, 0.0), d.x_train, atol=1e-5, rtol=0)
    image = torch.arange(64.0).view(1, 8, 8)
    torch.testing.assert_close(rotate(image.view(1, 64), 90.0).view(8, 8), torch.rot90(image[0], 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(rotate(image.view(1, 64), 180.0).view(8, 8), torch.rot90(image[0], 2), atol=1e-3, rtol=0)


def test_metrics_by_hand() -> None:
    r = torch.tensor([[0.9, 0.1, 0.1], [0.5, 0.8, 0.2], [0.4, 0.6, 0.7]])
    assert average_accuracy(r) == pytest.approx(1.7 / 3)
    assert learning_accuracy(r) == pytest.approx(0.8)
    assert forgetting(r) == pytest.approx(((0.9 - 0.4) + (0.8 - 0.6)) / 2)
    r[2, 0] = 1.0  # the last task helps the first one: negative forgetting
    assert forgetting(r) == pytest.approx(0.05)
    assert forgetting(r[:1, :1]) == 0
    assert forgetting(torch.stack([r, r])).shape == (2,)
    with refuses("r"):
        forgetting(torch.zeros(3))


# ---------------------------------------------------------------------------- learners
def plain(kind: str, seed: int, lr: float, steps: int, periods=(1, 1, 1), mean=False) -> torch.Tensor:
    """The same run, one replica, written the ordinary way: accuracy after the first task."""
    g = torch.Generator().manual_seed(50 + seed)
    p = [w.double().requires_grad_() for pair in first_weights(seed, 3) for w in pair]
    p += [
        torch.zeros(64, 10, dtype=torch.float64, requires_grad=True),
        torch.zeros(10, dtype=torch.float64).requires_grad_(),
    ]
    task, total = stream(kind, seed)[0], [torch.zeros_like(w) for w in p]

    def logits(x: torch.Tensor) -> torch.Tensor:
        h = x.double()
        for up, down in zip(p[0:6:2], p[1:6:2]):
            h = h + torch.relu(h @ up.mT) @ down.mT
        return h @ p[6] + p[7]

    for t in range(1, steps + 1):
        i = torch.randint(0, len(task.x_train), (8,), generator=g)
        grads = torch.autograd.grad(F.cross_entropy(logits(task.x_train[i]), task.y_train[i]), p)
        with torch.no_grad():
            for w, s, grad, c in zip(p, total, grads, [c for c in periods for _ in "ud"] + [1, 1]):
                s += grad
                if t % c == 0:
                    w -= lr * s / (c if mean else 1)
                    s.zero_()
    return (logits(task.x_test).argmax(-1) == task.y_test).double().mean()


@pytest.mark.eq(70, 71)
@pytest.mark.parametrize(
    ("periods", "reduce"),
    [((1, 1, 1), "sum"), ((1, 3, 7), "mean"), ((2, 5, 9), "sum")],
)
def test_a_cms_of_replicas_is_many_plain_runs(periods: tuple, reduce: str) -> None:
    method = Method(periods, reduce=reduce)
    run = train(method, "permuted", [0.03, 0.05], [0, 2], steps=40, dtype=torch.float64, tasks=1)
    for i, lr in enumerate((0.03, 0.05)):
        for j, seed in enumerate((0, 2)):
            want = plain("permuted", seed, lr, 40, periods, reduce == "mean")
            assert run.r[i, j, 0, 0] == pytest.approx(float(want), abs=1e-6)


def test_methods_that_must_agree_do() -> None:
    kw = {"kind": "facts", "lrs": [0.1], "seeds": [0, 1], "steps": 30, "tasks": 2, "dtype": torch.float64}

    def r(m: Method) -> torch.Tensor:
        return train(m, **kw).r

    base = r(METHODS["MLP"])
    for same in (Method(lr_split=(1, 1, 1)), Method(reduce="mean"), Method(reset=10, meta_lr=1.0)):
        assert torch.equal(r(same), base), same
    assert torch.equal(r(Method((1, 100, 100))), r(named("only block 0 learns")))  # a period that never comes
    others = ("CMS, mean", "replay 100", "EWC 30", "only block 0 learns")
    for other in (*map(named, others), Method(reset=16)):
        assert not torch.equal(r(other), base), other
    own = train(METHODS["MLP"], lambda s: stream("facts", s, 2), [0.1], [0, 1], steps=30, dtype=torch.float64)
    assert torch.equal(own.r, base)


def test_replicas_do_not_touch_each_other() -> None:
    """A diverging learning rate in the batch changes nothing for the others; more seeds neither."""
    kw = {"kind": "permuted", "steps": 30, "tasks": 2, "dtype": torch.float64}
    alone = train(METHODS["MLP"], lrs=[0.05], seeds=[1], **kw).r
    crowd = train(METHODS["MLP"], lrs=[0.05, 1e6], seeds=[0, 1], **kw).r
    assert torch.equal(alone[0, 0], crowd[0, 1])


def test_tuning_reports_the_edge_of_its_grid() -> None:
    s = tune(METHODS["MLP"], "facts", lrs=(0.0, 0.1), tuning_seeds=(100,), seeds=(0, 1), steps=20, tasks=2)
    assert s.lr == 0.1 and s.at_edge and s.r.shape == (2, 2, 2) and "edge of the grid" in s.row()
    assert s.average.shape == s.forgotten.shape == (2,)
    mid = tune(METHODS["MLP"], "facts", lrs=(0.0, 0.1, 0.0), tuning_seeds=(100,), seeds=(0,), steps=20, tasks=1)
    assert not mid.at_edge


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: stream("moving"), "kind"),
        (lambda: stream("class", tasks=6), "tasks"),
        (lambda: stream("facts", tasks=0), "tasks"),
        (lambda: train(Method((0,)), "facts", [0.1], [0], tasks=1), "periods"),
        (lambda: train(Method(reduce="max"), "facts", [0.1], [0], tasks=1), "reduce"),
        (lambda: Method(lr_split=(1,)), "lr_split"),
        (lambda: named("GPT"), "name"),
        (lambda: train(Method(), "facts", [], [0]), "lrs"),
        (lambda: train(Method(), "facts", [0.1], []), "seeds"),
    ],
)
def test_errors(make, argument: str) -> None:
    with refuses(argument):
        make()
