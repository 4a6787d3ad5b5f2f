"""Training on many processes: two end where one ends; what would go wrong without a word is refused by name."""

from __future__ import annotations

import pytest
import ranks_job as job
import torch
import torch.multiprocessing as mp
from kit import close, refuses

from nlbook.book.data.speakers import Speakers
from nlbook.hope import Hope, HopeConfig
from nlbook.ranks import graded, split


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What one process and each of two said; runs that one side began are ended by the other."""
    folder = tmp_path_factory.mktemp("ranks")
    half = job.run("m3", job.HALF, folder / "from-one")
    mp.spawn(job.process, (2, folder), nprocs=2)
    one = job.both(folder)
    one["half"] = half
    one["from two"] = job.run("m3", job.STEPS, folder / "from-two")
    return one, [torch.load(folder / f"said-{rank}.pt") for rank in range(2)]


def agrees(a, b):
    close(a["loss"], b["loss"], 1e-12)
    close(torch.tensor(a["norm"]).log(), torch.tensor(b["norm"]).log(), 1e-12)  # norms differ by orders of magnitude
    close(a["weights"], b["weights"], 1e-12)


@pytest.mark.parametrize("name", ["adamw", "muon", "m3"])
@pytest.mark.parametrize("steps", [1, job.STEPS])
def test_two_processes_end_where_one_ends(said, name, steps):
    one, (a, b) = said[0][name, steps], (s[name, steps] for s in said[1])
    assert len(a["loss"]) == steps
    agrees(a, one)
    assert a["loss"] == b["loss"] and a["norm"] == b["norm"] and torch.equal(a["weights"], b["weights"])
    assert min(a["norm"]) > 0.5  # each step was clipped


def test_a_run_goes_on_with_another_number_of_processes(said):
    one, (two, _) = said
    whole = one["m3", job.STEPS]
    for other in (one["from two"], two["from one"]):
        agrees(other, whole)


def test_a_model_spread_by_fsdp2_ends_where_one_process_ends(said):
    """M3 orthogonalises whole matrices, not shards; a checkpoint is written from all shards and read into them."""
    for process in said[1]:
        agrees(process["sharded"], said[0]["half"])


def test_the_mean_of_the_processes_means_is_another_number():
    """So the tests above would fail without the counts."""
    parts = split(job.fresh(), job.batch(0), 2)
    assert [len(p.tokens) for p in parts] == [2, 3] and int(graded(parts[0])) != int(graded(parts[1]))


@pytest.mark.parametrize(
    ("case", "word"),
    [("plain", "model: got DDP(Hope)"), ("given", "model: got DDP"), ("few", "batch: got 1 rows for 2 processes"),
     ("other", "batches: got another batch"), ("folders", "folder: got [0, 7]")],
)  # fmt: skip
def test_what_would_go_wrong_without_a_word_is_refused_by_name(said, case, word):
    for process in said[1]:
        assert process[case].startswith(word), process[case]


def test_a_part_is_refused_where_its_clocks_would_begin_anew_alone():
    """One sequence by itself begins a document, and with it its clocks; beside another that goes on, it does not."""
    language = Speakers(documents=2, statements=2)
    model = Hope(HopeConfig(vocabulary=language.vocabulary, dim=8, layers=1, hidden=8, reset_token=language.boundary))
    tokens = language.sample(4, 0).tokens
    parts = split(model, {"tokens": tokens, "rows": torch.arange(4), "scale": torch.tensor(2.0)}, 2)
    assert [p["rows"].tolist() for p in parts] == [[0, 1], [2, 3]] and all(p["scale"] == 2 for p in parts)
    assert torch.equal(torch.cat(split(model, tokens, 3)), tokens)
    shifted = torch.cat([tokens[:2], tokens[2:].roll(1, 1)])
    with refuses("batch"):
        split(model, shifted, 2)
    with refuses("batch"):
        split(model, {"tokens": tokens, "rows": torch.arange(3)}, 2)
