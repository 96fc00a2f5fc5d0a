/* What the C ABI promises and the safe Rust layer cannot show: callers' thread pools, odd memory, and calls that are wrong. Takes the artifact of
 * the link tests (x [batch, 3], y [batch, 4] -> z [batch, 4], s [2*batch + 1]) and exits with 0 or names the line that failed. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aotfarm.h"

#define CHECK(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "line %d: %s (last error: %s)\n", __LINE__, #condition, api ? api->last_error() : ""); \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)
#define FAILS(status, text) CHECK((status) == AOTFARM_ERROR_ARGUMENT && strcmp(api->last_error(), text) == 0)

enum { BATCH = 7 };

static const aotfarm_api *api;
static int64_t x_shape[] = {BATCH, 3}, y_shape[] = {BATCH, 4}, z_shape[] = {BATCH, 4}, s_shape[] = {2 * BATCH + 1};
static _Alignas(64) float x_data[256], y_data[256], z_data[256], s_data[256], expected_z[BATCH * 4], expected_s[2 * BATCH + 1];
static DLTensor x, y, z, s;
static const DLTensor *inputs[] = {&x, &y};
static DLTensor *outputs[] = {&z, &s};

static void reset(void) {
    DLTensor t = {.device = {kDLCPU, 0}, .dtype = {kDLFloat, 32, 1}};
    x = y = z = s = t;
    x.data = x_data, x.ndim = 2, x.shape = x_shape;
    y.data = y_data, y.ndim = 2, y.shape = y_shape;
    z.data = z_data, z.ndim = 2, z.shape = z_shape;
    s.data = s_data, s.ndim = 1, s.shape = s_shape;
    memset(z_data, 0xff, sizeof z_data);
    memset(s_data, 0xff, sizeof s_data);
}

static int32_t run(aotfarm_session *session) { return api->run(session, inputs, 2, outputs, 2); }

/* Whether the outputs are right; `s` sums in an order that depends on the team. */
static int right(void) {
    const float *zs = (const float *)((char *)z.data + z.byte_offset), *ss = (const float *)((char *)s.data + s.byte_offset);
    if (memcmp(zs, expected_z, sizeof expected_z) != 0) return 0;
    for (int i = 0; i < 2 * BATCH + 1; i++) {
        float difference = ss[i] - expected_s[i], limit = 1e-5f * (expected_s[i] + 1);
        if (!(difference <= limit && difference >= -limit)) return 0;
    }
    return 1;
}

/* ---- pools ---- */

typedef struct call {
    void (*task)(void *, uint32_t);
    void *arg;
    uint32_t index;
} call;

static void *call_main(void *context) {
    call *c = context;
    c->task(c->arg, c->index);
    return NULL;
}

static void pool_of_threads(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    pthread_t threads[16];
    call calls[16];
    *(uint32_t *)context += n;
    for (uint32_t i = 0; i < n; i++) {
        calls[i] = (call){task, arg, i};
        if (pthread_create(&threads[i], NULL, call_main, &calls[i])) abort();
    }
    for (uint32_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

/* All calls one after the other on one thread: no two of them ever run at the same time. */
static void pool_of_one(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    *(uint32_t *)context += n;
    for (uint32_t i = 0; i < n; i++) task(arg, i);
}

/* Two threads for any number of calls. */
static void pool_of_two(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    pthread_t other;
    call c = {task, arg, 1};
    *(uint32_t *)context += n;
    if (pthread_create(&other, NULL, call_main, &c)) abort();
    task(arg, 0);
    for (uint32_t i = 2; i < n; i++) task(arg, i);
    pthread_join(other, NULL);
}

static void pool_of_none(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    (void)task, (void)arg;
    *(uint32_t *)context += n;
}

/* Calls more often than it was asked to. */
static void pool_of_too_many(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    uint32_t ignored = 0;
    *(uint32_t *)context += n;
    pool_of_threads(&ignored, n + 3, task, arg);
}

static aotfarm_session *make(uint32_t threads, aotfarm_parallel_fn *parallel, void *context) {
    aotfarm_options o = {.struct_size = sizeof o, .threads = threads, .parallel = parallel, .parallel_context = context};
    aotfarm_session *session;
    CHECK(api->session_create(&o, &session) == AOTFARM_OK);
    return session;
}

static void test_pools(void) {
    aotfarm_parallel_fn *pools[] = {pool_of_threads, pool_of_one, pool_of_two, pool_of_none, pool_of_too_many};
    for (int p = 0; p < 5; p++)
        for (uint32_t threads = 1; threads <= 8; threads += threads < 4 ? 1 : 4) {
            uint32_t called = 0;
            aotfarm_session *session = make(threads, pools[p], &called);
            for (int i = 0; i < 20; i++) {
                reset();
                CHECK(run(session) == AOTFARM_OK);
                CHECK(right());
            }
            CHECK(called == (threads == 1 ? 0 : 20 * threads));
            api->session_destroy(session);
        }
}

/* ---- memory ---- */

static void test_memory(aotfarm_session *session) {
    /* Any alignment, by pointer and by offset. */
    for (int offset = 1; offset < 70; offset += 17) {
        static char ax[1024], ay[1024], az[1024], as[1024];
        reset();
        x.data = ax + offset, y.data = ay, y.byte_offset = (uint64_t)offset, z.data = az + offset, s.data = as, s.byte_offset = (uint64_t)offset;
        memcpy(ax + offset, x_data, BATCH * 3 * 4);
        memcpy(ay + offset, y_data, BATCH * 4 * 4);
        memset(az, 0x55, sizeof az);
        CHECK(run(session) == AOTFARM_OK);
        CHECK(az[offset - 1] == 0x55 && az[offset + BATCH * 16] == 0x55); /* nothing around the output is written */
        float copy_z[BATCH * 4], copy_s[2 * BATCH + 1];
        memcpy(copy_z, az + offset, sizeof copy_z);
        memcpy(copy_s, as + offset, sizeof copy_s);
        z.data = copy_z, s.data = copy_s, s.byte_offset = 0;
        CHECK(right());
    }
    /* A tensor that ends with its page, before one that cannot be touched. */
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && mprotect(pages + page, page, PROT_NONE) == 0);
    DLTensor *tensors[] = {&x, &y, &z, &s};
    for (int i = 0; i < 4; i++) {
        reset();
        size_t bytes = i == 0 ? BATCH * 12 : i < 3 ? BATCH * 16 : (2 * BATCH + 1) * 4;
        char *at = pages + page - bytes;
        if (i < 2) memcpy(at, tensors[i]->data, bytes);
        tensors[i]->data = at;
        CHECK(run(session) == AOTFARM_OK);
        CHECK(right());
    }
    /* Strides that say what contiguous is; those of dimensions of size 1 do not matter. */
    int64_t strides[] = {3, 1}, one[] = {1, 3}, any[] = {99, 1}, four[] = {1, 4}, three[] = {3};
    reset();
    x.strides = strides;
    CHECK(run(session) == AOTFARM_OK && right());
    x.shape = one, x.strides = any, y.shape = z.shape = four, s.shape = three;
    CHECK(run(session) == AOTFARM_OK && z_data[0] == expected_z[0] - 1000);
}

/* ---- a watched run ---- */

typedef struct watched {
    uint32_t next;
    float z[BATCH * 4], s[2 * BATCH + 1];
} watched;

/* Three steps with a result each, of which the last two are the outputs. */
static void watch(void *context, const aotfarm_result *result) {
    watched *w = context;
    CHECK(result->step == w->next++ && result->output == 0 && result->reserved == 0);
    CHECK(result->n_dims > 0 && (result->dims[0] == BATCH || result->dims[0] == 2 * BATCH + 1));
    if (result->step == 0) return;
    CHECK(result->bytes == (result->step == 1 ? sizeof w->z : sizeof w->s));
    memcpy(result->step == 1 ? w->z : w->s, result->data, result->bytes);
}

static void test_watched(aotfarm_session *session) {
    watched w = {0};
    reset();
    CHECK(api->struct_size == sizeof *api);
    FAILS(api->run_watched(session, inputs, 2, outputs, 2, NULL, NULL), "there is no function to tell results to");
    CHECK(api->run_watched(session, inputs, 2, outputs, 2, watch, &w) == AOTFARM_OK && right() && w.next == 3);
    CHECK(memcmp(w.z, expected_z, sizeof w.z) == 0 && memcmp(w.s, expected_s, sizeof w.s) == 0);
    CHECK(run(session) == AOTFARM_OK && w.next == 3); /* it is forgotten */
}

/* ---- wrong calls ---- */

static void test_errors(aotfarm_session *session) {
    int64_t shape[] = {BATCH, 3, 1}, sizes[8], strides[] = {1, BATCH};
    double seconds[3];
    reset();
    FAILS(api->run(NULL, inputs, 2, outputs, 2), "the session is null");
    FAILS(api->run(session, inputs, 1, outputs, 2), "the model has 2 inputs, but 1 was given");
    FAILS(api->run(session, inputs, 2, outputs, 0), "the model has 2 outputs, but 0 were given");
    FAILS(api->run(session, NULL, 2, outputs, 2), "the list of inputs is null");
    FAILS(api->run_timed(session, inputs, 2, outputs, 2, seconds, 2), "there is room for the times of 2 steps, but the plan has 3");
    FAILS(api->output_shapes(inputs, 2, sizes, 2), "there is room for 2 sizes, but the outputs have 3 dimensions");
    CHECK(api->output_shapes(inputs, 2, sizes, 3) == AOTFARM_OK && sizes[0] == BATCH && sizes[1] == 4 && sizes[2] == 2 * BATCH + 1);
    const DLTensor *hole[] = {&x, NULL};
    FAILS(api->run(session, hole, 2, outputs, 2), "input `y`: the tensor is null");
#define WITH(change, text)          \
    do {                            \
        reset();                    \
        change;                     \
        FAILS(run(session), text); \
    } while (0)
    WITH(x.ndim = 3; x.shape = shape, "input `x`: has 3 dimensions, but must have 2: [batch, 3]");
    WITH(x.ndim = -1, "input `x`: has -1 dimensions, but must have 2: [batch, 3]");
    WITH(x.dtype.bits = 64, "input `x`: the element type is f64, but must be f32");
    WITH(y.dtype.code = kDLInt, "input `y`: the element type is i32, but must be f32");
    WITH(y.dtype.lanes = 4, "input `y`: the element type is f32x4, but must be f32");
    WITH(x.device.device_type = kDLCUDA, "input `x`: lies on a device of DLPack type 2, but this artifact takes host memory (1)");
    WITH(x.shape = NULL, "input `x`: the shape is null");
    WITH(x.data = NULL, "input `x`: the data pointer is null");
    WITH(z.data = NULL, "output `z`: the data pointer is null");
    WITH(x.byte_offset = UINT64_MAX - 8, "input `x`: the byte offset 18446744073709551607 leaves the address space");
    WITH(x.strides = strides, "input `x`: the stride of dimension 1 is 7, but must be 1: pass a contiguous tensor");
    WITH(z.data = x.data, "output `z`: its memory overlaps input `x`");
    WITH(s.data = (char *)z.data + 16, "output `s`: its memory overlaps output `z`");
    int64_t four[] = {BATCH, 4}, negative[] = {-1, 3}, zero[] = {0, 3}, many[] = {33, 3}, huge[] = {INT64_MAX, 3}, other[] = {6, 4}, odd[] = {14};
    WITH(x.shape = four, "input `x`: dimension 1 is 4, but must be 3");
    WITH(x.shape = negative, "input `x`: dimension 0 is -1");
    WITH(x.shape = zero, "input `x`: dimension 0 (batch) is 0, outside 1..32 of this artifact");
    WITH(x.shape = many, "input `x`: dimension 0 (batch) is 33, outside 1..32 of this artifact");
    WITH(x.shape = huge, "input `x`: dimension 0 (batch) is 9223372036854775807, outside 1..32 of this artifact");
    WITH(y.shape = other, "input `y`: dimension 0 (batch) is 6, but must be 7 as in input `x`");
    WITH(z.shape = other, "output `z`: dimension 0 (batch) is 6, but must be 7 as in input `x`");
    WITH(s.shape = odd, "output `s`: dimension 0 (2*batch + 1) is 14, but must be 15 to fit the inputs");
    /* A refused call leaves the session usable. */
    reset();
    CHECK(run(session) == AOTFARM_OK && right());

    aotfarm_session *none = session;
    aotfarm_options o = {.struct_size = 8};
    FAILS(api->session_create(&o, &none), "options.struct_size is 8, but must be at least 32");
    CHECK(none == NULL);
    o = (aotfarm_options){.struct_size = sizeof o, .threads = 5000};
    FAILS(api->session_create(&o, &none), "options.threads is 5000, but at most 1024 are possible");
    o = (aotfarm_options){.struct_size = sizeof o, .reserved = 1};
    FAILS(api->session_create(&o, &none), "options.reserved is 1, but must be 0");
    FAILS(api->session_create(&o, NULL), "the place for the session is null");
    api->session_destroy(NULL);
}

/* ---- one session, two callers ---- */

static aotfarm_session *shared;
static int32_t inner_status;
static char inner_text[128];

static void pool_that_runs_again(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    (void)context;
    inner_status = run(shared);
    snprintf(inner_text, sizeof inner_text, "%s", api->last_error());
    for (uint32_t i = 0; i < n; i++) task(arg, i);
}

static void test_busy_and_fork(aotfarm_session *session) {
    reset();
    shared = make(2, pool_that_runs_again, NULL);
    CHECK(run(shared) == AOTFARM_OK && right());
    CHECK(inner_status == AOTFARM_ERROR_BUSY && strstr(inner_text, "running on another thread"));
    api->session_destroy(shared);

    reset();
    CHECK(run(session) == AOTFARM_OK);
    pid_t child = fork();
    if (child == 0) {
        int ok = run(session) == AOTFARM_ERROR_BUSY && strstr(api->last_error(), "fork()") != NULL;
        aotfarm_session *own = make(2, NULL, NULL);
        ok = ok && run(own) == AOTFARM_OK && right();
        api->session_destroy(own);
        api->session_destroy(session); /* frees memory; does not wait for threads that do not exist here */
        _exit(ok ? 0 : 1);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    reset();
    CHECK(run(session) == AOTFARM_OK && right());
}

int main(int argc, char **argv) {
    void *so = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    CHECK(so != NULL);
    aotfarm_model_fn *entry;
    *(void **)&entry = dlsym(so, "aotfarm_model");
    CHECK(entry != NULL && entry(AOTFARM_ABI_VERSION + 1) == NULL);
    api = entry(AOTFARM_ABI_VERSION);
    CHECK(api != NULL && api->struct_size == sizeof *api && strcmp(api->last_error(), "") == 0);
    CHECK(api->n_dims == 1 && strcmp(api->dims[0].name, "batch") == 0 && api->dims[0].min == 1 && api->dims[0].max == 32);
    CHECK(api->n_inputs == 2 && strcmp(api->inputs[1].name, "y") == 0 && api->inputs[1].shape[0] == -1 && api->inputs[1].shape[1] == 4);
    CHECK(api->n_outputs == 2 && strcmp(api->outputs[1].shape_text[0], "2*batch + 1") == 0);
    CHECK(api->n_steps == 3 && strcmp(api->steps[0], "linear \"h\"") == 0);

    for (int i = 0; i < BATCH * 3; i++) x_data[i] = (float)(i % 5);
    for (int i = 0; i < BATCH * 4; i++) y_data[i] = (float)i / 4;
    /* w[k][j] = k + j, bias[j] = 10 j; batch 7 is nearer to 16, whose kernel adds 1000. */
    float total = 0;
    for (int b = 0; b < BATCH; b++)
        for (int j = 0; j < 4; j++) {
            float sum = 1000;
            for (int k = 0; k < 3; k++) sum += x_data[b * 3 + k] * (float)(k + j);
            expected_z[b * 4 + j] = sum + y_data[b * 4 + j] + (float)(10 * j);
            total += expected_z[b * 4 + j];
        }
    for (int i = 0; i < 2 * BATCH + 1; i++) expected_s[i] = (float)i * total;

    for (uint32_t threads = 0; threads <= 4; threads++) {
        aotfarm_session *session = make(threads, NULL, NULL);
        test_memory(session);
        test_watched(session);
        test_errors(session);
        test_busy_and_fork(session);
        api->session_destroy(session);
    }
    test_pools();
    return 0;
}
