# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The installed package: importable from anywhere, complete, without GPU libraries, without torch."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from build_support import ROOT

import mori


def run_python(code: str, cwd: Path) -> str:
    """Standard output of `python -c code`, which has `cwd` first on its path."""
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("cwd", [Path("/"), ROOT, ROOT / "python", ROOT / "tests"], ids=str)
def test_import_from_any_folder(cwd: Path) -> None:
    # the root has a folder mori/ of headers: as a namespace package it would import, with nothing in it
    if cwd == ROOT / "python" and not mori.__file__.startswith(str(cwd)):
        pytest.skip("the sources shadow the installed package there, as they do for every package")
    file, version = run_python("import mori; print(mori.__file__, mori.__version__)", cwd).split()
    assert Path(file).name == "__init__.py"
    assert version == importlib.metadata.version("mori-comm")


def test_import_needs_no_torch() -> None:
    code = "import sys, mori, mori.config, mori.errors; mori.MoriError; print('torch' in sys.modules)"
    assert run_python(code, Path("/")) == "False"


def test_broken_core_is_reported_where_it_is_used() -> None:
    code = "import sys; sys.modules['mori._core'] = None; import mori; mori.ConfigError; print('imported')"
    assert run_python(code, Path("/")) == "imported"


@pytest.mark.parametrize("name", ["CapacityError", "ConfigError", "PeerLost", "TimeoutError", "TransportError"])
def test_errors_are_reachable_from_the_top(name: str) -> None:
    assert issubclass(getattr(mori, name), mori.MoriError)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'mori' has no attribute 'dispach'"):
        _ = mori.dispach  # type: ignore[attr-defined]


def test_dir_lists_the_public_names() -> None:
    assert set(mori.__all__) <= set(dir(mori))


def test_core_needs_only_system_libraries() -> None:
    import mori._core

    if not shutil.which("readelf"):
        pytest.skip("no readelf (binutils)")
    out = subprocess.run(
        ["readelf", "-d", mori._core.__file__], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    needed = set(re.findall(r"NEEDED.*\[(.+?)\.so", out))
    assert needed <= {
        "libstdc++",
        "libm",
        "libgcc_s",
        "libc",
        "libdl",
        "libpthread",
        "librt",
        "ld-linux-x86-64",
    }


def test_core_errors_are_the_package_errors() -> None:
    import mori._core

    with pytest.raises(mori.ConfigError, match=r"'tpu'.*allowed are 'cpu', 'cuda' and 'hip'") as caught:
        mori._core.open_device("tpu")
    assert isinstance(caught.value, ValueError)


def installed_files() -> list[str]:
    files = importlib.metadata.files("mori-comm")
    assert files is not None
    return [str(f) for f in files]


def test_wheel_has_code_objects_and_headers(manifest: dict[str, Any]) -> None:
    files = set(installed_files())
    expected = {"mori/kernels/manifest.json", "mori/include/mori/version.hpp"}
    expected |= {f"mori/kernels/cpu_{arch}.so" for arch in manifest["targets"]["cpu"]["archs"]}
    if "archs" in manifest["targets"]["cuda"]:
        expected |= {f"mori/kernels/{unit}.fatbin" for unit in manifest["units"]}
    for arch in manifest["targets"]["hip"].get("archs", ()):
        expected |= {f"mori/kernels/{unit}.{arch}.hsaco" for unit in manifest["units"]}
    expected |= {f"mori/include/{p.relative_to(ROOT)}" for p in (ROOT / "src").rglob("*.hpp")}
    assert expected - files == set()


def test_wheel_has_nothing_else() -> None:
    allowed = r"mori/.*\.(py|pyi|typed|npz)|mori/_core\..*\.so|mori/kernels/.*\.(so|fatbin|hsaco|json)"
    allowed += r"|mori/include/.*\.hpp|mori/cmake/.*\.(cmake|json)|mori_comm-.*"
    allowed += r"|mori/bench/data/shmem/.*\.(cpp|hpp|cu)"
    allowed += r"|_editable_\w*mori_comm\.\w+|\.\./.*bin/mori|.*\.pyc"
    assert [f for f in installed_files() if not re.fullmatch(allowed, f)] == []


def test_manifest_says_how_to_get_what_is_missing(manifest: dict[str, Any]) -> None:
    assert set(manifest["targets"]) == {"cpu", "cuda", "hip"}
    for target in manifest["targets"].values():
        assert set(target) in ({"archs", "compiler"}, {"missing", "remedy"})
    assert manifest["version"] == mori.__version__
    json.dumps(manifest)


@pytest.mark.parametrize("header", sorted(p.name for p in (ROOT / "mori").glob("*.hpp")))
def test_public_header_compiles_alone(header: str, tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if not compiler:
        pytest.skip("no C++ compiler")
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "mori/{header}"\nint main() {{}}\n')
    flags = [
        "-std=c++20",
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Wshadow",
        "-Werror",
        f"-I{mori.include_dir()}",
    ]
    run = subprocess.run([compiler, *flags, source], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
