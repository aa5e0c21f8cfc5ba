#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define ISA_NAME "avx2"
#define TABLE pl_kernels_avx2
#include <stdint.h>
#include "simd/avx2.h"
#include "kernels_tmpl.c"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int pl_no_avx2;  /* ISO C wants a declaration in every file */
#endif
