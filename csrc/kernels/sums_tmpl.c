/* The sums of a tile of tokens under way. A format's body hands its weights to steps (blocks_tmpl.c), 32 k
 * at a time. Up to VECTOR_MAX tokens are summed at once, in registers. Where the level has matrix tiles
 * and there are more tokens, a step only notes its weights as int8: DEFERRED of them go through the tiles
 * together, far behind the stores that wrote them, which a tile's loads would wait for; and vectors multiply
 * after that, for they have one port instead of two beside tiles (Sapphire Rapids). The integers and the order
 * of roundings are the same, and so are the bits. */

enum { VECTOR_MAX = 12 };

/* The activations of 32 k (kernels.h, PL_ACT_I8) */
struct acts {
    const int8_t *q;         /* [nt][32] */
    const float *d, *c, *s;  /* [nt] */
    const int32_t *z;        /* [nt] */
    const int32_t *z16;      /* [2][nt] */
};

INLINE struct acts acts_of(const int nt, const char *x)
{
    const float *const d = (const float *)(x + 32 * nt);
    const int32_t *const z = (const int32_t *)(d + 3 * nt);
    return (struct acts){(const int8_t *)x, d, d + nt, d + 2 * nt, z, z + nt};
}

/* y + w d dot for token t; d dot is rounded */
INLINE vf add_dot(vf y, vf w, vi dot, const struct acts *a, int t)
{
    return vf_fma(vf_dot_times(dot, a->d + t, a->c + t), w, y);
}

#if !defined(HAVE_TILES)

enum { WIDE_MAX = VECTOR_MAX };

/* expanded: where the weights of a panel go, for a tile of no tokens */
struct sums { vf y[PL_TILE_MAX]; char *expanded; };

INLINE void sums_begin(const int nt, float *y, struct sums *s)
{
    acc_zero(nt, s->y);
    s->expanded = (char *)y;
}

INLINE void sums_end(const int nt, float *y, struct sums *s) { acc_store(nt, y, s->y); }

#if defined(EXPANDS)
#include "expanded_tmpl.c"
#else
#define DEFER(nt, sums, put, ...)
#endif

#else

enum { WIDE_MAX = 32, DEFERRED = 8, GROUP = 16 };
#define DEFERS(nt) ((nt) > VECTOR_MAX)

/* what is added for a token: w d dot; w d dot + m s */
enum addend { SCALED, SCALED_MIN };

/* Tokens go in one or two groups of `rows`; two overlap by a token if it must be, which each then sums. */
struct sums {
    vf y[2 * GROUP];
    vf w[DEFERRED], m[DEFERRED];
    _Alignas(64) int8_t q[DEFERRED][32 * VL];  /* [8][VL][4] */
    _Alignas(64) int32_t dot[DEFERRED][GROUP * VL];
    const char *x[DEFERRED];                   /* their activations */
    int n;
    void (*flush)(struct sums *s, int nt);
};

INLINE int n_groups(int nt) { return (nt + GROUP - 1) / GROUP; }
INLINE int group_rows(int nt) { return (nt + n_groups(nt) - 1) / n_groups(nt); }

/* tile 0: dot products; 1: activations; 2: weights */
static void configure(int rows)
{
    const uint8_t n = (uint8_t)rows;
    const struct tile_config c = {.palette = 1, .row_bytes = {64, 32, 64}, .rows = {n, n, 8}};
    tiles_begin(&c);
}

INLINE void sums_begin(const int nt, float *y, struct sums *s)
{
    (void)y;
    acc_zero(DEFERS(nt) ? 2 * GROUP : nt, s->y);
    s->n = 0;
    if (DEFERS(nt))
        configure(group_rows(nt));
}

INLINE void sums_end(const int nt, float *y, struct sums *s)
{
    if (!DEFERS(nt)) {
        acc_store(nt, y, s->y);
        return;
    }
    if (s->n)
        s->flush(s, nt);
    tiles_end();
    const int rows = group_rows(nt);
    for (int t = 0; t < nt; t++)
        vf_store(y + t * VL, s->y[t < rows ? t : GROUP + t - (nt - rows)]);
}

INLINE void add_dots(const enum addend addend, const int rows, vf *acc, const struct sums *s, int i, int nt, int first)
{
    const float *d = (const float *)(s->x[i] + 32 * nt) + first;
    const int32_t *const dot = s->dot[i];
    __asm__("" : "+r"(d));  /* else gcc keeps the addresses of all tokens, and spills them */
    UNROLL for (int t = 0; t < rows; t++) {
        const vf q = vf_from_i(vb_load(dot + t * VL));
        acc[t] = vf_fma(vf_mul(q, vf_set1(d[t])), s->w[i], acc[t]);
        if (addend == SCALED_MIN)
            acc[t] = vf_fma(s->m[i], vf_set1(d[2 * nt + t]), acc[t]);
    }
}

INLINE void flush(const enum addend addend, const int rows, struct sums *s, int nt)
{
    for (int g = 0; g < n_groups(nt); g++) {
        const int first = g ? nt - rows : 0;
        vf acc[GROUP];
        UNROLL for (int t = 0; t < rows; t++)
            acc[t] = s->y[g * GROUP + t];
        for (int i = 0; i < s->n; i++) {
            tile_zero(0);
            tile_load(1, s->x[i] + 32 * first, 32);
            tile_load(2, s->q[i], 64);
            tile_dot_i8(0, 1, 2);
            tile_store(0, s->dot[i], 64);
        }
        for (int i = 0; i < s->n; i++)
            add_dots(addend, rows, acc, s, i, nt, first);
        UNROLL for (int t = 0; t < rows; t++)
            s->y[g * GROUP + t] = acc[t];
    }
    s->n = 0;
}

/* one instance per addend and rows; two groups have 9 rows or more, one has more than VECTOR_MAX */
#define FLUSH(addend, n) static __attribute__((noinline)) void addend##_##n(struct sums *s, int nt) { flush(addend, n, s, nt); }
#define FLUSHES(addend)                                                                                             \
    FLUSH(addend, 9) FLUSH(addend, 10) FLUSH(addend, 11) FLUSH(addend, 12)                                          \
    FLUSH(addend, 13) FLUSH(addend, 14) FLUSH(addend, 15) FLUSH(addend, 16)
#define FLUSH_TABLE(addend)                                                                                         \
    {[9] = addend##_9, addend##_10, addend##_11, addend##_12, addend##_13, addend##_14, addend##_15, addend##_16}
FLUSHES(SCALED)
FLUSHES(SCALED_MIN)
static void (*const flushes[][GROUP + 1])(struct sums *s, int nt) = {
    [SCALED] = FLUSH_TABLE(SCALED), [SCALED_MIN] = FLUSH_TABLE(SCALED_MIN)};

/* w, m, x: what the weights just put are multiplied by */
INLINE void defer(const enum addend addend, int nt, struct sums *s, vf w, vf m, const char *x)
{
    const int i = s->n++;
    s->w[i] = w;
    s->m[i] = m;
    s->x[i] = x;
    s->flush = flushes[addend][group_rows(nt)];
    if (s->n == DEFERRED)
        s->flush(s, nt);
}

/* In a step: `put` writes the weights to q, that is all. */
#define DEFER(nt, sums, put, ...)                     \
    do {                                              \
        if (DEFERS(nt)) {                             \
            int8_t *const q = (sums)->q[(sums)->n];   \
            put;                                      \
            defer_args(nt, sums, __VA_ARGS__);        \
            return;                                   \
        }                                             \
    } while (0)
#define defer_args(nt, sums, addend, ...) defer(addend, nt, sums, __VA_ARGS__)

#endif

#if !defined(EXPANDS)
#define EXPANDED(f, ...)
#define EXPANDED_OF(f) NULL
#endif

/* The tiles of a body of such steps: an instance per width up to VECTOR_MAX, one for all above it. */
#if defined(HAVE_TILES)
#define WIDE_TILES(body)                                                                                            \
    static __attribute__((noinline)) void body##_wide(int nt, float *y, const void *panels, size_t panel_bytes,      \
                                                      int n_panels, const void *x, int k)                           \
    {                                                                                                               \
        if (!DEFERS(nt))                                                                                            \
            __builtin_unreachable();                                                                                \
        for (int p = 0; p < n_panels; p++)                                                                          \
            body(nt, y + p * nt * VL, (const char *)panels + (size_t)p * panel_bytes, x, k);                        \
    }                                                                                                               \
    NARROW(body) ALL_TILES(body, body##_wide)
#define WIDE(body, of, n)                                                                                           \
    static void body##_##n(float *y, const void *panels, size_t panel_bytes, int n_panels, const void *x, int k)    \
    {                                                                                                               \
        of(n, y, panels, panel_bytes, n_panels, x, k);                                                              \
    }
/* `of` does the widths above VECTOR_MAX */
#define ALL_TILES(body, of)                                                                                         \
    WIDE(body, of, 13) WIDE(body, of, 14) WIDE(body, of, 15) WIDE(body, of, 16) WIDE(body, of, 17)                  \
    WIDE(body, of, 18) WIDE(body, of, 19) WIDE(body, of, 20) WIDE(body, of, 21) WIDE(body, of, 22)                  \
    WIDE(body, of, 23) WIDE(body, of, 24) WIDE(body, of, 25) WIDE(body, of, 26) WIDE(body, of, 27)                  \
    WIDE(body, of, 28) WIDE(body, of, 29) WIDE(body, of, 30) WIDE(body, of, 31) WIDE(body, of, 32)                  \
    static pl_tile_fn *const body##s[PL_TILE_MAX + 1] = {                                                           \
        NULL, WIDTHS(body), body##_13, body##_14, body##_15, body##_16, body##_17, body##_18, body##_19, body##_20, \
        body##_21, body##_22, body##_23, body##_24, body##_25, body##_26, body##_27, body##_28, body##_29,          \
        body##_30, body##_31, body##_32};
#else
#define WIDE_TILES(body) TILES(body)
#endif
