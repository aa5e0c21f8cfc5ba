/* Panels whose weights are bytes and whose scales are f32, for prompts: where all that vectors do takes the ports that
 * multiply, each tile of tokens would lose a tenth to unpacking. A format's body hands its weights over (DEFER) when
 * asked for a tile of no tokens. Per 32 k: uint8 [8][VL][4], 128 being 0 if there is no minimum; w [VL]; m [VL] if
 * there is. The integers and the order of roundings are those of the format's own tiles, and so are the bits. */

/* what is added for a token: w d dot; w d dot + m s */
enum addend { SCALED, SCALED_MIN };

INLINE size_t expanded_step(const enum addend addend) { return (size_t)(32 * VL + 4 * VL * (addend == SCALED ? 1 : 2)); }

INLINE void hand_over(const enum addend addend, struct sums *s, vf w, vf m)
{
    vf_store((float *)(s->expanded + 32 * VL), w);
    if (addend == SCALED_MIN)
        vf_store((float *)(s->expanded + 36 * VL), m);
    s->expanded += expanded_step(addend);
}

/* In a step: `put` writes the weights to q, that is all. */
#define DEFER(nt, sums, put, addend, w, m, x)                 \
    do {                                                      \
        if (!(nt)) {                                          \
            int8_t *const q = (int8_t *)(sums)->expanded;     \
            put;                                              \
            hand_over(addend, sums, w, m);                    \
            return;                                           \
        }                                                     \
    } while (0)

INLINE void expanded_tile(const enum addend addend, const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *p = panel, *at = x;
    vf acc[PL_TILE_MAX];
    acc_zero(nt, acc);
    for (int b = 0; b < k / 32; b++, p += expanded_step(addend), at += nt * PL_I8_BLOCK_BYTES) {
        const struct acts a = acts_of(nt, at);
        const vf w = vf_load((const float *)(p + 32 * VL));
        d8 dot[PL_TILE_MAX];
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = addend == SCALED ? d8_init(a.z + t) : vi_set1(DOT_START);
        for (int g = 0; g < 8; g++) {
            const w8 u = w8_from(vb_load(p + g * 4 * VL));
            UNROLL for (int t = 0; t < nt; t++)
                dot[t] = d8_dot(dot[t], u, a.q + 32 * t + 4 * g);
        }
        UNROLL for (int t = 0; t < nt; t++) {
            acc[t] = add_dot(acc[t], w, vi_from_d8(dot[t]), &a, t);
            if (addend == SCALED_MIN)
                acc[t] = vf_fma(vf_load((const float *)(p + 36 * VL)), vf_set1(a.s[t]), acc[t]);
        }
    }
    acc_store(nt, y, acc);
}

/* One panel after the other: `each` expands them. */
#define EXPANDED(f, bytes, tile, each)                                                     \
    static size_t f##_expanded_bytes(int k) { return (size_t)(k / 32) * (bytes); }        \
    static void f##_expand(void *expanded, const void *panel, int k) { each; }            \
    static const struct pl_expanded f##_expanded = {f##_expanded_bytes, f##_expand, tile##s};
#define EXPANDED_OF(f) &f##_expanded

INLINE void SCALED_tile(const int nt, float *y, const void *panel, const void *x, int k) { expanded_tile(SCALED, nt, y, panel, x, k); }
INLINE void SCALED_MIN_tile(const int nt, float *y, const void *panel, const void *x, int k) { expanded_tile(SCALED_MIN, nt, y, panel, x, k); }
TILES(SCALED_tile)
TILES(SCALED_MIN_tile)
