"""The race of the levels: the rule, equal sizes, documents side by side, and the record that its page tells."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nlbook.book.chapters.hope import levels_race as r
from nlbook.hope import Hope
from nlbook.tree import tensors


def test_a_lead_is_two_standard_errors_of_the_difference():
    low, high = [0.10, 0.11, 0.12, 0.11, 0.11], [0.15, 0.16, 0.14, 0.15, 0.15]
    assert r.lead(low, high) == "leads" and r.lead(high, low) == "trails"
    assert r.lead(low, [0.09, 0.30, 0.08, 0.05, 0.10]) == "cannot tell"
    assert r.mean_se(low) == pytest.approx((0.11, 0.1**0.5 / 100))


def test_no_baseline_is_smaller_than_the_largest_model_with_levels():
    size = {name: make(0).parameter_count() for name, make in r.CONTESTANTS.items()}
    with_levels = {name for name in size if r.CONTESTANTS[name](0).config.mlp == "cms"}
    assert with_levels == {
        "Hope", "Hope-Attention", "gated delta + level", "gated delta + level behind the mixer"
    }  # fmt: skip
    assert size["Hope"] == max(size[n] for n in with_levels)
    assert all(size[n] >= size["Hope"] for n in size if n not in with_levels)
    _, state = r.CONTESTANTS["gated delta, 2 full heads"](0)(r.LANGUAGE.sample(1, 0, priced=False).tokens)
    assert state.blocks[0].mixer.M.shape == (1, 2, 32, 32)  # each head as wide as the model


@pytest.mark.parametrize("mixer", ["gated_delta", "attention", "self_modifying"])
def test_documents_side_by_side_are_documents_that_end(mixer):
    """The same logits as a Hope that finds the boundaries itself."""
    net = r.with_level(mixer, 3, pair=False).double()
    same = Hope(replace(net.config, reset_token=r.LANGUAGE.boundary)).double()
    same.load_state_dict({n.replace("mixer.mixer", "mixer"): w for n, w in net.state_dict().items()})
    tokens = r.LANGUAGE.sample(2, 0, priced=False).tokens
    torch.testing.assert_close(net(tokens)[0], same(tokens)[0], rtol=0, atol=1e-10)


def test_the_record_has_what_the_protocol_says_and_the_page_tells_it():
    record, models = r.Record(), []
    for key, one in record.runs.items():
        model, lr, seed, steps = key.split(" | ")
        tuning = seed == f"seed {r.TUNING}"
        assert int(steps.split()[0]) == r.steps_of(model) // (2 if tuning else 1)
        assert tuning or lr == f"lr {record.rate(model):g}"
        assert 0 < one["all"] < 1
        models.append(model)
    assert list(dict.fromkeys(models)) == list(r.CONTESTANTS)[: len(set(models))]  # nothing was picked
    page = r.RECORD.with_suffix(".md").read_text()
    assert r.told(record) in page

    loss = {name: [one["all"] for one in record.seeds(name)] for name in r.CONTESTANTS}
    ours = ("Hope", "Hope-Attention", "gated delta + level")
    for name in ours:
        held = [one["held"] for one in record.seeds(name)]
        for other in loss.keys() - set(ours):
            assert r.lead(loss[name], loss[other]) == "leads" and r.lead(held, loss[other]) == "trails"
            assert all(a < b for a, b in zip(loss[name], loss[other], strict=True))
            if "behind" not in other:
                assert record.seeds(name)[0]["parameters"] < record.seeds(other)[0]["parameters"]
        assert all(r.lead(loss[name], loss[other]) == "cannot tell" for other in ours if other != name)
    by = [b - a for a, b in zip(loss["Hope"], loss["gated delta + level"], strict=True)]
    assert min(by) > 0 and f"{sum(by) / 5:.3f} below gated delta" in page
    plain, behind = (loss[n] for n in ("gated delta", "gated delta + level behind the mixer"))
    assert r.lead(plain, behind) == "cannot tell"


@pytest.mark.slow  # five times 64 streams for two exact readers
def test_the_level_is_below_the_reader_that_does_not_ask_who_lies_where_it_has_to():
    page = r.RECORD.with_suffix(".md").read_text().replace("\n", " ")
    late = r.mean_se([one["new late"] for one in r.Record().seeds("Hope")])[0]
    blind = [r.mean_se([r.without_speakers(s)[k] for s in r.SEEDS])[0] for k in ("new late", "all")]
    assert f"{late:.3f}, where" in page and late < blind[0]
    assert f"{blind[0]:.3f} on the same streams ({blind[1]:.3f} on all" in page


@pytest.mark.slow
def test_a_cell_of_the_record_can_be_computed_again():
    kept = r.Record().runs[f"attention | lr 0.02 | seed {r.TUNING} | {r.STEPS // 2} steps"]
    again = r.run("attention", 0.02, r.TUNING, r.STEPS // 2)
    assert again["all"] == pytest.approx(kept["all"], abs=0.01)  # another machine adds up in another order


def test_a_finished_run_is_not_run_again(tmp_path):
    kept = r.Record().runs[f"attention | lr 0.02 | seed {r.TUNING} | {r.STEPS // 2} steps"]
    path = tmp_path / "race.json"
    path.write_text(r.RECORD.read_text())
    assert r.Record(path, work=r.run)("attention", 0.02, r.TUNING, r.STEPS // 2) == kept


def test_the_state_is_counted_whole():
    net = r.CONTESTANTS["gated delta"](0)
    _, state = net(r.LANGUAGE.sample(1, 0, priced=False).tokens)
    assert (
        sum(t.numel() for t in tensors(state.blocks).values()) == 32 * 32 + 3 * 3 * 32
    )  # M and the convolution's tail
