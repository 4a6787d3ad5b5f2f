"""Chapter 04: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

from nlbook.book.chapters.levels.exercises import (
    is_faster,
    level_numbers,
)
from nlbook.levels import Component, NestedSystem


def by_library(a, b, f, needs):
    return NestedSystem([Component(n, f[n], needs=frozenset(needs[n])) for n in f], "step").faster(a, b)


def by_recursion(a, b, f, needs):
    def reaches(x):
        return a in needs[x] or any(reaches(y) for y in needs[x])

    return f[a] > f[b] or (f[a] == f[b] and reaches(b))


def by_closure(a, b, f, needs):
    reach = {n: set(x) for n, x in needs.items()}
    for _ in reach:
        reach = {n: x.union(*(reach[y] for y in x)) for n, x in reach.items()}
    return (f[a], a in reach[b]) > (f[b], False) if f[a] == f[b] else f[a] > f[b]


def levels_by_library(f, needs):
    s = NestedSystem([Component(n, f[n], needs=frozenset(needs[n])) for n in f], "step")
    return {n: s.level(n) for n in f}


def levels_by_peeling(f, needs):
    """Take off, again and again, what nobody of its own frequency still needs."""
    left, out, level = dict(f), {}, 0
    while left:
        slow = min(left.values())
        free = [a for a in left if left[a] == slow and not any(a in needs[b] and left[b] == slow for b in left)]
        level += 1
        for a in free:
            out[a] = level
        left = {n: x for n, x in left.items() if n not in free}
    return {n: out[n] for n in f}


def levels_by_relaxing(f, needs):
    depth = dict.fromkeys(f, 0)
    for _ in f:
        for b in f:
            for a in needs[b]:
                if f[a] == f[b]:
                    depth[a] = max(depth[a], depth[b] + 1)
    order = sorted({(f[n], depth[n]) for n in f})
    return {n: 1 + order.index((f[n], depth[n])) for n in f}


MUTANTS = {
    "04-faster": {
        "turned round": lambda a, b, f, needs: is_faster(b, a, f, needs),
        "at least as fast": lambda a, b, f, needs: f[a] >= f[b],
        "always": lambda a, b, f, needs: True,
    },
    "04-levels": {
        "one level": lambda f, needs: dict.fromkeys(f, 1),
        "all apart": lambda f, needs: {n: i for i, n in enumerate(sorted(f, key=lambda n: f[n]), 1)},
        "two deep at most": lambda f, needs: {
            n: 1
            + sorted({(f[m], any(m in needs[b] and f[b] == f[m] for b in f)) for m in f}).index(
                (f[n], any(n in needs[b] and f[b] == f[n] for b in f))
            )
            for n in f
        },
    },
    "04-writes": {
        "one unit": 85,
        "without the slowest": 165,
    },
    "04-arrows": {
        "none": 0,
        "parts": 7,
        "levels": 4,
    },
    "04-order": {
        "layers": [
            "the projection W_k",
            "the attention read",
            "the fast memory M",
            "the first moment m",
            "the second moment v",
        ],
        "moments slowest": [
            "the first moment m",
            "the second moment v",
            "the projection W_k",
            "the fast memory M",
            "the attention read",
        ],
        "fastest first": [
            "the attention read",
            "the fast memory M",
            "the second moment v",
            "the first moment m",
            "the projection W_k",
        ],
        "memory last": [
            "the projection W_k",
            "the first moment m",
            "the second moment v",
            "the attention read",
            "the fast memory M",
        ],
        "one missing": ["the projection W_k", "the first moment m", "the fast memory M", "the attention read"],
    },
}

ACCEPTED = {
    "04-faster": {"the library": by_library, "recursion": by_recursion, "closure": by_closure},
    "04-levels": {
        "the library": levels_by_library,
        "peeling": levels_by_peeling,
        "relaxing": levels_by_relaxing,
        "the solution": level_numbers,
    },
    "04-writes": {"sum": 170, "text": "170 writes", "pair": (170.0, "writes")},
    "04-arrows": {"count": 17, "text": "17 arrows", "float": 17.0},
    "04-order": {
        "m first": [
            "the projection W_k",
            "the first moment m",
            "the second moment v",
            "the fast memory M",
            "the attention read",
        ],
        "v first": [
            "the projection W_k",
            "the second moment v",
            "the first moment m",
            "the fast memory M",
            "the attention read",
        ],
    },
}
