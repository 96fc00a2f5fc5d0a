/* The session runtime of an artifact: checks the caller's tensors, binds symbolic sizes, lays out the arena, and walks the plan.
 * Part of every artifact; follows aotk.h, aotfarm.h and team.c, and is followed by the generated tables that it reads as
 * `rt_model`. Errors are a status and a text for the calling thread; nothing that a caller passes is trusted. */

#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* Every buffer starts on a multiple of this many bytes, and as many may be read past its end (see aotk.h). */
#define RT_ALIGN 64
#define RT_PAGE 4096 /* the smallest page of any supported system */
#define RT_HUGE_PAGE ((uint64_t)2 << 20)
#define RT_NONE 0xffffffffu

/* ---- the generated tables ---- */

/* How a symbolic dimension follows from an input: size = scale * symbol + offset. */
typedef struct rt_symbol {
    uint32_t input, axis; /* input is RT_NONE for a symbol that nothing depends on */
    int64_t scale, offset;
} rt_symbol;

/* Sizes are indices into the values that `rt_model.values` computes from the symbols. */
typedef struct rt_port {
    const uint32_t *sizes; /* of each dimension */
    const uint32_t *symbols; /* the symbol that a dimension is, or RT_NONE */
} rt_port;

enum { RT_INPUT, RT_OUTPUT, RT_SLOT };

typedef struct rt_buffer {
    uint32_t place, index;
} rt_buffer;

typedef struct rt_slot {
    const uint32_t *bytes; /* values; the slot takes the largest */
    uint32_t n_bytes;
} rt_slot;

typedef struct rt_kernel {
    void (*run)(const aotk_call *);
    const int64_t *tune;
    const uint64_t *weights; /* offsets of the raw weights in the weight section, or NULL when the kernel packs */
    uint64_t packed;         /* offset of the packed weights, or RT_NO_PACK */
} rt_kernel;

#define RT_NO_PACK UINT64_MAX

/* The points that a computation was tuned at, `n_dims` sizes each. */
typedef struct rt_points {
    const int64_t *sizes;
    uint32_t n;
} rt_points;

typedef struct rt_step {
    const rt_kernel *kernels; /* one for each tuned point */
    uint32_t points;          /* index into rt_model.points */
    const uint32_t *in, *out; /* buffers */
    const uint32_t *dims;     /* values */
    uint32_t n_in, n_out, n_dims, n_weights;
} rt_step;

struct rt_model {
    const aotfarm_api *api;
    uint32_t isa; /* x86-64 level, or 82 for ARMv8.2 */
    uint32_t n_values, n_buffers, n_slots, n_points;
    uint32_t n_pointers, n_step_dims; /* sums over the steps */
    void (*values)(const int64_t *symbols, int64_t *values);
    const rt_symbol *symbols;
    const rt_port *inputs, *outputs;
    const rt_buffer *buffers;
    const rt_slot *slots;
    const rt_points *points;
    const rt_step *steps;
    uint64_t shared_bytes, thread_bytes; /* workspace of the team, of each thread */
};

static const struct rt_model rt_model;
extern const unsigned char aotfarm_weights[] __attribute__((visibility("hidden")));

/* ---- errors ---- */

static __thread char rt_error[1024];

static __attribute__((format(printf, 2, 3))) int32_t rt_fail(int32_t status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(rt_error, sizeof rt_error, format, args);
    va_end(args);
    return status;
}

static const char *rt_last_error(void) { return rt_error; }

static const char *rt_dtype_text(DLDataType t, char text[40]) {
    static const char *const KINDS[] = {"i", "u", "f", "opaque", "bf", "complex", "bool"};
    const char *kind = t.code < sizeof KINDS / sizeof *KINDS ? KINDS[t.code] : "kind ";
    if (t.code == kDLBool && t.bits == 8 && t.lanes == 1) return "bool";
    if (kind[0] == 'k') snprintf(text, 40, "kind %u of %u bits", t.code, t.bits);
    else if (t.lanes == 1) snprintf(text, 40, "%s%u", kind, t.bits);
    else snprintf(text, 40, "%s%ux%u", kind, t.bits, t.lanes);
    return text;
}

/* `[batch, 3, 224, 224]`, shortened when it does not fit. */
static const char *rt_shape_text(const aotfarm_port *port, char text[256]) {
    size_t at = 0;
    text[at++] = '[';
    for (int32_t i = 0; i < port->ndim; i++) {
        size_t room = 250 - at;
        int n = snprintf(text + at, room, "%s%s", i ? ", " : "", port->shape_text[i]);
        if (n < 0 || (size_t)n >= room) break;
        at += (size_t)n;
    }
    text[at++] = ']';
    text[at] = 0;
    return text;
}

/* ---- checks ---- */

/* Count, null pointers, rank, element type, device and signs of one list of tensors. */
static int32_t rt_check_tensors(const char *kind, const DLTensor *const *tensors, uint32_t n, const aotfarm_port *ports, uint32_t expected) {
    if (n != expected)
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "the model has %u %s%s, but %u %s given", expected, kind, expected == 1 ? "" : "s", n,
                       n == 1 ? "was" : "were");
    if (n > 0 && tensors == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "the list of %ss is null", kind);
    for (uint32_t i = 0; i < n; i++) {
        const aotfarm_port *port = &ports[i];
        const DLTensor *t = tensors[i];
        char a[256], b[40];
        if (t == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the tensor is null", kind, port->name);
        if (t->ndim != port->ndim)
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: has %d dimension%s, but must have %d: %s", kind, port->name, t->ndim,
                           t->ndim == 1 ? "" : "s", port->ndim, rt_shape_text(port, a));
        if (t->dtype.code != port->dtype.code || t->dtype.bits != port->dtype.bits || t->dtype.lanes != port->dtype.lanes)
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the element type is %s, but must be %s", kind, port->name,
                           rt_dtype_text(t->dtype, b), rt_dtype_text(port->dtype, a));
        int32_t device = (int32_t)t->device.device_type;
        if (device != kDLCPU && device != kDLCUDAHost && device != kDLROCMHost)
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: lies on a device of DLPack type %d, but this artifact takes host memory (1)",
                           kind, port->name, device);
        if (t->ndim > 0 && t->shape == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the shape is null", kind, port->name);
        for (int32_t k = 0; k < t->ndim; k++)
            if (t->shape[k] < 0)
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: dimension %d is %lld", kind, port->name, k, (long long)t->shape[k]);
    }
    return AOTFARM_OK;
}

/* The symbols' values from the inputs, within their ranges. */
static int32_t rt_bind_symbols(const DLTensor *const *inputs, int64_t *symbols) {
    const aotfarm_api *api = rt_model.api;
    for (uint32_t i = 0; i < api->n_dims; i++) {
        const rt_symbol *s = &rt_model.symbols[i];
        const aotfarm_dim *dim = &api->dims[i];
        symbols[i] = dim->min;
        if (s->input == RT_NONE) continue;
        int64_t size = inputs[s->input]->shape[s->axis], difference, value;
        const char *text = api->inputs[s->input].shape_text[s->axis];
        bool whole = !__builtin_sub_overflow(size, s->offset, &difference) && difference % s->scale == 0;
        value = whole ? difference / s->scale : 0;
        if (whole && value >= dim->min && value <= dim->max) {
            symbols[i] = value;
        } else if (s->scale == 1 && s->offset == 0) {
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "input `%s`: dimension %u (%s) is %lld, outside %lld..%lld of this artifact",
                           api->inputs[s->input].name, s->axis, text, (long long)size, (long long)dim->min, (long long)dim->max);
        } else {
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "input `%s`: dimension %u (%s) is %lld, which no %s in %lld..%lld of this artifact gives",
                           api->inputs[s->input].name, s->axis, text, (long long)size, dim->name, (long long)dim->min, (long long)dim->max);
        }
    }
    return AOTFARM_OK;
}

/* Sizes and strides of one list of tensors against the bound values. */
static int32_t rt_check_sizes(const char *kind, const DLTensor *const *tensors, uint32_t n, const aotfarm_port *ports, const rt_port *sizes,
                              const int64_t *values) {
    for (uint32_t i = 0; i < n; i++) {
        const aotfarm_port *port = &ports[i];
        const DLTensor *t = tensors[i];
        bool empty = false;
        for (int32_t k = 0; k < t->ndim; k++) {
            int64_t size = t->shape[k], expected = values[sizes[i].sizes[k]];
            if (size == 0) empty = true;
            if (size == expected) continue;
            if (port->shape[k] >= 0)
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: dimension %d is %lld, but must be %lld", kind, port->name, k,
                               (long long)size, (long long)expected);
            uint32_t symbol = sizes[i].symbols[k];
            const rt_symbol *s = symbol == RT_NONE ? NULL : &rt_model.symbols[symbol];
            if (s != NULL && s->input != RT_NONE)
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: dimension %d (%s) is %lld, but must be %lld as in input `%s`", kind,
                               port->name, k, port->shape_text[k], (long long)size, (long long)expected,
                               rt_model.api->inputs[s->input].name);
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: dimension %d (%s) is %lld, but must be %lld to fit the inputs", kind,
                           port->name, k, port->shape_text[k], (long long)size, (long long)expected);
        }
        if (t->strides == NULL || empty) continue;
        int64_t stride = 1;
        for (int32_t k = t->ndim - 1; k >= 0; k--) {
            if (t->shape[k] != 1 && t->strides[k] != stride)
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the stride of dimension %d is %lld, but must be %lld: pass a contiguous tensor",
                               kind, port->name, k, (long long)t->strides[k], (long long)stride);
            if (__builtin_mul_overflow(stride, t->shape[k], &stride))
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: is too large to address", kind, port->name);
        }
    }
    return AOTFARM_OK;
}

/* Bytes of a checked tensor: what its port's dtype and the values say. */
static int32_t rt_tensor_bytes(const char *kind, const aotfarm_port *port, const rt_port *sizes, const int64_t *values, uint64_t *bytes) {
    uint64_t total = port->dtype.bits / 8;
    for (int32_t k = 0; k < port->ndim; k++)
        if (__builtin_mul_overflow(total, (uint64_t)values[sizes->sizes[k]], &total) || total > INT64_MAX)
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: is too large to address", kind, port->name);
    *bytes = total;
    return AOTFARM_OK;
}

/* ---- sessions ---- */

/* A tensor of the caller in the current run. A staged one is copied to or from the arena, because kernels rely on alignment and
 * on readable bytes past the end, which the caller's memory need not have. */
typedef struct rt_binding {
    char *data;     /* the caller's memory */
    char *used;     /* what the kernels see */
    uint64_t bytes;
    uint64_t capacity, offset; /* of its place in the arena */
    bool staged;
} rt_binding;

typedef struct rt_region {
    uint64_t capacity, offset;
} rt_region;

struct aotfarm_session {
    rt_team team;
    _Atomic bool busy;
    pid_t process;
    uint32_t threads;
    /* Arena: one mapping that holds the slots, the staged tensors and the workspace. */
    char *mapping, *arena;
    uint64_t mapping_bytes;
    uint64_t shared_offset, scratch_offset, scratch_stride;
    rt_region *slots, *new_regions; /* `new_regions` holds slots, inputs, outputs while they are laid out */
    rt_binding *inputs, *outputs;
    /* What the bound sizes imply. */
    bool bound, staging_in, staging_out;
    int64_t *symbols, *new_symbols, *values;
    uint32_t *points;       /* the chosen point of each rt_model.points */
    const void **pointers;  /* of each step: in, out, weights */
    int64_t *dims;          /* of each step */
    aotk_call *calls;
    void (**kernels)(const aotk_call *);
    double *seconds; /* NULL unless the run is timed */
};

static uint64_t rt_round(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit * unit; }

/* Appends a region with room to read past it. False when the arena would leave the address space. */
static bool rt_append(uint64_t *total, uint64_t bytes, uint64_t *offset) {
    *offset = *total;
    return bytes < (UINT64_C(1) << 46) && !__builtin_add_overflow(*total, rt_round(bytes, RT_ALIGN) + RT_ALIGN, total) &&
           *total < (UINT64_C(1) << 47);
}

/* Lays out the arena for the bound values and maps it, when the present one is too small. Regions never shrink. A fresh mapping is zero,
 * which is what makes halos zero; sizes within the capacity leave every slot where it is, so halos stay so. Pages that are
 * never touched cost nothing, hence no memory is reserved ahead. */
static int32_t rt_reserve(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    uint32_t n = rt_model.n_slots + api->n_inputs + api->n_outputs;
    rt_region *r = s->new_regions;
    bool grow = s->mapping == NULL;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t needed = 0;
        if (i < rt_model.n_slots) {
            const rt_slot *slot = &rt_model.slots[i];
            for (uint32_t k = 0; k < slot->n_bytes; k++)
                if ((uint64_t)s->values[slot->bytes[k]] > needed) needed = (uint64_t)s->values[slot->bytes[k]];
            r[i].capacity = s->slots[i].capacity;
        } else {
            uint32_t k = i - rt_model.n_slots;
            const rt_binding *b = k < api->n_inputs ? &s->inputs[k] : &s->outputs[k - api->n_inputs];
            needed = b->bytes;
            r[i].capacity = b->capacity;
        }
        if (needed > r[i].capacity) {
            r[i].capacity = needed;
            grow = true;
        }
    }
    if (!grow) return AOTFARM_OK;

    uint64_t total = 0, shared_offset, scratch_offset;
    uint64_t stride = rt_round(rt_model.thread_bytes + RT_ALIGN, RT_LINE);
    bool fits = true;
    for (uint32_t i = 0; i < n; i++) fits = fits && rt_append(&total, r[i].capacity, &r[i].offset);
    fits = fits && rt_append(&total, rt_model.shared_bytes, &shared_offset);
    total = rt_round(total, RT_LINE); /* no line is shared by two threads' workspaces */
    fits = fits && rt_append(&total, stride * s->threads, &scratch_offset);
    if (!fits) return rt_fail(AOTFARM_ERROR_MEMORY, "the working memory for these sizes exceeds the address space");
    /* Huge pages need an aligned start. */
    uint64_t slack = total >= RT_HUGE_PAGE ? RT_HUGE_PAGE : 0;
    char *mapping = mmap(NULL, total + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return rt_fail(AOTFARM_ERROR_MEMORY, "cannot map %llu bytes of working memory: %m", (unsigned long long)(total + slack));
    char *arena = mapping;
    if (slack != 0) {
        arena = (char *)rt_round((uint64_t)(uintptr_t)mapping, RT_HUGE_PAGE);
        (void)madvise(arena, total, MADV_HUGEPAGE); /* only faster; the system may not have them */
    }
    if (s->mapping != NULL) munmap(s->mapping, s->mapping_bytes);
    s->mapping = mapping;
    s->mapping_bytes = total + slack;
    s->arena = arena;
    s->shared_offset = shared_offset;
    s->scratch_offset = scratch_offset;
    s->scratch_stride = stride;
    for (uint32_t i = 0; i < rt_model.n_slots; i++) s->slots[i] = r[i];
    for (uint32_t i = rt_model.n_slots; i < n; i++) {
        uint32_t k = i - rt_model.n_slots;
        rt_binding *b = k < api->n_inputs ? &s->inputs[k] : &s->outputs[k - api->n_inputs];
        b->capacity = r[i].capacity;
        b->offset = r[i].offset;
    }
    return AOTFARM_OK;
}

/* The tuned point nearest to the bound sizes: the least product of ratios; the first of equals. */
static uint32_t rt_nearest(const rt_points *points, const int64_t *symbols, uint32_t n_symbols) {
    uint32_t best = 0;
    double least = 0;
    for (uint32_t p = 0; p < points->n; p++) {
        double ratio = 1;
        for (uint32_t i = 0; i < n_symbols; i++) {
            double a = (double)symbols[i], b = (double)points->sizes[p * n_symbols + i];
            if (a < 1) a = 1;
            if (b < 1) b = 1;
            ratio *= a > b ? a / b : b / a;
        }
        if (p == 0 || ratio < least) {
            best = p;
            least = ratio;
        }
    }
    return best;
}

/* Makes everything that follows from the symbols' values, which are in s->symbols. */
static int32_t rt_bind(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    int32_t status;
    s->bound = false;
    rt_model.values(s->symbols, s->values);
    for (uint32_t i = 0; i < api->n_inputs; i++)
        if ((status = rt_tensor_bytes("input", &api->inputs[i], &rt_model.inputs[i], s->values, &s->inputs[i].bytes))) return status;
    for (uint32_t i = 0; i < api->n_outputs; i++)
        if ((status = rt_tensor_bytes("output", &api->outputs[i], &rt_model.outputs[i], s->values, &s->outputs[i].bytes))) return status;
    if ((status = rt_reserve(s))) return status;
    for (uint32_t i = 0; i < rt_model.n_points; i++) s->points[i] = rt_nearest(&rt_model.points[i], s->symbols, api->n_dims);
    const void **pointer = s->pointers;
    int64_t *dim = s->dims;
    for (uint32_t i = 0; i < api->n_steps; i++) {
        const rt_step *step = &rt_model.steps[i];
        const rt_kernel *kernel = &step->kernels[s->points[step->points]];
        aotk_call *call = &s->calls[i];
        s->kernels[i] = kernel->run;
        call->in = pointer;
        call->out = (void *const *)(pointer + step->n_in);
        call->weight = kernel->weights == NULL ? NULL : pointer + step->n_in + step->n_out;
        if (kernel->weights != NULL)
            for (uint32_t k = 0; k < step->n_weights; k++) pointer[step->n_in + step->n_out + k] = aotfarm_weights + kernel->weights[k];
        call->packed = kernel->packed == RT_NO_PACK ? NULL : aotfarm_weights + kernel->packed;
        call->shared = s->arena + s->shared_offset;
        call->dim = dim;
        call->tune = kernel->tune;
        call->team = &s->team;
        call->barrier = rt_barrier;
        for (uint32_t k = 0; k < step->n_dims; k++) *dim++ = s->values[step->dims[k]];
        pointer += step->n_in + step->n_out + step->n_weights;
    }
    s->bound = true;
    return AOTFARM_OK;
}

/* Takes over the caller's memory of one tensor, and decides whether it must be staged. */
static int32_t rt_attach(const char *kind, const aotfarm_port *port, const DLTensor *t, rt_binding *b, char *arena) {
    if (t->data == NULL && b->bytes > 0) return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the data pointer is null", kind, port->name);
    uintptr_t start, end;
    if (__builtin_add_overflow((uintptr_t)t->data, t->byte_offset, &start) || __builtin_add_overflow(start, b->bytes + RT_ALIGN, &end))
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the byte offset %llu leaves the address space", kind, port->name,
                       (unsigned long long)t->byte_offset);
    /* Bytes past the end are readable where they share the page of the last byte. */
    b->staged = b->bytes == 0 || start % RT_ALIGN != 0 || (end - RT_ALIGN - 1) / RT_PAGE != (end - 1) / RT_PAGE;
    b->data = (char *)start;
    b->used = b->staged ? arena + b->offset : b->data;
    return AOTFARM_OK;
}

static bool rt_overlap(const rt_binding *a, const rt_binding *b) {
    return a->bytes > 0 && b->bytes > 0 && (uintptr_t)a->data < (uintptr_t)b->data + b->bytes &&
           (uintptr_t)b->data < (uintptr_t)a->data + a->bytes;
}

/* This thread's share of the copies of staged tensors. */
static void rt_stage(rt_binding *bindings, uint32_t n, bool in, int32_t thread, int32_t threads) {
    for (uint32_t i = 0; i < n; i++) {
        rt_binding *b = &bindings[i];
        if (!b->staged || b->bytes == 0) continue;
        uint64_t share = rt_round(b->bytes / (uint64_t)threads + 1, RT_PAGE), from = share * (uint64_t)thread;
        if (from >= b->bytes) continue;
        uint64_t bytes = b->bytes - from < share ? b->bytes - from : share;
        memcpy((in ? b->used : b->data) + from, (in ? b->data : b->used) + from, bytes);
    }
}

/* The whole plan, on one thread of the team. */
static void rt_walk(void *arg, int32_t thread, int32_t threads) {
    aotfarm_session *s = arg;
    const aotfarm_api *api = rt_model.api;
    char *scratch = s->arena + s->scratch_offset + s->scratch_stride * (uint64_t)thread;
    if (s->staging_in) {
        rt_stage(s->inputs, api->n_inputs, true, thread, threads);
        if (threads > 1) rt_barrier(&s->team, thread);
    }
    double *seconds = thread == 0 ? s->seconds : NULL;
    int64_t before = seconds == NULL ? 0 : rt_now_ns();
    for (uint32_t i = 0; i < api->n_steps; i++) {
        aotk_call call = s->calls[i];
        call.scratch = scratch;
        call.thread = thread;
        call.threads = threads;
        s->kernels[i](&call);
        if (threads > 1) rt_barrier(&s->team, thread);
        if (seconds != NULL) {
            int64_t now = rt_now_ns();
            seconds[i] = (double)(now - before) * 1e-9;
            before = now;
        }
    }
    if (s->staging_out) rt_stage(s->outputs, api->n_outputs, false, thread, threads);
}

static int32_t rt_run_checked(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs,
                              uint32_t n_outputs) {
    const aotfarm_api *api = rt_model.api;
    const DLTensor *const *out = (const DLTensor *const *)outputs;
    int32_t status;
    if ((status = rt_check_tensors("input", inputs, n_inputs, api->inputs, api->n_inputs))) return status;
    if ((status = rt_check_tensors("output", out, n_outputs, api->outputs, api->n_outputs))) return status;
    if ((status = rt_bind_symbols(inputs, s->new_symbols))) return status;
    if (!s->bound || memcmp(s->symbols, s->new_symbols, api->n_dims * sizeof(int64_t)) != 0) {
        s->bound = false;
        memcpy(s->symbols, s->new_symbols, api->n_dims * sizeof(int64_t));
        rt_model.values(s->symbols, s->values);
    }
    /* Before the arena grows: the sizes have to be those of real tensors. */
    if ((status = rt_check_sizes("input", inputs, n_inputs, api->inputs, rt_model.inputs, s->values))) return status;
    if ((status = rt_check_sizes("output", out, n_outputs, api->outputs, rt_model.outputs, s->values))) return status;
    if (!s->bound && (status = rt_bind(s))) return status;

    s->staging_in = s->staging_out = false;
    for (uint32_t i = 0; i < n_inputs; i++) {
        if ((status = rt_attach("input", &api->inputs[i], inputs[i], &s->inputs[i], s->arena))) return status;
        s->staging_in |= s->inputs[i].staged;
    }
    for (uint32_t i = 0; i < n_outputs; i++) {
        rt_binding *o = &s->outputs[i];
        if ((status = rt_attach("output", &api->outputs[i], out[i], o, s->arena))) return status;
        s->staging_out |= o->staged;
        for (uint32_t k = 0; k < n_inputs; k++)
            if (rt_overlap(o, &s->inputs[k]))
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "output `%s`: its memory overlaps input `%s`", api->outputs[i].name, api->inputs[k].name);
        for (uint32_t k = 0; k < i; k++)
            if (rt_overlap(o, &s->outputs[k]))
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "output `%s`: its memory overlaps output `%s`", api->outputs[i].name,
                               api->outputs[k].name);
    }
    const void **pointer = s->pointers;
    for (uint32_t i = 0; i < api->n_steps; i++) {
        const rt_step *step = &rt_model.steps[i];
        for (uint32_t k = 0; k < step->n_in + step->n_out; k++) {
            const rt_buffer *b = &rt_model.buffers[k < step->n_in ? step->in[k] : step->out[k - step->n_in]];
            pointer[k] = b->place == RT_INPUT    ? s->inputs[b->index].used
                         : b->place == RT_OUTPUT ? s->outputs[b->index].used
                                                 : s->arena + s->slots[b->index].offset;
        }
        pointer += step->n_in + step->n_out + step->n_weights;
    }
    rt_team_run(&s->team, rt_walk, s);
    return AOTFARM_OK;
}

static int32_t rt_run_timed(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs, uint32_t n_outputs,
                            double *step_seconds, uint32_t n_steps) {
    if (s == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "the session is null");
    if (step_seconds != NULL && n_steps < rt_model.api->n_steps)
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "there is room for the times of %u steps, but the plan has %u", n_steps, rt_model.api->n_steps);
    if (atomic_exchange_explicit(&s->busy, true, memory_order_acquire))
        return rt_fail(AOTFARM_ERROR_BUSY, "the session is running on another thread: make one session for each");
    int32_t status;
    if (s->process != getpid()) {
        status = rt_fail(AOTFARM_ERROR_BUSY, "the session was made before a fork(), which its threads did not survive: make it in the child");
    } else {
        s->seconds = step_seconds;
        status = rt_run_checked(s, inputs, n_inputs, outputs, n_outputs);
    }
    atomic_store_explicit(&s->busy, false, memory_order_release);
    return status;
}

static int32_t rt_run(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs, uint32_t n_outputs) {
    return rt_run_timed(s, inputs, n_inputs, outputs, n_outputs, NULL, 0);
}

static int32_t rt_output_shapes(const DLTensor *const *inputs, uint32_t n_inputs, int64_t *sizes, uint32_t capacity) {
    const aotfarm_api *api = rt_model.api;
    int32_t status = rt_check_tensors("input", inputs, n_inputs, api->inputs, api->n_inputs);
    if (status) return status;
    uint32_t needed = 0, at = 0;
    for (uint32_t i = 0; i < api->n_outputs; i++) needed += (uint32_t)api->outputs[i].ndim;
    if (capacity < needed || (needed > 0 && sizes == NULL))
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "there is room for %u sizes, but the outputs have %u dimensions", sizes == NULL ? 0 : capacity,
                       needed);
    int64_t *symbols = calloc((size_t)api->n_dims + rt_model.n_values + 1, sizeof(int64_t)), *values = symbols + api->n_dims;
    if (symbols == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the table of sizes");
    if (!(status = rt_bind_symbols(inputs, symbols))) {
        rt_model.values(symbols, values);
        status = rt_check_sizes("input", inputs, n_inputs, api->inputs, rt_model.inputs, values);
    }
    for (uint32_t i = 0; i < api->n_outputs && !status; i++)
        for (int32_t k = 0; k < api->outputs[i].ndim; k++) sizes[at++] = values[rt_model.outputs[i].sizes[k]];
    free(symbols);
    return status;
}

static void rt_session_destroy(aotfarm_session *s) {
    if (s == NULL) return;
    rt_team_stop(&s->team, s->process != getpid());
    if (s->mapping != NULL) munmap(s->mapping, s->mapping_bytes);
    free(s->new_regions);
    free(s->slots);
    free(s->inputs);
    free(s->symbols);
    free(s->points);
    free(s->pointers);
    free(s->dims);
    free(s->calls);
    free(s->kernels);
    free(s);
}

/* An instruction set that the kernels use and this CPU lacks, or NULL. */
static const char *rt_missing_isa(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#define RT_NEEDS(level, name) \
    if (rt_model.isa >= (level) && !__builtin_cpu_supports(name)) return name
    RT_NEEDS(3, "avx2");
    RT_NEEDS(3, "fma");
    RT_NEEDS(3, "bmi");
    RT_NEEDS(3, "bmi2");
    RT_NEEDS(4, "avx512f");
    RT_NEEDS(4, "avx512bw");
    RT_NEEDS(4, "avx512cd");
    RT_NEEDS(4, "avx512dq");
    RT_NEEDS(4, "avx512vl");
#undef RT_NEEDS
#elif defined(__aarch64__)
    unsigned long has = getauxval(AT_HWCAP);
    if (rt_model.isa >= 82 && !(has & HWCAP_ATOMICS)) return "atomics (ARMv8.1)";
    if (rt_model.isa >= 82 && !(has & HWCAP_ASIMDRDM)) return "asimdrdm (ARMv8.1)";
    if (rt_model.isa >= 82 && !(has & HWCAP_DCPOP)) return "dcpop (ARMv8.2)";
#endif
    return NULL;
}

static int32_t rt_session_create(const aotfarm_options *options, aotfarm_session **session) {
    const aotfarm_api *api = rt_model.api;
    if (session == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "the place for the session is null");
    *session = NULL;
    aotfarm_options o = {.struct_size = sizeof o};
    if (options != NULL) {
        if (options->struct_size < sizeof o)
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "options.struct_size is %llu, but must be at least %zu",
                           (unsigned long long)options->struct_size, sizeof o);
        o = *options;
    }
    if (o.reserved != 0) return rt_fail(AOTFARM_ERROR_ARGUMENT, "options.reserved is %u, but must be 0", o.reserved);
    if (o.threads > RT_THREADS_MAX)
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "options.threads is %u, but at most %u are possible", o.threads, RT_THREADS_MAX);
    const char *missing = rt_missing_isa();
    if (missing != NULL)
        return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "this artifact is made for %s, and this CPU lacks %s", api->target, missing);
    if (o.threads == 0) o.threads = rt_cores() < RT_THREADS_MAX ? rt_cores() : RT_THREADS_MAX;

    aotfarm_session *s = aligned_alloc(RT_LINE, rt_round(sizeof *s, RT_LINE));
    if (s == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate a session");
    memset(s, 0, sizeof *s);
    s->process = getpid();
    s->threads = o.threads;
    uint32_t tensors = api->n_inputs + api->n_outputs;
    /* One element more each, since calloc(0) may be NULL. */
    s->slots = calloc((size_t)rt_model.n_slots + 1, sizeof *s->slots);
    s->new_regions = calloc((size_t)rt_model.n_slots + tensors + 1, sizeof *s->new_regions);
    s->inputs = calloc((size_t)tensors + 1, sizeof *s->inputs);
    s->symbols = calloc(2 * (size_t)api->n_dims + rt_model.n_values + 1, sizeof *s->symbols);
    s->points = calloc((size_t)rt_model.n_points + 1, sizeof *s->points);
    s->pointers = calloc((size_t)rt_model.n_pointers + 1, sizeof *s->pointers);
    s->dims = calloc((size_t)rt_model.n_step_dims + 1, sizeof *s->dims);
    s->calls = calloc((size_t)api->n_steps + 1, sizeof *s->calls);
    s->kernels = calloc((size_t)api->n_steps + 1, sizeof *s->kernels);
    if (!s->slots || !s->new_regions || !s->inputs || !s->symbols || !s->points || !s->pointers || !s->dims || !s->calls || !s->kernels) {
        rt_session_destroy(s);
        return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the tables of a session");
    }
    s->outputs = s->inputs + api->n_inputs;
    s->new_symbols = s->symbols + api->n_dims;
    s->values = s->new_symbols + api->n_dims;
    int error = rt_team_start(&s->team, o.threads, o.parallel, o.parallel_context);
    if (error != 0) {
        uint32_t started = s->team.started;
        rt_session_destroy(s);
        errno = error;
        return rt_fail(AOTFARM_ERROR_SYSTEM, "cannot start thread %u of %u: %m", started + 1, o.threads);
    }
    *session = s;
    return AOTFARM_OK;
}

#define RT_FUNCTIONS rt_last_error, rt_session_create, rt_session_destroy, rt_output_shapes, rt_run, rt_run_timed
