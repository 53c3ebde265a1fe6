# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A `mori.topology.Topology` as a picture: one self-contained SVG document, without a library.

NUMA nodes from left to right, in each its switches and host bridges with their devices, all GPUs on one line with
their links below, then the table of paths. Texts that do not fit are cut and shown in full on hovering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from mori._topology_view import (
    COLOURS,
    BridgeGroup,
    table_columns,
    gpu_detail,
    groups_of,
    link_summary,
    nic_detail,
    node_title,
    shown_nodes,
)

if TYPE_CHECKING:
    from mori.topology import Topology

_BOX, _GAP, _ROW, _TEXT = 150, 10, 50, 13


def svg(t: Topology) -> str:
    out: list[str] = []
    nic_of_gpu = t.assign_nics()
    columns = [(node, groups_of(t, node)) for node in shown_nodes(t)]
    others = max((_rows(g) for _, groups in columns for g in groups), default=0)
    top = 40
    gpu_y = top + 62 + others * _ROW
    bottom = gpu_y + (_ROW + 16 if t.gpus else 0)
    gpu_x: dict[int, float] = {}

    x = _GAP
    for node, groups in columns:
        width = max(sum(_width(g) + _GAP for g in groups) + _GAP, 2 * _BOX)
        out.append(_rect(x, top, width, bottom - top, "#f4f6f8", "#8a949e"))
        out.append(_label(x + _GAP, top + 18, node_title(node), bold=True, width=width - 2 * _GAP))
        left = x + _GAP
        for group in groups:
            wide = _width(group)
            out.append(_rect(left, top + 28, wide, bottom - top - 36, "#ffffff", "#b9c2cb"))
            out.append(_label(left + 8, top + 46, group.title, width=wide - 16))
            cells = [(nic.name, nic_detail(nic), "#d7ecf7") for nic in group.nics]
            cells += [(nvme.name, nvme.pci, "#eeeeee") for nvme in group.nvmes]
            across = max(1, len(group.gpus))
            for index, (name, detail, fill) in enumerate(cells):
                cell_x = left + 6 + index % across * (_BOX + _GAP)
                out.append(_cell(cell_x, top + 56 + index // across * _ROW, name, detail, fill))
            for column, index in enumerate(group.gpus):
                gpu_x[index] = left + 6 + column * (_BOX + _GAP)
                served = nic_of_gpu[index] or "no NIC"
                out.append(
                    _cell(gpu_x[index], gpu_y, f"GPU {index}: {served}", gpu_detail(t.gpus[index]), "#dff0d0")
                )
            left += wide + _GAP
        x += width + _GAP

    y, drawn = _draw_links(t, gpu_x, gpu_y + _ROW - 8, bottom + 10)
    out += drawn
    software = [f"NIC {nic.name}: {nic_detail(nic)}, software" for nic in t.nics if not nic.pci]
    for line in [*software, *(f"note: {note}" for note in t.notes)]:
        y += 18
        out.append(_label(_GAP, y, line))
    table_width = 0
    if len(t.gpus) > 1 or (t.gpus and t.nics):
        table_width, height, drawn = _draw_table(t, y + 24)
        out += drawn
        y += 24 + height
    total = max(x, table_width, 480, *(len(n) * 7 + 60 for n in t.notes), 0)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total:.0f}" height="{y + 20:.0f}" '
        f'viewBox="0 0 {total:.0f} {y + 20:.0f}" font-family="sans-serif" font-size="{_TEXT}">'
    )
    title = f"{len(t.gpus)} GPUs, {len(t.nics)} NICs, {len(t.numa_nodes)} NUMA nodes"
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, background, _label(_GAP, 26, title, bold=True), *out, "</svg>"]) + "\n"


def _rows(group: BridgeGroup) -> int:
    across = max(1, len(group.gpus))
    return -(-(len(group.nics) + len(group.nvmes)) // across)


def _width(group: BridgeGroup) -> int:
    return max(1, len(group.gpus)) * (_BOX + _GAP) + 2


def _draw_links(t: Topology, gpu_x: dict[int, float], y: float, low: float) -> tuple[float, list[str]]:
    """GPU links: one bar when every pair has the same ones, otherwise an arc for each pair."""
    summary = link_summary(t)
    if not t.links:
        return low - 10, []
    number = {gpu.pci: index for index, gpu in enumerate(t.gpus)}
    centre = {index: x + _BOX / 2 for index, x in gpu_x.items()}
    out = []
    if len(summary) == 1 and "every pair" in summary[0] and len(t.gpus) > 2:
        colour = COLOURS[t.links[0].kind.value]
        for x in centre.values():
            out.append(
                f'<line x1="{x}" y1="{y}" x2="{x}" y2="{low + 8}" stroke="{colour}" stroke-width="3"/>'
            )
        left, right = min(centre.values()) - _BOX / 2, max(centre.values()) + _BOX / 2
        out.append(_rect(left, low + 8, right - left, 24, colour, colour))
        out.append(_label(left + 10, low + 25, summary[0], bold=True))
        return low + 34, out
    deepest = low
    for link in t.links:
        a, b = sorted((centre[number[link.a]], centre[number[link.b]]))
        depth = low + 10 + (b - a) / 6
        deepest = max(deepest, (y + 3 * depth) / 4)
        colour = COLOURS[link.kind.value]
        out.append(
            f'<path d="M{a} {y} C{a} {depth} {b} {depth} {b} {y}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    for line in summary:
        deepest += 18
        out.append(_label(_GAP, deepest, line, bold=True))
    return deepest, out


def _draw_table(t: Topology, y: float) -> tuple[float, float, list[str]]:
    columns = table_columns(t)
    width = max(52, *(len(name) * 8 + 8 for name, _ in columns))
    out = []
    for column, (name, _) in enumerate(columns):
        out.append(_label(_GAP + (column + 1.5) * width, y + 14, name, middle=True))
    for row, (name, gpu) in enumerate(columns[: len(t.gpus)]):
        top = y + 22 + row * 22
        out.append(_label(_GAP, top + 15, name))
        for column, (_, other) in enumerate(columns):
            path = t.path(gpu, other)
            left = _GAP + (column + 1) * width
            colour = COLOURS[path.kind.value]
            out.append(f"<g><title>{escape(f'{name} - {columns[column][0]}: {path}')}</title>")
            out.append(_rect(left + 1, top, width - 2, 20, colour, colour, opacity=0.45))
            out.append(
                _label(left + width / 2, top + 15, "" if gpu == other else path.kind.value, middle=True)
            )
            out.append("</g>")
    return _GAP * 2 + (len(columns) + 1) * width, 22 + len(t.gpus) * 22, out


def _rect(x: float, y: float, w: float, h: float, fill: str, line: str, opacity: float = 1) -> str:
    faint = "" if opacity == 1 else f' opacity="{opacity}"'
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="5" fill="{fill}" stroke="{line}"{faint}/>'


def _label(
    x: float, y: float, text: str, *, bold: bool = False, middle: bool = False, width: float = 0
) -> str:
    most = int(width / 7) if width else len(text)
    shown = text if len(text) <= most else text[: max(1, most - 1)] + "…"
    style = (' font-weight="bold"' if bold else "") + (' text-anchor="middle"' if middle else "")
    full = f"<title>{escape(text)}</title>" if shown != text else ""
    return f'<text x="{x}" y="{y}"{style}>{full}{escape(shown)}</text>'


def _cell(x: float, y: float, name: str, detail: str, fill: str) -> str:
    body = _rect(x, y, _BOX, _ROW - 8, fill, "#6b7580")
    text = _label(x + 8, y + 17, name, bold=True, width=_BOX - 10) + _label(
        x + 8, y + 34, detail, width=_BOX - 10
    )
    return f"<g>{body}{text}</g>"
