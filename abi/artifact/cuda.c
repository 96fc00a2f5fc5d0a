/* The session of an artifact for an NVIDIA GPU: opens the driver, loads the kernels and the weights once for each GPU, and runs the plan as a
 * graph of kernels. Follows aotfarm.h and common.c, and is followed by the generated tables.
 *
 * The driver's interface is declared here, as far as it is used, and its library is opened at run time: an artifact is built without any
 * toolkit, and loads on hosts without a GPU, where it says what is missing. */

#include <dlfcn.h>
#include <pthread.h>

/* Every buffer of the session starts on a multiple of this many bytes. */
#define RT_ALIGN 256
/* What kernels need of the caller's tensors: their start on a multiple of RT_TENSOR_ALIGN bytes, and RT_PAST bytes past their end readable. The
 * driver maps memory in pieces of RT_DEVICE_PAGE bytes, so that is so unless the tensor ends with such a piece. Others are copied. */
#define RT_TENSOR_ALIGN 16
#define RT_PAST 64
#define RT_DEVICE_PAGE ((uint64_t)2 << 20)
/* Host memory is copied through pinned memory in pieces, so that the transfer of one goes on while the next is copied. */
#define RT_PIECE ((uint64_t)1 << 20)
/* Sizes whose tables and graph a session keeps; the one that was not used for the longest time makes room. */
#define RT_PLANS 32
#define RT_GPUS 64
/* Looks at a mark for one question to the driver. */
#define RT_LOOKS 4096
/* Kernels of this and later architectures overlap: each waits inside for the one before (see aotk.cuh). */
#define RT_OVERLAP_SM 90

/* ---- the driver ---- */

typedef uint64_t cu_address;
typedef struct cu_context *cu_context;
typedef struct cu_module *cu_module;
typedef struct cu_function *cu_function;
typedef struct cu_stream *cu_stream;
typedef struct cu_event *cu_event;
typedef struct cu_graph *cu_graph;
typedef struct cu_node *cu_node;
typedef struct cu_exec *cu_exec;

enum {
    CU_OUT_OF_MEMORY = 2,
    CU_NO_DEVICE = 100,
    CU_INVALID_IMAGE = 200,
    CU_NO_BINARY_FOR_GPU = 209,
    CU_NOT_READY = 600,
    CU_COMPUTE_MAJOR = 75, /* attributes of a device */
    CU_COMPUTE_MINOR = 76,
    CU_MAX_DYNAMIC_SHARED = 8, /* attributes of a function */
    CU_LARGE_CLUSTER = 14,
    CU_LAUNCH_CLUSTER = 4, /* attributes of a launch */
    CU_LAUNCH_OVERLAP = 6,
    CU_STREAM_NON_BLOCKING = 1,
    CU_HOST_PORTABLE = 1,
    CU_CAPTURE_RELAXED = 2,
    CU_CAPTURE_ACTIVE = 1,
};

typedef struct cu_attribute {
    int32_t id, pad;
    union {
        uint32_t cluster[3];
        int32_t overlap;
        char size[64];
    } value;
} cu_attribute;

typedef struct cu_config {
    uint32_t grid[3], block[3], shared_bytes;
    cu_stream stream;
    cu_attribute *attributes;
    uint32_t n_attributes;
} cu_config;

typedef struct cu_node_params {
    cu_function function;
    uint32_t grid[3], block[3], shared_bytes;
    void **params, **extra;
    void *kernel;
    cu_context context;
} cu_node_params;

/* What is called: a name here, the driver's versioned entry point, its arguments. */
#define RT_DRIVER(X)                                                                            \
    X(init, cuInit, (uint32_t))                                                                 \
    X(version, cuDriverGetVersion, (int32_t *))                                                 \
    X(error_name, cuGetErrorName, (int32_t, const char **))                                     \
    X(error_text, cuGetErrorString, (int32_t, const char **))                                   \
    X(device_count, cuDeviceGetCount, (int32_t *))                                              \
    X(device_get, cuDeviceGet, (int32_t *, int32_t))                                            \
    X(device_name, cuDeviceGetName, (char *, int32_t, int32_t))                                 \
    X(device_attribute, cuDeviceGetAttribute, (int32_t *, int32_t, int32_t))                    \
    X(context_retain, cuDevicePrimaryCtxRetain, (cu_context *, int32_t))                        \
    X(context_release, cuDevicePrimaryCtxRelease_v2, (int32_t))                                 \
    X(context_current, cuCtxGetCurrent, (cu_context *))                                         \
    X(context_push, cuCtxPushCurrent_v2, (cu_context))                                          \
    X(context_pop, cuCtxPopCurrent_v2, (cu_context *))                                          \
    X(context_synchronize, cuCtxSynchronize, (void))                                            \
    X(module_load, cuModuleLoadData, (cu_module *, const void *))                               \
    X(module_unload, cuModuleUnload, (cu_module))                                               \
    X(module_function, cuModuleGetFunction, (cu_function *, cu_module, const char *))           \
    X(function_set, cuFuncSetAttribute, (cu_function, int32_t, int32_t))                        \
    X(memory_info, cuMemGetInfo_v2, (size_t *, size_t *))                                       \
    X(memory_alloc, cuMemAlloc_v2, (cu_address *, size_t))                                      \
    X(memory_free, cuMemFree_v2, (cu_address))                                                  \
    X(host_alloc, cuMemHostAlloc, (void **, size_t, uint32_t))                                  \
    X(host_free, cuMemFreeHost, (void *))                                                       \
    X(copy_up, cuMemcpyHtoD_v2, (cu_address, const void *, size_t))                             \
    X(copy_up_async, cuMemcpyHtoDAsync_v2, (cu_address, const void *, size_t, cu_stream))       \
    X(copy_down_async, cuMemcpyDtoHAsync_v2, (void *, cu_address, size_t, cu_stream))           \
    X(copy_async, cuMemcpyDtoDAsync_v2, (cu_address, cu_address, size_t, cu_stream))            \
    X(fill_async, cuMemsetD8Async, (cu_address, uint8_t, size_t, cu_stream))                    \
    X(stream_create, cuStreamCreate, (cu_stream *, uint32_t))                                   \
    X(stream_destroy, cuStreamDestroy_v2, (cu_stream))                                          \
    X(stream_synchronize, cuStreamSynchronize, (cu_stream))                                     \
    X(stream_query, cuStreamQuery, (cu_stream))                                                 \
    X(write_value, cuStreamWriteValue32_v2, (cu_stream, cu_address, uint32_t, uint32_t))        \
    X(stream_capturing, cuStreamIsCapturing, (cu_stream, int32_t *))                            \
    X(capture_mode, cuThreadExchangeStreamCaptureMode, (int32_t *))                             \
    X(event_create, cuEventCreate, (cu_event *, uint32_t))                                      \
    X(event_destroy, cuEventDestroy_v2, (cu_event))                                             \
    X(event_record, cuEventRecord, (cu_event, cu_stream))                                       \
    X(event_elapsed, cuEventElapsedTime, (float *, cu_event, cu_event))                         \
    X(launch, cuLaunchKernelEx, (const cu_config *, cu_function, void **, void **))

/* What graphs need, CUDA 12.3 for the last; without them kernels are launched one by one. */
#define RT_DRIVER_GRAPHS(X)                                                                     \
    X(capture_begin, cuStreamBeginCapture_v2, (cu_stream, int32_t))                             \
    X(capture_end, cuStreamEndCapture, (cu_stream, cu_graph *))                                 \
    X(graph_destroy, cuGraphDestroy, (cu_graph))                                                \
    X(graph_instantiate, cuGraphInstantiateWithFlags, (cu_exec *, cu_graph, unsigned long long)) \
    X(graph_launch, cuGraphLaunch, (cu_exec, cu_stream))                                        \
    X(exec_destroy, cuGraphExecDestroy, (cu_exec))                                              \
    X(exec_set_kernel, cuGraphExecKernelNodeSetParams_v2, (cu_exec, cu_node, const cu_node_params *)) \
    X(capture_info, cuStreamGetCaptureInfo_v3,                                                  \
      (cu_stream, int32_t *, uint64_t *, cu_graph *, const cu_node **, const void **, size_t *))

static struct {
#define RT_MEMBER(name, symbol, arguments) int32_t(*name) arguments;
    RT_DRIVER(RT_MEMBER)
    RT_DRIVER_GRAPHS(RT_MEMBER)
#undef RT_MEMBER
    bool graphs;
    int32_t cuda;  /* the driver's version: 12040 for 12.4 */
    pid_t process; /* that opened it; 0 until then */
} cu;

/* ---- tables of this kind of artifact ---- */

/* `times * max(1, ceil(mul * product of dims / div))` blocks; dims are indices of the step's. */
typedef struct rt_axis {
    int64_t times, mul, div;
    const uint32_t *dims;
    uint32_t n_dims;
} rt_axis;

typedef struct rt_launch {
    rt_axis grid[3];
    uint32_t cluster[3], threads, shared_bytes;
} rt_launch;

/* A kernel's code. */
typedef struct rt_function {
    uint32_t cubin;
    const char *symbol;
    uint32_t shared_bytes, cluster; /* the most of any launch */
} rt_function;

#ifdef RT_VENDOR
/* Steps that a library of NVIDIA's does: see vendor.c, which is part of artifacts with such steps alone. RT_VENDOR says which libraries. */
enum { RT_CUDNN = 1, RT_CUBLASLT = 2, RT_LIBRARY_FAILED = -1000 /* with the text set; no error of the driver */ };

typedef struct rt_vendor rt_vendor;           /* what is asked of it */
typedef struct rt_vendor_call rt_vendor_call; /* at bound sizes */

/* The libraries as a session uses them. */
typedef struct rt_vendor_session {
    void *dnn, *blas;
    cu_address workspace;
    uint64_t workspace_bytes;
} rt_vendor_session;
#endif

struct rt_kernel {
    uint32_t function;
    const rt_launch *launch;
    const uint64_t *weights; /* offsets in the weight section */
#ifdef RT_VENDOR
    const rt_vendor *vendor; /* what is done in place of the function; NULL for a kernel */
#endif
};

struct rt_target {
    uint32_t sm, n_cubins, n_functions;
    const unsigned char *const *cubins;
    const rt_function *functions;
    uint64_t weights_bytes, workspace_bytes;
};

static const struct rt_target rt_target;

/* ---- errors ---- */

/* Appends what the driver said. */
static __attribute__((format(printf, 2, 3))) int32_t rt_fail_cuda(int32_t error, const char *format, ...) {
    char what[640];
    const char *name = NULL, *text = NULL;
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    cu.error_name(error, &name);
    cu.error_text(error, &text);
    return rt_fail(error == CU_OUT_OF_MEMORY ? AOTFARM_ERROR_MEMORY : AOTFARM_ERROR_SYSTEM, "%s: %s (%s)", what,
                   name != NULL ? name : "an unknown error", text != NULL ? text : "no text");
}

static int32_t rt_fail_forked(void) {
    return rt_fail(AOTFARM_ERROR_BUSY, "the session was made before a fork(), which the GPU's driver does not survive: run it in the parent");
}

/* ---- GPUs ---- */

/* What all sessions on one GPU share. */
typedef struct rt_gpu {
    uint32_t users;
    int32_t index, device;
    char name[96];
    cu_context context;
    cu_module *modules;
    cu_function *functions;
    cu_address weights;
} rt_gpu;

static pthread_mutex_t rt_lock = PTHREAD_MUTEX_INITIALIZER; /* of `cu` and `rt_gpus` while they change */
static rt_gpu *rt_gpus[RT_GPUS];

/* Opens the driver, once; the lock is held. */
static int32_t rt_open_driver(void) {
    const char *target = rt_model.api->target;
    if (cu.process == getpid()) return AOTFARM_OK;
    if (cu.process != 0)
        return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "the GPU's driver was opened before a fork(), which it does not survive: make sessions in one process only");
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "no NVIDIA driver: %s; this artifact is made for %s and needs a driver for CUDA 12.0 or newer",
                       why != NULL ? why : "libcuda.so.1 cannot be loaded", target);
    }
    const char *missing = NULL;
#define RT_LOAD(name, symbol, arguments) \
    if (!(*(void **)&cu.name = dlsym(library, #symbol)) && missing == NULL) missing = #symbol;
    RT_DRIVER_GRAPHS(RT_LOAD)
    cu.graphs = missing == NULL;
    missing = NULL;
    RT_DRIVER(RT_LOAD)
#undef RT_LOAD
    if (cu.version == NULL || cu.version(&cu.cuda) != 0) cu.cuda = 0;
    if (missing != NULL)
        return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "the NVIDIA driver is too old: it is for CUDA %d.%d and has no %s; this artifact needs 12.0 or newer",
                       cu.cuda / 1000, cu.cuda % 1000 / 10, missing);
    int32_t error = cu.init(0);
    if (error == CU_NO_DEVICE) return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "this artifact is made for %s, and this host has no NVIDIA GPU", target);
    if (error != 0) {
        rt_fail_cuda(error, "the NVIDIA driver does not start, and this artifact is made for %s", target);
        return AOTFARM_ERROR_UNSUPPORTED;
    }
    cu.process = getpid();
    return AOTFARM_OK;
}

/* Code for an architecture runs on later ones of the same generation, but for architecture-specific code, which kernels are from 9.0 on. */
static bool rt_runs_on(int32_t sm) {
    int32_t made_for = (int32_t)rt_target.sm;
    return sm == made_for || (made_for < 90 && sm / 10 == made_for / 10 && sm > made_for);
}

/* Loads the kernels and the weights; the context is current. What was loaded before a failure is the caller's to free. */
static int32_t rt_load(rt_gpu *gpu) {
    int32_t error;
    for (uint32_t i = 0; i < rt_target.n_cubins; i++) {
        error = cu.module_load(&gpu->modules[i], rt_target.cubins[i]);
        if (error == CU_INVALID_IMAGE || error == CU_NO_BINARY_FOR_GPU)
            return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "the NVIDIA driver is too old: it is for CUDA %d.%d, and cannot load the kernels of this artifact for %s",
                           cu.cuda / 1000, cu.cuda % 1000 / 10, rt_model.api->target);
        if (error != 0) return rt_fail_cuda(error, "GPU %d (%s) cannot load the kernels", gpu->index, gpu->name);
    }
    for (uint32_t i = 0; i < rt_target.n_functions; i++) {
        const rt_function *f = &rt_target.functions[i];
        if ((error = cu.module_function(&gpu->functions[i], gpu->modules[f->cubin], f->symbol)) != 0)
            return rt_fail_cuda(error, "the kernel `%s` is missing in its code", f->symbol);
        /* More than 48 KiB of shared memory, and more than 8 blocks in a cluster, must be asked for. */
        if (f->shared_bytes > 48 << 10 && (error = cu.function_set(gpu->functions[i], CU_MAX_DYNAMIC_SHARED, (int32_t)f->shared_bytes)) != 0)
            return rt_fail_cuda(error, "GPU %d (%s) does not give %u bytes of shared memory to `%s`", gpu->index, gpu->name, f->shared_bytes,
                                f->symbol);
        if (f->cluster > 8 && (error = cu.function_set(gpu->functions[i], CU_LARGE_CLUSTER, 1)) != 0)
            return rt_fail_cuda(error, "GPU %d (%s) has no clusters of %u blocks, which `%s` needs", gpu->index, gpu->name, f->cluster, f->symbol);
    }
    size_t bytes = rt_target.weights_bytes + RT_ALIGN, available = 0, total = 0;
    if ((error = cu.memory_alloc(&gpu->weights, bytes)) != 0) {
        gpu->weights = 0;
        cu.memory_info(&available, &total);
        return rt_fail_cuda(error, "GPU %d (%s) cannot hold the weights: they take %zu bytes, and %zu of %zu are free", gpu->index, gpu->name, bytes,
                            available, total);
    }
    /* A copy from pageable memory returns while its end is still under way, and a stream of the caller's may not wait for it by itself. */
    if (rt_target.weights_bytes > 0 && ((error = cu.copy_up(gpu->weights, aotfarm_weights, rt_target.weights_bytes)) != 0 ||
                                        (error = cu.context_synchronize()) != 0))
        return rt_fail_cuda(error, "cannot copy the weights to GPU %d (%s)", gpu->index, gpu->name);
    return AOTFARM_OK;
}

/* Frees what is loaded and the GPU's record. The lock is held. */
static void rt_unload(rt_gpu *gpu) {
    if (gpu->context != NULL) {
        if (cu.context_push(gpu->context) == 0) {
            if (gpu->weights != 0) cu.memory_free(gpu->weights);
            for (uint32_t i = 0; gpu->modules != NULL && i < rt_target.n_cubins; i++)
                if (gpu->modules[i] != NULL) cu.module_unload(gpu->modules[i]);
            cu_context popped;
            cu.context_pop(&popped);
        }
        cu.context_release(gpu->device);
    }
    free(gpu->modules);
    free(gpu->functions);
    free(gpu);
}

/* Fills in a new record. The lock is held. */
static int32_t rt_open(rt_gpu *gpu, int32_t index) {
    int32_t major = 0, minor = 0, error;
    cu_context popped;
    gpu->index = index;
    gpu->modules = calloc((size_t)rt_target.n_cubins + 1, sizeof *gpu->modules);
    gpu->functions = calloc((size_t)rt_target.n_functions + 1, sizeof *gpu->functions);
    if (gpu->modules == NULL || gpu->functions == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the tables of a GPU");
    if ((error = cu.device_get(&gpu->device, index)) != 0 || (error = cu.device_name(gpu->name, sizeof gpu->name, gpu->device)) != 0 ||
        (error = cu.device_attribute(&major, CU_COMPUTE_MAJOR, gpu->device)) != 0 ||
        (error = cu.device_attribute(&minor, CU_COMPUTE_MINOR, gpu->device)) != 0)
        return rt_fail_cuda(error, "cannot ask what GPU %d is", index);
    if (!rt_runs_on(10 * major + minor))
        return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "this artifact is made for %s (compute capability %u.%u), and GPU %d (%s) has compute capability %d.%d",
                       rt_model.api->target, rt_target.sm / 10, rt_target.sm % 10, index, gpu->name, major, minor);
    if ((error = cu.context_retain(&gpu->context, gpu->device)) != 0) {
        gpu->context = NULL;
        return rt_fail_cuda(error, "GPU %d (%s) cannot be opened", index, gpu->name);
    }
    if ((error = cu.context_push(gpu->context)) != 0) return rt_fail_cuda(error, "GPU %d (%s) cannot be used", index, gpu->name);
    int32_t status = rt_load(gpu);
    cu.context_pop(&popped);
    return status;
}

/* One more user of a GPU. */
static int32_t rt_acquire(int32_t index, rt_gpu **result) {
    int32_t count = 0, status, error;
    pthread_mutex_lock(&rt_lock);
    if ((status = rt_open_driver())) goto out;
    if ((error = cu.device_count(&count)) != 0) {
        status = rt_fail_cuda(error, "cannot count the GPUs");
    } else if (index < 0 || index >= count || index >= RT_GPUS) {
        status = count == 0 ? rt_fail(AOTFARM_ERROR_UNSUPPORTED, "this artifact is made for %s, and this host has no NVIDIA GPU", rt_model.api->target)
                            : rt_fail(AOTFARM_ERROR_ARGUMENT, "options.device is %d, but this host has %d GPU%s: 0..%d", index, count,
                                      count == 1 ? "" : "s", count - 1);
    } else if (rt_gpus[index] != NULL) {
        rt_gpus[index]->users++;
    } else {
        rt_gpu *gpu = calloc(1, sizeof *gpu);
        status = gpu == NULL ? rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the record of a GPU") : rt_open(gpu, index);
        if (gpu != NULL && status) {
            rt_unload(gpu);
        } else if (gpu != NULL) {
            gpu->users = 1;
            rt_gpus[index] = gpu;
        }
    }
    if (!status) *result = rt_gpus[index];
out:
    pthread_mutex_unlock(&rt_lock);
    return status;
}

/* One user less; with the last one go the kernels and the weights. */
static void rt_release(rt_gpu *gpu) {
    pthread_mutex_lock(&rt_lock);
    if (--gpu->users == 0) {
        rt_gpus[gpu->index] = NULL;
        rt_unload(gpu);
    }
    pthread_mutex_unlock(&rt_lock);
}

/* ---- sessions ---- */

/* One kernel call at bound sizes. */
typedef struct rt_call {
    cu_function function;
    const rt_launch *launch;
    uint32_t grid[3];
    uint64_t *words; /* its parameter: pointers to inputs, weights, outputs, the workspace; the dims */
    cu_node node;    /* in the graph */
#ifdef RT_VENDOR
    rt_vendor_call *vendor;
#endif
} rt_call;

/* All that follows from one assignment of sizes. */
typedef struct rt_plan {
    uint64_t used;     /* when it was last, by the session's count of changes */
    int64_t *symbols;
    uint64_t *tensors; /* the inputs, outputs and writes that the words now point to */
    rt_call *calls;
    cu_exec exec;      /* NULL until its first use */
    cu_graph graph;    /* what `exec` was made of: nodes are named by it */
    bool plain;        /* a graph was refused: kernels are launched one by one */
#ifdef RT_VENDOR
    bool warm;         /* its first run is over, in which libraries load their code: that cannot be captured */
#endif
} rt_plan;

/* Memory of the session for one tensor of the caller. */
typedef struct rt_place {
    cu_address device;
    uint64_t device_bytes;
    char *pinned;
    uint64_t pinned_bytes;
    int32_t type; /* of the caller's memory in this run */
} rt_place;

struct aotfarm_session {
    rt_front front;
    rt_gpu *gpu;
    cu_stream stream, own, capture; /* what runs go to: `own` or the caller's; where graphs are captured */
    bool capturing;                 /* the caller's stream is, in this run */
    cu_address arena;               /* slots and workspace */
    uint64_t workspace;             /* offset in it */
    rt_region *slots, *new_slots;
    cu_address states; /* two pieces: what the states hold before a run, and what they hold after it, which then is copied to the first */
    rt_place *places;  /* of inputs, then outputs, then writes */
    uint32_t *points;
    rt_plan *plans[RT_PLANS], *plan;
    uint64_t changes;
    cu_event *events; /* around the steps of a timed run */
    _Atomic uint32_t *mark; /* pinned; the stream writes `marks` to it at the end of a run */
    uint32_t marks;
#ifdef RT_VENDOR
    rt_vendor_session vendor;
#endif
};

#ifdef RT_VENDOR
static int32_t rt_vendor_open(rt_vendor_session *v);
static void rt_vendor_close(rt_vendor_session *v);
static int32_t rt_vendor_describe(aotfarm_session *s, const rt_kernel *kernel, const char *step, const uint64_t *dims, rt_vendor_call **result);
static void rt_vendor_drop(rt_vendor_call *c);
static int32_t rt_vendor_run(const rt_vendor_call *c, const rt_step *step, const uint64_t *words, cu_stream stream);
#endif

static int32_t rt_check_device(const aotfarm_session *s, const char *kind, const aotfarm_port *port, DLDevice device) {
    int32_t type = (int32_t)device.device_type;
    if (type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost) return AOTFARM_OK;
    if (type != kDLCUDA)
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: lies on a device of DLPack type %d, but this artifact takes memory of the host (1) and of CUDA GPUs (2)",
                       kind, port->name, type);
    if (s == NULL || device.device_id == s->gpu->index) return AOTFARM_OK;
    return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: lies on GPU %d, but the session is of GPU %d: copy it, or make the session with options.device = %d",
                   kind, port->name, device.device_id, s->gpu->index, device.device_id);
}

/* In a run on a stream that the caller captures nothing may be allocated, as what was captured before may use what would be freed. */
static int32_t rt_fail_capturing(void) {
    return rt_fail(AOTFARM_ERROR_BUSY, "the stream is being captured, and a run at these sizes must allocate memory: run it once before");
}

static void rt_drop_graph(rt_plan *p) {
    if (p->exec != NULL) cu.exec_destroy(p->exec);
    if (p->graph != NULL) cu.graph_destroy(p->graph);
    p->exec = NULL;
    p->graph = NULL;
}

/* Frees a plan without a graph. */
#ifdef RT_VENDOR
static void rt_free_plan(rt_plan *p) {
    for (uint32_t i = 0; i < rt_model.api->n_steps; i++) rt_vendor_drop(p->calls[i].vendor);
    free(p);
}
#else
#define rt_free_plan free
#endif

static void rt_drop_plans(aotfarm_session *s) {
    for (uint32_t i = 0; i < RT_PLANS; i++) {
        if (s->plans[i] == NULL) continue;
        rt_drop_graph(s->plans[i]);
        rt_free_plan(s->plans[i]);
        s->plans[i] = NULL;
    }
    s->plan = NULL;
}

static int32_t rt_alloc(aotfarm_session *s, uint64_t bytes, const char *what, cu_address *result) {
    int32_t error = cu.memory_alloc(result, bytes);
    if (error == 0) return AOTFARM_OK;
    size_t available = 0, total = 0;
    *result = 0;
    cu.memory_info(&available, &total);
    return rt_fail_cuda(error, "GPU %d (%s) cannot hold %s: it takes %llu bytes, and %zu of %zu are free", s->gpu->index, s->gpu->name, what,
                        (unsigned long long)bytes, available, total);
}

/* Lays out the arena for the bound values and allocates it, when the present one is too small. Regions never shrink. All of it is zero at
 * first, which is what makes padded channels zero; sizes within the capacity leave every slot where it is, so they stay so. */
static int32_t rt_reserve(aotfarm_session *s) {
    rt_region *r = s->new_slots;
    bool grow = s->arena == 0;
    for (uint32_t i = 0; i < rt_model.n_slots; i++) {
        uint64_t needed = rt_slot_bytes(&rt_model.slots[i], s->front.values);
        r[i].capacity = s->slots[i].capacity;
        if (needed > r[i].capacity) {
            r[i].capacity = needed;
            grow = true;
        }
    }
    if (!grow) return AOTFARM_OK;
    if (s->capturing) return rt_fail_capturing();

    uint64_t total = 0, workspace;
    bool fits = true;
    for (uint32_t i = 0; i < rt_model.n_slots; i++) fits = fits && rt_append(&total, r[i].capacity, RT_ALIGN, &r[i].offset);
    fits = fits && rt_append(&total, rt_target.workspace_bytes, RT_ALIGN, &workspace);
    if (!fits) return rt_fail(AOTFARM_ERROR_MEMORY, "the working memory for these sizes exceeds the address space");
    /* The old one goes first: the GPU may not hold both. Nothing that was started may still use it. */
    cu.stream_synchronize(s->stream);
    rt_drop_plans(s);
    if (s->arena != 0) cu.memory_free(s->arena);
    s->arena = 0;
    memset(s->slots, 0, rt_model.n_slots * sizeof *r);
    cu_address arena;
    int32_t status = rt_alloc(s, total, "the working memory", &arena), error;
    if (status) return status;
    if ((error = cu.fill_async(arena, 0, total, s->capture)) != 0 || (error = cu.stream_synchronize(s->capture)) != 0) {
        cu.memory_free(arena);
        return rt_fail_cuda(error, "GPU %d (%s) cannot clear the working memory", s->gpu->index, s->gpu->name);
    }
    s->arena = arena;
    s->workspace = workspace;
    memcpy(s->slots, r, rt_model.n_slots * sizeof *r);
    return AOTFARM_OK;
}

/* The grid of a step's kernel. */
static int32_t rt_grid(const rt_launch *launch, const char *step, const uint64_t *dims, uint32_t grid[3]) {
    static const int64_t MOST[] = {INT32_MAX, 65535, 65535};
    for (int k = 0; k < 3; k++) {
        const rt_axis *axis = &launch->grid[k];
        int64_t work = axis->mul, blocks;
        bool fits = true;
        for (uint32_t i = 0; i < axis->n_dims; i++) fits = fits && !__builtin_mul_overflow(work, (int64_t)dims[axis->dims[i]], &work);
        fits = fits && !__builtin_add_overflow(work, axis->div - 1, &work);
        blocks = work / axis->div;
        fits = fits && !__builtin_mul_overflow(axis->times, blocks < 1 ? 1 : blocks, &blocks);
        if (!fits || blocks > MOST[k])
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "step `%s`: these sizes need more than the %lld blocks along %c that a GPU can launch", step,
                           (long long)MOST[k], "xyz"[k]);
        grid[k] = (uint32_t)blocks;
    }
    return AOTFARM_OK;
}

static rt_plan *rt_new_plan(void) {
    const aotfarm_api *api = rt_model.api;
    size_t words = (size_t)rt_model.n_pointers + rt_model.n_step_dims + api->n_steps, tensors = rt_n_bindings();
    /* One piece: the record, calls, symbols, tensors, words. */
    rt_plan *p = calloc(1, sizeof *p + api->n_steps * sizeof(rt_call) + (api->n_dims + tensors + words) * sizeof(uint64_t));
    if (p == NULL) return NULL;
    p->calls = (rt_call *)(p + 1);
    p->symbols = (int64_t *)(p->calls + api->n_steps);
    p->tensors = (uint64_t *)(p->symbols + api->n_dims);
    uint64_t *word = p->tensors + tensors;
    for (uint32_t i = 0; i < api->n_steps; i++) {
        const rt_step *step = &rt_model.steps[i];
        p->calls[i].words = word;
        word += step->n_in + step->n_weights + step->n_out + 1 + step->n_dims;
    }
    return p;
}

/* Where a buffer of the session lies; 0 for one that changes from run to run, see rt_point. */
static cu_address rt_own_buffer(const aotfarm_session *s, const rt_buffer *b) {
    switch (b->place) {
    case RT_SLOT: return s->arena + s->slots[b->index].offset;
    case RT_STATE: return s->states + rt_model.states[b->index].offset;
    case RT_NEXT: return s->states + rt_model.state_bytes + rt_model.states[b->index].offset;
    default: return 0;
    }
}

/* Fills in all of a plan but the caller's tensors. */
static int32_t rt_fill(aotfarm_session *s, rt_plan *p) {
    const aotfarm_api *api = rt_model.api;
    memcpy(p->symbols, s->front.symbols, api->n_dims * sizeof *p->symbols);
    for (uint32_t i = 0; i < rt_model.n_points; i++) s->points[i] = rt_nearest(&rt_model.points[i], p->symbols, api->n_dims);
    for (uint32_t i = 0; i < api->n_steps; i++) {
        const rt_step *step = &rt_model.steps[i];
        const rt_kernel *kernel = &step->kernels[s->points[step->points]];
        rt_call *call = &p->calls[i];
        uint64_t *word = call->words;
        call->function = s->gpu->functions[kernel->function];
        call->launch = kernel->launch;
        for (uint32_t k = 0; k < step->n_in; k++) *word++ = rt_own_buffer(s, &rt_model.buffers[step->in[k]]);
        for (uint32_t k = 0; k < step->n_weights; k++) *word++ = s->gpu->weights + kernel->weights[k];
        for (uint32_t k = 0; k < step->n_out; k++) *word++ = rt_own_buffer(s, &rt_model.buffers[step->out[k]]);
        *word++ = s->arena + s->workspace;
        for (uint32_t k = 0; k < step->n_dims; k++) word[k] = (uint64_t)s->front.values[step->dims[k]];
#ifdef RT_VENDOR
        if (kernel->vendor != NULL) {
            int32_t status = rt_vendor_describe(s, kernel, api->steps[i], word, &call->vendor);
            if (status) return status;
            continue;
        }
#endif
        int32_t status = rt_grid(call->launch, api->steps[i], word, call->grid);
        if (status) return status;
    }
    return AOTFARM_OK;
}

/* Finds or makes the plan of the bound values. */
static int32_t rt_bind(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    rt_plan **oldest = &s->plans[0];
    s->plan = NULL;
    for (uint32_t i = 0; i < RT_PLANS; i++) {
        rt_plan *p = s->plans[i];
        if (p != NULL && memcmp(p->symbols, s->front.symbols, api->n_dims * sizeof(int64_t)) == 0) {
            s->plan = p;
            break;
        }
        if (*oldest != NULL && (p == NULL || p->used < (*oldest)->used)) oldest = &s->plans[i];
    }
    if (s->plan == NULL) {
        int32_t status = rt_reserve(s);
        if (status) return status;
        if (*oldest != NULL) {
            rt_drop_graph(*oldest);
            rt_free_plan(*oldest);
        }
        rt_plan *p = *oldest = rt_new_plan();
        if (p == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the tables of a size");
        if ((status = rt_fill(s, p))) {
            rt_free_plan(p);
            *oldest = NULL;
            return status;
        }
        s->plan = p;
    }
    s->plan->used = ++s->changes;
    s->front.bound = true;
    return AOTFARM_OK;
}

/* Makes room for a copy of a tensor, on the GPU and in pinned memory of the host. */
static int32_t rt_make_place(aotfarm_session *s, rt_place *place, uint64_t bytes, bool pinned) {
    bytes = rt_round(bytes, RT_ALIGN) + RT_ALIGN;
    bool grow = place->device_bytes < bytes, grow_pinned = pinned && place->pinned_bytes < bytes;
    if (!grow && !grow_pinned) return AOTFARM_OK;
    if (s->capturing) return rt_fail_capturing();
    cu.stream_synchronize(s->stream);
    if (grow) {
        if (place->device != 0) cu.memory_free(place->device);
        place->device_bytes = 0;
        int32_t status = rt_alloc(s, bytes, "a copy of a tensor", &place->device);
        if (status) return status;
        place->device_bytes = bytes;
    }
    if (grow_pinned) {
        if (place->pinned != NULL) cu.host_free(place->pinned);
        void *memory = NULL;
        int32_t error = cu.host_alloc(&memory, bytes, CU_HOST_PORTABLE);
        place->pinned = error == 0 ? memory : NULL;
        place->pinned_bytes = error == 0 ? bytes : 0;
        if (error != 0) return rt_fail_cuda(error, "cannot pin %llu bytes of host memory", (unsigned long long)bytes);
    }
    return AOTFARM_OK;
}

/* Takes over the caller's memory of one tensor, and decides whether it must be staged. */
static int32_t rt_take(aotfarm_session *s, const char *kind, const aotfarm_port *port, const DLTensor *t, rt_binding *b, rt_place *place) {
    int32_t status = rt_attach(kind, port, t, RT_PAST, b);
    if (status) return status;
    place->type = (int32_t)t->device.device_type;
    b->staged = place->type != kDLCUDA || b->bytes == 0 || (uintptr_t)b->data % RT_TENSOR_ALIGN != 0 || rt_ends_page(b, RT_PAST, RT_DEVICE_PAGE);
    b->used = b->data;
    if (!b->staged) return AOTFARM_OK;
    if ((status = rt_make_place(s, place, b->bytes, place->type == kDLCPU || place->type == kDLROCMHost))) return status;
    b->used = (char *)(uintptr_t)place->device;
    return AOTFARM_OK;
}

/* Makes room for what is written into an input at the end of the run, wherever that lies: until then the input is read. */
static int32_t rt_take_write(aotfarm_session *s, uint32_t i) {
    const uint32_t input = rt_model.api->writes[i];
    rt_place *place = &s->places[rt_model.api->n_inputs + rt_model.api->n_outputs + i];
    rt_binding *b = &s->front.writes[i];
    place->type = s->places[input].type;
    int32_t status = rt_make_place(s, place, b->bytes, place->type == kDLCPU || place->type == kDLROCMHost);
    if (status) return status;
    b->data = s->front.inputs[input].data;
    b->used = (char *)(uintptr_t)place->device;
    b->staged = true;
    return AOTFARM_OK;
}

static cu_address rt_address(const char *data) { return (cu_address)(uintptr_t)data; }

/* Starts the copies of staged inputs. */
static int32_t rt_copy_in(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    for (uint32_t i = 0; i < api->n_inputs; i++) {
        const rt_binding *b = &s->front.inputs[i];
        const rt_place *place = &s->places[i];
        int32_t error = 0;
        if (!b->staged || b->bytes == 0) continue;
        if (place->type == kDLCUDA) {
            error = cu.copy_async(place->device, rt_address(b->data), b->bytes, s->stream);
        } else if (place->type == kDLCUDAHost) {
            error = cu.copy_up_async(place->device, b->data, b->bytes, s->stream);
        } else {
            for (uint64_t at = 0; at < b->bytes && error == 0; at += RT_PIECE) {
                uint64_t bytes = b->bytes - at < RT_PIECE ? b->bytes - at : RT_PIECE;
                memcpy(place->pinned + at, b->data + at, bytes);
                error = cu.copy_up_async(place->device + at, place->pinned + at, bytes, s->stream);
            }
        }
        if (error != 0) return rt_fail_cuda(error, "input `%s`: cannot be copied to GPU %d", api->inputs[i].name, s->gpu->index);
    }
    return AOTFARM_OK;
}

/* Starts the copies of staged outputs and of what is written into inputs. */
static int32_t rt_copy_out(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    for (uint32_t i = 0; i < api->n_outputs + api->n_writes; i++) {
        const rt_binding *b = &s->front.outputs[i];
        const rt_place *place = &s->places[api->n_inputs + i];
        if (!b->staged || b->bytes == 0) continue;
        int32_t error = place->type == kDLCUDA ? cu.copy_async(rt_address(b->data), place->device, b->bytes, s->stream)
                                               : cu.copy_down_async(place->type == kDLCUDAHost ? b->data : place->pinned, place->device,
                                                                    b->bytes, s->stream);
        const aotfarm_port *port = i < api->n_outputs ? &api->outputs[i] : &api->inputs[api->writes[i - api->n_outputs]];
        if (error != 0)
            return rt_fail_cuda(error, "%s `%s`: cannot be copied from GPU %d", i < api->n_outputs ? "output" : "input", port->name, s->gpu->index);
    }
    return AOTFARM_OK;
}

/* Starts one kernel. With `overlap` it may start while the one before still runs; the first has none before. */
static int32_t rt_launch_step(const rt_plan *p, uint32_t i, cu_stream stream, bool overlap) {
    const rt_call *call = &p->calls[i];
    const rt_launch *launch = call->launch;
#ifdef RT_VENDOR
    if (call->vendor != NULL) return rt_vendor_run(call->vendor, &rt_model.steps[i], call->words, stream);
    /* What a library ends with is not known to be a kernel, which overlapping needs. */
    overlap = overlap && i > 0 && p->calls[i - 1].vendor == NULL;
#endif
    cu_attribute attributes[2];
    cu_config config = {.grid = {call->grid[0], call->grid[1], call->grid[2]}, .block = {launch->threads, 1, 1}, .shared_bytes = launch->shared_bytes,
                        .stream = stream, .attributes = attributes};
    if (launch->cluster[0] * launch->cluster[1] * launch->cluster[2] > 1) {
        cu_attribute *a = &attributes[config.n_attributes++];
        memset(a, 0, sizeof *a);
        a->id = CU_LAUNCH_CLUSTER;
        memcpy(a->value.cluster, launch->cluster, sizeof a->value.cluster);
    }
    if (overlap && i > 0 && rt_target.sm >= RT_OVERLAP_SM) {
        cu_attribute *a = &attributes[config.n_attributes++];
        memset(a, 0, sizeof *a);
        a->id = CU_LAUNCH_OVERLAP;
        a->value.overlap = 1;
    }
    void *params[] = {call->words};
    return cu.launch(&config, call->function, params, NULL);
}

static int32_t rt_fail_launch(const aotfarm_session *s, uint32_t step, int32_t error) {
#ifdef RT_VENDOR
    if (error == RT_LIBRARY_FAILED) return AOTFARM_ERROR_SYSTEM;
#endif
    return rt_fail_cuda(error, "step `%s`: GPU %d (%s) refused its kernel", rt_model.api->steps[step], s->gpu->index, s->gpu->name);
}

/* Starts the copy that lets the states hold what the run has made of them. */
static int32_t rt_advance(const aotfarm_session *s, cu_stream stream) {
    if (rt_model.state_bytes == 0) return 0;
    return cu.copy_async(s->states, s->states + rt_model.state_bytes, rt_model.state_bytes, stream);
}

static int32_t rt_fail_states(const aotfarm_session *s, int32_t error) {
    return rt_fail_cuda(error, "GPU %d (%s) cannot write the states", s->gpu->index, s->gpu->name);
}

/* Starts all kernels one by one. */
static int32_t rt_launch_all(aotfarm_session *s) {
    for (uint32_t i = 0; i < rt_model.api->n_steps; i++) {
        int32_t error = rt_launch_step(s->plan, i, s->stream, true);
        if (error != 0) return rt_fail_launch(s, i, error);
    }
    int32_t error = rt_advance(s, s->stream);
    return error == 0 ? AOTFARM_OK : rt_fail_states(s, error);
}

/* Makes the graph of a plan, by capture, which is how the driver learns which kernels may overlap. Whatever it refuses, the kernels can still be
 * launched one by one, and if that fails too it says why. */
static void rt_make_graph(aotfarm_session *s, rt_plan *p) {
#ifdef RT_VENDOR
    if (!p->warm) {
        p->warm = true;
        return;
    }
#endif
    if (!cu.graphs || cu.capture_begin(s->capture, CU_CAPTURE_RELAXED) != 0) {
        p->plain = true;
        return;
    }
    int32_t error = 0;
    for (uint32_t i = 0; i < rt_model.api->n_steps && error == 0; i++) {
        if ((error = rt_launch_step(p, i, s->capture, true)) != 0) break;
#ifdef RT_VENDOR
        if (p->calls[i].vendor != NULL) continue;
#endif
        /* What the next one would follow is this one's node. */
        int32_t state;
        uint64_t id;
        cu_graph graph;
        const cu_node *last = NULL;
        const void *edges;
        size_t n = 0;
        error = cu.capture_info(s->capture, &state, &id, &graph, &last, &edges, &n);
        if (error == 0 && n != 1) error = -1;
        if (error == 0) p->calls[i].node = last[0];
    }
    if (error == 0) error = rt_advance(s, s->capture);
    int32_t ended = cu.capture_end(s->capture, &p->graph);
    if (ended != 0) p->graph = NULL;
    if (error == 0 && ended == 0 && cu.graph_instantiate(&p->exec, p->graph, 0) == 0) return;
    p->exec = NULL;
    rt_drop_graph(p);
    p->plain = true;
}

/* Points the kernels to the tensors of this run, in the words and in the graph. A graph is changed for its future launches only. */
static void rt_point(aotfarm_session *s, rt_plan *p) {
    const aotfarm_api *api = rt_model.api;
    const rt_front *f = &s->front;
    bool same = true;
    /* Inputs, outputs and writes are one array. */
    for (uint32_t i = 0; i < rt_n_bindings(); i++) {
        uint64_t used = rt_address(f->inputs[i].used);
        same = same && p->tensors[i] == used;
        p->tensors[i] = used;
    }
    if (same) return;
    for (uint32_t i = 0; i < api->n_steps; i++) {
        const rt_step *step = &rt_model.steps[i];
        rt_call *call = &p->calls[i];
        bool changed = false;
        for (uint32_t k = 0; k < step->n_in + step->n_out; k++) {
            const rt_buffer *b = &rt_model.buffers[k < step->n_in ? step->in[k] : step->out[k - step->n_in]];
            uint64_t *word = &call->words[k < step->n_in ? k : k + step->n_weights];
            if (b->place != RT_INPUT && b->place != RT_OUTPUT && b->place != RT_BACK) continue;
            uint64_t used = p->tensors[b->index + (b->place == RT_INPUT ? 0 : api->n_inputs) + (b->place == RT_BACK ? api->n_outputs : 0)];
            changed = changed || *word != used;
            *word = used;
        }
        if (!changed || p->exec == NULL) continue;
#ifdef RT_VENDOR
        if (call->vendor != NULL) {
            rt_drop_graph(p); /* which nodes it consists of the library alone knows: it is captured again */
            continue;
        }
#endif
        void *params[] = {call->words};
        cu_node_params node = {.function = call->function, .grid = {call->grid[0], call->grid[1], call->grid[2]},
                               .block = {call->launch->threads, 1, 1}, .shared_bytes = call->launch->shared_bytes, .params = params};
        if (cu.exec_set_kernel(p->exec, call->node, &node) != 0) rt_drop_graph(p); /* it is captured again */
    }
}

/* Starts all kernels, with an event before the first and after each, which keeps them from overlapping. */
static int32_t rt_launch_timed(aotfarm_session *s) {
    const uint32_t n = rt_model.api->n_steps;
    int32_t error = 0;
    if (s->events == NULL && (s->events = calloc((size_t)n + 1, sizeof *s->events)) == NULL)
        return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the events of a timed run");
    for (uint32_t i = 0; i <= n && error == 0; i++)
        if (s->events[i] == NULL) error = cu.event_create(&s->events[i], 0);
    if (error == 0) error = cu.event_record(s->events[0], s->stream);
    if (error != 0) return rt_fail_cuda(error, "cannot time the steps");
    for (uint32_t i = 0; i < n; i++) {
        if ((error = rt_launch_step(s->plan, i, s->stream, false)) != 0) return rt_fail_launch(s, i, error);
        if ((error = cu.event_record(s->events[i + 1], s->stream)) != 0) return rt_fail_cuda(error, "cannot time the steps");
    }
    return (error = rt_advance(s, s->stream)) == 0 ? AOTFARM_OK : rt_fail_states(s, error);
}

/* Starts all kernels one by one, and tells the watcher of the run what each has written. */
static int32_t rt_launch_watched(aotfarm_session *s) {
    for (uint32_t i = 0; i < rt_model.api->n_steps; i++) {
        const rt_step *step = &rt_model.steps[i];
        /* Pointers of inputs, weights and outputs, the workspace, sizes. */
        const uint64_t *out = s->plan->calls[i].words + step->n_in + step->n_weights;
        int32_t error = rt_launch_step(s->plan, i, s->stream, false);
        if (error != 0) return rt_fail_launch(s, i, error);
        for (uint32_t k = 0; k < step->n_out; k++) {
            uint64_t bytes = (uint64_t)s->front.values[rt_model.buffers[step->out[k]].bytes];
            void *copy = malloc(bytes + 1);
            if (copy == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the copy of a result");
            error = bytes == 0 ? 0 : cu.copy_down_async(copy, out[k], bytes, s->stream);
            if (error == 0) error = cu.stream_synchronize(s->stream);
            if (error == 0) rt_tell(&s->front, i, k, (const int64_t *)(out + step->n_out + 1), copy, bytes);
            free(copy);
            if (error != 0) return rt_fail_cuda(error, "step `%s`: the run failed on GPU %d (%s)", rt_model.api->steps[i], s->gpu->index, s->gpu->name);
        }
    }
    const int32_t error = rt_advance(s, s->stream);
    return error == 0 ? AOTFARM_OK : rt_fail_states(s, error);
}

/* Waits until all in the stream is done. The stream writes a number when it gets there; to look at that is quicker than to ask the driver, which is
 * asked now and then, since a GPU that failed writes nothing. */
static int32_t rt_wait(aotfarm_session *s) {
    if (s->mark == NULL || cu.write_value(s->stream, (cu_address)(uintptr_t)s->mark, ++s->marks, 0) != 0)
        return cu.stream_synchronize(s->stream);
    for (uint32_t i = 1; atomic_load_explicit(s->mark, memory_order_acquire) != s->marks; i++) {
        int32_t state = i % RT_LOOKS == 0 ? cu.stream_query(s->stream) : CU_NOT_READY;
        if (state != CU_NOT_READY) return state;
        rt_pause();
    }
    return 0;
}

/* Waits for the run and takes its results to the caller. */
static int32_t rt_finish(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    int32_t error = rt_wait(s);
    if (error != 0) return rt_fail_cuda(error, "the run failed on GPU %d (%s)", s->gpu->index, s->gpu->name);
    for (uint32_t i = 0; i < api->n_outputs + api->n_writes; i++) {
        const rt_binding *b = &s->front.outputs[i];
        const rt_place *place = &s->places[api->n_inputs + i];
        if (b->staged && (place->type == kDLCPU || place->type == kDLROCMHost)) memcpy(b->data, place->pinned, b->bytes);
    }
    for (uint32_t i = 0; s->front.seconds != NULL && i < api->n_steps; i++) {
        float milliseconds = 0;
        if ((error = cu.event_elapsed(&milliseconds, s->events[i], s->events[i + 1])) != 0)
            return rt_fail_cuda(error, "cannot read the time of step `%s`", api->steps[i]);
        s->front.seconds[i] = (double)milliseconds * 1e-3;
    }
    return AOTFARM_OK;
}

/* A checked run; the GPU's context is current. */
static int32_t rt_run_current(aotfarm_session *s, const DLTensor *const *inputs, const DLTensor *const *outputs) {
    const aotfarm_api *api = rt_model.api;
    rt_front *f = &s->front;
    int32_t status, state = 0;
    s->capturing = s->own == NULL && cu.stream_capturing(s->stream, &state) == 0 && state == CU_CAPTURE_ACTIVE;
    if (!f->bound && (status = rt_bind(s))) return status;
    bool host = false;
    for (uint32_t i = 0; i < api->n_inputs; i++) {
        if ((status = rt_take(s, "input", &api->inputs[i], inputs[i], &f->inputs[i], &s->places[i]))) return status;
        host |= s->places[i].type != kDLCUDA;
    }
    for (uint32_t i = 0; i < api->n_outputs; i++) {
        rt_place *place = &s->places[api->n_inputs + i];
        if ((status = rt_take(s, "output", &api->outputs[i], outputs[i], &f->outputs[i], place))) return status;
        host |= place->type != kDLCUDA;
    }
    for (uint32_t i = 0; i < api->n_writes; i++)
        if ((status = rt_take_write(s, i))) return status;
    if ((status = rt_check_overlaps(f))) return status;
    if (s->capturing && (host || f->seconds != NULL || f->watch != NULL))
        return rt_fail(AOTFARM_ERROR_ARGUMENT,
                       "the stream is being captured: only tensors on the GPU can be used, and steps cannot be timed or watched");

    rt_plan *p = s->plan;
    rt_point(s, p);
    if ((status = rt_copy_in(s))) return status;
    if (f->seconds != NULL) {
        status = rt_launch_timed(s);
    } else if (f->watch != NULL) {
        status = rt_launch_watched(s);
    } else {
        if (p->exec == NULL && !p->plain && !s->capturing) rt_make_graph(s, p);
        if (p->exec == NULL || s->capturing) {
            status = rt_launch_all(s);
        } else {
            int32_t error = cu.graph_launch(p->exec, s->stream);
            if (error != 0) status = rt_fail_cuda(error, "GPU %d (%s) refused the run", s->gpu->index, s->gpu->name);
        }
    }
    if (status || (status = rt_copy_out(s))) return status;
    return s->own == NULL && !host && f->seconds == NULL ? AOTFARM_OK : rt_finish(s);
}

/* Makes the GPU's context current, if it is not. */
static int32_t rt_enter(const rt_gpu *gpu, bool *pushed) {
    cu_context current = NULL;
    *pushed = false;
    if (cu.context_current(&current) == 0 && current == gpu->context) return AOTFARM_OK;
    int32_t error = cu.context_push(gpu->context);
    *pushed = error == 0;
    return error == 0 ? AOTFARM_OK : rt_fail_cuda(error, "GPU %d (%s) cannot be used", gpu->index, gpu->name);
}

static void rt_leave(bool pushed) {
    cu_context popped;
    if (pushed) cu.context_pop(&popped);
}

static int32_t rt_run_locked(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, const DLTensor *const *outputs,
                             uint32_t n_outputs) {
    bool pushed;
    int32_t status = rt_check_call(s, &s->front, inputs, n_inputs, outputs, n_outputs);
    if (status || (status = rt_enter(s->gpu, &pushed))) return status;
    /* Another stream that this thread captures must not be disturbed by what is allocated here. */
    int32_t mode = CU_CAPTURE_RELAXED;
    bool exchanged = cu.capture_mode(&mode) == 0;
    status = rt_run_current(s, inputs, outputs);
    if (exchanged) cu.capture_mode(&mode);
    rt_leave(pushed);
    return status;
}

/* Starts the copies that let the states hold what they do in a fresh session. */
static int32_t rt_reset_states(aotfarm_session *s, cu_stream stream) {
    int32_t error = 0;
    for (uint32_t i = 0; i < rt_model.api->n_states && error == 0; i++) {
        const rt_state *state = &rt_model.states[i];
        if (state->bytes > 0) error = cu.copy_async(s->states + state->offset, s->gpu->weights + state->initial, state->bytes, stream);
    }
    return error == 0 ? AOTFARM_OK : rt_fail_states(s, error);
}

static int32_t rt_reset_locked(aotfarm_session *s) {
    bool pushed;
    int32_t status = rt_enter(s->gpu, &pushed);
    if (status) return status;
    status = rt_reset_states(s, s->stream);
    rt_leave(pushed);
    return status;
}

/* Gives a new session its states. They are there when this returns: the caller may be capturing the session's stream. */
static int32_t rt_make_states(aotfarm_session *s) {
    if (rt_model.state_bytes == 0) return AOTFARM_OK;
    int32_t status = rt_alloc(s, 2 * rt_model.state_bytes, "the states", &s->states), error;
    if (status || (status = rt_reset_states(s, s->capture))) return status;
    return (error = cu.stream_synchronize(s->capture)) == 0 ? AOTFARM_OK : rt_fail_states(s, error);
}

static void rt_session_destroy(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    if (s == NULL) return;
    bool pushed;
    /* After a fork the driver must not be called: the memory there is the parent's. */
    if (s->gpu != NULL && s->front.process == getpid()) {
        if (rt_enter(s->gpu, &pushed) == AOTFARM_OK) {
            cu.context_synchronize();
            rt_drop_plans(s);
#ifdef RT_VENDOR
            rt_vendor_close(&s->vendor);
#endif
            if (s->arena != 0) cu.memory_free(s->arena);
            if (s->states != 0) cu.memory_free(s->states);
            for (uint32_t i = 0; s->places != NULL && i < rt_n_bindings(); i++) {
                if (s->places[i].device != 0) cu.memory_free(s->places[i].device);
                if (s->places[i].pinned != NULL) cu.host_free(s->places[i].pinned);
            }
            for (uint32_t i = 0; s->events != NULL && i <= api->n_steps; i++)
                if (s->events[i] != NULL) cu.event_destroy(s->events[i]);
            if (s->mark != NULL) cu.host_free((void *)s->mark);
            if (s->capture != NULL) cu.stream_destroy(s->capture);
            if (s->own != NULL) cu.stream_destroy(s->own);
            rt_leave(pushed);
        }
        rt_release(s->gpu);
    }
    for (uint32_t i = 0; i < RT_PLANS; i++) free(s->plans[i]);
    free(s->slots);
    free(s->new_slots);
    free(s->places);
    free(s->points);
    free(s->events);
    rt_front_free(&s->front);
    free(s);
}

static int32_t rt_session_create(const aotfarm_options *options, aotfarm_session **session) {
    if (session == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "the place for the session is null");
    *session = NULL;
    aotfarm_options o;
    int32_t status = rt_options(options, &o), error = 0;
    if (status) return status;
    aotfarm_session *s = calloc(1, sizeof *s);
    if (s == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate a session");
    /* One element more each, since calloc(0) may be NULL. */
    s->slots = calloc((size_t)rt_model.n_slots + 1, sizeof *s->slots);
    s->new_slots = calloc((size_t)rt_model.n_slots + 1, sizeof *s->new_slots);
    s->places = calloc((size_t)rt_n_bindings() + 1, sizeof *s->places);
    s->points = calloc((size_t)rt_model.n_points + 1, sizeof *s->points);
    bool pushed;
    if (!rt_front_init(&s->front) || !s->slots || !s->new_slots || !s->places || !s->points)
        status = rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the tables of a session");
    if (!status) status = rt_acquire(o.device, &s->gpu);
    if (!status && !(status = rt_enter(s->gpu, &pushed))) {
        /* The own stream waits for what is in the default stream, where a caller who passes none most likely made the inputs. Capturing must not
         * depend on that stream. */
        error = cu.stream_create(&s->capture, CU_STREAM_NON_BLOCKING);
        if (error == 0 && o.stream == NULL) error = cu.stream_create(&s->own, 0);
        if (error != 0) status = rt_fail_cuda(error, "GPU %d (%s) gives no stream", s->gpu->index, s->gpu->name);
        s->stream = o.stream == NULL ? s->own : o.stream;
        if (!status) status = rt_make_states(s);
        void *mark = NULL;
        if (error == 0 && cu.host_alloc(&mark, sizeof *s->mark, CU_HOST_PORTABLE) == 0) {
            s->mark = mark; /* without it the driver is asked */
            atomic_store(s->mark, 0);
        }
#ifdef RT_VENDOR
        if (!status) status = rt_vendor_open(&s->vendor);
#endif
        rt_leave(pushed);
    }
    if (status) {
        rt_session_destroy(s);
        return status;
    }
    *session = s;
    return AOTFARM_OK;
}
