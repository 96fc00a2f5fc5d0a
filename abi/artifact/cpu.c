/* The session of a CPU artifact: lays out the arena and walks the plan on a team of threads. Follows aotk.h, aotfarm.h,
 * common.c, team.c and isa.c, and is followed by the generated tables. */

#include <sys/mman.h>

/* Every buffer starts on a multiple of this many bytes, and as many may be read past its end (see aotk.h). */
#define RT_ALIGN 64
#define RT_PAGE 4096 /* the smallest page of any supported system */
#define RT_HUGE_PAGE ((uint64_t)2 << 20)

struct rt_kernel {
    void (*run)(const aotk_call *);
    const int64_t *tune;
    const uint64_t *weights; /* offsets of the raw weights in the weight section, or NULL when the kernel packs */
    uint64_t packed;         /* offset of the packed weights, or RT_NO_PACK */
};

#define RT_NO_PACK UINT64_MAX

/* A run of steps that is done for a few images, all of it, before the next ones. An image is a unit of the first symbol. */
typedef struct rt_segment {
    uint32_t first, end; /* steps */
    int64_t images;      /* at most so many at a time, or RT_WHOLE */
} rt_segment;

#define RT_WHOLE INT64_MAX

/* What the kernels are made for and need, and in what order they run. */
struct rt_target {
    uint32_t isa; /* the level of CPUs that they are made for: see isa.c */
    uint64_t shared_bytes, thread_bytes; /* workspace of the team, of each thread */
    const rt_segment *segments; /* all steps in order */
    uint32_t n_segments;
    uint32_t n_operands; /* most inputs and outputs of a step */
    const uint32_t *image_bytes; /* of each buffer that holds more than a segment's images: from one to the next, a value; else RT_NONE */
};

static const struct rt_target rt_target;

static int32_t rt_check_device(const aotfarm_session *s, const char *kind, const aotfarm_port *port, DLDevice device) {
    (void)s;
    int32_t type = (int32_t)device.device_type;
    if (type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost) return AOTFARM_OK;
    return rt_fail(AOTFARM_ERROR_ARGUMENT, "%s `%s`: lies on a device of DLPack type %d, but this artifact takes host memory (1)", kind,
                   port->name, type);
}

static int32_t rt_fail_forked(void) {
    return rt_fail(AOTFARM_ERROR_BUSY, "the session was made before a fork(), which its threads did not survive: make it in the child");
}

/* How a segment is done at the bound sizes: in so many parts, whose sizes differ by one at most. */
typedef struct rt_parts {
    int64_t count, larger; /* the first `larger` have `images` images, the others one less */
    int64_t images;
} rt_parts;

/* What a step is called with, for the larger and the smaller parts of its segment. */
enum { RT_LARGER, RT_SMALLER, RT_SIZES };

struct aotfarm_session {
    rt_front front;
    rt_team team;
    uint32_t threads;
    /* Arena: one mapping that holds the slots, the staged tensors and the workspace. */
    char *mapping, *arena;
    uint64_t mapping_bytes;
    uint64_t shared_offset, scratch_offset, scratch_stride;
    rt_region *regions, *new_regions; /* of slots, inputs, outputs, writes; `new_regions` while they are laid out */
    char *states;         /* two pieces: what the states hold before a run, and what they hold after it */
    uint64_t states_from; /* where the piece from before the next run begins, 0 or rt_model.state_bytes: a run that succeeds changes it */
    /* What the bound sizes imply. */
    bool staging_in, staging_out;
    rt_parts *parts;        /* of each segment */
    const void **pointers;  /* of each step at each of RT_SIZES: in, out (of the whole batch, at the first size only), weights */
    int64_t *dims;          /* of each step at each of RT_SIZES */
    aotk_call *calls;       /* likewise */
    void (**kernels)(const aotk_call *);
    int64_t *part_symbols, *part_values; /* while binding: of a part */
};

/* Lays out the arena for the bound values and maps it, when the present one is too small. Regions never shrink. A fresh mapping is zero,
 * which is what makes halos zero; sizes within the capacity leave every slot where it is, so halos stay so. Pages that are
 * never touched cost nothing, hence no memory is reserved ahead. */
static int32_t rt_reserve(aotfarm_session *s) {
    uint32_t n = rt_model.n_slots + rt_n_bindings();
    rt_region *r = s->new_regions;
    bool grow = s->mapping == NULL;
    for (uint32_t i = 0; i < n; i++) {
        /* The bindings of inputs, outputs and writes are one array. */
        uint64_t needed = i < rt_model.n_slots ? rt_slot_bytes(&rt_model.slots[i], s->front.values) : s->front.inputs[i - rt_model.n_slots].bytes;
        r[i].capacity = s->regions[i].capacity;
        if (needed > r[i].capacity) {
            r[i].capacity = needed;
            grow = true;
        }
    }
    if (!grow) return AOTFARM_OK;

    uint64_t total = 0, shared_offset, scratch_offset;
    uint64_t stride = rt_round(rt_target.thread_bytes + RT_ALIGN, RT_LINE);
    bool fits = true;
    for (uint32_t i = 0; i < n; i++) fits = fits && rt_append(&total, r[i].capacity, RT_ALIGN, &r[i].offset);
    fits = fits && rt_append(&total, rt_target.shared_bytes, RT_ALIGN, &shared_offset);
    total = rt_round(total, RT_LINE); /* no line is shared by two threads' workspaces */
    fits = fits && rt_append(&total, stride * s->threads, RT_ALIGN, &scratch_offset);
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
    memcpy(s->regions, r, n * sizeof *r);
    return AOTFARM_OK;
}

/* Where the pointers and dims of a step begin. */
typedef struct rt_cursor {
    size_t pointer, dim;
} rt_cursor;

/* The calls of a segment's steps for parts of one size, whose symbols and values these are; returns where those of the next segment begin. Both sizes have
 * the same operands, but not the same kernels, and so not the same weights. */
static rt_cursor rt_bind_steps(aotfarm_session *s, const rt_segment *segment, int size, const int64_t *symbols, const int64_t *values,
                               rt_cursor at) {
    const aotfarm_api *api = rt_model.api;
    for (uint32_t i = segment->first; i < segment->end; i++) {
        const rt_step *step = &rt_model.steps[i];
        const rt_kernel *kernel = &step->kernels[rt_nearest(&rt_model.points[step->points], symbols, api->n_dims)];
        const void **operand = s->pointers + at.pointer, **weight = operand + (size_t)size * rt_model.n_pointers + step->n_in + step->n_out;
        int64_t *dim = s->dims + (size_t)size * rt_model.n_step_dims + at.dim;
        aotk_call *call = &s->calls[(size_t)size * api->n_steps + i];
        s->kernels[(size_t)size * api->n_steps + i] = kernel->run;
        call->in = operand;
        call->out = (void *const *)(operand + step->n_in);
        call->weight = kernel->weights == NULL ? NULL : weight;
        if (kernel->weights != NULL)
            for (uint32_t k = 0; k < step->n_weights; k++) weight[k] = aotfarm_weights + kernel->weights[k];
        call->packed = kernel->packed == RT_NO_PACK ? NULL : aotfarm_weights + kernel->packed;
        call->shared = s->arena + s->shared_offset;
        call->dim = dim;
        call->tune = kernel->tune;
        call->team = &s->team;
        call->barrier = rt_barrier;
        for (uint32_t k = 0; k < step->n_dims; k++) dim[k] = values[step->dims[k]];
        at.dim += step->n_dims;
        at.pointer += step->n_in + step->n_out + step->n_weights;
    }
    return at;
}

/* Makes everything that follows from the symbols' values. */
static int32_t rt_bind(aotfarm_session *s) {
    const aotfarm_api *api = rt_model.api;
    int32_t status = rt_reserve(s);
    if (status) return status;
    int64_t batch = api->n_dims > 0 ? s->front.symbols[0] : 1;
    rt_cursor at = {0, 0}, end = at;
    for (uint32_t g = 0; g < rt_target.n_segments; g++, at = end) {
        const rt_segment *segment = &rt_target.segments[g];
        rt_parts *parts = &s->parts[g];
        parts->count = (batch - 1) / segment->images + 1;
        parts->images = (batch - 1) / parts->count + 1;
        parts->larger = batch - parts->count * (parts->images - 1);
        if (parts->count == 1) {
            end = rt_bind_steps(s, segment, RT_LARGER, s->front.symbols, s->front.values, at);
            continue;
        }
        memcpy(s->part_symbols, s->front.symbols, api->n_dims * sizeof(int64_t));
        for (int size = RT_LARGER; size == RT_LARGER || (size < RT_SIZES && parts->larger < parts->count); size++) {
            s->part_symbols[0] = parts->images - size;
            rt_model.values(s->part_symbols, s->part_values);
            end = rt_bind_steps(s, segment, size, s->part_symbols, s->part_values, at);
        }
    }
    s->front.bound = true;
    return AOTFARM_OK;
}

/* Takes over the caller's memory of one tensor, and decides whether it must be staged: bytes past the end are readable where they share the
 * page of the last byte. */
static int32_t rt_take(const char *kind, const aotfarm_port *port, const DLTensor *t, rt_binding *b, char *place) {
    int32_t status = rt_attach(kind, port, t, RT_ALIGN, b);
    if (status) return status;
    b->staged = b->bytes == 0 || (uintptr_t)b->data % RT_ALIGN != 0 || rt_ends_page(b, RT_ALIGN, RT_PAGE);
    b->used = b->staged ? place : b->data;
    return AOTFARM_OK;
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

/* Writes a step's operands for a part that begins with image `first`; what holds only the part begins with it. */
static void rt_move(const aotfarm_session *s, const rt_step *step, int64_t first, const void *const *operands, const void **moved) {
    for (uint32_t k = 0; k < step->n_in + step->n_out; k++) {
        uint32_t bytes = rt_target.image_bytes[k < step->n_in ? step->in[k] : step->out[k - step->n_in]];
        moved[k] = bytes == RT_NONE ? operands[k] : (const char *)operands[k] + first * s->front.values[bytes];
    }
}

/* Tells the watcher of the run what a step has written for a part of its segment. Values that follow from a part's size are made anew. */
static void rt_tell_all(aotfarm_session *s, const rt_parts *parts, int size, uint32_t i, const aotk_call *call) {
    const rt_step *step = &rt_model.steps[i];
    const int64_t *values = s->front.values;
    if (parts->count > 1) {
        memcpy(s->part_symbols, s->front.symbols, rt_model.api->n_dims * sizeof(int64_t));
        s->part_symbols[0] = parts->images - size;
        rt_model.values(s->part_symbols, s->part_values);
        values = s->part_values;
    }
    for (uint32_t k = 0; k < step->n_out; k++)
        rt_tell(&s->front, i, k, call->dim, call->out[k], (uint64_t)values[rt_model.buffers[step->out[k]].bytes]);
}

/* The whole plan, on one thread of the team. */
static void rt_walk(void *arg, int32_t thread, int32_t threads) {
    aotfarm_session *s = arg;
    const aotfarm_api *api = rt_model.api;
    char *scratch = s->arena + s->scratch_offset + s->scratch_stride * (uint64_t)thread;
    const void *moved[rt_target.n_operands + 1];
    if (s->staging_in) {
        rt_stage(s->front.inputs, api->n_inputs, true, thread, threads);
        if (threads > 1) rt_barrier(&s->team, thread);
    }
    double *seconds = thread == 0 ? s->front.seconds : NULL;
    if (seconds != NULL) memset(seconds, 0, api->n_steps * sizeof *seconds);
    int64_t before = seconds == NULL ? 0 : rt_now_ns();
    for (uint32_t g = 0; g < rt_target.n_segments; g++) {
        const rt_segment *segment = &rt_target.segments[g];
        const rt_parts *parts = &s->parts[g];
        int64_t first = 0; /* image */
        for (int64_t part = 0; part < parts->count; part++) {
            int size = part < parts->larger ? RT_LARGER : RT_SMALLER;
            for (uint32_t i = segment->first; i < segment->end; i++) {
                const rt_step *step = &rt_model.steps[i];
                aotk_call call = s->calls[(size_t)size * api->n_steps + i];
                if (parts->count > 1) {
                    rt_move(s, step, first, call.in, moved);
                    call.in = moved;
                    call.out = (void *const *)(moved + step->n_in);
                }
                call.scratch = scratch;
                call.thread = thread;
                call.threads = threads;
                s->kernels[(size_t)size * api->n_steps + i](&call);
                if (threads > 1) rt_barrier(&s->team, thread);
                if (s->front.watch != NULL) {
                    if (thread == 0) rt_tell_all(s, parts, size, i, &call);
                    if (threads > 1) rt_barrier(&s->team, thread);
                }
                if (seconds != NULL) {
                    int64_t now = rt_now_ns();
                    seconds[i] += (double)(now - before) * 1e-9;
                    before = now;
                }
            }
            first += parts->images - size;
        }
    }
    if (s->staging_out) rt_stage(s->front.outputs, api->n_outputs + api->n_writes, false, thread, threads);
}

/* Where a buffer of a bound run lies. */
static char *rt_place(const aotfarm_session *s, const rt_buffer *b) {
    switch (b->place) {
    case RT_INPUT: return s->front.inputs[b->index].used;
    case RT_OUTPUT: return s->front.outputs[b->index].used;
    case RT_BACK: return s->front.writes[b->index].used;
    case RT_STATE: return s->states + s->states_from + rt_model.states[b->index].offset;
    case RT_NEXT: return s->states + (rt_model.state_bytes - s->states_from) + rt_model.states[b->index].offset;
    default: return s->arena + s->regions[b->index].offset;
    }
}

static int32_t rt_run_locked(aotfarm_session *s, const DLTensor *const *inputs, uint32_t n_inputs, const DLTensor *const *outputs,
                             uint32_t n_outputs) {
    const aotfarm_api *api = rt_model.api;
    rt_front *f = &s->front;
    int32_t status = rt_check_call(s, f, inputs, n_inputs, outputs, n_outputs);
    if (status) return status;
    if (!f->bound && (status = rt_bind(s))) return status;

    const rt_region *place = s->regions + rt_model.n_slots;
    s->staging_in = s->staging_out = false;
    for (uint32_t i = 0; i < n_inputs; i++, place++) {
        if ((status = rt_take("input", &api->inputs[i], inputs[i], &f->inputs[i], s->arena + place->offset))) return status;
        s->staging_in |= f->inputs[i].staged;
    }
    for (uint32_t i = 0; i < n_outputs; i++, place++) {
        if ((status = rt_take("output", &api->outputs[i], outputs[i], &f->outputs[i], s->arena + place->offset))) return status;
        s->staging_out |= f->outputs[i].staged;
    }
    for (uint32_t i = 0; i < api->n_writes; i++, place++) {
        f->writes[i].data = f->inputs[api->writes[i]].data;
        f->writes[i].used = s->arena + place->offset;
        f->writes[i].staged = s->staging_out = true;
    }
    if ((status = rt_check_overlaps(f))) return status;
    const void **pointer = s->pointers;
    for (uint32_t i = 0; i < api->n_steps; i++) {
        const rt_step *step = &rt_model.steps[i];
        for (uint32_t k = 0; k < step->n_in + step->n_out; k++)
            pointer[k] = rt_place(s, &rt_model.buffers[k < step->n_in ? step->in[k] : step->out[k - step->n_in]]);
        pointer += step->n_in + step->n_out + step->n_weights;
    }
    rt_team_run(&s->team, rt_walk, s);
    s->states_from = rt_model.state_bytes - s->states_from;
    return AOTFARM_OK;
}

static int32_t rt_reset_locked(aotfarm_session *s) {
    for (uint32_t i = 0; i < rt_model.api->n_states; i++) {
        const rt_state *state = &rt_model.states[i];
        memcpy(s->states + s->states_from + state->offset, aotfarm_weights + state->initial, state->bytes);
    }
    return AOTFARM_OK;
}

static void rt_session_destroy(aotfarm_session *s) {
    if (s == NULL) return;
    rt_team_stop(&s->team, s->front.process != getpid());
    if (s->mapping != NULL) munmap(s->mapping, s->mapping_bytes);
    free(s->states);
    free(s->new_regions);
    free(s->regions);
    free(s->parts);
    free(s->part_symbols);
    free(s->pointers);
    free(s->dims);
    free(s->calls);
    free(s->kernels);
    rt_front_free(&s->front);
    free(s);
}

static int32_t rt_session_create(const aotfarm_options *options, aotfarm_session **session) {
    const aotfarm_api *api = rt_model.api;
    if (session == NULL) return rt_fail(AOTFARM_ERROR_ARGUMENT, "the place for the session is null");
    *session = NULL;
    aotfarm_options o;
    int32_t status = rt_options(options, &o);
    if (status) return status;
    if (o.threads > RT_THREADS_MAX)
        return rt_fail(AOTFARM_ERROR_ARGUMENT, "options.threads is %u, but at most %u are possible", o.threads, RT_THREADS_MAX);
    const char *missing = rt_missing_isa(rt_target.isa);
    if (missing != NULL)
        return rt_fail(AOTFARM_ERROR_UNSUPPORTED, "this artifact is made for %s, and this CPU lacks %s", api->target, missing);
    if (o.threads == 0) o.threads = rt_cores() < RT_THREADS_MAX ? rt_cores() : RT_THREADS_MAX;

    aotfarm_session *s = aligned_alloc(RT_LINE, rt_round(sizeof *s, RT_LINE));
    if (s == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate a session");
    memset(s, 0, sizeof *s);
    s->threads = o.threads;
    uint32_t regions = rt_model.n_slots + rt_n_bindings();
    /* One element more each, since calloc(0) may be NULL. */
    s->regions = calloc((size_t)regions + 1, sizeof *s->regions);
    s->new_regions = calloc((size_t)regions + 1, sizeof *s->new_regions);
    s->parts = calloc((size_t)rt_target.n_segments + 1, sizeof *s->parts);
    s->part_symbols = calloc((size_t)api->n_dims + rt_model.n_values + 1, sizeof *s->part_symbols);
    s->part_values = s->part_symbols + api->n_dims;
    s->pointers = calloc(RT_SIZES * (size_t)rt_model.n_pointers + 1, sizeof *s->pointers);
    s->dims = calloc(RT_SIZES * (size_t)rt_model.n_step_dims + 1, sizeof *s->dims);
    s->calls = calloc(RT_SIZES * (size_t)api->n_steps + 1, sizeof *s->calls);
    s->kernels = calloc(RT_SIZES * (size_t)api->n_steps + 1, sizeof *s->kernels);
    if (rt_model.state_bytes > 0 && (s->states = aligned_alloc(RT_ALIGN, 2 * rt_model.state_bytes)) == NULL) {
        rt_session_destroy(s);
        return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate %llu bytes for the states", (unsigned long long)(2 * rt_model.state_bytes));
    }
    if (!rt_front_init(&s->front) || !s->regions || !s->new_regions || !s->parts || !s->part_symbols || !s->pointers || !s->dims || !s->calls ||
        !s->kernels) {
        rt_session_destroy(s);
        return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the tables of a session");
    }
    rt_reset_locked(s);
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
