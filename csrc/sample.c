/* Drawing the next token. The whole vocabulary is looked at, and never sorted: a cut sorts only the
 * bin of nearly equal keys that it falls into. */
#include "pyllama.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
    const uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};
    memcpy(c, next, sizeof next);
}

double pl_uniform(uint64_t seed, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int i = 0; i < 10; i++) {
        philox_round(c, k);
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

struct candidate { float key; int32_t id; };

static int descending(const void *a, const void *b)
{
    const struct candidate *const x = a, *const y = b;
    if (x->key != y->key)
        return x->key < y->key ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

enum { N_BINS = 1024 };  /* of keys in [0, 1]: the exponent and three bits, the largest first */

static int bin_of(float key)
{
    uint32_t u;
    memcpy(&u, &key, 4);
    return u > 0x3f800000 ? 0 : (int)((0x3f800000 - u) >> 20);
}

/* Zeroes all p but those of the largest keys: at most `count`, and no more than it takes for their
 * sum to reach `mass`. Of equals the lower index stays. found [n] */
static void cut(float *p, const float *key, int n, int64_t count, double mass, struct candidate *found)
{
    int64_t counts[N_BINS] = {0};
    double masses[N_BINS] = {0};
    for (int i = 0; i < n; i++)
        if (p[i] > 0.0f) {
            counts[bin_of(key[i])]++;
            masses[bin_of(key[i])] += p[i];
        }
    int bin = 0, n_found = 0;
    for (; bin < N_BINS && counts[bin] < count && masses[bin] < mass; bin++) {
        count -= counts[bin];
        mass -= masses[bin];
    }
    if (bin == N_BINS)
        return;
    for (int i = 0; i < n; i++)
        if (p[i] > 0.0f && bin_of(key[i]) >= bin) {
            if (bin_of(key[i]) == bin)
                found[n_found++] = (struct candidate){key[i], i};
            else
                p[i] = 0.0f;
        }
    qsort(found, (size_t)n_found, sizeof *found, descending);
    for (int i = 0; i < n_found; i++) {
        float *const at = &p[found[i].id];
        if (count <= 0 || mass <= 0.0)
            *at = 0.0f;
        count--;
        mass -= *at;
    }
}

/* Locally typical sampling (Meister et al. 2022): cuts p = e^(beta (x - max)) down to those whose
 * surprise -ln p is nearest to its mean, the entropy. keys [n] may be x */
static void cut_typical(float *p, const float *x, int n, float max, float beta, float mass, float *keys,
                        struct candidate *found)
{
    const double sum = pl_sum(p, n);
    double surprise = 0.0;  /* less ln(sum), which p has too */
    for (int i = 0; i < n; i++)
        if (p[i] > 0.0f) {
            const float log_p = beta * (x[i] - max);
            surprise -= (double)p[i] * (log_p > -87.0f ? log_p : -87.0f);  /* where exp_sum ends */
        }
    const float mean = (float)exp(-surprise / sum);
    for (int i = 0; i < n; i++)
        keys[i] = p[i] < mean ? p[i] / mean : mean / p[i];
    cut(p, keys, n, n, fmax(mass, FLT_MIN) * sum, found);  /* one stays even if mass became 0 in float */
}

/* The index at which the running sum of p passes u times its total; -1: nothing may be drawn. */
static int draw(const float *p, int n, double u)
{
    enum { BLOCK = 512 };
    double left = u * pl_sum(p, n);
    for (int i = 0; i < n; i += BLOCK) {
        const int m = n - i < BLOCK ? n - i : BLOCK;
        const double block = pl_sum(p + i, m);
        if (left >= block) {
            left -= block;
            continue;
        }
        for (int j = i; j < i + m; j++) {
            if (p[j] > left)
                return j;
            left -= p[j];
        }
    }
    for (int i = n - 1; i >= 0; i--)  /* rounding ate the last of u: the last that may be drawn */
        if (p[i] > 0.0f)
            return i;
    return -1;
}

/* The largest of adjusted logits x, the first of equals; PL_NO_TOKEN if no raw one is a number. */
static int best_of(const struct pl_kernels *kernels, const float *x, const float *logits, int n, const uint8_t *allowed)
{
    const int best = kernels->argmax(x, n);
    if (x[best] > -INFINITY)
        return best;
    if (!(logits[kernels->argmax(logits, n)] > -INFINITY))
        return PL_NO_TOKEN;
    int first = 0;  /* what is allowed has no number */
    while (allowed && first < n - 1 && !(allowed[first / 8] >> first % 8 & 1))
        first++;
    return first;
}

/* Logits that may be drawn from: all, or those that the cuts can leave, with their tokens. */
struct choice { const float *x; const int32_t *token; int n; };

struct places { float *x, *p; struct candidate *found; int32_t *token; float *few; };

static struct places places_in(float *scratch, int n)
{
    float *const found = scratch + 2 * (size_t)n;
    return (struct places){scratch, scratch + n, (struct candidate *)found, (int32_t *)(found + 2 * (size_t)n), found + 3 * (size_t)n};
}

/* What is below this has no chance: as many groups have a larger maximum as top_k leaves, or it is below min_p.
 * -infinity: nothing is known before all is summed up. */
static float least_chance(const struct pl_kernels *kernels, const float *x, int n, const struct pl_sampling *s,
                          float max, struct places at)
{
    if (s->top_k > 0 && s->top_k <= n / (2 * PL_GROUP)) {
        float *const maxima = (float *)at.found;
        struct pl_logprob *const best = (struct pl_logprob *)(maxima + n / PL_GROUP + PL_LANES_MAX);
        pl_top(maxima, kernels->group_max(maxima, x, n), best, s->top_k);
        return best[s->top_k - 1].logprob;
    }
    if (s->min_p > 0.0f && s->typical_p >= 1.0f && s->top_p >= 1.0f)
        return max + (logf(s->min_p) - 0.01f) * s->temperature;  /* what is near is looked at exactly */
    return -INFINITY;
}

/* p <- e^(beta (x - max)) of the choice with everything cut that top_k, typical_p, top_p and min_p cut. */
static struct choice cut_all(const struct pl_kernels *kernels, const float *x, int n, const struct pl_sampling *s,
                             float max, float beta, struct places at)
{
    struct choice c = {x, NULL, n};
    const float least = least_chance(kernels, x, n, s, max, at);
    if (least > -INFINITY)
        c = (struct choice){at.few, at.token, kernels->select(at.token, at.few, x, n, least)};
    kernels->exp_sum(at.p, c.x, max, beta, c.n);
    for (int i = 0; c.x == at.x && i < n; i++)  /* adjusted: what is masked must come to 0, as exp_sum never does */
        at.p[i] = x[i] > -INFINITY ? at.p[i] : 0.0f;
    if (s->top_k > 0 && s->top_k < c.n)
        cut(at.p, at.p, c.n, s->top_k, INFINITY, at.found);
    if (s->typical_p < 1.0f)
        cut_typical(at.p, c.x, c.n, max, beta, s->typical_p, c.token ? at.few : at.x, at.found);
    if (s->top_p < 1.0f) {
        const double sum = pl_sum(at.p, c.n);
        if (!c.token && s->typical_p >= 1.0f) {  /* all of what is less together is no more than what is cut */
            c = (struct choice){NULL, at.token, kernels->select(at.token, at.few, at.p, n, (float)((1.0 - s->top_p) * sum / n * 0.99))};
            memcpy(at.p, at.few, sizeof *at.p * (size_t)c.n);
        }
        cut(at.p, at.p, c.n, c.n, s->top_p * sum, at.found);
    }
    const float low = s->min_p > 0.0f ? s->min_p * at.p[kernels->argmax(at.p, c.n)] : 0.0f;
    for (int i = 0; low > 0.0f && i < c.n; i++)
        at.p[i] = at.p[i] >= low ? at.p[i] : 0.0f;
    return c;
}

static int draw_token(const struct pl_kernels *kernels, const float *logits, int n,
                      const struct pl_sampling *s, float *scratch)
{
    const float *const x = pl_adjust(logits, n, s, scratch);
    const int best = best_of(kernels, x, logits, n, pl_allowed(s));
    const float beta = 1.0f / s->temperature;  /* infinite for a subnormal temperature */
    if (best < 0 || !(s->temperature > 0.0f) || !isfinite(beta) || s->top_k == 1 || !isfinite(x[best]))
        return best;
    const struct places at = places_in(scratch, n);
    const struct choice c = cut_all(kernels, x, n, s, x[best], beta, at);
    const int i = draw(at.p, c.n, pl_uniform(s->seed, s->counter));
    return i < 0 ? best : c.token ? c.token[i] : i;
}

int pl_sample(const struct pl_kernels *kernels, const float *logits, int n,
              const struct pl_sampling *s, float *scratch)
{
    const int token = s->target >= 0 ? s->target : draw_token(kernels, logits, n, s, scratch);
    if (s->logprobs && token >= 0)
        pl_logprobs(kernels, logits, n, token, s, scratch);
    return token;
}
