# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The command `mori`: measure, look at the machine, find out what is missing.

    mori bench ep --ranks 4 --tokens 128       mori topo       mori doctor       mori env

Exit codes: 0 all went well, 1 a wrong result or a rank that failed, 2 a bad argument, named in the message.
What a command does is in the module it imports when it runs, so that `mori env` stays quick.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from .bench import EpSettings, Report

__all__ = ["app", "main"]

app = typer.Typer(
    help="MoRI: communication for large-model inference and training on AMD and NVIDIA GPUs and plain CPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(
    help="Measure a product: verified in every run, beside its limit and its peers.", no_args_is_help=True
)
app.add_typer(bench, name="bench")


class Device(str, enum.Enum):
    cpu = "cpu"
    cuda = "cuda"


class Dtype(str, enum.Enum):
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"
    fp8 = "fp8"
    fp4 = "fp4"


class Layout(str, enum.Enum):
    rank = "rank"
    expert = "expert"
    grouped = "grouped"


@bench.command("ep")
def bench_ep(
    ranks: Annotated[int, typer.Option(help="Ranks to start, 1 to 64. Under torchrun: its world size.")] = 8,
    device: Annotated[
        Device, typer.Option(help="Where tokens live. With fewer GPUs than ranks, ranks share them.")
    ] = Device.cpu,
    tokens: Annotated[int, typer.Option(help="Tokens per rank.")] = 256,
    hidden: Annotated[int, typer.Option(help="Elements per token; rows are multiples of 16 bytes.")] = 7168,
    topk: Annotated[int, typer.Option(help="Experts per token, 1 to 32.")] = 8,
    experts: Annotated[int, typer.Option(help="Experts in all, spread over the ranks.")] = 256,
    dtype: Annotated[
        Dtype, typer.Option(help="Element type of tokens. fp8 and fp4 carry scales, and return bf16.")
    ] = Dtype.bf16,
    layout: Annotated[
        Layout,
        typer.Option(
            help="Form of what is received. rank: one row per token and rank; expert: [experts, capacity, hidden]; "
            "grouped: sorted by expert."
        ),
    ] = Layout.rank,
    align: Annotated[int, typer.Option(help="Rows that groups begin at a multiple of (layout expert, grouped).")] = 1,
    quantize: Annotated[
        str,
        typer.Option(
            metavar="fp8|fp8_token|fp8_ue8m0|...",
            help="Let dispatch narrow bf16, fp16 or fp32 rows; names of mori.ep.RECIPES.",
            show_default=False,
        ),
    ] = "",
    blocks: Annotated[int, typer.Option(help="At most so many blocks (SMs) a call; 0: chosen.")] = 0,
    flush: Annotated[
        bool, typer.Option("--flush", help="Flush the GPU's cache before each single call (--device cuda).")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write when each block came to each phase of one dispatch and one combine (ui.perfetto.dev).",
            show_default=False,
        ),
    ] = None,
    routing: Annotated[
        str,
        typer.Option(
            metavar="uniform|zipf|hot|FILE",
            help="Which experts tokens visit. hot: 3/4 of them on rank 0. FILE: an .npz written by "
            "tools/record_routing.py. Default: the recorded one that comes with MoRI (256 experts, top 8).",
            show_default=False,
        ),
    ] = "",
    iters: Annotated[int, typer.Option(help="Timed iterations of each operation.")] = 20,
    warmup: Annotated[int, typer.Option(help="Iterations before those.")] = 3,
    graph: Annotated[bool, typer.Option("--graph", help="Replay from CUDA graphs (--device cuda).")] = False,
    peers: Annotated[
        str,
        typer.Option(
            metavar="gloo,mpi,nccl,...",
            help="Measure these too, on the same data: an all-to-all of gloo, mpi, nccl; dispatch and combine of "
            "deepep_v1, deepep_v2, flashinfer. All but gloo and mpi: --device cuda, a GPU per rank.",
            show_default=False,
        ),
    ] = "",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report there.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw it there (needs matplotlib).", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of tokens and made-up routing.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds that the whole run may take.")] = 120.0,
) -> None:
    """Expert-parallel dispatch and combine: time, bytes, limit, every result compared bit for bit."""
    from .bench import EpSettings
    from .errors import ConfigError

    try:
        settings = EpSettings(
            ranks=ranks, device=device.value, tokens=tokens, hidden=hidden, topk=topk, experts=experts,
            dtype=dtype.value, layout=layout.value, routing=routing, iters=iters, warmup=warmup, graph=graph,
            peers=tuple(dict.fromkeys(peer.strip() for peer in peers.split(",") if peer.strip())),
            timeout_s=timeout, seed=seed, align=align, quantize=quantize, blocks=blocks, flush=flush,
            trace="" if trace is None else str(trace),
        )  # fmt: skip
        for name, file in (("json", json), ("plot", plot), ("trace", trace)):
            if file is not None and not file.absolute().parent.is_dir():
                raise ConfigError(f"{name}={file}: there is no folder {file.absolute().parent}")
        if plot is not None:
            from .bench import plot as picture

            picture.require()
    except ConfigError as error:
        _refuse(error)
    report = _run(settings)
    if report is None:
        return  # another rank of torchrun tells
    _show(report)
    if json is not None:
        from .bench.report import write_json

        write_json(report, json)
    if plot is not None:
        picture.draw(report, plot)


def _run(settings: EpSettings) -> Report | None:
    from rich.console import Console

    from .bench import progress, run_ep
    from .bench.verify import Mismatch
    from .errors import ConfigError, MoriError

    errors = Console(stderr=True)
    try:
        with progress.draw(errors) as pulse:
            return run_ep(settings, pulse=pulse)
    except ConfigError as error:
        _refuse(error)
    except Mismatch as error:
        errors.print(f"wrong result: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    except MoriError as error:
        errors.print(f"the bench failed: {error}", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        errors.print("stopped")
        raise typer.Exit(130) from None
    raise typer.Exit(1)


def _show(report: Report) -> None:
    from rich.console import Console

    from .bench.report import table

    console = Console()
    console.print(table(report))
    meta = report.meta
    console.print(
        f"{meta.machine}; routing: {meta.routing}; {meta.mode}; every result verified bit for bit",
        highlight=False,
    )
    for note in meta.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


@app.command()
def topo(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a tree.")] = False,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a picture there too.", show_default=False)
    ] = None,
    root: Annotated[Path, typer.Option(metavar="DIR", help="Read DIR/sys instead of /sys.")] = Path("/"),
) -> None:
    """GPUs, NICs and the paths between them, as a tree."""
    if not root.is_dir():
        raise typer.BadParameter(f"{root} is not a folder", param_hint="--root")
    from .errors import MoriError
    from .topology import print_topology

    try:
        print_topology(json=json, svg=svg, root=root)
    except (MoriError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """What was built, what this machine has, what is missing and the line that gets it."""
    from .doctor import print_report

    print_report(as_json=json)


@app.command()
def env(json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """The environment variables that MoRI reads, with their values and defaults."""
    from .config import print_env
    from .errors import ConfigError

    try:
        print_env(as_json=json)
    except ConfigError as error:
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2) from None


def main() -> None:
    """Entry point of the installed command."""
    app(prog_name="mori")


if __name__ == "__main__":
    main()
