# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The scanner, compiled: whole lines of text to rows of columns in one pass, without the GIL.

The same as `text.Scanner`, which is its specification; see there for what comes in and goes out. It says which lines
are malformed and leaves it to `text.explain` to say why.

How it is fast: a stretch of text (32 KiB, so that it stays in the cache) is first turned into the offsets of the ends
of its words and lines, 64 octets at a time and without branches. Then every word's place is known, lines with another
number of words and those without data are told apart, and the rest is converted one column after the other, a few
hundred lines at a time: eight digits at once, addresses by a mask of their dots. Rows that turn out to be malformed are
closed up afterwards.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

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
    #if defined(__x86_64__) && defined(__GNUC__)
    #define EDFN_AVX2 /* asked for when it runs: the package is built for any x86-64 */
    #include <immintrin.h>
    #endif
    #endif

    static inline uint64_t edfn_load8(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    static inline uint32_t edfn_load4(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
    /* the place of the lowest bit; of no bit at all, any number */
    #if defined(__x86_64__)
    static inline uint32_t edfn_first(uint64_t bits) {
        uint64_t place;
        __asm__("rep bsfq %1, %0" : "=r"(place) : "r"(bits) : "cc"); /* tzcnt where there is one */
        return (uint32_t)place;
    }
    #else
    static inline uint32_t edfn_first(uint64_t bits) { return (uint32_t)__builtin_ctzll(bits | (1ull << 63)); }
    #endif

    #if defined(__SSE2__) && !defined(EDFN_PORTABLE)
    static inline uint64_t edfn_bits64(const __m128i *v) {
        uint64_t a = (uint32_t)_mm_movemask_epi8(v[0]), b = (uint32_t)_mm_movemask_epi8(v[1]);
        uint64_t c = (uint32_t)_mm_movemask_epi8(v[2]), d = (uint32_t)_mm_movemask_epi8(v[3]);
        return a | b << 16 | c << 32 | d << 48;
    }
    static inline uint64_t edfn_separators(const uint8_t *p, uint64_t *newlines) {
        __m128i separators[4], ends[4];
        for (int i = 0; i < 4; i++) {
            __m128i v = _mm_loadu_si128((const __m128i *)(p + 16 * i));
            __m128i newline = _mm_cmpeq_epi8(v, _mm_set1_epi8(10));
            separators[i] = _mm_or_si128(newline, _mm_cmpeq_epi8(v, _mm_set1_epi8(' ')));
            ends[i] = _mm_or_si128(newline, _mm_cmpeq_epi8(v, _mm_set1_epi8(13)));
        }
        uint64_t bits = edfn_bits64(separators), line_ends = edfn_bits64(ends), crs = line_ends & ~bits;
        *newlines = line_ends & bits;
        /* a carriage return separates only when a newline follows */
        return bits | (crs & (*newlines >> 1 | (uint64_t)(p[64] == 10) << 63));
    }
    #ifdef EDFN_AVX2
    __attribute__((target("avx2,bmi,bmi2,popcnt"))) static inline uint64_t edfn_separators_avx2(
            const uint8_t *p, uint64_t *newlines) {
        __m256i a = _mm256_loadu_si256((const __m256i *)p), b = _mm256_loadu_si256((const __m256i *)(p + 32));
        __m256i feed_a = _mm256_cmpeq_epi8(a, _mm256_set1_epi8(10)), feed_b = _mm256_cmpeq_epi8(b, _mm256_set1_epi8(10));
        __m256i space = _mm256_set1_epi8(' '), cr = _mm256_set1_epi8(13);
        #define EDFN_BITS(x, y) ((uint32_t)_mm256_movemask_epi8(x) | (uint64_t)(uint32_t)_mm256_movemask_epi8(y) << 32)
        uint64_t bits = EDFN_BITS(_mm256_or_si256(feed_a, _mm256_cmpeq_epi8(a, space)),
                                  _mm256_or_si256(feed_b, _mm256_cmpeq_epi8(b, space)));
        uint64_t line_ends = EDFN_BITS(_mm256_or_si256(feed_a, _mm256_cmpeq_epi8(a, cr)),
                                       _mm256_or_si256(feed_b, _mm256_cmpeq_epi8(b, cr)));
        uint64_t crs = line_ends & ~bits;
        *newlines = line_ends & bits;
        return bits | (crs & (*newlines >> 1 | (uint64_t)(p[64] == 10) << 63));
    }
    #endif
    /* The value of 1 to 16 digits that end before p; 16 octets before it can be read. Whether they are all digits. */
    static inline int edfn_number(const uint8_t *p, uint32_t length, uint64_t *value) {
        static const uint8_t masks[32] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255,
                                          255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
        __m128i v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(p - 16)), _mm_set1_epi8('0'));
        v = _mm_and_si128(v, _mm_loadu_si128((const __m128i *)(masks + length)));
        int ok = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v)) == 0xffff;
        /* sums of two, four and eight digits */
        v = _mm_add_epi16(_mm_mullo_epi16(_mm_and_si128(v, _mm_set1_epi16(255)), _mm_set1_epi16(10)), _mm_srli_epi16(v, 8));
        v = _mm_madd_epi16(v, _mm_set1_epi32(1 << 16 | 100));
        v = _mm_madd_epi16(_mm_packs_epi32(v, v), _mm_set1_epi32(1 << 16 | 10000));
        uint64_t halves = (uint64_t)_mm_cvtsi128_si64(v);
        *value = (halves & 0xffffffff) * 100000000 + (halves >> 32);
        return ok;
    }
    /* The four numbers of a dotted address of 7 to 15 octets at p, 16 of which can be read. */
    static inline int edfn_ipv4(const uint8_t *p, uint32_t length, uint32_t *value) {
        __m128i text = _mm_loadu_si128((const __m128i *)p);
        __m128i low = _mm_sub_epi8(text, _mm_set1_epi8('0'));
        uint32_t all = (1u << length) - 1;
        uint32_t dots = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8('.'))) & all;
        uint32_t digits = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(low, _mm_set1_epi8(9)), low)) & all;
        uint32_t zeros = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(low, _mm_setzero_si128()));
        uint32_t starts = dots << 1 | 1; /* of a number, or the place behind a dot at the end */
        /* only dots and digits; no number is empty, has four digits, or has a leading zero */
        uint32_t wrong = ((dots | digits) ^ all) | (starts & (dots | (all + 1)))
                       | (digits & digits >> 1 & digits >> 2 & digits >> 3) | (zeros & starts & digits >> 1);
        uint32_t rest = dots & (dots - 1), last = rest & (rest - 1);
        if (wrong || !last || (last & (last - 1))) return 0;
        uint32_t a = edfn_first(dots), b = edfn_first(rest), c = edfn_first(last);
        /* each number's digits to the upper end of 32 bits, below them zeros: [-, hundreds, tens, ones] */
        uint32_t w0 = edfn_load4(p) << (32 - 8 * a), w1 = edfn_load4(p + a + 1) << (32 - 8 * (b - a - 1));
        uint32_t w2 = edfn_load4(p + b + 1) << (32 - 8 * (c - b - 1)), w3 = edfn_load4(p + c + 1) << (32 - 8 * (length - c - 1));
        __m128i v = _mm_set_epi64x((long long)((uint64_t)w3 << 32 | w2), (long long)((uint64_t)w1 << 32 | w0));
        v = _mm_subs_epu8(v, _mm_set1_epi8('0'));
        __m128i sum = _mm_add_epi32(_mm_madd_epi16(_mm_srli_epi16(v, 8), _mm_set1_epi32(1 << 16 | 100)),
                                    _mm_madd_epi16(_mm_and_si128(v, _mm_set1_epi16(255)), _mm_set1_epi32(10 << 16)));
        if (_mm_movemask_epi8(_mm_cmpgt_epi32(sum, _mm_set1_epi32(255)))) return 0;
        sum = _mm_packs_epi32(sum, sum);
        *value = __builtin_bswap32((uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(sum, sum)));
        return 1;
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
    static inline uint64_t edfn_separators(const uint8_t *p, uint64_t *newlines) {
        uint64_t feeds = edfn_bits64(p, 10), crs = edfn_bits64(p, 13);
        *newlines = feeds;
        return edfn_bits64(p, ' ') | feeds | (crs & (feeds >> 1 | (uint64_t)(p[64] == 10) << 63));
    }
    /* The value of 1 to 8 digits that end before p, and a bit of the upper ones of `fault` for what is none. */
    static inline uint64_t edfn_digits(const uint8_t *p, uint32_t length, uint64_t *fault) {
        uint64_t v = (edfn_load8(p - 8) ^ EDFN_ALL('0')) >> (64 - 8 * length) << (64 - 8 * length);
        *fault |= (v + EDFN_ALL(0x76)) | v;
        v = v * 10 + (v >> 8);
        return ((v & 0x000000FF000000FFull) * 0x000F424000000064ull
                + ((v >> 16) & 0x000000FF000000FFull) * 0x0000271000000001ull) >> 32;
    }
    static inline int edfn_number(const uint8_t *p, uint32_t length, uint64_t *value) {
        uint64_t fault = 0;
        *value = edfn_digits(p, length < 8 ? length : 8, &fault);
        if (length > 8) *value += edfn_digits(p - 8, length - 8, &fault) * 100000000;
        return !(fault & EDFN_ALL(0x80));
    }
    static inline int edfn_ipv4(const uint8_t *p, uint32_t length, uint32_t *value) {
        uint32_t address = 0, number = 0, digits = 0, dots = 0;
        for (uint32_t i = 0; i < length; i++) {
            uint32_t digit = p[i] - (uint32_t)'0';
            if (digit <= 9) {
                if (digits && !number) return 0; /* a leading zero */
                number = 10 * number + digit;
                if (number > 255) return 0;
                digits++;
            } else {
                if (p[i] != '.' || !digits) return 0;
                address = address << 8 | number;
                number = digits = 0;
                dots++;
            }
        }
        if (!digits || dots != 3) return 0;
        *value = address << 8 | number;
        return 1;
    }
    #endif

    /* Offsets of the octet after each word of text[0:n], and of each newline; text[n-1] is one, and 80 octets after it
       can be read. `ends` has room for n/2 + 40, `newlines` for n + 2. */
    #define EDFN_ONE(i) o[i] = (uint32_t)k + EDFN_FIRST(bits); bits &= bits - 1;
    #define EDFN_FOUR(i) EDFN_ONE(i) EDFN_ONE(i + 1) EDFN_ONE(i + 2) EDFN_ONE(i + 3)
    #define EDFN_WORD_ENDS \\
        uint64_t before = 1; /* what stands before the text separates */ \\
        uint32_t *o = ends, *l = newlines; \\
        for (size_t k = 0; k < n; k += 64) { \\
            uint64_t feeds, separators = EDFN_SEPARATORS(text + k, &feeds); \\
            uint64_t bits = separators & ~(separators << 1 | before); \\
            before = separators >> 63; \\
            if (n - k < 64) { \\
                bits &= (1ull << (n - k)) - 1; \\
                feeds &= (1ull << (n - k)) - 1; \\
            } \\
            uint32_t count = EDFN_COUNT(bits); \\
            /* Twelve, needed or not: a loop of exactly `count` rounds would be mispredicted each time, and eight is \\
               about what 64 octets of flow log have. */ \\
            EDFN_FOUR(0) EDFN_FOUR(4) EDFN_FOUR(8) \\
            if (count > 12) { EDFN_FOUR(12) EDFN_FOUR(16) EDFN_FOUR(20) EDFN_FOUR(24) EDFN_FOUR(28) } \\
            o += count; \\
            *l = (uint32_t)k + EDFN_FIRST(feeds); \\
            l += feeds != 0; \\
            feeds &= feeds - 1; \\
            while (feeds) { /* lines shorter than a block */ \\
                *l++ = (uint32_t)k + EDFN_FIRST(feeds); \\
                feeds &= feeds - 1; \\
            } \\
        } \\
        *lines = (size_t)(l - newlines); \\
        return (size_t)(o - ends);

    static inline uint32_t edfn_count(uint64_t bits) {
        uint64_t c = bits - ((bits >> 1) & 0x5555555555555555ull);
        c = (c & 0x3333333333333333ull) + ((c >> 2) & 0x3333333333333333ull);
        return (uint32_t)((((c + (c >> 4)) & 0x0f0f0f0f0f0f0f0full) * 0x0101010101010101ull) >> 56);
    }

    #define EDFN_FIRST edfn_first
    #define EDFN_SEPARATORS edfn_separators
    #define EDFN_COUNT edfn_count
    static size_t edfn_word_ends_any(const uint8_t *text, size_t n, uint32_t *ends, uint32_t *newlines, size_t *lines) {
        EDFN_WORD_ENDS
    }
    #undef EDFN_SEPARATORS
    #undef EDFN_COUNT

    #ifdef EDFN_AVX2
    #define EDFN_SEPARATORS edfn_separators_avx2
    #define EDFN_COUNT(bits) (uint32_t)__builtin_popcountll(bits)
    __attribute__((target("avx2,bmi,bmi2,popcnt"))) static size_t edfn_word_ends_avx2(
            const uint8_t *text, size_t n, uint32_t *ends, uint32_t *newlines, size_t *lines) {
        EDFN_WORD_ENDS
    }
    #undef EDFN_SEPARATORS
    #undef EDFN_COUNT
    /* With AVX-512 the offsets of up to 16 words come out of one instruction, and no bit is looked for. */
    __attribute__((target("avx512f,avx512bw,avx512vbmi2,bmi,bmi2,popcnt"))) static size_t edfn_word_ends_avx512(
            const uint8_t *text, size_t n, uint32_t *ends, uint32_t *newlines, size_t *lines) {
        static const uint8_t counting[64] __attribute__((aligned(64))) = {
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
            32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60,
            61, 62, 63};
        const __m512i places = _mm512_load_si512(counting);
        uint64_t before = 1; /* what stands before the text separates */
        uint32_t *o = ends, *l = newlines;
        for (size_t k = 0; k < n; k += 64) {
            __m512i v = _mm512_loadu_si512(text + k), base = _mm512_set1_epi32((int)k);
            uint64_t feeds = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(10));
            uint64_t crs = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(13));
            uint64_t separators = feeds | _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(' '));
            separators |= crs & (feeds >> 1 | (uint64_t)(text[k + 64] == 10) << 63);
            uint64_t bits = separators & ~(separators << 1 | before);
            before = separators >> 63;
            if (n - k < 64) {
                bits &= (1ull << (n - k)) - 1;
                feeds &= (1ull << (n - k)) - 1;
            }
            uint32_t count = (uint32_t)__builtin_popcountll(bits);
            __m512i found = _mm512_maskz_compress_epi8(bits, places);
            _mm512_storeu_si512(o, _mm512_add_epi32(base, _mm512_cvtepu8_epi32(_mm512_castsi512_si128(found))));
            if (count > 16) /* at most 32: a word has an octet, and one before it */
                _mm512_storeu_si512(o + 16, _mm512_add_epi32(base, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(found, 1))));
            o += count;
            *l = (uint32_t)k + EDFN_FIRST(feeds);
            l += feeds != 0;
            feeds &= feeds - 1;
            while (feeds) { /* lines shorter than a block */
                *l++ = (uint32_t)k + EDFN_FIRST(feeds);
                feeds &= feeds - 1;
            }
        }
        *lines = (size_t)(l - newlines);
        return (size_t)(o - ends);
    }
    static int edfn_most(void) { /* what this machine can do */
        if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi2")) return 2;
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    }
    static size_t edfn_word_ends(
            int most, const uint8_t *text, size_t n, uint32_t *ends, uint32_t *newlines, size_t *lines) {
        if (most == 2) return edfn_word_ends_avx512(text, n, ends, newlines, lines);
        if (most == 1) return edfn_word_ends_avx2(text, n, ends, newlines, lines);
        return edfn_word_ends_any(text, n, ends, newlines, lines);
    }
    #else
    static int edfn_most(void) { return 0; }
    #define edfn_word_ends(most, text, n, ends, newlines, lines) edfn_word_ends_any(text, n, ends, newlines, lines)
    #endif

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
    int most "edfn_most"() noexcept nogil
    size_t word_ends "edfn_word_ends"(
        int most, const uint8_t *text, size_t n, uint32_t *ends, uint32_t *newlines, size_t *lines) noexcept nogil
    bint number "edfn_number"(const uint8_t *end, uint32_t length, uint64_t *value) noexcept nogil
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

    MAX_LINE = 65536
    STRIP = 32768
    SLACK = 80  # octets behind a text that the wide loads may read
    FRONT = 16  # and before it
    GROUP = 256  # lines that are converted together: their text and columns stay in the cache
    BAD = 8

assert (SKIP, INTEGER, TIME, ADDRESS, STRING) == (
    _columns.SKIP, _columns.INTEGER, _columns.TIME, _columns.ADDRESS, _columns.STRING)
assert (END, FULL, HEADER, OTHER) == (_columns.END, _columns.FULL, _columns.HEADER, _columns.OTHER)
assert MAX_LINE == _columns.MAX_LINE

BUILT_FOR = 2
cdef uint64_t MILLISECONDS_FROM = _columns.MILLISECONDS_FROM
cdef int MOST = most()  # 0: nothing special, 1: AVX2, 2: AVX-512


def word_ends_by(int instructions, bytes text):
    """For tests: where words and lines end as found with these instructions, or None where the machine lacks them."""
    if instructions > MOST:
        return None
    cdef bytes padded = text + b"\n" + b"\0" * SLACK
    cdef size_t n = <size_t> len(text) + 1, lines = 0, count, i
    cdef uint32_t *ends = <uint32_t *> malloc((n // 2 + 48) * sizeof(uint32_t))
    cdef uint32_t *newlines = <uint32_t *> malloc((n + 48) * sizeof(uint32_t))
    if ends == NULL or newlines == NULL:
        free(ends)
        free(newlines)
        raise MemoryError
    count = word_ends(instructions, <const uint8_t *> <const char *> padded, n, ends, newlines, &lines)
    found = [ends[i] for i in range(count)], [newlines[i] for i in range(lines)]
    free(ends)
    free(newlines)
    return found


# -- the distinct values of a string column --------------------------------------------------------------------------

cdef struct Entry:
    uint32_t offset
    uint32_t length
    uint64_t hash

cdef struct Slot:
    uint32_t code  # 0 is a free slot
    uint32_t hash  # the upper half
    uint32_t offset  # as in the entry, so that finding a value reads one cache line less
    uint32_t length

cdef struct Table:
    Slot *slots
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
    table.slots = <Slot *> malloc((table.mask + 1) * sizeof(Slot))
    table.entries = <Entry *> malloc(table.room * sizeof(Entry))
    table.arena = <uint8_t *> malloc(table.size)
    if table.slots == NULL or table.entries == NULL or table.arena == NULL:
        return False
    memset(table.slots, 0, (table.mask + 1) * sizeof(Slot))
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


cdef void table_place(Table *table, uint32_t code) noexcept nogil:
    """Make an entry be found."""
    cdef Entry *entry = &table.entries[code]
    cdef uint64_t place = entry.hash & table.mask
    while table.slots[place].code:
        place = (place + 1) & table.mask
    table.slots[place].code = code
    table.slots[place].hash = <uint32_t> (entry.hash >> 32)
    table.slots[place].offset = entry.offset
    table.slots[place].length = entry.length


cdef int table_add(Table *table, const uint8_t *text, uint32_t length, uint64_t h) noexcept nogil:
    """The code of a new value, -1 without memory."""
    cdef Slot *slots
    cdef Entry *entries
    cdef uint8_t *arena
    cdef uint64_t i
    cdef size_t size
    if table.count == table.room:
        entries = <Entry *> realloc(table.entries, 2 * table.room * sizeof(Entry))
        if entries == NULL:
            return -1
        table.entries = entries
        slots = <Slot *> malloc(2 * (table.mask + 1) * sizeof(Slot))
        if slots == NULL:
            return -1
        table.room *= 2
        table.mask = 2 * table.mask + 1
        memset(slots, 0, (table.mask + 1) * sizeof(Slot))
        free(table.slots)
        table.slots = slots
        for i in range(1, table.count):
            table_place(table, <uint32_t> i)
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
    table_place(table, table.count)
    table.count += 1
    return table.count - 1


cdef inline int table_find(Table *table, const uint8_t *text, uint32_t length, uint64_t h) noexcept nogil:
    """The code of a value, 0 when it is not in the table."""
    cdef uint64_t place = h & table.mask
    cdef Slot *slot
    while True:
        slot = &table.slots[place]
        if slot.code == 0:
            return 0
        if (slot.hash == <uint32_t> (h >> 32) and slot.length == length
                and same(text, table.arena + slot.offset, length)):
            return <int> slot.code
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
    int like  # which word most often says the same address; -1: none
    uint64_t maximum
    void *first  # values (uint64) | family (uint8) | codes (uint32); NULL: only checked, not kept
    void *second  # absent (uint8) | v4 (uint32)
    uint8_t *third  # v6
    Table table

cdef struct Group:
    # Lines whose words are as many as the layout's, and that are not NODATA or SKIPDATA.
    uint32_t count
    uint32_t first[GROUP]  # of its words: which in `ends`
    uint32_t begin[GROUP]  # where it begins
    uint32_t newline[GROUP]
    Py_ssize_t line[GROUP]  # its number
    uint8_t families[GROUP]  # 1: an IPv4 address, 2: an IPv6 address, 4: one of them is srcaddr or dstaddr
    uint8_t fault[GROUP]


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
    cdef object held  # what the pointers point into
    cdef uint8_t *family
    cdef uint8_t *scratch
    cdef size_t scratch_size
    cdef uint32_t *ends
    cdef uint32_t *newlines
    cdef size_t ends_size
    cdef int status_place
    cdef Group group
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
        cdef int i, j
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
        self.status_place = -1
        self.places = <Place *> malloc(self.width * sizeof(Place))
        if self.places == NULL:
            raise MemoryError
        memset(self.places, 0, self.width * sizeof(Place))
        for i in range(self.width):
            word = columns.words[i]
            self.places[i].job = word.job
            self.places[i].maximum = word.maximum
            self.places[i].endpoint = word.endpoint
            self.places[i].like = -1
            if word.job == ADDRESS and word.name.startswith("pkt-"):
                for j in range(self.width):
                    if columns.words[j].job == ADDRESS and columns.words[j].name == word.name[4:]:
                        self.places[i].like = j
            if word.status:
                self.status_place = i
            if word.job == STRING:
                self._begin_dictionary(i)

    def __dealloc__(self):
        cdef int i
        if self.places != NULL:
            for i in range(self.width):
                table_close(&self.places[i].table)
        free(self.places)
        free(self.scratch)
        free(self.ends)
        free(self.newlines)

    cdef _begin_dictionary(self, int i):
        cdef Place *place = &self.places[i]
        table_close(&place.table)
        # a seed that nobody outside knows: no input can be made to collide
        if not table_open(&place.table, int.from_bytes(os.urandom(8), "little")):
            raise MemoryError
        self.dictionaries[i] = Dictionary()

    cdef _open(self):
        """Have arrays, and find where they are."""
        cdef int i
        if not self.columns.arrays:
            self.columns.open()
        self.held = (self.columns.family, self.columns.arrays)
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
        self.family = NULL
        self.held = None

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
        if self.family == NULL:
            self._open()
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
            # the few octets before the first line of a buffer cannot be read: a small strip, which is copied
            limit = min(begin + (STRIP if begin >= FRONT else 1024), stop)
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
                    self._bad(self.line, begin, end - (found != NULL))
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
        cdef size_t count, lines = 0, i, need
        cdef uint8_t *scratch
        if begin < FRONT or end + SLACK > size or text[n - 1] != 10:
            if self.scratch_size < FRONT + n + 1 + SLACK:
                scratch = <uint8_t *> realloc(self.scratch, FRONT + n + 1 + SLACK)
                if scratch == NULL:
                    self.no_memory = True
                    return END
                memset(scratch, 0, FRONT)
                self.scratch = scratch
                self.scratch_size = FRONT + n + 1 + SLACK
            scratch = self.scratch + FRONT
            memcpy(scratch, text, n)
            if scratch[n - 1] != 10:
                scratch[n] = 10
                n += 1
            memset(scratch + n, 0, SLACK)
            text = scratch
        need = n + 48 + <size_t> self.width
        if self.ends_size < need:
            free(self.ends)
            free(self.newlines)
            self.ends = <uint32_t *> malloc((need - n // 2) * sizeof(uint32_t))
            self.newlines = <uint32_t *> malloc(need * sizeof(uint32_t))
            self.ends_size = need
            if self.ends == NULL or self.newlines == NULL:
                self.ends_size = 0
                self.no_memory = True
                return END
        count = word_ends(MOST, text, n, self.ends, self.newlines, &lines)
        for i in range(<size_t> self.width + 2):  # whoever looks for the words of the last line finds an end
            self.ends[count + i] = 0xFFFFFFFF
        return self._lines(text, <uint32_t> lines, begin, end, data_first, others)

    cdef int _lines(
        self,
        const uint8_t *text,
        uint32_t lines,
        Py_ssize_t base,
        Py_ssize_t stop,
        bint *data_first,
        const uint8_t *others,
    ) noexcept nogil:
        """Tell the lines apart by the number of their words and by log-status, and convert those with data."""
        cdef const uint32_t *ends = self.ends
        cdef Group *group = &self.group
        cdef uint32_t at = 0, begin = 0, next_line = 0, w, e, length, newline, room
        cdef uint32_t width = <uint32_t> self.width + self.timestamped, count
        cdef int status = -1 if self.status_place < 0 else self.status_place + self.timestamped
        cdef bint check = not data_first[0]
        cdef int code = END

        while True:
            group.count = 0
            room = <uint32_t> min(GROUP, self.capacity - self.rows)
            while next_line < lines:
                newline = self.newlines[next_line]
                if ends[at] > newline:  # an empty line
                    self.line += 1
                    next_line += 1
                    begin = newline + 1
                    continue
                if group.count == room or self.crowded:
                    if group.count == 0:
                        code = FULL
                    break
                w = begin
                while text[w] == 32:
                    w += 1
                if check and 97 <= text[w] <= 122 and not self.timestamped:
                    length = ends[at] - w
                    if (table_find(&_header_words, text + w, length, hash_of(text + w, length, _header_words.seed))
                            or (length == self.first_name_length and same(text + w, self.first_name, length))):
                        code = HEADER
                        break
                count = width
                if ends[at + width - 1] > newline or ends[at + width] <= newline:
                    count = 0
                    while ends[at + count] <= newline:
                        count += 1
                    if (check and others != NULL and count - self.timestamped < 256 and others[count - self.timestamped]):
                        code = OTHER
                        break
                check = True
                self.line += 1
                next_line += 1
                if count != width or (self.timestamped and not is_timestamp(text + w, ends[at] - w)):
                    self._bad(self.line, base + begin, min(base + newline, stop))
                else:
                    if status >= 0:
                        e = ends[at + <uint32_t> status]
                        if status > 0:
                            w = ends[at + <uint32_t> status - 1] + 1
                            while text[w] == 32:
                                w += 1
                        length = e - w
                    if status >= 0 and length == 6 and memcmp(text + w, b"NODATA", 6) == 0:
                        self.nodata += 1
                    elif status >= 0 and length == 8 and memcmp(text + w, b"SKIPDATA", 8) == 0:
                        self.skipdata += 1
                    else:
                        group.first[group.count] = at
                        group.begin[group.count] = begin
                        group.newline[group.count] = newline
                        group.line[group.count] = self.line
                        group.count += 1
                at += count
                begin = newline + 1
            if group.count:
                self._convert(text, base, stop)
                if self.no_memory:
                    return END
            if code != END:
                self.position = base + begin
                return code
            if next_line == lines:
                break
        data_first[0] = not check
        self.position = stop
        return END

    cdef void _convert(self, const uint8_t *text, Py_ssize_t base, Py_ssize_t stop) noexcept nogil:
        """The lines of the group become rows, column after column."""
        cdef Group *group = &self.group
        cdef uint32_t i, n = group.count
        cdef uint8_t faults = 0, all_of = 7
        cdef int c
        cdef Py_ssize_t row, to
        memset(group.families, 0, n)
        memset(group.fault, 0, n)
        for c in range(self.width):
            if self.places[c].job == ADDRESS and self.places[c].first == NULL:
                self._check_addresses(&self.places[c], text, <uint32_t> c + self.timestamped)
            elif self.places[c].job == ADDRESS:
                self._convert_addresses(&self.places[c], text, <uint32_t> c + self.timestamped)
            elif self.places[c].job == STRING:
                self._convert_strings(&self.places[c], text, <uint32_t> c + self.timestamped)
                if self._too_large(c):
                    self.crowded = True
            elif self.places[c].job != SKIP and self.places[c].first == NULL:
                self._check_integers(&self.places[c], text, <uint32_t> c + self.timestamped)
            elif self.places[c].job != SKIP:
                self._convert_integers(&self.places[c], text, <uint32_t> c + self.timestamped)
        for i in range(n):
            group.fault[i] |= (group.families[i] & 3) == 3  # both families
            self.family[self.rows + i] = 4 + (group.families[i] & 2)
            faults |= group.fault[i]
            all_of &= group.families[i]
        if faults == 0 and all_of & 4:
            self.rows += n
            return
        to = self.rows
        for i in range(n):
            if group.fault[i]:
                self._bad(group.line[i], base + group.begin[i], min(base + group.newline[i], stop))
            elif not group.families[i] & 4:
                self.without_addresses += 1
            else:
                row = self.rows + i
                if row != to:
                    self._move(row, to)
                to += 1
        self.rows = to
    # In the following, what is reached through a pointer is copied to a local variable before the loop: octets are
    # written in it, which for a C compiler may be octets of anything.

    cdef void _convert_integers(self, Place *place, const uint8_t *text, uint32_t word) noexcept nogil:
        cdef uint64_t *values = <uint64_t *> place.first + self.rows
        cdef uint8_t *absent = <uint8_t *> place.second + self.rows
        cdef const uint32_t *first = self.group.first
        cdef const uint32_t *begin = self.group.begin
        cdef const uint32_t *ends = self.ends + word
        cdef const uint32_t *before = ends - 1
        cdef uint8_t *faults = self.group.fault
        cdef uint64_t value, upper, maximum = place.maximum, milliseconds_from = MILLISECONDS_FROM
        cdef bint time = place.job == TIME
        cdef uint32_t i, w, e, length, n = self.group.count
        for i in range(n):
            w = before[first[i]] + 1 if word else begin[i]
            while text[w] == 32:
                w += 1
            e = ends[first[i]]
            length = e - w
            absent[i] = 0
            if length <= 16:
                if not number(text + e, length, &value):
                    if text[w] == 45 and length == 1:
                        absent[i] = 1
                        values[i] = 0
                    else:
                        faults[i] = 1
                    continue
            else:
                upper = 0
                if length > 19 or not (number(text + e, 16, &value) and number(text + e - 16, length - 16, &upper)):
                    faults[i] = 1
                    continue
                value += upper * (<uint64_t> 100000000 * <uint64_t> 100000000)
            if value > maximum:
                faults[i] = 1
            if time and value < milliseconds_from:
                value *= 1000
            values[i] = value

    cdef void _convert_addresses(self, Place *place, const uint8_t *text, uint32_t word) noexcept nogil:
        cdef uint8_t *family = <uint8_t *> place.first + self.rows
        cdef uint32_t *v4 = <uint32_t *> place.second + self.rows
        cdef uint8_t *v6 = place.third + 16 * self.rows
        cdef const uint32_t *first = self.group.first
        cdef const uint32_t *begin = self.group.begin
        cdef const uint32_t *ends = self.ends + word
        cdef const uint32_t *before = ends - 1
        cdef uint8_t *faults = self.group.fault
        cdef uint8_t *families = self.group.families
        cdef uint8_t endpoint = 4 if place.endpoint else 0
        cdef uint32_t i, w, length, value, n = self.group.count
        for i in range(n):
            w = before[first[i]] + 1 if word else begin[i]
            while text[w] == 32:
                w += 1
            length = ends[first[i]] - w
            value = 0
            if 7 <= length <= 15 and ipv4(text + w, length, &value):
                family[i] = 4
                families[i] |= 1 | endpoint
            elif length == 1 and text[w] == 45:
                family[i] = 0
            elif ipv6(text + w, length, v6 + 16 * i):
                family[i] = 6
                value = 0
                families[i] |= 2 | endpoint
            else:
                faults[i] = 1
            v4[i] = value

    cdef void _check_integers(self, Place *place, const uint8_t *text, uint32_t word) noexcept nogil:
        """As converting them does, for a column that nobody wants."""
        cdef const uint32_t *first = self.group.first
        cdef const uint32_t *begin = self.group.begin
        cdef const uint32_t *ends = self.ends + word
        cdef const uint32_t *before = ends - 1
        cdef uint8_t *faults = self.group.fault
        cdef uint64_t value, upper, maximum = place.maximum
        cdef uint32_t i, w, e, length, n = self.group.count
        for i in range(n):
            w = before[first[i]] + 1 if word else begin[i]
            while text[w] == 32:
                w += 1
            e = ends[first[i]]
            length = e - w
            if length == 1 and (text[w] == 45 or (48 <= text[w] <= 57 and maximum >= 9)):
                continue
            upper = 0
            if length > 19 or not number(text + e, min(length, <uint32_t> 16), &value):
                faults[i] = 1
            elif length > 16 and not number(text + e - 16, length - 16, &upper):
                faults[i] = 1
            elif value + upper * (<uint64_t> 100000000 * <uint64_t> 100000000) > maximum:
                faults[i] = 1

    cdef void _check_addresses(self, Place *place, const uint8_t *text, uint32_t word) noexcept nogil:
        """As converting them does, for a column that nobody wants; mostly it says what srcaddr or dstaddr says."""
        cdef const uint32_t *first = self.group.first
        cdef const uint32_t *begin = self.group.begin
        cdef const uint32_t *ends = self.ends + word
        cdef const uint32_t *before = ends - 1
        cdef uint8_t *faults = self.group.fault
        cdef uint8_t *families = self.group.families
        cdef uint8_t endpoint = 4 if place.endpoint else 0
        cdef uint8_t v6[16]
        cdef uint32_t like = 0
        cdef uint32_t i, w, other, length, value, n = self.group.count
        if place.like >= 0:
            like = <uint32_t> place.like + self.timestamped
        for i in range(n):
            w = before[first[i]] + 1 if word else begin[i]
            while text[w] == 32:
                w += 1
            length = ends[first[i]] - w
            if place.like >= 0:
                other = self.ends[first[i] + like - 1] + 1 if like else begin[i]
                while text[other] == 32:
                    other += 1
                if self.ends[first[i] + like] - other == length and same(text + w, text + other, length):
                    continue
            if 7 <= length <= 15 and ipv4(text + w, length, &value):
                families[i] |= 1 | endpoint
            elif length == 1 and text[w] == 45:
                pass
            elif ipv6(text + w, length, v6):
                families[i] |= 2 | endpoint
            else:
                faults[i] = 1

    cdef void _convert_strings(self, Place *place, const uint8_t *text, uint32_t word) noexcept nogil:
        cdef uint32_t *codes = <uint32_t *> place.first + self.rows
        cdef const uint32_t *first = self.group.first
        cdef const uint32_t *begin = self.group.begin
        cdef const uint32_t *ends = self.ends + word
        cdef const uint32_t *before = ends - 1
        cdef uint64_t seed = place.table.seed
        cdef uint32_t i, w, length, n = self.group.count
        cdef uint32_t last = 0, last_length = 0  # where the value of the line before is: often it is the same
        cdef uint64_t h
        cdef int code = 0
        for i in range(n):
            w = before[first[i]] + 1 if word else begin[i]
            while text[w] == 32:
                w += 1
            length = ends[first[i]] - w
            if length == last_length and same(text + w, text + last, length):
                codes[i] = <uint32_t> code
                continue
            last = w
            last_length = length
            if text[w] == 45 and length == 1:
                codes[i] = code = 0
                continue
            h = hash_of(text + w, length, seed)
            code = table_find(&place.table, text + w, length, h)
            if code == 0:
                code = table_add(&place.table, text + w, length, h)
                if code < 0:
                    self.no_memory = True
                    return
            codes[i] = <uint32_t> code

    cdef void _move(self, Py_ssize_t row, Py_ssize_t to) noexcept nogil:
        """Close up: a row takes the place of one that was none."""
        cdef int c
        cdef Place *place
        self.family[to] = self.family[row]
        for c in range(self.width):
            place = &self.places[c]
            if place.first == NULL:
                continue
            if place.job == ADDRESS:
                (<uint8_t *> place.first)[to] = (<uint8_t *> place.first)[row]
                (<uint32_t *> place.second)[to] = (<uint32_t *> place.second)[row]
                memcpy(place.third + 16 * to, place.third + 16 * row, 16)
            elif place.job == STRING:
                (<uint32_t *> place.first)[to] = (<uint32_t *> place.first)[row]
            else:
                (<uint64_t *> place.first)[to] = (<uint64_t *> place.first)[row]
                (<uint8_t *> place.second)[to] = (<uint8_t *> place.second)[row]

    cdef void _bad(self, Py_ssize_t line, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
        """Keep the first few, in the order of lines: those of a group are found in another one."""
        cdef int i = self.bad_count
        self.malformed += 1
        if i < BAD:
            self.bad_count += 1
        else:
            i -= 1
            if self.bad_lines[i].line < line:
                return
        while i > 0 and self.bad_lines[i - 1].line > line:
            self.bad_lines[i] = self.bad_lines[i - 1]
            i -= 1
        self.bad_lines[i].line = line
        self.bad_lines[i].start = start
        self.bad_lines[i].end = end


cdef inline bint is_timestamp(const uint8_t *word, uint32_t length) noexcept nogil:
    return 20 <= length <= 35 and word[4] == 45 and word[7] == 45 and word[10] == 84
