/* The vocabulary in plain C: 8 lanes, any CPU. Every other level gives the same meaning to the
 * same names; tests/checkasm.c holds them to it through the kernels. */
#include <math.h>
#include <string.h>

#define VL 8
enum { REGISTERS = 16 };
enum { QUERIES_ABREAST = 12, VECTORS_ABREAST = 1 };

typedef struct { float v[VL]; } vf;
typedef struct { int32_t v[VL]; } vi;
typedef struct { uint8_t v[4 * VL]; } vb;
typedef struct { uint32_t bits; } vm;

#define EACH for (int i = 0; i < VL; i++)

/* f32 */
static inline vf vf_set1(float a) { vf r; EACH r.v[i] = a; return r; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }
static inline vf vf_load(const float *p) { vf r; memcpy(&r, p, sizeof r); return r; }
static inline void vf_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
static inline vf vf_load_n(const float *p, int n) { vf r = vf_zero(); memcpy(&r, p, 4 * (size_t)n); return r; }
static inline void vf_store_n(float *p, vf a, int n) { memcpy(p, &a, 4 * (size_t)n); }
static inline vf vf_add(vf a, vf b) { EACH a.v[i] += b.v[i]; return a; }
static inline vf vf_sub(vf a, vf b) { EACH a.v[i] -= b.v[i]; return a; }
static inline vf vf_mul(vf a, vf b) { EACH a.v[i] *= b.v[i]; return a; }
static inline vf vf_div(vf a, vf b) { EACH a.v[i] /= b.v[i]; return a; }
/* a b + c, rounded as the level does: fused where there is an instruction for it */
static inline vf vf_fma(vf a, vf b, vf c) { EACH c.v[i] = a.v[i] * b.v[i] + c.v[i]; return c; }
static inline void vf_add_product(vf *acc, vf a, vf b) { *acc = vf_fma(a, b, *acc); }
/* the second where either is NaN */
static inline vf vf_max(vf a, vf b) { EACH b.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return b; }
static inline vf vf_min(vf a, vf b) { EACH b.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return b; }
static inline float vf_sum(vf a) { float s[4]; for (int i = 0; i < 4; i++) s[i] = a.v[i] + a.v[i + 4]; return (s[0] + s[2]) + (s[1] + s[3]); }
static inline float vf_hmax(vf a) { float m = a.v[0]; EACH m = a.v[i] > m ? a.v[i] : m; return m; }
static inline vf vf_keep(vm m, vf a) { EACH a.v[i] = m.bits >> i & 1 ? a.v[i] : 0.0f; return a; }
static inline vf vf_select(vm m, vf a, vf b) { EACH a.v[i] = m.bits >> i & 1 ? a.v[i] : b.v[i]; return a; }
/* lanes below n; lanes equal; lanes at least as large */
static inline vm vm_first(int n) { return (vm){n >= 32 ? ~0u : (1u << n) - 1}; }
static inline vm vm_eq(vf a, vf b) { vm m = {0}; EACH m.bits |= (uint32_t)(a.v[i] == b.v[i]) << i; return m; }
static inline vm vm_ge(vf a, vf b) { vm m = {0}; EACH m.bits |= (uint32_t)(a.v[i] >= b.v[i]) << i; return m; }
static inline vm vm_from_bits(uint32_t bits) { return (vm){bits}; }
static inline uint32_t vm_bits(vm m) { return m.bits; }

/* i32 */
static inline vi vi_set1(int32_t a) { vi r; EACH r.v[i] = a; return r; }
static inline vi vi_from_u8(const uint8_t *p) { vi r; EACH r.v[i] = p[i]; return r; }
static inline vi vi_from_i8(const uint8_t *p) { vi r; EACH r.v[i] = (int8_t)p[i]; return r; }
static inline vi vi_and(vi a, vi b) { EACH a.v[i] &= b.v[i]; return a; }
static inline vi vi_or(vi a, vi b) { EACH a.v[i] |= b.v[i]; return a; }
static inline vi vi_add(vi a, vi b) { EACH a.v[i] = (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]); return a; }
#define vi_srl(a, n) vi_srl_(a, n)
static inline vi vi_srl_(vi a, int n) { EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> n); return a; }
#define vi_sll(a, n) vi_sll_(a, n)
static inline vi vi_sll_(vi a, int n) { EACH a.v[i] = (int32_t)((uint32_t)a.v[i] << n); return a; }
static inline vf vf_from_i(vi a) { vf r; EACH r.v[i] = (float)a.v[i]; return r; }
/* nearest even; |a| < 2^31, or NaN, which is no error and gives what x86 gives */
static inline vi vi_from_f(vf a) { vi r; EACH r.v[i] = a.v[i] == a.v[i] ? (int32_t)rintf(a.v[i]) : INT32_MIN; return r; }
static inline vf vf_cast(vi a) { vf r; memcpy(&r, &a, sizeof r); return r; }
static inline vi vi_cast(vf a) { vi r; memcpy(&r, &a, sizeof r); return r; }
static inline void vi_store_i8(int8_t *p, vi a) { EACH p[i] = (int8_t)a.v[i]; }             /* |a| <= 127 */
static inline void vi_store_u16(uint16_t *p, vi a) { EACH p[i] = (uint16_t)a.v[i]; }
static inline vi vi_max(vi a, vi b) { EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
static inline int vi_hmax(vi a) { int m = a.v[0]; EACH m = a.v[i] > m ? a.v[i] : m; return m; }
static inline int vi_sum(vi a) { int s = 0; EACH s += a.v[i]; return s; }

/* f16 <-> f32, nearest even */
static inline float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 0) {
        const float f = (float)m * 0x1p-24f;
        return sign ? -f : f;
    }
    const uint32_t u = sign | (e == 31 ? 0x7f800000u | m << 13 : (e + 112) << 23 | m << 13);
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint16_t f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    const uint32_t sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000)  /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* subnormal: let the adder round at 2^-24 */
        float x;
        memcpy(&x, &a, 4);
        x += 0.5f;
        memcpy(&u, &x, 4);
        return (uint16_t)(sign | (u - 0x3f000000));
    }
    return (uint16_t)(sign | ((a + 0xfff + (a >> 13 & 1)) - 0x38000000) >> 13);
}
static inline vf vf_from_f16(const uint16_t *p) { vf r; EACH r.v[i] = f16_to_f32(p[i]); return r; }
static inline void vf_to_f16(uint16_t *p, vf a) { EACH p[i] = f32_to_f16(a.v[i]); }
static inline vf vf_from_bf16(const uint16_t *p) { vi r; EACH r.v[i] = (int32_t)((uint32_t)p[i] << 16); return vf_cast(r); }

/* bytes: 4 VL of them; a lane is 4 consecutive k of one row */
static inline vb vb_load(const void *p) { vb r; memcpy(&r, p, sizeof r); return r; }
static inline void vb_store(void *p, vb a) { memcpy(p, &a, sizeof a); }
/* each byte shifted right by n, left by -n (constants), and of that the bits of mask */
#define vb_bits(a, n, mask) vb_bits_(a, n, mask)
static inline vb vb_bits_(vb a, int n, int mask) { for (int i = 0; i < 4 * VL; i++) a.v[i] = (uint8_t)((n < 0 ? a.v[i] << -n : a.v[i] >> n) & mask); return a; }
static inline vb vb_or(vb a, vb b) { for (int i = 0; i < 4 * VL; i++) a.v[i] |= b.v[i]; return a; }
/* table[a], a < 16 */
static inline vb vb_lut(const uint8_t *table, vb a) { for (int i = 0; i < 4 * VL; i++) a.v[i] = table[a.v[i]]; return a; }
static inline vf vf_bf16_lo(vb a) { vi r; memcpy(&r, &a, sizeof r); return vf_cast(vi_sll(r, 16)); }
static inline vf vf_bf16_hi(vb a) { vi r; memcpy(&r, &a, sizeof r); return vf_cast(vi_and(r, vi_set1((int32_t)0xffff0000))); }

/* Integers of dot products start from DOT_START. vf_dot_times: what they have come to times *d, rounded once, *c being
 * -1.5 x 2^23 *d. A level whose conversions take from its products starts from the bits of 1.5 x 2^23: below 2^22 such
 * an integer, read as f32, is that number plus itself, and one FMA takes the number off and multiplies. */
enum { DOT_START = 0 };
static inline vf vf_dot_times(vi dot, const float *d, const float *c) { (void)c; return vf_mul(vf_from_i(dot), vf_set1(*d)); }

/* d4: sum over at most 8 steps of (weights 0..15) . (4 activations of -127..127) */
typedef vi d4;
static inline d4 d4_start(void) { return vi_set1(DOT_START); }
static inline d4 d4_dot(d4 acc, vb u, const int8_t *a)
{
    EACH for (int j = 0; j < 4; j++) acc.v[i] += u.v[4 * i + j] * a[j];
    return acc;
}
static inline vi vi_from_d4(d4 acc) { return acc; }

/* What sums of activations, of each 16 of 32, become (kernels.h, z of PL_ACT_I8): offsets of weights start from it. */
static inline int32_t z_of(int first, int second) { return DOT_START - 128 * (first + second); }
/* d4 of 8 steps whose weights count less 8 */
static inline d4 d4_centred(const int32_t *z) { return vi_set1(*z / 16); }

/* the same two steps at a time for weights 0..63, and any number of them */
static inline vi vi_dot6(vi acc, vb u0, vb u1, const int8_t *a) { return d4_dot(d4_dot(acc, u0, a), u1, a + 4); }

/* d8: the same for (weights -128..127, stored +128), any number of steps */
typedef vi d8;
typedef vb w8;
static inline w8 w8_from(vb u) { return u; }
static inline d8 d8_init(const int32_t *z) { return vi_set1(*z); }
static inline d8 d8_dot(d8 acc, w8 u, const int8_t *a) { return d4_dot(acc, u, a); }
static inline vi vi_from_d8(d8 acc) { return acc; }

static inline void prefetch_l2(const void *p) { __builtin_prefetch(p, 0, 2); }
#undef EACH
