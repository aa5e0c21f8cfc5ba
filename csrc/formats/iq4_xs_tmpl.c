/* IQ4_XS: 256 weights in 8 groups of 32, w = d (sc - 32) iq4[q], q as in IQ4_NL, sc of 6 bits.
 * File: f16 d; uint16 with the upper two bits of sc of group j in bits 2 j; 4 bytes with the lower four,
 * group 2i in the low nibbles; 8 times 16 bytes of nibbles (read_nibbles). */

static void iq4_xs_read(uint8_t *q, const uint8_t *block)
{
    for (int j = 0; j < 8; j++)
        read_nibbles(q + 32 * j, block + 8 + 16 * j);
}

static void iq4_xs_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    for (int j = 0; j < 8; j++) {
        const int low = scales[(2 + j / 2) * stride] >> j % 2 * 4 & 15, high = scales[j / 4 * stride] >> j % 4 * 2 & 3;
        for (int i = 32 * j; i < 32 * j + 32; i++)
            y[i] = d[0] * (float)((low | high << 4) - 32) * (float)(iq4_table[q[i]] - 128);
    }
}

BLOCKS(iq4_xs, 256, 136, .unit = 32, .low = 4, .scales = 2, .n_scales = 6, .halves = 0, .n_halves = 1)

INLINE void iq4_xs_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 256; b++) {
        const struct block block = block_at(&iq4_xs_blocks, panel, b, k / 256);
        const vf d = vf_from_f16(block.halves);
        for (int j = 0; j < 8; j += 4) {
            vi high = vi_sll(vi_from_u8(block.scales + j / 4 * VL), 4);
            for (int i = j; i < j + 4; i++, a += nt * PL_I8_BLOCK_BYTES, high = vi_srl(high, 2)) {
                const vi byte = vi_from_u8(block.scales + (2 + i / 2) * VL);
                const vi low = vi_and(i % 2 ? vi_srl(byte, 4) : byte, vi_set1(15));
                const vi sc = vi_or(low, vi_and(high, vi_set1(48)));
                step4_bytes(nt, &sums, block.q + i * 16 * VL, vf_mul(d, vf_from_i(vi_add(sc, vi_set1(-32)))), a, iq4_table);
            }
        }
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(iq4_xs, "IQ4_XS", SCALED, NULL)
