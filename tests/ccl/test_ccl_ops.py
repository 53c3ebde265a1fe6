# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""torch.ops.mori.ccl_*: what the methods give; gradients that are the adjoints of the calls, over all ranks; torch's
own checks of operators; a compiled layer with the results and gradients of one that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ccl_ranks import each, same
from mori.ccl import register_ops
from mori.errors import ConfigError

pytestmark = pytest.mark.timeout(120)
register_ops()
OPS = torch.ops.mori


def transposed(comm: Any) -> tuple[list[int], list[int]]:
    """Rows that member i sends to member j: i + 2 j, so some send none."""
    n, me = comm.size, comm.rank
    return [me + 2 * j for j in range(n)], [i + 2 * me for i in range(n)]


LINEAR: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "all_reduce": lambda c, x: OPS.ccl_all_reduce(x, c.number),
    "all_reduce avg": lambda c, x: OPS.ccl_all_reduce(x, c.number, "avg"),
    "reduce_scatter": lambda c, x: OPS.ccl_reduce_scatter(x, c.number),
    "reduce_scatter avg": lambda c, x: OPS.ccl_reduce_scatter(x, c.number, "avg"),
    "all_gather": lambda c, x: OPS.ccl_all_gather(x, c.number),
    "all_gather of numbers": lambda c, x: OPS.ccl_all_gather(x[0, 0], c.number),
    "all_to_all": lambda c, x: OPS.ccl_all_to_all(x, c.number),
    "all_to_all with splits": lambda c, x: OPS.ccl_all_to_all(x[: sum(transposed(c)[0])], c.number, *transposed(c)),
    "not contiguous": lambda c, x: OPS.ccl_all_to_all(x.t().reshape(3, -1).t(), c.number),
}


def adjoint(comm: Any) -> list[str]:
    """<A x, y> = <x, A' y>, each the sum over the ranks, in whole numbers of fp64: exact. And A'' = A."""
    wrong = []
    for seed, (name, call) in enumerate(LINEAR.items()):
        generator = torch.Generator().manual_seed(100 * seed + comm.rank)
        rows = comm.size * (comm.size + 4) * 2
        x = torch.randint(-8, 9, (rows, 3), generator=generator).double().requires_grad_()
        result = call(comm, x)
        y = torch.randint(-8, 9, result.shape, generator=generator).double() * comm.size
        (back,) = torch.autograd.grad(result, x, y)
        sides = torch.stack([(result * y).sum(), (x * back).sum()]).detach()
        left, right = comm.all_reduce(sides).tolist()
        if left != right:
            wrong.append(f"{name}: {left} and {right}")
    return wrong


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_gradients_are_adjoints(size: int) -> None:
    assert each(adjoint, size) == [[]] * size


def twice(comm: Any) -> bool:
    """A gradient has a gradient."""
    x = torch.full((4,), float(comm.rank + 1), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(OPS.ccl_all_reduce(x, comm.number).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    # y is the sum of x, first that of 2 y, so every element of x is in every rank's first 2 n times
    n = comm.size
    return bool((first == n * n * (n + 1)).all() and (second == 2 * n * n).all())


def test_gradients_have_gradients() -> None:
    assert all(each(twice, 3))


def megatron(comm: Any) -> list[str]:
    """A column and a row parallel matmul, replicated loss: the gradients of the whole matrices on one rank."""
    n, me = comm.size, comm.rank
    generator = torch.Generator().manual_seed(1)
    x, a, b = (torch.randn(8, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    whole = [t.clone().requires_grad_() for t in (x, a, b)]
    ((whole[0] @ whole[1]).tanh() @ whole[2]).square().sum().backward()
    width = 8 // n
    mine = [x.clone(), a[:, me * width : (me + 1) * width].clone(), b[me * width : (me + 1) * width].clone()]
    for t in mine:
        t.requires_grad_()
    hidden = (OPS.ccl_replicate(mine[0], comm.number) @ mine[1]).tanh()
    OPS.ccl_all_reduce(hidden @ mine[2], comm.number, backward="identity").square().sum().backward()
    grads: list[Any] = [t.grad for t in whole]
    wanted = (grads[0], grads[1][:, me * width : (me + 1) * width], grads[2][me * width : (me + 1) * width])
    return [f"{i}" for i, (t, w) in enumerate(zip(mine, wanted, strict=True)) if not torch.allclose(t.grad, w)]


def test_a_tensor_parallel_layer() -> None:
    assert each(megatron, 2) == [[]] * 2


def norm_gradient(comm: Any, backward: str) -> list[str]:
    """Beside the same steps one after the other, whose gradients are torch's."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(comm.size + 1, 5, 24, generator=generator)
    weight, toward = torch.rand(24, generator=generator), torch.randn(2, 5, 24, generator=generator)
    leaves = [[values[comm.rank].clone(), values[-1].clone(), weight.clone()] for _ in range(2)]
    for t in leaves[0] + leaves[1]:
        t.requires_grad_()
    (x, residual, w), (x2, residual2, w2) = leaves
    normed, kept = OPS.ccl_all_reduce_rms_norm(x, residual, w, comm.number, backward=backward)
    kept2 = OPS.ccl_all_reduce(x2, comm.number, backward=backward) + residual2
    normed2 = torch.nn.functional.rms_norm(kept2, (24,), w2, 1e-6)
    for a, b in ((normed, kept), (normed2, kept2)):
        (a * toward[0] + b * toward[1]).sum().backward()
    pairs = {"kept": (kept, kept2), "normed": (normed, normed2)}
    pairs |= {n: (a.grad, b.grad) for n, a, b in zip(("x", "residual", "weight"), *leaves, strict=True)}
    return [name for name, (a, b) in pairs.items() if not torch.allclose(a, b, rtol=1e-4, atol=1e-5)]


@pytest.mark.parametrize("backward", ["all_reduce", "identity"])
def test_the_fused_gradient(backward: str) -> None:
    assert each(norm_gradient, 2, backward) == [[]] * 2


def checked(comm: Any) -> None:
    x, weight = torch.randn(6, 16), torch.rand(16)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    for op, args in (
        (OPS.ccl_all_reduce, (x, comm.number)),
        (OPS.ccl_replicate, (x, comm.number)),
        (OPS.ccl_reduce_scatter, (x, comm.number)),
        (OPS.ccl_all_gather, (x, comm.number)),
        (OPS.ccl_all_to_all, (x, comm.number)),
        (OPS.ccl_all_to_all, (x, comm.number, [6], [6])),
        (OPS.ccl_all_reduce_rms_norm, (x, x.clone(), weight, comm.number)),
        (OPS.ccl_all_reduce_rms_norm, (x, None, weight, comm.number)),
        (OPS.ccl_all_reduce_rms_norm_fp8, (x, x.clone(), weight, comm.number)),
        (OPS.ccl_all_reduce_rms_norm_fp8, (x, None, weight, comm.number, 1e-5, "fp8_block")),
    ):
        torch.library.opcheck(op, args, test_utils=tests)


def test_torch_s_checks_of_operators() -> None:
    each(checked, 1)


def layer(x: torch.Tensor, weight: torch.Tensor, number: int) -> torch.Tensor:
    parts = torch.tanh(OPS.ccl_all_to_all(x, number))
    total, kept = OPS.ccl_all_reduce_rms_norm(parts, x, weight, number)
    return OPS.ccl_all_gather(OPS.ccl_reduce_scatter(total * 2, number) + kept.sum(), number)


def compiled(comm: Any) -> list[str]:
    register_ops()  # a process of its own
    leaves = []
    function: Any = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for call in (layer, function):
        x = torch.randn(4, 16, generator=torch.Generator().manual_seed(comm.rank)).requires_grad_()
        weight = torch.linspace(0.5, 1.5, 16).requires_grad_()
        for _ in range(2):
            y = call(x, weight, comm.number)
        y.square().sum().backward()
        leaves.append((y, x.grad, weight.grad))
    names = ("y", "x", "weight")
    return [n for n, a, b in zip(names, *leaves, strict=True) if not torch.allclose(a, b, rtol=1e-4, atol=1e-5)]


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.long)])  # processes import the compiler anew
def test_a_compiled_layer(size: int) -> None:
    assert each(compiled, size, mode="thread" if size == 1 else "process") == [[]] * size


def refused(comm: Any) -> None:
    x = torch.ones(4, requires_grad=True)
    with pytest.raises(ConfigError, match="communicator=1099511627776 is not the number of a communicator"):
        OPS.ccl_all_reduce(x, 1 << 40)
    with pytest.raises(ConfigError, match="backward='sum': allowed are all_reduce, identity"):
        OPS.ccl_all_reduce(x, comm.number, backward="sum")
    with pytest.raises(ConfigError, match="gradients are for op='sum' and 'avg', not 'max'"):
        OPS.ccl_all_reduce(x, comm.number, "max").sum().backward()
    with pytest.raises(ConfigError, match="gradients are for"):
        OPS.ccl_reduce_scatter(x, comm.number, "prod").sum().backward()
    assert same(OPS.ccl_all_reduce(x.detach().bfloat16(), comm.number, wire="int8").float(), 2 * x.detach())


def test_refusals() -> None:
    each(refused, 2)
