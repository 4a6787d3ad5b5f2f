"""Chapter 07: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nlbook.book.chapters.hope import exercises as ch10


def norm(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def block_by_rows(x, o, W_g, W_o, up, down):
    rows = []
    for xi, oi in zip(x, o):
        gate = F.silu(W_g @ norm(xi))
        h = xi + W_o @ (norm(oi) * gate)
        for a, b in zip(up, down):
            h = h + b @ F.silu(a @ norm(h))
        rows.append(h)
    return torch.stack(rows)


def block_by_einsum(x, o, W_g, W_o, up, down):
    h = x + torch.einsum("ti,oi->to", norm(o) * F.silu(torch.einsum("ti,oi->to", norm(x), W_g)), W_o)
    for level in range(len(up)):
        h = h + torch.einsum("th,oh->to", F.silu(torch.einsum("ti,hi->th", norm(h), up[level])), down[level])
    return h


def block_by_sigmoid(x, o, W_g, W_o, up, down):
    z = norm(x) @ W_g.mT
    out = x + F.linear(norm(o) * (z * torch.sigmoid(z)), W_o)
    for i in range(up.shape[0]):
        out = out.add(F.linear(F.silu(F.linear(norm(out), up[i])), down[i]))
    return out


def life_by_list(distances, recall, chance):
    gone = [r - chance <= 0.5 * (recall[0] - chance) for r in recall]
    return distances[gone.index(True)] if True in gone else None


def life_by_loop(distances, recall, chance):
    i = 0
    while i < len(recall):
        if 2 * (recall[i] - chance) <= recall[0] - chance:
            return distances[i]
        i += 1


def life_by_next(distances, recall, chance):
    return next((d for d, r in zip(distances, recall) if r <= (chance + recall[0]) / 2), None)


def verdict_by_signs(base, changed):
    signs = {(c > b) - (c < b) for b, c in zip(base, changed)}
    return {(1,): "it helps", (-1,): "it hurts"}.get(tuple(signs), "cannot tell")


def verdict_by_extremes(base, changed):
    gap = torch.tensor(changed, dtype=torch.float64) - torch.tensor(base, dtype=torch.float64)
    return "it helps" if gap.min() > 0 else "it hurts" if gap.max() < 0 else "cannot tell"


def verdict_by_counting(base, changed):
    worse = sum(c > b for b, c in zip(base, changed))
    better = sum(c < b for b, c in zip(base, changed))
    return "it helps" if worse == len(base) else "it hurts" if better == len(base) else "cannot tell"


MUTANTS = {
    "07-block": {
        "transposed gate": lambda x, o, W_g, W_o, up, down: ch10.block_with(x, o, W_g.T, W_o, up, down),
        "one level only": lambda x, o, W_g, W_o, up, down: ch10.block_with(x, o, W_g, W_o, up[:1], down[:1]),
        "unchanged": lambda x, o, W_g, W_o, up, down: x,
    },
    "07-excess": {
        "sum": lambda n, o, g: float((n - o)[g].sum()),
        "mean of means": lambda n, o, g: float(torch.stack([(a - b)[m].mean() for a, b, m in zip(n, o, g)]).mean()),
        "the ungraded": lambda n, o, g: float((n - o)[~g].mean()),
    },
    "07-life": {
        "index": lambda d, r, c: d.index(x) if (x := ch10.half_life(d, r, c)) is not None else None,
        "never none": lambda d, r, c: ch10.half_life(d, r, c) or d[-1],
    },
    "07-verdict": {
        "majority": lambda b, c: "it helps" if sum(y > x for x, y in zip(b, c)) > len(b) / 2 else "it hurts",
        "always": lambda b, c: "it helps",
        "not worse": lambda b, c: (
            "it hurts"
            if not any(y > x for x, y in zip(b, c))
            else "it helps"
            if all(y > x for x, y in zip(b, c))
            else "cannot tell"
        ),
        "not better": lambda b, c: (
            "it helps"
            if not any(y < x for x, y in zip(b, c))
            else "it hurts"
            if all(y < x for x, y in zip(b, c))
            else "cannot tell"
        ),
    },
    "07-state": {
        "numbers": 24_900.0,
        "the width": 32.0,
        "parameters": 20_356.0,
    },
    "07-picture": {"all of it": 0.95, "nothing": 0.0, "half": 0.5, "chance of two": 0.75, "too much": 1.2},
}
MUTANTS["07-levels"] = {
    "slow to fast": [ch10.EMBED, ch10.CMS_SLOW, ch10.BOXES, ch10.CMS_FAST, ch10.CONV],
    "memories first": [ch10.BOXES, ch10.CONV, ch10.CMS_FAST, ch10.CMS_SLOW, ch10.EMBED],
    "both MLPs last": [ch10.CONV, ch10.BOXES, ch10.CMS_FAST, ch10.CMS_SLOW, ch10.EMBED],
    "outer weights in the middle": [ch10.CONV, ch10.CMS_FAST, ch10.EMBED, ch10.BOXES, ch10.CMS_SLOW],
    "slow MLP before the memories": [ch10.CONV, ch10.CMS_FAST, ch10.CMS_SLOW, ch10.BOXES, ch10.EMBED],
}
ACCEPTED = {
    "07-block": {"by rows": block_by_rows, "einsum": block_by_einsum, "sigmoid": block_by_sigmoid},
    "07-excess": {
        "where": lambda n, o, g: float(torch.where(g, n - o, 0.0).sum() / g.sum()),
        "selected": lambda n, o, g: float(n[g].mean() - o[g].mean()),
        "loop": lambda n, o, g: (
            sum(float(n[i, j] - o[i, j]) for i in range(len(n)) for j in range(n.shape[1]) if g[i, j]) / int(g.sum())
        ),
    },
    "07-life": {"list": life_by_list, "loop": life_by_loop, "next": life_by_next},
    "07-verdict": {"signs": verdict_by_signs, "extremes": verdict_by_extremes, "counting": verdict_by_counting},
    "07-levels": {"the order": [ch10.CONV, ch10.CMS_FAST, ch10.BOXES, ch10.CMS_SLOW, ch10.EMBED]},
    "07-picture": {"read off": 0.17, "another digit": 0.174, "a little more": 0.18},
    "07-state": {"computed": 390.5, "rounded": 390.0, "a little less": 370.0},
}
