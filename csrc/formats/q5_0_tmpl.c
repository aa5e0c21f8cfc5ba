/* Q5_0: 32 weights w = d (q - 16), q in 0..31.
 * File: f16 d; 4 bytes of upper bits and 16 of nibbles (read_fives). */

static void q5_0_read(uint8_t *q, const uint8_t *block) { read_fives(q, block + 2); }

static void q5_0_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    (void)scales, (void)stride;
    for (int i = 0; i < 32; i++)
        y[i] = d[0] * (float)(q[i] - 16);
}

BLOCKS(q5_0, 32, 22, .unit = 32, .low = 4, .high = 1, .halves = 0, .n_halves = 1)

INLINE void q5_0_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const struct block block = block_at(&q5_0_blocks, panel, b, k / 32);
        const vf d = vf_from_f16(block.halves);
        step5(nt, &sums, block.q, d, vf_mul(d, vf_set1(-16.0f)), a);
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(q5_0, "Q5_0", SCALED_MIN, NULL)
