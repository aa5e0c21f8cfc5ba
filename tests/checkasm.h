/* checkasm: every kernel of every ISA level against its equation in double (after dav1d's tool).
 *
 * A check walks shapes and fills. One shape with its fill is a case: begin() names it and frees
 * the buffers of the last, end() looks at the canaries and counts. Tolerances are error bounds:
 * EPS is the unit roundoff, and a sum's bound adds up its partial sums, so nothing is tuned. */
#ifndef PYLLAMA_CHECKASM_H
#define PYLLAMA_CHECKASM_H

#include "kernels.h"

#define EPS 0x1p-24        /* the largest relative error of one f32 rounding */
#define DENORMAL 0x1p-149  /* the largest absolute error of one that underflows, doubled */
#define NORMAL_MIN 0x1p-126
#define EXP_ERROR 2e-7     /* of the vocabulary's e^x, relative; it clamps x to -87 .. 88 */
#define EXP_LOW 1.7e-38    /* e^-87 and a little: what "zero" may be */

enum { BLOCK_MAX = 256 };  /* weights per block of any format */

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

typedef void check_fn(const struct pl_kernels *kn, const struct pl_format *format);
struct op {
    const char *name;  /* of an op of every format: what follows the format's name */
    check_fn *check;
};
extern const struct op row_ops[], activation_ops[], attention_ops[], kv_ops[];  /* end with a NULL name */
extern const struct op format_ops[];
void bench(const struct pl_kernels *kn, const char *op);

/* ---- cases and verdicts (checkasm.c) */

__attribute__((format(printf, 1, 2))) void begin(const char *shape, ...);
__attribute__((format(printf, 1, 2))) void fail(const char *what, ...);
void end(void);
/* y[i] within tol of want, infinities and NaN exactly; what may overflow is not looked at */
void expect(const char *what, int i, float y, double want, double tol);
/* the same bits; NaNs are equal, whatever their payload */
void expect_bits(const char *what, const float *a, const float *b, int n);
int same_float(float a, float b);

/* ---- data (checkasm_data.c) */

enum fill { UNIFORM, TINY, LARGE, ZEROS, ONE_HOT, EXTREMES, EQUAL, MIXED, N_FILLS };
extern const char *const fill_names[N_FILLS];

void rng_seed(uint64_t seed);
uint64_t rng(void);
int rng_below(int n);
double rng_between(double lo, double hi);
void fill_floats(float *x, int n, enum fill fill);

/* bytes up to a page that may not be touched, after a canary; all ones, as floats NaN */
void *buf(size_t bytes);
/* or a few floats before that page: a start off every vector boundary, a canary on either side */
void *buf_loose(size_t bytes);
float *buf_floats(int n, enum fill fill);  /* loose */
void *buf_copy(const void *src, size_t bytes);  /* loose */
void buf_reset(void);
/* 0 if a canary was overwritten */
int buf_intact(void);

/* ---- the equations (checkasm_ref.c); double in, double out, one loop each */

double ref_f16(uint16_t h);
double ref_bf16(uint16_t h);
uint16_t ref_to_f16(float f);   /* nearest even */
uint16_t ref_to_bf16(float f);

void ref_rmsnorm(double *y, const float *x, const float *w, int n, double eps);
void ref_rope(double *y, const float *x, const float *cs, int n);
double ref_silu(double x);
int ref_argmax(const float *x, int n);

/* The dot product of n terms w_i x_i, added in order, and a bound of its rounding: an f32 sum is
 * off by at most `sums` roundings of each partial sum (taken every `step` terms) and `terms`
 * of each term; mag is what w was computed from, |w| or more. */
struct ref_dot { double y, total, tol; };
struct ref_dot ref_dot(const double *w, const double *mag, const double *x, int n, int step,
                       int sums, int terms);

/* (checkasm_formats.c) w[block] and mag[block] <- one block of a file; mag_i is the sum of |terms| of w_i */
struct ref_format {
    const char *name;
    void (*decode)(double *w, double *mag, const uint8_t *block);
    int group;      /* weights that share a scale: so many are summed as integers */
    int scales[3];  /* byte offsets of the block's f16 scales; ends with -1 */
};
const struct ref_format *ref_format(const char *name);  /* NULL: not known here */

/* One query's online softmax over the visible keys: the state after it, each with its bound. */
enum { REF_DIM_MAX = 256 };
struct ref_attend {
    double m, m_tol, l, l_tol, o[REF_DIM_MAX], o_tol[REF_DIM_MAX];
};
/* k [PL_KV_BLOCK][head_dim], v [PL_KV_BLOCK][v_dim], key j visible by bit j; in: m, l, o before;
 * scaled: keys come in groups with a scale, which rounds each sum once more */
void ref_attend(struct ref_attend *y, const double *q, const double *k, const double *v,
                int head_dim, uint32_t visible, int scaled);
void ref_attend_merge(struct ref_attend *y, const float *o2, double m2, double l2, int n);

/* ---- a KV block (checkasm_kv.c) */

enum { N_HEAD_DIMS = 19 };
extern const int head_dims[N_HEAD_DIMS];
/* where value d of token j lies, of K or of V, and for Q8_0 its scale; dim: head_dim or v_dim */
int kv_index(int is_value, int j, int d, int v_dim);
uint16_t *kv_scale(void *p, int is_value, int j, int d, int dim);

#endif
