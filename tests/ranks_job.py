"""What test_ranks.py runs in one process and in two, in a module that a spawned process can import."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from nlbook import optim
from nlbook.book.data.scales import Scales
from nlbook.errors import NLBookError
from nlbook.hope import Hope, HopeConfig
from nlbook.ranks import whole, world
from nlbook.train import adamw, constant, train

LANGUAGE = Scales(keys=4, values=3, documents=2, pairs=4)
CONFIG = HopeConfig(
    vocabulary=LANGUAGE.vocabulary, dim=8, layers=1, hidden=8, periods=(6, 64), reset_token=LANGUAGE.boundary,
    options={"chunk": 4, "other_chunk": 4},
)  # fmt: skip
HALF, STEPS = 7, 20


def optimizer(name: str, model: Hope) -> torch.optim.Optimizer:
    if name == "adamw":
        return adamw(model, 1e-2)
    return {"muon": optim.Muon, "m3": partial(optim.M3, period=4)}[name](
        optim.matrix_groups(model, adamw=("embedding",)), lr=1e-2
    )


def batch(step: int) -> Any:
    return LANGUAGE.sample(5, step)  # two processes read two and three of its rows


def fresh() -> Hope:
    return Hope(CONFIG).double()


def run(name: str, steps: int, folder: Path, model: Hope | None = None) -> dict[str, Any]:
    """Losses, norms and weights after so many steps in all; goes on from what lies in the folder."""
    model = fresh() if model is None else model
    opt = optimizer(name, model)
    done = train(model, batch, steps, optimizer=opt, schedule=constant, clip=0.5, folder=folder, save_every=HALF)
    return {
        "loss": done.loss,
        "norm": done.norm,
        "weights": torch.cat([whole(p).detach().flatten() for p in model.parameters()]),
    }


def refused(call: Any) -> str:
    try:
        call()
    except NLBookError as e:
        return str(e)
    return "nothing"


def both(folder: Path) -> dict[Any, Any]:
    """One step, and twenty, of each optimizer."""
    runs = {
        (name, n): run(name, n, folder / f"{name}-{world()}") for name in ("adamw", "muon", "m3") for n in (1, STEPS)
    }
    return dict(runs)


def process(rank: int, n: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=n)
    said = both(folder)
    said["from one"] = run("m3", STEPS, folder / "from-one")
    run("m3", HALF, folder / "from-two")
    for steps in (3, HALF):  # begun, and begun again from the file
        model = fresh()
        fully_shard(model, mesh=init_device_mesh("cpu", (n,)))
        said["sharded"] = run("m3", steps, folder / "sharded", model)
    model = fresh()
    tokens = LANGUAGE.sample(5, 0).tokens
    plain = DistributedDataParallel(model)
    said["plain"] = refused(lambda: plain(tokens))
    with torch.no_grad():
        plain(tokens)  # reading needs no gradients
    said["given"] = refused(lambda: train(plain, batch, 1))
    said["few"] = refused(lambda: train(model, lambda step: LANGUAGE.sample(1, step), 1))
    said["other"] = refused(lambda: train(model, lambda step: LANGUAGE.sample(5 + 2 * rank, step), 1))
    said["folders"] = refused(lambda: run("m3", STEPS, folder / ("from-two" if rank else "nothing")))
    torch.save(said, folder / f"said-{rank}.pt")
    dist.destroy_process_group()
