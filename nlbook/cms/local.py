"""Levels with a loss of their own, 1/2 |MLP(k) - v|^2: the first edition's, and the control of chapter 05."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nlbook.cms.level import Rows, add, answer, back, settle
from nlbook.cms.state import Event, LevelState
from nlbook.numerics import rms

VALUE_SCALE = 0.3  # the size of what a level with the local objective is asked to say


def read_local(
    cms: Any,
    levels: list[LevelState],
    events: list[Event],
    x: Tensor,
    source: Tensor | None,
    position: int,
    weight: Tensor | None,
) -> Tensor:
    """Every level has its own loss, so each runs through the whole call by itself: segments are its own chunks."""
    mix = torch.softmax(cms.mix, 0) if cms.variant == "headwise" else None
    h, total = x, x
    for i, s in enumerate(levels):
        src = h if mix is None else x if source is None else source
        n = rms(src) if cms.mlp.norm else src
        keys = rms(n @ cms.key[i].mT)
        values = VALUE_SCALE * rms(n @ cms.value[i].mT)
        own = [e for e in events if e.level == i]
        pending: list[Rows] = [{} for _ in levels]
        out, done, cursor = [], 0, 0
        edges = sorted({0, *(e.time for e in own), x.shape[1]})
        sizes = [b - a for a, b in pairwise(edges)]  # split: the gradient of one slice a segment
        cut = iter(zip(*(t.split(sizes, 1) for t in (n, keys, values))) if sizes else ())  # fills the whole length
        while done < x.shape[1] or cursor < len(own):
            end = own[cursor].time if cursor < len(own) else x.shape[1]
            if end > done:
                part = slice(done, end)
                here, k, v = next(cut)
                out.append(answer(cms.mlp, s.weights, here)[0])
                with torch.set_grad_enabled(torch.is_grad_enabled() and not cms.first_order):
                    w = s.weights
                    if cms.first_order:
                        k, v, w = k.detach(), v.detach(), {a: b.detach() for a, b in w.items()}
                    o, z, a = answer(cms.mlp, w, k)
                    dz = back(cms.mlp, w, z, a, o - v)
                add(pending[i], k, a, o - v, dz, None if weight is None else weight[:, part, i])
                s.clock += end - done
                done = end
            while cursor < len(own) and own[cursor].time == end:
                cms.write(levels, own[cursor], pending, position + end)
                cursor += 1
        settle(s, pending[i])
        o = torch.cat(out, 1) if out else x
        if mix is not None:
            total = total + mix[i] * o
        else:
            h = h + o
    return total if mix is not None else h
