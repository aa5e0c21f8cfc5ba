/* Logits beside the draw: what is taken from the raw ones (log-probabilities) and what is done to a
 * copy of them first (masks, biases, penalties). */
#include "pyllama.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double pl_sum(const float *p, int n)
{
    double sum[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += p[i + j];
    for (; i < n; i++)
        sum[0] += p[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* Repetition (Keskar et al. 2019) for all tokens of the window; frequency and presence for those of
 * them that were drawn. counts [n] is written only where the window points. */
static void penalize(float *x, const struct pl_sampling *s, int32_t *counts)
{
    const int64_t end = s->n_prompt + (int64_t)s->counter;
    const int64_t first = s->last_n < 0 || s->last_n > end ? 0 : end - s->last_n;
    for (int64_t i = first; i < end; i++)
        counts[s->tokens[i]] = 0;
    for (int64_t i = first > s->n_prompt ? first : s->n_prompt; i < end; i++)
        counts[s->tokens[i]]++;
    for (int64_t i = first; i < end; i++) {
        float *const at = &x[s->tokens[i]];
        int32_t *const count = &counts[s->tokens[i]];
        if (*count >= 0)
            *at = *at > 0.0f ? *at / s->repetition : *at * s->repetition;
        if (*count > 0)
            *at = *at - s->frequency * (float)*count - s->presence;
        *count = -1;  /* done: it may come again in the window */
    }
}

const float *pl_adjust(const float *logits, int n, const struct pl_sampling *s, float *scratch)
{
    const uint8_t *const allowed = pl_allowed(s);
    if (!allowed && s->n_bias == 0 && !s->tokens)
        return logits;
    float *const x = memcpy(scratch, logits, sizeof *x * (size_t)n);
    for (int i = 0; allowed && i < n; i++)
        if (!(allowed[i / 8] >> i % 8 & 1))
            x[i] = -INFINITY;
    for (int i = 0; i < s->n_bias; i++)
        x[s->bias_token[i]] += s->bias[i];
    if (s->tokens)
        penalize(x, s, (int32_t *)(scratch + n));
    return x;
}

/* ---- log-probabilities; a logit that is no number counts as -infinity ---- */

static float number(float x) { return x == x ? x : -INFINITY; }

static int comes_before(float x, int i, float y, int j) { return x > y || (x == y && i < j); }

static int by_rank(const void *a, const void *b)
{
    const struct pl_logprob *const x = a, *const y = b;
    return comes_before(x->logprob, x->token, y->logprob, y->token) ? -1 : 1;
}

/* Moves heap[i] down to its place: a parent comes after its children. */
static void sift(struct pl_logprob *heap, int n, int i)
{
    for (int child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && by_rank(&heap[child], &heap[child + 1]) < 0)
            child++;
        if (by_rank(&heap[i], &heap[child]) > 0)
            return;
        const struct pl_logprob moved = heap[i];
        heap[i] = heap[child];
        heap[child] = moved;
        i = child;
    }
}

/* A heap of those found so far, the worst on top. */
void pl_top(const float *x, int n, struct pl_logprob *best, int k)
{
    for (int i = 0; i < k; i++)
        best[i] = (struct pl_logprob){number(x[i]), i, 0};
    for (int i = k / 2 - 1; i >= 0; i--)
        sift(best, k, i);
    for (int i = k; k > 0 && i < n; i++)
        if (x[i] > best->logprob) {
            *best = (struct pl_logprob){x[i], i, 0};
            sift(best, k, 0);
        }
    qsort(best, (size_t)k, sizeof *best, by_rank);
    for (int i = 0; i < k; i++)
        best[i].rank = i + 1;
}

static int rank_of(const float *x, int n, int token)
{
    const float y = number(x[token]);
    int rank = 1;
    for (int i = 0; i < n; i++)
        rank += comes_before(number(x[i]), i, y, token);
    return rank;
}

void pl_logprobs(const struct pl_kernels *kernels, const float *logits, int n, int token,
                 const struct pl_sampling *s, float *scratch)
{
    const float max = logits[kernels->argmax(logits, n)];
    kernels->exp_sum(scratch, logits, max, 1.0f, n);
    const double log_sum = max + log(pl_sum(scratch, n));
    s->logprobs[0] = (struct pl_logprob){logits[token], token, rank_of(logits, n, token)};
    pl_top(logits, n, s->logprobs + 1, s->n_logprobs);
    for (int i = 0; i <= s->n_logprobs; i++)
        s->logprobs[i].logprob = (float)(s->logprobs[i].logprob - log_sum);
}
