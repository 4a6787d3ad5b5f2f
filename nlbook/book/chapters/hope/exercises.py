"""Chapter 07, Hope, whole: the block of eq. 94-97, nats above the optimum, levels and state, how long a fact lasts, a fair ablation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.book.check.define import *
from nlbook.numerics import rms


# ---------------------------------------------------------------------- the block
def hope_block(x: Tensor, o: Tensor, W_g: Tensor, W_o: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """A Hope block before any of its MLPs has moved, eq. 94-97 with the norms and residuals that the paper leaves out: y (T, d).

    x (T, d) comes in; o (T, d) is what the memories answered to rms(x). W_g, W_o (d, d): gate and output projection.
    up (L, h, d), down (L, d, h): the MLPs, the fastest first; each is h + down silu(up rms(h)).
    """
    # BEGIN SOLUTION
    x = x + (rms(o) * F.silu(rms(x) @ W_g.T)) @ W_o.T
    for a, b in zip(up, down):
        x = x + F.silu(rms(x) @ a.T) @ b.T
    return x
    # END SOLUTION


def block_with(
    x,
    o,
    W_g,
    W_o,
    up,
    down,
    *,
    order=1,
    gate=True,
    res=True,
    norm_o=True,
    gate_norm=True,
    norm=True,
    inner=True,
    chain=True,
):
    n = rms(x) if gate_norm else x
    read = (rms(o) if norm_o else o) * (F.silu(n @ W_g.T) if gate else 1)
    x = (x if res else 0) + read @ W_o.T
    first = x
    for a, b in list(zip(up, down))[::order]:
        src = x if chain else first
        x = (x if inner else 0) + F.silu((rms(src) if norm else src) @ a.T) @ b.T
    return x


def draw_block(d: Draw) -> tuple:
    T, n, h, levels = d.int(1, 5), d.int(2, 4), d.int(1, 4), d.int(2, 3)
    return (
        d.tensor(T, n),
        d.tensor(T, n),
        d.tensor(n, n),
        d.tensor(n, n),
        d.tensor(levels, h, n),
        d.tensor(levels, n, h),
    )


def silent_parts_pass_x_on(answer, d: Draw) -> str | None:
    x, o, W_g, W_o, up, down = draw_block(d)
    y = answer(x, o, W_g, 0 * W_o, up, 0 * down)
    return (
        None
        if torch.allclose(y, x)
        else "with W_o = 0 and down = 0 the block must hand x on unchanged (two residuals)."
    )


# ---------------------------------------------------------------------- the measure
def broken_excess(nats: Tensor, optimum: Tensor, graded: Tensor) -> float:
    """Nats above the optimum per answer. nats, optimum (batch, length): what model and ideal reader pay for each token;
    graded (batch, length): true where the token is an answer. Other tokens (the keys) do not count."""
    return float((nats - optimum).mean())


def excess(nats: Tensor, optimum: Tensor, graded: Tensor) -> float:
    """Nats above the optimum per answer. nats, optimum (batch, length): what model and ideal reader pay for each token;
    graded (batch, length): true where the token is an answer. Other tokens (the keys) do not count."""
    # BEGIN SOLUTION
    return float((nats - optimum)[graded].mean())
    # END SOLUTION


def draw_excess(d: Draw) -> tuple:
    batch, pairs = d.int(1, 3), d.int(2, 5)
    graded = torch.tensor([False, True]).repeat(batch, pairs)
    graded[0, -1] = False
    graded[-1, 1] = True
    return d.tensor(batch, 2 * pairs).abs() + 1, d.tensor(batch, 2 * pairs).abs(), graded


# ---------------------------------------------------------------------- how long a fact lasts
def half_life(distances: list[int], recall: list[float], chance: float) -> int | None:
    """The first distance at which recall is half way from its first value down to chance, or lower; None if it never is.

    recall[i]: how well a fact is known after distances[i] pairs about other things.
    """
    # BEGIN SOLUTION
    edge = chance + (recall[0] - chance) / 2
    for d, r in zip(distances, recall):
        if r <= edge:
            return d
    return None
    # END SOLUTION


def life_with(distances, recall, chance, *, edge, last=False):
    below = [d for d, r in zip(distances, recall) if r <= edge]
    return (below[-1] if last else below[0]) if below else None


def draw_life(d: Draw) -> tuple:
    n, chance = d.int(3, 7), d.float(0.1, 0.3)
    start = d.float(0.7, 0.95)
    low = d.pick(chance, 0.8 * start, chance + 0.1)
    recall = [start] + [low + (start - low) * (1 - i / n) ** 2 + d.float(-0.03, 0.03) for i in range(1, n)]
    if n > 4:
        recall[-1] = start - 0.05  # it may come back: the first time counts
    return [2**i for i in range(n)], recall, chance


# ---------------------------------------------------------------------- a fair verdict
def verdict(base: list[float], changed: list[float]) -> str:
    """What removing a part says. base, changed: nats above the optimum with and without it, the same seed at the same place.

    "it helps" if every seed is worse without it, "it hurts" if every seed is better without it, else "cannot tell".
    """
    # BEGIN SOLUTION
    gaps = [c - b for b, c in zip(base, changed)]
    if all(g > 0 for g in gaps):
        return "it helps"
    return "it hurts" if all(g < 0 for g in gaps) else "cannot tell"
    # END SOLUTION


def by_means(base, changed):
    return "it helps" if sum(changed) > sum(base) else "it hurts"


def by_first(base, changed):
    return "it helps" if changed[0] > base[0] else "it hurts"


def unpaired(base, changed):
    return "it helps" if min(changed) > max(base) else "it hurts" if max(changed) < min(base) else "cannot tell"


def draw_verdict(d: Draw) -> tuple:
    n = d.int(2, 4)
    base = [d.float(0.02, 0.4) for _ in range(n)]
    kind = d.pick("up", "down", "mixed")
    step = {"up": 1, "down": -1, "mixed": 1}[kind]
    changed = [b + step * d.float(0.005, 0.015) for b in base]
    if kind == "mixed":
        changed[d.int(0, n - 1)] -= d.float(0.1, 0.3)
    return base, changed


# ---------------------------------------------------------------------- numbers
def cache_length() -> float:
    """Tokens after which the Transformer's cache holds more numbers than everything that this chapter's Hope keeps."""
    # BEGIN SOLUTION
    from nlbook.book.chapters.hope import capstone
    from nlbook.hope import Hope

    with torch.no_grad():
        _, state = Hope(capstone.config("Hope"))(torch.zeros(1, 10, dtype=torch.long))
    return state.numel() / (2 * capstone.HOPE.dim)
    # END SOLUTION


def held_back() -> float:
    """How well the document facts are known after 128 tokens when M_mem is held at its start."""
    # BEGIN SOLUTION
    from nlbook.book import viz

    return viz.load("reading:hold=M_mem").facts["known_document"]
    # END SOLUTION


EMBED, CMS_SLOW, BOXES, CMS_FAST = (
    "the embedding and W_q",
    "the MLP of period 32",
    "M_k and M_v (chunk 16)",
    "the MLP of period 8",
)
CONV = "the convolution's window of the last 3 tokens"

ITEMS: list = [
    Implement(
        id="07-block",
        title="The block",
        objective="07.1",
        minutes=8,
        difficulty=2,
        points=2,
        prompt="Write one Hope block from its parts. First the read-out: the gate is silu of W_g times rms(x); it multiplies rms(o); W_o brings the product back, and it is added to x. "
        "Then the chain of MLPs. `rms` is there already; rows are tokens.",
        hints=(
            "Two residuals: one around the memories' read-out, one around each MLP.",
            "Rows are tokens, so W x is `x @ W.T`: the gate is silu(rms(x) @ W_g.T).",
            "`x = x + (rms(o) * F.silu(rms(x) @ W_g.T)) @ W_o.T`, then for each a, b: `x = x + F.silu(rms(x) @ a.T) @ b.T`.",
        ),
        solution=hope_block,
        draw=draw_block,
        differentiable=True,
        properties=[Property("silent parts pass x on", silent_parts_pass_x_on)],
        misconceptions=[
            Misconception(
                "slow first",
                lambda *a: block_with(*a, order=-1),
                "The chain runs from the slowest MLP to the fastest. The paper's figure puts the fastest next to the memories.",
            ),
            Misconception(
                "side by side",
                lambda *a: block_with(*a, chain=False),
                "Every MLP reads the same input here. In a chain each reads what the one before it made.",
            ),
            Misconception(
                "no gate",
                lambda *a: block_with(*a, gate=False),
                "The read-out is not gated: multiply rms(o) by silu(rms(x) @ W_g.T).",
            ),
            Misconception(
                "no residual around the memories",
                lambda *a: block_with(*a, res=False),
                "x itself is lost: x + (read-out).",
            ),
            Misconception(
                "sigmoid",
                lambda x, o, W_g, W_o, up, down: block_with(
                    x + (rms(o) * torch.sigmoid(rms(x) @ W_g.T)) @ W_o.T, o, W_g, 0 * W_o, up, down
                ),
                "The gate is silu(z) = z sigmoid(z), not sigmoid(z).",
            ),
            Misconception(
                "o not normalised",
                lambda *a: block_with(*a, norm_o=False),
                "The memories' answers go through rms before the gate.",
            ),
            Misconception("gate of raw x", lambda *a: block_with(*a, gate_norm=False), "The gate reads rms(x), not x."),
            Misconception(
                "MLPs read raw", lambda *a: block_with(*a, norm=False), "Each MLP reads rms of what it gets."
            ),
            Misconception(
                "MLPs without residual",
                lambda *a: block_with(*a, inner=False),
                "Each MLP adds to what it gets: h + down silu(up rms(h)).",
            ),
        ],
    ),
    FixTheBug(
        id="07-excess",
        title="Half of the tokens are no answers",
        objective="07.2",
        minutes=4,
        difficulty=1,
        prompt="Keys are random: nobody can predict them, and nobody is asked to. This measure counts them.",
        hints=(
            "How many of the tokens of `A3 d5 x2` are answers?",
            "Take the mean over the graded tokens only.",
            "`(nats - optimum)[graded].mean()`.",
        ),
        solution=excess,
        broken=broken_excess,
        draw=draw_excess,
        misconceptions=[
            Misconception("still all tokens", broken_excess, "The keys are still in the mean."),
            Misconception(
                "divided by all",
                lambda nats, optimum, graded: float(((nats - optimum) * graded).mean()),
                "The sum is right now, but it is divided by the number of all tokens: about half of what it should be.",
            ),
            Misconception(
                "not above the optimum",
                lambda nats, optimum, graded: float(nats[graded].mean()),
                "That is what the model pays. Subtract what the best possible reader pays: the rest is what could still be learned.",
            ),
            Misconception(
                "the other way round",
                lambda nats, optimum, graded: float((optimum - nats)[graded].mean()),
                "Model minus ideal reader, so that 0 is perfect and more is worse.",
            ),
        ],
    ),
    Order(
        id="07-levels",
        title="From fast to slow",
        objective="07.1",
        minutes=4,
        difficulty=1,
        prompt="Put the parts of this chapter's Hope in order, the most often rewritten first.",
        hints=(
            "Count tokens between two rewritings of what the next token reads.",
            "The convolution's window moves at every token; the weights outside move once per training step.",
            "1, 8, 16, 32 tokens, and a training step of 16 documents.",
        ),
        steps=(CMS_SLOW, EMBED, BOXES, CONV, CMS_FAST),
        before=(
            (CONV, CMS_FAST, "the window moves at every token"),
            (CMS_FAST, BOXES, "8 tokens are fewer than 16"),
            (BOXES, CMS_SLOW, "16 tokens are fewer than 32"),
            (CMS_SLOW, EMBED, "the outer weights move once per training step, never while reading"),
        ),
    ),
    Estimate(
        id="07-state",
        title="What must be kept",
        objective="07.1",
        minutes=5,
        difficulty=2,
        unit="tokens",
        within=0.15,
        prompt="One block, width 32. Hope keeps the memories (now, and as they stood at the last boundary), the MLPs and their waiting gradients. The cell above "
        "prints how many numbers. After how many tokens does the cache of the Transformer (a key and a value per token) hold more?",
        hints=(
            "A token adds a key and a value of 32 numbers each.",
            "Divide Hope's numbers by 64.",
            "About 24,900 / 64.",
        ),
        solution=cache_length,
        units={"hundred": 100},
        wrong={
            24992: "That is what Hope keeps. How many numbers does one token add to the cache?",
            778: "A token adds a key *and* a value: 64 numbers, not 32.",
            64: "That is what one token adds, in numbers.",
        },
    ),
    ReadPicture(
        id="07-picture",
        title="Without its memory",
        objective="07.3",
        minutes=3,
        difficulty=1,
        within=0.15,
        view="reading:hold=M_mem",
        wrong={0.79: "M memory still moves in this picture. Set the first control to M_mem."},
        prompt="Hold M memory at its start, and ask after 128 tokens: with what probability does the model give the true value of a document fact, on average over d and e?",
        hints=(
            "Set the first control to M_mem.",
            "The numbers stand at the right of the lowest panel.",
            "Take the mean of the two, d and e.",
        ),
        solution=held_back,
    ),
    Implement(
        id="07-life",
        title="How long does a fact last?",
        objective="07.3",
        minutes=5,
        difficulty=1,
        prompt="Half-life of a fact, counted in pairs about other things.",
        hints=(
            "Where is half way between recall[0] and chance?",
            "The *first* distance counts, even if recall rises again later.",
            "`edge = chance + (recall[0] - chance) / 2`; then walk.",
        ),
        solution=half_life,
        draw=draw_life,
        cases=[
            Case(([0, 1, 2], [0.9, 0.8, 0.7], 0.1), "a fact that lasts"),
            Case(([0, 1, 2], [0.875, 0.5, 0.25], 0.125), "exactly half way at distance 1"),
        ],
        misconceptions=[
            Misconception(
                "half of the recall",
                lambda d, r, c: life_with(d, r, c, edge=r[0] / 2),
                "Half of the first value is not half way: somebody who knows nothing is still at chance.",
            ),
            Misconception(
                "half",
                lambda d, r, c: life_with(d, r, c, edge=0.5),
                "The edge depends on where recall starts and on chance; it is not 0.5.",
            ),
            Misconception(
                "down to chance",
                lambda d, r, c: life_with(d, r, c, edge=c),
                "That is when it is gone altogether. Asked is half way.",
            ),
            Misconception(
                "only below",
                lambda d, r, c: next((x for x, y in zip(d, r) if y < c + (r[0] - c) / 2), None),
                "Half way *or lower*: exactly half way counts.",
            ),
            Misconception(
                "the last time",
                lambda d, r, c: life_with(d, r, c, edge=c + (r[0] - c) / 2, last=True),
                "That is the last distance below the edge. The first one counts.",
            ),
        ],
    ),
    Implement(
        id="07-verdict",
        title="Does the part help?",
        objective="07.4",
        minutes=5,
        difficulty=2,
        points=2,
        prompt="The paper's Table 6 gives one number a row and no seeds. Write the rule by which we read ours.",
        hints=(
            "The same seed means the same documents and the same start: compare seed by seed.",
            "Only if all differences have one sign is there a verdict.",
            "`gaps = [c - b for b, c in zip(base, changed)]`, then `all(g > 0 ...)`, `all(g < 0 ...)`.",
        ),
        solution=verdict,
        draw=draw_verdict,
        cases=[
            Case(([0.1, 0.2], [0.3, 0.2]), "one seed is worse, one the same"),
            Case(([0.3, 0.2], [0.1, 0.2]), "one seed is better, one the same"),
            Case(([0.1, 0.2], [0.1, 0.2]), "nothing changes"),
        ],
        misconceptions=[
            Misconception(
                "means decide", by_means, "A mean of three seeds can be one lucky seed. Ask for all of them."
            ),
            Misconception("one seed decides", by_first, "That looks at the first seed only."),
            Misconception(
                "no pairs",
                unpaired,
                "That compares the worst with the best seed. Seeds are paired: the same documents, the same start.",
            ),
            Misconception(
                "ties count",
                lambda base, changed: (
                    "it hurts"
                    if not any(c > b for b, c in zip(base, changed))
                    else "it helps"
                    if not any(c < b for b, c in zip(base, changed))
                    else "cannot tell"
                ),
                "A seed on which nothing changes is not worse, and not better: no verdict.",
            ),
            Misconception(
                "upside down",
                lambda base, changed: {"it helps": "it hurts", "it hurts": "it helps"}.get(
                    verdict(base, changed), "cannot tell"
                ),
                "More nats without the part means that the part helps.",
            ),
        ],
    ),
]
