# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Records which experts a mixture-of-experts router picks on real text, as input for `mori bench ep --routing
FILE`.

    pip install torch transformers python tools/record_routing.py --out routing.npz                     # a
    small model, trained here for --minutes python tools/record_routing.py --model FOLDER --text BOOK.txt
    --out routing.npz     # a checkpoint of your own

Without --model it builds transformers' DeepSeek-V3 with the router at full width (256 experts in 8 groups,
sigmoid scores, best 4 groups, top 8) and everything else small, and trains it for a few minutes on the
reference manual that comes with every Python (pydoc_data.topics). Router biases are nudged towards an even
load after every step, as in that model's own training. The routing is thus that of a real router on real
text, but of a young and small model: its skew is a fair stand-in for a large model's, not a measurement of
one. The file says so in `description`.

The .npz holds: ids [layers, tokens, topk] int16 (heaviest first), weights [layers, tokens, topk] float16,
num_experts, description.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

SEQUENCE = 128  # tokens per training sequence
BATCH = 12  # sequences per step
BIAS_STEP = 1e-3  # how far one step moves a router's bias towards an even load


def manual_text() -> str:
    """Python's reference manual, a few hundred kilobytes of English prose and code."""
    return "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def train_tokenizer(text: str, vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet))
    return tokenizer


def small_model(vocabulary: int) -> Any:
    """DeepSeek-V3 with its router unchanged and the rest scaled down to what a laptop trains in minutes."""
    config = transformers.DeepseekV3Config(
        vocab_size=vocabulary, hidden_size=192, intermediate_size=512, moe_intermediate_size=32,
        num_hidden_layers=3, first_k_dense_replace=1, num_attention_heads=4, num_key_value_heads=4,
        kv_lora_rank=48, q_lora_rank=96, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
        n_routed_experts=256, num_experts_per_tok=8, n_group=8, topk_group=4, n_shared_experts=1,
        max_position_embeddings=SEQUENCE,
    )  # fmt: skip
    config._experts_implementation = "grouped_mm"  # the default loops over 256 experts, slowly
    return transformers.DeepseekV3ForCausalLM(config)


def gates(model: Any) -> list[Any]:
    """The routers, in the order of the layers: modules named `gate` that know their number of experts."""
    return [m for name, m in model.named_modules() if name.endswith(".gate") and hasattr(m, "num_experts")]


class Recorder:
    """Keeps what each router picked in the last forward pass."""

    def __init__(self, model: Any) -> None:
        self.gates = gates(model)
        if not self.gates:
            raise SystemExit("the model has no routers: no module named 'gate' with a number of experts")
        self.picked: list[tuple[torch.Tensor, torch.Tensor]] = [()] * len(self.gates)  # type: ignore[list-item]
        for index, gate in enumerate(self.gates):
            gate.register_forward_hook(lambda module, args, out, index=index: self._keep(index, out))

    def _keep(self, index: int, out: tuple[torch.Tensor, ...]) -> None:
        _, weights, ids = out
        self.picked[index] = (ids.detach(), weights.detach().float())

    def even_the_load(self) -> None:
        for gate, (ids, _) in zip(self.gates, self.picked, strict=True):
            load = torch.bincount(ids.flatten(), minlength=gate.num_experts).float()
            gate.e_score_correction_bias += BIAS_STEP * torch.sign(load.mean() - load)


def train(model: Any, recorder: Recorder, tokens: torch.Tensor, minutes: float) -> tuple[int, float]:
    """Next-token training until the time is up. Returns the steps taken and the last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    end, step, loss = time.monotonic() + 60 * minutes, 0, float("nan")
    model.train()
    while time.monotonic() < end:
        starts = torch.randint(0, len(tokens) - SEQUENCE, (BATCH,))
        batch = torch.stack([tokens[s : s + SEQUENCE] for s in starts.tolist()])
        result = model(input_ids=batch, labels=batch)
        optimizer.zero_grad()
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recorder.even_the_load()
        step, loss = step + 1, result.loss.item()
        if step % 20 == 0:
            print(
                f"step {step}: loss {loss:.3f}, {max(0.0, end - time.monotonic()):.0f} s left",
                file=sys.stderr,
            )
    return step, loss


@torch.no_grad()
def record(model: Any, recorder: Recorder, tokens: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """ids and weights [layers, count, topk] of `count` consecutive tokens, heaviest expert first."""
    model.eval()
    parts: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    for start in range(0, count, SEQUENCE):
        model(input_ids=tokens[None, start : start + SEQUENCE])
        parts.append(list(recorder.picked))
    ids, weights = [], []
    for layer in range(len(recorder.gates)):
        layer_ids = torch.cat([part[layer][0] for part in parts])[:count]
        layer_weights = torch.cat([part[layer][1] for part in parts])[:count]
        order = layer_weights.argsort(dim=-1, descending=True)
        ids.append(layer_ids.gather(1, order).to(torch.int16).numpy())
        weights.append(layer_weights.gather(1, order).to(torch.float16).numpy())
    return np.stack(ids), np.stack(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--model", help="folder or name of a transformers checkpoint; default: the small one, trained here"
    )
    parser.add_argument("--text", type=Path, help="a text file; default: Python's reference manual")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens to record")
    parser.add_argument("--minutes", type=float, default=4.0, help="training time of the small model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the experts are small matrices: more threads only wait for each other
    torch.manual_seed(options.seed)
    text = options.text.read_text() if options.text else manual_text()
    source = (
        options.text.name
        if options.text
        else f"the Python {sys.version.split()[0]} reference manual (pydoc_data.topics)"
    )
    if options.model:
        model = transformers.AutoModelForCausalLM.from_pretrained(options.model)
        tokens = torch.tensor(transformers.AutoTokenizer.from_pretrained(options.model)(text)["input_ids"])
        recorder = Recorder(model)
        what = f"checkpoint {options.model}"
        held_out = tokens
    else:
        vocabulary = 4096
        tokens = torch.tensor(train_tokenizer(text, vocabulary).encode(text).ids)
        # The recorded tokens are the end of the text, which training does not see.
        held_out, seen = tokens[-max(options.tokens, SEQUENCE) :], tokens[: -max(options.tokens, SEQUENCE)]
        model = small_model(vocabulary)
        recorder = Recorder(model)
        steps, loss = train(model, recorder, seen, options.minutes)
        what = (
            f"transformers {transformers.__version__} DeepSeek-V3 architecture scaled down (hidden 192, 2 "
            "MoE layers), its full router (sigmoid, 256 experts, 8 groups, best 4, top 8), random initial "
            f"weights, trained {steps} steps of {BATCH * SEQUENCE} tokens here (loss "
            f"{loss:.2f}); not a production model"
        )
    if len(held_out) < options.tokens:
        raise SystemExit(f"the text has only {len(held_out)} tokens for --tokens {options.tokens}")
    ids, weights = record(model, recorder, held_out, options.tokens)
    experts = int(recorder.gates[0].num_experts)
    description = f"Router choices for {options.tokens} consecutive tokens of {source}, by a {what}."
    np.savez_compressed(options.out, ids=ids, weights=weights, num_experts=experts, description=description)
    load = np.stack([np.bincount(layer.ravel(), minlength=experts) for layer in ids])
    print(f"{options.out}: {options.out.stat().st_size} bytes, {description}")
    print("load per layer, heaviest expert / mean:", (load.max(1) / load.mean(1)).round(2).tolist())


if __name__ == "__main__":
    main()
