"""Chapter 00: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch


def by_overlaps(pairs, question, keep):
    last = len(pairs) - 1
    return sum(keep ** (last - i) * (k @ question) * v for i, (k, v) in enumerate(pairs))


def in_place(pairs, question, keep):
    M = torch.zeros(len(pairs[0][1]), len(question), dtype=torch.float64)
    for k, v in pairs:
        M *= keep
        M += v[:, None] * k
    return M @ question


def backwards(pairs, question, keep):
    M, share = 0, 1.0
    for k, v in reversed(pairs):
        M, share = M + share * torch.outer(v, k), share * keep
    return M @ question


def stacked(pairs, question, keep):
    K, V = (torch.stack(x) for x in zip(*pairs, strict=True))
    return (keep ** torch.arange(len(K)).flip(0)[:, None] * V).T @ (K @ question)


MUTANTS = {
    "00-memory": {
        "shrinks twice a write": lambda p, q, keep: by_overlaps(p, q, keep**2),
        "an average": lambda p, q, keep: by_overlaps(p, q, keep) / len(p),
        "lets go of the rest": lambda p, q, keep: by_overlaps(p, q, 1 - keep),
        "backwards": lambda p, q, keep: by_overlaps(p[::-1], q, keep),
        "the best match only": lambda p, q, keep: max(p, key=lambda kv: float(kv[0] @ q))[1],
    }
}

ACCEPTED = {
    "00-memory": {
        "from overlaps": by_overlaps,
        "in place": in_place,
        "newest first": backwards,
        "stacked": stacked,
    }
}
