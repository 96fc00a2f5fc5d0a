/* What the sessions of all devices share: the tables of an artifact, the texts of errors, the checks of the caller's tensors, and how the
 * symbolic sizes follow from them. Part of every artifact; follows aotfarm.h, and is followed by the session of one kind of device, which
 * defines what is only declared here. Errors are a status and a text for the calling thread; nothing that a caller passes is trusted. */

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RT_NONE 0xffffffffu

static inline void rt_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

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
    const int64_t *range; /* the least and the largest number that an element may be, where all are indices; else NULL */
} rt_port;

/* RT_STATE is what a state holds before the run, RT_NEXT what it holds after it, RT_BACK what is written into the caller's input at the end. */
enum { RT_INPUT, RT_OUTPUT, RT_SLOT, RT_STATE, RT_NEXT, RT_BACK };

typedef struct rt_buffer {
    uint32_t place, index;
    uint32_t bytes; /* a value */
} rt_buffer;

typedef struct rt_slot {
    const uint32_t *bytes; /* values; the slot takes the largest */
    uint32_t n_bytes;
} rt_slot;

/* A buffer that outlives a run. */
typedef struct rt_state {
    uint64_t initial;       /* offset of its first contents in the weight section */
    uint64_t offset, bytes; /* in the memory of all states, of which a session has two: before and after a run */
} rt_state;

/* The kernel of a step at one tuned point; what it consists of depends on the device. */
typedef struct rt_kernel rt_kernel;

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
    uint32_t n_values, n_buffers, n_slots, n_points;
    uint32_t n_pointers, n_step_dims; /* sums over the steps */
    void (*values)(const int64_t *symbols, int64_t *values);
    const rt_symbol *symbols;
    const rt_port *inputs, *outputs;
    const rt_buffer *buffers;
    const rt_slot *slots;
    const rt_points *points;
    const rt_step *steps;
    const rt_state *states;
    uint64_t state_bytes; /* of all, with what may be read past the end of each */
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

/* Whether the session (NULL: any) takes tensors that lie where this one does. */
static int32_t rt_check_device(const aotfarm_session *s, const char *kind, const aotfarm_port *port, DLDevice device);

/* Count, null pointers, rank, element type, device and signs of one list of tensors. */
static int32_t rt_check_tensors(const aotfarm_session *s, const char *kind, const DLTensor *const *tensors, uint32_t n,
                                const aotfarm_port *ports, uint32_t expected) {
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
        int32_t status = rt_check_device(s, kind, port, t->device);
        if (status) return status;
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

/* ---- sizes ---- */

static uint64_t rt_round(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit * unit; }

/* A part of a session's working memory. */
typedef struct rt_region {
    uint64_t capacity, offset;
} rt_region;

/* Appends a region on a multiple of `align`, with as much room to read past it. False when the total would leave the address space. */
static bool rt_append(uint64_t *total, uint64_t bytes, uint64_t align, uint64_t *offset) {
    *offset = *total;
    return bytes < (UINT64_C(1) << 46) && !__builtin_add_overflow(*total, rt_round(bytes, align) + align, total) &&
           *total < (UINT64_C(1) << 47);
}

/* What a slot must hold at these sizes. */
static uint64_t rt_slot_bytes(const rt_slot *slot, const int64_t *values) {
    uint64_t needed = 0;
    for (uint32_t k = 0; k < slot->n_bytes; k++)
        if ((uint64_t)values[slot->bytes[k]] > needed) needed = (uint64_t)values[slot->bytes[k]];
    return needed;
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

/* ---- the front of a session ---- */

/* A tensor of the caller in the current run. A staged one is copied to or from the session's own memory, because kernels rely on where
 * it lies, on alignment and on readable bytes past the end. */
typedef struct rt_binding {
    char *data; /* the caller's memory */
    char *used; /* what the kernels see */
    uint64_t bytes;
    bool staged;
} rt_binding;

/* What a session checks and binds before its device is asked. */
typedef struct rt_front {
    _Atomic bool busy;
    pid_t process;
    bool bound; /* whether the device has what follows from `symbols` */
    int64_t *symbols, *new_symbols, *values;
    rt_binding *inputs, *outputs, *writes; /* one array; what is written back has its input's `data` */
    double *seconds; /* NULL unless the run is timed */
    aotfarm_watch_fn *watch; /* NULL unless the run is watched */
    void *watch_context;
} rt_front;

/* Inputs, outputs and writes of a call. */
static uint32_t rt_n_bindings(void) { return rt_model.api->n_inputs + rt_model.api->n_outputs + rt_model.api->n_writes; }

static bool rt_front_init(rt_front *f) {
    const aotfarm_api *api = rt_model.api;
    f->process = getpid();
    /* One element more each, since calloc(0) may be NULL. */
    f->inputs = calloc((size_t)rt_n_bindings() + 1, sizeof *f->inputs);
    f->symbols = calloc(2 * (size_t)api->n_dims + rt_model.n_values + 1, sizeof *f->symbols);
    if (f->inputs == NULL || f->symbols == NULL) return false;
    f->outputs = f->inputs + api->n_inputs;
    f->writes = f->outputs + api->n_outputs;
    f->new_symbols = f->symbols + api->n_dims;
    f->values = f->new_symbols + api->n_dims;
    return true;
}

static void rt_front_free(rt_front *f) {
    free(f->inputs);
    free(f->symbols);
}

/* Checks the tensors of a call but for their data, and binds their sizes: symbols, values, bytes. `bound` becomes false when the sizes are others
 * than before. No memory of the device is reserved yet: the sizes have to be those of real tensors first. */
static int32_t rt_check_call(const aotfarm_session *s, rt_front *f, const DLTensor *const *inputs, uint32_t n_inputs,
                             const DLTensor *const *outputs, uint32_t n_outputs) {
    const aotfarm_api *api = rt_model.api;
    int32_t status;
    if ((status = rt_check_tensors(s, "input", inputs, n_inputs, api->inputs, api->n_inputs))) return status;
    if ((status = rt_check_tensors(s, "output", outputs, n_outputs, api->outputs, api->n_outputs))) return status;
    if ((status = rt_bind_symbols(inputs, f->new_symbols))) return status;
    if (!f->bound || memcmp(f->symbols, f->new_symbols, api->n_dims * sizeof(int64_t)) != 0) {
        f->bound = false;
        memcpy(f->symbols, f->new_symbols, api->n_dims * sizeof(int64_t));
        rt_model.values(f->symbols, f->values);
    }
    if ((status = rt_check_sizes("input", inputs, n_inputs, api->inputs, rt_model.inputs, f->values))) return status;
    if ((status = rt_check_sizes("output", outputs, n_outputs, api->outputs, rt_model.outputs, f->values))) return status;
    if (f->bound) return AOTFARM_OK;
    for (uint32_t i = 0; i < n_inputs; i++)
        if ((status = rt_tensor_bytes("input", &api->inputs[i], &rt_model.inputs[i], f->values, &f->inputs[i].bytes))) return status;
    for (uint32_t i = 0; i < n_outputs; i++)
        if ((status = rt_tensor_bytes("output", &api->outputs[i], &rt_model.outputs[i], f->values, &f->outputs[i].bytes))) return status;
    for (uint32_t i = 0; i < api->n_writes; i++) f->writes[i].bytes = f->inputs[api->writes[i]].bytes;
    return AOTFARM_OK;
}

/* Takes over the caller's memory of one tensor, whose end and `past` bytes more must lie in the address space. */
static int32_t rt_attach(const char *kind, const aotfarm_port *port, const DLTensor *t, uint64_t past, rt_binding *b) {
    if (t->data == NULL && b->bytes > 0) return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the data pointer is null", kind, port->name);
    uintptr_t start, end;
    if (__builtin_add_overflow((uintptr_t)t->data, t->byte_offset, &start) || __builtin_add_overflow(start, b->bytes + past, &end))
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: the byte offset %llu leaves the address space", kind, port->name,
                       (unsigned long long)t->byte_offset);
    b->data = (char *)start;
    return AOTFARM_OK;
}

/* That the elements of an input, which are in memory of the host, are in its range. */
static int32_t rt_check_range(uint32_t input, const DLTensor *t, const rt_binding *b) {
    const aotfarm_port *port = &rt_model.api->inputs[input];
    const int64_t *range = rt_model.inputs[input].range;
    if (range == NULL) return AOTFARM_OK;
    const uint64_t size = port->dtype.bits / 8, n = b->bytes / size;
    const int64_t low = range[0], high = range[1];
    int64_t element = 0;
    uint64_t at = 0;
    /* The memory may have any alignment. */
#define RT_FIND_OUTSIDE(type)                              \
    for (; at < n; at++) {                                 \
        type x;                                            \
        memcpy(&x, b->data + at * sizeof x, sizeof x);     \
        element = x;                                       \
        if (element < low || element > high) break;        \
    }
    if (port->dtype.code == kDLUInt) RT_FIND_OUTSIDE(uint8_t)
    else if (size == 1) RT_FIND_OUTSIDE(int8_t)
    else if (size == 2) RT_FIND_OUTSIDE(int16_t)
    else if (size == 4) RT_FIND_OUTSIDE(int32_t)
    else RT_FIND_OUTSIDE(int64_t)
#undef RT_FIND_OUTSIDE
    if (at == n) return AOTFARM_OK;
    char text[256] = "";
    size_t end = 0;
    for (int32_t k = 0; k < t->ndim && end < sizeof text; k++) {
        uint64_t inner = 1;
        for (int32_t i = k + 1; i < t->ndim; i++) inner *= (uint64_t)t->shape[i];
        end += (size_t)snprintf(text + end, sizeof text - end, "%s%llu", k ? ", " : "",
                                (unsigned long long)(at / inner % (uint64_t)t->shape[k]));
    }
    return rt_fail(AOTFARM_ERROR_ARGUMENT, "input `%s`: element [%s] is %lld, outside %lld..%lld, the table that it picks from", port->name,
                   text, (long long)element, (long long)low, (long long)high);
}

/* Whether bytes just past the end lie on another page of this size than the last byte, and so may not be readable. */
static bool rt_ends_page(const rt_binding *b, uint64_t past, uint64_t page) {
    uint64_t end = (uint64_t)(uintptr_t)b->data + b->bytes;
    return (end - 1) / page != (end + past - 1) / page;
}

static bool rt_overlap(const rt_binding *a, const rt_binding *b) {
    return a->bytes > 0 && b->bytes > 0 && (uintptr_t)a->data < (uintptr_t)b->data + b->bytes &&
           (uintptr_t)b->data < (uintptr_t)a->data + a->bytes;
}

/* That no memory to write is that of another tensor. */
static int32_t rt_check_overlaps(const rt_front *f) {
    const aotfarm_api *api = rt_model.api;
    for (uint32_t i = 0; i < api->n_outputs; i++) {
        for (uint32_t k = 0; k < api->n_inputs; k++)
            if (rt_overlap(&f->outputs[i], &f->inputs[k]))
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "output `%s`: its memory overlaps input `%s`", api->outputs[i].name, api->inputs[k].name);
        for (uint32_t k = 0; k < i; k++)
            if (rt_overlap(&f->outputs[i], &f->outputs[k]))
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "output `%s`: its memory overlaps output `%s`", api->outputs[i].name,
                               api->outputs[k].name);
    }
    for (uint32_t i = 0; i < api->n_writes; i++)
        for (uint32_t k = 0; k < api->n_inputs; k++)
            if (k != api->writes[i] && rt_overlap(&f->inputs[api->writes[i]], &f->inputs[k]))
                return rt_fail(AOTFARM_ERROR_ARGUMENT, "input `%s`: the model writes to it, and its memory overlaps input `%s`",
                               api->inputs[api->writes[i]].name, api->inputs[k].name);
    return AOTFARM_OK;
}

/* ---- calls ---- */

/* The front of a session, which is its first member. */
static rt_front *rt_front_of(aotfarm_session *s) { return (rt_front *)s; }

/* Runs the model on the device; the session is this thread's. */
static int32_t rt_run_locked(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, const DLTensor *const *outputs,
                             uint32_t n_outputs);

/* Lets the states hold what they do in a fresh session, which is this thread's. */
static int32_t rt_reset_locked(aotfarm_session *s);

/* Says that the session did not survive a fork. */
static int32_t rt_fail_forked(void);

/* Makes the session this thread's until `rt_end`. */
static int32_t rt_begin(aotfarm_session *s) {
    rt_front *f = rt_front_of(s);
    if (atomic_exchange_explicit(&f->busy, true, memory_order_acquire))
        return rt_fail(AOTFARM_ERROR_BUSY, "the session is running on another thread: make one session for each");
    if (f->process == getpid()) return AOTFARM_OK;
    atomic_store_explicit(&f->busy, false, memory_order_release);
    return rt_fail_forked();
}

static void rt_end(aotfarm_session *s) { atomic_store_explicit(&rt_front_of(s)->busy, false, memory_order_release); }

/* Tells the watcher of a run a result of a step that was called with these sizes. */
static void rt_tell(const rt_front *f, uint32_t step, uint32_t output, const int64_t *dims, const void *data, uint64_t bytes) {
    aotfarm_result result = {.step = step, .output = output, .dims = dims, .n_dims = rt_model.steps[step].n_dims, .data = data, .bytes = bytes};
    f->watch(f->watch_context, &result);
}

/* A run that may be timed or watched. */
static int32_t rt_run_as(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs, uint32_t n_outputs,
                         double *seconds, aotfarm_watch_fn *watch, void *context) {
    if (s == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "the session is null");
    int32_t status = rt_begin(s);
    if (status) return status;
    rt_front *f = rt_front_of(s);
    f->seconds = seconds;
    f->watch = watch;
    f->watch_context = context;
    status = rt_run_locked(s, inputs, n_inputs, (const DLTensor *const *)outputs, n_outputs);
    rt_end(s);
    return status;
}

static int32_t rt_run(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs, uint32_t n_outputs) {
    return rt_run_as(s, inputs, n_inputs, outputs, n_outputs, NULL, NULL, NULL);
}

static int32_t rt_run_timed(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs, uint32_t n_outputs,
                            double *step_seconds, uint32_t n_steps) {
    if (step_seconds != NULL && n_steps < rt_model.api->n_steps)
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "there is room for the times of %u steps, but the plan has %u", n_steps, rt_model.api->n_steps);
    return rt_run_as(s, inputs, n_inputs, outputs, n_outputs, step_seconds, NULL, NULL);
}

static int32_t rt_run_watched(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, DLTensor *const *outputs,
                              uint32_t n_outputs, aotfarm_watch_fn *watch, void *context) {
    if (watch == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "there is no function to tell results to");
    return rt_run_as(s, inputs, n_inputs, outputs, n_outputs, NULL, watch, context);
}

static int32_t rt_session_reset(aotfarm_session *s) {
    if (s == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "the session is null");
    int32_t status = rt_begin(s);
    if (status) return status;
    status = rt_reset_locked(s);
    rt_end(s);
    return status;
}

static int32_t rt_output_shapes(const DLTensor *const *inputs, uint32_t n_inputs, int64_t *sizes, uint32_t capacity) {
    const aotfarm_api *api = rt_model.api;
    int32_t status = rt_check_tensors(NULL, "input", inputs, n_inputs, api->inputs, api->n_inputs);
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

/* The caller's options, or their defaults; members that an older caller does not know keep theirs. */
static int32_t rt_options(const aotfarm_options *options, aotfarm_options *o) {
    const size_t oldest = offsetof(aotfarm_options, device);
    *o = (aotfarm_options){.struct_size = sizeof *o};
    if (options != NULL) {
        if (options->struct_size < oldest)
            return rt_fail(AOTFARM_ERROR_ARGUMENT, "options.struct_size is %llu, but must be at least %zu",
                           (unsigned long long)options->struct_size, oldest);
        memcpy(o, options, options->struct_size < sizeof *o ? options->struct_size : sizeof *o);
    }
    if (o->reserved != 0) return rt_fail(AOTFARM_ERROR_ARGUMENT, "options.reserved is %u, but must be 0", o->reserved);
    if (o->may_write > 1) return rt_fail(AOTFARM_ERROR_ARGUMENT, "options.may_write is %u, but must be 0 or 1", o->may_write);
    /* A program that does not know of such models counts on its inputs. */
    const aotfarm_api *api = rt_model.api;
    if (api->n_writes > 0 && !o->may_write)
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "input `%s`: the model writes to it, so that a run changes the caller's tensor: set options.may_write to 1",
                       api->inputs[api->writes[0]].name);
    return AOTFARM_OK;
}

static int32_t rt_session_create(const aotfarm_options *options, aotfarm_session **session);
static void rt_session_destroy(aotfarm_session *s);

#define RT_FUNCTIONS rt_last_error, rt_session_create, rt_session_destroy, rt_output_shapes, rt_run, rt_run_timed, rt_session_reset
