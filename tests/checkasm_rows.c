/* Row-wise kernels. */
#include "checkasm.h"

#include <math.h>
#include <string.h>

/* around 8 and 16 lanes, primes, sizes of real models */
static const int lengths[] = {1,  2,  3,  5,  7,  8,   9,   13,  15,  16,  17,   23,   31,   32,
                              33, 47, 63, 64, 65, 127, 251, 257, 576, 769, 2048, 2053, 4096};

#define FOR_SHAPES(n, fill)                                \
    for (int i_ = 0; i_ < COUNT(lengths); i_++)            \
        for (int n = lengths[i_], fill = 0; fill < N_FILLS; fill++)

static enum fill any_fill(void) { return (enum fill)rng_below(N_FILLS); }

static void check_rmsnorm(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        static double want[4096];
        const enum fill w_fill = any_fill();
        const float eps = rng() & 1 ? 1e-5f : 1e-6f;
        begin("n=%d x=%s w=%s eps=%g", n, fill_names[fill], fill_names[w_fill], eps);
        const float *const x = buf_floats(n, fill), *const w = buf_floats(n, w_fill);
        float *const y = buf_loose(4 * (size_t)n);
        double squares = 0;
        for (int i = 0; i < n; i++)
            squares += (double)x[i] * x[i];
        ref_rmsnorm(want, x, w, n, eps);
        kn->rmsnorm(y, x, w, n, eps);
        /* a lane adds n/8 squares at most, the root halves their error; then 8 more roundings */
        const double tol = (n / 16 + 8) * EPS;
        for (int i = 0; i < n && squares < 1e38; i++)
            expect("y", i, y[i], want[i], tol * fabs(want[i]) + (fabs(w[i]) + 1) * DENORMAL);
        end();
    }
}

static void check_rope(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(h, fill) {
        static double want[8192];
        static float before[8192];
        const int n = 2 * h;
        begin("n=%d x=%s", n, fill_names[fill]);
        float *const x = buf_floats(n, fill), *const cs = buf_loose(4 * (size_t)n);
        for (int i = 0; i < h; i++) {
            const double angle = rng_between(0, 1e5);
            cs[i] = (float)cos(angle);
            cs[h + i] = (float)sin(angle);
        }
        memcpy(before, x, 4 * (size_t)n);
        ref_rope(want, x, cs, n);
        kn->rope(x, cs, n);
        for (int i = 0; i < n; i++) {
            const double terms = fabs(before[i % h]) + fabs(before[h + i % h]);
            expect("x", i, x[i], want[i], 2 * EPS * terms + 2 * DENORMAL);
        }
        end();
    }
}

/* one rounding of an exact result: in double a sum or a product of two floats rounds the same */
static void check_add(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        const enum fill b_fill = any_fill();
        begin("n=%d a=%s b=%s", n, fill_names[fill], fill_names[b_fill]);
        float *const a = buf_floats(n, fill), *const b = buf_floats(n, b_fill);
        float *const y = buf_loose(4 * (size_t)n);
        kn->add(y, a, b, n);
        for (int i = 0; i < n; i++)
            expect("y", i, y[i], (float)((double)a[i] + b[i]), 0);
        kn->add(a, a, b, n);  /* as residuals and biases are added */
        expect_bits("y in place", a, y, n);
        end();
    }
}

static void check_put(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        const int nt = 1 + rng_below(PL_TILE_MAX), stride = n + rng_below(3), adds = rng_below(2), vl = kn->vl;
        const int n_out = (nt - 1) * stride + n;
        begin("n=%d nt=%d stride=%d y=%s adds=%d", n, nt, stride, fill_names[fill], adds);
        const float *const y = buf_floats((n + vl - 1) / vl * nt * vl, fill);
        float *const out = buf_floats(n_out, any_fill()), *const was = buf_copy(out, sizeof *out * (size_t)n_out);
        kn->put(out, stride, y, n, nt, adds);
        for (int at = 0; at < n_out; at++) {
            const int t = at / stride, i = at % stride;
            const double sum = i < n ? y[(i / vl * nt + t) * vl + i % vl] : 0;
            expect("out", at, out[at], i < n && !adds ? sum : (float)(was[at] + sum), 0);
        }
        end();
    }
}

static void check_scale(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        float a;
        fill_floats(&a, 1, any_fill());
        begin("n=%d x=%s a=%g", n, fill_names[fill], a);
        const float *const x = buf_floats(n, fill);
        float *const y = buf_loose(4 * (size_t)n);
        kn->scale(y, x, a, n);
        for (int i = 0; i < n; i++)
            expect("y", i, y[i], (float)((double)a * x[i]), 0);
        end();
    }
}

static void check_swiglu(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        const enum fill up_fill = any_fill();
        const float gain = (float[]){0.1f, 1, 10, 120}[rng_below(4)];
        begin("n=%d gate=%s*%g up=%s", n, fill_names[fill], gain, fill_names[up_fill]);
        float *const gate = buf_floats(n, fill), *const y = buf_loose(4 * (size_t)n);
        const float *const up = buf_floats(n, up_fill);
        for (int i = 0; i < n; i++)
            gate[i] *= gain;
        kn->swiglu(y, gate, up, n);
        for (int i = 0; i < n; i++) {
            const double want = ref_silu(gate[i]) * up[i];
            /* e^x is clamped, so 1 / (1 + e^-g) stays above 2^-128 */
            const double tol = (EXP_ERROR + 4 * EPS) * fabs(want) + (fabs(up[i]) + 1) * DENORMAL +
                               fabs((double)gate[i] * up[i]) * NORMAL_MIN;
            expect("y", i, y[i], want, tol);
        }
        kn->swiglu(gate, gate, up, n);
        if (memcmp(gate, y, sizeof *y * (size_t)n))
            fail("in place: not the same");
        end();
    }
}

static void expect_exp(int i, float y, double x)
{
    if (isnan(x) || (x >= -87 && x <= 88))
        expect("y", i, y, exp(x), exp(x) * EXP_ERROR);
    else if (x > 88 ? !(y >= exp(88) * (1 - EXP_ERROR)) : !(y >= 0 && y <= EXP_LOW))
        fail("y[%d] is %.9g for x = %.9g", i, y, x);
}

static void check_exp(const struct pl_kernels *kn, const struct pl_format *format)
{
    static const float special[] = {0.0f,   -0.0f,  87.5f,   88.0f, -87.0f, 89.0f,    200.0f,
                                    -88.0f, -104.0f, 3e38f, -3e38f, 1e-40f, INFINITY, -INFINITY,
                                    NAN};
    (void)format;
    FOR_SHAPES(n, fill) {
        begin("n=%d x=%s", n, fill_names[fill]);
        float *const x = buf_floats(n, fill), *const y = buf_loose(4 * (size_t)n);
        for (int i = 0; i < n; i++) {
            /* the range, and the halves of ln 2 where the power of two changes */
            if (fill == UNIFORM)
                x[i] = (float)rng_between(-87, 88);
            else if (fill == EXTREMES)
                x[i] = special[rng_below(COUNT(special))];
            else if (fill == EQUAL)
                x[i] = (float)((rng_below(252) - 125.5) * M_LN2 + rng_between(-1e-5, 1e-5));
        }
        kn->exp(y, x, n);
        for (int i = 0; i < n; i++)
            expect_exp(i, y[i], x[i]);
        for (int i = 0; i < n; i++)
            if (x[i] == 0)
                expect("e^0", i, y[i], 1, 0);
        end();
    }
}

static void check_exp_sum(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        const float beta = (float)rng_between(0.1, 3), gain = rng() & 1 ? 1.0f : 20.0f;
        begin("n=%d x=%s*%g beta=%g", n, fill_names[fill], gain, beta);
        float *const x = buf_floats(n, fill), *const y = buf_loose(4 * (size_t)n);
        for (int i = 0; i < n; i++)
            x[i] = rng_below(8) || i == n / 2 ? x[i] * gain : -INFINITY;  /* a filter took it */
        const float max = x[ref_argmax(x, n)];
        double sum = 0, tol = 0;
        const float got = kn->exp_sum(y, x, max, beta, n);
        for (int i = 0; i < n; i++) {
            const double arg = (double)beta * ((double)x[i] - max), want = exp(arg);
            /* the difference is rounded, and the product */
            const double relative = want > 0 ? EXP_ERROR + expm1(-2 * EPS * arg) : 0;
            const double y_tol = want * relative + EXP_LOW;
            expect("y", i, y[i], want, y_tol);
            sum += want;
            tol += y_tol;
        }
        expect("sum", 0, got, sum, tol + (n / 8 + 6) * EPS * sum);
        end();
    }
}

static void expect_argmax(const struct pl_kernels *kn, const float *x, int n)
{
    const int got = kn->argmax(x, n), want = ref_argmax(x, n);
    if (got != want)
        fail("is %d, not %d", got, want);
}

static void check_argmax(const struct pl_kernels *kn, const struct pl_format *format)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, -1.0f, 1.0f, -NAN};
    (void)format;
    FOR_SHAPES(n, fill) {
        begin("n=%d x=%s", n, fill_names[fill]);
        float *const x = buf_floats(n, fill);
        expect_argmax(kn, x, n);
        for (int i = 0; i < n; i++)  /* below zero, where a tail filled with zeros would win */
            x[i] = -fabsf(x[i]) - 1;
        expect_argmax(kn, x, n);
        x[rng_below(n)] = x[rng_below(n)] = 3;  /* a tie, or one */
        expect_argmax(kn, x, n);
        x[rng_below(n)] = x[n - 1] = NAN;
        expect_argmax(kn, x, n);
        const int kinds = 1 + rng_below(COUNT(odd));  /* kinds = 1: NaN only */
        for (int i = 0; i < n; i++)
            x[i] = odd[rng_below(kinds)];
        expect_argmax(kn, x, n);
        for (int i = 0; i < n; i++)
            x[i] = i == n / 2 ? -INFINITY : NAN;
        expect_argmax(kn, x, n);
        end();
    }
}

/* x with some that are no numbers */
static float *buf_spoilt(int n, enum fill fill)
{
    float *const x = buf_floats(n, fill);
    for (int i = 0; i < n / 8; i++)
        x[rng_below(n)] = (float[]){NAN, INFINITY, -INFINITY}[rng_below(3)];
    return x;
}

/* every maximum is of so many at most, each of x in one group: as often as a value is a maximum it is in x,
 * and for each k the k-th largest of x is no smaller than the k-th largest maximum */
static void check_group_max(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        begin("n=%d x=%s", n, fill_names[fill]);
        float *const x = buf_spoilt(n, fill);
        const int most = n / PL_GROUP + PL_LANES_MAX;
        float *const y = buf_loose(4 * (size_t)most);
        const int n_groups = kn->group_max(y, x, n);
        if (n_groups > most || n_groups * PL_GROUP < n)
            fail("%d groups", n_groups);
        for (int i = 0; i < n_groups; i++) {
            int in_x = 0, in_y = 0;
            for (int j = 0; j < n; j++)
                in_x += x[j] >= y[i];
            for (int j = 0; j < n_groups; j++)
                in_y += y[j] >= y[i];
            if (y[i] != -INFINITY && in_x < in_y)
                fail("%d maxima of %g or more, but %d values", in_y, y[i], in_x);
        }
        const int first = ref_argmax(x, n);
        if (n_groups && y[ref_argmax(y, n_groups)] != (isnan(x[first]) ? -INFINITY : x[first]))
            fail("the largest is lost");
        end();
    }
}

static void check_select(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    FOR_SHAPES(n, fill) {
        begin("n=%d x=%s", n, fill_names[fill]);
        float *const x = buf_spoilt(n, fill), *const y = buf_loose(4 * (size_t)n);
        int32_t *const index = (int32_t *)buf_loose(4 * (size_t)n);
        const float least = rng() & 1 ? x[rng_below(n)] : (float)rng_between(-1, 1);
        const int found = kn->select(index, y, x, n, least);
        int want = 0;
        for (int i = 0; i < n; i++) {
            if (!(x[i] >= least))
                continue;
            if (want >= found || index[want] != i || !same_float(y[want], x[i]))
                fail("%d, %g, is not the %dth of %g or more", i, x[i], want, least);
            want++;
        }
        if (found != want)
            fail("found %d of %d", found, want);
        end();
    }
}

const struct op row_ops[] = {
    {"rmsnorm", check_rmsnorm}, {"rope", check_rope},           {"add", check_add},       {"put", check_put},
    {"scale", check_scale},     {"swiglu", check_swiglu},       {"exp", check_exp},       {"exp_sum", check_exp_sum},
    {"argmax", check_argmax},   {"group_max", check_group_max}, {"select", check_select}, {NULL, NULL},
};
