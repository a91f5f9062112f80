"""Furniture of the simulated rooms, at true sizes. Which construction is built, `room_style.VARIANTS` decides."""

from __future__ import annotations

import math

import numpy as np

from perception.evaluation.room_objects import book_row
from perception.evaluation.room_parts import Assembly, Material, Materials, pose


def table(stuff: Materials, width: float, depth: float, height: float) -> Assembly:
    draw, wood, kind = stuff.draw, stuff.wood(), stuff.draw.variant("table")
    under = wood if draw.chance(0.5) else stuff.metal()
    top = draw.length(0.02, 0.045)
    made = Assembly(tops=[(-width / 2, width / 2, -depth / 2, depth / 2, height)])
    made.box((width, depth, top), (0, 0, height - top / 2), stuff.stone() if draw.chance(0.1) else wood)
    x, y, leg = width / 2 - 0.06, depth / 2 - 0.06, draw.length(0.03, 0.07)
    z = (height - top) / 2
    if kind == "pedestal":
        made.lathe(
            [(0, 0), (0.28, 0), (0.26, 0.03), (0.05, 0.08), (0.04, height - top - 0.05), (0.14, height - top)],
            (0, 0, 0),
            under,
        )
    elif kind == "trestle":
        for side in (0.1 - x, x - 0.1):
            made.box((leg, depth * 0.8, height - top), (side, 0, z), under)
        made.box((width * 0.7, 0.03, 0.1), (0, 0, height * 0.5), under)
    elif kind == "sled":
        for side in (-x, x):
            for end in (-y, y):
                made.box((0.03, 0.03, height - top), (side, end, z), under)
            made.box((0.03, 2 * y, 0.03), (side, 0, 0.015), under)
    else:
        for side in (-x, x):
            for end in (-y, y):
                made.box((leg, leg, height - top), (side, end, z), under)
        if kind == "apron":
            for end in (-y, y):
                made.box((2 * x, 0.02, 0.1), (0, end, height - top - 0.05), under)
    return made


def desk(stuff: Materials) -> Assembly:
    """A desk with a chest of drawers under one end."""
    draw = stuff.draw
    width, depth, height = draw.length(1.1, 1.8), draw.length(0.6, 0.8), draw.length(0.70, 0.76)
    made = table(stuff, width, depth, height)
    if draw.chance(0.7):
        chest = cabinet(stuff, 0.4, depth - 0.1, height - 0.08, rows=3)
        made.include(chest, pose(draw.choice((-1, 1)) * (width / 2 - 0.28)))
    return made


def chair(stuff: Materials) -> Assembly:
    draw, kind = stuff.draw, stuff.draw.variant("chair")
    seat, width, back = draw.length(0.43, 0.48), draw.length(0.40, 0.48), draw.length(0.35, 0.55)
    frame = stuff.metal() if draw.chance(0.4) else stuff.wood()
    cover = stuff.fabric() if draw.chance(0.6) else stuff.lacquer()
    made, half = Assembly(), width / 2 - 0.03
    if kind == "swivel":
        for turn in np.arange(5) * 2 * math.pi / 5:
            tip = (0.3 * math.cos(turn), 0.3 * math.sin(turn), 0.06)
            made.rod(0.02, ((0, 0, 0.09), tip), stuff.metal())
            made.cushion((0.05, 0.05, 0.06), (tip[0], tip[1], 0.03), 0.025, stuff.metal())
        made.rod(0.03, ((0, 0, 0.07), (0, 0, seat)), stuff.metal())
        made.cushion((0.5, 0.48, 0.09), (0, 0, seat), 0.04, cover)
        made.cushion((0.46, 0.08, 0.6), (0, 0.24, seat + 0.42), 0.04, cover, roll=-0.12)
        for side in (-0.26, 0.26):
            made.cushion((0.06, 0.28, 0.04), (side, 0.03, seat + 0.22), 0.02, stuff.metal())
            made.rod(0.015, ((side, 0.05, seat), (side, 0.05, seat + 0.21)), stuff.metal())
        return made
    for x in (-half, half):
        for y in (-half, half):
            foot = (x * 1.12, y * 1.12, 0)
            made.rod(draw.length(0.014, 0.022), (foot, (x, y, seat)), frame)
    made.cushion((width, width, 0.05), (0, 0, seat), 0.02, cover)
    if kind == "stool":
        return made
    for x in (-half, half):
        made.rod(0.016, ((x, half, seat), (x, half + 0.06, seat + back)), frame)
    if kind in ("panel", "shell"):
        thick = 0.03 if kind == "panel" else 0.06
        made.cushion((width, thick, back * 0.8), (0, half + 0.03, seat + back * 0.58), thick / 2, cover, roll=-0.12)
    else:
        bars = 5 if kind == "slats" else 3
        for bar in range(bars):
            if kind == "slats":
                x = -half + 2 * half * (bar + 0.5) / bars
                made.rod(0.01, ((x, half, seat), (x, half + 0.06, seat + back)), frame)
            else:
                z = back * (bar + 1) / bars
                made.box((2 * half, 0.015, 0.05), (0, half + 0.06 * z / back, seat + z - 0.03), frame)
        made.box((2 * half + 0.03, 0.02, 0.05), (0, half + 0.06, seat + back), frame)
    return made


def sofa(stuff: Materials, seats: int) -> Assembly:
    draw, kind, cover = stuff.draw, stuff.draw.variant("sofa"), stuff.fabric()
    arm = {"block": 0.18, "rounded": 0.24, "slim": 0.09}[kind]
    place, depth, back = draw.length(0.58, 0.72), draw.length(0.85, 0.98), draw.length(0.75, 0.92)
    width, soft = seats * place + 2 * arm, 0.11 if kind == "rounded" else 0.05
    lift = 0.14 if kind == "slim" else 0.05
    made = Assembly(tops=[(-width / 2 + arm, width / 2 - arm, -depth / 2 + 0.1, 0.1, 0.44)])
    made.cushion((width - 0.04, depth - 0.06, 0.3 - lift + 0.05), (0, 0, (0.35 + lift) / 2), 0.04, cover)
    made.cushion((width - arm, 0.22, back - lift), (0, depth / 2 - 0.11, (back + lift) / 2), soft, cover)
    for side in (-1, 1):
        made.cushion((arm, depth, 0.62 - lift), (side * (width / 2 - arm / 2), 0, (0.62 + lift) / 2), soft, cover)
        for y in (-depth / 2 + 0.08, depth / 2 - 0.08):
            x = side * (width / 2 - 0.08)
            made.rod(0.022, ((x, y, 0), (x, y, lift + 0.02)), stuff.wood())
    for seat in range(seats):
        x = (seat - (seats - 1) / 2) * place
        made.cushion((place - 0.01, depth - 0.26, 0.16), (x, -0.1, 0.38), 0.06, cover)
        made.cushion((place - 0.02, 0.18, 0.4), (x, depth / 2 - 0.26, 0.62), 0.08, cover, roll=-0.2)
    for _ in range(draw.integer(0, seats)):
        made.cushion(
            (0.42, 0.16, 0.42),
            (draw.uniform(-0.4, 0.4) * width * 0.7, 0.02, 0.65),
            0.08,
            stuff.fabric(),
            draw.uniform(-0.3, 0.3),
            -0.4,
        )
    return made


def bed(stuff: Materials) -> Assembly:
    draw, kind, wood = stuff.draw, stuff.draw.variant("bed"), stuff.wood()
    width, length, height = draw.length(0.9, 1.8), draw.length(1.95, 2.1), draw.length(0.4, 0.6)
    made, sheet, quilt = Assembly(), stuff.fabric(), stuff.fabric()
    made.tops.append((-width / 2 + 0.1, width / 2 - 0.1, -length / 2 + 0.2, length / 2 - 0.8, height + 0.07))
    made.box((width, length, 0.22), (0, 0, 0.21), wood)
    made.cushion((width, length - 0.04, height - 0.2), (0, 0, (height + 0.2) / 2), 0.07, sheet)
    made.cushion((width + 0.1, length * 0.68, 0.32), (0, -length * 0.15, height - 0.09), 0.06, quilt)
    pillows = 1 if width < 1.3 else 2
    for side in range(pillows):
        x = (side - (pillows - 1) / 2) * width / 2
        made.cushion(
            (min(0.7, width * 0.45 + 0.1), 0.42, 0.16),
            (x, length / 2 - 0.3, height + 0.07),
            0.07,
            stuff.fabric(),
            draw.uniform(-0.15, 0.15),
            0.25,
        )
    head = draw.length(0.9, 1.25)
    if kind == "panel":
        made.box((width + 0.06, 0.06, head), (0, length / 2 + 0.03, head / 2), wood)
    else:
        for x in (-width / 2, width / 2):
            made.box((0.07, 0.07, head), (x, length / 2 + 0.03, head / 2), wood)
        for bar in range(4):
            if kind == "boards":
                made.box((width, 0.03, 0.12), (0, length / 2 + 0.03, height + (head - height) * (bar + 0.5) / 4), wood)
            else:
                x = width * (bar - 1.5) / 4
                made.rod(0.015, ((x, length / 2 + 0.03, height), (x, length / 2 + 0.03, head)), wood)
    return made


def shelf(stuff: Materials) -> Assembly:
    """An open bookcase with its books."""
    draw, kind, wood = stuff.draw, stuff.draw.variant("shelf"), stuff.front()
    width, depth, height = draw.length(0.6, 1.4), draw.length(0.25, 0.4), draw.length(0.8, 2.2)
    boards, thick = max(2, round(height / draw.uniform(0.3, 0.42))), 0.02
    made = Assembly(tops=[(-width / 2, width / 2, -depth / 2, depth / 2, height)])
    gap = (height - 0.08 - thick) / boards
    for board in range(boards + 1):
        made.box((width - 0.002, depth, thick), (0, 0, 0.08 + board * gap + thick / 2), wood)
        if board < boards and draw.chance(0.85):
            made.include(book_row(stuff, width - 0.06, gap - thick, depth - 0.03), pose(z=0.08 + board * gap + thick))
    for side in (-1, 1):
        if kind == "ladder":
            for y in (-depth / 2 + 0.015, depth / 2 - 0.015):
                made.rod(0.015, ((side * width / 2, y, 0), (side * width / 2, y, height + 0.03)), stuff.metal())
        else:
            made.box((thick, depth, height), (side * (width / 2 - thick / 2), 0, height / 2), wood)
    if kind == "backed":
        made.box((width, 0.006, height - 0.08), (0, depth / 2 - 0.003, height / 2 + 0.04), wood)
    return made


def cabinet(
    stuff: Materials,
    width: float,
    depth: float,
    height: float,
    rows: int | None = None,
    front: Material | None = None,
    plinth: float = 0.06,
) -> Assembly:
    """A body with doors, or with `rows` of drawers, and handles of the room's kind."""
    draw, kind, front = stuff.draw, stuff.draw.variant("cabinet"), front or stuff.front()
    made = Assembly(tops=[(-width / 2, width / 2, -depth / 2, depth / 2, height)])
    if plinth > 0:
        made.box((width - 0.02, depth - 0.06, plinth), (0, 0.02, plinth / 2), front)
    body = height - plinth
    made.box((width, depth - 0.02, body), (0, 0.01, plinth + body / 2), front)
    columns = max(1, round(width / 0.5))
    rows = rows or (draw.integer(2, 4) if kind == "drawers" else 1)
    gap, y = 0.004, -depth / 2 + 0.009
    for column in range(columns):
        for row in range(rows):
            w, h = width / columns, body / rows
            x, z = -width / 2 + (column + 0.5) * w, plinth + (row + 0.5) * h
            made.box((w - gap, 0.018, h - gap), (x, y, z), front)
            _handle(made, stuff, kind, (x, y, z), (w, h), column, rows)
    return made


def _handle(
    made: Assembly,
    stuff: Materials,
    kind: str,
    centre: tuple[float, float, float],
    size: tuple[float, float],
    column: int,
    rows: int,
) -> None:
    """A knob, a bar or a dark grip on the front panel at `centre`."""
    (x, y, z), (w, h) = centre, size
    aside = 0.0 if rows > 1 else (w / 2 - 0.05) * (1 if column % 2 == 0 else -1)
    if kind == "knobs":
        made.cushion((0.03, 0.03, 0.03), (x + aside, y - 0.02, z), 0.014, stuff.metal())
    elif kind == "grip":
        made.box((w - 0.01, 0.01, 0.022), (x, y - 0.006, z + h / 2 - 0.015), stuff.metal())
    else:
        reach = (0, 0, 0.07) if rows == 1 else (min(0.07, w / 3), 0, 0)
        low = (x + aside - reach[0], y - 0.03, z - reach[2])
        high = (x + aside + reach[0], y - 0.03, z + reach[2])
        made.rod(0.006, (low, high), stuff.metal())
        for x0, _, z0 in (low, high):
            made.rod(0.005, ((x0, y, z0), (x0, y - 0.03, z0)), stuff.metal())


def wardrobe(stuff: Materials) -> Assembly:
    draw = stuff.draw
    return cabinet(stuff, draw.length(0.8, 1.8), draw.length(0.5, 0.62), draw.length(1.8, 2.25), rows=1)


def sideboard(stuff: Materials) -> Assembly:
    draw = stuff.draw
    return cabinet(stuff, draw.length(0.7, 1.7), draw.length(0.38, 0.5), draw.length(0.5, 1.05))


def night_table(stuff: Materials) -> Assembly:
    draw = stuff.draw
    return cabinet(stuff, draw.length(0.38, 0.55), draw.length(0.35, 0.45), draw.length(0.4, 0.6), 2)


def fridge(stuff: Materials) -> Assembly:
    draw = stuff.draw
    height = draw.length(1.5, 1.9)
    made = Assembly(tops=[(-0.28, 0.28, -0.3, 0.28, height)])
    shell = stuff.metal() if draw.chance(0.5) else stuff.trim()
    made.cushion((0.62, 0.6, height), (0, 0.02, height / 2), 0.02, shell)
    split = height * draw.uniform(0.3, 0.65)
    for low, high in ((0.05, split - 0.005), (split + 0.005, height - 0.01)):
        made.cushion((0.61, 0.05, high - low), (0, -0.3, (low + high) / 2), 0.015, shell)
        middle = (low + high) / 2
        made.rod(0.01, ((-0.25, -0.36, middle - 0.12), (-0.25, -0.36, middle + 0.12)), stuff.metal())
    return made


def stove(stuff: Materials) -> Assembly:
    made = Assembly(tops=[(-0.25, 0.25, -0.2, 0.2, 0.93)])
    shell, dark = stuff.trim() if stuff.draw.chance(0.5) else stuff.metal(), stuff.metal()
    made.box((0.6, 0.6, 0.9), (0, 0, 0.45), shell)
    made.box((0.5, 0.02, 0.42), (0, -0.305, 0.42), dark)
    made.rod(0.01, ((-0.24, -0.34, 0.68), (0.24, -0.34, 0.68)), stuff.metal())
    made.box((0.6, 0.58, 0.012), (0, 0, 0.906), dark)
    for x in (-0.15, 0.15):
        for y in (-0.14, 0.14):
            made.lathe([(0, 0), (0.09, 0), (0.09, 0.015), (0, 0.015)], (x, y, 0.912), dark)
    for knob in range(5):
        made.cushion((0.04, 0.03, 0.04), (-0.2 + 0.1 * knob, -0.31, 0.8), 0.012, dark)
    return made


def counter(stuff: Materials, width: float) -> Assembly:
    """A run of kitchen: base cabinets, worktop, tiled upstand, and cabinets on the wall above."""
    draw, front = stuff.draw, stuff.front()
    depth, height = draw.length(0.58, 0.64), draw.length(0.86, 0.92)
    made = Assembly(tops=[(-width / 2, width / 2, -depth / 2, depth / 2 - 0.12, height)])
    made.include(cabinet(stuff, width, depth, height - 0.04, None, front, 0.1), pose())
    worktop = stuff.stone() if draw.chance(0.6) else stuff.wood()
    made.box((width, depth + 0.03, 0.04), (0, -0.015, height - 0.02), worktop)
    made.box((width, 0.012, 0.5), (0, depth / 2 - 0.006, height + 0.25), stuff.stone())
    if draw.chance(0.8):
        upper = cabinet(stuff, width, 0.34, draw.length(0.6, 0.8), 1, front, 0)
        made.include(upper, pose(y=depth / 2 - 0.17, z=height + 0.5))
    if draw.chance(0.6):
        x = draw.uniform(-0.25, 0.25) * width
        made.rod(0.014, ((x, depth / 2 - 0.08, height), (x, depth / 2 - 0.08, height + 0.25)), stuff.metal())
        made.rod(0.012, ((x, depth / 2 - 0.08, height + 0.25), (x, depth / 2 - 0.25, height + 0.22)), stuff.metal())
        made.box((0.5, 0.36, 0.004), (x, -0.02, height + 0.002), stuff.metal())
    return made
