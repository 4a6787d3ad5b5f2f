"""Chapter 04, Who is written how often: counting updates, who needs whom, and a start learned through the writes."""

from __future__ import annotations

import torch
from torch import Tensor

from nlbook.book.chapters.levels import documents
from nlbook.book.check.define import *


def updates(sequence: int, segment: int, chunk: int, batch: int) -> tuple[int, int, int, int]:
    """What one training step does, as four counts: updates of the outer weights; updates of a level of period `chunk`
    in one sequence; updates of the fast state, which each token writes, in one sequence; how many fast states there are."""
    # BEGIN SOLUTION
    return 1, sequence // chunk, sequence, batch
    # END SOLUTION


def a_training_step(d: Draw) -> tuple[int, int, int, int]:
    segment, chunk = d.pick(4, 6, 10), d.pick(3, 4, 7, 16)
    return segment * d.int(2, 4), segment, chunk, d.pick(2, 5, 9)


def is_faster(a: str, b: str, f: dict[str, float], needs: dict[str, set[str]]) -> bool:
    """Is a faster than b (Definition 2)? f: updates per unit; needs[x]: all whose state of the same time x needs."""
    # BEGIN SOLUTION
    return f[a] > f[b] or (f[a] == f[b] and a in needs[b])
    # END SOLUTION


NAMES = ("W", "m", "v", "O", "M", "A")


def a_pair(d: Draw) -> tuple[str, str, dict[str, float], dict[str, set[str]]]:
    """Two parts of a system without a circle; many equal frequencies, so that rule 2 matters."""
    names = NAMES[: d.int(2, 5)]
    f = {n: d.pick(1.0, 1.0, 1.0, 8.0, float("inf")) for n in names}
    needs: dict[str, set[str]] = {}
    for i, n in reversed([*enumerate(names)]):
        direct = {x for x in names[i + 1 :] if d.pick(True, False)}
        needs[n] = direct.union(*(needs[x] for x in direct))
    a = d.pick(*names)
    return a, d.pick(*[n for n in names if n != a]), f, needs


STEP: tuple[dict[str, float], dict[str, set[str]]] = ({"W": 1.0, "m": 1.0}, {"W": {"m"}, "m": set()})


def never_both_ways(answer, d: Draw) -> str | None:
    """Faster than is a strict order: not both of a > b and b > a, and nobody is faster than itself."""
    a, b, f, needs = a_pair(d)
    if answer(a, b, f, needs) and answer(b, a, f, needs):
        return f"it says that {a} is faster than {b}, and that {b} is faster than {a}."
    return f"it says that {a} is faster than itself." if answer(a, a, f, needs) else None


def twelve_layers() -> float:
    """Levels of a Transformer of 12 layers in training by SGD with momentum: weights, momentum, attention."""
    # BEGIN SOLUTION
    return len(["all weights", "all momenta", "attention"])
    # END SOLUTION


# ---- the build: a memory with a learned start -----------------------------------------------------------------------
def adapt(start: Tensor, K: Tensor, V: Tensor, eta: float) -> Tensor:
    """The memory (d_v, d_k) after delta writes of all pairs in turn, keys K (n, d_k), values V (n, d_v), from start."""
    # BEGIN SOLUTION
    M = start
    for k, v in zip(K, V):
        M = M + eta * torch.outer(v - M @ k, k)
    return M
    # END SOLUTION


def some_pairs(d: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    n, d_v, d_k = d.int(1, 4), d.int(1, 3), d.int(2, 4)
    return d.tensor(d_v, d_k), d.unit(n, d_k), d.tensor(n, d_v), d.float(0.2, 0.9)


def no_pairs_changes_nothing(answer, d: Draw) -> str | None:
    """Without pairs, the state is the start."""
    start = d.tensor(2, 3)
    out = answer(start, torch.zeros(0, 3, dtype=start.dtype), torch.zeros(0, 2, dtype=start.dtype), 0.5)
    return None if torch.equal(out, start) else "with no pairs to write, it does not return the start."


def adapt_from_zero(start, K, V, eta):
    return adapt(torch.zeros_like(start), K, V, eta) + 0 * start


def adapt_hebb(start, K, V, eta):
    return start + eta * V.T @ K


def adapt_at_once(start, K, V, eta):
    return start + eta * (V - K @ start.T).T @ K


def adapt_last_only(start, K, V, eta):
    return adapt(start, K[-1:], V[-1:], eta)


def broken_outer(start: Tensor, k: Tensor, v: Tensor, q: Tensor, target: Tensor, eta: float) -> Tensor:
    """Outer loss 1/2 |M q - target|^2 of the memory M after one delta write of (k, v); the start must get its gradient."""
    M = start.detach()
    M = M + eta * torch.outer(v - M @ k, k)
    return 0.5 * (M @ q - target).square().sum()


def outer_loss(start: Tensor, k: Tensor, v: Tensor, q: Tensor, target: Tensor, eta: float) -> Tensor:
    """Outer loss 1/2 |M q - target|^2 of the memory M after one delta write of (k, v); the start must get its gradient."""
    # BEGIN SOLUTION
    M = start + eta * torch.outer(v - start @ k, k)
    return 0.5 * (M @ q - target).square().sum()
    # END SOLUTION


def straight_through(start, k, v, q, target, eta):
    M = start + eta * torch.outer(v - start.detach() @ k, k)
    return 0.5 * (M @ q - target).square().sum()


def a_write_and_a_question(d: Draw):
    d_v, d_k = d.int(1, 3), d.int(2, 4)
    return d.tensor(d_v, d_k), d.unit(d_k), d.tensor(d_v), d.unit(d_k), d.tensor(d_v), d.float(0.2, 0.9)


def asked(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """1/2 |M q - t|^2, summed over the questions, of the memory after all writes."""
    return 0.5 * (Q @ adapt(start, K, V, eta).T - T).square().sum()


def outer_gradient(start: Tensor, K: Tensor, V: Tensor, Q: Tensor, T: Tensor, eta: float) -> Tensor:
    """The gradient of the sum of 1/2 |M q - t|^2 over the questions with respect to the start, M = adapt(start, K, V, eta)."""
    # BEGIN SOLUTION
    M = adapt(start, K, V, eta)
    G = (Q @ M.T - T).T @ Q  # with respect to the adapted memory
    for k in K.flip(0):  # back through the writes, the last one first
        G = G - eta * torch.outer(G @ k, k)
    return G
    # END SOLUTION


def a_document_and_questions(d: Draw):
    n, m, d_v, d_k = d.int(1, 3), d.int(1, 3), d.int(1, 3), d.int(2, 4)
    told = d.tensor(d_v, d_k), d.unit(n, d_k), d.tensor(n, d_v)
    return *told, d.unit(m, d_k), d.tensor(m, d_v), d.float(0.3, 0.8)


def backwards_forgotten(start, K, V, Q, T, eta):
    return (Q @ adapt(start, K, V, eta).T - T).T @ Q


def before_any_write(start, K, V, Q, T, eta):
    return (Q @ start.T - T).T @ Q


def _back(G, keys, rate):
    for k in keys:
        G = G - rate * torch.outer(G @ k, k)
    return G


def first_write_first(start, K, V, Q, T, eta):
    return _back(backwards_forgotten(start, K, V, Q, T, eta), K, eta)


def values_too(start, K, V, Q, T, eta):
    return adapt(backwards_forgotten(start, K, V, Q, T, eta), K.flip(0), V.flip(0), eta)


def learn_start(K: Tensor, V: Tensor, told: int, eta: float, lr: float) -> Tensor:
    """The start after one outer step a document, from zero: K (documents, pairs, d_k), V (documents, pairs, d_v).

    In each document the first `told` pairs are written, and the others are asked.
    """
    # BEGIN SOLUTION
    start = torch.zeros(V.shape[-1], K.shape[-1], dtype=K.dtype)
    for k, v in zip(K, V):
        start = start - lr * outer_gradient(start, k[:told], v[:told], k[told:], v[told:], eta)
    return start
    # END SOLUTION


def some_documents(d: Draw) -> tuple[Tensor, Tensor, int, float, float]:
    n, pairs, d_v, d_k = d.int(2, 4), d.int(3, 5), d.int(1, 3), d.int(2, 4)
    return d.unit(n, pairs, d_k), d.tensor(n, pairs, d_v), d.int(1, 2), d.float(0.3, 0.8), d.float(0.1, 0.4)


def state_carried(K, V, told, eta, lr):
    start = torch.zeros(V.shape[-1], K.shape[-1], dtype=K.dtype)
    for k, v in zip(K, V):
        start = adapt(start, k[:told], v[:told], eta)
    return start


def mean_state(K, V, told, eta, lr):
    return sum(state_carried(k[None], v[None], told, eta, lr) for k, v in zip(K, V)) / len(K)


def towards_the_state(K, V, told, eta, lr):
    start = torch.zeros(V.shape[-1], K.shape[-1], dtype=K.dtype)
    for k, v in zip(K, V):
        start = start + lr * (adapt(start, k[:told], v[:told], eta) - start)
    return start


def step_from_the_state(K, V, told, eta, lr):
    start = torch.zeros(V.shape[-1], K.shape[-1], dtype=K.dtype)
    for k, v in zip(K, V):
        G = outer_gradient(start, k[:told], v[:told], k[told:], v[told:], eta)
        start = adapt(start, k[:told], v[:told], eta) - lr * G
    return start


def learn_by(gradient):
    def learn(K, V, told, eta, lr):
        start = torch.zeros(V.shape[-1], K.shape[-1], dtype=K.dtype)
        for k, v in zip(K, V):
            start = start - lr * gradient(start, k[:told], v[:told], k[told:], v[told:], eta)
        return start

    return learn


def gradient_at_zero(start, K, V, Q, T, eta):
    return outer_gradient(torch.zeros_like(start), K, V, Q, T, eta)


def asks_what_was_told(start, K, V, Q, T, eta):
    return outer_gradient(start, K, V, K, V, eta)


def asks_all(start, K, V, Q, T, eta):
    return outer_gradient(start, K, V, torch.cat([K, Q]), torch.cat([V, T]), eta)


def beats_zero(answer, d: Draw) -> str | None:
    """On new documents of the reader's language, the learned start answers better than zero."""
    docs = documents.documents(60, seed=d.int(0, 99))
    old, new = docs.part(0, 40), docs.part(40, 60)
    start = answer(old.k, old.v, documents.TOLD, documents.ETA, documents.STEP)
    mine, zero = (float(documents.read(s, new)[1].mean()) for s in (start, torch.zeros_like(start)))
    return (
        None if mine < zero else f"after 40 documents its error on new ones is {mine:.2f}, from zero it is {zero:.2f}."
    )


def worth() -> float:
    """Pairs until a zero start has met 30 % of 500 keys, all equally likely: 1 - (1 - 1/500)^n = 0.3."""
    # BEGIN SOLUTION
    import math

    return math.log(1 - 0.3) / math.log(1 - 1 / 500)
    # END SOLUTION


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.float64)


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


ITEMS = [
    Implement(
        id="04-count",
        title="One training step, counted",
        objective="04.1",
        minutes=6,
        difficulty=1,
        prompt="Count the updates in one training step of the outer weights, of a level and of a fast state, and say how many fast states there are.",
        hints=(
            "A batch is read side by side: each sequence has a memory of its own, and the optimizer moves once for all of them.",
            "A segment is only as much as is read in one call. The state is carried over to the next one, so nobody is updated because a segment ends.",
            "Outer weights 1, level `sequence // chunk`, fast state `sequence`, and `batch` of them.",
        ),
        solution=updates,
        draw=a_training_step,
        cases=[
            Case((12, 6, 4, 3), "3 sequences of 12 tokens, read in 2 segments of 6"),
            Case((12, 6, 16, 2), "a chunk longer than the sequence"),
        ],
        misconceptions=[
            Misconception(
                "a step for each sequence",
                lambda sequence, segment, chunk, batch: (batch, sequence // chunk, sequence, batch),
                "The outer weights move once per *batch*: the gradients of all its sequences are added up first.",
            ),
            Misconception(
                "a step for each segment",
                lambda sequence, segment, chunk, batch: (sequence // segment, sequence // chunk, sequence, batch),
                "A segment is what is read in one call, with the state carried on. The optimizer waits for the whole batch.",
            ),
            Misconception(
                "chunks of segments",
                lambda sequence, segment, chunk, batch: (1, sequence // segment * (segment // chunk), sequence, batch),
                "Your level begins a new chunk with each segment. The clock is carried on, as the state is: count chunks in the sequence.",
            ),
            Misconception(
                "batch counted in",
                lambda sequence, segment, chunk, batch: (1, batch * (sequence // chunk), batch * sequence, batch),
                "You added up the sequences of the batch. They are read side by side, each by a memory of its own: count the updates of *one*.",
            ),
            Misconception(
                "batch counted in for the state",
                lambda sequence, segment, chunk, batch: (1, sequence // chunk, batch * sequence, batch),
                "These are the updates of all fast states together. Each sequence has one of its own: count the updates of *one*.",
            ),
            Misconception(
                "one memory per batch",
                lambda sequence, segment, chunk, batch: (1, sequence // chunk, sequence, 1),
                "A memory belongs to one sequence, never to a batch: the facts of one text must not stand in another.",
            ),
            Misconception(
                "parts of a write",
                lambda sequence, segment, chunk, batch: (1, sequence / chunk, sequence, batch),
                "A level is written a whole number of times: the rest of a chunk waits, and is not written in part.",
            ),
            Misconception(
                "unfinished chunk written",
                lambda sequence, segment, chunk, batch: (1, -(-sequence // chunk), sequence, batch),
                "An unfinished chunk is not written: a sequence shorter than the chunk teaches this level nothing.",
            ),
        ],
    ),
    Implement(
        id="04-faster",
        title="Faster than",
        objective="04.2",
        minutes=5,
        difficulty=1,
        prompt="Return whether a is faster than b: higher frequency, or the same frequency and b needs a of the same time.",
        hints=(
            "Rule 1 compares two numbers. Rule 2 applies only when they are equal.",
            "In rule 2 the part that is needed is the faster one, because it must be ready first.",
            "`f[a] > f[b] or (f[a] == f[b] and a in needs[b])`",
        ),
        solution=is_faster,
        draw=a_pair,
        cases=[
            Case(("m", "W", *STEP), "momentum against weights"),
            Case(("W", "m", *STEP), "weights against momentum"),
            Case(("M", "W", {"W": 1.0, "M": 512.0}, {"W": set(), "M": set()}), "512 updates against one"),
        ],
        properties=[Property("never both ways", never_both_ways)],
        misconceptions=[
            Misconception(
                "needs the wrong way round",
                lambda a, b, f, needs: f[a] > f[b] or (f[a] == f[b] and b in needs[a]),
                "Rule 2 is turned round: the part that is *needed* is the faster one, for it must be ready first. Momentum is faster than the weights.",
            ),
            Misconception(
                "frequency only",
                lambda a, b, f, needs: f[a] > f[b],
                "Rule 2 is missing: momentum moves as often as the weights, and it is a level of its own, because they need it at the same time.",
            ),
            Misconception(
                "at least as fast",
                lambda a, b, f, needs: f[a] >= f[b],
                "Equal frequencies do not make a faster than b: then it depends on who needs whom.",
            ),
            Misconception(
                "needs beat frequency",
                lambda a, b, f, needs: f[a] > f[b] or a in needs[b],
                "Rule 2 applies only when the two frequencies are equal; here it overrules rule 1.",
            ),
            Misconception(
                "slower than",
                lambda a, b, f, needs: f[a] < f[b] or (f[a] == f[b] and b in needs[a]),
                "This is *slower than*: the paper calls a slow level higher, but the faster part is the one with more updates.",
            ),
        ],
    ),
    Estimate(
        id="04-layers",
        title="Twelve layers",
        objective="04.3",
        minutes=2,
        difficulty=1,
        unit="levels",
        within=0.01,
        prompt="A Transformer of 12 layers, each with attention and an MLP, is trained by SGD with momentum. How many levels has it?",
        hints=(
            "Ask each part how often it is updated, not where it stands.",
            "All weights of all layers move at the same optimizer step, and no layer's weights need another layer's of that step.",
            "Weights, momenta, attention.",
        ),
        solution=twelve_layers,
        wrong={
            12: "Levels are not layers. All twelve layers move at the same step: their weights share one level.",
            24: "Attention and MLP of all layers are counted one by one; what moves equally often shares a level.",
            36: "Levels are not layers: weights, momenta and attention of all twelve share three levels.",
            13: "Levels are not layers. All twelve layers move at the same step: their weights share one level.",
            2: "Momentum is a level too: the weights of a step need the momentum of the same step.",
            1: "The weights are one level. Who is faster than they are?",
        },
    ),
    Implement(
        id="04-adapt",
        title="The inner loop",
        objective="04.5",
        minutes=6,
        difficulty=1,
        prompt="Write all pairs, one after the other, by the delta rule, beginning at `start`. The gradient must pass through to `start`.",
        hints=(
            "It is chapter 01's delta write in a loop; what is different is where it begins.",
            "Begin with `M = start`, no detach, and make a new M at each write.",
            "`M = M + eta * torch.outer(v - M @ k, k)` for each k, v of `zip(K, V)`.",
        ),
        solution=adapt,
        draw=some_pairs,
        differentiable=True,
        cases=[
            Case((ones(1, 2), eye(2)[:1], 3 * ones(1, 1), 0.5), "one pair, half a step"),
            Case((ones(1, 2), eye(2), 3 * ones(2, 1), 0.5), "two pairs, half a step"),
        ],
        properties=[Property("no pairs, no change", no_pairs_changes_nothing)],
        misconceptions=[
            Misconception(
                "from zero",
                adapt_from_zero,
                "It begins at zero: the start is not used. Where you start is what this part is about.",
            ),
            Misconception(
                "hebb",
                adapt_hebb,
                "This is the Hebbian sum: it never looks at what the memory already returns, so it does not erase.",
            ),
            Misconception(
                "all at once",
                adapt_at_once,
                "All errors are taken at the start. Each write must read the memory that the one before it left.",
            ),
            Misconception(
                "last pair only", adapt_last_only, "Only the last pair is written: go on from M, not from the start."
            ),
        ],
    ),
    FixTheBug(
        id="04-cut",
        title="It trains, and nothing is learned",
        objective="04.5",
        minutes=4,
        difficulty=1,
        prompt="The value of this outer loss is right, and yet the start never moves in training. Mend it.",
        hints=(
            "The value is right, so look for what autograd sees, not for the arithmetic.",
            "A detached tensor has the same numbers and no history: nothing behind it gets a gradient.",
            "Begin the inner step at `start` itself, in both places where it is used.",
        ),
        solution=outer_loss,
        broken=broken_outer,
        draw=a_write_and_a_question,
        differentiable=True,
        misconceptions=[
            Misconception(
                "two rates",
                lambda start, k, v, q, target, eta: outer_loss(start, k, v, q, target, eta * eta),
                "The inner step has the wrong size: eta comes once.",
            ),
            Misconception(
                "asks before it writes",
                lambda start, k, v, q, target, eta: 0.5 * (start @ q - target).square().sum(),
                "This asks the start itself, before the write: eq. 28 as printed.",
            ),
            Misconception(
                "first order",
                straight_through,
                "The gradient reaches the start, but not through the write: what is written depends on the start too. This is the "
                "first-order short cut.",
            ),
        ],
    ),
    Derive(
        id="04-outer",
        title="The gradient through the writes",
        objective="04.5",
        minutes=10,
        difficulty=3,
        points=3,
        prompt="Return the gradient of the outer loss with respect to the start: the error at the adapted memory, taken back through each write.",
        hints=(
            "Two parts. What is the gradient with respect to the adapted memory M? And how does M move when the start moves?",
            "A write turns a change D of the memory into D (I - eta k kᵀ). A gradient passes through the same factor, the last write first.",
            "`G = (Q @ M.T - T).T @ Q`, then for each k of `K.flip(0)`: `G = G - eta * torch.outer(G @ k, k)`.",
        ),
        solution=outer_gradient,
        objective_fn=asked,
        wrt="start",
        draw=a_document_and_questions,
        cases=[
            Case(
                (ones(1, 2), eye(2)[:1], 3 * ones(1, 1), eye(2)[:1], ones(1, 1), 0.5), "one write, the same key asked"
            ),
            Case(
                (ones(1, 2), torch.stack([eye(2)[0], ones(2)]), ones(2, 1), eye(2)[:1], ones(1, 1), 0.5),
                "two writes whose keys overlap",
            ),
        ],
        misconceptions=[
            Misconception(
                "first order",
                backwards_forgotten,
                "This is the gradient at the adapted memory, as if no write stood in between: the first-order short cut. Take it back through the writes.",
            ),
            Misconception(
                "as printed",
                before_any_write,
                "This asks the start itself, before any write: eq. 28 as printed. Ask the memory that the writes left.",
            ),
            Misconception(
                "the error of the start",
                lambda start, K, V, Q, T, eta: _back(before_any_write(start, K, V, Q, T, eta), K.flip(0), eta),
                "The way back is right, but it begins with the error of the start. It begins with that of the memory that the writes left.",
            ),
            Misconception(
                "first write first",
                first_write_first,
                "The writes stand in the wrong order: the gradient comes from the end, so it meets the last write first.",
            ),
            Misconception(
                "values in the gradient",
                values_too,
                "You write the values into the gradient. They are constants: when the memory changes by D, only the erasing acts on D.",
            ),
            Misconception(
                "eta left out",
                lambda start, K, V, Q, T, eta: _back(backwards_forgotten(start, K, V, Q, T, eta), K.flip(0), 1.0),
                "A write leaves I - eta k kᵀ of a change; you take away all of it along the key: eta is missing on the way back.",
            ),
            Misconception(
                "mean",
                lambda start, K, V, Q, T, eta: outer_gradient(start, K, V, Q, T, eta) / len(Q),
                "This is the mean over the questions; the sum is asked for.",
            ),
        ],
    ),
    Implement(
        id="04-learn",
        title="A memory with a learned start",
        objective="04.5",
        minutes=10,
        difficulty=2,
        points=2,
        prompt="Put the parts together: from zero, one step of the start a document, by your outer gradient. What you return is the start.",
        hints=(
            "In each document there are two things that move: a state, which is thrown away, and the start, which stays.",
            "`outer_gradient` does the inner loop itself. What is left: cut the document in two, take the gradient, step.",
            "`start = start - lr * outer_gradient(start, k[:told], v[:told], k[told:], v[told:], eta)` for each k, v of `zip(K, V)`.",
        ),
        solution=learn_start,
        draw=some_documents,
        cases=[Case((eye(2)[None], 2 * ones(1, 2, 1), 1, 0.5, 0.5), "one document: one pair told, one asked")],
        properties=[Property("better than a zero start on new documents", beats_zero)],
        misconceptions=[
            Misconception(
                "the state carried on",
                state_carried,
                "The state of one document becomes the start of the next. State and start are two things: the state dies with its "
                "document, the start moves by the outer gradient.",
            ),
            Misconception(
                "the mean of the states",
                mean_state,
                "The start is the mean of the states. It knows what was told, and nobody was asked: it moves by the gradient of the questions.",
            ),
            Misconception(
                "towards the state",
                towards_the_state,
                "The start moves towards the state. It moves against the gradient of the questions, and the state is thrown away.",
            ),
            Misconception(
                "a step from the state",
                step_from_the_state,
                "The outer step is taken from the adapted state. State and start are two things: move the *start*, and throw the state away.",
            ),
            Misconception(
                "climbs",
                lambda K, V, told, eta, lr: learn_start(K, V, told, eta, -lr),
                "The start climbs the loss: step against the gradient.",
            ),
            Misconception(
                "first order",
                learn_by(backwards_forgotten),
                "Your gradient leaves out the writes: this is the first-order short cut.",
            ),
            Misconception(
                "gradient at zero",
                learn_by(gradient_at_zero),
                "Every document is read from zero. The next one must begin at the start that the last one left.",
            ),
            Misconception(
                "asks what was told",
                learn_by(asks_what_was_told),
                "The questions are the pairs that were just written. Ask those that were not: the rest of the document.",
            ),
            Misconception(
                "asks all pairs",
                learn_by(asks_all),
                "Every pair of the document is asked. Those that were just written are no questions: ask the rest only.",
            ),
        ],
    ),
    Estimate(
        id="04-worth",
        title="What a start is worth",
        objective="04.6",
        minutes=4,
        difficulty=2,
        unit="pairs",
        within=0.06,
        prompt="A reader meets 500 keys, all equally often, of which 30 % live for ever and stand in the start. After how many pairs does a zero start know as many keys?",
        hints=(
            "The share of keys that n pairs have not touched is (1 - 1/500)^n.",
            "A zero start knows as many when 1 - (1 - 1/500)^n = 0.3.",
            "ln(0.7) / ln(1 - 1/500), close to 0.357 times 500.",
        ),
        solution=worth,
        wrong={
            150: "That would be so if no key came twice. Pairs repeat, so it takes more.",
            601.4: "That is until 70 % are known: 0.3 is the share that the start knows.",
        },
    ),
]
