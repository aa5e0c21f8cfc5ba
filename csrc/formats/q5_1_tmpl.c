/* Q5_1: 32 weights w = d q + m, q in 0..31.
 * File: f16 d, m; 4 bytes of upper bits and 16 of nibbles (read_fives). */

static void q5_1_read(uint8_t *q, const uint8_t *block) { read_fives(q, block + 4); }

static void q5_1_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    (void)scales, (void)stride;
    for (int i = 0; i < 32; i++)
        y[i] = d[0] * (float)q[i] + d[1];
}

BLOCKS(q5_1, 32, 24, .unit = 32, .low = 4, .high = 1, .halves = 0, .n_halves = 2)

INLINE void q5_1_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const struct block block = block_at(&q5_1_blocks, panel, b, k / 32);
        const vf d = vf_from_f16(block.halves);
        step5(nt, &sums, block.q, d, vf_from_f16(block.halves + VL), a);
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(q5_1, "Q5_1", SCALED_MIN, NULL)
