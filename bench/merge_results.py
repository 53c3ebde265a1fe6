# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Joins reports of `mori bench` made in one go on one machine into one file, with the commit they were made of.

python bench/merge_results.py --commit HASH bench/results/ep-h200x2.json build/gpu/ep-*.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def merged(reports: list[dict], commit: str) -> dict:
    """The first report with the rows of all; rows say tokens, hidden and dtype themselves."""
    first = dict(reports[0])
    first["meta"] = {**first["meta"], "commit": commit or first["meta"].get("commit", "")}
    first["rows"] = [row for report in reports for row in report["rows"]]
    first.pop("sent_bytes", None)  # of one shape only
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="", help="commit of the code that was measured")
    parser.add_argument("result", type=Path)
    parser.add_argument("report", type=Path, nargs="+")
    options = parser.parse_args()
    reports = [json.loads(file.read_text()) for file in options.report]
    options.result.write_text(json.dumps(merged(reports, options.commit), indent=1) + "\n")


if __name__ == "__main__":
    main()
