"""Real text that comes with the book, and the reader of it: counts, pieces, surprise, levels, the memory as a file."""

from __future__ import annotations

import html
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kit import refuses

from nlbook.book import reader as R
from nlbook.book.chapters.hope import reader_run
from nlbook.book.data import texts as T
from nlbook.book.data.pieces import Pieces, learn
from nlbook.book.reader import Reader, colours
from nlbook.hope import Hope, HopeConfig

PAUL = "Now when they had passed through Amphipolis and Apollonia, they came to Thessalonica. “Brothers”, Paul said. "


@pytest.fixture(scope="module")
def net():
    return R.shipped()


# ---- texts -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "language", "pages", "size"),
    [
        ("help", "en", 292, 341_211),
        ("help", "de", 292, 408_039),
        ("help", "fr", 292, 411_070),
        ("help", "es", 292, 374_090),
        ("testament", "en", 260, 955_920),
        ("testament", "es", 260, 930_548),
    ],
)
def test_texts_have_the_pages_and_bytes_of_their_card(name, language, pages, size):
    got = T.texts(name, language)
    assert len(got) == pages and sum(len(t.encode()) for t in got.values()) == size
    assert list(got) == list(T.texts(name)) and not re.search(r"<\w|\bnote\b.*>|  ", "".join(got.values()))


def test_a_document_is_on_one_side_in_every_language():
    train, held_out = T.split("testament")
    assert len(held_out) == 28 and all(page.startswith("Acts.") for page in held_out) and len(train) == 232
    for language in T.FILES["help"]:
        train, held_out = T.split("help", language)
        assert (len(train), len(held_out)) == (264, 28) and set(held_out) == set(T.split("help")[1])
    with refuses("name"):
        T.texts("novel")
    with refuses("language"):
        T.texts("testament", "de")


def test_invented_names_are_one_for_one_and_kept_from_training():
    text = T.texts("testament")["Acts.16"]
    old, new = (T.NAME.findall(t) for t in (text, T.renamed(text, 1, fresh=True)))
    assert len(old) == len(new)
    pairs = {a: b for a, b in zip(old, new, strict=True)}
    assert all(pairs[a] == b for a, b in zip(old, new, strict=True))
    assert all((a != b) == (a in T.names()) for a, b in pairs.items()) and pairs["Timothy"] not in T.names()
    trained = {n for seed in range(200) for n in T.NAME.findall(T.renamed("Paul Peter Philip Timothy", seed))}
    graded = {
        n for seed in range(200) for n in T.NAME.findall(T.renamed("Paul Peter Philip Timothy", seed, fresh=True))
    }
    assert len(trained) > 500 and len(graded) > 300 and not trained & graded
    assert T.renamed(text, 1) == T.renamed(text, 1) != T.renamed(text, 2)


# ---- pieces ----------------------------------------------------------------------------------------------------------
def test_pieces_join_what_is_frequent_and_lose_nothing():
    merges = learn(["the then the them", "thaw"], 3)
    assert merges[:2] == [(ord("t"), ord("h")), (256, ord("e"))]
    mine = Pieces(merges)
    for text in ("the aaaa", "“Grüße” — 漢字\n\n\t x", "", PAUL, T.texts("help", "fr")["a11y-contrast"]):
        assert mine.decode(mine.encode(text)) == text
    assert len(mine.encode("the")) == 1 and mine.encode("aaa") == [97, 97, 97]


# ---- the reader ------------------------------------------------------------------------------------------------------
def test_surprise_adds_up_to_the_loss_of_the_model(net):
    model, pieces = net
    reading = Reader(*net).read(PAUL)
    tokens = torch.tensor([[model.config.reset_token, *pieces.encode(PAUL)]])
    with torch.no_grad():
        loss = float(model.loss(tokens))
    assert sum(s.bits for s in reading.spans) * math.log(2) == pytest.approx(loss * (tokens.shape[1] - 1), rel=1e-4)
    assert "".join(s.text for s in reading.spans) == PAUL and reading.bytes == len(PAUL.encode())


def test_reading_may_be_cut_anywhere_and_pages_do_not_show(net):
    long = T.texts("testament")["Acts.17"][:1500]
    whole, parts = Reader(*net), Reader(*net)
    one = whole.read(long)
    two = [s for at in range(0, 1500, 500) for s in parts.read(long[at : at + 500]).spans]
    assert "".join(s.text for s in two) == long and whole.state.position > 4 * 100
    assert one.bytes == len(long.encode())
    first = Reader(*net).read(long[:200]).spans
    assert [s.bits for s in one.spans[: len(first) - 2]] == pytest.approx([s.bits for s in first[:-2]], rel=1e-4)


def test_a_level_knows_nothing_before_it_moved_and_something_after(net):
    mine = Reader(*net)
    first, again = mine.read(PAUL), mine.sleep() or mine.read(PAUL)
    assert len(first.knew) == len(net[0].config.periods) and len(first.spans) > 35
    assert all(abs(b) < 1e-4 for s in first.spans[:25] for b in s.knew.values())  # none has moved
    assert any(
        abs(b) > 1e-3 for s in first.spans[25:] for b in s.knew.values()
    )  # held at its start: does not move later
    assert again.bits_per_byte < first.bits_per_byte and sum(again.knew.values()) > 0
    assert [s.bits for s in Reader(*net).read(PAUL).spans] == pytest.approx([s.bits for s in first.spans])


def test_sleep_ends_the_page_and_a_dream_leaves_no_trace(net):
    mine, other = Reader(*net), Reader(*net)
    for r in (mine, other):
        r.read(PAUL)
    said = mine.continue_text("Then", 40)
    assert said == mine.continue_text("Then", 40) and len(said) > 40
    assert mine.read("Then he went out.").spans == other.read("Then he went out.").spans
    mine.sleep()
    before = mine.state
    mine.sleep()
    assert mine.state is before


def test_the_memory_goes_to_another_process(net, tmp_path):
    mine, file = Reader(*net), tmp_path / "memory.safetensors"
    mine.read(PAUL)
    mine.save(file)
    code = (
        "import sys; from nlbook.book.reader import Reader; import torch; torch.set_num_threads(1)\n"
        "r = Reader(); r.load(sys.argv[1]); print([s.bits for s in r.read(sys.argv[2]).spans])"
    )
    done = subprocess.run([sys.executable, "-c", code, file, PAUL], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    here = [s.bits for s in mine.read(PAUL).spans]
    assert json.loads(done.stdout) == pytest.approx(here, abs=1e-4) and file.stat().st_size < 1_000_000
    strange = Hope(HopeConfig(513, dim=8, hidden=8, layers=1, reset_token=512))
    with refuses("path"):
        Reader(strange, net[1]).load(file)


def test_colours_tell_by_more_than_colour(net):
    reading = Reader(*net).read("Paul & Barnabas <went> to Zorbik")
    page = colours(reading)
    assert (
        html.unescape(re.sub(r"<figcaption>.*?</figcaption>|<[^>]+>", "", page)) == "Paul & Barnabas <went> to Zorbik"
    )
    assert page.count('title="') == len(reading.spans) and "border-bottom" in page and "aria-label" in page
    assert f"{reading.bits_per_byte:.2f} bits a byte" in page and "color:#" not in page


def test_the_chapter_tells_what_happens_to_a_story_and_to_german(net):
    story = (
        "Vornak went out from Talmir with Quessa his sister. Vornak said to Quessa, “Don’t be afraid.” The people of "
        "Talmir saw Vornak, and they brought bread to Quessa. Now there was a servant of Vornak in Talmir, and Quessa "
        "sent him to Vornak."
    )
    question = "After these things Quessa spoke with Vornak, and they came again to Talmir."
    mine = Reader(*net)
    mine.read(story)
    mine.sleep()
    told, fresh = mine.read(question), Reader(*net).read(question)
    fast, slow = told.knew.values()
    assert fresh.bits_per_byte - told.bits_per_byte > 0.5 and fast > 0.5 and abs(slow) < 0.05
    german, english = list(T.split("help", "de")[1].values())[:6], T.split("testament")[1]["Acts.17"][:600]
    mine = Reader(*net)
    learned = [mine.read(page[:600]).bits_per_byte for page in german]
    alone = [Reader(*net).read(page[:600]).bits_per_byte for page in german]
    assert learned[-1] < learned[0] - 1 and all(a < b - 0.3 for a, b in zip(learned[1:], alone[1:], strict=True))
    assert mine.read(english).bits_per_byte > Reader(*net).read(english).bits_per_byte + 0.3


# ---- the run ---------------------------------------------------------------------------------------------------------
def test_contestants_are_equally_large_and_streams_are_pages(net):
    sizes = [Hope(c).parameter_count() for c in reader_run.NETS.values()]
    assert max(sizes) - min(sizes) <= 2e-3 * min(sizes)
    batch = reader_run.streams(net[1])(3)
    pages = batch.tokens.view(reader_run.BATCH, reader_run.PAGES, reader_run.LENGTH)
    assert (pages[:, :, 0] == reader_run.PAGE).all() and (pages[:, :, 1:] < reader_run.PAGE).all()
    assert torch.equal(batch.tokens, reader_run.streams(net[1])(3).tokens)
    assert {n: len(t) for n, t in reader_run.sheets(net[1]).items()} == dict(
        zip(reader_run.sheets(net[1]), (27, 27, 19, 19, 19, 19, 19), strict=True)
    )


def test_the_record_says_what_the_chapter_and_the_card_say(net):
    runs = reader_run.record()
    assert {"hope", "delta+levels", "delta", "attention", "delta, one head"} <= set(runs) <= set(reader_run.NETS)
    page = (Path(reader_run.__file__).with_suffix(".md")).read_text()
    assert reader_run.told(runs) in page
    for sheet in ("Acts", "Acts, invented names", "help", "help, de", reader_run.NAMES):
        for a in ("hope", "delta+levels"):
            for b in set(runs) - {"hope", "delta+levels"}:
                a_, b_ = (runs[n]["sheets"][sheet]["moving"] for n in (a, b))
                assert reader_run.lead(a_, b_).endswith(" leads"), (sheet, a, b)
        ours = runs[reader_run.SHIPS]["sheets"][sheet]
        assert all(reader_run.lead(ours["moving"], ours[how]).endswith(" leads") for how in ("held", "emptied")), sheet
    assert reader_run.lead([1.0, 1.2], [1.1, 1.0]).endswith("cannot tell")
    told = {
        n: [f"{reader_run.mean(run['sheets'][s]['moving']):.2f}" for s in ("Acts", reader_run.NAMES)]
        for n, run in runs.items()
    }
    assert (told["delta+levels"], told["delta"], told["attention"]) == (
        ["1.82", "2.17"],
        ["1.94", "4.24"],
        ["2.04", "4.25"],
    )
    acts = reader_run.sheets(net[1])["Acts"][:3]
    again = reader_run.bits(*net, acts).mean(1).tolist()
    assert again == pytest.approx(runs[reader_run.SHIPS]["sheets"]["Acts"]["moving"][:3], abs=2e-3)
