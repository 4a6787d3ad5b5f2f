"""Chapter 06, A memory that teaches itself: references, the write of eq. 88, and its build for an MLP memory.

`memory_read`, `memory_errors`, `memory_write` and `one_token` are a build: chapter 07 goes on from them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.check.define import *
from nlbook.book.check.functions import gradient_of
from nlbook.numerics import unit


# ---------------------------------------------------------------------- a reference
def read_text(M: Tensor, keys: Tensor, words: Tensor, eta: float) -> Tensor:
    """M (d, d) after a text that may hold references. Token t says: keys[t] (d,) now means what words[t] (d,) means.

    The write is the delta rule of chapter 01 at rate eta. What is written under the key is yours to choose.
    """
    # BEGIN SOLUTION
    for k, word in zip(keys, words):
        M = M + eta * torch.outer(M @ word - M @ k, k)
    return M
    # END SOLUTION


def draw_text(d: Draw) -> tuple:
    n, T = d.int(2, 4), d.int(2, 5)
    return torch.eye(n, dtype=torch.float64) + d.tensor(n, n), d.unit(T, n), d.unit(T, n), d.float(0.5, 1.0)


def text_with(value, erase: bool = True):
    """Wrong texts: `value(M, start, word)` is written, and the old answer perhaps not erased."""

    def read(M: Tensor, keys: Tensor, words: Tensor, eta: float) -> Tensor:
        start = M
        for k, word in zip(keys, words):
            M = M + eta * torch.outer(value(M, start, word) - (M @ k if erase else 0 * k), k)
        return M

    return read


def x_gets_what_d_has(answer, d: Draw) -> str | None:
    four, two, dee, ex = torch.eye(4, dtype=torch.float64)
    M = answer(torch.eye(4, dtype=torch.float64), torch.stack([dee, ex, ex]), torch.stack([four, two, dee]), 1.0)
    return None if torch.allclose(M @ ex, four) else "after `d4 x2 x=d` your memory does not answer 4 for x."


# ---------------------------------------------------------------------- eq. 88 for a matrix
def self_write(M: Tensor, k: Tensor, v: Tensor, eta: float, alpha: float) -> Tensor:
    """M (d, d) after one token of eq. 88: a linear memory, objective |M k - v^|^2 / 2 with the value v^ = M v it makes itself.

    k, v (d,). The DGD factor is alpha I - eta k k^T. The value is a constant for the inner derivative.
    """
    # BEGIN SOLUTION
    value = M @ v
    gradient = torch.outer(M @ k - value, k)
    factor = alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)
    return M @ factor - eta * gradient
    # END SOLUTION


def self_write_reference(M: Tensor, k: Tensor, v: Tensor, eta: float, alpha: float) -> Tensor:
    from nlbook.titans.rules import layer_io, token_write

    a, e = layer_io({"W": M}, k[None], (M @ v)[None], "l2", False)["W"]
    return token_write(M, a, e, torch.tensor(alpha, dtype=M.dtype), torch.tensor(eta, dtype=M.dtype), "raw")[0]


def draw_self(d: Draw) -> tuple:
    n = d.int(2, 4)
    return d.tensor(n, n), d.unit(n), d.unit(n), d.float(0.1, 0.6), d.float(0.7, 0.99)


def zero_stays_zero(answer, d: Draw) -> str | None:
    M = answer(torch.zeros(3, 3, dtype=torch.float64), d.unit(3), d.unit(3), 0.4, 0.9)
    return None if not M.any() else "a memory of zeros wrote something. What does it answer for v?"


def differentiated_value(M: Tensor, k: Tensor, v: Tensor, eta: float, alpha: float) -> Tensor:
    """The derivative goes through v^ as well."""
    factor = alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)
    return M @ factor - eta * torch.outer(M @ (k - v), k - v)


# ---------------------------------------------------------------------- the outer gradient
def cut_answer(M: Tensor, M_v: Tensor, x: Tensor, k: Tensor, q: Tensor, eta: float) -> Tensor:
    """What a linear memory M (d, d) answers for q (d,) after one write under the key k (d,), rate eta, value v^ = M v, v = M_v x.

    The outer level will differentiate this answer: by M, the start of the memory, and by M_v (d, d), which makes v.
    """
    v = M_v @ x

    def objective(W: Tensor) -> Tensor:
        value = (W @ v).detach()
        return (W @ k - value).square().sum() / 2

    M = M - eta * torch.func.grad(objective)(M)
    return M @ q


def outer_answer(M: Tensor, M_v: Tensor, x: Tensor, k: Tensor, q: Tensor, eta: float) -> Tensor:
    """What a linear memory M (d, d) answers for q (d,) after one write under the key k (d,), rate eta, value v^ = M v, v = M_v x.

    The outer level will differentiate this answer: by M, the start of the memory, and by M_v (d, d), which makes v.
    """
    # BEGIN SOLUTION
    value = M @ (M_v @ x)

    def objective(W: Tensor) -> Tensor:
        return (W @ k - value).square().sum() / 2

    M = M - eta * torch.func.grad(objective)(M)
    return M @ q
    # END SOLUTION


def draw_outer(d: Draw) -> tuple:
    n = d.int(2, 3)
    return d.tensor(n, n), d.tensor(n, n), d.tensor(n), d.unit(n), d.tensor(n), d.float(0.2, 0.9)


def gradient_reaches_both(answer, d: Draw) -> str | None:
    args = draw_outer(d)
    grads = gradient_of(answer, args, (0, 1))
    if grads[1] is None or not grads[1].any():
        return "no gradient arrives at M_v: the outer level cannot train what makes the values."
    true = gradient_of(outer_answer, args, (0, 1))
    return (
        None
        if all(g is not None and t is not None and torch.allclose(g, t) for g, t in zip(grads, true))
        else "a part of the outer gradient is missing."
    )


# ---------------------------------------------------------------------- the build: a memory of two layers
def memory_read(W1: Tensor, W2: Tensor, x: Tensor) -> Tensor:
    """What a memory of two layers answers for x (d,), eq. 89: x + W1 silu(W2 x), with W2 (h, d) and W1 (d, h).

    M_eta and M_alpha answer one number: their W1 is (1, h), and x is not added.
    """
    # BEGIN SOLUTION
    said = W1 @ F.silu(W2 @ x)
    return x + said if len(W1) == len(x) else said
    # END SOLUTION


def memory_errors(W1: Tensor, W2: Tensor, k: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """(e1, e2): the gradients of |M(k) - value|^2 / 2 at the outputs of the two layers, value held fixed.

    e1 has the length of the answer; e2 (h,) belongs to z = W2 k. silu'(z) = s (1 + z (1 - s)) with s = sigmoid(z).
    """
    # BEGIN SOLUTION
    z = W2 @ k
    s = torch.sigmoid(z)
    e1 = memory_read(W1, W2, k) - value
    e2 = (W1.T @ e1) * s * (1 + z * (1 - s))
    return e1, e2
    # END SOLUTION


def errors_by_autograd(W1: Tensor, W2: Tensor, k: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = (W2 @ k).detach().requires_grad_()
        out = (W1 @ F.silu(z)).detach().requires_grad_()
        told = out + k if len(W1) == len(k) else out
        (e1,) = torch.autograd.grad(0.5 * (told - value).square().sum(), out)
        (e2,) = torch.autograd.grad((W1.detach() @ F.silu(z)) @ e1, z)
    return e1, e2


def memory_write(W1: Tensor, W2: Tensor, k: Tensor, value: Tensor, eta: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """(W1, W2) after one write of eq. 88: retention, delta gradient descent, for each layer with the input n of its own.

    The rate of a layer is eta / (1 + eta |n|^2). Both layers are written from the old weights.
    """
    # BEGIN SOLUTION
    a, (e1, e2) = F.silu(W2 @ k), memory_errors(W1, W2, k, value)
    eta1, eta2 = (eta / (1 + eta * n @ n) for n in (a, k))
    new1 = alpha * W1 - eta1 * torch.outer(W1 @ a + e1, a)
    new2 = alpha * W2 - eta2 * torch.outer(W2 @ k + e2, k)
    return new1, new2
    # END SOLUTION


Layers = tuple[Tensor, Tensor]


def forgotten(W1: Tensor, W2: Tensor, k: Tensor, eta: Tensor, alpha: Tensor) -> Layers:
    """The weights after retention and erasing, before anything is written."""
    a = F.silu(W2 @ k)
    return (
        alpha * W1 - eta / (1 + eta * a @ a) * torch.outer(W1 @ a, a),
        alpha * W2 - eta / (1 + eta * k @ k) * torch.outer(W2 @ k, k),
    )


def written(W1: Tensor, W2: Tensor, k: Tensor, value: Tensor, eta: Tensor, alpha: Tensor, change: str = "") -> Layers:
    """memory_write with one thing changed."""
    a, (e1, e2) = F.silu(W2 @ k), memory_errors(W1, W2, k, value)
    rate1, rate2 = (eta if "one rate" in change else eta / (1 + eta * n @ n) for n in (a, k))
    if change == "late errors":
        e1, e2 = memory_errors(*forgotten(W1, W2, k, eta, alpha), k, value)
    old1, old2 = (0 * e1, 0 * e2) if "no erasing" in change else (W1 @ a, W2 @ k)
    new1 = alpha * W1 - rate1 * torch.outer(old1 + e1, a)
    if change == "layer after layer":
        e2 = memory_errors(new1, W2, k, value)[1]
    return new1, alpha * W2 - rate2 * torch.outer(old2 + e2, k)


def draw_memory(d: Draw, gates: bool = True) -> tuple:
    n, h = d.int(2, 4), d.int(1, 4)
    return d.tensor(d.pick(n, n, 1) if gates else n, h), d.tensor(h, n), n


def draw_read(d: Draw) -> tuple:
    W1, W2, n = draw_memory(d)
    return W1, W2, d.tensor(n)


def draw_errors(d: Draw) -> tuple:
    W1, W2, n = draw_memory(d)
    return W1, W2, d.unit(n), d.tensor(len(W1))


def draw_write(d: Draw) -> tuple:
    eta, alpha = (torch.tensor(x, dtype=torch.float64) for x in (d.float(0.2, 0.9), d.float(0.5, 0.95)))
    return *draw_errors(d), eta, alpha


def one_token(
    M: dict[str, tuple[Tensor, Tensor]], W_q: Tensor, b_eta: Tensor, b_alpha: Tensor, x: Tensor
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """(y, M) after one token x (d,) of five memories M = {"mem", "k", "v", "eta", "alpha"}, each a pair (W1, W2).

    k, v and q = W_q x are brought to length one; eta and alpha are sigmoids of what their memories say plus their bias. Every
    memory writes under k a value of its own, what it answers for v. y answers q from M["mem"] *after* the write.
    """
    # BEGIN SOLUTION
    k, v, q = (z / z.norm() for z in (memory_read(*M["k"], x), memory_read(*M["v"], x), W_q @ x))
    eta = torch.sigmoid(memory_read(*M["eta"], x)[0] + b_eta)
    alpha = torch.sigmoid(memory_read(*M["alpha"], x)[0] + b_alpha)
    M = {n: memory_write(*W, k, memory_read(*W, v), eta, alpha) for n, W in M.items()}
    return memory_read(*M["mem"], q), M
    # END SOLUTION


def draw_token(d: Draw) -> tuple:
    n, h = d.int(2, 3), d.int(1, 3)
    M = {b: (d.tensor(1 if b in ("eta", "alpha") else n, h), d.tensor(h, n)) for b in ("mem", "k", "v", "eta", "alpha")}
    return M, d.tensor(n, n), d.tensor(1)[0], d.tensor(1)[0], d.tensor(n)


def token_with(*, own="each", before=False, units="kvq", boxes=None, late=False):
    """one_token with one thing changed."""

    def token(M: dict[str, tuple[Tensor, Tensor]], W_q: Tensor, b_eta: Tensor, b_alpha: Tensor, x: Tensor) -> Any:
        raw = {"k": memory_read(*M["k"], x), "v": memory_read(*M["v"], x), "q": W_q @ x}
        k, v, q = (unit(z) if name in units else z for name, z in raw.items())
        eta = torch.sigmoid(memory_read(*M["eta"], x)[0] + b_eta)
        alpha = torch.sigmoid(memory_read(*M["alpha"], x)[0] + b_alpha)
        y, out = memory_read(*M["mem"], q), dict(M)
        for b in ("k", "v", "eta", "alpha", "mem"):
            if boxes and b not in boxes:
                continue
            value = memory_read(*M[b], v)
            if own == "given" and len(value) == len(v):
                value = v
            if own == "mem" and len(value) == len(v):
                value = memory_read(*M["mem"], v)
            out[b] = memory_write(*M[b], k, value, eta, alpha)
            if late and b in ("k", "v"):  # the others meet the new key and value
                k, v = unit(memory_read(*out["k"], x)), unit(memory_read(*out["v"], x))
        return (y if before else memory_read(*out["mem"], q)), out

    return token


def memory_after_memory(M: dict[str, Layers], W_q: Tensor, b_eta: Tensor, b_alpha: Tensor, x: Tensor) -> Any:
    """one_token, but everything is read anew for each memory in turn."""
    M = dict(M)
    for b in M:
        M[b] = one_token(M, W_q, b_eta, b_alpha, x)[1][b]
    return memory_read(*M["mem"], unit(W_q @ x)), M


ITEMS = [
    Implement(
        id="06-refer",
        title="x takes what d has",
        objective="06.1",
        minutes=6,
        difficulty=1,
        prompt="Return the memory after a text in which each token says: this key now means what that word means.",
        hints=(
            "Which number stands in no token, and who knows it?",
            "Ask the memory for the word, at the moment when the token comes, and write its answer by the delta rule.",
            "In a loop: `M = M + eta * torch.outer(M @ word - M @ k, k)`.",
        ),
        solution=read_text,
        draw=draw_text,
        properties=[Property("d4 x2 x=d", x_gets_what_d_has)],
        misconceptions=[
            Misconception(
                "given value",
                text_with(lambda M, start, word: word),
                "The word itself is written. What does the memory answer *for* it?",
            ),
            Misconception(
                "values from the start",
                text_with(lambda M, start, word: start @ word),
                "All values come from the memory before the text, so nothing that the text says can be referred to. That is "
                "linear attention, whose values do not depend on what has been written. Here each value depends on the state.",
            ),
            Misconception(
                "writes without erasing",
                text_with(lambda M, start, word: M @ word, erase=False),
                "The new answer is added to the old one. The delta rule erases *and* writes: subtract what M answers for k.",
            ),
            Misconception(
                "erases without writing",
                text_with(lambda M, start, word: 0 * word),
                "The old answer is erased, and nothing is written in its place. The delta rule erases *and* writes.",
            ),
            Misconception(
                "one rate too few",
                lambda M, keys, words, eta: read_text(M, keys, words, 1.0),
                "The rate eta is missing.",
            ),
        ],
    ),
    Implement(
        id="06-self",
        title="Write what you already know",
        objective="06.2",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Return the memory after one token of eq. 88.",
        hints=(
            "First ask the memory: value = M v.",
            "The gradient of |M k - value|^2 / 2 with a constant value is (M k - value) k^T.",
            "`M @ (alpha * eye - eta * torch.outer(k, k)) - eta * torch.outer(M @ k - M @ v, k)`.",
        ),
        solution=self_write,
        reference=self_write_reference,
        draw=draw_self,
        properties=[Property("zero stays zero", zero_stays_zero)],
        misconceptions=[
            Misconception(
                "given value",
                lambda M, k, v, eta, alpha: (
                    M @ (alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k))
                    - eta * torch.outer(M @ k - v, k)
                ),
                "Here the value is v itself. A self-generated value is what the memory answers *for* v.",
            ),
            Misconception(
                "no factor",
                lambda M, k, v, eta, alpha: alpha * M - eta * torch.outer(M @ k - M @ v, k),
                "The DGD factor also takes eta M k k^T away. (As an ablation this is a good rule.)",
            ),
            Misconception(
                "value differentiated",
                differentiated_value,
                "The derivative went through v^ as well: you get M (k - v)(k - v)^T. The value is a constant inside.",
            ),
            Misconception(
                "value from the new state",
                lambda M, k, v, eta, alpha: (
                    M @ (alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k))
                    - eta * torch.outer(M @ k - M @ (alpha * v - eta * k * (k @ v)), k)
                ),
                "The value was made by the memory *after* the erasing. All is read before anything is written.",
            ),
            Misconception(
                "error after the erasing",
                lambda M, k, v, eta, alpha: (
                    (W := M @ (alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)))
                    - eta * torch.outer(W @ k - M @ v, k)
                ),
                "The error was taken at the state that has forgotten already. Both parts of eq. 88 start from the same old M.",
            ),
            Misconception(
                "error and value after the erasing",
                lambda M, k, v, eta, alpha: (
                    (W := M @ (alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k)))
                    - eta * torch.outer(W @ k - W @ v, k)
                ),
                "Error and value were taken at the state that has forgotten already. Both parts of eq. 88 start from the same old M.",
            ),
            Misconception(
                "sign of the value",
                lambda M, k, v, eta, alpha: (
                    M @ (alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k))
                    - eta * torch.outer(M @ k + M @ v, k)
                ),
                "That stores minus the value, as the printed eq. 92 does.",
            ),
        ],
    ),
    FixTheBug(
        id="06-detach",
        title="A constant, but for whom?",
        objective="06.4",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="The numbers are right, and yet the outer level will never train M_v. Mend it.",
        hints=(
            "Which line keeps the outer gradient from reaching M_v?",
            "Without `.detach()` the inner gradient goes through the value. What does `torch.func.grad` differentiate, and what not?",
            "Compute the value from `M` before the objective. The objective then takes it as a constant, and the outer gradient reaches it.",
        ),
        solution=outer_answer,
        broken=cut_answer,
        draw=draw_outer,
        properties=[Property("the outer gradient reaches M and M_v", gradient_reaches_both)],
        misconceptions=[
            Misconception(
                "value differentiated",
                lambda M, M_v, x, k, q, eta: (M - eta * torch.outer(M @ (k - M_v @ x), k - M_v @ x)) @ q,
                "Now the *inner* derivative goes through the value as well. Inside it is a constant.",
            ),
            Misconception(
                "given value",
                lambda M, M_v, x, k, q, eta: (M - eta * torch.outer(M @ k - M_v @ x, k)) @ q,
                "The value is M v, not v.",
            ),
        ],
    ),
    Implement(
        id="06-read",
        title="Build 1: read",
        objective="06.2",
        minutes=3,
        difficulty=1,
        prompt="Return what a memory of two layers answers. Where it answers one number, x is not added.",
        hints=(
            "W2 first, then silu, then W1.",
            "x is added only where the answer is as long as x; torch would add a number to all of x without a word.",
            "`said = W1 @ F.silu(W2 @ x)`, then `x + said if len(W1) == len(x) else said`.",
        ),
        solution=memory_read,
        draw=draw_read,
        cases=[
            Case(
                tuple(torch.tensor(t, dtype=torch.float64) for t in ([[2.0]], [[1.0, 0.0]], [1.0, 1.0])),
                "a memory that answers one number",
            )
        ],
        misconceptions=[
            Misconception(
                "x added to a number",
                lambda W1, W2, x: x + W1 @ F.silu(W2 @ x),
                "Where W1 has one row, the answer is one number. torch adds it to all of x without a word.",
            ),
            Misconception(
                "no residual",
                lambda W1, W2, x: W1 @ F.silu(W2 @ x),
                "Without x + a memory begins with nothing to say, and with values of its own it stays so.",
            ),
            Misconception(
                "no silu",
                lambda W1, W2, x: W1 @ (W2 @ x) + (x if len(W1) == len(x) else 0),
                "Between the layers stands silu; without it two layers are one matrix.",
            ),
            Misconception(
                "sigmoid",
                lambda W1, W2, x: W1 @ torch.sigmoid(W2 @ x) + (x if len(W1) == len(x) else 0),
                "silu(z) is z sigmoid(z).",
            ),
        ],
    ),
    Implement(
        id="06-errors",
        title="Build 2: the two errors",
        objective="06.2",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Return e1 and e2, what backpropagation brings to the outputs of the two layers.",
        hints=(
            "e1 is the error of the answer. e2 is what is left of it behind W1 and silu.",
            "Backwards through W1 means times W1 transposed; backwards through silu means times silu'(z), number by number.",
            "`e2 = (W1.T @ e1) * s * (1 + z * (1 - s))`.",
        ),
        solution=memory_errors,
        reference=errors_by_autograd,
        draw=draw_errors,
        misconceptions=[
            Misconception(
                "no slope",
                lambda W1, W2, k, value: (e := memory_read(W1, W2, k) - value, W1.T @ e),
                "e2 is still in front of silu: times silu'(z), number by number.",
            ),
            Misconception(
                "slope of the sigmoid",
                lambda W1, W2, k, value: (
                    e := memory_read(W1, W2, k) - value,
                    (W1.T @ e) * (s := torch.sigmoid(W2 @ k)) * (1 - s),
                ),
                "That is the slope of the sigmoid. silu(z) = z sigmoid(z) has the slope s (1 + z (1 - s)).",
            ),
            Misconception(
                "silu for its slope",
                lambda W1, W2, k, value: (e := memory_read(W1, W2, k) - value, (W1.T @ e) * F.silu(W2 @ k)),
                "Backwards through silu one multiplies by its *slope* at z, not by its value.",
            ),
            Misconception(
                "error without x",
                lambda W1, W2, k, value: (
                    e := W1 @ F.silu(W2 @ k) - value,
                    (W1.T @ e) * (s := torch.sigmoid(W2 @ k)) * (1 + W2 @ k * (1 - s)),
                ),
                "The answer of the memory is k + W1 silu(W2 k): its error contains k.",
            ),
            Misconception(
                "other way round",
                lambda W1, W2, k, value: tuple(-e for e in memory_errors(W1, W2, k, value)),
                "A gradient points uphill: answer minus value. The minus comes with the write.",
            ),
            Misconception(
                "twice",
                lambda W1, W2, k, value: tuple(2 * e for e in memory_errors(W1, W2, k, value)),
                "The objective is *half* the squared error: no 2.",
            ),
        ],
    ),
    Implement(
        id="06-write",
        title="Build 3: write",
        objective="06.2",
        minutes=8,
        difficulty=3,
        points=2,
        prompt="Return W1 and W2 after one write. Each layer erases under the input of its own, and has the rate that fits its length.",
        hints=(
            "Write eq. 88 down once for each layer. What is the input of W2? And of W1?",
            "alpha W - rate (W n + e) n^T, with n = a = silu(W2 k), e1 for W1 and n = k, e2 for W2.",
            "`eta / (1 + eta * a @ a)` and `alpha * W1 - eta1 * torch.outer(W1 @ a + e1, a)`; the same with k and e2 for W2.",
        ),
        solution=memory_write,
        draw=draw_write,
        misconceptions=[
            Misconception(
                "one rate for both",
                partial(written, change="one rate"),
                "The rate eta fits no input in particular. For an input n it is eta / (1 + eta |n|^2), and a is not of length one.",
            ),
            Misconception(
                "rate as printed",
                lambda W1, W2, k, value, eta, alpha: written(W1, W2, k, value, eta / (1 + eta), alpha, "one rate"),
                "eta / (1 + eta) is the printed rate of eq. 57, right for |n| = 1 only. k has that length, a has not.",
            ),
            Misconception(
                "no erasing",
                partial(written, change="no erasing"),
                "Retention and gradient are right. The DGD factor also takes the old answer W n out of each layer.",
            ),
            Misconception(
                "error after the erasing",
                partial(written, change="late errors"),
                "The errors were taken at the weights that have forgotten already. All parts of eq. 88 start from the same old weights.",
            ),
            Misconception(
                "layer after layer",
                partial(written, change="layer after layer"),
                "The error of W2 came through the *new* W1. Work out both errors first, then write.",
            ),
            Misconception(
                "plain gradient descent",
                partial(written, change="no erasing, one rate"),
                "Retention and a plain gradient step. DGD also takes the old answer W n out of each layer, and its rate is eta / (1 + eta |n|^2).",
            ),
            Misconception(
                "retention of the erased",
                lambda W1, W2, k, value, eta, alpha: tuple(
                    alpha * whole + new - kept
                    for whole, new, kept in zip(
                        forgotten(W1, W2, k, eta, 0 * alpha + 1),
                        memory_write(W1, W2, k, value, eta, alpha),
                        forgotten(W1, W2, k, eta, alpha),
                        strict=True,
                    )
                ),
                "alpha acts on the old weights alone: the factor is alpha I - rate n n^T, not alpha (I - rate n n^T).",
            ),
            Misconception(
                "retention of everything",
                lambda W1, W2, k, value, eta, alpha: tuple(
                    alpha * W for W in memory_write(W1, W2, k, value, eta, 0 * alpha + 1)
                ),
                "alpha acts on the old weights; what has just been erased and written is not forgotten at once.",
            ),
        ],
    ),
    Implement(
        id="06-token",
        title="Build 4: one token, five memories",
        objective="06.2",
        minutes=10,
        difficulty=3,
        points=3,
        prompt="Put the parts together: read k, v, eta and alpha, let all five memories write values of their own, then answer.",
        hints=(
            "Four reads at x come first; then, for each memory, its own value and its write; the answer is last.",
            "All writes use the k, v, eta and alpha that were read before the first of them.",
            "`M = {n: memory_write(*W, k, memory_read(*W, v), eta, alpha) for n, W in M.items()}`, and `memory_read(*M['mem'], q)`.",
        ),
        solution=one_token,
        draw=draw_token,
        misconceptions=[
            Misconception(
                "read before the write",
                token_with(before=True),
                "y was read before the write, as in eq. 86 and 94. The book's Hope answers after it, so that a token's own news counts.",
            ),
            Misconception(
                "given value",
                token_with(own="given"),
                "Where it fits, v itself was written. The value of a memory is what *it* answers for v.",
            ),
            Misconception(
                "the value of M_mem for all",
                token_with(own="mem"),
                "M_k and M_v wrote the answer of M_mem. Each memory asks itself: its own answer for v.",
            ),
            Misconception(
                "long v",
                token_with(units="kq"),
                "v is as long as M_v made it. Bring it to length one, or what it feeds back grows.",
            ),
            Misconception(
                "no unit vectors",
                token_with(units=""),
                "k, v and q are as long as they were read. Bring all three to length one.",
            ),
            Misconception(
                "memory after memory",
                memory_after_memory,
                "Each memory was written before the next one read the token. All reads at x come before any write.",
            ),
            Misconception(
                "only M_mem is written",
                token_with(boxes=("mem",)),
                "Only M_mem was written. All five learn from each token.",
            ),
            Misconception(
                "new key for the rest",
                token_with(late=True),
                "Key and value were read anew after M_k and M_v had been written. All reads at x come before any write.",
            ),
        ],
    ),
]
