"""Chapter 02, Training is writing: surprise, the dual form, local errors, delta gradient descent."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.check.define import *


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


def frozen_training(W0: Tensor, X: Tensor, Y: Tensor, lr: float) -> Tensor:
    """Should train a linear layer on the pairs X (T, d_in), Y (T, d_out), one SGD step a pair, on half the squared error."""
    W = W0.clone()
    for x, y in zip(X, Y):
        surprise = W0 @ x - y
        W = W - lr * torch.outer(surprise, x)
    return W


def mended_training(W0: Tensor, X: Tensor, Y: Tensor, lr: float) -> Tensor:
    """Should train a linear layer on the pairs X (T, d_in), Y (T, d_out), one SGD step a pair, on half the squared error."""
    # BEGIN SOLUTION
    W = W0.clone()
    for x, y in zip(X, Y):
        surprise = W @ x - y
        W = W - lr * torch.outer(surprise, x)
    return W
    # END SOLUTION


def draw_training(d: Draw):
    d_in, d_out, T = d.int(1, 3), d.int(1, 3), d.int(2, 5)
    return d.tensor(d_out, d_in), d.tensor(T, d_in), d.tensor(T, d_out), d.float(0.05, 0.4)


def local_error(W2: Tensor, delta2: Tensor, z1: Tensor) -> Tensor:
    """The error signal at the pre-activations z1 (h,) of a tanh layer, from W2 (d_out, h) and the error delta2 (d_out,) above."""
    # BEGIN SOLUTION
    slope = 1 - torch.tanh(z1) ** 2
    return slope * (W2.T @ delta2)
    # END SOLUTION


def dgd_share() -> float:
    """The w x at which erasing, a (w x) x, and writing, a (target - w x) x, cancel, as a share of the target."""
    # BEGIN SOLUTION
    return 1 / 2
    # END SOLUTION


def answer_after_three_steps() -> float:
    """The answer of the weight after three training steps."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("weight:step=3").facts["answer"]
    # END SOLUTION


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
        minutes=7,
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
    FixTheBug(
        id="02-frozen",
        title="The training loop that learns nothing new",
        objective="02.3",
        minutes=5,
        difficulty=2,
        prompt="This loop trains for one step and then goes astray. One name is wrong; say to yourself what it does to the values.",
        hints=(
            "At which weight is the error of the third pair measured?",
            "Training measures each error at the weight of its moment: a memory that generates its own values.",
            "The surprise must use W, not W0.",
        ),
        solution=mended_training,
        broken=frozen_training,
        draw=draw_training,
        misconceptions=[
            Misconception(
                "still frozen",
                frozen_training,
                "Every error is still measured at the untrained weight, so the same mistake is paid for again and again. (It is one step on the whole batch.)",
            ),
            Misconception(
                "updated too early",
                lambda W0, X, Y, lr: _late(W0, X, Y, lr),
                "Each error is taken at the weight from *before the previous* write: one step late.",
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
    Estimate(
        id="02-half",
        title="Where delta gradient descent comes to rest",
        objective="02.4",
        minutes=4,
        difficulty=2,
        prompt="One sample, half the squared error. At which share of the target does what DGD erases cancel what it writes?",
        hints=(
            "At rest the change is zero: what is erased equals what is written.",
            "Erased: w x. Written: target - w x. Set them equal.",
            "w x = target - w x.",
        ),
        solution=dgd_share,
        within=0.01,
        unit="of the target",
        wrong={
            1: "That is where plain gradient descent rests. DGD also erases the answer itself, at every step.",
            0: "It would be, with nothing to write.",
            0.25: "Half of the half: set erased equal to written once.",
        },
    ),
    ReadPicture(
        id="02-picture",
        title="What three steps have learned",
        objective="02.1",
        minutes=3,
        difficulty=1,
        prompt="Set the training step to 3 (landmark *three steps*). What does the weight answer at the query then?",
        hints=(
            "Use the landmark button below the sliders.",
            "Look at the running sum in the lower panel, at its last dot.",
            "The number stands beside the word *real*.",
        ),
        view="weight:step=3",
        solution=answer_after_three_steps,
        within=0.1,
        wrong={
            0.77: "That is the end of the frozen curve. Read the one marked *real*.",
            0.32: "That is the third bar alone; the answer is the sum of all bars so far.",
            1.55: "That is the truth, or the answer after all 24 steps.",
        },
    ),
]


def _late(W0: Tensor, X: Tensor, Y: Tensor, lr: float) -> Tensor:
    """Every error at the weight from before the previous write."""
    W, before = W0.clone(), W0.clone()
    for x, y in zip(X, Y):
        surprise = before @ x - y
        before = W
        W = W - lr * torch.outer(surprise, x)
    return W
