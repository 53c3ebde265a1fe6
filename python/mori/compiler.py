# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Kernels of your own, over mori/shmem.hpp: compiled for the device that is there, loaded, launched.

    class RingArgs(ctypes.Structure):                 # mirrors struct RingArgs of ring.cpp
        _fields_ = [("world", mori.shmem.World), ("inbox", ctypes.c_uint64), ("round", ctypes.c_uint64)]

    module = mori.compile_kernel("ring.cpp", device=ctx)
    module.kernel("ring").launch(RingArgs(ctx.world, inbox.data_ptr(), 1), warps=4, shared_bytes=4)

docs/shmem_kernels.md is the guide. Needs no torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mori import _core, config, include_dir
from mori._hsaco import argument_bytes
from mori._kernel_cache import Compiled, Entry, digest
from mori._toolchain import TIMEOUT_S, Target, Toolchain, target_of
from mori.context import Context, _parse_device
from mori.errors import ConfigError

__all__ = ["Kernel", "KernelModule", "compile_kernel", "load_kernel"]

_log = logging.getLogger("mori")


def compile_kernel(
    source: str | os.PathLike[str],
    *,
    device: Any = None,
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    defines: Mapping[str, object] | None = None,
    flags: Sequence[str] = (),
) -> KernelModule:
    """Compiles a C++ file of kernels for the device and loads it. Local; every rank calls it.

    device: a Context, whose `stream()` launches then use by default; or a core device; or None, the first device
    here. The compiler is nvcc for NVIDIA, clang for AMD, the C++ compiler (CXX) for the CPU and its lanes; MoRI's
    headers are on the include path, before `include_dirs`. defines: NAME: value, None for a bare name. flags: of the
    compiler, behind MoRI's own.

    The result is kept in a folder of the user (MORI_KERNEL_CACHE) by the content of the source and of all files it
    includes, the compiler's version and the flags; of many ranks on a host one compiles.

    Raises ConfigError: the compiler's words, or what to install where there is none. Not capturable in a graph.
    """
    context, core_device = _device(device)
    path = Path(source).absolute()
    compiled = compile_object(path, target_of(core_device), include_dirs, defines or {}, flags)
    return KernelModule(compiled.path, core_device, context, names=compiled.kernels, source=path)


def compile_object(
    path: Path,
    target: Target,
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    defines: Mapping[str, object] = MappingProxyType({}),
    flags: Sequence[str] = (),
) -> Compiled:
    """The code object for a target that need not be here."""
    if not path.is_file():
        raise ConfigError(f"source={str(path)!r}: there is no such file")
    tools = Toolchain(target)
    folders = [include_dir(), *(Path(folder).absolute() for folder in include_dirs)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"include_dirs: {folder} is not a folder")
    command = tools.command(path, include_dirs=folders, defines=defines, extra=list(flags))

    def make(result: Path, inputs: Path) -> list[str]:
        said = tools.run([*command, *tools.outputs(result, inputs)], path)
        if text := tools.warnings(said):
            _log.warning("%s for %s:\n%s", path, target, text)
        return tools.kernels(said)

    key = digest(_core.__version__, tools.version, *command, path.read_bytes())
    compiled = Entry(config.kernel_cache(), key, target.ending).get(make, TIMEOUT_S)
    _log.debug("%s for %s: %s %s", path, target, "compiled" if compiled.fresh else "found", compiled.path)
    return compiled


def load_kernel(folder: str | os.PathLike[str], name: str, *, device: Any = None) -> KernelModule:
    """Loads what `mori_add_kernel(NAME FILE)` of a CMake project has built: <folder>/<name>.<target>.

    The targets are cpu_w1, cpu_w32, cpu_w64 (.so), cuda (.fatbin) and an AMD architecture (.hsaco). Arguments and
    errors otherwise as of `compile_kernel`."""
    context, core_device = _device(device)
    path = Path(folder).absolute() / file_name(name, target_of(core_device))
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in path.parent.glob(f"{name}.*"))) or "nothing"
        raise ConfigError(f"no kernels {path} for {target_of(core_device)}; of that name there is {there}")
    return KernelModule(path, core_device, context)


def file_name(name: str, target: Target) -> str:
    """Of the code object that `mori_add_kernel` makes for a target."""
    middle = {"cpu": f"cpu_{target.name}", "cuda": "cuda", "hip": target.arch}[target.kind]
    return f"{name}.{middle}{target.ending}"


class KernelModule:
    """A loaded code object: `path`, its `source` where it was compiled here, `core_device`. Stays loaded."""

    def __init__(
        self,
        path: Path,
        core_device: Any,
        context: Context | None = None,
        *,
        names: Sequence[str] = (),
        source: Path | None = None,
    ) -> None:
        self.path, self.source, self.core_device = path, source, core_device
        self._context = context
        self._args_bytes = argument_bytes(path.read_bytes()) if core_device.kind == "hip" else {}
        self._names = tuple(names) or tuple(sorted(self._args_bytes))

    def kernel(self, name: str) -> Kernel:
        """The kernel of MORI_KERNEL(name, ...). Raises ConfigError for an unknown name, saying which there are (of
        NVIDIA's only those that `compile_kernel` compiled)."""
        if self._names and name not in self._names:
            raise ConfigError(f"no kernel {name} in {self.source or self.path}; it has: {', '.join(self._names)}")
        return Kernel(self, self.core_device.function_of(str(self.path), name, self._args_bytes.get(name, 0)))

    def __repr__(self) -> str:
        return f"<KernelModule {self.source or self.path} for {target_of(self.core_device)}>"


class Kernel:
    """One kernel. `args_bytes`: size of its argument struct, 0 where the code object does not say."""

    def __init__(self, module: KernelModule, function: Any) -> None:
        self.module, self._function = module, function
        self.name, self.args_bytes = str(function.name), int(function.args_bytes)
        self._core_device, self._context = module.core_device, module._context
        warps = int(self._core_device.properties.max_warps)
        self._limits = {"blocks": (1, (1 << 31) - 1), "warps": (1, warps), "shared_bytes": (0, (1 << 32) - 1)}

    def max_blocks(self, *, warps: int = 1, shared_bytes: int = 0) -> int:
        """Blocks of this shape that are sure to run at the same time on an otherwise idle device: kernels whose blocks
        wait for each other ask for no more."""
        device = self.module.core_device
        return int(device.max_resident_blocks(self._function, warps=warps, shared_bytes=shared_bytes))

    def launch(self, args: Any, *, blocks: int = 1, warps: int = 1, shared_bytes: int = 0, stream: Any = None) -> None:
        """Queues the kernel. Capturable in a graph.

        args: the argument struct, as a ctypes.Structure, bytes or any buffer; it is copied. warps: of each block, of
        the device's own size. stream: a torch stream or a handle; by default the context's, or the device's default
        one. On the CPU stream 0 is synchronous: the call returns when the kernel has ended, and raises what waits of
        the context recorded; elsewhere the next call on the context raises it.

        Raises ConfigError for arguments of another size and for shapes that the device refuses."""
        context = self._context
        if context is not None:
            context.ready()
        if stream is None:
            stream = 0 if context is None else context.stream()
        handle = int(getattr(stream, "cuda_stream", stream))
        for what, value in (("blocks", blocks), ("warps", warps), ("shared_bytes", shared_bytes)):
            least, most = self._limits[what]
            if not least <= value <= most:
                raise ConfigError(f"{what}={value} must lie between {least} and {most}")
        if self.args_bytes == 0:  # the first caller's word
            self._core_device.function_of(str(self.module.path), self.name, memoryview(args).nbytes)
        self._core_device.launch(self._function, _core.LaunchShape(blocks, warps, shared_bytes), handle, args)
        if handle == 0 and context is not None and context.synchronous:
            context.check()

    def __repr__(self) -> str:
        return f"<Kernel {self.name} of {self.module!r}>"


def _device(device: Any) -> tuple[Context | None, Any]:
    if isinstance(device, Context):
        device.ready()
        return device, device.core_device
    if device is None:
        settings = config.load()
        kind, ordinal = _parse_device(None)
        lanes = settings.cpu_lanes if kind == "cpu" else 1
        return None, _core.open_device(
            kind, ordinal, kernel_dir=settings.kernel_dir, cpu_lanes=lanes, cpu_threads=settings.cpu_threads or 1
        )
    if isinstance(device, _core.Device):
        return None, device
    raise ConfigError(f"device={device!r}: a mori.Context, a device of mori._core, or None")
