/* The equations, read as they stand: double, one loop, nothing shared with the kernels. */
#include "checkasm.h"

#include <math.h>
#include <string.h>

/* ---- 16-bit floats: a value is sign mantissa 2^exponent; rounding looks for the nearest */

static double ref_small_float(unsigned h, int mantissa_bits, int bias)
{
    const int e = (int)(h & 0x7fff) >> mantissa_bits, top = 0x7fff >> mantissa_bits;
    const int m = (int)(h & ((1u << mantissa_bits) - 1));
    double y = e ? ldexp(1 + ldexp(m, -mantissa_bits), e - bias)
                 : ldexp(m, 1 - bias - mantissa_bits);
    if (e == top)
        y = m ? NAN : INFINITY;
    return h & 0x8000 ? -y : y;
}

double ref_f16(uint16_t h) { return ref_small_float(h, 10, 15); }
double ref_bf16(uint16_t h) { return ref_small_float(h, 7, 127); }

/* the codes of one sign ascend with their values, so bisect, then compare the two neighbours */
static uint16_t ref_nearest(float f, double (*value)(uint16_t), unsigned infinity)
{
    const unsigned sign = signbit(f) ? 0x8000 : 0;
    const double a = fabs((double)f);
    if (isnan(f))
        return 0x7fff;
    unsigned low = 0, high = infinity;
    while (high - low > 1) {
        const unsigned mid = (low + high) / 2;
        *(value((uint16_t)mid) <= a ? &low : &high) = mid;
    }
    /* for rounding, infinity is where the next finite value would be */
    const double below = value((uint16_t)low);
    const double above = high < infinity ? value((uint16_t)high)
                                         : 2 * below - value((uint16_t)(low - 1));
    const double to_low = a - below, to_high = above - a;
    const int down = to_low < to_high || (to_low == to_high && low % 2 == 0);
    return (uint16_t)(sign | (down ? low : high));
}

uint16_t ref_to_f16(float f) { return ref_nearest(f, ref_f16, 0x7c00); }
uint16_t ref_to_bf16(float f) { return ref_nearest(f, ref_bf16, 0x7f80); }

/* ---- rows */

/* y_i = x_i / sqrt(mean(x^2) + eps) w_i */
void ref_rmsnorm(double *y, const float *x, const float *w, int n, double eps)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    for (int i = 0; i < n; i++)
        y[i] = x[i] / sqrt(sum / n + eps) * w[i];
}

/* (x_i, x_(i+n/2)) as a complex number times cos + i sin */
void ref_rope(double *y, const float *x, const float *cs, int n)
{
    const int h = n / 2;
    for (int i = 0; i < h; i++) {
        const double cosine = cs[i], sine = cs[h + i];
        y[i] = x[i] * cosine - x[h + i] * sine;
        y[h + i] = x[i] * sine + x[h + i] * cosine;
    }
}

double ref_silu(double x) { return x / (1 + exp(-x)); }

int ref_argmax(const float *x, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!isnan(x[i]) && (best < 0 || x[i] > x[best]))
            best = i;
    return best < 0 ? 0 : best;
}

/* ---- matrix products */

struct ref_dot ref_dot(const double *w, const double *mag, const double *x, int n, int step,
                       int sums, int terms)
{
    struct ref_dot r = {0, 0, 0};
    double partial = 0;
    for (int i = 0; i < n; i++) {
        r.y += w[i] * x[i];
        r.total += mag[i] * fabs(x[i]);
        if ((i + 1) % step == 0 || i + 1 == n)
            partial += fabs(r.y);
    }
    r.tol = EPS * 1.001 * (sums * partial + terms * r.total);
    return r;
}

/* ---- attention */

/* |error| of e^s where s is off by `ds`, and how far below e^-87 counts as nothing */
static double exp_tol(double e, double ds) { return e * (expm1(ds) + EXP_ERROR) + EXP_LOW; }

/* s_j = q . k_j; m' = max(m, max s); l' = l e^(m-m') + sum e^(s_j-m'); o' likewise with v_j */
void ref_attend(struct ref_attend *y, const double *q, const double *k, const double *v,
                int head_dim, uint32_t visible, int scaled)
{
    const int v_dim = pl_v_dim(head_dim);
    double s[PL_KV_BLOCK], s_tol = 0, m = y->m;
    const int n_visible = __builtin_popcount(visible);
    for (int j = 0; j < PL_KV_BLOCK; j++) {
        if (!(visible >> j & 1))
            continue;
        double mag[REF_DIM_MAX];
        for (int d = 0; d < head_dim; d++)
            mag[d] = fabs(q[d]);
        const struct ref_dot dot = ref_dot(q, mag, k + (size_t)j * head_dim, head_dim, 1, 1 + scaled, 1 + 2 * scaled);
        s[j] = dot.y;
        s_tol = fmax(s_tol, dot.tol + head_dim * DENORMAL);
        m = fmax(m, dot.y);
    }
    /* a maximum is as far off as its worst candidate; then s - m is rounded */
    const double c = exp(y->m - m), c_tol = visible ? exp_tol(c, s_tol + EPS * fabs(y->m - m)) : 0;
    double l = y->l * c, l_tol = y->l * c_tol, o_mag[REF_DIM_MAX];
    for (int d = 0; d < v_dim; d++) {
        o_mag[d] = fabs(y->o[d]) * c;
        y->o_tol[d] = fabs(y->o[d]) * c_tol;
        y->o[d] *= c;
    }
    for (int j = 0; j < PL_KV_BLOCK; j++) {
        if (!(visible >> j & 1))
            continue;
        const double p = exp(s[j] - m), p_tol = exp_tol(p, 2 * s_tol + EPS * fabs(s[j] - m));
        l += p;
        l_tol += p_tol;
        for (int d = 0; d < v_dim; d++) {
            const double vd = v[(size_t)j * v_dim + d];
            y->o[d] += p * vd;
            o_mag[d] += p * fabs(vd);
            y->o_tol[d] += p_tol * fabs(vd);
        }
    }
    for (int d = 0; d < v_dim; d++)  /* each key adds one rounding, or two where fma is not fused */
        y->o_tol[d] += visible ? (n_visible + 3) * EPS * o_mag[d] + (n_visible + 1) * DENORMAL : 0;
    y->m = m;
    y->m_tol = s_tol;
    y->l = l;
    /* 4 vectors, a tree over their lanes, l c, the sum */
    y->l_tol = visible ? l_tol + 12 * EPS * l : 0;
}

/* m' = max(m, m2); l' = l e^(m-m') + l2 e^(m2-m'); o' likewise */
void ref_attend_merge(struct ref_attend *y, const float *o2, double m2, double l2, int n)
{
    const double m = fmax(y->m, m2), c = exp(y->m - m), c2 = exp(m2 - m);
    const double c_tol = exp_tol(c, EPS * fabs(y->m - m)), c2_tol = exp_tol(c2, EPS * fabs(m2 - m));
    for (int i = 0; i < n; i++) {
        const double a = y->o[i] * c, b = o2[i] * c2;
        y->o_tol[i] = fabs(y->o[i]) * c_tol + fabs(o2[i]) * c2_tol + 3 * EPS * (fabs(a) + fabs(b)) +
                      2 * DENORMAL;
        y->o[i] = a + b;
    }
    y->l_tol = y->l * c_tol + l2 * c2_tol + 3 * EPS * (y->l * c + l2 * c2);
    y->l = y->l * c + l2 * c2;
    y->m = m;
    y->m_tol = 0;
}
