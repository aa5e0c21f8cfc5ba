/* Q4_0: 32 weights w = d (q - 8), q in 0..15.
 * File: f16 d; 16 bytes of nibbles (read_nibbles). */

static void q4_0_read(uint8_t *q, const uint8_t *block) { read_nibbles(q, block + 2); }

static void q4_0_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    (void)scales, (void)stride;
    for (int i = 0; i < 32; i++)
        y[i] = d[0] * (float)(q[i] - 8);
}

BLOCKS(q4_0, 32, 18, .unit = 32, .low = 4, .halves = 0, .n_halves = 1)

INLINE void q4_0_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const struct block block = block_at(&q4_0_blocks, panel, b, k / 32);
        step4_centred(nt, &sums, block.q, vf_from_f16(block.halves), a);
    }
    sums_end(nt, y, &sums);
}

/* d = m / -8 for the m of the largest |m|, q = x / d + 8 to the nearest, halves up */
static void q4_0_quantize(uint8_t *row, const float *x, int k)
{
    for (int b = 0; b < k / 32; b++, x += 32, row += 18) {
        float max = 0.0f;
        uint8_t q[32];
        for (int i = 0; i < 32; i++)
            max = __builtin_fabsf(x[i]) > __builtin_fabsf(max) ? x[i] : max;
        const float d = max / -8.0f, id = d != 0.0f ? 1.0f / d : 0.0f;
        for (int i = 0; i < 32; i++) {
            const float u = x[i] * id + 8.5f;
            q[i] = (uint8_t)(u >= 0.0f ? (u < 15.0f ? u : 15.0f) : 0.0f);
        }
        const uint16_t h = f32_to_f16(d);
        __builtin_memcpy(row, &h, 2);
        for (int i = 0; i < 16; i++)
            row[2 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
    }
}

BLOCK_FORMAT(q4_0, "Q4_0", SCALED, q4_0_quantize)
