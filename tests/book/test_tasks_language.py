"""Tasks for language models: the known optimum against enumeration, formal languages against membership, controls."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import refuses

from nlbook.book.data import formal
from nlbook.book.data.formal import END, LANGUAGES, VOCABULARY, words
from nlbook.book.data.language import TimescaleLanguage
from nlbook.book.data.sequences import Sequences


# ---------------------------------------------------------------- the language of known entropy
def brute_force(values: int, noise: float, hazard: float, seen: list[int]) -> list[float]:
    """Nats for each value of ONE fast key, by summing over every possible history of its fact."""

    def joint(observed: list[int]) -> float:
        total = 0.0
        for path in itertools.product(range(values), repeat=len(observed)):
            p = 1 / values  # the fact before its first use
            for t, (fact, x) in enumerate(zip(path, observed)):
                if t:
                    p *= (1 - hazard) * (fact == path[t - 1]) + hazard / values
                p *= (1 - noise) * (x == fact) + noise / values
            total += p
        return total

    probs = [1.0] + [joint(seen[: n + 1]) for n in range(len(seen))]
    return [-math.log(b / a) for a, b in itertools.pairwise(probs)]


@pytest.mark.parametrize("hazard", [0.0, 0.3, 1.0])
def test_the_optimum_is_the_sum_over_all_histories(hazard):
    """A uniform fact that is redrawn uniformly before its first use is still uniform, so the first drift changes
    nothing.
    """
    language = TimescaleLanguage(static=0, document=0, fast=2, values=3, noise=0.2, hazard=hazard)
    data = language.sample(3, 9, seed=4)
    for row in range(3):
        for key in range(2):
            at = [t for t in range(1, 18, 2) if data.tokens[row, t - 1] == key]
            seen = [int(data.tokens[row, t]) - language.keys for t in at]
            assert data.optimum[row, at].tolist() == pytest.approx(brute_force(3, 0.2, hazard, seen), abs=1e-12)


def test_static_and_document_keys_in_closed_form():
    language = TimescaleLanguage(static=2, document=2, fast=1, values=4, noise=0.1)
    data = language.sample(200, 40, seed=1)
    facts, K = language.facts(), language.keys
    hit = 1 - 0.1 + 0.1 / 4
    entropy = -hit * math.log(hit) - 3 * 0.025 * math.log(0.025)
    key, value = data.tokens[:, ::2], data.tokens[:, 1::2] - K
    paid, kind = data.optimum[:, 1::2], data.kind[:, 1::2]
    static = key < 2
    right = value[static] == facts[key[static]]
    want = torch.where(right, -math.log(hit), -math.log(0.025))
    torch.testing.assert_close(paid[static], want.double())
    first = [(r, int((key[r] == 2).nonzero()[0])) for r in range(200) if (key[r] == 2).any()]
    assert all(float(paid[r, t]) == pytest.approx(math.log(4), abs=1e-12) for r, t in first)  # nothing known yet
    assert (kind == (key >= 2).long() + (key >= 4).long()).all()
    assert float(paid[static].mean()) == pytest.approx(entropy, abs=0.03)
    late = paid[:, 20:][kind[:, 20:] == 1]
    assert entropy < float(late.mean()) < entropy + 0.4  # learned in context, nearly


def test_nobody_beats_the_optimum_and_knowing_less_costs_more():
    """Over many documents: the ideal reader 0, one who forgets the document more, one who knows nothing log V."""
    language = TimescaleLanguage()
    data = language.sample(300, 48, seed=2)
    value = data.tokens[:, 1::2] - language.keys
    uniform = torch.full((300, 96, language.vocabulary), -1e9)
    uniform[..., language.keys :] = 0
    excess = data.excess(uniform)
    assert excess["all"] > 0.5 and excess["static"] == pytest.approx(
        math.log(12) - float(data.optimum[data.kind == 0].mean()), abs=1e-5
    )
    ideal = torch.full((300, 96, language.vocabulary), -1e9)  # logits of the ideal reader, rebuilt from its own filter
    belief = torch.full((300, language.keys, 12), 1 / 12, dtype=torch.float64)
    belief[:, :6] = F.one_hot(language.facts(), 12).double()
    row = torch.arange(300)
    for t in range(48):
        k = data.tokens[:, 2 * t]
        drift = language.hazard * (k >= 14).double()[:, None]
        prior = (1 - drift) * belief[row, k] + drift / 12
        ideal[:, 2 * t, language.keys :] = (0.95 * prior + 0.05 / 12).log().float()
        belief[row, k], _ = language.update(belief[row, k], value[:, t], k >= 14)
    assert abs(data.excess(ideal)["all"]) < 1e-5 and data.accuracy(ideal) > data.accuracy(uniform) + 0.3
    torch.testing.assert_close(data.loss(ideal).double(), data.optimum.sum() / data.graded.sum(), rtol=0, atol=1e-5)


def test_a_sample_is_its_seed():
    language = TimescaleLanguage()
    a, b, c = (language.sample(4, 10, s) for s in (3, 3, 4))
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.optimum, b.optimum) and not torch.equal(a.tokens, c.tokens)
    other = TimescaleLanguage(seed=1)
    assert not torch.equal(other.facts(), language.facts()) and other.vocabulary == 30
    assert a.graded.sum() == 40 and int(a.tokens[:, ::2].max()) < 18 <= int(a.tokens[:, 1::2].min())


def test_nats_count_graded_tokens_only():
    data = Sequences(
        torch.tensor([[0, 1, 2]]), torch.tensor([[False, False, True]]), torch.zeros(1, 3), torch.tensor([[-1, -1, 0]])
    )
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 0] = 100.0  # a confident mistake about token 1, which nobody grades
    assert data.loss(logits).item() == pytest.approx(math.log(4)) and data.nats(logits)[0, :2].sum() == 0
    with refuses("logits"):
        data.nats(torch.zeros(1, 2, 4))


# ---------------------------------------------------------------- formal languages
def member(name: str, word: tuple[int, ...]) -> bool:
    """Is it in the language? Written from the definition, without the machine."""
    a, b = word.count(1), word.count(2)
    n = len(word)
    if name == "parity":
        return set(word) <= {1, 2} and b % 2 == 0
    if name == "aa":
        return word == (1,) * n and n % 2 == 0
    if name == "abab":
        return word == (1, 2) * (n // 2) and n % 4 == 0
    if name == "anbn":
        return n > 0 and word == (1,) * a + (2,) * a
    if name == "anbncn":
        return n > 0 and word == (1,) * a + (2,) * a + (3,) * a
    left = {1: 0, 3: 0}
    for s in word:
        left[s if s in left else s - 1] += 1 if s in left else -1
        if min(left.values()) < 0:
            return False
    return not any(left.values())


LONGEST = {"parity": 7, "aa": 9, "abab": 10, "anbn": 8, "anbncn": 9, "shuffle2": 6}
LETTERS = {"parity": 2, "aa": 1, "abab": 2, "anbn": 2, "anbncn": 3, "shuffle2": 4}


@pytest.mark.parametrize("name", sorted(LANGUAGES))
def test_what_may_follow_is_what_the_language_says(name):
    """Every prefix of every short word: symbol s may follow p exactly when some word begins with p s; END when p is a
    word.
    """
    most = LONGEST[name]
    language = [
        w for n in range(most + 1) for w in itertools.product(range(1, LETTERS[name] + 1), repeat=n) if member(name, w)
    ]
    follows: dict[tuple[int, ...], set[int]] = {}
    for w in language:
        for i in range(len(w)):
            follows.setdefault(w[:i], set()).add(w[i])
        follows.setdefault(w, set()).add(END)
    machine = LANGUAGES[name]
    checked = 0
    for prefix in follows:
        if len(prefix) > most // 3 - (name == "anbncn"):  # longer prefixes may need words beyond the enumeration
            continue
        assert machine.follow(list(prefix))[-1] == follows[prefix], prefix
        checked += 1
    assert checked >= 2


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LANGUAGES)), st.integers(0, 10**6), st.integers(2, 30))
def test_drawn_words_are_words(name, seed, high):
    data = words(name, 2, high, 4, seed)
    assert data.tokens.shape[1] == data.mask.sum(1).max() and data.allowed.shape[-1] == VOCABULARY
    for tokens, mask, allowed in zip(data.tokens, data.mask, data.allowed):
        word = tokens[1 : int(mask.sum())].tolist()
        assert tokens[0] == END and all(0 < s < VOCABULARY for s in word)
        assert member(name, tuple(word)) or name == "parity"
        assert all(bool(allowed[i, s]) for i, s in enumerate(word))  # each symbol was allowed
        assert bool(allowed[len(word), END]) == member(name, tuple(word))
        assert not allowed[~mask].any()


def test_a_word_counts_only_if_every_prefix_is_right():
    data = words("parity", 6, 6, 8, 0)
    perfect = torch.where(data.allowed, 5.0, -5.0)
    assert data.accuracy(perfect) == 1.0 and data.loss(perfect) < 0.01
    perfect[0, 3, END] *= -1
    assert data.accuracy(perfect) == pytest.approx(7 / 8)
    constant = torch.tensor([5.0, 5, 5, -5, -5]).expand(8, 7, 5)
    assert data.accuracy(constant) < 0.3
    padded = words("parity", 2, 9, 8, 0)
    noise = torch.where(padded.mask[..., None], torch.where(padded.allowed, 5.0, -5.0), 99.0)
    assert padded.accuracy(noise) == 1.0  # padding does not count


def test_bad_words_are_named():
    with refuses("language"):
        words("dyck", 2, 4, 2, 0)
    with refuses("low"):
        words("aa", 9, 4, 2, 0)
    with refuses("word"):
        LANGUAGES["anbn"].follow([1, 2, 2])
    assert formal.LANGUAGES["aa"].follow([1]) == [{1, END}, {1}]


def test_bad_tasks_are_named():
    for argument, make in (
        ("static + document + fast", lambda: TimescaleLanguage(static=0, document=0, fast=0)),
        ("noise", lambda: TimescaleLanguage(noise=0.0)),
        ("batch", lambda: TimescaleLanguage().sample(0, 3, 0)),
    ):
        with refuses(argument):
            make()
