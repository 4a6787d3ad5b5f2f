"""`nlbook real`: SmolLM2 with levels in its last MLPs, taught by typing. `make real` installs what it needs."""

from __future__ import annotations

import click


@click.command()
@click.option("--measure", is_flag=True, help="Measure anew what nlbook/book/real/taught.json holds; some minutes.")
def command(measure: bool) -> None:
    """Teach a trained language model by typing: what you type is said to it once.

    Its last ten MLPs are levels: five move at each saying, five at every fourth. A line that ends with ... is continued
    instead of learned. An empty line ends it; nothing is kept.
    """
    import json

    import torch

    from nlbook.book.real import smol, teach
    from nlbook.book.real.gguf import GGUF
    from nlbook.errors import NLBookError

    try:
        file = GGUF(smol.path())
    except NLBookError as e:
        raise click.ClickException(str(e)) from e
    model, words = smol.model(file), smol.tokenizer(file)

    def encode(text: str) -> list[int]:
        return words.encode(text).ids

    if measure:
        record = teach.measure(model, encode)
        teach.RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        click.echo("\n\n".join(teach.tables(record)))
        return
    pupil = teach.Pupil(model, encode)
    while text := click.prompt(">", default="", show_default=False, prompt_suffix=" ").strip():
        if text.endswith("..."):
            ids = torch.tensor([encode(text.removesuffix("...").rstrip())])
            new = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=2)
            click.echo(words.decode(new[0].tolist()))
        else:
            price = pupil.price(text)
            moved = pupil.say(text)
            click.echo(f"{price:.2f} nats a token, then {pupil.price(text):.2f}; moved: {', '.join(moved)}")
