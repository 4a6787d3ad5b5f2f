"""What every test needs: seeded draws, comparisons with a tolerance, derivatives, a minimiser, refusals."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nlbook.errors import NLBookError

F64 = torch.float64


def seeds(*more: int) -> pytest.MarkDecorator:
    """Seed 0 each time, the others with --slow: for what is trained, and says the same on every seed."""
    return pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in more)])


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    """Normal numbers: the same for the same shape and seed, drawn in float64 and then rounded to `dtype`."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def draws(seed: int = 0, dtype: torch.dtype = F64) -> Callable[..., Tensor]:
    """A function that draws the next normal numbers of any shape, for tests in which no two draws may agree."""
    g = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=g, dtype=F64).to(dtype)


def close(a: Any, b: Any, tol: float = 1e-11) -> None:
    """Assert equal shapes and max |a - b| <= tol (1 + max |b|). Empty tensors are equal, NaN is equal to nothing."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    assert a.shape == b.shape, f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    if a.numel():
        difference = (a - b).abs().max()
        assert difference <= tol * (1 + b.abs().max()), f"max difference {difference:.2e}"


def apart(a: Any, b: Any, at_least: float = 1e-3) -> None:
    """Assert that some entry differs by `at_least`: a printed form that should fail does fail."""
    difference = (torch.as_tensor(a) - torch.as_tensor(b)).abs().max()
    assert difference >= at_least, f"max difference {difference:.2e}"


def grad(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of the sum of f(x) by autograd. Entries of a batch do not touch, so each gets its own gradient."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def argmin(f: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The minimiser of a convex function, by Newton's method on autograd's derivatives (one step for a quadratic)."""
    flat, x = lambda z: f(z.reshape(start.shape)).sum(), start.detach().flatten()
    for _ in range(30):
        g = torch.autograd.functional.jacobian(flat, x)
        if g.abs().max() <= 1e-14 * (1 + x.abs().max()):
            break
        x = x - torch.linalg.solve(torch.autograd.functional.hessian(flat, x), g)
    return x.reshape(start.shape)


@contextmanager
def refuses(argument: str, error: type[Exception] = NLBookError) -> Iterator[None]:
    """Assert that the block raises `error` with a message that begins with the argument's name: `argument: got ...`."""
    with pytest.raises(error, match=rf"^{re.escape(argument)}(\W.*)?: got "):
        yield


def in_node(body: str, given: Any, folder: Path, **modules: Path) -> Any:
    """What the JavaScript `body` returns, a function of `input` and of modules by name. Playwright brings the node."""
    import playwright

    lines = [f"import * as {name} from {json.dumps(path.as_uri())};" for name, path in modules.items()]
    lines += ["import { readFileSync } from 'fs';", f"const main = (input) => {{ {body} }};"]
    lines += ["console.log(JSON.stringify(main(JSON.parse(readFileSync(0, 'utf8')))));"]
    script = folder / "run.mjs"
    script.write_text("\n".join(lines))
    node = Path(playwright.__file__).parent / "driver" / "node"
    done = subprocess.run([node, script], input=json.dumps(given), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
