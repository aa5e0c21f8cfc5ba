#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif
#define ISA_NAME "avx512-amx"
#define TABLE pl_kernels_avx512_amx
#include <stdint.h>
#include "simd/amx.h"
#include "kernels_tmpl.c"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int pl_no_avx512_amx;  /* ISO C wants a declaration in every file */
#endif
