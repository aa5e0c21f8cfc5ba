/* Row-wise kernels: one row in, one row out, each sum in lane order then vf_sum's tree. */

/* e^x: 2^n e^r with |r| <= ln2/2, degree-6 Taylor-minimax; relative error < 2e-7.
 * Clamped to where 2^n is normal. The sum with 1.5 * 2^23 + 127 is rounded to whole numbers, and its lowest bits
 * are n + 127, the exponent of 2^n. By Estrin's scheme, as the queries of a tile wait for it. */
INLINE vf vf_exp(vf x)
{
    const vf whole = vf_set1(12583039.0f);
    x = vf_min(vf_set1(88.0f), vf_max(vf_set1(-87.0f), x));
    const vf t = vf_fma(x, vf_set1(1.44269504f), whole), n = vf_sub(t, whole), power = vf_cast(vi_sll(vi_cast(t), 23));
    const vf r = vf_fma(n, vf_set1(2.12194440e-4f), vf_fma(n, vf_set1(-0.693359375f), x)), r2 = vf_mul(r, r);
    const vf p5 = vf_fma(r, vf_set1(1.9875691500e-4f), vf_set1(1.3981999507e-3f));
    const vf p3 = vf_fma(r, vf_set1(8.3334519073e-3f), vf_set1(4.1665795894e-2f));
    const vf p1 = vf_fma(r, vf_set1(1.6666665459e-1f), vf_set1(5.0000001201e-1f));
    const vf p = vf_fma(vf_fma(p5, r2, p3), r2, p1);
    return vf_fma(vf_fma(p, r2, r), power, power);
}

static void exp_n(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_exp(vf_load(x + i)));
    if (i < n)
        vf_store_n(y + i, vf_exp(vf_load_n(x + i, n - i)), n - i);
}

static void rmsnorm(float *y, const float *x, const float *w, int n, float eps)
{
    vf sum = vf_zero();
    int i = 0;
    for (; i + VL <= n; i += VL)
        sum = vf_fma(vf_load(x + i), vf_load(x + i), sum);
    if (i < n)
        sum = vf_fma(vf_load_n(x + i, n - i), vf_load_n(x + i, n - i), sum);
    const vf r = vf_set1(1.0f / __builtin_sqrtf(vf_sum(sum) / (float)n + eps));
    for (i = 0; i + VL <= n; i += VL)
        vf_store(y + i, vf_mul(vf_mul(vf_load(x + i), r), vf_load(w + i)));
    if (i < n)
        vf_store_n(y + i, vf_mul(vf_mul(vf_load_n(x + i, n - i), r), vf_load_n(w + i, n - i)), n - i);
}

static void add(float *y, const float *a, const float *b, int n)
{
    int i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_add(vf_load(a + i), vf_load(b + i)));
    if (i < n)
        vf_store_n(y + i, vf_add(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)), n - i);
}

static void put(float *out, int64_t stride, const float *y, int n, int nt, int adds)
{
    for (int t = 0; t < nt; t++, out += stride) {
        const float *from = y + t * VL;
        int i = 0;
        for (; i + VL <= n; i += VL, from += nt * VL)
            vf_store(out + i, adds ? vf_add(vf_load(out + i), vf_load(from)) : vf_load(from));
        if (i < n)
            vf_store_n(out + i, adds ? vf_add(vf_load_n(out + i, n - i), vf_load(from)) : vf_load(from), n - i);
    }
}

static void scale(float *y, const float *x, float a, int n)
{
    int i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_mul(vf_load(x + i), vf_set1(a)));
    if (i < n)
        vf_store_n(y + i, vf_mul(vf_load_n(x + i, n - i), vf_set1(a)), n - i);
}

/* g / (1 + e^-g) u */
INLINE vf vf_swiglu(vf g, vf u)
{
    const vf e = vf_exp(vf_sub(vf_zero(), g));
    return vf_mul(vf_div(g, vf_add(vf_set1(1.0f), e)), u);
}

static void swiglu(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_swiglu(vf_load(gate + i), vf_load(up + i)));
    if (i < n)
        vf_store_n(y + i, vf_swiglu(vf_load_n(gate + i, n - i), vf_load_n(up + i, n - i)), n - i);
}

static void rope(float *x, const float *cs, int n)
{
    const int h = n / 2;
    float *const y = x + h;
    int i = 0;
    for (; i + VL <= h; i += VL) {
        const vf a = vf_load(x + i), b = vf_load(y + i), c = vf_load(cs + i), s = vf_load(cs + h + i);
        vf_store(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store(y + i, vf_add(vf_mul(b, c), vf_mul(a, s)));
    }
    for (; i < h; i++) {
        const float a = x[i], b = y[i];
        x[i] = a * cs[i] - b * cs[h + i];
        y[i] = b * cs[i] + a * cs[h + i];
    }
}

static int argmax(const float *x, int n)
{
    vf best = vf_set1(-INFINITY);
    int i = 0;
    for (; i + VL <= n; i += VL)
        best = vf_max(vf_load(x + i), best);
    if (i < n)
        best = vf_max(vf_select(vm_first(n - i), vf_load_n(x + i, n - i), best), best);
    const vf max = vf_set1(vf_hmax(best));
    for (i = 0; i + VL <= n; i += VL) {
        const uint32_t hit = vm_bits(vm_eq(vf_load(x + i), max));
        if (hit)
            return i + __builtin_ctz(hit);
    }
    const uint32_t hit = vm_bits(vm_eq(vf_load_n(x + i, n - i), max));
    return hit && i + __builtin_ctz(hit) < n ? i + __builtin_ctz(hit) : 0;
}

/* A group: the same lane of PL_GROUP vectors. */
static int group_max(float *y, const float *x, int n)
{
    int n_groups = 0;
    for (int i = 0; i < n; n_groups += VL) {
        vf best = vf_set1(-INFINITY);
        const int end = n - i < PL_GROUP * VL ? n : i + PL_GROUP * VL;
        for (; i + VL <= end; i += VL)
            best = vf_max(vf_load(x + i), best);
        if (i < end)
            best = vf_max(vf_select(vm_first(end - i), vf_load_n(x + i, end - i), best), best);
        i = end;
        vf_store(y + n_groups, best);
    }
    return n_groups;
}

static int select_least(int32_t *index, float *y, const float *x, int n, float least)
{
    int found = 0, i = 0;
    for (; i + VL <= n; i += VL)
        for (uint32_t hits = vm_bits(vm_ge(vf_load(x + i), vf_set1(least))); hits; hits &= hits - 1) {
            index[found] = i + __builtin_ctz(hits);
            y[found] = x[index[found]];
            found++;
        }
    for (; i < n; i++)
        if (x[i] >= least) {
            index[found] = i;
            y[found++] = x[i];
        }
    return found;
}

static float exp_sum(float *y, const float *x, float max, float beta, int n)
{
    vf sum = vf_zero();
    int i = 0;
    for (; i + VL <= n; i += VL) {
        const vf e = vf_exp(vf_mul(vf_sub(vf_load(x + i), vf_set1(max)), vf_set1(beta)));
        vf_store(y + i, e);
        sum = vf_add(sum, e);
    }
    if (i < n) {
        const vf e = vf_exp(vf_mul(vf_sub(vf_load_n(x + i, n - i), vf_set1(max)), vf_set1(beta)));
        vf_store_n(y + i, e, n - i);
        sum = vf_add(sum, vf_keep(vm_first(n - i), e));
    }
    return vf_sum(sum);
}
