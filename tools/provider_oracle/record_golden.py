#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Records (or with --check compares) tests/ibgda/golden/*.jsonl with an oracle that build.sh made.

usage: record_golden.py [--check [--old]] BUILD_DIR
  --old  compare the mlx5 vectors with what rdma-core 44.0-2 gives
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "ibgda" / "golden"
SIZES = (0, 1, 8, 12, 28, 64, 4095, 4096, 4097, 65536, 0x7FFFFFFF)
ADDRS = (
    "laddr=0,raddr=0,lkey=0,rkey=0",
    "laddr=0xffffffffffffff00,raddr=0xfffffffffffffff8,lkey=0xffffffff,rkey=0xffffffff",
    "laddr=0x0123456789abcdef,raddr=0xfedcba9876543210,lkey=0x01020304,rkey=0xa1b2c3d4",
)
IMMEDIATES = (0, 0xFFFFFFFF, 0xA0B0C0D0)
ERRORS = {
    "mlx5": (0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x22),
    "bnxt_re": range(1, 12),
    "ionic": range(1, 14),
}
INLINE = {
    "mlx5": (0, 1, 4, 8, 12, 13, 16, 28, 29, 44, 45, 64),
    "bnxt_re": (1, 4, 8, 15, 16, 17, 32, 33, 48, 64),
    "ionic": (1, 4, 8, 16, 31, 32),
}


def cases(prov: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (name, options, specs) of one process run each."""
    opts = ["--max-inline", "32"] if prov == "ionic" else []
    ops = ("write", "write_imm", "read", "send", "send_imm")
    for op in ops:
        sizes = [s for s in SIZES if s or op != "read"]
        yield f"{op}_sizes", opts, [f"{op},len={s}" for s in sizes]
        yield f"{op}_operands", opts, [f"{op},len=64,{a},imm={i}" for a, i in zip(ADDRS, IMMEDIATES, strict=True)]
    for op, vals in (
        ("fetch_add", ("add=0", "add=1", "add=0xffffffffffffffff", "add=0x8877665544332211")),
        (
            "cmp_swap",
            (
                "compare=0,swap=0",
                "compare=0,swap=1",
                "compare=0xffffffffffffffff,swap=0",
                "compare=0x0011223344556677,swap=0x8899aabbccddeeff",
            ),
        ),
    ):
        yield f"{op}_operands", opts, [f"{op},{v}" for v in vals]
        yield f"{op}_addresses", opts, [f"{op},{a}" for a in ADDRS]
    inl = INLINE[prov]
    yield "write_inline", opts, [f"write,inline,len={n}" for n in inl]
    yield "write_inline_unaligned", opts, [f"write,inline,len={n},laddr=0x100000000{n % 16:01x}03" for n in inl]
    yield "send_inline", opts, [f"send,inline,len={n}" for n in inl]
    yield (
        "flags",
        opts,
        [
            "write,sig=0",
            "write,fence",
            "write,solicited",
            "write_imm,solicited,fence",
            "send,solicited",
            "read,fence",
            "read,sig=0",
            "fetch_add,fence,sig=0",
            "cmp_swap,fence",
            "write,inline,sig=0,fence",
        ],
    )
    yield (
        "two_sge",
        opts,
        ["write,len=128,nsge=2", "read,len=100,nsge=2", "send,len=7,nsge=2", "write_imm,len=8192,nsge=2"],
    )
    yield (
        "chain",
        opts,
        [
            "write,more,sig=0",
            "write,more,len=4096",
            "read,more",
            "fetch_add,more",
            "cmp_swap,more",
            "write,inline,len=8,more",
            "send",
        ],
    )
    for qpn in (0x1, 0x77, 0xABCDE, 0xFFFFF):
        yield f"qpn_{qpn:x}", [*opts, "--qpn", hex(qpn)], ["write", "fetch_add"]
    # Ring wrap: small ring, enough posts for two laps and more (owner, epoch, colour).
    small = ["--depth", "8", *opts]
    mixed = ["write", "read", "fetch_add", "write,inline,len=12", "cmp_swap", "write_imm"]
    yield "wrap_uniform", small, ["write,repeat=40"]
    yield "wrap_mixed", small, mixed * 7
    yield "wrap_chains", small, ["write,more,repeat=3", "write"] * 10
    if prov == "mlx5":
        yield "wrap_two_wqebb", [*small, "--max-inline", "64"], ["write", *["write,inline,len=64"] * 20]
        yield "counter_16bit", small, ["skip=65530", *mixed * 2]
        yield "no_blueflame", [*opts, "--no-bf"], ["write", "write,inline,len=8", "read", "fetch_add"]
    if prov == "bnxt_re":
        yield "wrap_wide_inline", small, ["write", *["write,inline,len=64"] * 20]
        yield "msn_table_wrap", small, ["skip=1020", *["write"] * 8]
        for mtu in (256, 1024, 4096):
            yield (
                f"psn_mtu_{mtu}",
                [*opts, "--mtu", str(mtu), "--psn", "0xfffff0"],
                [
                    "write,len=0",
                    "write,len=1",
                    "write,len=4096",
                    "write,len=4097",
                    "read,len=8192",
                    "fetch_add",
                    "write",
                ],
            )
        yield "static_wqe", [*opts, "--bnxt-static"], ["write", "write,inline,len=16", "read", "fetch_add", "cmp_swap"]
    if prov == "ionic":
        yield "counter_16bit", small, ["skip=65530", *mixed * 2]
        yield (
            "v1_opcodes",
            [*opts, "--ionic-v1"],
            ["write", "write_imm", "read", "fetch_add", "cmp_swap", "send", "send_imm", "write,inline,len=8"],
        )
    # Completions: success for each operation, one CQE for many, CQ wrap, errors.
    for op in ("write", "write,inline,len=8", "write_imm", "read,len=100", "fetch_add", "cmp_swap", "send"):
        yield f"cqe_ok_{op.split(',')[0]}", opts, [op, "cqe"]
    yield "cqe_batch", opts, ["write,sig=0", "write,sig=0", "read", "write,sig=0", "fetch_add", "cqe"]
    yield "cqe_wrap", ["--depth", "8", "--cq-depth", "4", *opts], ["write", "cqe"] * 40
    yield "recv", opts, ["recv,len=64", "recv,len=4096", "recv,len=1"]
    for st in ERRORS[prov]:
        yield (
            f"cqe_error_{st:02x}",
            opts,
            ["write", "read", f"cqe,status={st},vendor=0x5a" + (",index=1" if prov != "mlx5" else ",index=0")],
        )


def generate(binary: pathlib.Path, prov: str) -> list[str]:
    lines = []
    for name, opts, specs in cases(prov):
        argv = [*opts, prov, *specs]
        out = subprocess.run([binary, *argv], check=True, capture_output=True, text=True).stdout
        for text in out.splitlines():
            json.loads(text)
            lines.append(f'{{"case":"{name}",{text[1:]}')
    return lines


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--old", action="store_true")
    ap.add_argument("build", type=pathlib.Path)
    args = ap.parse_args()
    if args.old and not args.check:
        ap.error("--old goes with --check")
    binary = args.build.resolve() / ("oracle-44" if args.old else "oracle-65")
    bad = 0
    for prov in ("mlx5",) if args.old else ("mlx5", "bnxt_re", "ionic"):
        path = GOLDEN / f"{prov}.jsonl"
        lines = [x.replace('"44.0-2"', '"65.0-1.1"') for x in generate(binary, prov)]
        if args.check:
            same = path.read_text().splitlines() == lines
            bad += not same
            print(f"{prov}: {'same' if same else 'DIFFERS'} ({len(lines)} lines)")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
            print(f"{prov}: {len(lines)} lines")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
