"""What a trained model knows while it reads: freeze one memory, ask about every key, tell a fact and wait.

"Knows" is a causal measure: the probability that the model gives to the true value if it were asked now. "Where" is one
too: hold one memory at its start, let the rest go on, and see what is no longer known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nlbook.book.chapters.hope.capstone import LANGUAGE
from nlbook.cms import CMS
from nlbook.errors import NLBookError, generator, need
from nlbook.hope import Hope, HopeState
from nlbook.titans import SelfModifyingTitans
from nlbook.tree import tensors

K, V = LANGUAGE.keys, LANGUAGE.values
LETTERS = "ABdexy"  # static, document, fast: one letter a key; values are written 1, 2, ...
KIND = ["static"] * LANGUAGE.static + ["document"] * LANGUAGE.document + ["fast"] * LANGUAGE.fast
BOXES = ("mem", "k", "v", "eta", "alpha")


# ---------------------------------------------------------------------- words
def encode(text: str) -> Tensor:
    """Tokens (1, length) of a text such as "A3 d5 x": letters are keys, digits are values; blanks do not count."""
    tokens = []
    for c in text:
        if c in LETTERS:
            tokens.append(LETTERS.index(c))
        elif c.isdigit() and 1 <= int(c) <= V:
            tokens.append(K + int(c) - 1)
        elif not c.isspace():
            raise NLBookError(f"text: got {c!r}, expected keys out of {LETTERS} and values 1 to {V}")
    return torch.tensor([tokens], dtype=torch.long)


def decode(tokens: Tensor) -> str:
    """The text of tokens (length,), a blank after each value."""
    return "".join(LETTERS[t] if t < K else f"{t - K + 1} " for t in tokens.tolist()).strip()


# ---------------------------------------------------------------------- parts
def parts(model: Hope) -> list[str]:
    """The memories of a one-block model that move while it reads, by the names that its levels have."""
    block: Any = model.blocks[0]
    boxes = [f"M_{b}" for b in block.mixer.adaptive] if isinstance(block.mixer, SelfModifyingTitans) else []
    return boxes + (list(block.mlp.names) if isinstance(block.mlp, CMS) else [])


def frozen(model: Hope, *names: str) -> Hope:
    """A copy of the model in which these memories stay at their learned start, whatever is read."""
    known = parts(model)
    need(set(names) <= set(known), "names", names, f"memories out of {known}")
    options = dict(model.config.options)
    if model.config.mixer == "self_modifying":
        options["adaptive"] = [b for b in options.get("adaptive", BOXES) if f"M_{b}" not in names]
    held = Hope(replace(model.config, options=options))
    held.load_state_dict(model.state_dict())
    block: Any = held.blocks[0]
    if isinstance(block.mlp, CMS):
        with torch.no_grad():
            for i, name in enumerate(block.mlp.names):
                if name in names:
                    block.mlp.log_lr[i] = -math.inf
    return held


def memories(model: Hope, state: HopeState) -> dict[str, list[Tensor]]:
    """Present weights of every memory of a one-block Hope, sequence 0: name -> matrices. Fixed parts are left out."""
    mixed, cms = state.blocks[0].mixer, state.blocks[0].levels
    if not hasattr(mixed, "now"):
        return {}
    boxes = {"mem": ("mem",), "proj": ("k", "v"), "gate": ("eta", "alpha")}
    found = {
        f"M_{b}": [w[0, :, i] for w in mixed.now[g].values()] for g, names in boxes.items() for i, b in enumerate(names)
    }
    if cms is not None:
        chain: Any = model.blocks[0].mlp
        found |= {n: [w[0] for w in s.weights.values()] for n, s in zip(chain.names, cms.levels, strict=True)}
    return found


# ---------------------------------------------------------------------- asking
@torch.no_grad()
def ask(model: Hope, state: HopeState, keys: Tensor | None = None) -> Tensor:
    """What the model would answer if it were asked now: probabilities over values (sequence, key, value).

    The state is not changed: each question is put to a copy. keys (n,): default all.
    """
    keys = torch.arange(K) if keys is None else keys
    batch = next(iter(tensors(state).values())).shape[0]
    many = state.map(lambda t: t.repeat_interleave(len(keys), 0) if t.ndim else t)
    logits, _ = model(keys.repeat(batch)[:, None], many)
    return torch.softmax(logits[:, -1, K:], -1).unflatten(0, (batch, len(keys)))


@torch.no_grad()
def read_text(model: Hope, text: str, state: HopeState | None = None) -> HopeState:
    """Read a text on from `state` and return the state after it."""
    return model(encode(text), state)[1]


def answer(model: Hope, state: HopeState, key: str) -> dict[str, float]:
    """Value -> probability, the likeliest first, for one letter."""
    p = ask(model, state, encode(key)[0])[0, 0]
    return {str(int(i) + 1): round(float(p[i]), 3) for i in p.argsort(descending=True)}


def ideal(text: str, key: str) -> dict[str, float]:
    """What the best possible reader of the language answers after this text: value -> probability."""
    tokens, asked = encode(text)[0].tolist(), encode(key)[0].tolist()[-1]
    belief = torch.full((1, V), 1 / V, dtype=torch.float64)
    if KIND[asked] == "static":
        belief = torch.nn.functional.one_hot(LANGUAGE.facts()[asked : asked + 1], V).double()
    fast = torch.tensor([KIND[asked] == "fast"])
    for k, value in zip(tokens[::2], tokens[1::2]):
        if k == asked:
            belief = LANGUAGE.update(belief, torch.tensor([value - K]), fast)[0]
    drift = LANGUAGE.hazard * float(fast)
    p = (1 - LANGUAGE.noise) * ((1 - drift) * belief[0] + drift / V) + LANGUAGE.noise / V
    return {str(int(i) + 1): round(float(p[i]), 3) for i in p.argsort(descending=True)}


# ---------------------------------------------------------------------- one document, watched
@dataclass(frozen=True)
class Reading:
    """A document and what went on while it was read.

    text, times (n,): tokens read at each look. known (n, keys): probability of the value that is true at that moment.
    truth (n, keys): that value. seen (n, keys): whether the key has been used yet. moved: memory -> (n,) distance from
    its start, relative to the start's norm; step: distance from the look before. surprise (pairs,): nats above the
    ideal reader for each value. kinds (pairs,): what sort of key it belongs to. slips (pairs,): the
    value written is not the key's fact.
    """

    tokens: Tensor
    times: Tensor
    known: Tensor
    truth: Tensor
    seen: Tensor
    moved: dict[str, Tensor]
    step: dict[str, Tensor]
    surprise: Tensor
    kinds: Tensor
    slips: Tensor


@torch.no_grad()
def watch(model: Hope, seed: int = 0, pairs: int = 64, every: int = 2) -> Reading:
    """Read one document of the language pair by pair and look into the model after every `every` pairs."""
    need(pairs % every == 0, "every", every, f"a divisor of pairs = {pairs}")
    doc = LANGUAGE.sample(1, pairs, seed)
    truth = LANGUAGE.story(1, pairs, seed)[2][0]  # (pairs, keys)
    state = model.initial_state(1)
    start = memories(model, state)
    last, moved, step, known, times, seen, logits = start, [], [], [], [], [], []
    for i in range(0, pairs, every):
        out, state = model(doc.tokens[:, 2 * i : 2 * (i + every)], state)
        logits.append(out)
        now = memories(model, state)
        moved.append({n: distance(w, start[n]) for n, w in now.items()})
        step.append({n: distance(w, last[n], start[n]) for n, w in now.items()})
        last = now
        p, t = ask(model, state)[0], truth[i + every - 1]
        known.append(p.gather(1, t[:, None])[:, 0])
        times.append(2 * (i + every))
        used = set(doc.tokens[0, : 2 * (i + every) : 2].tolist())
        seen.append(torch.tensor([k in used for k in range(K)]))
    over = doc.nats(torch.cat(logits, 1)).double() - doc.optimum
    return Reading(
        doc.tokens[0],
        torch.tensor(times),
        torch.stack(known),
        truth[every - 1 :: every],
        torch.stack(seen),
        {n: torch.tensor([m[n] for m in moved]) for n in start},
        {n: torch.tensor([m[n] for m in step]) for n in start},
        over[0, 1::2],
        doc.kind[0, 1::2],
        doc.tokens[0, 1::2] - K != truth.gather(1, doc.tokens[0, ::2, None])[:, 0],
    )


def distance(now: list[Tensor], then: list[Tensor], scale: list[Tensor] | None = None) -> float:
    """Norm of the difference of two memories, relative to the norm of `scale` (default: `then`)."""

    def norm(ws: list[Tensor]) -> float:
        return math.sqrt(sum(float(w.double().square().sum()) for w in ws))

    return norm([a - b for a, b in zip(now, then, strict=True)]) / max(norm(scale or then), 1e-12)


# ---------------------------------------------------------------------- teach it a fact, and wait
@torch.no_grad()
def lasts(
    model: Hope,
    distances: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64),
    *,
    kind: str = "document",
    documents: int = 64,
    before: int = 8,
    seed: int = 0,
) -> Tensor:
    """Tell one fact once, read `distance` pairs about other keys, then ask: probability of the fact, (distances,).

    The key is one of `kind`, different from document to document; `before` pairs about other keys are read first.
    """
    need(kind in KIND, "kind", repr(kind), "'static', 'document' or 'fast'")
    g = generator(seed)
    first = KIND.index(kind)
    key = first + torch.randint(KIND.count(kind), (documents,), generator=g)
    value = torch.randint(V, (documents,), generator=g)
    if kind == "static":  # a lie: some other value than the one the whole language has
        true = LANGUAGE.facts()[key]
        value = (true + torch.randint(1, V, (documents,), generator=g)) % V
    length = before + max(distances)
    other = torch.randint(K - 1, (documents, length), generator=g)
    other = other + (other >= key[:, None])  # never the key itself
    facts = torch.randint(V, (documents, K), generator=g)
    facts[:, : LANGUAGE.static] = LANGUAGE.facts()
    filler = torch.stack([other, K + facts.gather(1, other)], -1).flatten(1)
    told = torch.stack([key, K + value], -1)
    state = model(torch.cat([filler[:, : 2 * before], told], 1))[1]
    rest, at, out = filler[:, 2 * before :], 0, []
    for d in distances:
        if d > at:
            state = model(rest[:, 2 * at : 2 * d], state)[1]
            at = d
        probability = torch.softmax(model(key[:, None], state)[0][:, -1, K:], -1)
        out.append(float(probability.gather(1, value[:, None]).mean()))
    return torch.tensor(out)


def half_life(distances: tuple[int, ...], recall: Tensor, chance: float = 1 / V) -> int | None:
    """The first distance at which recall is at most half way from its start to chance; None: never so far."""
    edge = chance + (float(recall[0]) - chance) / 2
    return next((d for d, r in zip(distances, recall.tolist(), strict=True) if r <= edge), None)
