"""Every optimizer of nlbook.optim as a torch optimizer: resume, groups, closures, schedules, refusals, convergence."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from kit import apart, close, rand, refuses
from torch import nn

from nlbook.errors import NLBookError
from nlbook.optim import (
    DGD,
    M3,
    AdamMemory,
    DeepMomentum,
    DeltaMomentum,
    Momentum,
    Muon,
    matrix_groups,
)
from nlbook.optim.base import as_matrix

# name -> (class, options): every class, and every option that changes what the state holds
CASES = {
    "momentum": (Momentum, {"lr": 0.05}),
    "momentum at write": (Momentum, {"lr": 0.05, "lr_at": "write"}),
    "delta bounded": (DeltaMomentum, {"lr": 0.05}),
    "delta clipped": (DeltaMomentum, {"lr": 0.05, "variant": "clipped"}),
    "delta implicit": (DeltaMomentum, {"lr": 0.05, "variant": "implicit"}),
    "delta corrected": (DeltaMomentum, {"lr": 0.05, "variant": "corrected"}),
    "deep": (DeepMomentum, {"lr": 0.2}),
    "deep linear": (DeepMomentum, {"lr": 0.2, "hidden": 0}),
    "deep constant key": (DeepMomentum, {"lr": 0.2, "key": "constant", "hidden": 4}),
    "dgd": (DGD, {"lr": 0.2}),
    "dgd mean": (DGD, {"lr": 0.2, "batch": "mean"}),
    "muon": (Muon, {"lr": 0.02}),
    "muon cubic": (Muon, {"lr": 0.02, "polynomial": "cubic", "ns_steps": 8, "nesterov": False, "scale": "spectral"}),
    "m3 update": (M3, {"lr": 0.01, "period": 4}),
    "m3 grad": (M3, {"lr": 1e-3, "period": 4, "second": "grad"}),
    "m3 none": (M3, {"lr": 0.02, "period": 4, "second": "none"}),
    "m3 fast only": (M3, {"lr": 0.02, "alpha": 0.0}),
    "adam root": (AdamMemory, {"lr": 0.01}),
    "adam square": (AdamMemory, {"lr": 0.1, "target": "square", "bias_correction": False}),
    "adam ridge": (AdamMemory, {"lr": 0.01, "ridge": 1e-3}),
}
CLASSES = sorted({cls for cls, _ in CASES.values()}, key=lambda c: c.__name__)
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.replace(" ", "-"))
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)


def model_of(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).to(dtype)


def data(t: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(100 + t)
    x = torch.randn(6, 5, generator=g, dtype=dtype)
    return x, torch.stack([x[:, 0], x[:, 1] - x[:, 2], x.sum(1).tanh()], 1)


def build(case: str, model: nn.Module, **more):
    cls, options = CASES[case]
    optimizer = cls(model.parameters(), **{**options, **more})
    return optimizer.attach(model) if isinstance(optimizer, DGD) else optimizer


def train(model: nn.Module, optimizer, steps: range, scheduler=None, weight: float = 1.0) -> list[float]:
    losses = []
    for t in steps:
        x, y = data(t)
        optimizer.zero_grad()
        loss = weight * nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@every_case
def test_training_lowers_the_loss(case):
    model = model_of()
    weight = 20.0 if "dgd" in case else 1.0  # DGD erases outputs; the loss must weigh more
    losses = train(model, build(case, model, **({"lr": 0.02} if weight > 1 else {})), range(150), weight=weight)
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])


@every_case
def test_saved_and_resumed_mid_training_continues_bit_for_bit(case):
    model = model_of()
    optimizer = build(case, model)
    train(model, optimizer, range(7))  # 7 steps: inside a period of the slow memory
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    first = train(model, optimizer, range(7, 20))
    file.seek(0)
    saved = torch.load(file, weights_only=True)  # nothing but tensors, numbers and strings
    other = model_of(seed=1)
    other.load_state_dict(saved["model"])
    resumed = build(case, other, lr=123.0)  # the saved options win over the new ones
    resumed.load_state_dict(saved["optimizer"])
    assert train(other, resumed, range(7, 20)) == first
    assert same_weights(model, other)
    fresh = model_of(seed=1)
    fresh.load_state_dict(saved["model"])
    train(fresh, build(case, fresh), range(7, 20))
    stateless = case in {"dgd", "dgd mean"}
    assert same_weights(model, fresh) == stateless  # so the state does matter wherever there is one


@every_case
def test_a_zero_rate_moves_nothing_and_one_group_may_be_frozen(case):
    model = model_of()
    before = copy.deepcopy(model)
    cls, options = CASES[case]
    optimizer = cls([{"params": model[0].parameters(), "lr": 0.0}, {"params": list(model[3].parameters())}], **options)
    if isinstance(optimizer, DGD):
        optimizer.attach(model)
    train(model, optimizer, range(3))
    torch.testing.assert_close(list(model[0].parameters()), list(before[0].parameters()), rtol=0, atol=0)
    assert not torch.equal(model[3].weight, before[3].weight)
    assert torch.equal(model[2].weight, before[2].weight)  # held by no group


@every_case
def test_the_closure_runs_with_gradients_and_its_loss_comes_back(case):
    a, b = model_of(), model_of()
    x, y = data(0)
    opt_a, opt_b = build(case, a), build(case, b)
    for _ in range(3):

        def closure():
            opt_a.zero_grad()
            loss = nn.functional.mse_loss(a(x), y)
            loss.backward()
            return loss

        opt_b.zero_grad()
        expected = nn.functional.mse_loss(b(x), y)
        expected.backward()
        opt_b.step()
        with torch.no_grad():
            assert opt_a.step(closure).item() == expected.item()
    assert same_weights(a, b)


@every_case
def test_schedulers_drive_the_rate(case):
    model, other = model_of(), model_of()
    optimizer, constant = build(case, model), build(case, other)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    train(model, optimizer, range(6), schedule)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    train(other, constant, range(6))
    assert not same_weights(model, other)


@every_case
def test_parameters_without_gradient_are_skipped(case):
    model = model_of()
    model[3].weight.requires_grad_(False)
    before = model[3].weight.clone()
    optimizer = build(case, model)
    train(model, optimizer, range(3))
    assert torch.equal(model[3].weight, before)
    assert model[3].weight not in optimizer.state


@every_case
def test_a_copy_steps_like_the_original(case):
    model = model_of()
    optimizer = build(case, model)
    train(model, optimizer, range(3))
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    if isinstance(twin_optimizer, DGD):
        twin_optimizer.attach(twin)
    assert train(twin, twin_optimizer, range(3, 6)) == train(model, optimizer, range(3, 6))
    assert same_weights(model, twin)
    assert pickle.loads(pickle.dumps(optimizer)).param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@every_class
def test_sparse_and_complex_gradients_are_refused(cls):
    table = nn.Embedding(4, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with refuses("gradient"):
        cls(table.parameters(), lr=0.1).step()
    with refuses("params"):
        cls([torch.zeros(3, dtype=torch.complex64, requires_grad=True)], lr=0.1)


@every_class
@pytest.mark.parametrize("lr", [-1.0, float("nan"), float("inf"), "fast", None, True])
def test_a_bad_rate_is_refused_in_the_constructor_and_in_a_group(cls, lr):
    p = torch.zeros(3, 2, requires_grad=True)
    with refuses("lr"):
        cls([p], lr=lr)
    with refuses("lr"):
        cls([{"params": [p], "lr": lr}])


REFUSED = [
    (Momentum, "keep", 1.0),
    (Momentum, "keep", -0.1),
    (Momentum, "lr_at", "both"),
    (Momentum, "feature", 3),
    (DeltaMomentum, "variant", "exact"),
    (DeltaMomentum, "erase", -1.0),
    (DeltaMomentum, "weight_decay", -1.0),
    (DeepMomentum, "hidden", -1),
    (DeepMomentum, "hidden", 2.0),
    (DeepMomentum, "key", "input"),
    (DeepMomentum, "keep", 0.0),
    (DeepMomentum, "objective", "l1"),
    (DeepMomentum, "normalise", "yes"),
    (DGD, "batch", "sum"),
    (DGD, "reduction", "none"),
    (Muon, "keep", 1.0),
    (Muon, "scale", "max"),
    (Muon, "polynomial", "septic"),
    (Muon, "ns_steps", -1),
    (Muon, "rule", "sgd"),
    (Muon, "adamw_betas", (0.9,)),
    (Muon, "nesterov", 1),
    (M3, "betas", (0.9, 1.0, 0.9)),
    (M3, "alpha", -0.5),
    (M3, "period", 0),
    (M3, "second", "both"),
    (M3, "eps", -1e-8),
    (AdamMemory, "beta", 1.0),
    (AdamMemory, "target", "sign"),
    (AdamMemory, "ridge", -1.0),
]


@pytest.mark.parametrize(("cls", "name", "value"), REFUSED, ids=[f"{c.__name__}-{n}-{v}" for c, n, v in REFUSED])
def test_bad_options_are_refused_by_name(cls, name, value):
    with refuses(name):
        cls([torch.zeros(3, 2, requires_grad=True)], **{name: value})


def test_a_refused_group_leaves_the_optimizer_as_it_was():
    optimizer = Momentum([torch.zeros(2, requires_grad=True)])
    for bad in ({"keep": 2.0}, {"params": [torch.zeros(2, dtype=torch.complex64, requires_grad=True)]}):
        with pytest.raises(NLBookError):
            optimizer.add_param_group({"params": [torch.zeros(3, requires_grad=True)], **bad})
        assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": (p for p in [torch.zeros(3, requires_grad=True)]), "keep": 0.5})  # an iterator
    assert len(optimizer.param_groups[1]["params"]) == 1 and optimizer.param_groups[1]["keep"] == 0.5


def test_the_matrix_rule_refuses_a_vector_and_auto_sends_it_to_adamw():
    p = torch.zeros(4, requires_grad=True)
    with refuses("params"):
        Muon([{"params": [p], "rule": "matrix"}])
    p.grad = torch.ones(4)
    optimizer = M3([p], lr=0.1)
    optimizer.step()
    assert set(optimizer.state[p]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("cls", [Muon, M3])
def test_the_rest_beside_muon_and_m3_is_torch_adamw(cls):
    a, b = (
        torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        for _ in range(2)
    )
    ours = cls([a], lr=0.1, adamw_lr_ratio=0.3, adamw_betas=(0.8, 0.9), weight_decay=0.1)
    theirs = torch.optim.AdamW([b], lr=0.03, betas=(0.8, 0.9), weight_decay=0.1)
    for t in range(10):
        for p, optimizer in ((a, ours), (b, theirs)):
            p.grad = torch.sin(p.detach() + t)
            optimizer.step()
    torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_matrix_groups_sends_embeddings_heads_and_vectors_to_adamw():
    model = nn.ModuleDict(
        {
            "token": nn.Embedding(9, 4),
            "body": nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)),
            "conv": nn.Conv1d(4, 4, 3),
            "head": nn.Linear(4, 9),
        }
    )
    matrices, rest = matrix_groups(model, adamw=("head",), lr=0.1)
    assert {id(p) for p in matrices["params"]} == {id(model["body"][0].weight), id(model["conv"].weight)}
    assert len(rest["params"]) == 7 and matrices["lr"] == 0.1 and "lr" not in rest
    optimizer = Muon([matrices, rest], lr=0.02)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.02]
    with refuses("adamw"):
        matrix_groups(model, adamw=("haed",))
    with refuses("adamw"):
        matrix_groups(model, adamw="head")


@pytest.mark.parametrize("case", ["momentum", "delta corrected", "delta bounded", "deep", "muon", "m3 update"])
def test_every_shape_of_parameter_is_stepped(case):
    params = [
        torch.randn(s, generator=torch.Generator().manual_seed(i)).requires_grad_()
        for i, s in enumerate([(), (1,), (5,), (4, 3), (4, 3), (3, 2, 2), (2, 3, 2, 2)])
    ]
    cls, options = CASES[case]
    optimizer = cls(params, **options)
    for _ in range(30):
        optimizer.zero_grad()
        sum(p.square().sum() for p in params).backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in params)
    assert sum(p.square().sum().item() for p in params) < 60 and as_matrix(params[6]).shape == (2, 12)


@every_case
def test_float64_parameters_stay_float64_and_zero_gradients_are_harmless(case):
    model = model_of(dtype=torch.float64)
    optimizer = build(case, model)
    for _ in range(2):
        optimizer.zero_grad()
        (model(data(0, torch.float64)[0]) * 0).sum().backward()
        optimizer.step()
    assert all(p.dtype == torch.float64 and torch.isfinite(p).all() for p in model.parameters())
    tensors = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert all(v.dtype == torch.float64 and torch.isfinite(v).all() for v in tensors)


def test_parameters_of_different_dtype_share_a_group():
    a, b = torch.ones(3, 2, requires_grad=True), torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    for cls, options in CASES.values():
        if cls is DGD:
            continue
        optimizer = cls([a, b], **options)
        a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
        optimizer.step()
    torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["root", "square", "one"])
def test_a_ridge_of_adams_memory_stands_beside_corrected_moments(target):
    """After one step the corrected moments are g and g^2 (eq. 102)."""
    g = rand(5)
    p = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    p.grad = g
    AdamMemory([p], lr=0.1, target=target, ridge=0.5).step()
    aim = {"root": g.abs(), "square": g.square(), "one": torch.ones_like(g)}[target]
    close(p, -0.1 * g * aim / (g.square() + 0.5))


def test_every_layer_of_a_deep_momentum_forgets():
    p = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    optimizer = DeepMomentum([p], hidden=5, keep=0.5)
    p.grad = rand(4, 3)
    optimizer.step()
    before = {n: v.clone() for n, v in optimizer.state[p].items()}
    p.grad = torch.zeros(4, 3, dtype=torch.float64)
    optimizer.step()
    weights = [n for n, v in before.items() if v.ndim == 2]
    assert len(weights) == 2
    for n in weights:
        close(optimizer.state[p][n], 0.5 * before[n])


# ---- low precision, zero, and every size of gradient ----


def stepped(case: str, grad: torch.Tensor, steps: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """How far a zero weight has walked after `steps` steps on one gradient."""
    cls, options = CASES[case]
    p = torch.zeros(grad.shape, dtype=dtype, requires_grad=True)
    optimizer = cls([p], **options)
    for _ in range(steps):
        p.grad = grad.to(dtype)
        optimizer.step()
    return p.detach()


@pytest.mark.parametrize("case", ["muon", "m3 update", "m3 grad", "m3 none"])
def test_a_layer_whose_gradients_have_become_zero_comes_to_rest(case):
    cls, options = CASES[case]
    p = rand(8, 4, dtype=torch.float32).requires_grad_()
    optimizer = cls([p], **{**options, "period": 1} if cls is M3 else options)
    for t in range(2000):
        p.grad = rand(8, 4, seed=1, dtype=torch.float32) if t == 0 else torch.zeros(8, 4)
        before = p.detach().clone()
        optimizer.step()
    assert torch.isfinite(p).all() and torch.equal(p.detach(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("dgd")])
def test_half_precision_is_a_float32_step_rounded_once(case, dtype):
    for size in (0.0, 1e-4, 1e-2, 100.0):
        grad = (size * rand(6, 4, dtype=torch.float32)).to(dtype)
        assert torch.equal(stepped(case, grad, 1, dtype), stepped(case, grad.float(), 1).to(dtype)), size
        assert case == "delta corrected" or torch.isfinite(stepped(case, grad, 5, dtype)).all(), size


@pytest.mark.parametrize("case", ["momentum", "muon", "m3 update", "adam root", "deep"])
def test_half_precision_resumes_bit_for_bit_with_its_float32_state(case):
    cls, options = CASES[case]
    weights = []
    for cut in (False, True):
        p = torch.ones(6, 4, dtype=torch.bfloat16, requires_grad=True)
        optimizer = cls([p], **options)
        for t in range(9):
            if cut and t == 5:
                file = io.BytesIO()
                torch.save(optimizer.state_dict(), file)
                file.seek(0)
                optimizer = cls([p], **options)
                optimizer.load_state_dict(torch.load(file, weights_only=True))
            p.grad = rand(6, 4, seed=t, dtype=torch.bfloat16)
            optimizer.step()
        weights.append(p.detach().clone())
        assert all(v.dtype == torch.float32 for v in optimizer.state[p].values() if isinstance(v, torch.Tensor))
    assert torch.equal(*weights)


@pytest.mark.parametrize("case", ["muon", "muon cubic", "m3 update", "m3 none"])
def test_orthogonal_steps_do_not_depend_on_the_size_of_the_gradient(case):
    grad, want = rand(6, 4, dtype=torch.float32), stepped(case, rand(6, 4, dtype=torch.float32))
    for exponent in (-30, -18, -6, 6, 18, 30, 36):
        close(stepped(case, grad * 10.0**exponent), want, 1e-5)
    assert not stepped(case, grad * 1e-42).any()  # below the smallest normal number: zero


@pytest.mark.parametrize("case", ["deep", "deep linear"])
def test_deep_momentum_scales_with_the_gradient(case):
    grad, want = rand(6, 4, dtype=torch.float32), stepped(case, rand(6, 4, dtype=torch.float32))
    for exponent in (-30, -20, 20, 30):
        close(stepped(case, grad * 10.0**exponent) / 10.0**exponent, want, 1e-5)


@every_case
def test_gradients_of_any_size_leave_finite_weights(case):
    if case.startswith("dgd") or case == "delta corrected" or case == "adam square":
        pytest.skip("its docstring promises no bound")
    for exponent in (-44, -30, -10, 10, 18):
        assert torch.isfinite(stepped(case, rand(6, 4, dtype=torch.float32) * 10.0**exponent)).all(), exponent


# ---- states and options from elsewhere ----


def test_the_state_of_another_optimizer_is_refused_and_an_older_one_takes_the_defaults():
    p = torch.ones(4, 3, requires_grad=True)
    p.grad = torch.ones(4, 3)
    adamw = torch.optim.AdamW([p])
    adamw.step()
    optimizer = Muon([p])
    with refuses("state_dict"):
        optimizer.load_state_dict(adamw.state_dict())
    optimizer.step()
    old = optimizer.state_dict()
    del old["param_groups"][0]["polynomial"]
    again = Muon([p])
    again.load_state_dict(old)
    again.step()
    assert again.param_groups[0]["polynomial"] == "quintic"


def test_numpys_numbers_are_numbers_and_a_tensor_is_no_rate():
    p = torch.ones(4, 3, requires_grad=True)
    p.grad = torch.ones(4, 3)
    optimizer = M3([p], lr=np.float32(0.5), period=np.int64(4))
    assert type(optimizer.param_groups[0]["lr"]) is float and type(optimizer.param_groups[0]["period"]) is int
    with refuses("lr"):
        M3([p], lr=torch.tensor(0.1))
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    with refuses("lr"):
        optimizer.step()


def test_a_shared_head_is_found_by_each_of_its_names():
    model = nn.ModuleDict(
        {"embed": nn.Embedding(5, 4), "body": nn.Linear(4, 4), "lm_head": nn.Linear(4, 5, bias=False)}
    )
    model["lm_head"].weight = model["embed"].weight
    groups = matrix_groups(model, adamw=("lm_head",))
    assert [g["rule"] for g in groups] == ["matrix", "adamw"]
    assert any(p is model["embed"].weight for p in groups[1]["params"]) and len(groups[1]["params"]) == 2


# ---- what DGD records ----


class ByKeyword(nn.Module):
    """Two layers, the second called with its input by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(input=self.first(x))


@pytest.mark.parametrize("batch", ["joint", "mean"])
def test_dgd_by_keyword_without_samples_and_beside_other_gradients(batch):
    x = rand(8, 6)
    plain = ByKeyword().double()
    asked, empty = copy.deepcopy(plain), copy.deepcopy(plain)
    loss = lambda model: model(x).square().mean()  # noqa: E731
    for model in (plain, asked):
        optimizer = DGD(model.parameters(), batch=batch).attach(model)
        if model is asked:  # gradients that somebody else asked for leave no trace
            torch.autograd.grad(loss(model), list(model.parameters()))
            value = loss(model)
            torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
            value.backward()
        else:
            loss(model).backward()
        optimizer.step()
    assert same_weights(plain, asked)
    optimizer = DGD(empty.parameters(), batch=batch).attach(empty)
    before = copy.deepcopy(empty)
    empty(x[:0]).sum().backward()
    optimizer.step()
    assert same_weights(empty, before)


@pytest.mark.parametrize("scale", [1024.0, 1e-3])
@pytest.mark.parametrize("batch", ["joint", "mean"])
def test_dgd_is_the_same_under_a_grad_scaler_and_counts_clipped_gradients(batch, scale):
    x, y = rand(8, 6, dtype=torch.float32), rand(8, 2, seed=1, dtype=torch.float32)
    plain = nn.Linear(6, 2)
    scaled, clipped = copy.deepcopy(plain), copy.deepcopy(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    for model in (plain, scaled, clipped):
        optimizer = DGD(model.parameters(), lr=0.1, batch=batch).attach(model)
        loss = nn.functional.mse_loss(model(x), y)
        if model is scaled:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
        else:
            loss.backward()
            if model is clipped:
                model.weight.grad.mul_(0.5)
            optimizer.step()
    close(scaled.weight, plain.weight, 1e-5)
    apart(clipped.weight, plain.weight)
