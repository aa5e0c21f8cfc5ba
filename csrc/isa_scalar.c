#define ISA_NAME "scalar"
#define TABLE pl_kernels_scalar
#include <stdint.h>
#include "simd/scalar.h"
#include "kernels_tmpl.c"
