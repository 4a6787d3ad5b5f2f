"""The levels on more languages: equal sizes, what holding a level costs, and the record that its page tells."""

from __future__ import annotations

import math

import pytest

from nlbook.book.chapters.hope import levels_languages as m
from nlbook.book.chapters.hope import levels_race as race


@pytest.mark.parametrize("language", m.LANGUAGES)
def test_no_baseline_is_smaller_than_hope(language):
    config = m.hope(language)
    for name in m.contestants(language):
        net = m.CONTESTANTS[name][1](config, 0)
        with_level = net.config.mlp == "cms"
        assert with_level is (name in ("Hope", "Hope, chunks of 4", "Hope-Attention", "gated delta + level"))
        size = race.with_level("self_modifying", 0, config, pair=False).parameter_count()
        assert net.parameter_count() <= size if with_level else net.parameter_count() >= size


def test_holding_the_level_costs_hope_a_tenth_of_a_nat_after_eighty_steps():
    """One start is run here, and is what the record has; twenty are in the record, all finite."""
    runs = m.facts(race.Record(m.RECORD))["six keys: Hope"]
    found = m.run("six keys: Hope", 0.02, 100, 80)
    assert found["held"] - found["all"] > 0.1
    assert found["all"] == pytest.approx(runs[0]["all"], abs=0.02)  # another machine adds up in another order
    cost, page = [one["held"] - one["all"] for one in runs], m.RECORD.with_suffix(".md").read_text()
    assert len(runs) == 20 and min(cost) > 0.1 and f"between {min(cost):.2f} and {max(cost):.2f}" in page
    assert f"worst {max(one['all'] for one in runs):.3f}" in page


def test_the_record_has_what_the_protocol_says_and_the_page_tells_it():
    record, page = race.Record(m.RECORD), m.RECORD.with_suffix(".md").read_text()
    for key, one in record.runs.items():
        model, _, seed, steps = key.split(" | ")
        language, name = model.split(": ")
        seeds, length = m.FACTS.get(model, ((), 0))
        plain = language in m.LANGUAGES and name in m.contestants(language) and int(seed[5:]) in m.SEEDS
        if int(seed[5:]) not in seeds or int(steps.split()[0]) != length:
            assert plain and int(steps.split()[0]) == m.plan(language)[1]
        assert all(math.isfinite(x) for x in one.values())
    for language in m.LANGUAGES:
        begun = any(len(m.seeds(record, language, name)) > 1 for name in m.contestants(language))
        assert m.told(record, language) in page if begun else f"{language} not run" in page.replace("\n", " ")
    loss = {name: [one["all"] for one in m.seeds(record, "few keys", name)] for name in m.contestants("few keys")}
    level, held = ([one[k] for one in m.seeds(record, "few keys", "gated delta + level")] for k in ("all", "held"))
    assert (
        race.lead(level, loss["gated delta, 2 full heads"]) == race.lead(level, loss["Hope-Attention"]) == "cannot tell"
    )
    for name in ("gated delta", "attention"):
        assert race.lead(level, loss[name]) == "leads" and race.lead(held, loss[name]) == "trails"
        assert race.lead(loss["gated delta, 2 full heads"], loss[name]) == "leads"
