/* The vocabulary on 512-bit vectors: AVX-512 F BW VL DQ VNNI; with PL_BF16 also vdpbf16ps. */
#define VL 16
#define PL_SIMD 1
enum { REGISTERS = 32 };
enum { QUERIES_ABREAST = 12, VECTORS_ABREAST = 1 };  /* a broadcast is part of the FMA */
#define HAVE_DPBUSD 1  /* of u8, whatever they are */

typedef __m512 vf;
typedef __m512i vi;
typedef __m512i vb;
typedef __mmask16 vm;

/* f32 */
static inline vf vf_set1(float a) { return _mm512_set1_ps(a); }
static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vm vm_first(int n) { return (vm)(n >= 16 ? 0xffff : (1u << n) - 1); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline vf vf_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(vm_first(n), p); }
static inline void vf_store_n(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, vm_first(n), a); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline void vf_add_product(vf *acc, vf a, vf b) { *acc = vf_fma(a, b, *acc); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline float vf_sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float vf_hmax(vf a) { return _mm512_reduce_max_ps(a); }
static inline vf vf_keep(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); }
static inline vf vf_select(vm m, vf a, vf b) { return _mm512_mask_mov_ps(b, m, a); }
static inline vm vm_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vm vm_ge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
static inline vm vm_from_bits(uint32_t bits) { return (vm)bits; }
static inline uint32_t vm_bits(vm m) { return m; }

/* i32 */
static inline vi vi_set1(int32_t a) { return _mm512_set1_epi32(a); }
static inline vi vi_from_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
static inline vi vi_from_i8(const uint8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
#define vi_srl(a, n) _mm512_srli_epi32(a, n)
#define vi_sll(a, n) _mm512_slli_epi32(a, n)
static inline vf vf_from_i(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi vi_from_f(vf a) { return _mm512_cvtps_epi32(a); }
static inline vf vf_cast(vi a) { return _mm512_castsi512_ps(a); }
static inline vi vi_cast(vf a) { return _mm512_castps_si512(a); }
static inline void vi_store_i8(int8_t *p, vi a) { _mm_storeu_si128((void *)p, _mm512_cvtsepi32_epi8(a)); }
static inline void vi_store_u16(uint16_t *p, vi a) { _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(a)); }
static inline vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
static inline int vi_hmax(vi a) { return _mm512_reduce_max_epi32(a); }
static inline int vi_sum(vi a) { return _mm512_reduce_add_epi32(a); }

/* f16 */
static inline float f16_to_f32(uint16_t h) { return _cvtsh_ss(h); }
static inline uint16_t f32_to_f16(float f) { return _cvtss_sh(f, 0); }
static inline vf vf_from_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline void vf_to_f16(uint16_t *p, vf a) { _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a, 0)); }
static inline vf vf_from_bf16(const uint16_t *p) { return vf_cast(vi_sll(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16)); }

/* bytes */
static inline vb vb_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void vb_store(void *p, vb a) { _mm512_storeu_si512(p, a); }
#define vb_bits(a, n, mask) _mm512_and_si512((n) < 0 ? _mm512_slli_epi16(a, -(n) & 7) : _mm512_srli_epi16(a, (n) & 7), _mm512_set1_epi8(mask))
static inline vb vb_or(vb a, vb b) { return _mm512_or_si512(a, b); }
static inline vb vb_lut(const uint8_t *table, vb a) { return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)), a); }
static inline vf vf_bf16_lo(vb a) { return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)); }
static inline vf vf_bf16_hi(vb a) { return _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32((int32_t)0xffff0000))); }

/* Dot products of the 4 bytes of each lane of u with those at a. gcc 12 would load these by an instruction of their own. */
typedef int32_t __attribute__((may_alias, aligned(1))) four_bytes;
static inline vi dpbusd(vi acc, vb u, const int8_t *a)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(u), "m"(*(const four_bytes *)a));
    return acc;
}

#if defined(PL_BF16)  /* AMD's: conversions have ports of their own */
enum { DOT_START = 0 };
static inline vf vf_dot_times(vi dot, const float *d, const float *c) { (void)c; return vf_mul(vf_from_i(dot), vf_set1(*d)); }
#else
enum { DOT_START = 0x4b400000 };
static inline vf vf_dot_times(vi dot, const float *d, const float *c) { return vf_fma(vf_cast(dot), vf_set1(*d), vf_set1(*c)); }
#endif
typedef vi d4, d8;
typedef vb w8;
static inline int32_t z_of(int first, int second) { return DOT_START - 128 * (first + second); }
static inline d4 d4_start(void) { return _mm512_set1_epi32(DOT_START); }
static inline d4 d4_dot(d4 acc, vb u, const int8_t *a) { return dpbusd(acc, u, a); }
static inline vi vi_from_d4(d4 acc) { return acc; }
static inline vi vi_dot6(vi acc, vb u0, vb u1, const int8_t *a) { return dpbusd(dpbusd(acc, u0, a), u1, a + 4); }
static inline w8 w8_from(vb u) { return u; }
static inline d8 d8_init(const int32_t *z) { return _mm512_set1_epi32(*z); }
static inline d8 d8_dot(d8 acc, w8 u, const int8_t *a) { return dpbusd(acc, u, a); }
static inline vi vi_from_d8(d8 acc) { return acc; }

#if defined(PL_BF16)
#define HAVE_BF16_DOT 1
/* acc + w_lo a_lo + w_hi a_hi, as vdpbf16ps rounds it */
static inline vf vf_dot_bf16(vf acc, vb w, const uint32_t *a)
{
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const four_bytes *)a));
    return acc;
}
#endif

#if !defined(PL_BF16)
/* Intel's CPUs (cpu.c) wait for memory longer, and gain by a second fetch to L1. */
#define AHEAD_L2 10240
#define AHEAD_L1 8192
static inline void prefetch_l1(const void *p) { __asm__ volatile("prefetcht0 %0" : : "m"(*(const char *)p)); }
#if !defined(HAVE_TILES)
#define EXPANDS 1  /* kernels/expanded_tmpl.c; AMD's have ports beside those that multiply */
static inline vb deferred(vb u) { return u; }
#endif
#endif

/* gcc 12 drops __builtin_prefetch under a target pragma */
static inline void prefetch_l2(const void *p) { __asm__ volatile("prefetcht1 %0" : : "m"(*(const char *)p)); }
