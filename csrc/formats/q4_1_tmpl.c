/* Q4_1: 32 weights w = d q + m, q in 0..15.
 * File: f16 d, m; 16 bytes of nibbles (read_nibbles). */

static void q4_1_read(uint8_t *q, const uint8_t *block) { read_nibbles(q, block + 4); }

static void q4_1_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    (void)scales, (void)stride;
    for (int i = 0; i < 32; i++)
        y[i] = d[0] * (float)q[i] + d[1];
}

BLOCKS(q4_1, 32, 20, .unit = 32, .low = 4, .halves = 0, .n_halves = 2)

INLINE void q4_1_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const struct block block = block_at(&q4_1_blocks, panel, b, k / 32);
        const vf d = vf_from_f16(block.halves);
        step4(nt, &sums, block.q, d, vf_from_f16(block.halves + VL), a);
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(q4_1, "Q4_1", SCALED_MIN, NULL)
