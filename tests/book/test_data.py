"""The data that comes with the book."""

from __future__ import annotations

import pytest
import torch
from kit import refuses

from nlbook.book import data
from nlbook.book.data import continual, haystack, language, languages, lives, mad, scales, speakers
from nlbook.book.data.digits import load_digits
from nlbook.errors import NLBookError
from nlbook.tree import tensors


def test_every_file_has_a_checksum_and_keeps_it():
    listed = data.checksums()
    assert "digits.npz" in listed
    on_disk = {p.name for p in data.folder().iterdir() if p.is_file()} - {"README.md", "checksums.txt"}
    assert {name for name in on_disk if not name.endswith(".py")} == set(listed)
    for name in listed:
        assert data.path(name).stat().st_size < 2_000_000
        assert name in (data.folder() / "README.md").read_text()


def test_digits_are_split_scaled_and_whole():
    d = load_digits()
    assert d.x_train.shape == (1438, 64) and d.x_test.shape == (359, 64)
    assert d.x_train.dtype == torch.float32 and d.y_test.dtype == torch.int64
    assert d.x_train.min() == 0 and d.x_train.max() == 1
    counts = torch.bincount(torch.cat([d.y_train, d.y_test]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as the UCI card lists the test part


def test_the_seed_alone_decides_the_split():
    a, b, c = load_digits(seed=3), load_digits(seed=3), load_digits(seed=4)
    assert torch.equal(a.x_test, b.x_test) and not torch.equal(a.x_test, c.x_test)

    def whole(d):
        return torch.cat([d.x_train, d.x_test]).sum(0)

    assert torch.allclose(whole(a), whole(c))


def test_labels_belong_to_their_images():
    """A nearest-class-mean classifier does far better than chance on held-out images, and not on shuffled labels."""
    d = load_digits()

    def accuracy(labels):
        means = torch.stack([d.x_train[labels == c].mean(0) for c in range(10)])
        return float((torch.cdist(d.x_test, means).argmin(1) == d.y_test).float().mean())

    assert accuracy(d.y_train) > 0.85
    assert accuracy(d.y_train[torch.randperm(1438, generator=torch.Generator().manual_seed(0))]) < 0.4


@pytest.mark.parametrize("arguments", [{"test": 0.0}, {"test": 1.5}, {"seed": 0.5}])
def test_bad_arguments_are_named(arguments):
    with refuses(next(iter(arguments))):
        load_digits(**arguments)


def test_a_changed_missing_or_unknown_file_is_refused_clearly(monkeypatch, tmp_path):
    digest = data.checksums()["digits.npz"]
    (tmp_path / "checksums.txt").write_text(f"{digest}  digits.npz\n{digest}  gone.npz\n")
    (tmp_path / "digits.npz").write_bytes(data.path("digits.npz").read_bytes()[:-1])
    monkeypatch.setattr(data, "folder", lambda: tmp_path)
    with pytest.raises(NLBookError, match=r"digits\.npz: got sha256 .* expected .*git checkout"):
        load_digits()
    with pytest.raises(NLBookError, match=r"gone\.npz: not found"):
        data.path("gone.npz")
    with refuses("name"):
        data.path("mnist")


@pytest.mark.parametrize(
    "sample",
    [
        lambda: continual.stream("facts"),
        lambda: haystack.Facts().sample(8, 40, 0),
        lambda: language.TimescaleLanguage().sample(8, 40, 0),
        lambda: languages.TwoLanguages().sample(8, 0),
        lambda: lives.Lives().sample(8, 0),
        lambda: mad.MAD("recall").sample(8, 40, 0),
        lambda: scales.Scales().sample(8, 0),
        lambda: speakers.Speakers().sample(8, 0),
    ],
)
def test_a_seed_means_the_same_tokens_whatever_torchs_default_precision_is(sample, request):
    one = tensors(sample())
    request.getfixturevalue("float64")
    assert all(torch.allclose(one[name].double(), x.double(), atol=1e-6) for name, x in tensors(sample()).items())
