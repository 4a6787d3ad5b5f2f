"""Facts that live for ever, for a document, for a moment (nlbook.book.data.lives)."""

import pytest
import torch

from nlbook.book.data.lives import KINDS, Lives
from nlbook.errors import NLBookError


def test_samples_hold_what_the_language_says():
    language = Lives(slip=1e-9, pairs=60)
    data = language.sample(4, seed=1)
    assert data.tokens.shape == (4, 8 * language.document_length) and int(data.tokens.max()) == language.boundary
    documents = data.tokens.view(4, 8, -1)
    assert (documents[..., 0] == language.boundary).all()
    assert language.words(documents[0, 0, :3]).startswith("| ")
    for stream in documents:
        for key in range(6):
            said = [[int(v) for k, v in doc[1:].view(-1, 2) if k == key] for doc in stream]
            inside = max(len(set(values)) for values in said)
            everywhere = len({v for values in said for v in values})
            if key < 2:
                assert everywhere == 1  # A, B: one value for ever
            elif key < 4:
                assert inside == 1 < everywhere  # d, e: one a document
            else:
                assert inside > 1  # x, y: change under way


def test_the_optimum_is_paid_on_average_by_nobody_better():
    """The frequency of the written value among equals the belief: the filter is calibrated, so it is the optimum."""
    language = Lives()
    data = language.sample(256, seed=3)
    p = (-data.optimum[data.graded]).exp()
    for low, high in ((0.0, 0.05), (0.1, 0.2), (0.5, 0.7), (0.9, 1.0)):
        assert ((p >= low) & (p <= high)).any()
    # calibration: E[1 / p(written)] over what is written equals the number of values, if and only if p is the truth
    assert float((1 / p).mean()) == pytest.approx(language.values, rel=0.03)
    by = {name: float(data.optimum[data.kind == i].mean()) for i, name in enumerate(KINDS)}
    assert by["for ever"] < by["document"] < by["moment"] < torch.tensor(8.0).log()


def test_bad_settings_are_refused():
    for name, bad in (
        ("slip", {"slip": 0.0}),
        ("hazard", {"hazard": 2.0}),
        ("keys", {"keys": "AB"}),
        ("values", {"values": 1}),
    ):
        with pytest.raises(NLBookError, match=name):
            Lives(**bad)
