# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A `mori.topology.Topology` as a picture: one self-contained SVG document, without a library.

NUMA nodes from left to right, in each its switches and host bridges with their devices, all GPUs on one line
with their links below, then the table of paths. Texts that do not fit are cut and shown in full on hovering.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from ._topology_view import (
    COLOURS,
    BridgeGroup,
    gpu_detail,
    groups_of,
    link_summary,
    nic_detail,
    node_title,
    shown_nodes,
    table_columns,
)

if TYPE_CHECKING:
    from ._topology_types import NumaNode
    from .topology import Topology

_BOX, _GAP, _ROW = 168, 10, 50
_LETTER, _BOLD_LETTER = 7.3, 8.1  # widths of a usual sans-serif at 13 px, for cutting texts


@dataclass
class _Frame:
    """Where the devices stand: NUMA nodes reach from `top` to `bottom`, GPUs begin at `gpu_y`."""

    top: float
    gpu_y: float
    bottom: float
    gpu_x: dict[int, float] = field(default_factory=dict)
    nic_of_gpu: tuple[str, ...] = ()


def svg(t: Topology) -> str:
    nodes = [(node, groups) for node in shown_nodes(t) if (groups := groups_of(t, node)) or node.id != -1]
    rows = max((_rows(group) for _, groups in nodes for group in groups), default=0)
    top = 40
    gpu_y = top + 62 + rows * _ROW
    frame = _Frame(top, gpu_y, gpu_y + (_ROW + 16 if t.gpus else 0), nic_of_gpu=t.assign_nics())

    out = [_label(_GAP, 26, f"{_count(t.gpus, 'GPU')}, {_count(t.nics, 'NIC')}", bold=True)]
    width: float = _GAP
    for node, groups in nodes:
        node_width, drawn = _draw_node(t, frame, node, groups, width)
        width += node_width + _GAP
        out += drawn
    y, drawn = _draw_links(t, frame)
    out += drawn
    lines = [f"NIC {nic.name}: {nic_detail(nic)}, software" for nic in t.nics if not nic.pci]
    lines += [f"note: {note}" for note in t.notes]
    for line in lines:
        y += 18
        out.append(_label(_GAP, y, line))
    width = max(width, 480, *(len(line) * _LETTER + 2 * _GAP for line in lines or [""]))
    if len(t.gpus) > 1 or (t.gpus and t.nics):
        table_width, height, drawn = _draw_table(t, y + 24)
        out += drawn
        y += 24 + height
        width = max(width, table_width)
    size = f'width="{width:.0f}" height="{y + 20:.0f}" viewBox="0 0 {width:.0f} {y + 20:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *out, "</svg>"]) + "\n"


def _draw_node(
    t: Topology, frame: _Frame, node: NumaNode, groups: list[BridgeGroup], x: float
) -> tuple[float, list[str]]:
    top, height = frame.top, frame.bottom - frame.top
    width = max(sum(_width(group) + _GAP for group in groups) + _GAP, 460)
    out = [_rect(x, top, width, height, "#f4f6f8", "#8a949e")]
    out.append(_label(x + _GAP, top + 18, node_title(node), bold=True, width=width - 2 * _GAP))
    left = x + _GAP
    for group in groups:
        out.append(_rect(left, top + 28, _width(group), height - 36, "#ffffff", "#b9c2cb"))
        out.append(_label(left + 8, top + 46, group.title, width=_width(group) - 16))
        cells = [(nic.name, nic_detail(nic), "#d7ecf7") for nic in group.nics]
        cells += [(nvme.name, nvme.pci, "#eeeeee") for nvme in group.nvmes]
        for index, (name, detail, fill) in enumerate(cells):
            row, column = divmod(index, _across(group))
            out.append(_cell(_column_x(left, column), top + 56 + row * _ROW, name, detail, fill))
        for column, gpu in enumerate(group.gpus):
            frame.gpu_x[gpu] = _column_x(left, column)
            name = f"GPU {gpu}: {frame.nic_of_gpu[gpu] or 'no NIC'}"
            out.append(_cell(frame.gpu_x[gpu], frame.gpu_y, name, gpu_detail(t.gpus[gpu]), "#dff0d0"))
        left += _width(group) + _GAP
    return width, out


def _across(group: BridgeGroup) -> int:
    return max(1, len(group.gpus))


def _rows(group: BridgeGroup) -> int:
    return -(-(len(group.nics) + len(group.nvmes)) // _across(group))


def _width(group: BridgeGroup) -> int:
    return _across(group) * (_BOX + _GAP) + 2


def _column_x(left: float, column: int) -> float:
    return left + 6 + column * (_BOX + _GAP)


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _draw_links(t: Topology, frame: _Frame) -> tuple[float, list[str]]:
    """GPU links: one bar when every pair has the same ones, otherwise an arc for each pair."""
    summary = link_summary(t)
    if not t.links:
        return frame.bottom, []
    y, low = frame.gpu_y + _ROW - 8, frame.bottom + 10
    number = {gpu.pci: index for index, gpu in enumerate(t.gpus)}
    centre = {index: x + _BOX / 2 for index, x in frame.gpu_x.items()}
    out = []
    if len(summary) == 1 and "every pair" in summary[0] and len(t.gpus) > 2:
        colour = COLOURS[t.links[0].kind.value]
        for x in centre.values():
            out.append(f'<line x1="{x}" y1="{y}" x2="{x}" y2="{low + 8}" stroke="{colour}" stroke-width="3"/>')
        left, right = min(centre.values()) - _BOX / 2, max(centre.values()) + _BOX / 2
        out.append(_rect(left, low + 8, right - left, 24, colour, colour))
        out.append(_label(left + 10, low + 25, summary[0], bold=True))
        return low + 34, out
    deepest = low
    for link in t.links:
        if link.a not in number or link.b not in number:
            continue
        a, b = sorted((centre[number[link.a]], centre[number[link.b]]))
        depth = low + 10 + (b - a) / 6
        deepest = max(deepest, (y + 3 * depth) / 4)
        colour = COLOURS[link.kind.value]
        curve = f"M{a} {y} C{a} {depth} {b} {depth} {b} {y}"
        out.append(f'<path d="{curve}" fill="none" stroke="{colour}" stroke-width="2"/>')
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
            out.append(_label(left + width / 2, top + 15, "" if gpu == other else path.kind.value, middle=True))
            out.append("</g>")
    return _GAP * 2 + (len(columns) + 1) * width, 22 + len(t.gpus) * 22, out


def _rect(x: float, y: float, w: float, h: float, fill: str, line: str, opacity: float = 1) -> str:
    faint = "" if opacity == 1 else f' opacity="{opacity}"'
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="5" fill="{fill}" stroke="{line}"{faint}/>'


def _label(x: float, y: float, text: str, *, bold: bool = False, middle: bool = False, width: float = 0) -> str:
    most = int(width / (_BOLD_LETTER if bold else _LETTER)) if width else len(text)
    shown = text if len(text) <= most else text[: max(1, most - 1)] + "…"
    style = (' font-weight="bold"' if bold else "") + (' text-anchor="middle"' if middle else "")
    full = f"<title>{escape(text)}</title>" if shown != text else ""
    return f'<text x="{x}" y="{y}"{style}>{full}{escape(shown)}</text>'


def _cell(x: float, y: float, name: str, detail: str, fill: str) -> str:
    body = _rect(x, y, _BOX, _ROW - 8, fill, "#6b7580")
    text = _label(x + 8, y + 17, name, bold=True, width=_BOX - 10) + _label(x + 8, y + 34, detail, width=_BOX - 10)
    return f"<g>{body}{text}</g>"
