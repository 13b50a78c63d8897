"""Each tile's Gaussians, the nearest first: a radix sort by depth, then one pass that deals them out to their tiles."""

from __future__ import annotations

import numpy as np
from numba import njit

_BITS, _PASSES = 11, 3


@njit(nogil=True, cache=True)
def by_depth(depths, counts):  # type: ignore[no-untyped-def]
    """Indices of the Gaussians that reach a tile, by rising depth; equal depths keep the order of their indices."""
    n = 0
    for g in range(counts.size):
        n += counts[g] > 0
    keys, ids = np.empty(n, np.uint32), np.empty(n, np.int32)
    other_keys, other_ids = np.empty(n, np.uint32), np.empty(n, np.int32)
    bits = depths.view(np.uint32)
    tally = np.zeros((_PASSES, 1 << _BITS), np.int64)
    mask, n = np.uint32((1 << _BITS) - 1), 0
    for g in range(counts.size):
        if counts[g] > 0:
            key = bits[g]  # positive floats sort as their bits do
            keys[n], ids[n] = key, g
            n += 1
            for i in range(_PASSES):
                tally[i, (key >> np.uint32(i * _BITS)) & mask] += 1
    for i in range(_PASSES):
        total = 0
        for b in range(1 << _BITS):
            tally[i, b], total = total, total + tally[i, b]
        shift = np.uint32(i * _BITS)
        for m in range(n):
            b = (keys[m] >> shift) & mask
            to = tally[i, b]
            tally[i, b] += 1
            other_keys[to], other_ids[to] = keys[m], ids[m]
        keys, other_keys, ids, other_ids = other_keys, keys, other_ids, ids
    return ids


@njit(nogil=True, cache=True)
def deal(ids, counts, firsts, tiles, starts, listed, slots):  # type: ignore[no-untyped-def]
    """Write each tile's Gaussians in the order of `ids`.

    Args:
        ids: Gaussians by depth; counts, firsts: how many places of `tiles` each has, and from where on.
        starts: (T + 1,) written: where each tile's part begins.
        listed, slots: (M,) written: the Gaussian, and its place in `tiles`.
    """
    starts[:] = 0
    for m in range(listed.size):
        starts[tiles[m] + 1] += 1
    for t in range(starts.size - 1):
        starts[t + 1] += starts[t]
    place = starts[:-1].copy()
    for n in range(ids.size):
        g = ids[n]
        for s in range(firsts[g], firsts[g] + counts[g]):
            to = place[tiles[s]]
            place[tiles[s]] += 1
            listed[to], slots[to] = g, s
