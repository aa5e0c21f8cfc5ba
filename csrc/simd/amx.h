/* The vocabulary on 512-bit vectors, and beside it tiles: AMX TILE, INT8 and BF16 (Intel SDM, volume 1,
 * chapter 18). A tile register holds up to 16 rows of 64 bytes. The instructions are written out, since the
 * compilers' own wrappers do not tell them what memory a tile reads. */
#define HAVE_TILES 1
#include "avx512.h"

struct tile_config {
    uint8_t palette, start_row, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Some 200 cycles. Tiles hold no more than this until tiles_end. */
static inline void tiles_begin(const struct tile_config *c) { __asm__ volatile("ldtilecfg %0" : : "m"(*c)); }
static inline void tiles_end(void) { __asm__ volatile("tilerelease"); }
/* rows `stride` bytes apart; tile registers are numbered by constants */
#define tile_load(tile, p, stride) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(p), "r"((long)(stride)) : "memory")
#define tile_store(tile, p, stride) __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(p), "r"((long)(stride)) : "memory")
#define tile_zero(tile) __asm__ volatile("tilezero %tmm" #tile)
/* c [rows][16] += a . b: int8, 4 k in a lane of b, to i32; or bf16, 2 k, to f32 */
#define tile_dot_i8(c, a, b) __asm__ volatile("tdpbssd %tmm" #b ", %tmm" #a ", %tmm" #c)
#define tile_dot_bf16(c, a, b) __asm__ volatile("tdpbf16ps %tmm" #b ", %tmm" #a ", %tmm" #c)

/* a weight as a byte, 128 being 0, as what will be multiplied: int8 like the activations */
static inline vb deferred(vb u) { return _mm512_sub_epi8(u, _mm512_set1_epi8((char)128)); }
