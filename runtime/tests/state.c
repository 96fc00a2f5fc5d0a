/* What the C ABI promises of models with states and written inputs. Takes the artifact of the link tests' model of that kind, for a CPU or a GPU,
 *
 *     h[b][j] = sum_k x[b][k] (k + j);   total += h + 10 j, at first total[b][j] = 4 b + j;   s[i] = i sum(total);   u += h + 10 j
 *
 * with x [2, 3], u [2, 4], s [5], and exits with 0 or names the line that failed. A GPU is reached through its driver, or through fake_cuda.c. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aotfarm.h"
#include "fake_cuda.h"

#define CHECK(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "line %d: %s (last error: %s)\n", __LINE__, #condition, api ? api->last_error() : ""); \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)
#define FAILS(call, status, text) CHECK((call) == (status) && strcmp(api->last_error(), text) == 0)

static const aotfarm_api *api;
static int on_gpu;
static struct fake_cuda *fake;

static int32_t (*init)(uint32_t), (*retain)(void **, int32_t), (*set_current)(void *);
static int32_t (*alloc)(uint64_t *, size_t), (*up)(uint64_t, const void *, size_t), (*down)(void *, uint64_t, size_t);
static int32_t (*stream_create)(void **, uint32_t), (*stream_synchronize)(void *), (*stream_destroy)(void *);
static int32_t (*capture_begin)(void *, int32_t), (*capture_end)(void *, void **), (*instantiate)(void **, void *, unsigned long long);
static int32_t (*graph_launch)(void *, void *);

static void open_driver(void) {
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *context;
    CHECK(cuda != NULL);
    fake = dlsym(cuda, "fake");
#define LOAD(name, symbol) CHECK((*(void **)&name = dlsym(cuda, symbol)) != NULL)
    LOAD(init, "cuInit");
    LOAD(retain, "cuDevicePrimaryCtxRetain");
    LOAD(set_current, "cuCtxPushCurrent_v2");
    LOAD(alloc, "cuMemAlloc_v2");
    LOAD(up, "cuMemcpyHtoD_v2");
    LOAD(down, "cuMemcpyDtoH_v2");
    LOAD(stream_create, "cuStreamCreate");
    LOAD(stream_synchronize, "cuStreamSynchronize");
    LOAD(stream_destroy, "cuStreamDestroy_v2");
    LOAD(capture_begin, "cuStreamBeginCapture_v2");
    LOAD(capture_end, "cuStreamEndCapture");
    LOAD(instantiate, "cuGraphInstantiateWithFlags");
    LOAD(graph_launch, "cuGraphLaunch");
    CHECK(init(0) == 0 && retain(&context, fake ? 10 : 0) == 0 && set_current(context) == 0);
}

/* ---- tensors, and what must come ---- */

static int64_t x_shape[] = {2, 3}, u_shape[] = {2, 4}, s_shape[] = {5};
static _Alignas(64) float memory[3][256];
static DLTensor x, u, s;
static const DLTensor *inputs[] = {&x, &u};
static DLTensor *outputs[] = {&s};

/* What a session must have in its state. */
typedef struct expected {
    float total[8];
} expected;

static const expected FRESH = {{0, 1, 2, 3, 4, 5, 6, 7}};

/* Puts the tensors into host memory that starts `offset` bytes after a line. */
static void on_host(uint64_t offset) {
    DLTensor t = {.device = {kDLCPU, 0}, .dtype = {kDLFloat, 32, 1}, .byte_offset = offset};
    x = u = s = t;
    x.data = memory[0], x.ndim = 2, x.shape = x_shape;
    u.data = memory[1], u.ndim = 2, u.shape = u_shape;
    s.data = memory[2], s.ndim = 1, s.shape = s_shape;
}

/* Puts them into memory of the GPU. */
static void on_device(const uint64_t data[3]) {
    on_host(0);
    DLTensor *all[] = {&x, &u, &s};
    for (int i = 0; i < 3; i++) all[i]->device.device_type = kDLCUDA, all[i]->data = (void *)data[i];
}

static void put(DLTensor *t, const float *values, size_t n) {
    if (t->device.device_type == kDLCUDA) CHECK(up((uint64_t)t->data + t->byte_offset, values, n * 4) == 0);
    else memcpy((char *)t->data + t->byte_offset, values, n * 4);
}

static void get(const DLTensor *t, float *values, size_t n) {
    if (t->device.device_type == kDLCUDA) CHECK(down(values, (uint64_t)t->data + t->byte_offset, n * 4) == 0);
    else memcpy(values, (const char *)t->data + t->byte_offset, n * 4);
}

/* New inputs; what `u` and `s` must then hold; and how the state moves on. */
static float next_u[8], next_s[5];
static void prepare(expected *state) {
    static int salt;
    float xs[6], us[8], sum = 0;
    salt++;
    for (int i = 0; i < 6; i++) xs[i] = (float)((i + salt) % 5);
    for (int i = 0; i < 8; i++) us[i] = (float)((i * 7 + salt) % 16);
    for (int i = 0; i < 8; i++) {
        float h = (float)(10 * (i % 4));
        for (int k = 0; k < 3; k++) h += xs[i / 4 * 3 + k] * (float)(k + i % 4);
        state->total[i] += h;
        next_u[i] = us[i] + h;
        sum += state->total[i];
    }
    for (int i = 0; i < 5; i++) next_s[i] = (float)i * sum;
    put(&x, xs, 6);
    put(&u, us, 8);
}

static int32_t run(aotfarm_session *session) { return api->run(session, inputs, 2, outputs, 1); }

static int right(void) {
    float us[8], ss[5];
    get(&u, us, 8);
    get(&s, ss, 5);
    return memcmp(us, next_u, sizeof us) == 0 && memcmp(ss, next_s, sizeof ss) == 0;
}

/* A run that goes on from `state`. */
static void good(aotfarm_session *session, expected *state) {
    prepare(state);
    CHECK(run(session) == AOTFARM_OK);
    CHECK(right());
}

static aotfarm_session *make(uint32_t threads, void *stream) {
    aotfarm_options o = {.struct_size = sizeof o, .threads = threads, .may_write = 1, .stream = stream};
    aotfarm_session *session;
    CHECK(api->session_create(&o, &session) == AOTFARM_OK);
    return session;
}

/* Counts the results of a watched run's steps, in their order. */
static void count(void *context, const aotfarm_result *result) {
    uint32_t *next = context;
    CHECK(result->step == *next && result->bytes > 0);
    ++*next;
}

/* ---- tests ---- */

static void test_facts(void) {
    CHECK(api->n_states == 1 && strcmp(api->states[0].name, "total") == 0 && api->states[0].ndim == 2 && api->states[0].shape[1] == 4);
    CHECK(api->n_writes == 1 && api->writes[0] == 1 && strcmp(api->inputs[1].name, "u") == 0);
}

/* Programs that do not know of written inputs are not surprised by them. */
static void test_permission(void) {
    static const char *const refusal = "input `u`: the model writes to it, so that a run changes the caller's tensor: set options.may_write to 1";
    aotfarm_session *session;
    FAILS(api->session_create(NULL, &session), AOTFARM_ERROR_ARGUMENT, refusal);
    aotfarm_options o = {.struct_size = sizeof o, .threads = 1};
    FAILS(api->session_create(&o, &session), AOTFARM_ERROR_ARGUMENT, refusal);
    o.may_write = 1, o.struct_size = offsetof(aotfarm_options, device);
    FAILS(api->session_create(&o, &session), AOTFARM_ERROR_ARGUMENT, refusal);
    o.may_write = 2, o.struct_size = sizeof o;
    FAILS(api->session_create(&o, &session), AOTFARM_ERROR_ARGUMENT, "options.may_write is 2, but must be 0 or 1");
    CHECK(session == NULL);
}

static void test_sequences(uint32_t threads) {
    aotfarm_session *one = make(threads, NULL), *other = make(threads, NULL);
    expected of_one = FRESH, of_other = FRESH;
    for (uint64_t i = 0; i < 5; i++) {
        on_host(i % 2 * 4); /* in place, and staged */
        good(one, &of_one);
        if (i == 2) {
            CHECK(api->session_reset(one) == AOTFARM_OK);
            of_one = FRESH;
        }
        if (i % 2 == 0) good(other, &of_other);
    }
    double seconds[4];
    prepare(&of_one);
    CHECK(api->run_timed(one, inputs, 2, outputs, 1, seconds, 4) == AOTFARM_OK && right());
    uint32_t told = 0;
    prepare(&of_one);
    CHECK(api->run_watched(one, inputs, 2, outputs, 1, count, &told) == AOTFARM_OK && right() && told == 4);
    good(one, &of_one);
    CHECK(api->session_reset(one) == AOTFARM_OK && api->session_reset(one) == AOTFARM_OK);
    of_one = FRESH;
    good(one, &of_one);
    good(other, &of_other);
    api->session_destroy(other);
    good(one, &of_one);
    api->session_destroy(one);
}

/* A call that fails changes neither the state nor the inputs. */
static void test_failures(void) {
    aotfarm_session *session = make(1, NULL);
    expected state = FRESH, ignored = FRESH;
    float before[8], after[8];
    on_host(0);
    good(session, &state);
    prepare(&ignored);
    get(&u, before, 8);
    FAILS(api->run(session, inputs, 1, outputs, 1), AOTFARM_ERROR_ARGUMENT, "the model has 2 inputs, but 1 was given");
    x.data = NULL;
    FAILS(run(session), AOTFARM_ERROR_ARGUMENT, "input `x`: the data pointer is null");
    x.data = (char *)u.data + 16;
    FAILS(run(session), AOTFARM_ERROR_ARGUMENT, "input `u`: the model writes to it, and its memory overlaps input `x`");
    x.data = memory[0], s.data = u.data;
    FAILS(run(session), AOTFARM_ERROR_ARGUMENT, "output `s`: its memory overlaps input `u`");
    on_host(0);
    get(&u, after, 8);
    CHECK(memcmp(before, after, sizeof before) == 0);
    FAILS(api->session_reset(NULL), AOTFARM_ERROR_ARGUMENT, "the session is null");
    good(session, &state);

    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(api->session_reset(session) == AOTFARM_ERROR_BUSY && run(session) == AOTFARM_ERROR_BUSY);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    good(session, &state);
    api->session_destroy(session);
}

static void test_gpu(void) {
    uint64_t data[3];
    void *stream, *graph, *exec;
    int live = fake ? fake->live : 0;
    for (int i = 0; i < 3; i++) CHECK(alloc(&data[i], 8192) == 0);
    CHECK(stream_create(&stream, 1) == 0);
    aotfarm_session *own = make(0, NULL), *session = make(0, stream);
    expected state = FRESH, of_own = FRESH;
    on_device(data);
    for (int i = 0; i < 4; i++) good(own, &of_own);
    if (fake) CHECK(fake->graph_launches > 0); /* the states are copied inside the graph */

    /* On the caller's stream nothing waits. */
    for (int i = 0; i < 3; i++) {
        prepare(&state);
        int waited = fake ? fake->waits : 0;
        CHECK(run(session) == AOTFARM_OK);
        if (fake && i > 0) CHECK(fake->waits == waited);
        CHECK(stream_synchronize(stream) == 0 && right());
    }
    on_host(4);
    good(session, &state);

    /* Captured by the caller, each launch of its graph is a run. */
    on_device(data);
    CHECK(capture_begin(stream, 2) == 0);
    CHECK(run(session) == AOTFARM_OK);
    CHECK(capture_end(stream, &graph) == 0 && instantiate(&exec, graph, 0) == 0);
    for (int i = 0; i < 3; i++) {
        prepare(&state);
        CHECK(graph_launch(exec, stream) == 0 && stream_synchronize(stream) == 0 && right());
    }
    CHECK(api->session_reset(session) == AOTFARM_OK);
    state = FRESH;
    prepare(&state);
    CHECK(run(session) == AOTFARM_OK && stream_synchronize(stream) == 0 && right());
    good(own, &of_own);

    /* Without graphs kernels are launched one by one. */
    if (fake) {
        fake->refuse_capture = 1;
        aotfarm_session *plain = make(0, NULL);
        expected of_plain = FRESH;
        for (int i = 0; i < 3; i++) good(plain, &of_plain);
        api->session_destroy(plain);
        fake->refuse_capture = 0;
    }
    api->session_destroy(session);
    api->session_destroy(own);
    CHECK(stream_destroy(stream) == 0);
    if (fake) CHECK(fake->live == live + 5); /* the three tensors, a graph and what can be launched of it */
}

int main(int argc, char **argv) {
    void *so = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    CHECK(so != NULL);
    aotfarm_model_fn *entry;
    *(void **)&entry = dlsym(so, "aotfarm_model");
    CHECK(entry != NULL);
    api = entry(AOTFARM_ABI_VERSION);
    CHECK(api != NULL && api->struct_size == sizeof *api && api->n_steps == 4);
    on_gpu = strncmp(api->target, "cuda", 4) == 0;
    if (on_gpu) open_driver();
    test_facts();
    test_permission();
    for (uint32_t threads = 1; threads <= (on_gpu ? 1 : 4); threads++) test_sequences(threads);
    test_failures();
    if (on_gpu) test_gpu();
    dlclose(so);
    return 0;
}
