/* Compiled once per ISA level, by isa_<level>.c: every body, then the one exported table. */
#include "kernels.h"

/* tile bodies are inlined and unrolled, for their accumulators to be registers; plain C has no
 * vector registers to gain, sanitized code no time, and both compile in a tenth of the time without */
#if defined(PL_SIMD) && !defined(__SANITIZE_ADDRESS__)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#else
#define INLINE static
#define UNROLL
#endif

/* A tile asks for weights this many bytes ahead of its loads: the hardware stops at every 4 KiB page and
 * does not run far enough ahead. They come to L2, which has room for more lines under way than L1. */
#if !defined(AHEAD_L2)
#define AHEAD_L2 6144
#define AHEAD_NEAR 3072  /* of a tile so light that the core runs ahead by itself */
#else
#define AHEAD_NEAR AHEAD_L2
#endif
static inline void fetch(const void *p, size_t ahead)
{
    prefetch_l2((const char *)p + ahead);
#if defined(AHEAD_L1)
    prefetch_l1((const char *)p + AHEAD_L1);
#endif
}
static inline void fetch_ahead(const void *p) { fetch(p, AHEAD_L2); }

/* One instance of a tile body per width, and the table that the framework indexes by it. */
#define TILE(body, n)                                                                                                        \
    static void body##_##n(float *y, const void *panels, size_t panel_bytes, int n_panels, const void *x, int k)             \
    {                                                                                                                        \
        for (int p = 0; p < n_panels; p++)                                                                                   \
            body(n, y + p * n * VL, (const char *)panels + (size_t)p * panel_bytes, x, k);                                   \
    }
#define EACH_WIDTH(tile, of)                                                                    \
    tile(of, 1) tile(of, 2) tile(of, 3) tile(of, 4) tile(of, 5) tile(of, 6)                     \
    tile(of, 7) tile(of, 8) tile(of, 9) tile(of, 10) tile(of, 11) tile(of, 12)
#define NARROW(body) EACH_WIDTH(TILE, body)
#define WIDTHS(body)                                                                            \
    body##_1, body##_2, body##_3, body##_4, body##_5, body##_6, body##_7, body##_8, body##_9,   \
        body##_10, body##_11, body##_12
#define TILE_TABLE(body) static pl_tile_fn *const body##s[PL_TILE_MAX + 1] = {NULL, WIDTHS(body)};
#define TILES(body) NARROW(body) TILE_TABLE(body)

INLINE void acc_zero(const int nt, vf *acc)
{
    UNROLL for (int t = 0; t < nt; t++)
        acc[t] = vf_zero();
}

/* y [nt][VL] */
INLINE void acc_store(const int nt, float *y, const vf *acc)
{
    UNROLL for (int t = 0; t < nt; t++)
        vf_store(y + t * VL, acc[t]);
}

static inline float bf16_to_f32(uint16_t h)
{
    const uint32_t u = (uint32_t)h << 16;
    float f;
    __builtin_memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t load_u16(const void *p)
{
    uint16_t h;
    __builtin_memcpy(&h, p, 2);
    return h;
}

#include "kernels/elementwise_tmpl.c"
#include "kernels/activation_tmpl.c"
#include "kernels/sums_tmpl.c"
#include "formats/floats_tmpl.c"
#include "formats/f32_tmpl.c"
#include "formats/bf16_tmpl.c"
#include "formats/f16_tmpl.c"
#include "formats/blocks_tmpl.c"
#include "formats/groups_tmpl.c"
#include "formats/q8_0_tmpl.c"
#include "formats/q4_0_tmpl.c"
#include "formats/q4_1_tmpl.c"
#include "formats/q5_0_tmpl.c"
#include "formats/q5_1_tmpl.c"
#include "formats/q2_k_tmpl.c"
#include "formats/q3_k_tmpl.c"
#include "formats/q4_k_tmpl.c"
#include "formats/q5_k_tmpl.c"
#include "formats/q6_k_tmpl.c"
#include "formats/iq4_nl_tmpl.c"
#include "formats/iq4_xs_tmpl.c"
#include "kernels/kv_tmpl.c"
#include "kernels/attention_tmpl.c"
#include "kernels/roofline_tmpl.c"

static const struct pl_format *const formats[] = {
    &f32,  &bf16, &f16,  &q8_0, &q4_0, &q4_1,   &q5_0,   &q5_1,
    &q2_k, &q3_k, &q4_k, &q5_k, &q6_k, &iq4_nl, &iq4_xs, NULL,
};

const struct pl_kernels TABLE = {
    .name = ISA_NAME,
    .vl = VL,
    .tile_max = {[PL_ACT_F32] = VECTOR_MAX, [PL_ACT_BF16] = WIDE_MAX, [PL_ACT_I8] = WIDE_MAX},
    .formats = formats,
    .rmsnorm = rmsnorm,
    .act = {[PL_ACT_F32] = act_f32, [PL_ACT_BF16] = act_bf16, [PL_ACT_I8] = act_i8},
    .rope = rope,
    .add = add,
    .put = put,
    .swiglu = swiglu,
    .kv_store = {[PL_KV_F16] = kv_store_f16, [PL_KV_F32] = kv_store_f32, [PL_KV_BF16] = kv_store_bf16, [PL_KV_Q8_0] = kv_store_q8_0},
    .attend = {[PL_KV_F16] = attend_f16s, [PL_KV_F32] = attend_f32s, [PL_KV_BF16] = attend_bf16s, [PL_KV_Q8_0] = attend_q8_0s},
    .attend_merge = attend_merge,
    .scale = scale,
    .argmax = argmax,
    .group_max = group_max,
    .select = select_least,
    .exp_sum = exp_sum,
    .exp = exp_n,
    .peak = {[PL_ACT_F32] = peak_f32, [PL_ACT_BF16] = peak_bf16, [PL_ACT_I8] = peak_i8},
    .read = read_through,
};
