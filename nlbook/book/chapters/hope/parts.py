"""The parts of a trained reader: hold one of them, ask about every key, and see what is no longer known.

"Knows" is a causal measure: the probability that the model gives to the true value if it were asked now. "Where" is one
too: hold one part, let the rest go on, and see what is no longer known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nlbook.book.data.lives import Lives
from nlbook.book.data.sequences import Sequences
from nlbook.errors import NLBookError, need
from nlbook.hope import Hope, HopeState
from nlbook.tree import tensors

BOXES = ("mem", "k", "v", "eta", "alpha")
PARTS = (*(f"M_{b}" for b in BOXES), "level")


# ---------------------------------------------------------------------- words
def encode(text: str, language: Lives) -> Tensor:
    """Tokens (1, length) of a text such as "|A3 d5 x": letters are keys, digits values, | opens a document."""
    names = [*language.keys, *map(str, range(1, language.values + 1)), "|"]
    read = [c for c in text if not c.isspace()]
    if strange := [c for c in read if c not in names]:
        raise NLBookError(f"text: got {strange[0]!r}, expected out of {''.join(names)}")
    return torch.tensor([[names.index(c) for c in read]])


@torch.no_grad()
def answer(model: Hope, text: str, language: Lives) -> dict[str, float]:
    """Value -> probability, the likeliest first, after a text that ends with a key."""
    K = len(language.keys)
    p = torch.softmax(model(encode(text, language))[0][0, -1, K : K + language.values], -1)
    return {str(int(i) + 1): round(float(p[i]), 2) for i in p.argsort(descending=True)}


# ---------------------------------------------------------------------- parts
def held(model: Hope, *names: str) -> Hope:
    """A copy of a one-block, one-level model in which these of PARTS stay at their starts, whatever is read."""
    need(set(names) <= {*PARTS}, "names", names, f"parts out of {PARTS}")
    options = {**model.config.options, "adaptive": [b for b in BOXES if f"M_{b}" not in names]}
    copy = Hope(replace(model.config, options=options))
    copy.load_state_dict(model.state_dict())
    if "level" in names:
        copy.blocks[0].mlp.held.add(0)
    return copy.eval()


@torch.no_grad()
def cost(model: Hope, streams: Sequences, parts: Sequence[tuple[str, ...]]) -> dict[str, dict[str, float]]:
    """Nats a value that an answer costs more with these parts held, by kind of key: the words of the parts -> kind."""

    def excess(m: Hope) -> dict[str, float]:
        return streams.excess(m(streams.tokens)[0])

    free = excess(model)
    found = {" and ".join(names): excess(held(model, *names)) for names in parts}
    return {words: {kind: e[kind] - free[kind] for kind in e} for words, e in found.items()}


def memories(model: Hope, state: HopeState) -> dict[str, list[Tensor]]:
    """Present weights of every part, sequence 0: name -> matrices."""
    now, levels = state.blocks[0].mixer.now, state.blocks[0].levels
    assert levels is not None
    boxes = {"mem": ("mem",), "proj": ("k", "v"), "gate": ("eta", "alpha")}
    found = {f"M_{b}": [w[0, :, i] for w in now[g].values()] for g, names in boxes.items() for i, b in enumerate(names)}
    return found | {"level": [w[0] for w in levels.levels[0].weights.values()]}


def distance(now: list[Tensor], then: list[Tensor], scale: list[Tensor]) -> float:
    """Norm of the difference of two memories, relative to the norm of `scale`."""

    def norm(ws: list[Tensor]) -> float:
        return math.sqrt(sum(float(w.double().square().sum()) for w in ws))

    return norm([a - b for a, b in zip(now, then, strict=True)]) / max(norm(scale), 1e-12)


@torch.no_grad()
def ask(model: Hope, state: HopeState, language: Lives) -> Tensor:
    """What sequence 0 would answer if it were asked now: probabilities over values (key, value). The state stays."""
    keys = torch.arange(len(language.keys))
    assert len(next(iter(tensors(state).values()))) == 1
    still = deepcopy(model)  # a question is no part of the stream: no level moves by it
    still.blocks[0].mlp.held.add(0)
    many = state.map(lambda t: t.repeat_interleave(len(keys), 0) if t.ndim else t)
    return torch.softmax(still(keys[:, None], many)[0][:, -1, len(keys) : len(keys) + language.values], -1)


# ---------------------------------------------------------------------- one stream, watched
@dataclass(frozen=True)
class Reading:
    """A stream and what went on while it was read, at some moments.

    times (n,): tokens read. known (n, keys): probability of the value that is true: what was said last of d e x y in
    this document, what is said most often of A B; nan where a key was not used yet (A B: in the stream, d e x y: in the
    document). moved: part -> (n,) distance from its start, relative to its norm; step: from the moment before.
    """

    tokens: Tensor
    times: Tensor
    known: Tensor
    moved: dict[str, Tensor]
    step: dict[str, Tensor]


@torch.no_grad()
def watch(model: Hope, language: Lives, seed: int = 0, every: int = 4) -> Reading:
    """Read one stream and look into the model after every `every` pairs of a document."""
    need(language.pairs % every == 0, "every", every, f"a divisor of pairs = {language.pairs}")
    tokens = language.sample(1, seed).tokens
    K, state, at = len(language.keys), model.initial_state(1), 0
    pairs = list(zip(tokens[0].tolist(), tokens[0, 1:].tolist(), strict=False))
    lasting = {k: Counter(v for key, v in pairs if key == k).most_common(1)[0][0] for k in (0, 1)}
    start = last = memories(model, state)
    true: dict[int, int] = {}
    times, known, moved, step = [], [], [], []
    for document in range(language.documents):
        for i in range(0, language.pairs, every):
            end = document * language.document_length + 1 + 2 * (i + every)
            _, state = model(tokens[:, at:end], state)
            for key, value in pairs[at:end]:
                true = {k: v for k, v in true.items() if k in lasting} if key == language.boundary else true
                true |= {key: lasting.get(key, value)} if key < K else {}
            at, now, p = end, memories(model, state), ask(model, state, language)
            times.append(at)
            known.append(torch.tensor([float(p[k, true[k] - K]) if k in true else math.nan for k in range(K)]))
            moved.append({n: distance(w, start[n], start[n]) for n, w in now.items()})
            step.append({n: distance(w, last[n], start[n]) for n, w in now.items()})
            last = now
    lanes = ({n: torch.tensor([m[n] for m in rows]) for n in PARTS} for rows in (moved, step))
    return Reading(tokens[0], torch.tensor(times), torch.stack(known), *lanes)
