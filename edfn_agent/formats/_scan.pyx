# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The scanner, compiled: whole lines of text to rows of columns in one pass, without the GIL.

The same as `text.Scanner`, which is its specification; see there for what comes in and goes out. It says which lines
are malformed and leaves it to `text.explain` to say why.

How it is fast: a stretch of text (32 KiB, so that it stays in the cache) is first turned into the offsets of the ends
of its words, 64 octets at a time and without branches; then every word's start and length are known, and the
conversions (eight digits at a time, addresses by a mask of their dots) do not wait for each other.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy, memset

import os

from edfn_agent.formats import columns as _columns
from edfn_agent.formats.batch import Dictionary

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "little-endian machines only: the plain-Python scanner serves the others"
    #endif
    #if defined(__SSE2__) && !defined(EDFN_PORTABLE)
    #include <emmintrin.h>
    #endif

    static inline uint64_t edfn_load8(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    static inline uint32_t edfn_load4(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
    static inline uint32_t edfn_first(uint64_t bits) { return (uint32_t)__builtin_ctzll(bits | (1ull << 63)); }

    #if defined(__SSE2__) && !defined(EDFN_PORTABLE)
    static inline uint64_t edfn_bits64(const __m128i *v, __m128i c) {
        uint64_t a = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[0], c));
        uint64_t b = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[1], c));
        uint64_t d = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[2], c));
        uint64_t e = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[3], c));
        return a | b << 16 | d << 32 | e << 48;
    }
    static inline uint64_t edfn_separators(const uint8_t *p) {
        __m128i v[4];
        for (int i = 0; i < 4; i++) v[i] = _mm_loadu_si128((const __m128i *)(p + 16 * i));
        __m128i space = _mm_set1_epi8(' '), newline = _mm_set1_epi8(10), cr = _mm_set1_epi8(13);
        uint64_t bits = edfn_bits64(v, space) | edfn_bits64(v, newline);
        uint64_t crs = edfn_bits64(v, cr);
        if (crs) bits |= crs & (edfn_bits64(v, newline) >> 1 | (uint64_t)(p[64] == 10) << 63);
        return bits;
    }
    /* which of 16 octets are dots, and which are digits */
    static inline void edfn_dotted(const uint8_t *p, uint32_t *dots, uint32_t *digits) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        __m128i d = _mm_sub_epi8(v, _mm_set1_epi8('0'));
        *dots = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('.')));
        *digits = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(d, _mm_set1_epi8(9)), d));
    }
    #else
    static inline uint64_t edfn_gather(uint64_t high_bits) {
        return (high_bits >> 7) * 0x0102040810204080ull >> 56;
    }
    static inline uint64_t edfn_equal8(uint64_t v, uint64_t c) {
        const uint64_t low = 0x7f7f7f7f7f7f7f7full;
        uint64_t x = v ^ c;
        return edfn_gather(~(((x & low) + low) | x | low));
    }
    #define EDFN_ALL(c) ((uint64_t)(c) * 0x0101010101010101ull)
    static inline uint64_t edfn_bits64(const uint8_t *p, uint8_t c) {
        uint64_t bits = 0;
        for (int i = 0; i < 8; i++) bits |= edfn_equal8(edfn_load8(p + 8 * i), EDFN_ALL(c)) << 8 * i;
        return bits;
    }
    static inline uint64_t edfn_separators(const uint8_t *p) {
        uint64_t newlines = edfn_bits64(p, 10), crs = edfn_bits64(p, 13);
        return edfn_bits64(p, ' ') | newlines | (crs & (newlines >> 1 | (uint64_t)(p[64] == 10) << 63));
    }
    static inline void edfn_dotted(const uint8_t *p, uint32_t *dots, uint32_t *digits) {
        *dots = *digits = 0;
        for (int i = 0; i < 2; i++) {
            uint64_t v = edfn_load8(p + 8 * i), x = v ^ EDFN_ALL('0');
            /* a digit's high nibble is 3 (x: 0), and adding 6 to its low one does not reach 16 */
            uint64_t no = ((x & EDFN_ALL(0x7f)) + EDFN_ALL(0x76)) | x;
            *digits |= (uint32_t)edfn_gather(~no & EDFN_ALL(0x80)) << 8 * i;
            *dots |= (uint32_t)edfn_equal8(v, EDFN_ALL('.')) << 8 * i;
        }
    }
    #endif

    /* Offsets of the octet after each word of text[0:n]; text[n-1] is a newline, 80 octets after it can be read.
       `out` has room for n/2 + 40. */
    static size_t edfn_word_ends(const uint8_t *text, size_t n, uint32_t *out) {
        uint64_t before = 1; /* what stands before the text separates */
        uint32_t *o = out;
        for (size_t k = 0; k < n; k += 64) {
            uint64_t separators = edfn_separators(text + k);
            uint64_t ends = separators & ~(separators << 1 | before);
            before = separators >> 63;
            if (n - k < 64) ends &= (1ull << (n - k)) - 1;
            uint64_t c = ends - ((ends >> 1) & 0x5555555555555555ull);
            c = (c & 0x3333333333333333ull) + ((c >> 2) & 0x3333333333333333ull);
            uint32_t count = (uint32_t)((((c + (c >> 4)) & 0x0f0f0f0f0f0f0f0full) * 0x0101010101010101ull) >> 56);
            /* eight at a time, needed or not: a loop of exactly `count` rounds would be mispredicted each time */
            #define EDFN_ONE(i) o[i] = (uint32_t)k + edfn_first(ends); ends &= ends - 1;
            #define EDFN_EIGHT(i) EDFN_ONE(i) EDFN_ONE(i + 1) EDFN_ONE(i + 2) EDFN_ONE(i + 3) \\
                                  EDFN_ONE(i + 4) EDFN_ONE(i + 5) EDFN_ONE(i + 6) EDFN_ONE(i + 7)
            EDFN_EIGHT(0)
            if (count > 8) {
                EDFN_EIGHT(8)
                if (count > 16) { EDFN_EIGHT(16) EDFN_EIGHT(24) }
            }
            o += count;
        }
        return (size_t)(o - out);
    }

    /* Up to eight digits, and whether they are: `length` 1 to 8 octets at p, 8 of which can be read. */
    static inline uint64_t edfn_digits(const uint8_t *p, uint32_t length, uint64_t *fault) {
        const uint64_t zeros = 0x3030303030303030ull;
        uint64_t v = edfn_load8(p) << (64 - 8 * length) | (zeros >> 4 * length) >> 4 * length;
        *fault |= ((v + 0x4646464646464646ull) | (v - zeros)) & 0x8080808080808080ull;
        v -= zeros;
        v = v * 10 + (v >> 8);
        return ((v & 0x000000FF000000FFull) * 0x000F424000000064ull
                + ((v >> 16) & 0x000000FF000000FFull) * 0x0000271000000001ull) >> 32;
    }

    /* One octet of a dotted address: `length` digits at p. */
    static inline uint32_t edfn_octet(const uint8_t *p, uint32_t length, uint32_t *fault) {
        static const uint16_t least[4] = {0, 0, 10, 100}; /* no leading zeros */
        if (length - 1 > 2) { *fault = 1; return 0; }
        uint32_t v = (edfn_load4(p) ^ 0x30303030u) << (8 * (4 - length));
        uint32_t value = ((v >> 8) & 255) * 100 + ((v >> 16) & 255) * 10 + (v >> 24);
        *fault |= value < least[length] || value > 255;
        return value;
    }

    /* A dotted address of 7 to 15 octets at p, 16 of which can be read. */
    static inline int edfn_ipv4(const uint8_t *p, uint32_t length, uint32_t *value) {
        uint32_t dots, digits, fault = 0, all = (1u << length) - 1;
        edfn_dotted(p, &dots, &digits);
        dots &= all;
        if (((dots | digits) & all) != all) return 0;
        uint32_t first = edfn_first(dots); dots &= dots - 1;
        uint32_t second = edfn_first(dots); dots &= dots - 1;
        if (!dots || (dots & (dots - 1))) return 0;
        uint32_t third = edfn_first(dots);
        *value = edfn_octet(p, first, &fault) << 24
               | edfn_octet(p + first + 1, second - first - 1, &fault) << 16
               | edfn_octet(p + second + 1, third - second - 1, &fault) << 8
               | edfn_octet(p + third + 1, length - third - 1, &fault);
        return !fault;
    }

    /* 64 x 64 to 128 bits, folded: the mixing step of wyhash */
    static inline uint64_t edfn_mix(uint64_t a, uint64_t b) {
        __uint128_t r = (__uint128_t)a * b;
        return (uint64_t)r ^ (uint64_t)(r >> 64);
    }
    static inline uint64_t edfn_load_short(const uint8_t *p, uint32_t length) { /* 1 to 8 octets, 8 can be read */
        return edfn_load8(p) & (~0ull >> (64 - 8 * length));
    }
    static inline uint64_t edfn_hash(const uint8_t *p, uint32_t length, uint64_t seed) {
        if (length <= 8) return edfn_mix(edfn_load_short(p, length) ^ seed, 0x9E3779B97F4A7C15ull ^ length);
        uint64_t h = seed ^ length;
        uint32_t i = 0;
        for (; i + 16 < length; i += 16)
            h = edfn_mix(edfn_load8(p + i) ^ h, edfn_load8(p + i + 8) ^ 0xA0761D6478BD642Full);
        if (length - i > 8)
            return edfn_mix(edfn_load8(p + i) ^ h, edfn_load8(p + length - 8) ^ 0xE7037ED1A0B428DBull);
        return edfn_mix(edfn_load8(p + length - 8) ^ h, 0x9E3779B97F4A7C15ull ^ length);
    }
    static inline int edfn_same(const uint8_t *p, const uint8_t *q, uint32_t length) {
        if (length <= 8) return !((edfn_load8(p) ^ edfn_load8(q)) & (~0ull >> (64 - 8 * length)));
        for (uint32_t i = 0; i + 8 < length; i += 8)
            if (edfn_load8(p + i) != edfn_load8(q + i)) return 0;
        return edfn_load8(p + length - 8) == edfn_load8(q + length - 8);
    }
    """
    uint64_t load8 "edfn_load8"(const uint8_t *p) noexcept nogil
    size_t word_ends "edfn_word_ends"(const uint8_t *text, size_t n, uint32_t *out) noexcept nogil
    uint64_t digits "edfn_digits"(const uint8_t *p, uint32_t length, uint64_t *fault) noexcept nogil
    bint ipv4 "edfn_ipv4"(const uint8_t *p, uint32_t length, uint32_t *value) noexcept nogil
    uint64_t hash_of "edfn_hash"(const uint8_t *p, uint32_t length, uint64_t seed) noexcept nogil
    bint same "edfn_same"(const uint8_t *p, const uint8_t *q, uint32_t length) noexcept nogil

cdef enum:
    SKIP = 0
    INTEGER = 1
    TIME = 2
    ADDRESS = 3
    STRING = 4

    END = 0
    FULL = 1
    HEADER = 2
    OTHER = 3

    NODATA_CODE = 2
    SKIPDATA_CODE = 3

    MAX_LINE = 65536
    STRIP = 32768
    SLACK = 80  # octets behind a text that the wide loads may read
    BAD = 8

assert (SKIP, INTEGER, TIME, ADDRESS, STRING) == (
    _columns.SKIP, _columns.INTEGER, _columns.TIME, _columns.ADDRESS, _columns.STRING)
assert (END, FULL, HEADER, OTHER) == (_columns.END, _columns.FULL, _columns.HEADER, _columns.OTHER)
assert (NODATA_CODE, SKIPDATA_CODE, MAX_LINE) == (_columns.NODATA_CODE, _columns.SKIPDATA_CODE, _columns.MAX_LINE)

cdef uint64_t MILLISECONDS_FROM = _columns.MILLISECONDS_FROM


# -- the distinct values of a string column --------------------------------------------------------------------------

cdef struct Entry:
    uint32_t offset
    uint32_t length
    uint64_t hash

cdef struct Table:
    uint64_t *slots  # upper half of the hash, code; 0 is a free slot
    uint64_t mask
    Entry *entries
    uint32_t count
    uint32_t room
    uint8_t *arena
    size_t used
    size_t size
    uint64_t seed


cdef bint table_open(Table *table, uint64_t seed) noexcept nogil:
    table.seed = seed
    table.mask = 255
    table.room = 128
    table.size = 4096
    table.count = 0
    table.used = 0
    table.slots = <uint64_t *> malloc((table.mask + 1) * sizeof(uint64_t))
    table.entries = <Entry *> malloc(table.room * sizeof(Entry))
    table.arena = <uint8_t *> malloc(table.size)
    if table.slots == NULL or table.entries == NULL or table.arena == NULL:
        return False
    memset(table.slots, 0, (table.mask + 1) * sizeof(uint64_t))
    # code 0 is `-`, and is never looked up: a slot of 0 is free
    table.entries[0].offset = table.entries[0].length = 0
    table.entries[0].hash = 0
    table.count = 1
    return True


cdef void table_close(Table *table) noexcept nogil:
    free(table.slots)
    free(table.entries)
    free(table.arena)
    memset(table, 0, sizeof(Table))


cdef int table_add(Table *table, const uint8_t *text, uint32_t length, uint64_t h) noexcept nogil:
    """The code of a new value, -1 without memory."""
    cdef uint64_t *slots
    cdef Entry *entries
    cdef uint8_t *arena
    cdef uint64_t place, i
    cdef size_t size
    if table.count == table.room:
        entries = <Entry *> realloc(table.entries, 2 * table.room * sizeof(Entry))
        if entries == NULL:
            return -1
        table.entries = entries
        slots = <uint64_t *> malloc(2 * (table.mask + 1) * sizeof(uint64_t))
        if slots == NULL:
            return -1
        table.room *= 2
        table.mask = 2 * table.mask + 1
        memset(slots, 0, (table.mask + 1) * sizeof(uint64_t))
        for i in range(1, table.count):
            place = table.entries[i].hash & table.mask
            while slots[place]:
                place = (place + 1) & table.mask
            slots[place] = (table.entries[i].hash >> 32 << 32) | i
        free(table.slots)
        table.slots = slots
    if table.used + length + 8 > table.size:  # 8: wide loads at the end of a value
        size = 2 * table.size + length
        arena = <uint8_t *> realloc(table.arena, size)
        if arena == NULL:
            return -1
        table.arena = arena
        table.size = size
    memcpy(table.arena + table.used, text, length)
    table.entries[table.count].offset = <uint32_t> table.used
    table.entries[table.count].length = length
    table.entries[table.count].hash = h
    table.used += length
    place = h & table.mask
    while table.slots[place]:
        place = (place + 1) & table.mask
    table.slots[place] = (h >> 32 << 32) | table.count
    table.count += 1
    return table.count - 1


cdef inline int table_find(Table *table, const uint8_t *text, uint32_t length, uint64_t h) noexcept nogil:
    """The code of a value, 0 when it is not in the table."""
    cdef uint64_t place = h & table.mask
    cdef uint64_t slot
    cdef Entry *entry
    while True:
        slot = table.slots[place]
        if slot == 0:
            return 0
        if slot >> 32 == h >> 32:
            entry = &table.entries[<uint32_t> slot]
            if entry.length == length and same(text, table.arena + entry.offset, length):
                return <int> <uint32_t> slot
        place = (place + 1) & table.mask


# -- addresses ---------------------------------------------------------------------------------------------------------

cdef inline int hex_value(uint8_t c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    c |= 32
    if 97 <= c <= 102:
        return c - 87
    return -1


cdef bint ipv6(const uint8_t *p, uint32_t length, uint8_t *out) noexcept nogil:
    """RFC 4291 section 2.2, as Python's ipaddress reads it; no scope id."""
    cdef uint8_t groups[16]
    cdef uint32_t i = 0, start, value, embedded
    cdef int n = 0, gap = -1, digit
    if length < 2 or length > 45:
        return False
    if p[0] == 58:  # ':' at the start only as '::'
        if p[1] != 58:
            return False
        gap = 0
        i = 2
    while i < length:
        if n == 8:
            return False
        start = i
        value = 0
        while i < length and i - start < 5:
            digit = hex_value(p[i])
            if digit < 0:
                break
            value = value << 4 | <uint32_t> digit
            i += 1
        if i < length and p[i] == 46:  # '.': the last 32 bits as IPv4
            if n > 6 or length - start < 7 or length - start > 15 or not ipv4(p + start, length - start, &embedded):
                return False
            groups[2 * n] = embedded >> 24
            groups[2 * n + 1] = (embedded >> 16) & 255
            groups[2 * n + 2] = (embedded >> 8) & 255
            groups[2 * n + 3] = embedded & 255
            n += 2
            i = length
            break
        if i == start or i - start > 4:
            return False
        groups[2 * n] = value >> 8
        groups[2 * n + 1] = value & 255
        n += 1
        if i == length:
            break
        if p[i] != 58:
            return False
        i += 1
        if i == length:
            return False  # one ':' at the end
        if p[i] == 58:
            if gap >= 0:
                return False
            gap = n
            i += 1
    if gap < 0:
        if n != 8:
            return False
        memcpy(out, groups, 16)
        return True
    if n > 7:
        return False  # '::' stands for at least one group
    memcpy(out, groups, 2 * gap)
    memset(out + 2 * gap, 0, 2 * (8 - n))
    memcpy(out + 2 * (gap + 8 - n), groups + 2 * gap, 2 * (n - gap))
    return True


# -- the scanner -------------------------------------------------------------------------------------------------------

cdef struct Place:
    int job
    bint endpoint
    bint status
    uint64_t maximum
    void *first  # values (uint64) | family (uint8) | codes (uint32)
    void *second  # absent (uint8) | v4 (uint32)
    uint8_t *third  # v6
    Table table

cdef struct BadLine:
    Py_ssize_t line
    Py_ssize_t start
    Py_ssize_t end


cdef void *address_of(array) except NULL:
    cdef uint8_t[::1] view = array.reshape(-1).view("u1")
    return &view[0]


cdef Table _header_words
if not table_open(&_header_words, int.from_bytes(os.urandom(8), "little")):
    raise MemoryError


cdef bint _learn(Table *table, bytes value) except False:
    """Put a value in a table; the padding is for the wide loads."""
    cdef bytes padded = value + b"\0" * 8
    cdef const uint8_t *text = padded
    cdef uint32_t length = <uint32_t> len(value)
    cdef uint64_t h = hash_of(text, length, table.seed)
    if not table_find(table, text, length, h) and table_add(table, text, length, h) < 0:
        raise MemoryError
    return True


for _word in _columns.HEADER_WORDS:
    _learn(&_header_words, _word)


cdef class Scanner:
    """See `text.Scanner`: same arguments, same attributes, same results."""

    cdef readonly object columns
    cdef readonly list dictionaries
    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t position
    cdef public Py_ssize_t line
    cdef readonly Py_ssize_t nodata
    cdef readonly Py_ssize_t skipdata
    cdef readonly Py_ssize_t without_addresses
    cdef readonly Py_ssize_t malformed
    cdef readonly Py_ssize_t apart
    cdef readonly bint timestamped

    cdef Place *places
    cdef int width
    cdef Py_ssize_t capacity
    cdef uint8_t *family
    cdef uint8_t *scratch
    cdef size_t scratch_size
    cdef uint32_t *ends
    cdef size_t ends_size
    cdef bint crowded
    cdef bint no_memory
    cdef uint32_t dictionary_entries
    cdef size_t dictionary_octets
    cdef BadLine bad_lines[BAD]
    cdef int bad_count
    cdef uint8_t first_name[72]
    cdef uint32_t first_name_length

    def __cinit__(
        self,
        columns,
        bint timestamped=False,
        dictionary_entries=_columns.DICTIONARY_ENTRIES,
        dictionary_octets=_columns.DICTIONARY_OCTETS,
    ):
        cdef int i
        cdef bytes first = columns.words[0].name.encode()
        self.columns = columns
        self.timestamped = timestamped
        self.dictionary_entries = dictionary_entries
        self.dictionary_octets = dictionary_octets
        self.width = len(columns.words)
        self.capacity = columns.capacity
        self.dictionaries = [None] * self.width
        memset(self.first_name, 0, sizeof(self.first_name))
        if len(first) <= 64:
            self.first_name_length = <uint32_t> len(first)
            memcpy(self.first_name, <const char *> first, self.first_name_length)
        self.places = <Place *> malloc(self.width * sizeof(Place))
        if self.places == NULL:
            raise MemoryError
        memset(self.places, 0, self.width * sizeof(Place))
        for i in range(self.width):
            word = columns.words[i]
            self.places[i].job = word.job
            self.places[i].maximum = word.maximum
            self.places[i].endpoint = word.endpoint
            self.places[i].status = word.status
            if word.job == STRING:
                self._begin_dictionary(i)
        self._point()

    def __dealloc__(self):
        cdef int i
        if self.places != NULL:
            for i in range(self.width):
                table_close(&self.places[i].table)
        free(self.places)
        free(self.scratch)
        free(self.ends)

    cdef _begin_dictionary(self, int i):
        cdef Place *place = &self.places[i]
        table_close(&place.table)
        # a seed that nobody outside knows: no input can be made to collide
        if not table_open(&place.table, int.from_bytes(os.urandom(8), "little")):
            raise MemoryError
        self.dictionaries[i] = Dictionary()
        if place.status:
            for value in _columns.STATUS_VALUES:
                _learn(&place.table, value)
            self._sync(i)

    cdef _point(self):
        """Find where the arrays are: they may be new ones."""
        cdef int i
        self.family = <uint8_t *> address_of(self.columns.family)
        for i in range(self.width):
            arrays = self.columns.arrays[i]
            if arrays:
                self.places[i].first = address_of(arrays[0])
            if len(arrays) > 1:
                self.places[i].second = address_of(arrays[1])
            if len(arrays) > 2:
                self.places[i].third = <uint8_t *> address_of(arrays[2])

    cdef _sync(self, int i):
        cdef Table *table = &self.places[i].table
        cdef list values = self.dictionaries[i].values
        cdef uint32_t code
        for code in range(<uint32_t> len(values), table.count):
            values.append(PyBytes_FromStringAndSize(
                <const char *> table.arena + table.entries[code].offset, table.entries[code].length))

    def sync(self):
        """Bring the Python dictionaries up to what the rows refer to."""
        cdef int i
        for i in range(self.width):
            if self.places[i].job == STRING:
                self._sync(i)

    def renew(self):
        """The rows were taken: start again at row 0, with new dictionaries for those that became too large."""
        cdef int i
        self.rows = 0
        if self.crowded:
            self.crowded = False
            for i in range(self.width):
                if self.places[i].job == STRING and self._too_large(i):
                    self._begin_dictionary(i)
        self._point()

    cdef inline bint _too_large(self, int i) noexcept nogil:
        # the twin counts the one octet of `-`, which has no place in the arena
        return (self.places[i].table.count > self.dictionary_entries
                or self.places[i].table.used + 1 > self.dictionary_octets)

    @property
    def bad(self):
        cdef int i
        return [(self.bad_lines[i].line, self.bad_lines[i].start, self.bad_lines[i].end) for i in range(self.bad_count)]

    def scan(
        self,
        const uint8_t[::1] buffer not None,
        Py_ssize_t start,
        Py_ssize_t stop,
        bint final,
        bint data_first=False,
        bytes others=None,
    ):
        """Read the whole lines in buffer[start:stop]; see `text.Scanner.scan`."""
        cdef const uint8_t *flags = NULL
        cdef int code
        self.nodata = self.skipdata = self.without_addresses = self.malformed = self.apart = 0
        self.bad_count = 0
        self.position = start
        if stop > buffer.shape[0] or start < 0:
            raise ValueError("outside the buffer")
        if start >= stop:
            return END
        if others is not None:
            if len(others) != 256:
                raise ValueError("256 flags")
            flags = <const uint8_t *> <const char *> others
        with nogil:
            code = self._scan(&buffer[0], stop, buffer.shape[0], final, data_first, flags)
        if self.no_memory:
            raise MemoryError
        self.apart = self.nodata + self.skipdata + self.without_addresses + self.malformed
        return code

    cdef int _scan(
        self, const uint8_t *text, Py_ssize_t stop, Py_ssize_t size, bint final, bint data_first, const uint8_t *others
    ) noexcept nogil:
        cdef Py_ssize_t begin, limit, end
        cdef const uint8_t *found
        cdef int code
        while self.position < stop:
            begin = self.position
            limit = min(begin + STRIP, stop)
            end = limit
            while end > begin and text[end - 1] != 10:
                end -= 1
            if end == begin:  # a long line, or the last one without its newline
                found = NULL
                if limit < stop:
                    found = <const uint8_t *> memchr(text + limit, 10, stop - limit)
                if found != NULL:
                    end = found - text + 1
                elif not final:
                    return END
                else:
                    end = stop
                if end - begin - (found != NULL) > MAX_LINE:
                    self.line += 1
                    data_first = False
                    self._bad(begin, end - (found != NULL))
                    self.position = end
                    continue
            code = self._strip(text, begin, end, size, &data_first, others)
            if code != END:
                return code
        return END

    cdef int _strip(
        self,
        const uint8_t *buffer,
        Py_ssize_t begin,
        Py_ssize_t end,
        Py_ssize_t size,
        bint *data_first,
        const uint8_t *others,
    ) noexcept nogil:
        """Whole lines of at most MAX_LINE octets each, in at most max(STRIP, one line)."""
        cdef const uint8_t *text = buffer + begin
        cdef size_t n = <size_t> (end - begin)
        cdef uint8_t *scratch
        cdef uint32_t *ends
        if end + SLACK > size or text[n - 1] != 10:
            if self.scratch_size < n + 1 + SLACK:
                scratch = <uint8_t *> realloc(self.scratch, n + 1 + SLACK)
                if scratch == NULL:
                    self.no_memory = True
                    return END
                self.scratch = scratch
                self.scratch_size = n + 1 + SLACK
            memcpy(self.scratch, text, n)
            text = self.scratch
            if text[n - 1] != 10:
                self.scratch[n] = 10
                n += 1
            memset(self.scratch + n, 0, SLACK)
        if self.ends_size < n // 2 + 48:
            ends = <uint32_t *> realloc(self.ends, (n // 2 + 48) * sizeof(uint32_t))
            if ends == NULL:
                self.no_memory = True
                return END
            self.ends = ends
            self.ends_size = n // 2 + 48
        self.ends[word_ends(text, n, self.ends)] = 0xFFFFFFFF
        return self._lines(text, <uint32_t> n, begin, end, data_first, others)

    cdef int _lines(
        self,
        const uint8_t *text,
        uint32_t n,
        Py_ssize_t base,
        Py_ssize_t stop,
        bint *data_first,
        const uint8_t *others,
    ) noexcept nogil:
        cdef uint32_t *ends = self.ends
        cdef uint32_t at = 0, line_start, w, e, length, found, number
        cdef uint64_t value, fault, h
        cdef uint8_t *v6
        cdef Place *place
        cdef int c, families, code
        cdef int width = self.width
        cdef Py_ssize_t row
        cdef bint endpoint, absent
        cdef int status
        cdef bint check = not data_first[0]

        w = 0
        while w < n:
            line_start = w
            if text[w] <= 32:
                while text[w] == 32:
                    w += 1
                if text[w] == 10 or (text[w] == 13 and text[w + 1] == 10):
                    w += 1 + (text[w] == 13)
                    self.line += 1
                    continue
            row = self.rows
            if row == self.capacity or self.crowded:
                self.position = base + line_start
                return FULL
            if check and 97 <= text[w] <= 122 and not self.timestamped:
                length = ends[at] - w
                if (table_find(&_header_words, text + w, length, hash_of(text + w, length, _header_words.seed))
                        or (length == self.first_name_length and same(text + w, self.first_name, length))):
                    self.position = base + line_start
                    return HEADER

            found = at
            families = status = 0
            endpoint = False
            place = self.places
            c = 0
            if self.timestamped:
                e = ends[at]
                at += 1
                length = e - w
                if (length < 20 or length > 35 or text[w + 4] != 45 or text[w + 7] != 45 or text[w + 10] != 84
                        or text[e] != 32):
                    c = -1
                else:
                    w = e + 1
                    while text[w] == 32:
                        w += 1
                    if text[w] == 10 or (text[w] == 13 and text[w + 1] == 10):
                        c = -1
            if c == 0:
                while True:
                    e = ends[at]
                    at += 1
                    length = e - w
                    if place.job == STRING:
                        if length == 1 and text[w] == 45:
                            code = 0
                        else:
                            h = hash_of(text + w, length, place.table.seed)
                            code = table_find(&place.table, text + w, length, h)
                            if code == 0:
                                code = table_add(&place.table, text + w, length, h)
                                if code < 0:
                                    self.no_memory = True
                                    return END
                                if self._too_large(c):
                                    self.crowded = True
                        (<uint32_t *> place.first)[row] = <uint32_t> code
                        if place.status:
                            status = code
                    elif place.job == ADDRESS:
                        number = 0
                        if 7 <= length <= 15 and ipv4(text + w, length, &number):
                            (<uint8_t *> place.first)[row] = 4
                            families |= 1
                            endpoint |= place.endpoint
                        elif length == 1 and text[w] == 45:
                            (<uint8_t *> place.first)[row] = 0
                        elif ipv6(text + w, length, place.third + 16 * row):
                            (<uint8_t *> place.first)[row] = 6
                            families |= 2
                            endpoint |= place.endpoint
                            number = 0
                        else:
                            break
                        (<uint32_t *> place.second)[row] = number
                    elif place.job != SKIP:
                        absent = False
                        fault = 0
                        if length <= 8:
                            if length == 1 and text[w] == 45:
                                absent = True
                                value = 0
                            else:
                                value = digits(text + w, length, &fault)
                        elif length <= 16:
                            value = (digits(text + w, length - 8, &fault) * 100000000
                                     + digits(text + e - 8, 8, &fault))
                        elif length <= 19:
                            value = ((digits(text + w, length - 16, &fault) * 100000000
                                      + digits(text + e - 16, 8, &fault)) * 100000000
                                     + digits(text + e - 8, 8, &fault))
                        else:
                            break
                        if fault or value > place.maximum:
                            break
                        if place.job == TIME and value < MILLISECONDS_FROM:
                            value *= 1000
                        (<uint64_t *> place.first)[row] = value
                        (<uint8_t *> place.second)[row] = absent

                    c += 1
                    place += 1
                    if c == width:
                        break
                    if text[e] != 32:
                        break  # the line ends too early
                    w = e + 1
                    if text[w] <= 32:
                        while text[w] == 32:
                            w += 1
                        if text[w] == 10 or (text[w] == 13 and text[w + 1] == 10):
                            break

            if c == width and families != 3:
                w = e
                while text[w] == 32:
                    w += 1
                if text[w] == 13 and text[w + 1] == 10:
                    w += 1
                if text[w] == 10:  # as many words as the layout has, and each of them good
                    w += 1
                    self.line += 1
                    check = True
                    if status == NODATA_CODE:
                        self.nodata += 1
                    elif status == SKIPDATA_CODE:
                        self.skipdata += 1
                    elif not endpoint:
                        self.without_addresses += 1
                    else:
                        self.family[row] = 6 if families == 2 else 4
                        self.rows = row + 1
                    continue

            # A line that this layout cannot read. Its end and the number of its words:
            w = <uint32_t> (<const uint8_t *> memchr(text + line_start, 10, n - line_start) - text)
            at = found
            while ends[at] <= w:
                at += 1
            c = <int> (at - found) - self.timestamped
            if check and others != NULL and 0 <= c < 256 and c != width and others[c]:
                self.position = base + line_start
                return OTHER
            self.line += 1
            check = True
            self._bad(base + line_start, min(base + w, stop))
            w += 1
        data_first[0] = not check
        self.position = stop
        return END

    cdef inline void _bad(self, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
        self.malformed += 1
        if self.bad_count < BAD:
            self.bad_lines[self.bad_count].line = self.line
            self.bad_lines[self.bad_count].start = start
            self.bad_lines[self.bad_count].end = end
            self.bad_count += 1
