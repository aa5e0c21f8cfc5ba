/* The vocabulary on 256-bit vectors: AVX2 + FMA + F16C; with PL_VNNI also vpdpbusd, in its VEX
 * coding or, with PL_VNNI_EVEX, in that of AVX512-VNNI + VL. */
#define VL 8
#define PL_SIMD 1
enum { REGISTERS = 16 };
/* Attention: a query's broadcast is an instruction of its own, so two vectors of keys share it; twelve sums, and the
 * registers are full. */
enum { QUERIES_ABREAST = 6, VECTORS_ABREAST = 2 };

typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vb;
typedef __m256i vm;

/* f32 */
static inline vf vf_set1(float a) { return _mm256_set1_ps(a); }
static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vm vm_first(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline vf vf_load_n(const float *p, int n) { return _mm256_maskload_ps(p, vm_first(n)); }
static inline void vf_store_n(float *p, vf a, int n) { _mm256_maskstore_ps(p, vm_first(n), a); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
/* acc += a b in place: gcc lets sums wander from register to register, until some fall out */
static inline void vf_add_product(vf *acc, vf a, vf b) { __asm__("vfmadd231ps %2, %1, %0" : "+x"(*acc) : "x"(a), "x"(b)); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline float vf_sum(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline float vf_hmax(vf a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline vf vf_keep(vm m, vf a) { return _mm256_and_ps(_mm256_castsi256_ps(m), a); }
static inline vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m)); }
static inline vm vm_eq(vf a, vf b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
static inline vm vm_ge(vf a, vf b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GE_OQ)); }
static inline vm vm_from_bits(uint32_t bits)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit);
}
static inline uint32_t vm_bits(vm m) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m)); }

/* i32 */
static inline vi vi_set1(int32_t a) { return _mm256_set1_epi32(a); }
static inline vi vi_from_u8(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)); }
static inline vi vi_from_i8(const uint8_t *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
#define vi_srl(a, n) _mm256_srli_epi32(a, n)
#define vi_sll(a, n) _mm256_slli_epi32(a, n)
static inline vf vf_from_i(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi vi_from_f(vf a) { return _mm256_cvtps_epi32(a); }
static inline vf vf_cast(vi a) { return _mm256_castsi256_ps(a); }
static inline vi vi_cast(vf a) { return _mm256_castps_si256(a); }
static inline void vi_store_i8(int8_t *p, vi a)
{
    const __m128i s = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((void *)p, _mm_packs_epi16(s, s));
}
static inline void vi_store_u16(uint16_t *p, vi a) { _mm_storeu_si128((void *)p, _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1))); }
static inline vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
static inline int vi_hmax(vi a)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
static inline int vi_sum(vi a)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* f16 */
static inline float f16_to_f32(uint16_t h) { return _cvtsh_ss(h); }
static inline uint16_t f32_to_f16(float f) { return _cvtss_sh(f, 0); }
static inline vf vf_from_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
static inline void vf_to_f16(uint16_t *p, vf a) { _mm_storeu_si128((void *)p, _mm256_cvtps_ph(a, 0)); }
static inline vf vf_from_bf16(const uint16_t *p) { return vf_cast(vi_sll(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16)); }

/* bytes */
static inline vb vb_load(const void *p) { return _mm256_loadu_si256(p); }
static inline void vb_store(void *p, vb a) { _mm256_storeu_si256(p, a); }
#define vb_bits(a, n, mask) _mm256_and_si256((n) < 0 ? _mm256_slli_epi16(a, -(n) & 7) : _mm256_srli_epi16(a, (n) & 7), _mm256_set1_epi8(mask))
static inline vb vb_or(vb a, vb b) { return _mm256_or_si256(a, b); }
static inline vb vb_lut(const uint8_t *table, vb a) { return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table)), a); }
static inline vf vf_bf16_lo(vb a) { return _mm256_castsi256_ps(_mm256_slli_epi32(a, 16)); }
static inline vf vf_bf16_hi(vb a) { return _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32((int32_t)0xffff0000))); }

static inline vb vb_4(const int8_t *a)
{
    int32_t x;
    __builtin_memcpy(&x, a, 4);
    return _mm256_set1_epi32(x);
}

#if defined(PL_VNNI)
#define HAVE_DPBUSD 1
#if defined(PL_VNNI_EVEX)
/* by hand: with the intrinsic's target the compiler would use 32 registers, as no laptop has */
static inline vi dpbusd(vi acc, vb u, vb s)
{
    __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u), "x"(s));
    return acc;
}
#else
#define dpbusd _mm256_dpbusd_avx_epi32
#endif
enum { DOT_START = 0x4b400000 };
static inline vf vf_dot_times(vi dot, const float *d, const float *c) { return vf_fma(vf_cast(dot), vf_set1(*d), vf_set1(*c)); }
typedef vi d4, d8;
typedef vb w8;
static inline int32_t z_of(int first, int second) { return DOT_START - 128 * (first + second); }
static inline d4 d4_start(void) { return _mm256_set1_epi32(DOT_START); }
static inline d4 d4_dot(d4 acc, vb u, const int8_t *a) { return dpbusd(acc, u, vb_4(a)); }
static inline vi vi_from_d4(d4 acc) { return acc; }
static inline vi vi_dot6(vi acc, vb u0, vb u1, const int8_t *a) { return dpbusd(dpbusd(acc, u0, vb_4(a)), u1, vb_4(a + 4)); }
static inline w8 w8_from(vb u) { return u; }
static inline d8 d8_init(const int32_t *z) { return _mm256_set1_epi32(*z); }
static inline d8 d8_dot(d8 acc, w8 u, const int8_t *a) { return dpbusd(acc, u, vb_4(a)); }
static inline vi vi_from_d8(d8 acc) { return acc; }
#else
enum { DOT_START = 0 };
static inline vf vf_dot_times(vi dot, const float *d, const float *c) { (void)c; return vf_mul(vf_from_i(dot), vf_set1(*d)); }
/* acc + b as instructions: gcc adds products to each other first, and keeps more of them than there are registers */
static inline vi add_i16(vi acc, vi b)
{
    __asm__("vpaddw %1, %0, %0" : "+x"(acc) : "x"(b));
    return acc;
}
static inline vi add_i32(vi acc, vi b)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(acc) : "x"(b));
    return acc;
}
/* d4 sums in i16: 8 steps of at most 2 * 15 * 127 are 30480 < 32768 */
typedef vi d4, d8;
typedef struct { vb abs, sign; } w8;
static inline d4 d4_start(void) { return _mm256_setzero_si256(); }
static inline d4 d4_dot(d4 acc, vb u, const int8_t *a) { return add_i16(acc, _mm256_maddubs_epi16(u, vb_4(a))); }
static inline vi vi_from_d4(d4 acc) { return _mm256_madd_epi16(acc, _mm256_set1_epi16(1)); }
/* -8 times each sum, an i16 each. A d4 that starts with it ends at 8 * 8 * 127 of the activations in its own lane and
 * half, as many in the other lane, 8 * 15 * 127 in the other half: 31496 at most. */
static inline int32_t z_of(int first, int second) { return (int32_t)((uint32_t)(-8 * first) & 0xffff) | (int32_t)((uint32_t)(-8 * second) << 16); }
static inline d4 d4_centred(const int32_t *z) { return _mm256_set1_epi32(*z); }
/* 4 * 63 * 127 are 32004 < 32768 */
static inline vi vi_dot6(vi acc, vb u0, vb u1, const int8_t *a)
{
    const vi pairs = _mm256_add_epi16(_mm256_maddubs_epi16(u0, vb_4(a)), _mm256_maddubs_epi16(u1, vb_4(a + 4)));
    return add_i32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/* Pairs of i16 become i32 by a multiplication, which may as well be by a scale: w is an i16 twice. By hand, as gcc
 * loads ahead until it is out of registers. */
#define HAVE_SCALED_DOTS 1
typedef int32_t __attribute__((may_alias, aligned(1))) four_bytes;
static inline vi vi_dot6_scaled(vi acc, const vb *u, const int8_t *a, vi w)
{
    vi t0, t1;
    __asm__("vpbroadcastd %5, %1\n\tvpbroadcastd %6, %2\n\tvpmaddubsw %1, %3, %1\n\tvpmaddubsw %2, %4, %2\n\t"
            "vpaddw %2, %1, %1\n\tvpmaddwd %7, %1, %1\n\tvpaddd %1, %0, %0"
            : "+x"(acc), "=&x"(t0), "=&x"(t1)
            : "x"(u[0]), "x"(u[1]), "m"(*(const four_bytes *)a), "m"(*(const four_bytes *)(a + 4)), "x"(w));
    return acc;
}
static inline vi vi_from_d4_scaled(d4 acc, vi w) { return _mm256_madd_epi16(acc, w); }
/* of each lane the lower i16 of a and of b */
static inline vi vi_pair(vi a, vi b) { return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa); }
static inline vi vi_dot_pairs(vi a, vi b) { return _mm256_madd_epi16(a, b); }
/* 8-bit weights would saturate maddubs as u8; as |w| <= 128 a pair is at most 32512 */
static inline w8 w8_from(vb u)
{
    const vb s = _mm256_xor_si256(u, _mm256_set1_epi8(-128));
    return (w8){_mm256_abs_epi8(s), s};
}
static inline d8 d8_init(const int32_t *z) { (void)z; return _mm256_setzero_si256(); }
static inline d8 d8_dot(d8 acc, w8 w, const int8_t *a)
{
    const vi pairs = _mm256_maddubs_epi16(w.abs, _mm256_sign_epi8(vb_4(a), w.sign));
    return add_i32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
static inline vi vi_from_d8(d8 acc) { return acc; }
#endif

/* gcc 12 drops __builtin_prefetch under a target pragma */
static inline void prefetch_l2(const void *p) { __asm__ volatile("prefetcht1 %0" : : "m"(*(const char *)p)); }
