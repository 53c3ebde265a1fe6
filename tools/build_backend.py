# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""pip's way to build MoRI: scikit-build-core, which here keeps what it compiled before.

pip gives each build a new temporary environment, and scikit-build-core throws its build folder away when it finds
itself in another one. Nothing compiled depends on that place but the bindings, whose commands name pybind11's
folder: ninja sees that and compiles them again. So the place is corrected before it looks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scikit_build_core import build
from scikit_build_core import cmake as _cmake
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_wheel(*arguments: Any, **options: Any) -> str:
    _keep_build_folders()
    return build.build_wheel(*arguments, **options)


def build_editable(*arguments: Any, **options: Any) -> str:
    _keep_build_folders()
    return build.build_editable(*arguments, **options)


def _keep_build_folders() -> None:
    for file in Path("build").glob("*/.skbuild-info.json"):
        try:
            info = json.loads(file.read_text())
            info["skbuild_path"] = str(Path(_cmake.__file__).parent)
            file.write_text(json.dumps(info, indent=2))
        except (OSError, ValueError, TypeError):
            continue  # scikit-build-core begins anew
