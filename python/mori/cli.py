# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The command `mori`: measure, look at the machine, find out what is missing.

    mori bench ep --ranks 4 --tokens 128    mori bench io    mori bench shmem    mori bench ccl    mori topo
    mori doctor    mori env

Exit codes: 0 all went well, 1 a wrong result or a rank that failed, 2 a bad argument, named in the message.
What a command does is in the module it imports when it runs, so that `mori env` stays quick.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from .bench import Report

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
wqe = typer.Typer(no_args_is_help=True, help="Queue entries of RDMA NICs, to and from JSON lines.")
app.add_typer(wqe, name="wqe")


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
    from .bench import EpSettings, run_ep
    from .errors import ConfigError

    try:
        settings = EpSettings(
            ranks=ranks, device=device.value, tokens=tokens, hidden=hidden, topk=topk, experts=experts,
            dtype=dtype.value, layout=layout.value, routing=routing, iters=iters, warmup=warmup, graph=graph,
            peers=_words(peers),
            timeout_s=timeout, seed=seed, align=align, quantize=quantize, blocks=blocks, flush=flush,
            trace="" if trace is None else str(trace),
        )  # fmt: skip
        _check_files(json, plot, trace)
    except ConfigError as error:
        _refuse(error)
    report = _run(lambda pulse: run_ep(settings, pulse=pulse))
    if report is None:
        return  # another rank of torchrun tells
    from .bench.report import table, write_json

    _show(report, table(report))
    if json is not None:
        write_json(report, json)
    if plot is not None:
        from .bench import plot as picture

        picture.draw(report, plot)


@bench.command("io")
def bench_io(
    backend: Annotated[
        str, typer.Option(metavar="auto|shm|vm|tcp|rdma|p2p|file", help="What carries the bytes. vm: process_vm.")
    ] = "auto",
    op: Annotated[str, typer.Option(metavar="write|read|write,read", help="From the initiator's side.")] = "write,read",
    block_size: Annotated[
        str, typer.Option(metavar="BYTES[,BYTES]", help="Sizes of blocks, such as 4K,64K,1M: multiples of 8.")
    ] = "4K,64K,1M",
    batch: Annotated[
        str,
        typer.Option(
            metavar="N[,N]",
            help="Blocks of a transfer. Default: 1 and 1000, of large blocks as many as make 256 MiB.",
            show_default=False,
        ),
    ] = "",
    contiguous: Annotated[
        bool, typer.Option("--contiguous", help="Neighbouring blocks, which can be merged, instead of random ones.")
    ] = False,
    memory: Annotated[
        str,
        typer.Option(
            metavar="host|gpu|host-gpu|gpu-host",
            help="Of the initiator and of the target. Default: gpu for --backend p2p, else host.",
            show_default=False,
        ),
    ] = "",
    peers: Annotated[
        str,
        typer.Option(
            metavar="nixl,mooncake,perftest,fio",
            help="Measure these too, in the same run on the same blocks.",
            show_default=False,
        ),
    ] = "",
    iters: Annotated[int, typer.Option(help="Timed turns of each implementation in each case.")] = 9,
    warmup: Annotated[int, typer.Option(help="Turns before those.")] = 2,
    serve: Annotated[
        str,
        typer.Option(metavar="ADDRESS:PORT", help="Be the target of another machine's --host.", show_default=False),
    ] = "",
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS:PORT", help="Where another machine serves the target.", show_default=False),
    ] = "",
    folder: Annotated[
        str, typer.Option(metavar="DIR", help="Where the file of --backend file lies.", show_default=False)
    ] = "",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report there.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw it there (needs matplotlib).", show_default=False),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Write MoRI's transfers there, for ui.perfetto.dev.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of data and of the choice of blocks.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds that the whole run may take.")] = 300.0,
) -> None:
    """Transfers of blocks between two processes: latency, GB/s and limit, every transfer verified."""
    from .bench import IoSettings, run_io
    from .bench.io_settings import parse_bytes
    from .errors import ConfigError

    try:
        if serve:
            from .bench.io_serve import serve_targets

            return serve_targets(serve, said=typer.echo)
        settings = IoSettings(
            backend=backend, ops=_words(op), block_bytes=tuple(parse_bytes(size) for size in _words(block_size)),
            batch=tuple(_number("batch", count) for count in _words(batch)), contiguous=contiguous, memory=memory,
            peers=_words(peers), iters=iters, warmup=warmup, host=host, folder=folder, seed=seed, timeout_s=timeout,
            trace=str(trace or ""),
        )  # fmt: skip
        _check_files(json, plot, trace)
    except ConfigError as error:
        _refuse(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    report = _run(lambda pulse: run_io(settings, pulse=pulse))
    if report is None:
        return
    from .bench import io_report
    from .bench.report import write_json

    _show(report, io_report.io_table(report))
    if json is not None:
        write_json(report, json)
    if plot is not None:
        io_report.draw(report, plot)


@bench.command("shmem")
def bench_shmem(
    ranks: Annotated[int, typer.Option(help="Ranks to start, 2 to 64. put, get, p and atomics are between two.")] = 2,
    device: Annotated[
        Device, typer.Option(help="Where kernels run. With fewer GPUs than ranks, ranks share them.")
    ] = Device.cpu,
    op: Annotated[
        str,
        typer.Option(
            metavar="put,get,...",
            help="put, get, put_signal, p, atomic, barrier, sync, broadcast, fcollect, alltoall, reduce. Default: all.",
            show_default=False,
        ),
    ] = "",
    scope: Annotated[
        str,
        typer.Option(
            metavar="thread,warp,block",
            help="Who calls together. Default: all three; block on a CPU, where they are alike.",
            show_default=False,
        ),
    ] = "",
    blocks: Annotated[
        str,
        typer.Option(
            metavar="N[,N]", help="Blocks that share a put or get. Default: 1,4,16,32; 1 on a CPU.", show_default=False
        ),
    ] = "",
    sizes: Annotated[
        str,
        typer.Option(
            metavar="BYTES[,BYTES]",
            help="Of an operation, such as 8,64K,1M: multiples of 8. Default: 8,1K,64K,1M, on a GPU 8M too.",
            show_default=False,
        ),
    ] = "",
    transport: Annotated[
        str,
        typer.Option(
            metavar="p2p|ibgda",
            help="What carries the bytes: load and store, or queues of a software NIC (--device cpu), which adds "
            "put_quiet and put_rate to --op.",
        ),
    ] = "p2p",
    peers: Annotated[
        str,
        typer.Option(metavar="nvshmem", help="Measure these too (--device cuda, 2 ranks).", show_default=False),
    ] = "",
    iters: Annotated[int, typer.Option(help="Timed samples of each case, of many operations each.")] = 20,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report there.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw it there (needs matplotlib).", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the data.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds that the whole run may take.")] = 300.0,
) -> None:
    """Operations inside kernels: bandwidth, latency and rates beside their limits, verified before and after."""
    from .bench import ShmemSettings, run_shmem
    from .bench.io_settings import parse_bytes
    from .bench.shmem_settings import OPS, QUEUE_OPS
    from .errors import ConfigError

    every = (*OPS, *QUEUE_OPS) if transport == "ibgda" else tuple(OPS)
    try:
        settings = ShmemSettings(
            ranks=ranks, device=device.value, ops=_words(op) if op else every, scopes=_words(scope),
            blocks=tuple(_number("blocks", count) for count in _words(blocks)),
            sizes=tuple(parse_bytes(size, name="sizes") for size in _words(sizes)), transport=transport,
            peers=_words(peers), iters=iters, seed=seed, timeout_s=timeout,
        )  # fmt: skip
        _check_files(json, plot)
    except ConfigError as error:
        _refuse(error)
    report = _run(lambda pulse: run_shmem(settings, pulse=pulse))
    if report is None:
        return
    from .bench import shmem_report
    from .bench.report import write_json

    _show(report, shmem_report.shmem_table(report))
    if json is not None:
        write_json(report, json)
    if plot is not None:
        shmem_report.draw(report, plot)


@bench.command("ccl")
def bench_ccl(
    ranks: Annotated[int, typer.Option(help="Ranks to start, 2 to 64.")] = 2,
    device: Annotated[str, typer.Option(metavar="cpu", help="Where ranks run; GPUs are not measured yet.")] = "cpu",
    op: Annotated[
        str,
        typer.Option(metavar="OP[,OP]", help="all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, reduce."),
    ] = "all_reduce,all_gather,reduce_scatter,all_to_all",
    sizes: Annotated[
        str, typer.Option(metavar="BYTES[,BYTES]", help="As nccl-tests counts them, such as 4K,64M.")
    ] = "4K,64K,1M,16M",
    dtype: Annotated[str, typer.Option(metavar="fp32|bf16|int32", help="Of the elements.")] = "fp32",
    algo: Annotated[
        str, typer.Option(metavar="NAME[,NAME]", help="Of all_reduce: auto, one_shot, two_shot, ll.")
    ] = "auto",
    peers: Annotated[
        str, typer.Option(metavar="gloo,mpi", help="Measure these too, in the same run.", show_default=False)
    ] = "",
    iters: Annotated[int, typer.Option(help="Timed calls of each case, at most; of large ones fewer.")] = 50,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report there.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw it there (needs matplotlib).", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the data.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds that the whole run may take.")] = 300.0,
) -> None:
    """Collectives, beside gloo and MPI and the copy that is their limit; every result is checked."""
    from .bench import CclSettings, run_ccl
    from .bench.io_settings import parse_bytes
    from .errors import ConfigError

    try:
        settings = CclSettings(
            ranks=ranks, device=device, ops=_words(op), dtype=dtype, algorithms=_words(algo),
            sizes=tuple(parse_bytes(size, name="sizes") for size in _words(sizes)), peers=_words(peers), iters=iters,
            seed=seed, timeout_s=timeout,
        )  # fmt: skip
        _check_files(json, plot)
    except ConfigError as error:
        _refuse(error)
    report = _run(lambda pulse: run_ccl(settings, pulse=pulse))
    if report is None:
        return
    from .bench import ccl_report
    from .bench.report import write_json

    _show(report, ccl_report.ccl_table(report))
    if json is not None:
        write_json(report, json)
    if plot is not None:
        ccl_report.draw(report, plot)


def _words(text: str) -> tuple[str, ...]:
    """The parts of "a,b,c", each once."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _number(name: str, text: str) -> int:
    from .errors import ConfigError

    if not text.isdigit():
        raise ConfigError(f"{name}={text!r} is not a whole number")
    return int(text)


def _check_files(json: Path | None, plot: Path | None, trace: Path | None = None) -> None:
    """What would fail after the run is refused before it."""
    from .errors import ConfigError

    for name, file in (("json", json), ("plot", plot), ("trace", trace)):
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigError(f"{name}={file}: there is no folder {file.absolute().parent}")
    if plot is not None:
        from .bench import plot as picture

        picture.require()


def _run(bench: Callable[[str], Report | None]) -> Report | None:
    from rich.console import Console

    from .bench import progress
    from .bench.verify import Mismatch
    from .errors import ConfigError, MoriError

    errors = Console(stderr=True)
    try:
        with progress.draw(errors) as pulse:
            return bench(pulse)
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


def _show(report: Report, table: Any) -> None:
    from rich.console import Console

    console = Console()
    console.print(table)
    meta = report.meta
    routing = f"routing: {meta.routing}; " if meta.routing else ""
    console.print(f"{meta.machine}; {routing}{meta.mode}; every result verified bit for bit", highlight=False)
    for note in meta.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


@wqe.command("encode")
def wqe_encode(
    input: Annotated[str, typer.Option("--input", metavar="FILE", help="JSON lines, one request each; - is stdin.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of tables.")] = False,
) -> None:
    """Requests with the bytes that device code writes for them: entry, doorbell record, MSN line, doorbell."""
    _convert("encode", input, json)


@wqe.command("decode")
def wqe_decode(
    input: Annotated[str, typer.Option("--input", metavar="FILE", help="JSON lines with wqe, cqe or doorbells.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of tables.")] = False,
) -> None:
    """Entries, completions and doorbells of a ring dump, field by field."""
    _convert("decode", input, json)


def _convert(direction: str, file: str, as_json: bool) -> None:
    from .wqe._lines import run

    if file != "-" and not Path(file).is_file():
        raise typer.BadParameter(f"{file} is not a file", param_hint="--input")
    if run(direction, file, as_json=as_json):
        raise typer.Exit(2)


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
