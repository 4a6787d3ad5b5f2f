"""Chapter 06, A memory that teaches itself: DGD, self-generated values, the outer gradient, counting with one number."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *
from nlbook.book.check.functions import gradient_of


# ---------------------------------------------------------------------- Titans (eq. 76-78)
def titans_write(
    M: Tensor, S: Tensor, k: Tensor, v: Tensor, eta: float, alpha: float, mu: float
) -> tuple[Tensor, Tensor]:
    """M and S after one token of Titans with a linear memory M (d_v, d_k), objective |M k - v|^2 / 2.

    S (d_v, d_k) carries the surprise on: it keeps the share mu of itself and takes up minus eta times the gradient. M keeps the
    share alpha of itself and then takes up the new S.
    """
    # BEGIN SOLUTION
    gradient = torch.outer(M @ k - v, k)
    S = mu * S - eta * gradient
    return alpha * M + S, S
    # END SOLUTION


def draw_titans(d: Draw) -> tuple:
    n, m = d.int(1, 3), d.int(1, 3)
    return (
        d.tensor(m, n),
        d.tensor(m, n),
        d.tensor(n),
        d.tensor(m),
        d.float(0.1, 0.9),
        d.float(0.5, 0.95),
        d.float(0.2, 0.9),
    )


# ---------------------------------------------------------------------- DGD (eq. 57)
def dgd(W: Tensor, x: Tensor, grad_y: Tensor, eta: float) -> Tensor:
    """W (d_out, d_in) after one step of delta gradient descent on one input x (d_in,) of any length, eq. 57 corrected.

    grad_y (d_out,) is the gradient of the loss at the output W x.
    """
    # BEGIN SOLUTION
    rate = eta / (1 + eta * x @ x)
    return W - rate * torch.outer(W @ x + grad_y, x)
    # END SOLUTION


def dgd_reference(W: Tensor, x: Tensor, grad_y: Tensor, eta: float) -> Tensor:
    from nlbook.optim.dgd import dgd_step

    return dgd_step(W, x[None], grad_y[None], eta)


def solves_the_proximal_problem(answer, d: Draw) -> str | None:
    """Eq. 56: the gradient of |W x - u|^2 / 2 + |W - W_t|^2 / (2 eta) is zero at the answer."""
    W, x, g, eta = d.tensor(2, 3), 2 * d.tensor(3), d.tensor(2), d.float(0.2, 1.0)
    new = answer(W, x, g, eta)
    slope = torch.outer(new @ x + g, x) + (new - W) / eta
    return (
        None
        if slope.abs().max() < 1e-8
        else f"at your weight the problem of eq. 56 still has a slope of {float(slope.abs().max()):.2g}."
    )


# ---------------------------------------------------------------------- values of its own (eq. 84-88, 93)
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


def transition(k: Tensor, v: Tensor, eta: float, alpha: float) -> Tensor:
    """The matrix T (d, d) with which one self-generated write multiplies the memory: M_t = M_{t-1} T. k, v (d,)."""
    # BEGIN SOLUTION
    eye = torch.eye(len(k), dtype=k.dtype)
    return alpha * eye - 2 * eta * torch.outer(k, k) + eta * torch.outer(v, k)
    # END SOLUTION


def multiplies_any_memory(answer, d: Draw) -> str | None:
    M, k, v = d.tensor(3, 3), d.unit(3), d.unit(3)
    gap = (M @ answer(k, v, 0.3, 0.9) - self_write(M, k, v, 0.3, 0.9)).abs().max()
    return None if gap < 1e-9 else f"M T and the written memory differ by {float(gap):.2g}."


# ---------------------------------------------------------------------- the outer gradient
def cut_answer(M: Tensor, M_v: Tensor, x: Tensor, k: Tensor, q: Tensor, eta: float) -> Tensor:
    """What a linear memory M (d, d) answers for q (d,) after one write under the key k (d,), rate eta, value v^ = M v, v = M_v x.

    The outer level will differentiate this answer: by M, the start of the memory, and by M_v (d, d), which makes v.
    """
    v = M_v @ x
    value = (M @ v).detach()
    M = M - eta * torch.outer(M @ k - value, k)
    return M @ q


def outer_answer(M: Tensor, M_v: Tensor, x: Tensor, k: Tensor, q: Tensor, eta: float) -> Tensor:
    """What a linear memory M (d, d) answers for q (d,) after one write under the key k (d,), rate eta, value v^ = M v, v = M_v x.

    The outer level will differentiate this answer: by M, the start of the memory, and by M_v (d, d), which makes v.
    """
    # BEGIN SOLUTION
    v = M_v @ x
    value = M @ v
    M = M - eta * torch.outer(M @ k - value, k)
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


# ---------------------------------------------------------------------- counting
def count_states(bits: Tensor, c: float) -> tuple[Tensor, float]:
    """(w, eta). w (T,): the memory after each bit: one number, w_0 = 1, key 1, value v^ = c w (so c = v . k), eq. 88 with alpha = 1.

    The rate is 0 at a bit 0. At a bit 1 it is eta, chosen so that w changes its sign and nothing else. bits (T,) of 0 and 1; c <= 0.
    """
    # BEGIN SOLUTION
    eta = 2 / (2 - c)
    factor = 1 + bits * (eta * c - 2 * eta)  # 1 at a bit 0
    return torch.cumprod(factor, 0), eta
    # END SOLUTION


def draw_bits(d: Draw) -> tuple:
    return torch.tensor([float(d.int(0, 1)) for _ in range(d.int(2, 9))], dtype=torch.float64), -d.float(0.0, 1.0)


def scaled_count(shift: float):
    """Counting with a wrong number of erasures: 1 - shift eta + eta c at the right rate of another rule."""

    def states(bits: Tensor, c: float) -> tuple[Tensor, float]:
        eta = 2 / (shift - c)
        return torch.cumprod(1 + bits * (eta * c - 2 * eta), 0), eta

    return states


def with_rate(states):
    """A wrong memory beside the right rate."""
    return lambda bits, c: (states(bits), 2 / (2 - c))


# ---------------------------------------------------------------------- numbers
def jump_in_the_picture() -> float:
    """How many times more M_mem moves in the 8 tokens after the switch than in the 8 before, seed 0, early switch."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("memories:switch=16").facts["jump_mem"]
    # END SOLUTION


STEPS = (
    "write all five memories with k, eta, alpha and their values",
    "each memory makes its value from v",
    "read k, v, eta and alpha from the four memories that make them",
    "answer y from M_mem and the query",
    "make the query q from the token with the fixed W_q",
)
BEFORE = (
    (STEPS[4], STEPS[3], "the answer needs its query"),
    (STEPS[2], STEPS[1], "the value is M(v): v must be there"),
    (STEPS[1], STEPS[0], "a write needs its value"),
    (STEPS[3], STEPS[0], "eq. 83-94 read the state from *before* this token: read before write"),
)

ITEMS = [
    Implement(
        id="06-titans",
        title="Surprise, momentum, forgetting",
        objective="06.1",
        minutes=5,
        difficulty=1,
        prompt="Return (M, S) after one token of Titans.",
        hints=(
            "The gradient of |M k - v|^2 / 2 is (M k - v) k^T.",
            "First S: mu * S - eta * gradient. Then M: alpha * M + S, with the new S.",
            "`S = mu * S - eta * torch.outer(M @ k - v, k)`, then `return alpha * M + S, S`.",
        ),
        solution=titans_write,
        draw=draw_titans,
        misconceptions=[
            Misconception(
                "old surprise",
                lambda M, S, k, v, eta, alpha, mu: (alpha * M + S, mu * S - eta * torch.outer(M @ k - v, k)),
                "M took up the *old* S, so this token's surprise arrives one token late.",
            ),
            Misconception(
                "no surprise carried",
                lambda M, S, k, v, eta, alpha, mu: (
                    alpha * M - eta * torch.outer(M @ k - v, k),
                    -eta * torch.outer(M @ k - v, k),
                ),
                "Without mu S a surprise lasts for one token only. Titans carries it on.",
            ),
            Misconception(
                "ascends",
                lambda M, S, k, v, eta, alpha, mu: (
                    alpha * M + mu * S + eta * torch.outer(M @ k - v, k),
                    mu * S + eta * torch.outer(M @ k - v, k),
                ),
                "That walks uphill: minus eta times the gradient.",
            ),
            Misconception(
                "forgets the surprise",
                lambda M, S, k, v, eta, alpha, mu: (
                    alpha * (M + mu * S - eta * torch.outer(M @ k - v, k)),
                    mu * S - eta * torch.outer(M @ k - v, k),
                ),
                "alpha acts on the old memory; what has just been learned comes in whole.",
            ),
            Misconception(
                "twice the gradient",
                lambda M, S, k, v, eta, alpha, mu: (
                    alpha * M + mu * S - 2 * eta * torch.outer(M @ k - v, k),
                    mu * S - 2 * eta * torch.outer(M @ k - v, k),
                ),
                "The objective is *half* the squared error: its gradient is (M k - v) k^T, without a 2.",
            ),
            Misconception(
                "one minus alpha",
                lambda M, S, k, v, eta, alpha, mu: (
                    (1 - alpha) * M + mu * S - eta * torch.outer(M @ k - v, k),
                    mu * S - eta * torch.outer(M @ k - v, k),
                ),
                "In the Titans paper alpha is what is *forgotten*. Here, as in eq. 88, it is what is kept.",
            ),
        ],
    ),
    Implement(
        id="06-dgd",
        title="Delta gradient descent",
        objective="06.1",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Return the weight after one DGD step. Mind inputs that are not of length one.",
        hints=(
            "Erase what W answers for x, and write minus the gradient: W - rate (W x + grad_y) x^T.",
            "The printed rate eta / (1 + eta) is right for |x| = 1 only.",
            "`rate = eta / (1 + eta * x @ x)`.",
        ),
        solution=dgd,
        reference=dgd_reference,
        draw=lambda d: (d.tensor(m := d.int(1, 3), n := d.int(1, 3)), d.tensor(n), d.tensor(m), d.float(0.1, 1.0)),
        properties=[Property("it solves eq. 56", solves_the_proximal_problem)],
        differentiable=True,
        misconceptions=[
            Misconception(
                "as printed",
                lambda W, x, g, eta: W - eta / (1 + eta) * torch.outer(W @ x + g, x),
                "That is the printed rate. It is right only where |x| = 1.",
            ),
            Misconception(
                "plain descent",
                lambda W, x, g, eta: W - eta * torch.outer(g, x),
                "This is gradient descent: it never looks at what W answers for x.",
            ),
            Misconception(
                "implicit rate, no erasing",
                lambda W, x, g, eta: W - eta / (1 + eta * x @ x) * torch.outer(g, x),
                "The rate is right. What W said about x is still there.",
            ),
            Misconception(
                "explicit rate",
                lambda W, x, g, eta: W - eta * torch.outer(W @ x + g, x),
                "The full rate overshoots for long inputs: divide it by 1 + eta |x|^2.",
            ),
            Misconception(
                "only the erasing at the right rate",
                lambda W, x, g, eta: W - eta / (1 + eta * x @ x) * torch.outer(W @ x, x) - eta * torch.outer(g, x),
                "The erasing has the right rate, the writing has not: both stand under the one rate.",
            ),
            Misconception(
                "length not squared",
                lambda W, x, g, eta: W - eta / (1 + eta * (x @ x).sqrt()) * torch.outer(W @ x + g, x),
                "|x| wants its square.",
            ),
            Misconception(
                "erases only",
                lambda W, x, g, eta: W - eta / (1 + eta * x @ x) * torch.outer(W @ x, x),
                "Erased, and nothing written.",
            ),
        ],
    ),
    Implement(
        id="06-self",
        title="Write what you already know",
        objective="06.2",
        minutes=6,
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
                "sign of the value",
                lambda M, k, v, eta, alpha: (
                    M @ (alpha * torch.eye(len(k), dtype=M.dtype) - eta * torch.outer(k, k))
                    - eta * torch.outer(M @ k + M @ v, k)
                ),
                "That stores minus the value, as the printed eq. 92 does.",
            ),
        ],
    ),
    Implement(
        id="06-transition",
        title="One write, one matrix",
        objective="06.2",
        minutes=5,
        difficulty=2,
        prompt="Return T with M_t = M_{t-1} T for the write of the last exercise.",
        hints=(
            "Everything that is written starts with M on the left: take it out.",
            "M (alpha I - eta k k^T) - eta (M k - M v) k^T.",
            "`alpha * eye - 2 * eta * torch.outer(k, k) + eta * torch.outer(v, k)`.",
        ),
        solution=transition,
        draw=lambda d: (d.unit(n := d.int(2, 4)), d.unit(n), d.float(0.1, 0.6), d.float(0.7, 0.99)),
        properties=[Property("it multiplies any memory", multiplies_any_memory)],
        misconceptions=[
            Misconception(
                "erased once",
                lambda k, v, eta, alpha: (
                    alpha * torch.eye(len(k), dtype=k.dtype) - eta * torch.outer(k, k) + eta * torch.outer(v, k)
                ),
                "The key's direction is erased twice: once by the DGD factor, once by the squared error.",
            ),
            Misconception(
                "transposed",
                lambda k, v, eta, alpha: transition(k, v, eta, alpha).T,
                "v k^T, not k v^T: M T k must contain M v.",
            ),
            Misconception(
                "given value",
                lambda k, v, eta, alpha: alpha * torch.eye(len(k), dtype=k.dtype) - 2 * eta * torch.outer(k, k),
                "That is the transition for a value from outside, which is *added* afterwards. Here M v multiplies too.",
            ),
        ],
    ),
    Order(
        id="06-order",
        title="One token",
        objective="06.2",
        minutes=3,
        difficulty=1,
        steps=STEPS,
        before=BEFORE,
        prompt="Put the steps of one token of eq. 86-88 in an order that works (chunk size 1).",
        hints=(
            "What is needed must be there already.",
            "All reads use the state from before this token.",
            "The write comes last, and all five at once.",
        ),
    ),
    FixTheBug(
        id="06-detach",
        title="A constant, but for whom?",
        objective="06.3",
        minutes=5,
        difficulty=2,
        points=2,
        prompt="The numbers are right, and yet the outer level will never train M_v. Mend it.",
        hints=(
            "Which line keeps the outer gradient from reaching M_v?",
            "The gradient of the inner objective is written out by hand, with the value in it. Nobody will differentiate it there.",
            "Leave the `.detach()` out.",
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
    ReadPicture(
        id="06-picture",
        title="The switch in the picture",
        objective="06.2",
        minutes=3,
        difficulty=1,
        view="memories:switch=16",
        within=0.1,
        solution=jump_in_the_picture,
        wrong={2.6: "That is the switch after token 32. Press 'an early switch' first."},
        prompt="In the picture of the five memories, with the switch after token 16, how many times more does M_mem move in the eight tokens after it than in the eight before?",
        hints=("Press 'an early switch'.", "The numbers stand in the words below the picture.", "After 'mem'."),
    ),
    Implement(
        id="06-count",
        title="A memory that counts",
        objective="06.5",
        minutes=6,
        difficulty=3,
        points=2,
        prompt="One number as a memory. Choose its rate so that a 1 flips its sign, and return the memory after each bit, and that rate.",
        hints=(
            "For one number T is 1 - 2 eta + eta c.",
            "Set it to -1 and solve for eta.",
            "`eta = 2 / (2 - c)`; then multiply by -1 at each 1.",
        ),
        solution=count_states,
        draw=draw_bits,
        time_dim=0,
        cases=[
            Case((torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64), 0.0), "a value of zero"),
            Case((torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64), -1.0), "v = -k"),
        ],
        misconceptions=[
            Misconception(
                "counts",
                with_rate(lambda bits: torch.cumsum(bits, 0)),
                "This counts the ones, as linear attention does. Parity wants a sign that flips.",
            ),
            Misconception(
                "flips at zeros",
                with_rate(lambda bits: torch.cumprod(2 * bits - 1, 0)),
                "The sign changes at a 1, not at a 0.",
            ),
            Misconception(
                "erased once",
                scaled_count(1.0),
                "You solved 1 - eta + eta c = -1. The DGD factor and the error erase once each: 1 - 2 eta + eta c.",
            ),
            Misconception(
                "before the bit",
                with_rate(lambda bits: torch.cumprod(1 - 2 * torch.cat([bits[:1] * 0, bits[:-1]]), 0)),
                "That is the memory before each bit.",
            ),
        ],
    ),
]
