# cython: language_level=3, boundscheck=False, wraparound=False
"""Columns to records, in network order: the compiled half of `rows.py`.

In: for each field of fixed length a column of unsigned integers (or rows of 16 octets) and its place in the record; for
each string the distinct values and which of them each row has; and the rows that are wanted in their order. Out: the
octets of the records. One block of records at a time, so that what is written stays in the first-level cache while one
column after the other is put into it. Never: checks of values; they fit.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

import numpy as np

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

    /* A short value as two blocks of a known size: what is too much is overwritten by what comes next. */
    static inline void lay_value(char *dst, const char *src, int64_t size) {
        char a[16], b[16];
        if (size <= 32) {
            memcpy(a, src, 16);
            memcpy(b, src + 16, 16);
            memcpy(dst, a, 16);
            memcpy(dst + 16, b, 16);
        } else memcpy(dst, src, (size_t)size);
    }
    """
    void lay_value(char *dst, const char *src, int64_t size) nogil
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


SLACK = 32
"""Octets behind the values of a string column, so that a short one can be copied in blocks."""


def lay_out_variable(const unsigned char[::1] fixed, int64_t stride, const int64_t[::1] order, list columns):
    """Records with strings at their end: (octets, end of each record).

    `fixed`: the fields of fixed length of `len(order)` records, of `stride` octets each. `columns`: (codes, a value for
    each row; starts, of each value and the end of the last; octets of all values as on the wire, and SLACK more).
    """
    cdef const uint32_t *codes[MOST]
    cdef const int64_t *starts[MOST]
    cdef const char *octets[MOST]
    cdef int64_t distinct[MOST]
    cdef const uint32_t[::1] some_codes
    cdef const int64_t[::1] some_starts
    cdef const unsigned char[::1] some_octets
    cdef int64_t n = order.shape[0], rows = -1, i, row, size, code, at = 0, length
    cdef int count = len(columns), k
    cdef char *to
    if count > MOST:
        raise ValueError(f"{count} columns, more than {MOST}")
    if fixed.shape[0] != n * stride:
        raise ValueError(f"{fixed.shape[0]} octets are not {n} records of {stride}")
    kept = []
    for k in range(count):
        some_codes, some_starts, some_octets = columns[k]
        kept.append((some_codes, some_starts, some_octets))
        if some_starts.shape[0] < 2 or some_octets.shape[0] < some_starts[some_starts.shape[0] - 1] + SLACK:
            raise ValueError("a string column without values, or without room behind them")
        codes[k], starts[k], octets[k] = &some_codes[0], &some_starts[0], <const char *>&some_octets[0]
        distinct[k] = some_starts.shape[0] - 1
        if rows < 0 or some_codes.shape[0] < rows:
            rows = some_codes.shape[0]
    made_ends = np.empty(n, np.int64)
    cdef int64_t[::1] ends = made_ends
    for i in range(n):
        row = order[i]
        if not 0 <= row < rows:
            raise IndexError(f"row {row} of {rows}")
        at += stride
        for k in range(count):
            code = codes[k][row]
            if code >= distinct[k]:
                raise IndexError(f"value {code} of {distinct[k]}")
            at += starts[k][code + 1] - starts[k][code]
        ends[i] = at
    made = np.empty(at + SLACK, np.uint8)
    cdef unsigned char[::1] out = made
    with nogil:
        to = <char *>&out[0]
        for i in range(n):
            row = order[i]
            memcpy(to, &fixed[i * stride], <size_t>stride)
            to += stride
            for k in range(count):
                code = codes[k][row]
                length = starts[k][code]
                size = starts[k][code + 1] - length
                lay_value(to, octets[k] + length, size)
                to += size
    return made[:at], made_ends
