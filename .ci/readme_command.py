# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Prints set-up command NUMBER of README.md (1: the main job, 2: the tests), so that CI runs what it says.

readme_command.py README.md NUMBER
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def commands(text: str) -> list[str]:
    """The text of each ```bash block, in order."""
    return [block.strip() for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)]


if __name__ == "__main__":
    found = commands(Path(sys.argv[1]).read_text())
    if len(found) != 2:
        sys.exit(f"{sys.argv[1]} has {len(found)} set-up commands, expected 2")
    print(found[int(sys.argv[2]) - 1])
