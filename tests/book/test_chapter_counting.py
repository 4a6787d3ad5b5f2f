"""Every claim of appendix D under a figure or in a sentence with a number."""

from __future__ import annotations

import pytest
import torch
from kit import seeds

from nlbook.book.chapters.counting import exercises, figures, parity
from nlbook.book.chapters.selfmod.exercises import self_write
from nlbook.book.data.formal import words as formal_words
from nlbook.errors import NLBookError
from nlbook.numerics import unit
from nlbook.titans import Rule
from nlbook.titans.chunked import Pace, write
from nlbook.titans.rules import layer_io


def factor(own: bool, eta: float, c: float) -> float:
    """By what one write of eq. 88 multiplies a memory of one number: measured, not worked out."""
    key = torch.ones(1, dtype=torch.float64)
    now = [W0 * torch.ones(1, 1, dtype=torch.float64) for W0 in (1.0, 2.0)]
    if own:
        after = [self_write(M, key, c * key, eta, 1.0) for M in now]
    else:  # a given value is added: the factor is the slope
        after = [M - eta * (M @ key)[:, None] - eta * (M @ key - c)[:, None] for M in now]
    return float(after[1] - after[0])


@pytest.mark.eq(88, 93)
def test_the_factors_of_the_picture_are_those_of_the_writes():
    for own, name in ((False, "DGD, given value, rate below 1"), (True, "DGD, own value, rate below 1")):
        low, high = figures.FACTORS[name]
        found = [factor(own, eta, c) for eta in torch.linspace(1e-4, 0.9999, 30).tolist() for c in (-1.0, 0.0, 1.0)]
        assert low < min(found) < low + 0.01 and high - 0.01 < max(found) < high
    for eta, (low, high) in (
        (1.0, figures.FACTORS["delta rule, rate below 1"]),
        (2.0, figures.FACTORS["delta rule, rate to 2"]),
    ):
        W = delta_rule(torch.ones(1, 1).double(), torch.ones(1).double(), torch.zeros(1).double(), eta)
        assert float(W) == low and high == 1.0
    for c in (0.0, -0.5, -1.0):
        assert factor(True, exercises.count_states(torch.ones(1), c)[1], c) == pytest.approx(-1)


def delta_rule(M, k, v, eta):
    return M + eta * torch.outer(v - M @ k, k)


@pytest.mark.eq(90, 93)
def test_a_chunk_knows_whether_there_was_any_b():
    """At rate 1 a chunk turns the sign once, whatever the number of its b; in the library as in the exercise."""
    bits = torch.tensor([1.0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 1, 1], dtype=torch.float64)
    for chunk in (1, 2, 4):
        w = exercises.chunk_states(bits, 1.0, chunk)
        ends = w[chunk - 1 :: chunk]
        flips = 1 - 2 * bits.unflatten(0, (-1, chunk)).any(1).double()
        torch.testing.assert_close(ends, flips.cumprod(0))
        M = {"W": torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)}
        for part in bits.split(chunk):
            k = torch.ones(1, 1, 1, len(part), 1, dtype=torch.float64)
            eta = part[None, None, None]
            io = layer_io(M, k, 0 * k, "l2", False)
            M = write(M, io, Pace(torch.zeros_like(eta), eta), Rule(), {})[0]
        torch.testing.assert_close(M["W"].flatten(), ends[-1:])


@pytest.mark.parametrize("chunk", [pytest.param(n, marks=[pytest.mark.slow] * (n < 16)) for n in parity.CHUNKS])
def test_chunks_lose_the_count(chunk):
    run = parity.count(f"self-modifying, chunks of {chunk}", 0)
    assert run.bins[0] < 0.7 and run.bins[1] < 0.05 and run.bins[2] < 0.05


@seeds(1, 2)
def test_self_modifying_memories_count_at_lengths_never_trained(seed):
    run = parity.count("self-modifying", seed)
    assert run.steps <= 200 and run.bins == (1.0, 1.0, 1.0) and run.lengths[-1] == (25, 48)
    bits = torch.randint(2, (40,), generator=torch.Generator().manual_seed(seed)).tolist()
    states = parity.trace(run.model, bits)
    assert states.shape == (41, 256)
    line, odd = figures.sign_of(states), torch.tensor(bits).cumsum(0) % 2
    assert max(float(((line > 0) == (odd == p)).double().mean()) for p in (0, 1)) > 0.9
    assert "flips at each b" in figures.flips_alt(states, bits)


@pytest.mark.timeout(600)
@seeds(1, 2)
def test_it_is_the_sign_and_not_the_self_reference(seed):
    given = parity.count("DGD, given values", seed)
    assert given.bins[1] > 0.99 and 0.85 < given.bins[2] <= 1
    assert parity.count("delta rule, rate to 2", seed).bins[2] == pytest.approx(0.6, abs=0.1)
    half = parity.count("DGD, given values, rate to 0.5", seed)
    assert half.bins[0] < 0.5 and half.bins[1:] == (0.0, 0.0)
    for kind in ("delta rule", "linear attention"):  # they fail on the lengths of training
        run = parity.count(kind, seed)
        assert run.steps == 250 and run.bins[0] < 0.5 and run.bins[1] < 0.05 and run.bins[2] == 0


def test_counting_ends():
    m = parity.count("self-modifying", 0).model
    assert parity.score(m, formal_words("parity", 50, 50, 32, 5)) == 1.0
    assert (
        parity.score(m, formal_words("parity", 100, 100, 32, 5)) < 0.8
        and parity.score(m, formal_words("parity", 200, 200, 32, 5)) < 0.2
    )


def test_a_memory_that_is_not_here_is_named():
    with pytest.raises(NLBookError, match="kind"):
        parity.model("a parrot")


def test_figures_and_their_words():
    runs = [
        parity.Counted(k, parity.model("linear attention"), 1, 12, ((2, 12), (13, 24)), b)
        for k, b in (("a", (1.0, 1.0)), ("b", (0.3, 0.0)))
    ]
    assert "b 30 % at 2 to 12, 0 % at 13 to 24" in figures.counting_alt(runs)
    assert len(figures.counting(runs).axes[0].lines) == 2
    states = torch.cumprod(torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0]), 0)[:, None] * unit(torch.ones(1, 3))
    assert "100 %" in figures.flips_alt(states, [0, 1, 1, 0]) and len(figures.flips(states, [0, 1, 1, 0]).axes) == 1
    rows = [(1, [-1.0, 1.0]), (2, [-1.0, -1.0])]
    assert "chunk size 1: 2 of 2; chunk size 2: 1 of 2" in figures.chunks_alt(rows, [1, 1])
    assert len(figures.chunks(rows, [1, 1]).axes) == 2 and len(figures.factors().axes[0].texts) == 6
