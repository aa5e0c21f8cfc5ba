"""csrc/pyllama.h and csrc/kernels.h, transcribed."""
from libc.stdint cimport int32_t, int64_t, uint64_t


cdef extern from "kernels.h":
    enum:
        PL_TILE_MAX
        PL_QUERY_MAX
        PL_KV_BLOCK

    enum pl_act:
        PL_ACT_F32
        PL_ACT_BF16
        PL_ACT_I8

    enum pl_kv_dtype:
        PL_KV_F16

    struct pl_format:
        const char *name
        int block
        int block_bytes
        pl_act act
        size_t (*panel_bytes)(int k) nogil
        const void *expanded
        void (*dequantize)(float *y, const unsigned char *row, int k) nogil

    struct pl_kernels:
        const char *name
        int vl
        const pl_format **formats

    const pl_kernels *pl_kernels_at(int i, int *runs) nogil
    const pl_kernels *pl_kernels_find(const char *name) nogil
    size_t pl_act_bytes(pl_act act, int k) nogil
    size_t pl_kv_bytes(pl_kv_dtype dtype, int dim) nogil
    int64_t pl_cache_bytes(int level)
    int pl_v_dim(int head_dim) nogil


cdef extern from "pyllama.h":
    struct pl_team:
        pass

    struct pl_supply:
        pass

    enum pl_status:
        PL_OK
        PL_CANCELLED
        PL_SHORT_READ
        PL_READ_ERROR
        PL_NO_MEMORY

    struct pl_matrix:
        pass

    struct pl_load:
        pass

    struct pl_loading:
        int64_t done
        int stop, failed

    struct pl_op:
        pass

    struct pl_buffer:
        pass

    struct pl_kv:
        char *base
        int64_t block_bytes, head_bytes, k_bytes
        int32_t dtype, n_blocks

    struct pl_profile:
        pass

    struct pl_program:
        const pl_kernels *kernels
        pl_team *team
        const char *arena
        char *workspace
        const pl_op *ops
        const pl_buffer *buffers
        const pl_matrix *matrices
        const int64_t *vectors
        const double *inv_freq
        pl_supply *supply
        char *scratch
        int64_t scratch_bytes, partial_offset, partial_bytes, weight_bytes, chunk_bytes
        int32_t n_ops, head_op, n_threads, head_rows, private_rows
        int32_t n_layers, n_heads, n_kv_heads, head_dim
        pl_kv kv
        unsigned parity
        pl_profile *profile

    enum:
        PL_SAMPLE_SCRATCH
        PL_NO_TOKEN

    struct pl_logprob:
        pass

    struct pl_sampling:
        pass

    struct pl_batch:
        const int32_t *token
        const int32_t *pos
        const int32_t *seq
        const int32_t *block_table
        const int32_t *output
        const pl_sampling *sampling
        int32_t *sampled
        float *logits
        float *sample_scratch
        int32_t n, m, max_blocks
        double seconds

    pl_team *pl_team_new(int n_threads) nogil
    void pl_team_free(pl_team *team) nogil
    void pl_team_enter(pl_team *team, void (*main)(void *) noexcept, void *arg) nogil
    int pl_team_size(const pl_team *team) nogil
    void *pl_map(size_t n, int hugepages) nogil
    void pl_unmap(void *p, size_t n) nogil
    int pl_lock(const void *p, size_t n) nogil
    pl_status pl_load_matrices(pl_team *team, const pl_kernels *kernels, char *arena, int n,
                               const pl_matrix *matrices, const pl_load *loads, pl_loading *loading) nogil
    pl_status pl_run(pl_program *program, pl_batch *batch) nogil
    void pl_set_cancel(pl_batch *batch, int cancel) nogil
    int pl_sample(const pl_kernels *kernels, const float *logits, int n, const pl_sampling *s,
                  float *scratch) nogil
    const float *pl_adjust(const float *logits, int n, const pl_sampling *s, float *scratch) nogil
    double pl_uniform(uint64_t seed, uint64_t counter) nogil
    double pl_peak(pl_team *team, const pl_kernels *kernels, pl_act act, double seconds) nogil
    double pl_bandwidth(pl_team *team, const pl_kernels *kernels, const void *memory, size_t n, double seconds) nogil
