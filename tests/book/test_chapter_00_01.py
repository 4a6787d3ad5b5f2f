"""Every claim of chapters 00 and 01 that stands under a figure or in a sentence with a number."""

from __future__ import annotations

import math

import pytest
import torch

from nlbook.book import viz
from nlbook.book.chapters.hope import talker
from nlbook.book.chapters.memory import curves, exercises, reader
from nlbook.book.chapters.memory import figures as ch01
from nlbook.book.chapters.welcome import figures as ch00
from nlbook.book.chapters.welcome import news
from nlbook.book.data import recall, words
from nlbook.memory import make


# ---- chapter 00 ------------------------------------------------------------------------------------------------------
def test_three_kinds_of_news_are_taken_in_three_ways():
    said, held = news.three_kinds(), news.three_kinds(hold=True)
    ever, document, moment = said.values()
    assert ever["old"] > ever["new"] + 0.1 and document["old"] > document["new"] + 0.3  # a lone 7 is a slip
    assert moment["new"] > moment["old"] + 0.1  # ... and here a change
    assert ever["next"] > 0.85 and max(document["next"], moment["next"]) < 0.2  # 1 in 8 is knowing nothing
    assert abs(held["for ever"]["next"] - 1 / 8) < 0.05  # all that outlives the document was in the level
    assert all(abs(held[kind][what] - said[kind][what]) < 0.02 for kind in said for what in ("old", "new"))
    assert ever["old"] < document["old"] - 0.2 and ever["old, later"] > document["old, later"] + 0.1  # sure of A later
    assert round(ever["old"], 2) == 0.51 == round(held["for ever"]["old, later"], 2)  # ... and that was in the level
    assert [round(x, 2) for x in (document["old"], ever["old, later"], document["old, later"])] == [0.75, 0.91, 0.75]


def test_the_axis_shows_the_reader_that_one_talks_to():
    hope, transformer = ch00.places()["small Hope"], ch00.places()["Transformer"]
    assert [f for _, f in transformer] == [0, 1]
    assert [f for _, f in hope] == [0, *(1 / p for p in talker.CONFIG.periods), 1]
    assert talker.CONFIG.periods == (talker.LANGUAGE.document_length,) == (33,)
    assert sum(w.numel() for w in talker.talker().parameters()) // 1000 == 16  # "some 16,000 numbers"
    assert ch00.frequency_axis().axes and "0.03 times a token" in ch00.frequency_axis_alt()


@pytest.mark.parametrize(("keep", "half"), [(0.9, 7), (0.95, 14), (0.97, 23)])
def test_keep_halves_a_memory_in_so_many_writes(keep, half):
    assert round(viz.load(f"first_look:keep={keep}").facts["half"]) == half


@pytest.mark.parametrize("seed", range(3))
def test_one_keep_cannot_suit_what_lasts_and_what_changes(seed):
    fading, kept = (viz.load(f"first_look:keep={keep},seed={seed}").facts for keep in (0.9, 1.0))
    assert min(kept["old_change"], kept["new_change"]) > 0.85  # it returns both
    assert abs(fading["old_change"]) < 0.1 and fading["new_change"] > 0.9  # the old value is gone in time
    assert abs(fading["new_end"]) < 0.1  # and so is the new one, which still holds
    assert kept["noise_end"] > 1.3 > 0.6 > fading["noise_end"] and kept["half"] == math.inf


@pytest.mark.parametrize("state", ["first_look:keep=0.5", "first_look:keep=1.0", "first_look:keep=0.99,seed=9"])
def test_the_first_plot_draws_at_its_extremes_on_one_axis(state):
    picture = viz.load(state)
    (ax,) = picture.figure().axes
    assert ax.get_ylim() == (-0.45, 2.05) and not any(math.isnan(x) for x in picture.facts.values())


# ---- chapter 01 ------------------------------------------------------------------------------------------------------
def test_forty_capitals_nearly_all_come_back():
    assert len(set(words.CAPITALS)) == 40 == len({c for c, _ in words.CAPITALS})
    shares = curves.capacity(rules=["Hebb"], grid=[3, 40], worlds=20)["Hebb"]
    assert float(shares[3].mean()) == 1 and 0.9 < float(shares[40].mean()) < 1


@pytest.mark.parametrize("seed", range(3))
def test_the_crosstalk_is_longer_than_the_answer(seed):
    data = recall.pairs(40, 32, batch=150, seed=seed)
    crosstalk = (curves.answers("hebbian", data, lr=1.0) - data.v).square().sum(-1).mean().sqrt()
    assert abs(float(crosstalk) - (39 / 32) ** 0.5) < 0.03


def test_the_arrows_are_the_rules_of_the_exercises():
    (k1, k2), (v1, v2) = ch01.KEYS, ch01.VALUES
    M = exercises.hebb_write(exercises.hebb_write(torch.zeros(2, 2), k1, v1, 1.0), k2, v2, 1.0)
    assert torch.allclose(ch01.read_again(0.0), torch.tensor([[5.0, 3.0], [3.0, 5.0]]))
    for rate, (one, other) in {0.5: ([5.0, 1.5], [3.0, 4.1]), 1.0: ([5.0, 0.0], [3.0, 3.2])}.items():
        written = exercises.delta_write(M, k1, v1, rate)
        assert torch.allclose(ch01.read_again(rate), torch.stack([written @ k1, written @ k2]))
        assert torch.allclose(ch01.read_again(rate), torch.tensor([one, other]))
    assert ch01.erase_and_write().axes and "(3.0, 3.2)" in ch01.erase_and_write_alt()


def test_shrinking_is_what_a_price_on_size_does():
    g = torch.Generator().manual_seed(0)
    old, k, v = (torch.randn(*n, generator=g, dtype=torch.float64) for n in ((2, 3), (3,), (2,)))
    rate, price = 0.5, 0.25
    keep = 1 / (1 + rate * price)
    M = exercises.hebb_write(keep * old, k, v, keep * rate).requires_grad_()
    cost = -(M @ k) @ v + (M - old).square().sum() / (2 * rate) + price / 2 * M.square().sum()
    (slope,) = torch.autograd.grad(cost, M)
    assert float(slope.abs().max()) < 1e-12  # the minimum of the fold's objective


@pytest.mark.parametrize("seed", range(5))
def test_a_full_delta_write_forgets_by_age_and_a_gentle_one_hardly_does(seed):
    hebb, full, gentle = (e.mean(0) for e in curves.identified_by_age(worlds=150, seed=seed).values())
    assert float(full[0]) == 1  # right about the newest pair
    assert float(full[-3:].mean()) < 0.6  # and half of the oldest are lost
    assert float(hebb.min()) > 0.9 and 0.87 < float(gentle[-3:].mean()) < float(hebb[-3:].mean())
    if seed == 0:
        assert [round(float(x[-3:].mean()), 2) for x in (gentle, hebb)] == [0.93, 0.99]


@pytest.mark.parametrize("seed", range(5))
def test_the_rate_decides_and_no_rate_is_right_for_all_news(seed):
    random, alike = (curves.by_rate("delta", (1.0, 0.3, 0.1), rho, seed=seed) for rho in (0.0, 0.5))
    hebb = {rho: curves.by_rate("hebbian", (1.0,), rho, seed=seed)[1.0] for rho in (0, 0.5)}
    assert random[1.0] < 0.88 and random[0.3] > 0.96 and abs(random[0.1] - hebb[0]) < 0.02
    assert alike[0.3] > alike[1.0] + 0.03 and alike[0.3] > hebb[0.5] + 0.1  # between the two ends
    assert curves.followed((1.0, 0.3)) == pytest.approx({1.0: 1.0, 0.3: 0.3})
    passes = curves.by_passes((1, 64), seed=seed)
    assert passes[64] > 0.95 > 0.5 > passes[1]


@pytest.mark.parametrize(("rho", "shares"), [(0.0, (0.81, 0.98, 0.99)), (0.5, (0.31, 0.38, 0.18))])
def test_table_bench_and_figure_show_the_same_memories(rho, shares):
    table = curves.by_rate("delta", (1.0, 0.3), rho) | {"Hebb": curves.by_rate("hebbian", (1.0,), rho)[1.0]}
    figure = curves.capacity(rho, rules=curves.ONE_PASS, grid=[32], worlds=50)
    assert tuple(table.values()) == pytest.approx(shares, abs=0.006)
    for name, at in {"Hebb": "Hebb", "delta, rate 1": 1.0, "delta, rate 0.3": 0.3}.items():
        assert float(figure[name][32].mean()) == pytest.approx(table[at])
    assert viz.load(f"interference:rule=delta,lr=0.3,rho={rho}").facts["identified"] == pytest.approx(table[0.3])


def test_a_gentle_write_comes_back_short_and_in_the_right_direction():
    full, gentle = (viz.load(f"interference:rule=delta,lr={rate}").facts for rate in (1.0, 0.1))
    assert [round(f["error"], 2) for f in (full, gentle)] == [0.59, 0.83] and gentle["identified"] > full["identified"]
    data = recall.pairs(32, 32, batch=50)
    along = float((curves.answers("delta", data, lr=0.1) * data.v).sum(-1).mean())
    assert 0.05 < along < 0.15


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("d", [16, 64])
def test_what_a_pair_keeps_is_1_minus_rate_over_d_to_its_age(d, rate):
    """A full write, then `d` further delta writes at `rate`, in 400 worlds: the part along the own value."""
    data = recall.pairs(d + 1, d, batch=400, seed=3)
    full, m = make("delta", lr=1.0), make("delta", lr=rate)
    state = full.write_all(data.k[:, :1], data.v[:, :1])
    for t in range(1, d + 1):
        state = m.write(state, data.k[:, t], data.v[:, t])
    along = float((m.read(state, data.k[:, :1])[:, 0] * data.v[:, 0]).sum(-1).mean())
    assert abs(along - (1 - rate / d) ** d) < 0.05
    assert abs((1 - rate / d) ** d - math.exp(-rate)) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_there_was_room_all_the_time(seed):
    for rho in (0.0, 0.5):
        found = curves.capacity(rho, grid=[32], worlds=15, seed=seed)
        *one_pass, best = (float(by_n[32].mean()) for by_n in found.values())
        assert best == 1 and (rho == 0 or max(one_pass) < 0.6)


@pytest.mark.parametrize("seed", range(3))
def test_the_control_falls_to_chance(seed):
    rules = ("Hebb", "best linear")
    found = curves.capacity(rules=rules, grid=[8, 32, 128], worlds=150, seed=seed, fresh_values=True)
    for by_n in found.values():
        for n, share in by_n.items():
            assert abs(float(share.mean()) - 1 / n) < 4 * (1 / n / (150 * n)) ** 0.5  # four standard errors


@pytest.mark.parametrize("seed", range(5))
def test_two_matrices_beat_the_best_single_one_because_one_is_emptied(seed):
    stream = reader.told(worlds=30, seed=seed)
    slow, fast, single, both = reader.compared(stream).values()
    assert both["all"] < min(slow["all"], fast["all"])
    assert 0.055 < single["all"] - both["all"] < 0.075  # "by 0.06 to 0.07"
    lasting, document, moment, _ = reader.ASKED
    assert abs(both[moment] - single[moment]) < 0.02  # a tie
    assert slow[lasting] < both[lasting] < 0.4 < 1 < fast[lasting]  # the fast one alone knows nothing of A
    assert both[document] < 0.3 and fast[document] < 0.35 and slow[document] > 0.5  # the slow one alone lags behind d
    never = reader.two_matrices(stream, reader.SLOW, reader.FAST, emptied=False)
    one = reader.two_matrices(stream, reader.SLOW + reader.FAST, 0.0, emptied=False)
    assert torch.allclose(never, one, atol=1e-12) and reader.errors(stream, never)["all"] > both["all"] + 0.1
    shrinks = reader.errors(stream, reader.two_matrices(stream, reader.SLOW, reader.FAST, emptied=False, keep=0.9))
    assert both["all"] < shrinks["all"] < single["all"]  # letting go a little at each pair needs no sign


def test_the_exercise_is_the_reader_of_the_signature_result():
    stream = reader.told(worlds=1, documents=3)
    said = exercises.read_stream(stream.k[0], stream.v[0], stream.begins.tolist(), (reader.SLOW, reader.FAST))
    assert torch.allclose(said, reader.two_matrices(stream, reader.SLOW, reader.FAST)[0], atol=1e-12)


def test_figures_say_what_they_show():
    ages = curves.identified_by_age(n=8, worlds=4)
    capacity = {0.0: curves.capacity(rules=["Hebb"], grid=[4, 32], worlds=2)}
    bars = reader.compared(reader.told(worlds=2, documents=6), rates=(0.5,))
    assert ch01.age_curve(ages).axes and "delta, rate 0.3" in ch01.age_curve_alt(ages)
    assert ch01.capacity_curves(capacity).axes and "32 pairs" in ch01.capacity_alt(capacity)
    assert ch01.reader_bars(bars).axes and "best of 4 single" in ch01.reader_bars_alt(bars)
