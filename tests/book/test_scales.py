"""Facts of several spans: the exact readers, and what levels that end earn on them (nlbook.book.data.scales)."""

import pytest
import torch

from nlbook.book.chapters.clocks.adding_up import SPANS, excess
from nlbook.book.data.scales import Scales
from nlbook.cms.additive import Clock
from nlbook.errors import NLBookError

THREE = Scales(keys=8, values=8, documents=16, pairs=15, spans=(4, 1), p=0.25)


def brute_force(language, key, value):
    """Nats of the optimum by summing over every assignment of facts of one key: no filter, no recursion."""
    facts = torch.cartesian_prod(*[torch.arange(language.values)] * (1 + language.documents))
    stays = (1 - language.p) * torch.eye(language.values) + language.p / language.values
    chance = torch.full((len(facts),), 1 / language.values, dtype=torch.float64)
    for d in range(language.documents):
        chance = chance * stays.double()[facts[:, 0], facts[:, 1 + d]]
    paid = torch.zeros(key.shape[1:], dtype=torch.float64)
    for d in range(language.documents):
        for t in range(language.pairs):
            seen = facts[:, 1 + d] == value[0, d, t]
            like = torch.where(
                seen, 1 - language.noise + language.noise / language.values, language.noise / language.values
            )
            paid[d, t] = -((chance * like).sum() / chance.sum()).log()
            chance = chance * like
    return paid


def test_the_optimum_is_bayes():
    language = Scales(keys=1, values=3, documents=4, pairs=3)
    key, value = language.draw(1, seed=3)
    assert torch.allclose(language.pay(key, value)[0], brute_force(language, key, value), atol=1e-12)


@pytest.mark.parametrize("language", [SPANS, THREE])
def test_each_scale_is_worth_something_and_nobody_beats_the_optimum(language):
    key, value = language.draw(128, seed=5)
    best = float(language.pay(key, value).mean())
    without = [float(language.pay(key, value, w).mean()) for w in range(len(language.spans))]
    drifting = min(float(language.pay_drifting(key, value, q).mean()) for q in (0.2, 0.3, 0.4, 0.5, 0.6))
    assert all(best + 0.05 < cost for cost in (*without, drifting))


def test_samples_hold_what_was_drawn():
    for marked in (True, False):
        language = Scales(marked=marked)
        data = language.sample(3, seed=1)
        key, value = language.draw(3, seed=1)
        assert data.tokens.shape == (3, language.documents * language.document_length)
        assert torch.equal(data.tokens[data.graded], language.keys + value.flatten())
        before = torch.roll(data.graded, -1, 1)
        assert torch.equal(data.tokens[before], key.flatten())
        assert data.optimum[data.graded].allclose(language.pay(key, value).flatten())
        assert int((data.tokens == language.boundary).sum()) == marked * 3 * language.documents


def test_spans_hold_for_their_documents():
    language = Scales(keys=400, documents=8, pairs=4000, spans=(4, 1), p=0.5, noise=1e-9)
    key, value = language.draw(1, seed=0)
    last = torch.stack([value[0, d].new_zeros(400).scatter(0, key[0, d], value[0, d]) for d in range(8)])
    agree = (last[:, None] == last[None]).double().mean(-1)
    inside, across = agree[0, 1:4].mean(), agree[0, 4:].mean()
    assert inside > across + 0.1  # documents of one group share more facts than documents of two


def test_bad_settings_are_refused():
    for name, bad in (
        ("spans", {"spans": (1, 4)}),
        ("p", {"p": 2.0}),
        ("noise", {"noise": 0.0}),
        ("values", {"values": 1}),
    ):
        with pytest.raises(NLBookError, match=name):
            Scales(**bad)
    with pytest.raises(NLBookError, match="without"):
        SPANS.pay(*SPANS.draw(1, 0), without=1)


def test_three_scales_need_three_levels():
    rows = {
        "one": [Clock(1.5)],
        "never": [Clock(0.5), Clock(0.5), Clock(0.5)],
        "two": [Clock(3.0, ends=1), Clock(1.0)],
        "three": [Clock(2.0, ends=1), Clock(1.0, ends=4), Clock(0.5)],
    }
    found = {name: excess(clocks, THREE) for name, clocks in rows.items()}
    assert abs(found["one"].mean - found["never"].mean) < 1e-5
    assert found["three"].mean + 2 * found["three"].se < found["two"].mean < found["one"].mean / 2


def test_references_are_followed_and_the_optimum_follows_them_too():
    """Nats by summing over every assignment of facts to two keys in two documents, references traced pair by pair."""
    language = Scales(keys=2, values=3, documents=2, pairs=6, refer=0.4)
    key, value = language.draw(1, seed=2)
    assert (value < 0).sum() >= 3 and (language.meaning(key, value) != key).sum() >= 2
    facts = torch.cartesian_prod(*[torch.arange(3)] * 6)  # base a, b; document 0 a, b; document 1 a, b
    stays = ((1 - language.p) * torch.eye(3) + language.p / 3).double()
    chance = torch.ones(len(facts), dtype=torch.float64) / 9
    for i in range(4):
        chance = chance * stays[facts[:, i % 2], facts[:, 2 + i]]
    paid = torch.zeros(2, 6, dtype=torch.float64)
    for d in range(2):
        means = [0, 1]
        for t in range(6):
            k, v = int(key[0, d, t]), int(value[0, d, t])
            if v < 0:
                means[k] = means[v + 2]
                continue
            right = facts[:, 2 + 2 * d + means[k]] == v
            like = torch.where(right, 1 - language.noise + language.noise / 3, language.noise / 3)
            paid[d, t] = -((chance * like).sum() / chance.sum()).log()
            chance = chance * like
    assert torch.allclose(language.pay(key, value)[0], paid, atol=1e-12)
    data = Scales(refer=0.4).sample(4, seed=0)
    k, v = Scales(refer=0.4).draw(4, seed=0)
    assert torch.equal(data.tokens[data.graded], 6 + v[v >= 0])
    told = {name for i, name in enumerate(data.kinds) if (data.kind == i).any()}
    assert told == set(data.kinds) and (Scales().sample(4, seed=0).kind < 3).all()
