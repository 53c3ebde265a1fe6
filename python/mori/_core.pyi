# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""For type checkers: the extension's names exist and are not checked. The public classes over them are."""

from typing import Any

__version__: str

def __getattr__(name: str) -> Any: ...
