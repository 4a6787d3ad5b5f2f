"""Chapter 02, Training is writing: surprise, the dual form, local errors, delta gradient descent, momentum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlbook.book.check.define import *
from nlbook.optim import momentum_horizon


def surprise_of_softmax(y: Tensor, label: int) -> Tensor:
    """The surprise: gradient of the cross-entropy -log softmax(y)[label] with respect to the scores y (classes,)."""
    # BEGIN SOLUTION
    surprise = torch.softmax(y, -1)
    surprise[label] -= 1
    return surprise
    # END SOLUTION


def cross_entropy(y: Tensor, label: int) -> Tensor:
    return torch.logsumexp(y, -1) - y[label]


def predict_without_weights(W0: Tensor, keys: Tensor, surprises: Tensor, lr: float, q: Tensor) -> Tensor:
    """What the layer trained from W0 (d_out, d_in) answers to q (d_in,), from its keys (T, d_in) and surprises (T, d_out)."""
    # BEGIN SOLUTION
    overlaps = keys @ q
    return W0 @ q - lr * overlaps @ surprises
    # END SOLUTION


def draw_dual(d: Draw):
    d_in, d_out, T = d.int(1, 4), d.int(1, 3), d.int(1, 6)
    return d.tensor(d_out, d_in), d.tensor(T, d_in), d.tensor(T, d_out), d.float(0.05, 0.5), d.tensor(d_in)


def trained_answer_agrees(answer, d: Draw) -> str | None:
    """On surprises that real training produced, the answer is that of the trained weight."""
    from nlbook.memory.dual import squared_loss, train_linear

    trace = train_linear(d.tensor(2, 3), d.tensor(5, 3), squared_loss(d.tensor(5, 2)), 0.1)
    q = d.tensor(3)
    gap = float((answer(trace.start, trace.keys, trace.surprises, 0.1, q) - trace.weight() @ q).abs().max())
    return None if gap < 1e-9 else f"a layer trained by SGD answers differently: the gap is {gap:.3g}."


def sgd_without_weights(W0: Tensor, X: Tensor, labels: Tensor, lr: float) -> Tensor:
    """The surprises (T, classes) of one SGD step a sample on the cross-entropy, from W0 (classes, d_in), X (T, d_in) and labels (T,).

    No weight is ever changed or built: each answer comes from W0 and from the list of the surprises so far.
    """
    # BEGIN SOLUTION
    written = W0.new_zeros(0, len(W0))
    for t, label in enumerate(labels):
        answer = W0 @ X[t] - lr * (X[:t] @ X[t]) @ written
        surprise = torch.softmax(answer, -1)
        surprise[label] -= 1
        written = torch.cat([written, surprise[None]])
    return written
    # END SOLUTION


def draw_sgd(d: Draw):
    classes, d_in, T = d.int(2, 3), d.int(1, 3), d.int(2, 6)
    labels = torch.tensor([d.pick(*range(classes)) for _ in range(T)])
    return d.tensor(classes, d_in), d.tensor(T, d_in), labels, d.float(0.3, 0.9)


def digits_agree(answer, d: Draw) -> str | None:
    """On 60 digits the surprises are those that torch's SGD meets, at the weight that it trains."""
    from nlbook.book.chapters.writing.written_layer import write_digits

    layer = write_digits(60)
    gap = float((answer(layer.trace.start, layer.trace.keys, layer.labels, 0.05) - layer.trace.surprises).abs().max())
    return None if gap < 1e-9 else f"on 60 digits a surprise differs from that of a trained weight by {gap:.3g}."


def _sgd(surprise):
    """SGD with another surprise: `surprise(W0, W, before, x, label)`, `before` being the weight one write ago."""

    def run(W0: Tensor, X: Tensor, labels: Tensor, lr: float) -> Tensor:
        W, before, written = W0, W0, []
        for x, label in zip(X, labels):
            written.append(surprise(W0, W, before, x, label))
            before, W = W, W - lr * torch.outer(written[-1], x)
        return torch.stack(written)

    return run


def _softmax(W: Tensor, x: Tensor, label: Tensor) -> Tensor:
    return torch.softmax(W @ x, -1) - torch.eye(len(W), dtype=W.dtype)[label]


def local_error(W2: Tensor, delta2: Tensor, z1: Tensor) -> Tensor:
    """The error signal at the pre-activations z1 (h,) of a tanh layer, from W2 (d_out, h) and the error delta2 (d_out,) above."""
    # BEGIN SOLUTION
    slope = 1 - torch.tanh(z1) ** 2
    return slope * (W2.T @ delta2)
    # END SOLUTION


def dgd_step(W: Tensor, x: Tensor, delta: Tensor, eta: float) -> Tensor:
    """The V (d_out, d_in) that minimises 1/2 |V x + delta|^2 + 1 / (2 eta) |V - W|^2, for x (d_in,) and delta (d_out,)."""
    # BEGIN SOLUTION
    rate = eta / (1 + eta * (x @ x))
    return W - rate * torch.outer(W @ x + delta, x)
    # END SOLUTION


def nothing_left_to_gain(answer, d: Draw) -> str | None:
    """At the minimum both pulls are equal and opposite: the gradient in V is zero."""
    W, x, delta = d.tensor(2, 3), d.tensor(3), d.tensor(2)
    V = answer(W, x, delta, 0.5)
    slope = float((torch.outer(V @ x + delta, x) + (V - W) / 0.5).abs().max())
    return (
        None if slope < 1e-9 else f"the gradient of the two terms is not zero at your V, but as large as {slope:.3g}."
    )


def inner_gradient(m: Tensor, v: Tensor, eta: float, keep: float) -> Tensor:
    """The gradient with respect to m of the momentum's objective -<m, v> + (1 - keep) / (2 eta) |m|^2."""
    # BEGIN SOLUTION
    return (1 - keep) / eta * m - v
    # END SOLUTION


def inner_objective(m: Tensor, v: Tensor, eta: float, keep: float) -> Tensor:
    return (1 - keep) / (2 * eta) * m.square().sum() - (m * v).sum()


def horizon(beta: float, share: float) -> int:
    """The smallest number n of latest pushes that make up at least `share` of a moving average that keeps `beta`."""
    # BEGIN SOLUTION
    n = 1
    while 1 - beta**n < share:
        n += 1
    return n
    # END SOLUTION


def ten_times(answer, d: Draw) -> str | None:
    """One more nine is ten times the memory."""
    a, b = answer(0.9, 0.99), answer(0.99, 0.99)
    return (
        None
        if 10 <= b / a <= 11
        else f"at 0.9 it says {a} and at 0.99 {b}: one more nine makes about ten times as many."
    )


LARGEST_INDEX = (
    "You return the largest *index*, counted from zero (the paper's 6 and 43). Count the pushes from one: one more."
)

ITEMS = [
    Derive(
        id="02-surprise",
        title="The surprise of a classifier",
        objective="02.2",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Return the gradient of the cross-entropy with respect to the scores. It is the value that training writes.",
        hints=(
            "Write the loss as log(sum of exp(y_j)) - y_label and differentiate each part.",
            "The first part gives softmax(y). The second gives minus one, at one place only.",
            "softmax(y) with 1 taken away at `label`.",
        ),
        solution=surprise_of_softmax,
        objective_fn=cross_entropy,
        wrt="y",
        draw=lambda d: (d.tensor(n := d.int(2, 5)), d.pick(*range(n))),
        misconceptions=[
            Misconception(
                "target minus prediction",
                lambda y, label: torch.eye(len(y), dtype=y.dtype)[label] - torch.softmax(y, -1),
                "This is what should be *written*, the negative surprise. The gradient has the opposite sign.",
            ),
            Misconception(
                "probabilities",
                lambda y, label: torch.softmax(y, -1),
                "These are the probabilities; the label has not entered yet.",
            ),
            Misconception(
                "scores, not probabilities",
                lambda y, label: y - torch.eye(len(y), dtype=y.dtype)[label],
                "That is the surprise of the squared error. The cross-entropy compares probabilities.",
            ),
        ],
    ),
    Implement(
        id="02-dual",
        title="Answer without the weight",
        objective="02.1",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Return what the trained layer answers to q, from the list of its writes. Never build the trained weight.",
        hints=(
            "Each step subtracted lr * surprise_t x_t^T from the weight. Multiply that by q.",
            "x_t^T q is a number, the overlap. The answer is W0 q minus lr times the surprises weighted by the overlaps.",
            "`keys @ q` are all overlaps; `(keys @ q) @ surprises` is the weighted sum.",
        ),
        solution=predict_without_weights,
        draw=draw_dual,
        properties=[Property("a layer that was really trained", trained_answer_agrees)],
        misconceptions=[
            Misconception(
                "wrong sign",
                lambda W0, keys, surprises, lr, q: W0 @ q + lr * (keys @ q) @ surprises,
                "A step goes *down* the gradient: what is written is minus the surprise.",
            ),
            Misconception(
                "no start",
                lambda W0, keys, surprises, lr, q: -lr * (keys @ q) @ surprises,
                "The start weight still answers too: add W0 q.",
            ),
            Misconception(
                "no rate",
                lambda W0, keys, surprises, lr, q: W0 @ q - (keys @ q) @ surprises,
                "Every write was scaled by the rate.",
            ),
            Misconception(
                "softmax weights",
                lambda W0, keys, surprises, lr, q: W0 @ q - lr * torch.softmax(keys @ q, -1) @ surprises,
                "Here the overlaps weigh the surprises as they are. A softmax would make it attention (chapter 03).",
            ),
        ],
    ),
    Implement(
        id="02-build",
        title="An SGD without weights",
        objective="02.1",
        minutes=11,
        difficulty=3,
        points=3,
        prompt="Return the surprises of a whole training run, without ever building a weight. Put your two functions together: "
        "answer from the list so far, measure the surprise, add it to the list.",
        hints=(
            "Before the first step the list is empty, and W0 answers alone. What is on the list when the sample t comes?",
            "Sample t is answered from X[:t] and the t surprises so far; then its own surprise joins the list.",
            "written = torch.cat([written, surprise[None]]) grows a list that starts as W0.new_zeros(0, len(W0)).",
        ),
        solution=sgd_without_weights,
        draw=draw_sgd,
        properties=[Property("sixty digits", digits_agree)],
        misconceptions=[
            Misconception(
                "frozen",
                _sgd(lambda W0, W, before, x, label: _softmax(W0, x, label)),
                "Every surprise is taken at the untrained W0, so the same mistake is paid for again and again. The answer must use "
                "the list so far.",
            ),
            Misconception(
                "one write late",
                _sgd(lambda W0, W, before, x, label: _softmax(before, x, label)),
                "Each answer misses the latest write: sample t is answered from *all* t surprises before it.",
            ),
            Misconception(
                "scores, not probabilities",
                _sgd(lambda W0, W, before, x, label: W @ x - torch.eye(len(W), dtype=W.dtype)[label]),
                "That is the surprise of the squared error. The cross-entropy compares probabilities: softmax first.",
            ),
            Misconception(
                "no start",
                _sgd(lambda W0, W, before, x, label: _softmax(W - W0, x, label)),
                "The start weight still answers too: add W0 x to what the list says.",
            ),
            Misconception(
                "climbs",
                lambda W0, X, labels, lr: sgd_without_weights(W0, X, labels, -lr),
                "The list is added where it must be subtracted: a step goes *down* the gradient.",
            ),
        ],
    ),
    Implement(
        id="02-local",
        title="The local error of a hidden layer",
        objective="02.2",
        minutes=6,
        difficulty=2,
        points=2,
        prompt="Send the error one layer down through W2 and the slope of tanh: this is the value that the first layer stores.",
        hints=(
            "How much does each hidden unit move the scores? Column j of W2 says so.",
            "W2^T delta2 is the error at the activations; the slope of tanh takes it to the pre-activations.",
            "The slope of tanh at z is 1 - tanh(z)^2.",
        ),
        solution=local_error,
        draw=lambda d: (d.tensor(o := d.int(1, 3), h := d.int(1, 5)), d.tensor(o), d.tensor(h)),
        misconceptions=[
            Misconception(
                "no slope",
                lambda W2, delta2, z1: W2.T @ delta2,
                "This is the error at the activations. The tanh in between scales it by its slope.",
            ),
            Misconception(
                "activation for slope",
                lambda W2, delta2, z1: torch.tanh(z1) * (W2.T @ delta2),
                "That multiplies by tanh(z), not by its derivative.",
            ),
            Misconception(
                "slope of z",
                lambda W2, delta2, z1: (1 - z1**2) * (W2.T @ delta2),
                "The slope is 1 - tanh(z)^2; here z itself is squared.",
            ),
        ],
    ),
    Implement(
        id="02-dgd",
        title="The exact answer to the regression",
        objective="02.4",
        minutes=8,
        difficulty=3,
        points=2,
        prompt="Set the gradient of both terms to zero and solve for V. (`torch.linalg.solve` is allowed; paper is shorter.)",
        hints=(
            "The gradient in V is (V x + delta) x^T + (V - W) / eta. Write a = V x + delta and solve for V first.",
            "V = W - eta a x^T. Multiply by x and add delta: a = W x + delta - eta |x|^2 a. Now a is known.",
            "a = (W x + delta) / (1 + eta |x|^2), and V = W - eta a x^T.",
        ),
        solution=dgd_step,
        draw=lambda d: (
            d.tensor(o := d.int(1, 3), i := d.int(1, 3)),
            d.tensor(i),
            d.tensor(o),
            d.float(0.4, 2.1),
        ),
        properties=[Property("a minimum", nothing_left_to_gain)],
        misconceptions=[
            Misconception(
                "a gradient step",
                lambda W, x, delta, eta: W - eta * torch.outer(W @ x + delta, x),
                "That is one gradient step from W. The minimum of both terms together is nearer: at V the two pulls are equal.",
            ),
            Misconception(
                "the rate as printed",
                lambda W, x, delta, eta: W - eta / (1 + eta) * torch.outer(W @ x + delta, x),
                "eta / (1 + eta) is right for inputs of length one only (so eq. 57 is printed). The length of x belongs in it.",
            ),
            Misconception(
                "plain SGD",
                lambda W, x, delta, eta: W - eta * torch.outer(delta, x),
                "This writes and does not erase: it is the step of the dot-product objective, plain SGD.",
            ),
            Misconception(
                "the wrong value",
                lambda W, x, delta, eta: W - eta / (1 + eta * (x @ x)) * torch.outer(W @ x - delta, x),
                "The value is *minus* the surprise: the fit is zero where V x = -delta.",
            ),
        ],
    ),
    Derive(
        id="02-inner",
        title="The gradient of momentum's own objective",
        objective="02.5",
        minutes=5,
        difficulty=2,
        points=2,
        prompt="Return the gradient with respect to m. One step of rate eta *against* it is momentum, decay included.",
        hints=(
            "Differentiate the two terms one by one; `v` is a constant here.",
            "The first term is linear in m: its gradient is -v. The second is a square.",
            "(1 - keep) / eta times m, minus v.",
        ),
        solution=inner_gradient,
        objective_fn=inner_objective,
        wrt="m",
        draw=lambda d: (
            d.tensor(a := d.int(1, 3), b := d.int(1, 3)),
            d.tensor(a, b),
            d.float(0.05, 0.8),
            d.float(0.1, 0.95),
        ),
        misconceptions=[
            Misconception(
                "plus v",
                lambda m, v, eta, keep: (1 - keep) / eta * m + v,
                "The objective rewards agreement, so <m, v> stands there with a minus, and its gradient is -v. The step goes "
                "against the gradient and so adds +eta v: m comes to agree with v.",
            ),
            Misconception(
                "no forgetting",
                lambda m, v, eta, keep: -v * torch.ones_like(m),
                "This is the first term alone: momentum that adds up everything and never forgets (eq. 10-11).",
            ),
            Misconception(
                "half of the ridge",
                lambda m, v, eta, keep: (1 - keep) / (2 * eta) * m - v,
                "The square brings a factor 2 down, which cancels the 2 below.",
            ),
            Misconception(
                "twice the ridge",
                lambda m, v, eta, keep: 2 * (1 - keep) / eta * m - v,
                "The 2 of the square cancels the 2 below it: (1 - keep) / eta is left, without a factor.",
            ),
            Misconception(
                "keep instead of 1 - keep",
                lambda m, v, eta, keep: keep / eta * m - v,
                "The ridge forgets 1 - keep of m. With `keep` in its place, m would lose what it should keep.",
            ),
            Misconception(
                "the new momentum",
                lambda m, v, eta, keep: keep * m + eta * v,
                "This is m *after* the step. Return the gradient; the step is m - eta * gradient.",
            ),
        ],
    ),
    Implement(
        id="02-horizon",
        title="How many pushes make half of it?",
        objective="02.5",
        minutes=5,
        difficulty=2,
        points=2,
        prompt="Return the smallest n for which the last n pushes weigh at least `share`. Count pushes, from one.",
        hints=(
            "The newest push weighs 1 - beta, the one before beta (1 - beta), and so on. What do n of them weigh together?",
            "A geometric sum: 1 - beta^n. Find the smallest n for which that is at least `share`.",
            "Count n up from 1 while 1 - beta**n < share.",
        ),
        solution=horizon,
        reference=lambda beta, share: momentum_horizon(beta, share),
        draw=lambda d: (d.float(0.05, 0.995), d.float(0.2, 0.995)),
        cases=[Case((0.9, 0.5), "half, at 0.9"), Case((0.9, 0.99), "99 %, at 0.9"), Case((0.99, 0.5), "half, at 0.99")],
        properties=[Property("one more nine", ten_times)],
        misconceptions=[
            Misconception(
                "largest index",
                lambda beta, share: momentum_horizon(beta, share) - 1,
                LARGEST_INDEX,
            ),
            Misconception(
                "largest index, at least one",
                lambda beta, share: max(1, momentum_horizon(beta, share) - 1),
                LARGEST_INDEX,
            ),
            Misconception(
                "rule of thumb",
                lambda beta, share: max(1, round(1 / (1 - beta))),
                "1 / (1 - beta) is a common rule of thumb, but it takes no notice of the share.",
            ),
            Misconception(
                "the other share",
                lambda beta, share: max(1, math.ceil(math.log(share) / math.log(beta))),
                "That solves beta^n = share: so many gradients leave `share` of the *old* memory. The last n make up 1 - beta^n.",
            ),
        ],
    ),
]
