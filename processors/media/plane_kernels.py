"""The compiled loops of `processors.media.planes`: from planes of 4:2:0 to small pictures in HSV.

Their numbers are libswscale's and OpenCV's, bit for bit, because they compute with the same fixed
point: 16-bit integers whose products are cut off, or rounded, at the same places. numba would widen
those to 64 bits, and LLVM then finds no way back to the vectors of 16-bit lanes that processors
have for them, so each step of that arithmetic is written in LLVM's terms here. Results that do not
fit wrap around; none of them do with bytes and with coefficients of a colour matrix.

Import it only where frames are compared (`processors.compiled` says why). All of it is in one
file: numba's cache notices changes in the file of the function that it keeps, and in no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from processors.compiled import compiled, part_of_compiled

LANES = 8
"""Pairs that are gathered at once: rows of them are padded to a multiple of it."""
_CACHE_LINE = 64
"""Bytes."""
_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


@intrinsic  # type: ignore[untyped-decorator]
def _pairs_at(_: Any, row: Any, starts: Any, at: Any, pairs: Any) -> Any:
    """Set ``pairs[at:at + LANES]`` to two bytes each, the first in the lower half: ``row[start]``
    and ``row[start + 1]`` of each ``start`` in ``starts[at:]``. Nobody checks that they exist."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        arrays = [target.make_array(kind)(target, build, value).data
                  for kind, value in zip(signature.args, values, strict=True)
                  if isinstance(kind, types.Array)]  # fmt: skip
        row_, starts_, pairs_ = arrays
        vector = ir.VectorType(_I16, LANES)
        found = ir.Constant(vector, ir.Undefined)
        for lane in range(LANES):
            index = build.add(values[2], ir.IntType(64)(lane))
            address = build.gep(row_, [build.load(build.gep(starts_, [index]))])
            pair = build.load(build.bitcast(address, _I16.as_pointer()), align=1)
            found = build.insert_element(found, pair, _I32(lane))
        out = build.bitcast(build.gep(pairs_, [values[2]]), vector.as_pointer())
        build.store(found, out, align=2)
        return target.get_dummy_value()

    return types.void(row, starts, at, pairs), generate


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_: Any, row: Any, at: Any) -> Any:
    """Ask for the cache line that holds ``row[at]``, without waiting for it."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        data = target.make_array(signature.args[0])(target, build, values[0]).data
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        function = build.module.declare_intrinsic("llvm.prefetch", [_I8.as_pointer()], kind)
        build.call(function, [build.gep(data, [values[1]]), _I32(0), _I32(3), _I32(1)])
        return target.get_dummy_value()

    return types.void(row, at), generate


@intrinsic  # type: ignore[untyped-decorator]
def _byte_of(_: Any, pair: Any, is_second: Any) -> Any:
    """A pair's first byte where ``is_second`` is 0, its second one where it is -1."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        pair_, is_second_ = values
        first = build.and_(pair_, build.xor(is_second_, _I16(-1)))
        second = build.and_(build.lshr(pair_, _I16(8)), is_second_)
        return build.and_(build.or_(first, second), _I16(255))

    return types.int16(pair, is_second), generate


@intrinsic  # type: ignore[untyped-decorator]
def _eightfold(_: Any, byte: Any, less: Any) -> Any:
    """``8 · byte - less``."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.sub(build.shl(values[0], _I16(3)), values[1])

    return types.int16(byte, less), generate


@intrinsic  # type: ignore[untyped-decorator]
def _times(_: Any, a: Any, b: Any) -> Any:
    """``a · b / 65536``, rounded down."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        return _high_product(build, *values)

    return types.int16(a, b), generate


@intrinsic  # type: ignore[untyped-decorator]
def _total(_: Any, a: Any, b: Any) -> Any:
    """``a + b``."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.add(*values)

    return types.int16(a, b), generate


@intrinsic  # type: ignore[untyped-decorator]
def _blended(_: Any, a: Any, share_a: Any, b: Any, share_b: Any) -> Any:
    """``(a · share_a + b · share_b) / 16``, rounded down, of ``a`` and ``b`` as bytes: what is
    below 0 or above 255 counts as that."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        def product(value: Any, share: Any) -> Any:
            value = build.select(build.icmp_signed("<", value, _I16(0)), _I16(0), value)
            value = build.select(build.icmp_signed(">", value, _I16(255)), _I16(255), value)
            return build.mul(build.sext(value, _I32), build.sext(share, _I32))

        both = build.add(product(*values[:2]), product(*values[2:]))
        return build.trunc(build.ashr(both, _I32(4)), _I16)

    return types.int16(a, share_a, b, share_b), generate


@intrinsic  # type: ignore[untyped-decorator]
def _byte_between(_: Any, a: Any, share_a: Any, b: Any, share_b: Any) -> Any:
    """The byte between two values of `_blended`: their high products with the shares, a quarter."""

    def generate(target: Any, build: Any, signature: Any, values: Any) -> Any:
        both = build.add(_high_product(build, *values[:2]), _high_product(build, *values[2:]))
        return build.trunc(build.ashr(build.add(both, _I16(2)), _I16(2)), _I8)

    return types.uint8(a, share_a, b, share_b), generate


def _high_product(build: Any, a: Any, b: Any) -> Any:
    product = build.mul(build.sext(a, _I32), build.sext(b, _I32))
    return build.trunc(build.ashr(product, _I32(16)), _I16)


@part_of_compiled
def _gather(row: Any, starts: Any, pairs: Any) -> None:
    for x in range(0, pairs.shape[0], LANES):
        _pairs_at(row, starts, x, pairs)


@part_of_compiled
def _fetch(luma: Any, u: Any, v: Any, row: Any) -> None:
    """Have a row of luma and its chroma on their way: decoded frames lie in main memory."""
    for at in range(0, luma.shape[1], _CACHE_LINE):
        _prefetch(luma[row], np.uint64(at))
    for at in range(0, u.shape[1], _CACHE_LINE):
        _prefetch(u[row >> 1], np.uint64(at))
        _prefetch(v[row >> 1], np.uint64(at))


@part_of_compiled
def _brightness(pairs: Any, scale: Any, black: Any, out: Any) -> None:
    """What luma adds to each colour, of the pair's first byte and of its second."""
    first, second = out[0], out[1]
    for x in range(first.shape[0]):
        first[x] = _times(_eightfold(_byte_of(pairs[x], np.int16(0)), black), scale)
        second[x] = _times(_eightfold(_byte_of(pairs[x], np.int16(-1)), black), scale)


@part_of_compiled
def _tint(pairs: Any, picks: Any, out: Any) -> None:
    """Eight times chroma's distance from grey, in the first column and in the second."""
    grey = np.int16(8 * 128)
    for column in range(2):
        target, pick = out[column], picks[column]
        for x in range(target.shape[0]):
            target[x] = _eightfold(_byte_of(pairs[x], pick[x]), grey)


@part_of_compiled
def _shrink(y: Any, chroma: Any, factor: Any, shares: Any, out: Any) -> None:
    """A row of blue or red, each pixel blended from two columns."""
    y0, y1, c0, c1, left, right = y[0], y[1], chroma[0], chroma[1], shares[0], shares[1]
    for x in range(out.shape[0]):
        first = _total(y0[x], _times(c0[x], factor))
        second = _total(y1[x], _times(c1[x], factor))
        out[x] = _blended(first, left[x], second, right[x])


@part_of_compiled
def _shrink_green(y: Any, u: Any, v: Any, of_u: Any, of_v: Any, shares: Any, out: Any) -> None:
    """The same of green, which depends on both planes of chroma."""
    y0, y1, left, right = y[0], y[1], shares[0], shares[1]
    u0, u1, v0, v1 = u[0], u[1], v[0], v[1]
    for x in range(out.shape[0]):
        first = _total(y0[x], _total(_times(u0[x], of_u), _times(v0[x], of_v)))
        second = _total(y1[x], _total(_times(u1[x], of_u), _times(v1[x], of_v)))
        out[x] = _blended(first, left[x], second, right[x])


@part_of_compiled
def _between(upper: Any, lower: Any, above: Any, below: Any, out: Any) -> None:
    """The bytes between two rows of one colour."""
    for x in range(out.shape[0]):
        out[x] = _byte_between(upper[x], above, lower[x], below)


@part_of_compiled
def _colour(y: Any, chroma: Any, factor: Any, out: Any) -> None:
    """A row of blue or red in both columns of its pixels; not cut off to bytes yet.

    For pictures that are shown turned: their columns are rows here, and come first. The others are
    not made this way, too, since it took a sixth longer than `_shrink`.
    """
    for column in range(2):
        luma, tint, target = y[column], chroma[column], out[column]
        for x in range(target.shape[0]):
            target[x] = _total(luma[x], _times(tint[x], factor))


@part_of_compiled
def _colour_green(y: Any, u: Any, v: Any, of_u: Any, of_v: Any, out: Any) -> None:
    """The same of green."""
    for column in range(2):
        luma, tint_u, tint_v, target = y[column], u[column], v[column], out[column]
        for x in range(target.shape[0]):
            tint = _total(_times(tint_u[x], of_u), _times(tint_v[x], of_v))
            target[x] = _total(luma[x], tint)


@part_of_compiled
def _between_turned(upper: Any, lower: Any, above: Any, below: Any, shares: Any, out: Any) -> None:
    """The bytes between two rows and two columns of one colour, from rows first."""
    a, b, c, d, left, right = upper[0], upper[1], lower[0], lower[1], shares[0], shares[1]
    for x in range(out.shape[0]):
        first = _blended(a[x], above, c[x], below)
        second = _blended(b[x], above, d[x], below)
        out[x] = _byte_between(first, left[x], second, right[x])


@part_of_compiled
def _to_hsv(bgr: Any, hue: Any, saturation: Any, value: Any) -> None:
    """A row of OpenCV's 8-bit HSV: hue in 180 steps of two degrees.

    OpenCV multiplies by tables of reciprocals with 12 fractional bits. They are computed here: all
    numbers stay below 2**24, so that single precision is exact but for the quotients, and those
    round to the tables' entries for every divisor there is.
    """
    blue, green, red = bgr[0], bgr[1], bgr[2]
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    unit, circle = np.float32(4096), np.float32(180)
    hues, saturations = np.float32(4096 * 180 / 6), np.float32(4096 * 255)
    for x in range(value.shape[0]):
        b, g, r = np.float32(blue[x]), np.float32(green[x]), np.float32(red[x])
        v = max(max(b, g), r)
        d = v - min(min(b, g), r)
        per_v = np.floor(saturations / max(v, one) + half)
        per_d = np.floor(hues / max(d, one) + half)
        s = np.floor((d * per_v) / unit + half)
        two = d + d
        h = g - b if v == r else (b - r + two if v == g else r - g + (two + two))
        h = np.floor((h * per_d) / unit + half)
        h = h + (circle if h < zero else zero)
        hue[x], saturation[x], value[x] = np.uint8(h), np.uint8(s), np.uint8(v)


@compiled(
    "void(u1[:,::1], u1[:,::1], u1[:,::1], i2[::1], u8[:,::1], i2[:,::1], i2[:,::1], i8[:,::1],"
    " i2[:,::1], b1, i2[::1], i2[:,:,::1], i2[:,:,:,::1], u1[:,::1], u1[:,:,::1])"
)
def shrink_to_hsv(
    luma: Any, u: Any, v: Any, matrix: Any, starts: Any, picks: Any, column_shares: Any,
    rows: Any, row_shares: Any, turned: Any, pairs: Any, columns: Any, colours: Any, bgr: Any,
    hsv: Any,
) -> None:  # fmt: skip
    """Fill ``hsv``, uint8 ``[3, height, width]``, from the planes of a larger or equal frame.

    ``luma``, ``u`` and ``v`` are the frame's planes with their padding, chroma of half the size.
    ``matrix``: luma's factor and black, then the factors of V for red, U for blue, U and V for
    green, as `processors.media.planes` makes them. A pixel is blended from two columns and
    two rows, rows first if ``turned``. The pair of luma bytes starts at ``starts[0]``, that of
    chroma at ``starts[1]``, of which ``picks`` ``[2, width]`` takes one byte for each column;
    ``rows`` ``[2, height]`` are luma's. Shares are in 2048ths, ``[2, width]`` and ``[2, height]``.

    The rest is room to work in: ``pairs``, as long as ``starts``, so ``width`` and what is missing
    to a multiple of `LANES`; ``columns`` ``[3, 2, width]``; ``colours`` ``[2, 3, 2, width]``, in
    which something has to be; and ``bgr`` ``[3, width]``.
    """
    scale, black = matrix[0], matrix[1]
    red_v, blue_u, green_u, green_v = matrix[2], matrix[3], matrix[4], matrix[5]
    ys, us, vs = columns[0], columns[1], columns[2]
    held_upper = held_lower = held_chroma = np.int64(-1)
    upper, lower = 0, 1
    for y in range(hsv.shape[1]):
        after = y + 1
        if after < hsv.shape[1]:
            _fetch(luma, u, v, rows[0, after])
            if row_shares[1, after] != 0:
                _fetch(luma, u, v, rows[1, after])
        if rows[0, y] == held_lower:
            upper, lower = lower, upper
            held_upper, held_lower = held_lower, held_upper
        for step in range(2):
            row = rows[step, y]
            if step == 0:
                if row == held_upper:
                    continue
                held_upper, into = row, colours[upper]
            else:
                if row == held_lower or row_shares[1, y] == 0:
                    continue
                held_lower, into = row, colours[lower]
            _gather(luma[row], starts[0], pairs)
            _brightness(pairs, scale, black, ys)
            if row >> 1 != held_chroma:
                held_chroma = row >> 1
                _gather(u[held_chroma], starts[1], pairs)
                _tint(pairs, picks, us)
                _gather(v[held_chroma], starts[1], pairs)
                _tint(pairs, picks, vs)
            if turned:
                _colour(ys, us, blue_u, into[0])
                _colour_green(ys, us, vs, green_u, green_v, into[1])
                _colour(ys, vs, red_v, into[2])
            else:
                _shrink(ys, us, blue_u, column_shares, into[0, 0])
                _shrink_green(ys, us, vs, green_u, green_v, column_shares, into[1, 0])
                _shrink(ys, vs, red_v, column_shares, into[2, 0])
        above, below = row_shares[0, y], row_shares[1, y]
        for c in range(3):
            top, bottom = colours[upper, c], colours[lower, c]
            if turned:
                _between_turned(top, bottom, above, below, column_shares, bgr[c])
            else:
                _between(top[0], bottom[0], above, below, bgr[c])
        _to_hsv(bgr, hsv[0, y], hsv[1, y], hsv[2, y])
