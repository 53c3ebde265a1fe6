# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Every launcher's ranks meet: torch.distributed groups and subgroups, torchrun, mpirun, plain variables."""

import datetime
import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from boot_helpers import refusal
from mori._store import GatherRendezvous
from mori.bootstrap import rendezvous
from mori.errors import ConfigError, TimeoutError
from mori.mesh import Mesh
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(120)


def ranks_seen(**given):
    with rendezvous(timeout=20, **given) as found, Mesh.connect(found, timeout=20) as mesh:
        return mesh.rank, [int(m.payload) for m in mesh.exchange("pid", b"%d" % os.getpid())]


def init_torch(rank, world_size, path):
    import torch.distributed as dist

    limit = datetime.timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world_size, timeout=limit)
    return dist


def group_work(rank, world_size, uid, path, members):
    dist = init_torch(rank, world_size, path)
    group = dist.new_group(members) if members else None
    if members and rank not in members:
        assert isinstance(refusal(lambda: rendezvous(group, timeout=5)), ConfigError)
        dist.barrier()
        return None
    first, second = ranks_seen(group=group), ranks_seen(group=group)  # contexts of one group do not collide
    assert first == second
    assert first[1][first[0]] == os.getpid()
    assert first[0] == (members.index(rank) if members else rank)
    dist.barrier()
    dist.destroy_process_group()
    return len(first[1])


@pytest.mark.parametrize(
    "members", [None, [0, 1], [1, 2], [2], [0, 1, 2]], ids=lambda m: "default" if m is None else f"group{m}"
)
def test_torch_groups(tmp_path, members):
    results = run_ranks(group_work, 3, str(tmp_path / "store"), members)
    assert results == [len(members or range(3)) if r in (members or range(3)) else None for r in range(3)]


def two_groups_work(rank, world_size, uid, path):
    dist = init_torch(rank, world_size, path)
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3]), dist.new_group([1, 2])]
    own = ranks_seen(group=groups[rank // 2])
    other = ranks_seen(group=groups[2]) if rank in (1, 2) else None
    everyone = ranks_seen()
    dist.barrier()
    return own[0], len(own[1]), other and other[0], len(everyone[1])


def test_overlapping_groups_at_once(tmp_path):
    results = run_ranks(two_groups_work, 4, str(tmp_path / "store"))
    assert results == [(0, 2, None, 4), (1, 2, 0, 4), (0, 2, 1, 4), (1, 2, None, 4)]


def missing_work(rank, world_size, uid, path):
    dist = init_torch(rank, world_size, path)
    if rank == 1:
        dist.barrier()
        return None
    error = refusal(lambda: rendezvous(timeout=0.5).exchange("x", b"", timeout=0.5))
    dist.barrier()
    return type(error), error.missing


def test_a_group_rank_that_does_not_come_is_named(tmp_path):
    results = run_ranks(missing_work, 3, str(tmp_path / "store"))
    assert results == [(TimeoutError, (1,)), None, (TimeoutError, (1,))]


def fallback_work(rank, world_size, uid, path):
    from torch.distributed import distributed_c10d as c10d

    dist = init_torch(rank, world_size, path)
    del c10d._get_process_group_store
    with rendezvous(dist.group.WORLD, timeout=20) as found:
        assert isinstance(found, GatherRendezvous)
    result = ranks_seen(group=dist.group.WORLD)
    dist.barrier()
    return result[0]


def test_a_torch_without_its_private_store_access(tmp_path):
    assert run_ranks(fallback_work, 3, str(tmp_path / "store")) == [0, 1, 2]


SCRIPT = """
import json, os, sys
from mori.bootstrap import rendezvous
from mori.mesh import Mesh
{before}
seen = []
for _ in range(2):  # two contexts of one launcher
    with rendezvous({given}timeout=20) as found, Mesh.connect(found, timeout=20) as mesh:
        seen.append([int(m.payload) for m in mesh.exchange("pid", b"%d" % os.getpid())])
    assert seen[-1][mesh.rank] == os.getpid()
with open(sys.argv[1] + "/" + str(mesh.rank), "w") as out:
    json.dump(seen, out)
"""


def run_script(tmp_path, command, world_size, before="", given="", env=()):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(before=before, given=given))
    out = tmp_path / "out"
    out.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **dict(env)}
    done = subprocess.run(
        [*command, str(script), str(out)], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = [json.loads((out / str(rank)).read_text()) for rank in range(world_size)]
    assert all(s == seen[0] for s in seen)
    assert len(set(seen[0][0])) == world_size


def test_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    run_script(tmp_path, command, 3)


def test_variables_without_torchrun(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    launcher = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, *sys.argv[1:]]\n"
        "ps = [subprocess.Popen(command, env=dict(os.environ, RANK=str(r))) for r in range(2)]\n"
        "sys.exit(max(p.wait() for p in ps))"
    )
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run_script(tmp_path, [sys.executable, "-c", launcher], 2, env=env)


def test_mpirun(tmp_path):
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "3", sys.executable]
    run_script(tmp_path, command, 3, before="from mpi4py import MPI", given="comm=MPI.COMM_WORLD, ")


MPI_SUBCOMM = "from mpi4py import MPI\nworld = MPI.COMM_WORLD\nsub = world.Split(world.rank > 0, -world.rank)"


def test_mpirun_with_a_split_communicator(tmp_path):
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    before = MPI_SUBCOMM + "\nif world.rank == 0: sys.exit(0)"
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "3", sys.executable]
    run_script(tmp_path, command, 2, before=before, given="comm=sub, ")


class SilentComm:
    """An MPI communicator whose broadcast never ends."""

    def Get_rank(self):
        return 1

    def Get_size(self):
        return 2

    def Ibcast(self, buffer, root):
        return self

    def Test(self):
        return False


def test_an_mpi_broadcast_has_a_deadline():
    with pytest.raises(TimeoutError) as caught:
        rendezvous(comm=SilentComm(), timeout=0.2)
    assert caught.value.missing == (0,)
