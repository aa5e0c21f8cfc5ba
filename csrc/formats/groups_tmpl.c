/* Blocks with a scale per group of 16 k: Q6_K, Q3_K, Q2_K. */

#if defined(HAVE_SCALED_DOTS)

#include "groups_scaled_tmpl.c"

#else

/* Vectors alone sum them, beside tiles too: sums would leave those every 16 k, and that takes longer. Up to VECTOR_MAX
 * tokens are summed straight from the bits; for more, a block is unpacked once and its weights are read by one part of
 * the tokens after the other. */

/* two groups of VL rows: weights as bytes, what they are multiplied by, what is taken off */
struct groups {
    vb u[2][4];
    vf w[2], m[2];
};

INLINE void set_scales(struct groups *g, vf d, vi first, vi second)
{
    g->w[0] = vf_mul(d, vf_from_i(first));
    g->w[1] = vf_mul(d, vf_from_i(second));
}

/* for z16, which is -32 times the sum of 16 activations */
INLINE void set_minima(struct groups *g, vf dmin, vi first, vi second)
{
    const vf dmin32 = vf_mul(dmin, vf_set1(1.0f / 32));
    g->m[0] = vf_mul(dmin32, vf_from_i(first));
    g->m[1] = vf_mul(dmin32, vf_from_i(second));
}

/* the activations of 16 k: half h of x, of the tokens from `first` on of a tile of `all` */
INLINE struct acts half_acts(int all, int first, const char *x, int h)
{
    struct acts a = acts_of(all, x);
    a = (struct acts){a.q + 32 * first + 16 * h, a.d + first, a.c + first, NULL, NULL, a.z16 + h * all + first};
    __asm__("" : "+r"(a.q), "+r"(a.d), "+r"(a.c), "+r"(a.z16));  /* else gcc keeps the addresses of all tokens, and spills them */
    return a;
}

/* sums += (w0 q0 + w1 q1) . x, q being bytes less 32. Both halves take d and c by a0, which loads them once. */
INLINE void add_offset(const int nt, vf *sums, const struct groups *g, int all, int first, const char *x)
{
    const struct acts a0 = half_acts(all, first, x, 0), a1 = half_acts(all, first, x, 1);
    UNROLL for (int t = 0; t < nt; t++) {
        const vi dot0 = vi_dot6(vi_set1(a0.z16[t]), g->u[0][0], g->u[0][1], a0.q + 32 * t);
        const vi dot1 = vi_dot6(vi_set1(a1.z16[t]), g->u[1][0], g->u[1][1], a1.q + 32 * t);
        sums[t] = add_dot(sums[t], g->w[0], vi_dot6(dot0, g->u[0][2], g->u[0][3], a0.q + 32 * t + 8), &a0, t);
        sums[t] = add_dot(sums[t], g->w[1], vi_dot6(dot1, g->u[1][2], g->u[1][3], a1.q + 32 * t + 8), &a0, t);
    }
}

/* sums += (w q - 32 m) . x for each group */
INLINE void add_minimum(const int nt, vf *sums, const struct groups *g, int all, int first, const char *x)
{
    for (int h = 0; h < 2; h++) {
        const struct acts a = half_acts(all, first, x, h);
        d4 dot[PL_TILE_MAX];
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_start();
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int t = 0; t < nt; t++)
                dot[t] = d4_dot(dot[t], g->u[h][i], a.q + 32 * t + 4 * i);
        UNROLL for (int t = 0; t < nt; t++) {
            sums[t] = add_dot(sums[t], g->w[h], vi_from_d4(dot[t]), &a, t);
            sums[t] = add_dot(sums[t], g->m[h], vi_set1(a.z16[t]), &a, t);
        }
    }
}

/* f_tile, given f_groups, which unpacks 32 k, number j of a block, and `add`, which multiplies them */
#define GROUP_TILE(f, add)                                                                                          \
    INLINE void f##_tile(const int nt, float *y, const void *panel, const void *x, int k)                           \
    {                                                                                                               \
        const char *a = x;                                                                                          \
        vf sums[PL_TILE_MAX];                                                                                       \
        acc_zero(nt, sums);                                                                                         \
        for (int b = 0; b < k / 256; b++) {                                                                         \
            const struct block block = block_at(&f##_blocks, panel, b, k / 256);                                    \
            for (int j = 0; j < 8; j++, a += nt * PL_I8_BLOCK_BYTES) {                                              \
                struct groups g;                                                                                    \
                f##_groups(&g, block, j);                                                                           \
                add(nt, sums, &g, nt, 0, a);                                                                        \
            }                                                                                                       \
        }                                                                                                           \
        acc_store(nt, y, sums);                                                                                     \
    }

#if defined(EXPANDS)
/* Expanded panels are struct groups, of which `add` wants the first add_bytes. */
enum { add_offset_bytes = offsetof(struct groups, m), add_minimum_bytes = sizeof(struct groups) };

#define EXPANDED_TILE(add)                                                                                          \
    INLINE void add##_tile(const int nt, float *y, const void *panel, const void *x, int k)                         \
    {                                                                                                               \
        const char *p = panel, *a = x;                                                                              \
        vf sums[PL_TILE_MAX];                                                                                       \
        acc_zero(nt, sums);                                                                                         \
        for (int b = 0; b < k / 32; b++, p += add##_bytes, a += nt * PL_I8_BLOCK_BYTES)                             \
            add(nt, sums, (const struct groups *)(const void *)p, nt, 0, a);                                        \
        acc_store(nt, y, sums);                                                                                     \
    }                                                                                                               \
    TILES(add##_tile)
EXPANDED_TILE(add_offset)
EXPANDED_TILE(add_minimum)

#define GROUP_TILES(f, add)                                                                                         \
    GROUP_TILE(f, add) TILES(f##_tile)                                                                              \
    static void f##_expand_all(char *to, const void *panel, int k)                                                  \
    {                                                                                                               \
        for (int b = 0; b < k / 256; b++) {                                                                         \
            const struct block block = block_at(&f##_blocks, panel, b, k / 256);                                    \
            for (int j = 0; j < 8; j++, to += add##_bytes) {                                                        \
                struct groups g;                                                                                    \
                f##_groups(&g, block, j);                                                                           \
                __builtin_memcpy(to, &g, add##_bytes);                                                              \
            }                                                                                                       \
        }                                                                                                           \
    }                                                                                                               \
    EXPANDED(f, add##_bytes, add##_tile, f##_expand_all(expanded, panel, k))
#elif defined(HAVE_TILES)
/* y [n][VL] += a block's 256 k, unpacked as g [8] */
#define GROUP_PART(f, add, n)                                                                                       \
    static __attribute__((noinline)) void f##_part_##n(float *y, const struct groups *g, int all, int first,        \
                                                       const char *x)                                               \
    {                                                                                                               \
        vf sums[n];                                                                                                 \
        UNROLL for (int t = 0; t < n; t++)                                                                          \
            sums[t] = vf_load(y + t * VL);                                                                          \
        for (int j = 0; j < 8; j++)                                                                                 \
            add(n, sums, g + j, all, first, x + j * all * PL_I8_BLOCK_BYTES);                                       \
        acc_store(n, y, sums);                                                                                      \
    }
/* parts of more than VECTOR_MAX tokens have 6 at least */
#define GROUP_TILES(f, add)                                                                                         \
    GROUP_TILE(f, add) NARROW(f##_tile)                                                                             \
    GROUP_PART(f, add, 6) GROUP_PART(f, add, 7) GROUP_PART(f, add, 8) GROUP_PART(f, add, 9)                         \
    GROUP_PART(f, add, 10) GROUP_PART(f, add, 11) GROUP_PART(f, add, 12)                                            \
    static void f##_block(int nt, float *y, struct block block, const char *x)                                      \
    {                                                                                                               \
        static void (*const parts[])(float *, const struct groups *, int, int, const char *) = {                    \
            [6] = f##_part_6, f##_part_7, f##_part_8, f##_part_9, f##_part_10, f##_part_11, f##_part_12};           \
        const int n_parts = (nt + VECTOR_MAX - 1) / VECTOR_MAX;                                                     \
        struct groups g[8];                                                                                         \
        for (int j = 0; j < 8; j++)                                                                                 \
            f##_groups(g + j, block, j);                                                                            \
        for (int i = 0; i < n_parts; i++) {                                                                         \
            const int first = nt * i / n_parts;                                                                     \
            parts[nt * (i + 1) / n_parts - first](y + first * VL, g, nt, first, x);                                 \
        }                                                                                                           \
    }                                                                                                               \
    static void f##_wide(int nt, float *y, const void *panels, size_t panel_bytes, int n_panels, const void *x, int k) \
    {                                                                                                               \
        for (int p = 0; p < n_panels; p++, y += nt * VL, panels = (const char *)panels + panel_bytes) {             \
            __builtin_memset(y, 0, sizeof *y * (size_t)(nt * VL));                                                  \
            for (int b = 0; b < k / 256; b++) {                                                                     \
                const struct block block = block_at(&f##_blocks, panels, b, k / 256);                               \
                f##_block(nt, y, block, (const char *)x + (size_t)b * 8 * (size_t)nt * PL_I8_BLOCK_BYTES);          \
            }                                                                                                       \
        }                                                                                                           \
    }                                                                                                               \
    ALL_TILES(f##_tile, f##_wide)
#else
#define GROUP_TILES(f, add) GROUP_TILE(f, add) TILES(f##_tile)
#endif

#endif

/* The format f, `title` in GGUF, given f_blocks, f_groups and `add`. */
#define GROUP_FORMAT(f, title, add) GROUP_TILES(f, add) FORMAT_OF_TILES(f, title, NULL)
