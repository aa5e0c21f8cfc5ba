/* The kernel contract: what every ISA level fulfils.
 *
 * Kernels are pure and single-threaded; they read and write only inside the extents given here
 * and handle their own tails. Threads, blocks and scheduling belong to the framework above.
 *
 * Lanes. `vl` is the number of f32 lanes of the level. A weight matrix W [n_rows][k] is packed
 * into panels of vl consecutive rows, k-major: one vector holds the same k (or the same few
 * consecutive k) of vl rows, so a dot product needs no horizontal sum. Rows past n_rows are zero.
 *
 * Same bits. An output depends only on its own row of activations: one accumulator per output,
 * k ascending, the same flush order for every tile width.
 */
#ifndef PYLLAMA_KERNELS_H
#define PYLLAMA_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    PL_TILE_MAX  = 32,  /* tokens per activation tile, at most (pl_kernels.tile_max) */
    PL_QUERY_MAX = 12,  /* queries per attention tile, at most */
    PL_KV_BLOCK  = 32,  /* tokens per KV block */
    PL_LANES_MAX = 16,  /* vl, at most */
    PL_GROUP     = 64,  /* values whose maximum group_max takes */
};

/* What a kernel wants its activations to be. A tile holds the same k range of nt tokens:
 *   PL_ACT_F32   float    [k][nt]
 *   PL_ACT_BF16  per 32 k: bf16 [nt][32], zero past k
 *   PL_ACT_I8    per 32 k: int8 q[nt][32]; float d[nt]; float c[nt]; float s[nt]; int32 z[nt]; int32 z16[2][nt]
 *                x ~ d*q, d of 22 bits, c = -1.5*2^23*d, s = d*sum(q), z = -128*sum(q), z16 = -32*sum(q of each 16),
 *                the last two plus what the level's dot products start from (simd/scalar.h, DOT_START); at avx2,
 *                which multiplies in 16 bits, z is two of them: -8*sum(q of each 16), the first in the low half */
enum pl_act { PL_ACT_F32, PL_ACT_BF16, PL_ACT_I8, PL_N_ACTS };

enum { PL_I8_BLOCK = 32, PL_I8_BLOCK_BYTES = 56 };  /* k per block; bytes per block and token */
enum { PL_BF16_BLOCK = 32 };

/* Y [n_panels][nt][vl] = X [nt][k] . W^T for adjacent panels, panel_bytes each; x is a whole tile of nt tokens. */
typedef void pl_tile_fn(float *y, const void *panels, size_t panel_bytes, int n_panels, const void *x, int k);

/* A format's panels expanded, for matrices that many tiles of tokens multiply. */
struct pl_expanded {
    size_t (*panel_bytes)(int k);  /* a multiple of 64, as expanded panels are aligned */
    void (*expand)(void *expanded, const void *panel, int k);
    pl_tile_fn *const *tile;  /* [nt], of expanded panels; the bits of the format's own tiles */
};

struct pl_format {
    const char *name;      /* as in GGUF: "Q4_K" */
    int block;             /* k per block of the file; k is a multiple of it */
    int block_bytes;       /* bytes per block of the file */
    enum pl_act act;       /* what the activations become */

    size_t (*panel_bytes)(int k);
    /* rows: n_rows <= vl pointers to rows of the file, of k weights each. Lossless. */
    void (*pack)(void *panel, const uint8_t *const *rows, int n_rows, int k);
    /* y [k] = one row of a packed panel */
    void (*unpack)(float *y, const void *panel, int lane, int k);
    /* y [k] = one row of the file. This is the definition of the format. */
    void (*dequantize)(float *y, const uint8_t *row, int k);
    pl_tile_fn *const *tile;  /* [nt], 1 <= nt <= tile_max[act] */
    const struct pl_expanded *expanded;  /* NULL: is no faster */
    /* one row of the file <- x [k], rounded as GGUF's reference does; NULL: cannot. row may be x. */
    void (*quantize)(uint8_t *row, const float *x, int k);
};

/* One head's K and V of PL_KV_BLOCK tokens. K [head_dim][PL_KV_BLOCK], V [PL_KV_BLOCK][v_dim],
 * v_dim = head_dim rounded up to 16; lanes that were never written are zero. Q8_0: int8 q, and after all
 * of them an f16 scale d per token and 32 dimensions, x ~ d q:
 * K [ceil(head_dim/32)][PL_KV_BLOCK], V [PL_KV_BLOCK][ceil(v_dim/32)] */
enum pl_kv_dtype { PL_KV_F16, PL_KV_F32, PL_KV_BF16, PL_KV_Q8_0, PL_N_KV };

/* Online softmax of nq queries over the first n_keys keys of one block (Milakov & Gimelshein
 * 2018; Dao et al. 2022): m' = max(m, max s), o' = o e^(m-m') + sum e^(s-m') v, l' likewise.
 *   o [nq][v_dim], m [nq], l [nq]   running state, start 0, -1e30, 0
 *   q [head_dim][nq]                queries, already times the softmax scale
 *   visible [nq]                    the keys that a query may see, key j as bit j; none past n_keys
 *   ahead                           bytes from this block to the one that is wanted next, 0 if none is */
typedef void pl_attend_fn(float *o, float *m, float *l, const float *q, const void *k, const void *v,
                          int head_dim, int n_keys, const uint32_t *visible, ptrdiff_t ahead);

struct pl_kernels {
    const char *name;
    int vl;
    int tile_max[PL_N_ACTS];  /* tokens per tile of such activations, at most */
    const struct pl_format *const *formats;  /* ends with NULL */

    /* y_i = x_i / sqrt(mean(x^2) + eps) * w_i */
    void (*rmsnorm)(float *y, const float *x, const float *w, int n, float eps);
    /* token t of a tile of nt <- x [k]; PL_ACT_I8: k is a multiple of PL_I8_BLOCK */
    void (*act[PL_N_ACTS])(void *tile, int t, int nt, const float *x, int k);
    /* (x_i, x_(i+n/2)) rotated by angle i: cs [2][n/2] = cos, sin (Su et al. 2021, half split) */
    void (*rope)(float *x, const float *cs, int n);
    void (*add)(float *y, const float *a, const float *b, int n);          /* y = a + b; y may be a */
    /* out [nt][n], rows `stride` apart, = what a tile of matrix rows gave, y [..][nt][vl]; or out += it */
    void (*put)(float *out, int64_t stride, const float *y, int n, int nt, int adds);
    /* y = silu(gate) up; y may be gate */
    void (*swiglu)(float *y, const float *gate, const float *up, int n);

    void (*kv_store[PL_N_KV])(void *k, void *v, int slot, const float *key, const float *value,
                              int head_dim);
    pl_attend_fn *const *attend[PL_N_KV];  /* [nq], 1 <= nq <= PL_QUERY_MAX */
    /* (m, l, o) <- (m, l, o) merged with (m2, l2, o2); o [n] */
    void (*attend_merge)(float *m, float *l, float *o, float m2, float l2, const float *o2, int n);
    void (*scale)(float *y, const float *x, float a, int n);               /* y = a x */

    int (*argmax)(const float *x, int n);         /* the lowest index of the maximum; no NaN wins */
    /* y <- maxima of groups that x falls into, PL_GROUP or fewer in each, -infinity for an empty one;
     * returns how many, at most n / PL_GROUP + PL_LANES_MAX. No NaN is a maximum. */
    int (*group_max)(float *y, const float *x, int n);
    /* index, y <- those of x that are `least` or more, ascending by index; returns how many */
    int (*select)(int32_t *index, float *y, const float *x, int n, float least);
    float (*exp_sum)(float *y, const float *x, float max, float beta, int n);
                                                  /* y = e^(beta (x - max)); returns sum y */
    /* The vocabulary itself, for the checks: y = e^x, x clamped to [-87, 88] */
    void (*exp)(float *y, const float *x, int n);

    /* The limits of the level. n iterations of the dot products that such activations take, nothing
     * else: returns the multiply-adds. sum: in 0, out something that depends on all of them. */
    double (*peak[PL_N_ACTS])(float *sum, int n);
    void (*read)(float *sum, const void *p, size_t n);  /* loads n bytes, a multiple of 256, in order */
};

extern const struct pl_kernels pl_kernels_scalar;
#if defined(__x86_64__)
extern const struct pl_kernels pl_kernels_avx2;
extern const struct pl_kernels pl_kernels_avx2_vnni;
extern const struct pl_kernels pl_kernels_avx2_vnni_evex;
extern const struct pl_kernels pl_kernels_avx512;
extern const struct pl_kernels pl_kernels_avx512_bf16;
extern const struct pl_kernels pl_kernels_avx512_amx;
#endif

/* Level i of this build in ascending order, NULL past the last. *runs: does this CPU run it? */
const struct pl_kernels *pl_kernels_at(int i, int *runs);
/* The best level that this CPU runs, or the one named; NULL if unknown or not runnable here. */
const struct pl_kernels *pl_kernels_find(const char *name);
/* Bytes of the cache of level 2, a core's own, or 3, that cores share; 1 or 32 MiB if the system does not tell. */
int64_t pl_cache_bytes(int level);
/* Bytes per token of an activation row of k. */
size_t pl_act_bytes(enum pl_act act, int k);
/* Bytes of PL_KV_BLOCK keys of head_dim values, or values of v_dim. */
size_t pl_kv_bytes(enum pl_kv_dtype dtype, int dim);

static inline int pl_v_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }

#endif
