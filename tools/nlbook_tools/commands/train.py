"""`nlbook train`: one run, described by one file; alone, or on many processes under torchrun."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click


def batches(data: dict[str, Any], seed: int) -> tuple[Callable[[int], Any], dict[str, Any]]:
    """step -> the whole batch of that step, of a language of the book or of text files as bytes; and what the model
    has to know of them."""
    import numpy as np

    from nlbook.book.data.languages import TwoLanguages
    from nlbook.book.data.lives import Lives
    from nlbook.book.data.python_text import DOCUMENT, VOCABULARY, windows
    from nlbook.book.data.scales import Scales
    from nlbook.book.data.speakers import Speakers
    from nlbook.errors import need_choice

    size = data.pop("batch", 8)
    if text := data.pop("text", None):
        rows = [np.frombuffer(Path(p).read_bytes(), np.uint8).astype(np.uint16) for p in text]
        tokens = np.concatenate([part for row in rows for part in (np.array([DOCUMENT], np.uint16), row)])
        return windows(tokens, batch=size, seed=seed, **data), {"vocabulary": VOCABULARY}
    languages = {kind.__name__.lower(): kind for kind in (Lives, Scales, Speakers, TwoLanguages)}
    name = data.pop("language", None)
    need_choice("data.language", name, languages)
    language: Any = languages[name](**data)
    known = {"vocabulary": language.vocabulary, "reset_token": getattr(language, "boundary", None)}
    return lambda step: language.sample(size, 10**6 * seed + step), known


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(config: Path) -> None:
    """Train the Hope that CONFIG (a TOML file) describes, and keep it in the run's folder.

    [model] has the fields of HopeConfig; [data] `language` (lives, scales, speakers, twolanguages) with its fields, or
    `text`, a list of files, and `length`; and `batch`, of all processes together; [train] `folder`, `steps`, `lr`,
    `optimizer` (adamw, muon, m3), `dtype`, and what else nlbook.train.train takes. A run that stopped goes on.

    Many processes: torchrun --nproc-per-node 4 --no-python nlbook train CONFIG
    """
    import torch
    import torch.distributed as dist

    from nlbook import optim
    from nlbook.errors import NLBookError, need, need_choice
    from nlbook.hope import Hope, HopeConfig
    from nlbook.ranks import leads
    from nlbook.train import adamw, train
    from nlbook.tree import tree_map

    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun started this process
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        told = tomllib.loads(config.read_text(encoding="utf-8"))
        need(set(told) == {"model", "data", "train"}, "tables", sorted(told), "model, data and train")
        how = told["train"]
        need({"steps", "folder"} <= set(how), "train", sorted(how), "steps and folder among its keys")
        folder, steps, seed, lr = Path(how.pop("folder")), how.pop("steps"), how.get("seed", 0), how.pop("lr", 3e-3)
        dtype, kind = how.pop("dtype", "float32"), how.pop("optimizer", "adamw")
        need_choice("train.dtype", dtype, ("float32", "float64", "bfloat16"))
        need_choice("train.optimizer", kind, ("adamw", "muon", "m3"))
        draw, known = batches(told["data"], seed)
        model = Hope(HopeConfig(**{"seed": seed, **known, **told["model"]})).to(device, getattr(torch, dtype))
        groups = partial(optim.matrix_groups, adamw=("embedding",))
        makers: dict[str, Any] = {
            "adamw": adamw,
            "muon": lambda m, r: optim.Muon(groups(m), r),
            "m3": lambda m, r: optim.M3(groups(m), r),
        }
        history = train(
            model, lambda step: tree_map(lambda t: t.to(device), draw(step)), steps,
            optimizer=makers[kind](model, lr), folder=folder, label=config.stem, **how,
        )  # fmt: skip
    except (NLBookError, TypeError, OSError, tomllib.TOMLDecodeError) as e:
        raise click.ClickException(f"{config.name}: {e}") from e
    if leads():
        model.cpu().save(folder)
        click.echo(f"{history.steps} steps, loss {history.tail():.4f} (mean of the last 20): {folder}")
    if dist.is_initialized():
        dist.destroy_process_group()
