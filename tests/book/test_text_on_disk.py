"""Tokens on disk, and the text of the reader's own Python: small local data, no download."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlbook.book.data import corpus, shards
from nlbook.book.ledger.runs import text_lm
from nlbook.errors import NLBookError
from nlbook.train import TrainingStopped

DOC = 9


def store(folder, documents, **kw):
    return shards.Tokens(shards.write(folder, documents, vocabulary=10, document=DOC, **kw))


def flat(documents) -> list[int]:
    return [t for d in documents for t in (DOC, *d)]


# ---- writing and reading ---------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), max_size=7), min_size=1, max_size=6), st.integers(1, 9), st.data())
def test_shards_hold_what_was_written_wherever_they_are_cut(tmp_path_factory, documents, shard_tokens, data):
    tokens, want = store(tmp_path_factory.mktemp("t") / "s", documents, shard_tokens=shard_tokens), flat(documents)
    assert len(tokens) == len(want) and tokens[:].tolist() == want and tokens.documents == len(documents)
    assert all(len(m) == shard_tokens for m in tokens.maps[:-1]) and len(tokens.maps[-1]) <= shard_tokens
    a, b = (data.draw(st.integers(-12, len(want) + 3)) for _ in range(2))
    assert tokens[a:b].tolist() == want[a:b] and tokens[a:b].dtype == torch.int64
    i = data.draw(st.integers(-len(want), len(want) - 1))
    assert tokens[i] == want[i]


def test_two_bytes_a_token_or_four_and_all_of_it_mapped(tmp_path):
    small = shards.Tokens(shards.write(tmp_path / "a", [[65535]], vocabulary=1 << 16, document=0))
    large = shards.Tokens(shards.write(tmp_path / "b", [[65536]], vocabulary=(1 << 16) + 1, document=0))
    assert (small[1], large[1]) == (65535, 65536)
    sizes = [(t.folder / "tokens-00000.bin").stat().st_size for t in (small, large)]
    assert sizes == [16 + 2 * 2, 16 + 2 * 4]
    assert type(small.maps[0]).__name__ == "memmap" and not small.maps[0].flags.writeable


def test_documents_come_one_by_one(tmp_path):
    """A stream is written as it comes: never more than a shard and a document is held."""
    alive = []

    def documents():
        for i in range(50):
            alive.append(len(list((tmp_path / "s").glob("*.bin"))))
            yield [i % 9] * 10

    store(tmp_path / "s", documents(), shard_tokens=44)
    assert alive[0] == 0 and alive[-1] == 12  # shards appear while documents still come


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([[1, 10]], "got ids in 1 .. 10 in document 0, expected 0 .. 9"),
        ([[1], [DOC]], "the document token 9 inside"),
        ([], "got none, expected at least one"),
        ([[-1]], "got ids in -1"),
    ],
)
def test_bad_documents_are_refused_and_leave_no_card(tmp_path, documents, said):
    with pytest.raises(NLBookError, match=said):
        store(tmp_path / "s", documents)
    with pytest.raises(NLBookError, match=r"without a card.json, expected a folder that .* has finished"):
        shards.Tokens(tmp_path / "s")


def test_a_finished_folder_is_not_written_over(tmp_path):
    store(tmp_path, [[1]])
    with pytest.raises(NLBookError, match="this one is finished"):
        store(tmp_path, [[2]])


def test_what_was_cut_or_changed_is_noticed(tmp_path):
    folder = store(tmp_path, [[1, 2, 3]]).folder
    file = folder / "tokens-00000.bin"
    good = file.read_bytes()
    shards.Tokens(folder, verify=True)
    file.write_bytes(good[:-1])
    with pytest.raises(NLBookError, match=r"got 23 bytes, expected 24: the file was cut or changed"):
        shards.Tokens(folder)
    file.write_bytes(b"X" + good[1:])
    with pytest.raises(NLBookError, match="expected the header of a shard"):
        shards.Tokens(folder)
    file.write_bytes(good[:-1] + b"\x01")
    shards.Tokens(folder)  # sizes and header are right ...
    with pytest.raises(NLBookError, match="got sha256"):
        shards.Tokens(folder, verify=True)  # ... the bytes are not
    file.unlink()
    with pytest.raises(NLBookError, match="got no such file"):
        shards.Tokens(folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(NLBookError, match="format: got 99, expected 1"):
        shards.Tokens(folder)
    (folder / "card.json").write_text("{")
    with pytest.raises(NLBookError, match="cannot be read"):
        shards.Tokens(folder)


# ---- windows ---------------------------------------------------------------------------------------------------------
def test_windows_are_a_function_of_seed_and_step(tmp_path):
    tokens = store(tmp_path, [[i % 9 for i in range(40)]] * 5, shard_tokens=33)
    at, again, other = (shards.windows(tokens, batch=4, length=20, seed=s) for s in (1, 1, 2))
    assert torch.equal(at(7).tokens, again(7).tokens) and not torch.equal(at(7).tokens, other(7).tokens)
    assert not torch.equal(at(7).tokens, at(8).tokens)
    for step in range(20):
        w = at(step)
        assert torch.equal(w.reset, w.tokens == DOC) and w.tokens.shape == (4, 20)
    assert any(at(s).reset.any() for s in range(20))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    at(3)
    assert torch.equal(before, torch.random.get_rng_state())  # the global generator is not touched


def test_every_start_can_be_drawn_the_last_among_them(tmp_path):
    tokens = store(tmp_path, [[1, 2, 3, 4]])  # five tokens, windows of four: two starts
    at = shards.windows(tokens, batch=64, length=4, seed=0)
    assert {int(r[0]) for r in at(0).tokens} == {DOC, 1}


def test_a_stream_reads_every_prediction_once_and_begins_again(tmp_path):
    tokens = store(tmp_path, [list(range(9)) * 5])  # 46 tokens
    at = shards.stream(tokens, batch=2, length=5)  # each reader has 23, five windows of 4 predictions
    text = tokens[:].tolist()
    for reader, start in enumerate((0, 23)):
        seen = [t for step in range(5) for t in at(step).tokens[reader, 1:].tolist()]
        assert seen == text[start + 1 : start + 21]
    assert torch.equal(at(5).tokens, at(0).tokens)
    with pytest.raises(NLBookError, match="batch, length"):
        shards.stream(tokens, batch=30, length=5)


def test_an_evaluation_grades_each_token_at_most_once(tmp_path):
    tokens = store(tmp_path, [list(range(9)) * 5])
    rows = [r for w in shards.in_order(tokens, length=6, batch=4) for r in w.tokens.tolist()]
    assert [t for r in rows for t in r[1:]] == tokens[:].tolist()[1 : 1 + 5 * len(rows)] and len(rows) == 9
    few = [r for w in shards.in_order(tokens, length=6, most=3) for r in w.tokens.tolist()]
    assert few == [rows[0], rows[3], rows[6]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t: shards.windows(t, batch=0, length=2, seed=0), "batch: got 0"),
        (lambda t: shards.windows(t, batch=1, length=99, seed=0), "length: got 99, expected an int in 2 .. 3"),
        (lambda t: list(shards.in_order(t, length=2, most=0)), "most: got 0"),
        (lambda t: t[::2], "slice: got step 2"),
    ],
)
def test_bad_requests_are_refused(tmp_path, call, said):
    with pytest.raises(NLBookError, match=said):
        call(store(tmp_path, [[1, 2]]))


def test_past_the_end_there_is_nothing(tmp_path):
    tokens = store(tmp_path, [[1, 2]])
    with pytest.raises(IndexError, match=r"got 3, expected -3 \.\. 2"):
        tokens[3]
    assert list(tokens) == [DOC, 1, 2] and "3 tokens, 1 documents, 1 shards" in repr(tokens)


# ---- the corpus ------------------------------------------------------------------------------------------------------
@pytest.fixture
def library(tmp_path):
    """A standard library of 60 small files, a test folder and a file that is no text."""
    root = tmp_path / "lib"
    for i in range(60):
        file = root / ("pkg" if i % 3 else ".") / f"m{i}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def f{i}(x):\n    return x + {i}  # été\n", encoding="utf-8")
    (root / "test").mkdir()
    (root / "test" / "test_a.py").write_text("x = 1\n")
    (root / "latin.py").write_bytes(b"# \xe9t\xe9\n")
    return root


def test_the_readers_own_library_is_text_without_its_tests():
    files = dict(corpus.standard_library())
    assert len(files) > 300 and "json/decoder.py" in files and list(files) == sorted(files)
    assert not any("test" in name.split("/")[:-1] or "site-packages" in name for name in files)


def test_files_go_to_one_part_by_their_name(library, tmp_path):
    parts = corpus.prepare(tmp_path / "t", root=library)
    names = [f.name for f in corpus.standard_library(library)]
    assert "latin.py" not in names and not [n for n in names if n.startswith("test/")] and len(names) == 60
    valid = [n for n in names if corpus.is_valid(n)]
    assert 0 < len(valid) < 20 and parts["valid"].documents == len(valid)
    assert parts["train"].documents == 60 - len(valid)
    assert corpus.is_valid("json/decoder.py") == corpus.is_valid("json/decoder.py")


def test_the_hash_is_of_names_and_text(library):
    files = list(corpus.standard_library(library))
    said = corpus.fingerprint(files)
    assert said == corpus.fingerprint(list(corpus.standard_library(library)))
    changed = [files[0]._replace(text=files[0].text + " "), *files[1:]]
    moved = [files[0]._replace(name="a" + files[0].name), *files[1:]]
    assert len({said, corpus.fingerprint(changed), corpus.fingerprint(moved), corpus.fingerprint(files[1:])}) == 4
    shifted = [corpus.File("ab", "c"), corpus.File("a", "bc")]
    assert corpus.fingerprint(shifted[:1]) != corpus.fingerprint(shifted[1:])


@pytest.mark.parametrize("kind", ["bytes", "pairs"])
def test_every_text_comes_back(library, tmp_path, kind):
    if kind == "pairs":
        pytest.importorskip("tokenizers")
    parts = corpus.prepare(tmp_path / "t", kind=kind, vocabulary=300, root=library)
    tokenizer = corpus.load_tokenizer(tmp_path / "t")
    assert parts["train"].vocabulary == tokenizer.vocabulary == (257 if kind == "bytes" else 300)
    for text in ("def f(x):\n\treturn x  # été 你好 🙂\n", "", " ", "<document>", "\x00\r\n"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.document not in ids
        assert int(tokenizer.sizes()[ids].sum()) == len(text.encode())
    files = [f for f in corpus.standard_library(library) if corpus.is_valid(f.name)]
    assert parts["valid"][:].tolist() == [t for f in files for t in (tokenizer.document, *tokenizer.encode(f.text))]
    assert parts["valid"].about["bytes"] == sum(len(f.text.encode()) for f in files)


def test_a_second_call_only_opens_and_other_text_is_refused(library, tmp_path, monkeypatch):
    corpus.prepare(tmp_path / "t", root=library)
    monkeypatch.setattr(shards, "write", None)
    corpus.prepare(tmp_path / "t", root=library)
    file = next(library.rglob("m1.py"))
    file.write_text(file.read_text() + "# more\n")
    with pytest.raises(NLBookError, match="folder: got t/"):
        corpus.prepare(tmp_path / "t", root=library)


def test_most_bounds_both_parts(library, tmp_path):
    whole = corpus.prepare(tmp_path / "a", root=library)
    part = corpus.prepare(tmp_path / "b", root=library, most=1000)
    assert 1000 <= part["train"].about["bytes"] < 1100 < whole["train"].about["bytes"]


def test_without_the_package_byte_pairs_say_what_to_install(library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(NLBookError, match=r"pip install 'nlbook\[text\]', or use bytes"):
        corpus.prepare(tmp_path / "t", kind="pairs", root=library)
    assert corpus.prepare(tmp_path / "u", root=library)["train"].vocabulary == 257


def test_a_library_too_small_for_two_parts_is_refused(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("x = 1\n")
    with pytest.raises(NLBookError, match="root: got no file for"):
        corpus.prepare(tmp_path / "t", root=tmp_path / "lib")
    with pytest.raises(NLBookError, match="kind: got 'words'"):
        corpus.prepare(tmp_path / "t", kind="words")


# ---- the experiment --------------------------------------------------------------------------------------------------
SIZE = {"dim": 16, "layers": 1, "hidden": 16, "periods": [8, 32]}
SHORT = {"steps": 30, "batch": 4, "length": 32, "held": 8, "held_length": 64, "most": 200_000}


def test_models_have_one_size_learn_and_repeat_themselves():
    """A model that has read 8 kB is better than a guess (8 bits), and a run repeats itself to the bit."""
    found = {m: text_lm.run(method=m, lr=0.01, seed=0, **SHORT, **SIZE) for m in ("Hope", "gated delta", "Transformer")}
    sizes = [f["parameters"] for f in found.values()]
    assert max(sizes) - min(sizes) <= 2 * 16
    assert all(3 < f["bits"] < 8 for f in found.values())
    few = [text_lm.run(method="Hope", lr=0.01, seed=1, **SHORT | {"steps": 3}, **SIZE) for _ in range(2)]
    assert few[0] == few[1] and few[0]["bits"] > found["Hope"]["bits"]


def test_counts_are_the_entropy_of_counts():
    one, two = (text_lm.run(method=m, lr=0, seed=0, **SHORT | {"steps": 200}) for m in text_lm.COUNTS)
    assert 4 < one["bits"] < 5.2 and two["bits"] < one["bits"] - 0.5
    windows = [torch.tensor([[256, 97, 98, 97, 98]])]
    table = text_lm.counted(windows, 1)
    assert table[97].argmax() == 98 and table[98].argmax() == 97
    paid = text_lm.surprise(table, windows[0], 1)
    assert paid.shape == (1, 4) and bool((paid[:, 1:] < 2).all())


def test_bits_are_per_byte_and_the_document_token_is_free():
    paid, reset = torch.full((2, 9), 3 * torch.log(torch.tensor(2.0)).item()), torch.zeros(2, 10, dtype=torch.bool)
    paid[0, 4], reset[0, 5] = 100.0, True  # the price of a document token
    g = text_lm.graded(paid.double(), reset, 6)
    assert all(abs(v - 3) < 1e-6 for v in g.values()) and set(g) == {"bits", "bits 1", "bits 2", "bits 3", "bits 4"}


def test_a_run_that_diverges_counts_as_a_guess(monkeypatch):
    def stops(*args, **kw):
        raise TrainingStopped("the loss is nan")

    monkeypatch.setattr(text_lm, "train", stops)
    r = text_lm.run(method="gated delta", lr=1.0, seed=0, **SHORT, **SIZE)
    assert all(abs(r[k] - math.log2(257)) < 1e-12 for k in r if k.startswith("bits")) and r["parameters"] > 0


def test_a_method_that_is_none_is_refused():
    with pytest.raises(NLBookError, match="method: got 'LSTM', expected one of Hope, Transformer"):
        text_lm.run(method="LSTM", lr=0.1, seed=0, steps=1)
