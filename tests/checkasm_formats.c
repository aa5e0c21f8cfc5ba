/* What the blocks of each format mean: double, one weight at a time, straight from the layout of
 * GGUF's tensors (ggml, ggml-common.h and ggml-quants.c). */
#include "checkasm.h"

#include <math.h>
#include <string.h>

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static double f16(const uint8_t *p) { return ref_f16(u16(p)); }
static int i8(uint8_t byte) { return byte < 128 ? byte : byte - 256; }
/* the n bits of byte from bit `from` on */
static int bits(int byte, int from, int n) { return byte >> from & ((1 << n) - 1); }

/* w = a - b; mag = |a| + |b| */
static void put(double *w, double *mag, double a, double b)
{
    *w = a - b;
    *mag = fabs(a) + fabs(b);
}

static void decode_f32(double *w, double *mag, const uint8_t *block)
{
    const uint32_t u = u16(block) | (uint32_t)u16(block + 2) << 16;
    float f;
    memcpy(&f, &u, 4);
    put(w, mag, f, 0);
}

static void decode_bf16(double *w, double *mag, const uint8_t *block)
{
    put(w, mag, ref_bf16(u16(block)), 0);
}

static void decode_f16(double *w, double *mag, const uint8_t *block) { put(w, mag, f16(block), 0); }

/* ---- blocks of 32: 16 bytes hold the first half in their low nibbles, the second in the high */

static int nibble(const uint8_t *qs, int i) { return bits(qs[i % 16], i / 16 * 4, 4); }
static int fifth_bit(const uint8_t *qh, int i) { return bits(qh[i / 8], i % 8, 1); }

/* w = d q: f16 d, int8 q[32] */
static void decode_q8_0(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 32; i++)
        put(w + i, mag + i, f16(block) * i8(block[2 + i]), 0);
}

/* w = d (q - offset), which may be computed as d q - d offset */
static void put_offset(double *w, double *mag, double d, int q, int offset)
{
    *w = d * (q - offset);
    *mag = fabs(d) * (q + offset);
}

/* w = d (q - 8): f16 d, nibbles */
static void decode_q4_0(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 32; i++)
        put_offset(w + i, mag + i, f16(block), nibble(block + 2, i), 8);
}

/* w = d q + m: f16 d, m, nibbles */
static void decode_q4_1(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 32; i++)
        put(w + i, mag + i, f16(block) * nibble(block + 4, i), -f16(block + 2));
}

/* w = d (q - 16): f16 d, the upper bits of q in 4 bytes, nibbles */
static void decode_q5_0(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 32; i++)
        put_offset(w + i, mag + i, f16(block), nibble(block + 6, i) + 16 * fifth_bit(block + 2, i), 16);
}

/* w = d q + m: f16 d, m, the upper bits of q in 4 bytes, nibbles */
static void decode_q5_1(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 32; i++) {
        const int q = nibble(block + 8, i) + 16 * fifth_bit(block + 4, i);
        put(w + i, mag + i, f16(block) * q, -f16(block + 2));
    }
}

static const int iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* w = d iq4[q]: f16 d, nibbles */
static void decode_iq4_nl(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 32; i++)
        put(w + i, mag + i, f16(block) * iq4[nibble(block + 2, i)], 0);
}

/* ---- blocks of 256: 8 groups of 32 or 16 of 16 */

/* 6-bit sc, mn of 8 groups in 12 bytes: those of groups 0..3 in the low 6 bits of bytes 0..3 and
 * 4..7, those of 4..7 as nibbles of bytes 8..11 with their upper two bits on top of 0..3 and 4..7 */
static void scale_and_min(const uint8_t *s, int group, int *sc, int *mn)
{
    *sc = group < 4 ? bits(s[group], 0, 6) : bits(s[4 + group], 0, 4) + 16 * bits(s[group - 4], 6, 2);
    *mn = group < 4 ? bits(s[4 + group], 0, 6) : bits(s[4 + group], 4, 4) + 16 * bits(s[group], 6, 2);
}

/* w = d sc q - dmin mn: f16 d, dmin; the 12 bytes of scales; 4 runs of 32 bytes, a group in the
 * low nibbles and the next in the high ones */
static void decode_q4_k(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 256; i++) {
        int sc, mn;
        scale_and_min(block + 4, i / 32, &sc, &mn);
        const int q = bits(block[16 + i / 64 * 32 + i % 32], i / 32 % 2 * 4, 4);
        put(w + i, mag + i, f16(block) * sc * q, f16(block + 2) * mn);
    }
}

/* the same with 32 bytes after the scales, bit j of each for group j: the upper bits of q */
static void decode_q5_k(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 256; i++) {
        int sc, mn;
        scale_and_min(block + 4, i / 32, &sc, &mn);
        const int low = bits(block[48 + i / 64 * 32 + i % 32], i / 32 % 2 * 4, 4);
        const int high = bits(block[16 + i % 32], i / 32, 1);
        put(w + i, mag + i, f16(block) * sc * (low + 16 * high), f16(block + 2) * mn);
    }
}

/* each half of the 256 has 32 bytes, which hold 4 runs of 32 weights, the first in the lowest bits */
static int pair(const uint8_t *qs, int i) { return bits(qs[i / 128 * 32 + i % 32], i / 32 % 4 * 2, 2); }

/* w = d sc q - dmin mn: 16 bytes with sc in the low and mn in the high nibbles, pairs of bits, f16 d, dmin */
static void decode_q2_k(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 256; i++) {
        const int sc = bits(block[i / 16], 0, 4), mn = bits(block[i / 16], 4, 4);
        put(w + i, mag + i, f16(block + 80) * sc * pair(block + 16, i), f16(block + 82) * mn);
    }
}

/* w = d (sc - 32) (q - 4): upper bits of q in 32 bytes, bit j of each for the j-th run of 32; pairs of
 * bits; 12 bytes of sc: low nibbles of bytes 0..7 are of groups 0..7, high ones of 8..15, and the upper
 * two bits of groups 4 j + i are bits 2 j of byte 8 + i; f16 d */
static void decode_q3_k(double *w, double *mag, const uint8_t *block)
{
    const uint8_t *const s = block + 96;
    for (int i = 0; i < 256; i++) {
        const int g = i / 16, q = pair(block + 32, i) + 4 * bits(block[i % 32], i / 32, 1);
        const int sc = bits(s[g % 8], g / 8 * 4, 4) + 16 * bits(s[8 + g % 4], g / 4 * 2, 2);
        put(w + i, mag + i, f16(block + 108) * (sc - 32) * (q - 4), 0);
    }
}

/* w = d (sc - 32) iq4[q]: f16 d; uint16 with two upper bits of each sc; 4 bytes with the lower nibbles;
 * 8 groups of 16 bytes of nibbles */
static void decode_iq4_xs(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 256; i++) {
        const int group = i / 32, low = bits(block[4 + group / 2], group % 2 * 4, 4);
        const int sc = low + 16 * bits(u16(block + 2), 2 * group, 2);
        put(w + i, mag + i, f16(block) * (sc - 32) * iq4[nibble(block + 8 + 16 * group, i % 32)], 0);
    }
}

/* w = d sc (q - 32): low nibbles ql[128], upper two bits qh[64], int8 sc[16], f16 d. In each half,
 * 64 bytes of ql hold two groups of 32 in the low and two in the high nibbles; bits 2j of the 32
 * bytes of qh are of group j */
static void decode_q6_k(double *w, double *mag, const uint8_t *block)
{
    for (int i = 0; i < 256; i++) {
        const int half = i / 128, group = i / 32 % 4;
        const int low = bits(block[half * 64 + group % 2 * 32 + i % 32], group / 2 * 4, 4);
        const int high = bits(block[128 + half * 32 + i % 32], 2 * group, 2);
        put(w + i, mag + i, f16(block + 208) * i8(block[192 + i / 16]) * (low + 16 * high - 32), 0);
    }
}

const struct ref_format *ref_format(const char *name)
{
    static const struct ref_format formats[] = {
        {"F32", decode_f32, 1, {-1}},
        {"BF16", decode_bf16, 1, {-1}},
        {"F16", decode_f16, 1, {-1}},
        {"Q8_0", decode_q8_0, 32, {0, -1}},
        {"Q4_0", decode_q4_0, 32, {0, -1}},
        {"Q4_1", decode_q4_1, 32, {0, 2, -1}},
        {"Q5_0", decode_q5_0, 32, {0, -1}},
        {"Q5_1", decode_q5_1, 32, {0, 2, -1}},
        {"Q2_K", decode_q2_k, 16, {80, 82, -1}},
        {"Q3_K", decode_q3_k, 16, {108, -1}},
        {"Q4_K", decode_q4_k, 32, {0, 2, -1}},
        {"Q5_K", decode_q5_k, 32, {0, 2, -1}},
        {"Q6_K", decode_q6_k, 16, {208, -1}},
        {"IQ4_NL", decode_iq4_nl, 32, {0, -1}},
        {"IQ4_XS", decode_iq4_xs, 32, {0, -1}},
    };
    for (int i = 0; i < COUNT(formats); i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}
