/* aotfarm.h: the C ABI of an aotfarm artifact.
 *
 * An artifact is one shared object with one exported symbol, `aotfarm_model`. It returns a table of functions and facts:
 *
 *     void *so = dlopen("resnet18.so", RTLD_NOW | RTLD_LOCAL);
 *     aotfarm_model_fn *entry = (aotfarm_model_fn *)dlsym(so, "aotfarm_model");
 *     const aotfarm_api *api = entry ? entry(AOTFARM_ABI_VERSION) : NULL;
 *
 * Tensors cross as DLPack `DLTensor`s. Every input is checked against what the artifact was compiled for; a mismatch is an
 * error with names and numbers. A session belongs to one caller at a time; different sessions run in parallel and share the
 * weights. See docs/abi.md for the whole contract.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AOTFARM_H
#define AOTFARM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a change breaks programs that were compiled against an older header. Additions at the end of a struct do not:
 * they are seen by `struct_size`. */
#define AOTFARM_ABI_VERSION 1u

/* The tensor of DLPack (https://dmlc.github.io/dlpack), layout-compatible with dlpack.h of DLPack 0.2 and newer, whose
 * include guard is respected: include dlpack.h first to use both. */
#ifndef DLPACK_DLPACK_H_

/* Kind of element. Used here: signed and unsigned integers, IEEE floats, bfloat16 and booleans of one byte. */
enum { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLBool = 6 };

/* Kind of memory. An artifact for a CPU takes kDLCPU, and host memory that CUDA or ROCm have pinned; one for an NVIDIA GPU takes these
 * and kDLCUDA, memory of the session's GPU. */
enum { kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3, kDLROCMHost = 11 };

typedef struct DLDevice {
    int32_t device_type; /* kind of memory */
    int32_t device_id;   /* which device of that kind */
} DLDevice;

typedef struct DLDataType {
    uint8_t code;   /* kind of element */
    uint8_t bits;   /* bits of one lane */
    uint16_t lanes; /* 1: no vector types here */
} DLDataType;

typedef struct DLTensor {
    void *data;           /* may have any alignment; 64 bytes is fastest (16 on a GPU) */
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;       /* `ndim` sizes; may be NULL when ndim is 0 */
    int64_t *strides;     /* in elements, or NULL for row-major and contiguous, which is what they must describe */
    uint64_t byte_offset; /* of the first element from `data` */
} DLTensor;

#endif /* DLPACK_DLPACK_H_ */

/* What a function returns. The text of the last failure on this thread is `last_error()`. */
enum {
    AOTFARM_OK = 0,
    AOTFARM_ERROR_ARGUMENT = 1,    /* a tensor or option is not what the artifact takes */
    AOTFARM_ERROR_MEMORY = 2,      /* the system or the GPU refused memory */
    AOTFARM_ERROR_BUSY = 3,        /* the session is running on another thread, or was made before a fork() */
    AOTFARM_ERROR_SYSTEM = 4,      /* the system or the GPU's driver refused something else, such as a thread */
    AOTFARM_ERROR_UNSUPPORTED = 5  /* this host lacks what the artifact was compiled for: instructions, a GPU, its driver */
};

/* One caller's use of the model: its threads and its working memory. */
typedef struct aotfarm_session aotfarm_session;

/* Runs `task(arg, i)` once for each i in 0..n, on threads of the caller's pool, and returns when all calls have returned.
 * It is best to have all n run at the same time; calls that have not started about two milliseconds after the first one are
 * left out of the run, so a smaller or busy pool is slower but never stuck. */
typedef void aotfarm_parallel_fn(void *context, uint32_t n, void (*task)(void *arg, uint32_t index), void *arg);

typedef struct aotfarm_options {
    uint64_t struct_size;          /* sizeof(aotfarm_options) */
    /* CPU artifacts; others ignore these. */
    uint32_t threads;              /* the caller's thread included; 0 = one for each core that the process may use */
    uint32_t reserved;             /* 0 */
    aotfarm_parallel_fn *parallel; /* the caller's thread pool, or NULL to let the session own its threads */
    void *parallel_context;
    /* GPU artifacts; others ignore these. */
    int32_t device;                /* which GPU, by the driver's number (as DLDevice.device_id) */
    /* All artifacts. */
    uint32_t may_write;            /* 1: runs may change the inputs in `writes`, without which a session of a model that does so is refused */
    /* GPU artifacts; others ignore it. */
    void *stream;                  /* the caller's CUstream (or cudaStream_t) to run on, or NULL for the session's own. The default stream,
                                    * whose handle is NULL, goes by the handle (void *)1, CU_STREAM_LEGACY. */
} aotfarm_options;

/* A symbolic dimension: all inputs must agree on its size, within min..max. */
typedef struct aotfarm_dim {
    const char *name;
    int64_t min, max;
} aotfarm_dim;

/* An input, an output or a state. */
typedef struct aotfarm_port {
    const char *name;
    DLDataType dtype;
    int32_t ndim;
    const int64_t *shape;         /* sizes; -1 where the size is symbolic */
    const char *const *shape_text; /* each dimension as text: "3", "batch", "2*seq + 1" */
} aotfarm_port;

/* What a step has written: see `run_watched`. */
typedef struct aotfarm_result {
    uint32_t step, output;  /* which output of which step */
    const int64_t *dims;    /* the sizes that the step's kernel was called with, which say how the data lies */
    uint32_t n_dims;
    uint32_t reserved;      /* 0 */
    const void *data;       /* host memory, until the function returns */
    uint64_t bytes;
} aotfarm_result;

/* Is told a result of a step of a watched run. It may not use the session. */
typedef void aotfarm_watch_fn(void *context, const aotfarm_result *result);

/* The table that `aotfarm_model` returns. It and all it points to live as long as the artifact is loaded. */
typedef struct aotfarm_api {
    uint32_t abi_version;
    uint32_t struct_size; /* bytes of this struct in the artifact: a member that ends beyond it does not exist */

    /* JSON text: target, graph digest, compiler version, dims, inputs, outputs, steps with the kernels chosen for each. */
    const char *metadata;
    const char *target; /* "cpu-x86_64-v3", "cuda-sm_90" */

    uint32_t n_dims, n_inputs, n_outputs, n_steps;
    const aotfarm_dim *dims;
    const aotfarm_port *inputs, *outputs;
    const char *const *steps; /* label of each kernel call of the plan, in order */

    /* What failed last on the calling thread; "" if nothing did. Valid until the thread's next failure. */
    const char *(*last_error)(void);

    /* Makes a session. `options` may be NULL: all cores, own threads; the first GPU, an own stream. On failure *session is NULL. */
    int32_t (*session_create)(const aotfarm_options *options, aotfarm_session **session);

    /* Ends a session that is not running; NULL is allowed. On a GPU it waits for what the session started. */
    void (*session_destroy)(aotfarm_session *session);

    /* Checks the shapes, element types and count of `inputs` (their data may be NULL) and writes the sizes of all dimensions
     * of all outputs, one output after the other, to `sizes`, which has room for `capacity` numbers. */
    int32_t (*output_shapes)(const DLTensor *const *inputs, uint32_t n_inputs, int64_t *sizes, uint32_t capacity);

    /* Runs the model. The outputs are the caller's memory of exactly the shapes that `output_shapes` gives; they may not overlap each
     * other or an input. On a stream of the caller, and with all tensors on the GPU, it returns when the work is in the stream; else when the
     * outputs are there. A run that succeeds advances the states of the session and writes the inputs in `writes`; one that fails does
     * neither. */
    int32_t (*run)(aotfarm_session *session, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs,
                   uint32_t n_outputs);

    /* `run`, and the seconds of each step in `step_seconds`, which has room for `n_steps` numbers. */
    int32_t (*run_timed)(aotfarm_session *session, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs,
                         uint32_t n_outputs, double *step_seconds, uint32_t n_steps);

    /* Lets the states of a session that is not running hold what they do in a fresh one. On a stream of the caller it returns when that is in
     * the stream. Without states there is nothing to do. */
    int32_t (*session_reset)(aotfarm_session *session);

    /* Buffers that a run changes and the next one reads; every session has its own. */
    uint32_t n_states, n_writes;
    const aotfarm_port *states;
    const uint32_t *writes; /* positions of the inputs that a run writes back into the caller's tensors, see `may_write` */

    /* `run`, and `watch` is told each result of each step before the next one starts, one at a time: for tools that compare an
     * artifact with its model and know from its plan how results lie. A step that is done for a few images at a time tells each part. */
    int32_t (*run_watched)(aotfarm_session *session, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs,
                           uint32_t n_outputs, aotfarm_watch_fn *watch, void *context);
} aotfarm_api;

/* The exported symbol: the table, or NULL when the artifact does not speak `abi_version`. */
typedef const aotfarm_api *aotfarm_model_fn(uint32_t abi_version);

#ifdef __cplusplus
}
#endif

#endif /* AOTFARM_H */
