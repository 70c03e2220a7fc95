# cython: language_level=3, boundscheck=False, wraparound=False
"""Columns to records of fixed length, in network order: the compiled half of `rows.py`.

In: for each field a column of unsigned integers (or rows of 16 octets), its place in the record, and the rows that are
wanted in their order. Out: the octets of the records. One block of records at a time, so that what is written stays in
the first-level cache while one column after the other is put into it. Never: checks of values; they fit.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    #define NET16(v) (v)
    #define NET32(v) (v)
    #define NET64(v) (v)
    #else
    #define NET16(v) __builtin_bswap16(v)
    #define NET32(v) __builtin_bswap32(v)
    #define NET64(v) __builtin_bswap64(v)
    #endif
    #define NET8(v) (v)

    #define EACH(S, D, NET) \\
        for (i = 0; i < n; i++) { \\
            uint##S##_t v; uint##D##_t w; \\
            memcpy(&v, src + order[i] * sizeof v, sizeof v); \\
            w = NET((uint##D##_t)v); \\
            memcpy(dst + i * stride, &w, sizeof w); \\
        } \\
        return 1
    #define FROM(S) \\
        switch (d) { \\
            case 1: EACH(S, 8, NET8); \\
            case 2: EACH(S, 16, NET16); \\
            case 4: EACH(S, 32, NET32); \\
            case 8: EACH(S, 64, NET64); \\
        } \\
        return 0

    static int lay_column(const char *src, int s, char *dst, int d, const int64_t *order, int64_t n, int64_t stride) {
        int64_t i;
        switch (s) {
            case 1: FROM(8);
            case 2: FROM(16);
            case 4: FROM(32);
            case 8: FROM(64);
            case 16:
                if (d != 16) return 0;
                for (i = 0; i < n; i++) memcpy(dst + i * stride, src + order[i] * 16, 16);
                return 1;
        }
        return 0;
    }
    """
    int lay_column(const char *src, int s, char *dst, int d, const int64_t *order, int64_t n, int64_t stride) nogil

DEF BLOCK = 256
DEF MOST = 64


def lay_out(unsigned char[::1] out, int64_t stride, const int64_t[::1] order, list columns):
    """Fill `out` with `len(order)` records of `stride` octets.

    `columns`: (octets of a contiguous array, octets of an item, offset in the record, octets in the record).
    """
    cdef const char *sources[MOST]
    cdef int sizes[MOST]
    cdef int lengths[MOST]
    cdef int64_t offsets[MOST]
    cdef int64_t n = order.shape[0], first, some, rows
    cdef int count = len(columns), k, good = 1
    cdef const unsigned char[::1] view
    if count > MOST:
        raise ValueError(f"{count} columns, more than {MOST}")
    if out.shape[0] != n * stride:
        raise ValueError(f"{out.shape[0]} octets are not {n} records of {stride}")
    rows = -1
    kept = []
    for k in range(count):
        octets, size, offset, length = columns[k]
        view = octets
        kept.append(view)
        sources[k] = <const char *>&view[0]
        sizes[k], offsets[k], lengths[k] = size, offset, length
        if offset < 0 or offset + length > stride:
            raise ValueError("a field does not fit into the record")
        if rows < 0 or view.shape[0] // size < rows:
            rows = view.shape[0] // size
    for first in range(n):
        if not 0 <= order[first] < rows:
            raise IndexError(f"row {order[first]} of {rows}")
    with nogil:
        first = 0
        while first < n and good:
            some = min(BLOCK, n - first)
            for k in range(count):
                if not lay_column(
                    sources[k], sizes[k], <char *>&out[first * stride + offsets[k]], lengths[k], &order[first], some, stride
                ):
                    good = 0
                    break
            first += some
    if not good:
        raise ValueError(f"a column of {sizes[k]} octets cannot become a field of {lengths[k]}")
