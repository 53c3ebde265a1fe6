# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The control path of real NICs over the installed libibverbs and libmlx5, on a kernel that pretends to have a NIC.

What this cannot show is in docs/ibgda_hardware.md.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sanitize.sanitized import compiler

ROOT = Path(__file__).parents[2]
ORACLE = ROOT / "tools/provider_oracle"
ABI = Path("/usr/include/rdma/mlx5-abi.h")
HEADER = Path("/usr/include/infiniband/mlx5dv.h")
MODEL = "pci:v000015B3d0000101Dsv000015B3sd00000000bc02sc00i00\n"
SYSFS = {
    "infiniband_verbs/abi_version": "6\n",
    "infiniband_verbs/uverbs0/ibdev": "fake0\n",
    "infiniband_verbs/uverbs0/abi_version": "1\n",
    "infiniband_verbs/uverbs0/dev": "1:3\n",
    "infiniband/fake0/node_type": "1: CA\n",
    "infiniband/fake0/node_guid": "0011:2233:4455:6677\n",
    "infiniband/fake0/device/modalias": MODEL,
    "infiniband/fake0/ports/1/gids/0": "0000:0000:0000:0000:0000:ffff:0a00:0001\n",
    "infiniband/fake0/ports/1/gid_attrs/types/0": "RoCE v2\n",
}
SOURCES = [
    *(ROOT / f"src/transport/ibgda/control/{name}.cpp" for name in ("nic", "direct")),
    *sorted((ROOT / "src/transport/verbs").glob("*.cpp")),
    *sorted((ROOT / "src/transport/ibgda/softnic").glob("*.cpp")),
    *(ROOT / f"src/core/runtime/{name}.cpp" for name in ("gpu_driver", "cuda_driver", "hip_driver")),
]


def installed(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


class Pretended:
    """Runs the program over the pretended kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = {"SYSFS_PATH": str(folder), "LD_PRELOAD": str(folder / "kernel.so")}
        for name, text in SYSFS.items():
            file = folder / "class" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        main = Path(__file__).with_name("control_main.cpp")
        kernel = [ORACLE / "preload.c", ORACLE / "fake_kernel.c"]
        build = ["g++", "-std=c++20", "-O0", f"-I{ROOT}", main, *SOURCES, "-o", folder / "main", "-ldl", "-pthread"]
        shared = ["gcc", "-std=gnu11", "-O1", "-fPIC", "-shared", *kernel, "-o", folder / "kernel.so", "-ldl"]
        for command in (build, shared):
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=250, check=False)
            assert done.returncode == 0, done.stderr

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        command = [str(self.folder / "main"), *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, **self.settings, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def nic(tmp_path_factory: pytest.TempPathFactory) -> Pretended:
    if compiler() is None or not ABI.exists():
        pytest.skip(f"needs g++ and {ABI} (apt-get install linux-libc-dev)")
    if not (installed("libibverbs.so.1") and installed("libmlx5.so.1")):
        pytest.skip("needs libibverbs and libmlx5 (apt-get install libibverbs1 ibverbs-providers)")
    return Pretended(tmp_path_factory.mktemp("control"))


@pytest.mark.timeout(300)
def test_entries_doorbells_and_completions_are_the_drivers(nic: Pretended) -> None:
    """98,000 requests: the rings lie where libmlx5 says, and hold the bytes that its ibv_post_send writes."""
    assert nic("twins") == (0, "ok\n", "")


@pytest.mark.timeout(300)
def test_a_wrong_bit_is_noticed(nic: Pretended) -> None:
    status, output, _ = nic("twins", FAKE_WRONG="1")
    assert status == 1 and output.startswith("entry 1000, byte 27: ")


@pytest.mark.timeout(300)
def test_the_software_nic_serves_the_librarys_rings(nic: Pretended) -> None:
    """70,000 requests each that libmlx5 posts and polls for, and that we do, executed by the software NIC."""
    assert nic("served") == (0, "ok\n", "")


@pytest.mark.timeout(300)
def test_a_wrong_key_is_noticed(nic: Pretended) -> None:
    status, output, _ = nic("served", FAKE_WRONG="1")
    assert status == 1 and output.startswith("our request 1000 is not done: status 19\n")  # 0x13: remote access


@pytest.mark.timeout(300)
def test_depths(nic: Pretended) -> None:
    assert nic("depth") == (0, "ok\n", "")


@pytest.mark.timeout(300)
def test_connections_carry_what_a_network_needs(nic: Pretended) -> None:
    status, output, trace = nic("open", FAKE_VERBOSE="1")
    assert (status, output) == (0, "ok\n"), output
    steps = [dict(pair.split("=") for pair in line.split()[2:]) for line in re.findall("fk: modify.*", trace)]
    inits, receives, sends = ([step for step in steps if step["state"] == str(state)] for state in (1, 2, 3))
    assert len(inits) == len(receives) == len(sends) == 2
    assert {step["access"] for step in inits} == {str(2 + 4 + 8)}  # remote write, read, atomic
    assert {(step["hop"], step["mtu"], step["sgid"], step["serves"]) for step in receives} == {("64", "5", "0", "16")}
    assert {step["dest"] for step in receives} == {"0x55", "0x56"}
    assert {(step["timeout"], step["retry"], step["rnr"]) for step in sends} == {("14", "6", "6")}
    assert set(re.findall("all_signalled=(.)", trace)) == {"0"}  # else NICs put fetched bytes into completions


REFUSALS = [
    ({"FAKE_REFUSE": "1"}, "does not tell its limits"),
    ({"FAKE_REFUSE": "3"}, "no protection domain: Invalid argument"),
    ({"FAKE_REFUSE": "9"}, "memory cannot be registered"),
    ({"FAKE_REFUSE": "18"}, "no completion queue of 63 entries (it has up to 65535): Invalid argument"),
    ({"FAKE_REFUSE": "24"}, "no queue pair of 16 work requests (it has up to 32768): Invalid argument"),
    ({"FAKE_REFUSE": "26"}, "queue pair to INIT: Invalid argument"),
    ({"FAKE_NO_ATOMICS": "1"}, "has no atomics (atomic_cap 0)"),
    ({"FAKE_PORT_DOWN": "1"}, "no active port"),
    ({"FAKE_NAME": "mlx5_9"}, "mlx5_9: cannot be opened: No such device"),
    ({"FAKE_VENDOR": "0x8086"}, "PCI vendor 0x8086 makes none of the NICs"),
    ({"FAKE_VENDOR": "0x14e4"}, "no direct-verbs library of bnxt_re (the vendor's package)"),
    ({"FAKE_VENDOR": "0x1dd8"}, "direct-verbs library of ionic|ionic_dv_get_qp"),
    ({"MLX5_CQE_SIZE": "128"}, "its completions have 128 bytes, kernels read 64"),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("environment", "words"), REFUSALS, ids=lambda value: str(value)[:40])
def test_refusals(nic: Pretended, environment: dict[str, str], words: str) -> None:
    status, output, _ = nic("open", **environment)
    assert status == 3 and output.startswith("ibgda: ")
    assert any(part in output for part in words.split("|")), output


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("/no/libmlx5.so",),
            "no direct-verbs library of mlx5 (Debian: apt-get install ibverbs-providers): /no/libmlx5.so",
        ),
        (("libm.so.6",), "libm.so.6 has no mlx5dv_init_obj: it is too old"),
        (("", "/no/libibverbs.so"), "no RDMA library (Debian: apt-get install libibverbs1 ibverbs-providers)"),
        (("", "libm.so.6"), "libm.so.6 is too old: it lacks ibv_get_device_list"),
    ],
)
def test_libraries_that_are_missing_or_old(nic: Pretended, arguments: tuple[str, ...], words: str) -> None:
    status, output, _ = nic("open", *arguments)
    assert status == 3 and words in output


STRUCTS = {
    "Qp": ("mlx5dv_qp", "dbrec sq.buf sq.wqe_cnt sq.stride rq.buf bf.reg bf.size comp_mask"),
    "Cq": ("mlx5dv_cq", "buf dbrec cqe_cnt cqe_size cqn comp_mask"),
    "Object": ("mlx5dv_obj", "qp.in qp.out cq.in cq.out"),
}


@pytest.mark.skipif(not HEADER.exists(), reason=f"no {HEADER} (apt-get install libibverbs-dev)")
@pytest.mark.parametrize("wrong", [False, True])
def test_declarations_are_the_headers(tmp_path: Path, wrong: bool) -> None:
    lines = ["#include <infiniband/mlx5dv.h>", '#include "src/transport/ibgda/control/mlx5dv_abi.hpp"']
    lines += ["namespace m = mori::ibgda::mlx5dv;"]
    for ours, (theirs, fields) in STRUCTS.items():
        lines.append(f"static_assert(sizeof(m::{ours}) == sizeof({theirs}));")
        lines += [
            f"static_assert(offsetof(m::{ours}, {field}) == offsetof({theirs}, {field}));" for field in fields.split()
        ]
    number = "MLX5DV_OBJ_SRQ" if wrong else "MLX5DV_OBJ_CQ"
    lines.append(f"static_assert(long(m::kQp) == long(MLX5DV_OBJ_QP) && long(m::kCq) == long({number}));")
    (tmp_path / "abi.cpp").write_text("\n".join(lines) + "\n")
    command = [compiler() or "g++", "-std=c++20", "-fsyntax-only", "-Wno-invalid-offsetof", f"-I{ROOT}"]
    done = subprocess.run([*command, str(tmp_path / "abi.cpp")], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is not wrong, done.stderr


@pytest.mark.timeout(300)
def test_ranks_over_a_named_nic(nic: Pretended) -> None:
    """From Python down to the ring: the put waits for the NIC, and its deadline names the peer."""
    script = Path(__file__).with_name("control_ranks.py")
    settings = nic.settings | {"MORI_IBGDA_NIC": "fake0"}
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown, other_kind, *lengths, grown, put = done.stdout.splitlines()
    assert "ibgda (auto, fake0, 1 queues per peer)" in shown
    assert "ConfigError: offers[1]: rank 1 has 1 queues per peer on a software NIC" in other_kind
    assert [words.split(": ")[:2] for words in lengths] == [["ConfigError", "offers[1]"]] * 3
    assert grown.startswith("CapacityError: the heap's 8388608 bytes are used up, and a NIC of hardware has it")
    assert put.startswith("TimeoutError: ibgda.completion of rank 1 did not come within 3 s")
