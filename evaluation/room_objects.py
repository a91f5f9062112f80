"""Small things of the simulated rooms: what stands on tables, hangs on walls and lies about."""

from __future__ import annotations

import math

import numpy as np

from perception.evaluation import room_textures as textures
from perception.evaluation.room_parts import Assembly, Materials, pose, sheet


def book_row(stuff: Materials, width: float, height: float, depth: float) -> Assembly:
    """Books side by side in a compartment of a shelf, with a gap or a box here and there."""
    draw, made, x = stuff.draw, Assembly(), -width / 2
    fill = draw.uniform(0.5, 1.0)
    while x < width / 2 - 0.06:
        if draw.chance(1 - fill):
            x += draw.uniform(0.03, 0.2)
            continue
        thick, tall = draw.length(0.015, 0.05), min(height - 0.02, draw.length(0.17, 0.31))
        if draw.chance(0.06):
            thick, tall = draw.length(0.08, 0.2), min(height - 0.03, draw.length(0.1, 0.25))
        if x + thick > width / 2:
            break
        deep = min(depth, draw.length(0.13, 0.22))
        made.box(
            (thick - 0.001, deep, tall),
            (x + thick / 2, -depth / 2 + deep / 2 + draw.uniform(0, 0.02), tall / 2),
            stuff.lacquer() if draw.chance(0.8) else stuff.printed(),
        )
        x += thick
    return made


def books(stuff: Materials) -> Assembly:
    """A pile of books or papers."""
    draw, made, z = stuff.draw, Assembly(), 0.0
    for _ in range(draw.integer(1, 6)):
        thick = draw.length(0.008, 0.045)
        made.box(
            (draw.length(0.14, 0.22), draw.length(0.2, 0.3), thick),
            (0, 0, z + thick / 2),
            stuff.printed() if draw.chance(0.6) else stuff.lacquer(),
            draw.uniform(-0.4, 0.4),
        )
        z += thick
    return made


def vessel(stuff: Materials) -> Assembly:
    """A bottle, mug, bowl or vase."""
    draw = stuff.draw
    r, h = draw.length(0.03, 0.05), draw.length(0.08, 0.3)
    shape = draw.integer(0, 3)
    if shape == 0:
        profile = [(0, 0), (r, 0), (r, 0.6 * h), (0.35 * r, 0.75 * h), (0.35 * r, h), (0, h)]
    elif shape == 1:
        profile = [(0, 0), (r, 0), (r, 0.1), (0.9 * r, 0.1), (0.9 * r, 0.02), (0, 0.02)]
    elif shape == 2:
        profile = [(0, 0), (1.2 * r, 0), (3 * r, 0.07), (2.9 * r, 0.07), (1.1 * r, 0.01), (0, 0.01)]
    else:
        profile = [
            (0, 0),
            (0.8 * r, 0),
            (1.7 * r, 0.35 * h),
            (1.4 * r, 0.6 * h),
            (0.6 * r, 0.85 * h),
            (0.9 * r, h),
            (0.8 * r, h),
            (0, 0.8 * h),
        ]
    return Assembly().lathe(profile, (0, 0, 0), stuff.lacquer())


def carton(stuff: Materials) -> Assembly:
    draw = stuff.draw
    size = (draw.length(0.08, 0.4), draw.length(0.08, 0.35), draw.length(0.06, 0.35))
    return Assembly().box(
        size, (0, 0, size[2] / 2), stuff.printed() if draw.chance(0.6) else stuff.lacquer(), draw.uniform(-0.5, 0.5)
    )


def bag(stuff: Materials) -> Assembly:
    """A slumped bag, a heap of clothes or a soft toy."""
    draw, made, cover = stuff.draw, Assembly(), stuff.fabric()
    for _ in range(draw.integer(1, 3)):
        size = (draw.length(0.15, 0.4), draw.length(0.12, 0.3), draw.length(0.1, 0.3))
        made.cushion(
            size,
            (draw.uniform(-0.08, 0.08), draw.uniform(-0.08, 0.08), size[2] / 2),
            0.45 * min(size),
            cover,
            draw.uniform(0, 3),
            draw.uniform(-0.2, 0.2),
        )
    return made


def laptop(stuff: Materials) -> Assembly:
    body = stuff.metal()
    made = Assembly().box((0.33, 0.23, 0.018), (0, 0, 0.009), body)
    made.box((0.33, 0.01, 0.22), (0, 0.145, 0.12), body, roll=-0.35)
    made.box((0.31, 0.002, 0.2), (0, 0.1385, 0.119), stuff.new(textures.screen(stuff.draw), 0, 0.05, 0.7), roll=-0.35)
    return made.box((0.28, 0.12, 0.002), (0, 0.02, 0.019), stuff.lacquer())


def monitor(stuff: Materials) -> Assembly:
    """A screen on a foot with its keyboard, switched on or off."""
    draw, body = stuff.draw, stuff.metal()
    width = draw.length(0.45, 0.7)
    height, lift = width * 0.6, draw.length(0.1, 0.16)
    made = Assembly().box((0.22, 0.18, 0.012), (0, 0.05, 0.006), body)
    made.box((0.06, 0.03, lift + 0.1), (0, 0.07, (lift + 0.1) / 2), body)
    made.box((width, 0.04, height), (0, 0.03, lift + height / 2), body)
    glass = stuff.new(textures.screen(draw), 0, 0.05, 0.8 if draw.chance(0.7) else 0.02)
    made.box((width - 0.03, 0.004, height - 0.03), (0, 0.009, lift + height / 2), glass)
    return made.box((0.43, 0.13, 0.02), (0, -0.18, 0.01), body, draw.uniform(-0.1, 0.1))


def television(stuff: Materials) -> Assembly:
    draw, body = stuff.draw, stuff.metal()
    width = draw.length(0.8, 1.4)
    made = Assembly().box((width * 0.4, 0.2, 0.02), (0, 0, 0.01), body)
    made.box((width, 0.05, width * 0.57), (0, 0, 0.06 + width * 0.285), body)
    glass = stuff.new(textures.screen(draw), 0, 0.06, 0.6 if draw.chance(0.4) else 0.01)
    return made.box((width - 0.03, 0.004, width * 0.54), (0, -0.026, 0.06 + width * 0.285), glass)


def plant(stuff: Materials, tall: bool) -> Assembly:
    draw, kind, green = stuff.draw, stuff.draw.variant("plant"), stuff.leaf()
    pot = draw.length(0.12, 0.18) if tall else draw.length(0.05, 0.08)
    height, made = (draw.length(0.7, 1.6) if tall else draw.length(0.15, 0.3)), Assembly()
    profile = [(0, 0), (0.75 * pot, 0), (pot, 1.7 * pot), (0.9 * pot, 1.7 * pot), (0, 1.5 * pot)]
    made.lathe(profile, (0, 0, 0), stuff.lacquer())
    for _ in range(60 if tall else 25):
        turn, rise = draw.uniform(0, 2 * math.pi), draw.uniform(0, 1)
        reach = height * draw.uniform(0.1, 0.35) * (1 - 0.5 * rise)
        low = 1.5 * pot + (height - 1.5 * pot) * (rise if kind != "spikes" else 0.1 * rise)
        length = draw.uniform(0.35, 0.8) * height if kind == "spikes" else draw.uniform(0.12, 0.3) * height
        lean = -draw.uniform(0.9, 1.5) if kind == "spikes" else draw.uniform(-0.8, 0.5)
        size = (length, 0.45 * length, 0.05 * length) if kind == "bush" else (length, 0.12 * length, 0.01)
        leaf = pose(0, 0, low, turn) @ pose(x=reach * (kind != "spikes"), pitch=lean) @ pose(x=length / 2)
        blade = Assembly().cushion(size, (0, 0, 0), 0.4 * size[2], green)
        made.include(blade, leaf)
    if kind == "ficus":
        made.rod(0.012, ((0, 0, pot), (0, 0, height)), stuff.wood())
    return made


def picture(stuff: Materials, width: float, height: float) -> Assembly:
    """A framed picture; its back lies in the plane y = 0, its centre at the origin."""
    draw, edge = stuff.draw, stuff.draw.length(0.01, 0.05)
    made = Assembly().box((width, 0.02, height), (0, -0.01, 0), stuff.wood() if draw.chance(0.6) else stuff.metal())
    mat = stuff.new(textures.picture(draw, draw.variant("picture")), 0, 0.02)
    return made.box((width - 2 * edge, 0.004, height - 2 * edge), (0, -0.021, 0), mat)


def window(stuff: Materials, width: float, height: float, light: float) -> Assembly:
    """A window before the wall plane y = 0, centre at the origin; `light` is how bright the view outside is."""
    draw, kind, trim = stuff.draw, stuff.draw.variant("window"), stuff.trim()
    made = Assembly().box((width, 0.004, height), (0, -0.004, 0), stuff.new(textures.outdoors(draw), 0, 0, light))
    for z in (-height / 2, height / 2):
        made.box((width + 0.12, 0.06, 0.06), (0, -0.03, z), trim)
    for x in (-width / 2, width / 2):
        made.box((0.06, 0.06, height + 0.12), (x, -0.03, 0), trim)
    made.box((width + 0.2, 0.14, 0.03), (0, -0.07, -height / 2 - 0.045), trim)
    if kind in ("cross", "bars"):
        made.box((0.04, 0.04, height), (0, -0.02, 0), trim)
        for z in (0.0,) if kind == "cross" else (-height / 6, height / 6):
            made.box((width, 0.03, 0.03), (0, -0.02, z), trim)
    elif kind == "blinds":
        drop = draw.uniform(0.3, 1.0)
        for slat in np.arange(height / 2, height / 2 - drop * height, -0.045):
            made.box((width, 0.04, 0.003), (0, -0.09, slat), trim, roll=draw.choice((-0.5, -0.6)))
    else:
        cloth, reach = stuff.fabric(), width * draw.uniform(0.15, 0.3)
        drop = height + 0.35 if kind == "drapes" else draw.choice((height + 0.25, 2 * (height / 2 + 0.9)))
        for side in (-1, 1):
            across = side * (width / 2 + 0.1) - side * np.linspace(-0.1, reach, 60)
            wave = -0.12 - 0.035 * np.sin(np.linspace(0, draw.integer(4, 8) * 2 * np.pi, 60))
            made.add(sheet(np.column_stack([across, wave]), drop), cloth, pose(z=height / 2 + 0.12 - drop))
        made.rod(
            0.013,
            ((-width / 2 - 0.25, -0.12, height / 2 + 0.14), (width / 2 + 0.25, -0.12, height / 2 + 0.14)),
            stuff.metal(),
        )
    return made


def door(stuff: Materials, height: float) -> Assembly:
    """A closed door before the wall plane y = 0, standing on z = 0."""
    draw, leaf, trim = stuff.draw, stuff.front(), stuff.trim()
    width = draw.length(0.75, 0.95)
    made = Assembly().box((width, 0.04, height), (0, -0.02, height / 2), leaf)
    for x in (-width / 2 - 0.04, width / 2 + 0.04):
        made.box((0.08, 0.06, height + 0.08), (x, -0.03, height / 2 + 0.04), trim)
    made.box((width + 0.16, 0.06, 0.08), (0, -0.03, height + 0.04), trim)
    for row in range(draw.integer(0, 3)):
        made.box((width - 0.26, 0.02, 0.45), (0, -0.045, 0.35 + 0.6 * row), leaf)
    x = width / 2 - 0.08
    made.rod(0.01, ((x, -0.04, 1.02), (x, -0.09, 1.02)), stuff.metal())
    return made.rod(0.01, ((x, -0.09, 1.02), (x - 0.12, -0.09, 1.02)), stuff.metal())


def lampshade(stuff: Materials, radius: float, strength: float) -> Assembly:
    """A glowing shade centred on the origin; larger ones give more light."""
    kind, glow = stuff.draw.variant("lamp"), stuff.glow(strength, 3 * strength * radius**2)
    if kind == "globe":
        return Assembly().cushion((2 * radius,) * 3, (0, 0, 0), radius, glow)
    top = 0.55 if kind == "cone" else 1.0
    h = radius * 0.8
    return Assembly().lathe([(0, -h), (radius, -h), (top * radius, h), (0, h)], (0, 0, 0), glow, 28)


def floor_lamp(stuff: Materials, height: float, strength: float) -> Assembly:
    """A lamp on a stand; its shade is centred at `height`."""
    base, stand = min(0.16, 0.25 * height), stuff.metal()
    made = Assembly().lathe([(0, 0), (base, 0), (base, 0.02), (0, 0.03)], (0, 0, 0), stand)
    made.rod(0.012, ((0, 0, 0.02), (0, 0, height)), stand)
    return made.include(lampshade(stuff, min(0.22, 0.4 * height), strength), pose(z=height))
