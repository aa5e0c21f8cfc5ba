/* The only place that knows what CPU this is. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE  /* syscall */
#endif
#include "kernels.h"

#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>

enum {
    AVX2        = 1 << 0,  /* AVX2, FMA, F16C, and an OS that keeps ymm */
    AVX_VNNI    = 1 << 1,
    AVX512      = 1 << 2,  /* F BW VL DQ VNNI, and an OS that keeps zmm */
    AVX512_BF16 = 1 << 3,
    AMX         = 1 << 4,  /* TILE INT8 BF16, and an OS that keeps tiles */
    FAST_BF16   = 1 << 5,  /* vdpbf16ps does more than FMAs: not Intel's, which does half as much */
    NEVER       = 1 << 6,
};

/* Tiles are 8 KiB of state that the kernel saves for those who ask (Linux, Documentation/arch/x86/xstate.rst). */
static int tiles_granted(void)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}

static int intel(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx && c == signature_INTEL_ecx && d == signature_INTEL_edx;
}

/* cpuid and xgetbv directly: __builtin_cpu_supports lacks names and forgets the OS's half */
static unsigned cpu_features(void)
{
    unsigned a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    const unsigned osxsave = c >> 27 & 1, fma = c >> 12 & 1, f16c = c >> 29 & 1;
    if (!osxsave)
        return 0;
    unsigned xcr0, high;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    const int ymm = (xcr0 & 6) == 6, zmm = (xcr0 & 0xe6) == 0xe6;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    const unsigned subleaves = a, amx = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1) && (xcr0 >> 17 & 3) == 3;
    if (ymm && fma && f16c && b >> 5 & 1)
        features |= AVX2;
    const unsigned f = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1;
    if (features && zmm && f && dq && bw && vl && c >> 11 & 1)
        features |= AVX512;
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        if (features && a >> 4 & 1)
            features |= AVX_VNNI;
        if (features & AVX512 && a >> 5 & 1)
            features |= AVX512_BF16;
    }
    if (features & AVX512_BF16 && amx)
        features |= AMX;
    if (features & AVX512_BF16 && !intel())
        features |= FAST_BF16;
    return features;
}
#endif

/* Ascending; pl_kernels_find takes the last that this CPU runs and that pays on it. */
static const struct level {
    const struct pl_kernels *kernels;
    unsigned needs, pays;
} levels[] = {
    {&pl_kernels_scalar, 0, 0},
#if defined(__x86_64__)
    {&pl_kernels_avx2, AVX2, 0},
    {&pl_kernels_avx2_vnni, AVX2 | AVX_VNNI, 0},
    {&pl_kernels_avx2_vnni_evex, AVX2 | AVX512, NEVER},  /* a stand-in for checks and timing */
    {&pl_kernels_avx512, AVX2 | AVX512, 0},
    {&pl_kernels_avx512_bf16, AVX2 | AVX512 | AVX512_BF16, FAST_BF16},
    {&pl_kernels_avx512_amx, AVX2 | AVX512 | AVX512_BF16 | AMX, 0},
#endif
};

static int has(unsigned features)
{
#if defined(__x86_64__)
    return (features & ~cpu_features()) == 0 && (!(features & AMX) || tiles_granted());
#else
    return features == 0;
#endif
}

const struct pl_kernels *pl_kernels_at(int i, int *runs)
{
    if (i < 0 || i >= (int)(sizeof levels / sizeof *levels))
        return NULL;
    *runs = has(levels[i].needs);
    return levels[i].kernels;
}

const struct pl_kernels *pl_kernels_find(const char *name)
{
    const struct pl_kernels *best = NULL;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        const struct level *const l = &levels[i];
        if (has(l->needs) && (name ? strcmp(name, l->kernels->name) == 0 : has(l->pays)))
            best = l->kernels;
    }
    return best;
}

int64_t pl_cache_bytes(int level)
{
    long n = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE) && defined(_SC_LEVEL3_CACHE_SIZE)
    n = sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
#endif
    return n > 0 ? n : level == 2 ? 1 << 20 : 32 << 20;
}

size_t pl_act_bytes(enum pl_act act, int k)
{
    if (act == PL_ACT_I8)
        return (size_t)((k + PL_I8_BLOCK - 1) / PL_I8_BLOCK) * PL_I8_BLOCK_BYTES;
    if (act == PL_ACT_BF16)
        return (size_t)((k + PL_BF16_BLOCK - 1) / PL_BF16_BLOCK) * PL_BF16_BLOCK * 2;
    return (size_t)k * 4;
}

size_t pl_kv_bytes(enum pl_kv_dtype dtype, int dim)
{
    const size_t n = (size_t)PL_KV_BLOCK * (size_t)dim;
    if (dtype == PL_KV_Q8_0)
        return n + sizeof(uint16_t) * PL_KV_BLOCK * (size_t)((dim + 31) / 32);
    return n * (dtype == PL_KV_F32 ? 4 : 2);
}
