"""Eight float32 at once in numba: a value type that LLVM keeps in one vector register.

Numba leaves vectorising to LLVM, which gives up where arrays may overlap or a loop has branches, as in compositing.
Here a kernel says what is a vector. On a processor without 256-bit registers LLVM takes two narrower ones.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 8
_F32, _I32, _I1 = ir.FloatType(), ir.IntType(32), ir.IntType(1)
_V, _VI, _VM = (ir.VectorType(kind, LANES) for kind in (_F32, _I32, _I1))


class Lanes(types.Type):
    """Eight float32."""

    def __init__(self) -> None:
        super().__init__("Lanes8")


class LaneMask(types.Type):
    """Eight truth values, of a comparison of `Lanes`."""

    def __init__(self) -> None:
        super().__init__("LaneMask8")


lanes, lane_mask = Lanes(), LaneMask()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):  # type: ignore[no-untyped-def]
        super().__init__(dmm, fe_type, _V)


@register_model(LaneMask)
class _LaneMaskModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):  # type: ignore[no-untyped-def]
        super().__init__(dmm, fe_type, _VM)


def _constant(*values: float) -> ir.Constant:
    values = values * LANES if len(values) == 1 else values
    return ir.Constant(_V, [ir.Constant(_F32, v) for v in values])


def _broadcast(builder, scalar):  # type: ignore[no-untyped-def]
    one = builder.insert_element(ir.Constant(_V, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, ir.Constant(_V, ir.Undefined), ir.Constant(_VI, [ir.Constant(_I32, 0)] * LANES))


def _as_vector(context, builder, value, kind):  # type: ignore[no-untyped-def]
    if isinstance(kind, Lanes):
        return value
    return _broadcast(builder, context.cast(builder, value, kind, types.float32))


def _pointer(context, builder, array_type, array, index):  # type: ignore[no-untyped-def]
    """Where element `index` of a 1-D float32 array lies, as a pointer to a vector."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _V.as_pointer())


def _fused(builder, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c, fused where the processor can; the same in every kernel, so that they decide alike."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_V, [_V, _V, _V]), "llvm.fmuladd.v8f32"
    )  # fmt: skip
    return builder.call(function, [a, b, c])


@intrinsic
def splat(typingctx, value):  # type: ignore[no-untyped-def]
    """The same value in all lanes."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _as_vector(context, builder, args[0], signature.args[0])

    return lanes(value), code


@intrinsic
def lane_numbers(typingctx):  # type: ignore[no-untyped-def]
    """0, 1, ... 7."""
    return lanes(), lambda context, builder, signature, args: _constant(*map(float, range(LANES)))


@intrinsic
def load(typingctx, array, index):  # type: ignore[no-untyped-def]
    """Eight elements of a 1-D float32 array from `index` on."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        return builder.load(_pointer(context, builder, signature.args[0], args[0], at), align=4)

    return lanes(array, index), code


@intrinsic
def store(typingctx, array, index, value):  # type: ignore[no-untyped-def]
    """Write eight elements of a 1-D float32 array from `index` on."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        vector = _as_vector(context, builder, args[2], signature.args[2])
        builder.store(vector, _pointer(context, builder, signature.args[0], args[0], at), align=4)
        return context.get_dummy_value()

    return types.void(array, index, value), code


@intrinsic
def fused(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _fused(builder, *(_as_vector(context, builder, v, t) for v, t in zip(args, signature.args)))

    return lanes(a, b, c), code


def _binary(emit):  # type: ignore[no-untyped-def]
    @intrinsic
    def operation(typingctx, a, b):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            left, right = (_as_vector(context, builder, v, t) for v, t in zip(args, signature.args))
            return emit(builder, left, right)

        return lanes(a, b), code

    return operation


def _compare(sign: str):  # type: ignore[no-untyped-def]
    @intrinsic
    def operation(typingctx, a, b):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            left, right = (_as_vector(context, builder, v, t) for v, t in zip(args, signature.args))
            return builder.fcmp_ordered(sign, left, right)

        return lane_mask(a, b), code

    return operation


_add = _binary(lambda builder, a, b: builder.fadd(a, b))
_sub = _binary(lambda builder, a, b: builder.fsub(a, b))
_mul = _binary(lambda builder, a, b: builder.fmul(a, b))
_div = _binary(lambda builder, a, b: builder.fdiv(a, b))
smaller = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
larger = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
_gt, _ge = _compare(">"), _compare(">=")


def _operator(sign, operation):  # type: ignore[no-untyped-def]
    @overload(sign, inline="never")
    def typed(a, b):  # type: ignore[no-untyped-def]
        if isinstance(a, Lanes) or isinstance(b, Lanes):
            return lambda a, b: operation(a, b)
        return None


for _sign, _operation in (
    (operator.add, _add), (operator.sub, _sub), (operator.mul, _mul), (operator.truediv, _div),
    (operator.gt, _gt), (operator.ge, _ge),
):  # fmt: skip
    _operator(_sign, _operation)


@intrinsic
def both(typingctx, a, b):  # type: ignore[no-untyped-def]
    """Where both masks hold."""
    return lane_mask(a, b), lambda context, builder, signature, args: builder.and_(*args)


@intrinsic
def some(typingctx, mask):  # type: ignore[no-untyped-def]
    """Whether a mask holds anywhere."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(mask), code


@intrinsic
def choose(typingctx, mask, a, b):  # type: ignore[no-untyped-def]
    """`a` where the mask holds, `b` elsewhere."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        left, right = (_as_vector(context, builder, v, t) for v, t in zip(args[1:], signature.args[1:]))
        return builder.select(args[0], left, right)

    return lanes(mask, a, b), code


def _sum_tree(builder, vectors):  # type: ignore[no-untyped-def]
    """Eight vectors to one whose lane i is the sum of vector i: pairs are folded, so 7 additions do for 8 sums."""
    # Lane indices of the two operands' even and odd pairs; a fold halves the vectors and keeps their order.
    even = ir.Constant(_VI, [ir.Constant(_I32, i) for i in (0, 2, 8, 10, 4, 6, 12, 14)])
    odd = ir.Constant(_VI, [ir.Constant(_I32, i) for i in (1, 3, 9, 11, 5, 7, 13, 15)])

    def fold(a, b):  # type: ignore[no-untyped-def]
        return builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd))

    pairs = [fold(vectors[i], vectors[i + 1]) for i in (0, 2, 4, 6)]
    fours = [fold(pairs[0], pairs[1]), fold(pairs[2], pairs[3])]
    low = ir.Constant(_VI, [ir.Constant(_I32, i) for i in (0, 1, 2, 3, 8, 9, 10, 11)])
    high = ir.Constant(_VI, [ir.Constant(_I32, i) for i in (4, 5, 6, 7, 12, 13, 14, 15)])
    return builder.fadd(builder.shuffle_vector(*fours, low), builder.shuffle_vector(*fours, high))


@intrinsic
def sums(typingctx, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """The sum over the lanes of each of eight vectors, as one vector."""
    return lanes(a, b, c, d, e, f, g, h), lambda context, builder, signature, args: _sum_tree(builder, args)


# 2^x on [-1/2, 1/2]: the polynomial of degree 5 with the least relative error, 7.5e-8.
_EXP2 = (
    1.00000007165530,
    0.693146967062882,
    0.240221197207501,
    0.0555071327506794,
    0.00967554150270133,
    0.0013276471959,
)


@intrinsic
def exp2(typingctx, x):  # type: ignore[no-untyped-def]
    """2^x for x in [-126, 126], to float32's accuracy; smaller x count as -126."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        floor = _constant(-126.0)
        value = builder.select(builder.fcmp_ordered(">", args[0], floor), args[0], floor)
        rounded = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_V, [_V]), "llvm.nearbyint.v8f32")
        whole = builder.call(rounded, [value])
        rest = builder.fsub(value, whole)
        series = _constant(_EXP2[5])
        for factor in _EXP2[4::-1]:
            series = _fused(builder, series, rest, _constant(factor))
        bias = ir.Constant(_VI, [ir.Constant(_I32, 127)] * LANES)
        shift = ir.Constant(_VI, [ir.Constant(_I32, 23)] * LANES)
        power = builder.shl(builder.add(builder.fptosi(whole, _VI), bias), shift)
        return builder.fmul(builder.bitcast(power, _V), series)

    return lanes(x), code
