"""Slow knowledge that is a rule: who lies, and what is true (nlbook.book.data.speakers)."""

import itertools
import math

import pytest
import torch

from nlbook.book.data.speakers import Speakers
from nlbook.errors import NLBookError


def brute_force(language, a, b, bit, liars=True):
    """Nats by summing over every world: who lies (of each fact anew, without `liars`) and what is true."""
    A, B = language.speakers, language.facts
    width = A if liars else A * B
    paid, total = [], None
    worlds = list(itertools.product((0, 1), repeat=width + B))
    chance = [
        0.5**B * math.prod(language.liars if w else 1 - language.liars for w in world[:width]) for world in worlds
    ]
    before = sum(chance)
    for i in range(len(a)):
        for j, world in enumerate(worlds):
            lies = world[a[i]] if liars else world[a[i] * B + b[i]]
            chance[j] *= 1 - language.noise if (lies ^ world[width + b[i]]) == bit[i] else language.noise
        total = sum(chance)
        paid.append(-math.log(total / before))
        before = total
    return torch.tensor(paid, dtype=torch.float64)


@pytest.mark.parametrize("liars", [True, False])
def test_the_readers_are_bayes(liars):
    language = Speakers(speakers=2, facts=3, documents=2, statements=6, liars=0.2)
    a, b, bit = language.draw(1, seed=4)
    reader = language.pay if liars else language.pay_without_speakers
    want = brute_force(language, a[0].tolist(), b[0].tolist(), bit[0].tolist(), liars)
    assert torch.allclose(reader(a, b, bit)[0], want, atol=1e-12)


def test_who_lies_is_worth_knowing_and_most_of_all_where_a_pair_is_new():
    language = Speakers()
    data = language.sample(32, seed=1)
    a, b, bit = language.draw(32, seed=1)
    assert data.optimum[data.graded].allclose(language.pay(a, b, bit).flatten())
    more = (language.pay_without_speakers(a, b, bit) - language.pay(a, b, bit)).flatten()
    kind = data.kind[data.graded]
    assert float(more.mean()) > 0.1 and float(more[kind == 1].mean()) > 2 * float(more[kind == 2].mean()).__abs__()


def test_samples_hold_what_was_drawn():
    language = Speakers(documents=3)
    data, (a, b, bit) = language.sample(2, seed=0), language.draw(2, seed=0)
    assert data.tokens.shape == (2, 3 * language.document_length)
    assert torch.equal(data.tokens[data.graded], (language.speakers + language.facts + bit).flatten())
    assert torch.equal(data.tokens[torch.roll(data.graded, -2, 1)], a.flatten())
    assert torch.equal(data.tokens[torch.roll(data.graded, -1, 1)], (language.speakers + b).flatten())
    assert int((data.tokens == language.boundary).sum()) == 6


def test_bad_settings_are_refused():
    for name, bad in (("liars", {"liars": 0.0}), ("noise", {"noise": 1.0}), ("speakers", {"speakers": 13})):
        with pytest.raises(NLBookError, match=name):
            Speakers(**bad)
