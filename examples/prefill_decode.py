# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Prefill in one set of processes, decode in another: the KV cache travels through mori.io, layer by layer.

    python examples/prefill_decode.py                  # 2 processes prefill, 1 decodes; on the CPU
    python examples/prefill_decode.py --prefill-tp 1 --decode-tp 2

A small Llama of the transformers library, with random weights, is split over the heads within each side. Each prefill
rank writes a layer's keys and values into the decode ranks' pages as soon as the layer has computed them, while later
layers compute; the last write of a request carries a notification, and decoding begins. The tokens must be those of
one process with the whole model. Needs `pip install transformers`; nothing is downloaded.

Pages are laid out [layer, k or v, page, head, token, dim], heads before tokens: what two ranks of different TP sizes
share of a page is then one contiguous piece, and a layer costs one block per page rather than one per token.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mori.io import EngineDesc, IOEngine, MemoryDesc
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache

HEADS, KV_HEADS, HEAD_DIM, LAYERS, VOCABULARY = 8, 4, 32, 6, 512
HIDDEN, MLP = HEADS * HEAD_DIM, 512
PAGE_TOKENS, PAGES = 16, 64
PROMPTS, NEW_TOKENS = (7, 64, 150), 24  # tokens of each request's prompt, and to be decoded


def whole_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(config(1)).double().eval()  # double: sums over ranks then round to the same tokens


def config(tp: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=MLP // tp, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS // tp, num_key_value_heads=KV_HEADS // tp, head_dim=HEAD_DIM,
        max_position_embeddings=1024, initializer_range=0.1, attn_implementation="eager",
    )  # fmt: skip


def shard(tp: int, rank: int) -> LlamaForCausalLM:
    """This rank's heads and MLP columns; the partial sums of both halves of a layer are added over the ranks."""
    whole, mine = whole_model(), LlamaForCausalLM(config(tp)).double().eval()
    for name, target in mine.named_parameters():
        weights = whole.get_parameter(name).data
        dim = 1 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0
        target.data = weights if weights.shape == target.shape else weights.chunk(tp, dim)[rank].clone()
    if tp > 1:
        for layer in mine.model.layers:
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                part.register_forward_hook(lambda _module, _inputs, out: (dist.all_reduce(out), out)[1])
    return mine


def prompt(request: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(request).integers(0, VOCABULARY, (1, PROMPTS[request])))


def page_table(request: int) -> list[int]:
    """The decode side's pages of a request: scattered, its own, and other ones than the prefill side takes."""
    counts = [-(-(tokens + NEW_TOKENS) // PAGE_TOKENS) for tokens in PROMPTS]
    shuffled = np.random.default_rng(100).permutation(PAGES).tolist()
    return shuffled[sum(counts[:request]) :][: counts[request]]


class PagedCache(DynamicCache):
    """transformers' cache, kept in pages as well. `written(layer, tokens)` is called when a layer's are in place."""

    def __init__(self, pool: torch.Tensor, pages: list[int], written: Any = None) -> None:
        super().__init__()
        self.pool, self.pages, self.written, self.quiet = pool, pages, written, False

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        first = self.get_seq_length(layer_idx)
        if not self.quiet:
            for part, states in enumerate((keys, values)):
                for token in range(states.shape[2]):
                    page, slot = divmod(first + token, PAGE_TOKENS)
                    self.pool[layer_idx, part, self.pages[page], :, slot] = states[0, :, token]
            if self.written is not None:
                self.written(layer_idx, first + keys.shape[2])
        return super().update(keys, values, layer_idx, *args, **kwargs)

    def load(self, tokens: int) -> None:
        """Takes what lies in the pages."""
        self.quiet = True
        for layer in range(LAYERS):
            dense = [
                self.pool[layer, part, self.pages].transpose(0, 1).flatten(1, 2)[None, :, :tokens] for part in (0, 1)
            ]
            self.update(dense[0].clone(), dense[1].clone(), layer)
        self.quiet = False


def pool(tp: int) -> torch.Tensor:
    """Host memory that other processes' engines can map."""
    from mori.io import empty

    return empty((LAYERS, 2, PAGES, KV_HEADS // tp, PAGE_TOKENS, HEAD_DIM), torch.float64)


def join(tp: int, rank: int, store: str) -> None:
    torch.set_num_threads(1)
    if tp > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", world_size=tp, rank=rank)


def prefill(rank: int, tp: int, decode_tp: int, store: str, link: Any) -> None:
    join(tp, rank, store)
    model, cache = shard(tp, rank), pool(tp)
    with IOEngine(f"prefill-{rank}") as engine:
        mine = engine.register_torch_tensor(cache)
        link.send("ready")
        peers = []
        for desc, memory in link.recv():
            engine.register_remote_engine(EngineDesc.unpack(desc))
            peers.append(engine.create_session(mine, MemoryDesc.unpack(memory)))
        heads, their_heads, token_bytes = KV_HEADS // tp, KV_HEADS // decode_tp, PAGE_TOKENS * HEAD_DIM * 8

        def blocks(layer: int, count: int, here: list[int], there: list[int], peer: int) -> Any:
            """Offsets of what `peer` needs of my pages of a layer: the heads that both of us hold."""
            first = max(rank * heads, peer * their_heads)
            last = min((rank + 1) * heads, (peer + 1) * their_heads)
            if first >= last:
                return None
            parts = (layer * 2 + np.arange(2))[:, None] * PAGES
            local = (parts + np.array(here[:count])) * heads + first - rank * heads
            remote = (parts + np.array(there[:count])) * their_heads + first - peer * their_heads
            return local.ravel() * token_bytes, remote.ravel() * token_bytes, (last - first) * token_bytes

        for request in range(len(PROMPTS)):
            count = -(-PROMPTS[request] // PAGE_TOKENS)
            here, statuses = list(range(request % 3, request % 3 + count)), []

            def written(layer: int, tokens: int, request=request, count=count, here=here, statuses=statuses) -> None:
                for peer, session in enumerate(peers):
                    found = blocks(layer, count, here, page_table(request), peer)
                    if found is None:
                        continue
                    told = {"notify": f"{request}".encode()} if layer == LAYERS - 1 else {}
                    if told:
                        engine.wait_all(statuses)  # the notification says that all layers are there
                    statuses.append(session.batch_write(*found, engine.allocate_transfer_uid(), **told))

            with torch.no_grad():
                logits = model(prompt(request), past_key_values=PagedCache(cache, here, written), use_cache=True).logits
            computed = time.monotonic()
            for status in statuses:
                status.wait(timeout_s=30)
            moved = sum(status.bytes_total for status in statuses)
            exposed_us = (time.monotonic() - computed) * 1e6
            link.send((request, int(logits[0, -1].argmax()), moved, exposed_us))
        link.recv()


def decode(rank: int, tp: int, prefill_tp: int, store: str, link: Any) -> None:
    join(tp, rank, store)
    model, cache = shard(tp, rank), pool(tp)
    sources = sum(
        max(rank * (KV_HEADS // tp), p * (KV_HEADS // prefill_tp))
        < min((rank + 1) * (KV_HEADS // tp), (p + 1) * (KV_HEADS // prefill_tp))
        for p in range(prefill_tp)
    )
    with IOEngine(f"decode-{rank}") as engine:
        memory = engine.register_torch_tensor(cache)
        link.send((engine.get_engine_desc().pack(), memory.pack()))
        arrived: dict[int, int] = {}
        for request in range(len(PROMPTS)):
            first = link.recv()
            deadline = time.monotonic() + 60
            while arrived.get(request, 0) < sources:
                for note in engine.pop_notifications():
                    arrived[int(note.message)] = arrived.get(int(note.message), 0) + 1
                if time.monotonic() > deadline:
                    raise TimeoutError(f"request {request}: {arrived.get(request, 0)} of {sources} ranks have sent it")
                time.sleep(0.0005)
            paged = PagedCache(cache, page_table(request))
            paged.load(PROMPTS[request])
            tokens = [first]
            with torch.no_grad():
                while len(tokens) < NEW_TOKENS:
                    logits = model(torch.tensor([[tokens[-1]]]), past_key_values=paged, use_cache=True).logits
                    tokens.append(int(logits[0, -1].argmax()))
            link.send(tokens)
        link.recv()


def alone() -> list[list[int]]:
    """The same by one process with the whole model."""
    model, out = whole_model(), []
    with torch.no_grad():
        for request in range(len(PROMPTS)):
            cache, step, tokens = DynamicCache(), prompt(request), []
            while len(tokens) < NEW_TOKENS:
                tokens.append(int(model(step, past_key_values=cache, use_cache=True).logits[0, -1].argmax()))
                step = torch.tensor([[tokens[-1]]])
            out.append(tokens)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefill-tp", type=int, default=2, choices=(1, 2, 4), help="processes that prefill")
    parser.add_argument("--decode-tp", type=int, default=1, choices=(1, 2, 4), help="processes that decode")
    options = parser.parse_args()
    import tempfile

    context, links = multiprocessing.get_context("forkserver"), {}
    with tempfile.TemporaryDirectory() as folder:
        for side, body, tp, other in (
            ("prefill", prefill, options.prefill_tp, options.decode_tp),
            ("decode", decode, options.decode_tp, options.prefill_tp),
        ):
            for rank in range(tp):
                links[side, rank], theirs = context.Pipe()
                arguments = (rank, tp, other, f"{folder}/{side}", theirs)
                context.Process(target=body, args=arguments, name=f"{side}-{rank}", daemon=True).start()
                theirs.close()
        prefillers = [links["prefill", rank] for rank in range(options.prefill_tp)]
        decoders = [links["decode", rank] for rank in range(options.decode_tp)]
        expected = alone()
        for link in prefillers:
            link.recv()
        where = [link.recv() for link in decoders]
        for link in prefillers:
            link.send(where)
        equal = True
        for request, tokens in enumerate(expected):
            told = [link.recv() for link in prefillers]
            for link in decoders:
                link.send(told[0][1])
            got = [link.recv() for link in decoders]
            same = all(each == tokens for each in got)
            equal &= same
            moved, exposed_us = sum(t[2] for t in told), max(t[3] for t in told)
            print(
                f"request {request}: {PROMPTS[request]} tokens, {moved / 1e6:.2f} MB of KV cache, "
                f"{exposed_us:.0f} us of the transfer after the last layer, "
                f"{len(tokens)} decoded tokens {'equal' if same else 'DIFFER'}"
            )
        for link in links.values():
            link.send("end")
    print("all tokens equal those of one process" if equal else "tokens differ")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
