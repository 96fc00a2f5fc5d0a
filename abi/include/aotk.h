/* The kernel ABI: what every rendered CPU kernel is called with. Opens every translation unit; includes no system header,
 * because parsing those costs more than compiling the kernel. */
typedef __INT64_TYPE__ int64_t;
typedef __INT32_TYPE__ int32_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;

#define AOTK_INLINE static inline __attribute__((always_inline, unused))
/* Unroll the next loop fully; its count is a constant. */
#define AOTK_UNROLL _Pragma("GCC unroll 64")
/* Unroll the next loop by eight: as fast as all sixteen steps of a block of a product, and a third less to compile. */
#define AOTK_UNROLL_8 _Pragma("GCC unroll 8")
/* Before an innermost loop whose turns are independent: make vectors of it. Nothing else is vectorised: most kernels are written
 * in vectors, and the search for more would take a third of the compiler's time. */
#define AOTK_SIMD _Pragma("omp simd")

/* One kernel call as seen by one thread of the team. Every thread calls the kernel with the same pointers but its own
 * `thread` and `scratch`. The caller puts a barrier between kernels; inside one, use aotk_barrier. Weights and workspaces are 64-byte
 * aligned; an activation begins where any image of a batch may, so an image layout is aligned to its block and a plain one to an element.
 * All may be read (not written) up to 64 bytes past their end. Workspace contents are undefined on entry. */
typedef struct aotk_call {
    const void *const *in;      /* activations, in the task's order */
    const void *const *weight;  /* raw weights, in the task's order; null when the kernel has a pack function */
    const void *packed;         /* what <symbol>_pack wrote, or null */
    void *const *out;           /* outputs, in the task's order */
    void *shared;               /* workspace of the team */
    void *scratch;              /* workspace of this thread */
    const int64_t *dim;         /* the task's dynamic sizes */
    const int64_t *tune;        /* the candidate's run-time integers */
    int32_t thread, threads;
    void *team;
    void (*barrier)(void *team, int32_t thread);
} aotk_call;

AOTK_INLINE void aotk_barrier(const aotk_call *c) {
    if (c->threads > 1) c->barrier(c->team, c->thread);
}

/* This thread's share [*from, *to) of n equal pieces of work. */
AOTK_INLINE void aotk_share(const aotk_call *c, int64_t n, int64_t *from, int64_t *to) {
    *from = n * c->thread / c->threads;
    *to = n * (c->thread + 1) / c->threads;
}
