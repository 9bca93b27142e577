"""The inner loops of `processors.farneback`, compiled when this module is imported.

They stay within rounding of OpenCV because they round where it does: single precision in the order
in which it adds, double where it has double, and no fused multiply-add. So none of them is compiled
with ``fastmath``. Loops write to one or few arrays each, or LLVM would not vectorise them.

Import it only where flow is measured (`processors.compiled` says why).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from processors.compiled import compiled, part_of_compiled

CHANNELS = 5
"""Numbers that the expansion keeps of a pixel: slopes in y and x, curvatures yy, xx and xy."""
LANES = 8
"""Floats that `_blend` handles at once, so `CHANNELS` and three that nothing reads."""
REACH = 5
"""Pixels to either side of the one that is expanded: OpenCV's ``poly_n``."""
_SIGMA = 1.2
_HALF_WINDOW = 7
WINDOW = 2 * _HALF_WINDOW + 1
ROUNDS = 3
KEPT_ROWS = WINDOW + 1
"""Rows of equations that a round holds: its window's, and the one that has just left it."""


def _weights() -> tuple[tuple[np.ndarray[Any, Any], ...], tuple[float, ...]]:
    """The expansion's filters for offsets 0 to `REACH`, float32, and what turns their results into
    coefficients: the inverse of the basis' Gram matrix under the Gaussian weights."""
    offsets = np.arange(-REACH, REACH + 1)
    raw = np.exp(-(offsets**2) / (2 * _SIGMA**2)).astype(np.float32)
    gauss = (raw.astype(np.float64) * (1.0 / sum(map(float, raw)))).astype(np.float32)
    steps = offsets.astype(np.float32)
    product = gauss[:, None] * gauss[None, :]
    squared = product * steps * steps
    fourth = squared * steps * steps
    mixed = squared * steps[:, None] * steps[:, None]
    total, second, m4, m22 = (
        float(part.astype(np.float64).sum()) for part in (product, squared, fourth, mixed)
    )
    gram = np.diag([total, second, second, m4, m4, m22])
    gram[0, 3:5] = gram[3:5, 0] = second
    gram[3, 4] = gram[4, 3] = m22
    inverse = np.linalg.inv(gram)
    right = slice(REACH, None)
    filters = (gauss, steps * gauss, (steps * steps) * gauss)
    return tuple(f[right].copy() for f in filters), tuple(
        float(inverse[at]) for at in ((1, 1), (0, 3), (3, 3), (5, 5))
    )


(_G, _XG, _XXG), (_SLOPE, _LEVEL, _CURVE, _TWIST) = _weights()


@intrinsic  # type: ignore[untyped-decorator]
def _blend(
    context: Any, out: Any, at: Any, source: Any, upper: Any, lower: Any,
    a: Any, b: Any, c: Any, d: Any,
) -> Any:  # fmt: skip
    """Mix four neighbouring pixels of ``source``, all channels of one in one vector.

    Into ``out[at:]`` goes ``a·source[upper:] + b·source[upper + 5:] + c·source[lower:] +
    d·source[lower + 5:]``, added from left to right. LLVM's
    vectoriser finds no way to this from a loop over channels.
    """

    def generate(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), LANES)
        first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        out_, at_, source_, upper_, lower_, *weights = values

        def pointer(array: Any, kind: Any, index: Any) -> Any:
            data = target.make_array(kind)(target, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        def repeated(value: Any) -> Any:
            empty = ir.Constant(vector, ir.Undefined)
            single = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(single, empty, first)

        total = None
        corners = [(upper_, 0), (upper_, CHANNELS), (lower_, 0), (lower_, CHANNELS)]
        for (start, offset), weight in zip(corners, weights, strict=True):
            index = builder.add(start, ir.Constant(ir.IntType(64), offset))
            pixel = builder.load(pointer(source_, signature.args[2], index), align=4)
            part = builder.fmul(repeated(weight), pixel)
            total = part if total is None else builder.fadd(total, part)
        builder.store(total, pointer(out_, signature.args[0], at_), align=4)
        return target.get_dummy_value()

    return types.void(out, at, source, upper, lower, a, b, c, d), generate


@part_of_compiled
def _expand_row(plain: Any, slope: Any, curve: Any, planes: Any) -> None:
    """The filters' horizontal half, of one row that their vertical half made three sums of."""
    width = planes.shape[1]
    for x in range(width):
        total = np.float64(slope[x + REACH] * _G[0])
        for k in range(1, REACH + 1):
            total += np.float64((slope[x + REACH + k] + slope[x + REACH - k]) * _G[k])
        planes[0, x] = np.float32(total * _SLOPE)
    for x in range(width):
        total = np.float64(0)
        for k in range(1, REACH + 1):
            total += np.float64((plain[x + REACH + k] - plain[x + REACH - k]) * _XG[k])
        planes[1, x] = np.float32(total * _SLOPE)
    for x in range(width):
        level = np.float64(plain[x + REACH] * _G[0])
        total = np.float64(curve[x + REACH] * _G[0])
        for k in range(1, REACH + 1):
            level += np.float64(plain[x + REACH + k] + plain[x + REACH - k]) * np.float64(_G[k])
            total += np.float64((curve[x + REACH + k] + curve[x + REACH - k]) * _G[k])
        planes[2, x] = np.float32(level * _LEVEL + total * _CURVE)
    for x in range(width):
        level = np.float64(plain[x + REACH] * _G[0])
        total = np.float64(0)
        for k in range(1, REACH + 1):
            pair = np.float64(plain[x + REACH + k] + plain[x + REACH - k])
            level += pair * np.float64(_G[k])
            total += pair * np.float64(_XXG[k])
        planes[3, x] = np.float32(level * _LEVEL + total * _CURVE)
    for x in range(width):
        total = np.float64(0)
        for k in range(1, REACH + 1):
            total += np.float64((slope[x + REACH + k] - slope[x + REACH - k]) * _XG[k])
        planes[4, x] = np.float32(total * _TWIST)


@compiled("void(f4[:,::1], f4[:,::1], f4[:,::1], f4[::1])")
def expand(image: Any, sums: Any, planes: Any, packed: Any) -> None:
    """Fit a quadratic around every pixel.

    ``image`` is float32 ``[height + 2·REACH, width]``, its edge rows repeated above and below;
    ``packed`` gets `CHANNELS` numbers a pixel, row by row, and has room for one more row and a
    vector at its end, which `_blend` may read and gives no share in anything.
    ``sums`` ``[3, width + 2·REACH]`` and ``planes`` ``[CHANNELS, width]`` are room to work in.
    """
    height, width = image.shape[0] - 2 * REACH, image.shape[1]
    plain, slope, curve = sums[0], sums[1], sums[2]
    for y in range(height):
        for x in range(width):
            total = image[y + REACH, x] * _G[0]
            for k in range(1, REACH + 1):
                total += _G[k] * (image[y + REACH - k, x] + image[y + REACH + k, x])
            plain[x + REACH] = total
        for x in range(width):
            total = np.float32(0)
            for k in range(1, REACH + 1):
                total += _XG[k] * (image[y + REACH + k, x] - image[y + REACH - k, x])
            slope[x + REACH] = total
        for x in range(width):
            total = np.float32(0)
            for k in range(1, REACH + 1):
                total += _XXG[k] * (image[y + REACH - k, x] + image[y + REACH + k, x])
            curve[x + REACH] = total
        for n in range(3):
            for k in range(REACH):
                sums[n, k] = sums[n, REACH]
                sums[n, width + REACH + k] = sums[n, width + REACH - 1]
        _expand_row(plain, slope, curve, planes)
        start = y * width * CHANNELS
        for x in range(width):
            for c in range(CHANNELS):
                packed[start + x * CHANNELS + c] = planes[c, x]


@compiled("void(f4[::1], f4[:,:,::1])")
def unpack(packed: Any, planar: Any) -> None:
    """An expansion as `expand` packs it, to ``[height, CHANNELS, width]``."""
    height, _, width = planar.shape
    for y in range(height):
        start = y * width * CHANNELS
        for c in range(CHANNELS):
            for x in range(width):
                planar[y, c, x] = packed[start + x * CHANNELS + c]


@part_of_compiled
def _equations_of_row(
    y: Any, first: Any, second: Any, flow: Any, row: Any, fade: Any,
    sampled: Any, corners: Any, starts: Any,
) -> None:  # fmt: skip
    """What row ``y`` of the flow implies: of every pixel, the five numbers of its 2 × 2 system."""
    height, _, width = first.shape
    one, zero = np.float32(1), np.float32(0)
    half, quarter = np.float32(0.5), np.float32(0.25)
    last_x, last_y = np.float32(width - 1), np.float32(height - 1)
    top = np.float32(y)
    across, down = flow[0, y], flow[1, y]
    w0, w1, w2, w3 = corners[0], corners[1], corners[2], corners[3]
    # Where each pixel has gone in the second picture, and the shares of the four pixels there.
    for x in range(width):
        fx, fy = np.float32(np.int32(x)) + across[x], top + down[x]
        left, upper = np.floor(fx), np.floor(fy)
        inside = (left >= zero) & (left < last_x) & (upper >= zero) & (upper < last_y)
        fx -= left
        fy -= upper
        w0[x] = (one - fx) * (one - fy) if inside else zero
        w1[x] = fx * (one - fy) if inside else zero
        w2[x] = (one - fx) * fy if inside else zero
        w3[x] = fx * fy if inside else zero
        start = np.int32(upper) * np.int32(width) + np.int32(left)
        starts[x] = start * np.int32(CHANNELS) if inside else np.int32(-1)
    for x in range(width):
        # Those that have left the picture have no share in anything; any address will do.
        at = np.int64(max(starts[x], 0))
        _blend(
            sampled, LANES * x, second, at, at + CHANNELS * width, w0[x], w1[x], w2[x], w3[x]
        )  # fmt: skip
    p0, p1, p2, p3, p4 = first[y, 0], first[y, 1], first[y, 2], first[y, 3], first[y, 4]
    m0, m1, m2, m3, m4 = row[0], row[1], row[2], row[3], row[4]
    for x in range(width):
        inside = starts[x] >= 0
        mixed = LANES * x
        yy = (p2[x] + sampled[mixed + 2]) * half if inside else p2[x]
        xx = (p3[x] + sampled[mixed + 3]) * half if inside else p3[x]
        xy = (p4[x] + sampled[mixed + 4]) * quarter if inside else p4[x] * half
        dx, dy = across[x], down[x]
        by = (p0[x] - sampled[mixed]) * half + (yy * dy + xy * dx)
        bx = (p1[x] - sampled[mixed + 1]) * half + (xy * dy + xx * dx)
        share = fade[x]
        by, bx, yy, xx, xy = by * share, bx * share, yy * share, xx * share, xy * share
        m0[x] = yy * yy + xy * xy
        m1[x] = (yy + xx) * xy
        m2[x] = xx * xx + xy * xy
        m3[x] = yy * by + xy * bx
        m4[x] = xy * by + xx * bx


@part_of_compiled
def _start_window(rows: Any, height: Any, columns: Any) -> None:
    """The window's columns as they are above the first row, edge rows repeated."""
    for c in range(CHANNELS):
        for x in range(rows.shape[2]):
            total = np.float64(rows[0, c, x] * np.float32(_HALF_WINDOW + 2))
            for k in range(1, _HALF_WINDOW):
                total += rows[min(k, height - 1), c, x]
            columns[c, x + _HALF_WINDOW + 1] = total


@part_of_compiled
def _slide(rows: Any, y: Any, height: Any, columns: Any, windows: Any) -> None:
    """Move the window down to row ``y`` and sum it around every pixel of the row."""
    width = rows.shape[2]
    edge = _HALF_WINDOW + 1
    enters = min(y + _HALF_WINDOW, height - 1) % KEPT_ROWS
    leaves = max(y - edge, 0) % KEPT_ROWS
    for c in range(CHANNELS):
        column = columns[c]
        new, old = rows[enters, c], rows[leaves, c]
        for x in range(width):
            column[x + edge] += np.float64(new[x] - old[x])
        for k in range(edge):
            column[k] = column[edge]
        for k in range(_HALF_WINDOW):
            column[width + edge + k] = column[width + edge - 1]
    # All five at once: each is a chain of additions that wait for each other.
    c0, c1, c2, c3, c4 = columns[0], columns[1], columns[2], columns[3], columns[4]
    s0 = s1 = s2 = s3 = s4 = np.float64(0)
    for k in range(WINDOW):
        s0 += c0[k]
        s1 += c1[k]
        s2 += c2[k]
        s3 += c3[k]
        s4 += c4[k]
    for x in range(width):
        s0 += c0[x + WINDOW] - c0[x]
        s1 += c1[x + WINDOW] - c1[x]
        s2 += c2[x + WINDOW] - c2[x]
        s3 += c3[x + WINDOW] - c3[x]
        s4 += c4[x + WINDOW] - c4[x]
        windows[0, x] = s0
        windows[1, x] = s1
        windows[2, x] = s2
        windows[3, x] = s3
        windows[4, x] = s4


@part_of_compiled
def _solve_row(windows: Any, flow: Any, y: Any) -> None:
    """The flow that fits each window best; 1e-3 keeps pictures without structure in bounds."""
    scale = 1.0 / (WINDOW * WINDOW)
    across, down = flow[0, y], flow[1, y]
    for x in range(across.shape[0]):
        yy, xy, xx = windows[0, x] * scale, windows[1, x] * scale, windows[2, x] * scale
        by, bx = windows[3, x] * scale, windows[4, x] * scale
        inverse = 1.0 / (yy * xx - xy * xy + 1e-3)
        across[x] = np.float32((yy * bx - xy * by) * inverse)
        down[x] = np.float32((xx * by - xy * bx) * inverse)


@compiled(
    "void(f4[:,:,::1], f4[::1], f4[:,:,::1], f4[:,:,:,::1], f4[:,::1], i8[::1], f4[::1],"
    " f4[:,::1], i4[::1], f8[:,:,::1], f8[:,::1])"
)
def refine(
    first: Any, second: Any, flow: Any, equations: Any, fades: Any, fade_of: Any,
    sampled: Any, corners: Any, starts: Any, columns: Any, windows: Any,
) -> None:  # fmt: skip
    """Bring ``flow`` nearer to what moves the first picture onto the second, `ROUNDS` times.

    ``first`` is planar as from `unpack`, ``second`` packed as from `expand`; ``flow`` is float32
    ``[2, height, width]``, x then y. Row ``y`` of the picture is weighted by
    ``fades[fade_of[y]]``. The others are room to work in: ``equations``
    ``[ROUNDS, KEPT_ROWS, CHANNELS, width]``, ``sampled`` ``[LANES · width]``, ``corners``
    ``[4, width]``, ``starts`` ``[width]``, ``columns`` ``[ROUNDS, CHANNELS, width + WINDOW]``,
    ``windows`` ``[CHANNELS, width]``.

    The rounds go down the picture together, each as soon as the one before it lets it, so that
    the rows in use stay in the processor's cache.
    """
    height = first.shape[0]
    for step in range(height + ROUNDS * _HALF_WINDOW):
        if step < height:
            _equations_of_row(
                step, first, second, flow, equations[0, step % KEPT_ROWS], fades[fade_of[step]],
                sampled, corners, starts,
            )  # fmt: skip
        for done in range(ROUNDS):
            y = step - (done + 1) * _HALF_WINDOW
            if not 0 <= y < height:
                continue
            if y == 0:
                _start_window(equations[done], height, columns[done])
            _slide(equations[done], y, height, columns[done], windows)
            _solve_row(windows, flow, y)
            if done + 1 < ROUNDS:
                _equations_of_row(
                    y, first, second, flow, equations[done + 1, y % KEPT_ROWS], fades[fade_of[y]],
                    sampled, corners, starts,
                )  # fmt: skip
