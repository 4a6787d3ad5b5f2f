"""Appendix D: wrong answers that its checks must refuse, and right ones that they must accept."""

from __future__ import annotations

import torch

from nlbook.book.chapters.counting.exercises import chunk_states


# ---- one write, one matrix
def transition_outer(k, v, eta, alpha):
    return alpha * torch.eye(len(k), dtype=k.dtype) + eta * torch.outer(v - 2 * k, k)


def transition_by_columns(k, v, eta, alpha):
    return torch.stack([alpha * e + eta * (v - 2 * k) * (k @ e) for e in torch.eye(len(k), dtype=k.dtype)], 1)


def transition_from_identity(k, v, eta, alpha):
    M, k, v = torch.eye(len(k), dtype=k.dtype), k[:, None], v[:, None]
    return alpha * M - 2 * eta * M @ k @ k.T + eta * M @ v @ k.T


# ---- counting
def count_loop(bits, c):
    w, out = 1.0, []
    for b in bits:
        eta = 2 / (2 - c) if b else 0.0
        w = w * (1 - 2 * eta + eta * c)
        out.append(w)
    return torch.tensor(out, dtype=bits.dtype), 2 / (2 - c)


def parity_of(bits):
    return 1 - 2 * (bits.cumsum(0) % 2)


def rate(c):
    return 1 / (1 - c / 2)


def count_parity(bits, c):
    return parity_of(bits), rate(c)


def count_power(bits, c):
    return torch.tensor(-1.0, dtype=bits.dtype) ** bits.cumsum(0), torch.tensor(rate(c), dtype=bits.dtype)


# ---- chunks
def chunks_by_blocks(bits, eta, chunk):
    out, w = [], torch.tensor(1.0, dtype=bits.dtype)
    for block in bits.split(chunk):
        start = w
        for bit in block:
            if bit:
                w = (1 - eta) * w - eta * start
            out.append(w)
    return torch.stack(out)


def chunks_by_floats(bits, eta, chunk):
    w, start, out = 1.0, 1.0, []
    for t in range(len(bits)):
        start = w if t % chunk == 0 else start
        w = w - eta * float(bits[t]) * (w + start)
        out.append(w)
    return torch.tensor(out, dtype=bits.dtype)


def chunks_in_place(bits, eta, chunk):
    out = torch.ones(len(bits) + 1, dtype=bits.dtype)
    for t in range(len(bits)):
        start = out[t - t % chunk].clone()
        out[t + 1] = out[t] - eta * bits[t] * (out[t] + start)
    return out[1:]


MUTANTS = {
    "D-transition": {
        "sign": lambda k, v, eta, alpha: alpha * torch.eye(len(k), dtype=k.dtype) - eta * torch.outer(v - 2 * k, k),
        "no forgetting": lambda k, v, eta, alpha: transition_outer(k, v, eta, 1.0),
        "swapped": lambda k, v, eta, alpha: transition_outer(v, k, eta, alpha),
    },
    "D-count": {
        "never": lambda bits, c: (torch.ones_like(bits), rate(c)),
        "sign": lambda bits, c: (-parity_of(bits), rate(c)),
        "zero or one": lambda bits, c: (bits.cumsum(0) % 2, rate(c)),
        "no rate": lambda bits, c: parity_of(bits),
        "the rate of one erasure": lambda bits, c: (parity_of(bits), 2 / (1 - c)),
        "rate one": lambda bits, c: (parity_of(bits), 1.0),
    },
    "D-chunk": {
        "before": lambda bits, eta, chunk: torch.cat([torch.ones(1).double(), chunk_states(bits, eta, chunk)[:-1]]),
        "parity": lambda bits, eta, chunk: parity_of(bits),
        "zeros": lambda bits, eta, chunk: chunk_states(1 - bits, eta, chunk),
        "uphill": lambda bits, eta, chunk: chunk_states(bits, -eta, chunk),
        "chunk and one": lambda bits, eta, chunk: chunk_states(bits, eta, chunk + 1),
    },
}

ACCEPTED = {
    "D-transition": {
        "outer": transition_outer,
        "columns": transition_by_columns,
        "from the identity": transition_from_identity,
    },
    "D-count": {"a loop": count_loop, "parity": count_parity, "power": count_power},
    "D-chunk": {"blocks": chunks_by_blocks, "floats": chunks_by_floats, "in place": chunks_in_place},
}
