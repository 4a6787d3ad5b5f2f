"""Task streams for continual learning, and the field's three numbers for them.

A stream is a list of tasks that come one after the other; the learner is not told when one ends (EWC is, and says so).
Results are matrices R: R[i, j] is the accuracy on task j's test set after training on tasks 0 ... i.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.data.digits import Digits, load_digits
from nlbook.errors import NLBookError, generator, need

KINDS = ("permuted", "rotated", "class", "facts")


class Task(NamedTuple):
    """Rows of 64 numbers and labels 0 ... 9."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def digits() -> Digits:
    """The digits in the split of the book's continual-learning runs: 1400 train, 397 test, pixels centred near zero."""
    d = load_digits(seed=0, test=397 / 1797)
    return Digits(d.x_train - 0.3, d.y_train, d.x_test - 0.3, d.y_test)


def stream(kind: str, seed: int = 0, tasks: int = 5) -> list[Task]:
    """A stream of `tasks` tasks.

    kind:
        "permuted": the digits, pixels shuffled by another permutation in each task.
        "rotated":  the digits, task t rotated by t * 180 / tasks degrees (the seed changes nothing here).
        "class":    class-incremental: two new digits per task, in an order drawn by the seed, one head for all.
        "facts":    a key-value stream: 60 random keys with a common part and 10 possible answers; the test is the facts
            themselves.
    """
    if kind not in KINDS:
        raise NLBookError(f"kind: got {kind!r}, expected one of {', '.join(map(repr, KINDS))}")
    need(isinstance(tasks, int) and tasks >= 1, "tasks", tasks, "an int >= 1")
    need(kind != "class" or tasks <= 5, "tasks", tasks, "at most 5: there are ten digits, two per task")
    g = generator(1000 + seed)
    if kind == "facts":
        out = []
        for _ in range(tasks):
            keys = torch.randn(60, 64, generator=g, dtype=torch.float32) * 0.3 + 0.15 * torch.randn(
                1, 64, generator=g, dtype=torch.float32
            )
            answers = torch.randint(0, 10, (60,), generator=g)
            out.append(Task(keys, answers, keys, answers))
        return out
    d = digits()
    if kind == "permuted":
        orders = [torch.randperm(64, generator=g) for _ in range(tasks)]
        return [Task(d.x_train[:, o], d.y_train, d.x_test[:, o], d.y_test) for o in orders]
    if kind == "rotated":
        turns = [t * 180 / tasks for t in range(tasks)]
        return [Task(rotate(d.x_train, a), d.y_train, rotate(d.x_test, a), d.y_test) for a in turns]
    order = torch.randperm(10, generator=g)
    out = []
    for t in range(tasks):
        pair = order[2 * t : 2 * t + 2]
        a, b = torch.isin(d.y_train, pair), torch.isin(d.y_test, pair)
        out.append(Task(d.x_train[a], d.y_train[a], d.x_test[b], d.y_test[b]))
    return out


def rotate(x: Tensor, degrees: float) -> Tensor:
    """8 x 8 images (n, 64), turned counter-clockwise about their centre, bilinear, borders repeated."""
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]], dtype=x.dtype)
    grid = F.affine_grid(turn.expand(len(x), 2, 3), [len(x), 1, 8, 8], align_corners=True)
    return F.grid_sample(x.view(-1, 1, 8, 8), grid, padding_mode="border", align_corners=True).reshape(-1, 64)


# ---------------------------------------------------------------------- metrics
def _matrix(r: Tensor) -> Tensor:
    need(r.ndim >= 2 and r.shape[-1] == r.shape[-2], "r", f"shape {tuple(r.shape)}", "(..., tasks, tasks)")
    return r


def average_accuracy(r: Tensor) -> Tensor:
    """Mean over tasks of the accuracy at the end: mean_j R[T-1, j]."""
    return _matrix(r)[..., -1, :].mean(-1)


def learning_accuracy(r: Tensor) -> Tensor:
    """Mean accuracy on each task right after it was learned: mean_j R[j, j]."""
    return _matrix(r).diagonal(dim1=-2, dim2=-1).mean(-1)


def forgetting(r: Tensor) -> Tensor:
    """Mean over old tasks of best accuracy before the last task minus accuracy at the end (Chaudhry et al. 2018).

    mean_{j < T-1} ( max_{i < T-1} R[i, j] - R[T-1, j] ); negative where the last task helped an old one.
    """
    r = _matrix(r)
    if r.shape[-1] == 1:
        return torch.zeros(r.shape[:-2], dtype=r.dtype)
    return (r[..., :-1, :-1].amax(-2) - r[..., -1, :-1]).mean(-1)
