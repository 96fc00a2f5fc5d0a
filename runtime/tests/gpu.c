/* What a session on a GPU promises: host and device tensors, the caller's stream, graphs, memory, errors. Takes the GPU artifact of the link tests
 * (x [batch, 3], y [batch, 4] -> z [batch, 4], s [2*batch + 1], batch 1..64) and exits with 0 or names the line that failed. Runs on the GPU's
 * driver, or on fake_cuda.c, whose counts then show what was asked of it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
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
#define FAILS(call, status, text) CHECK((call) == (status) && strstr(api->last_error(), text) != NULL)

enum { MOST = 64 };

static const aotfarm_api *api;
static struct fake_cuda *fake; /* NULL on a GPU */

/* ---- the driver ---- */

static int32_t (*init)(uint32_t), (*retain)(void **, int32_t), (*set_current)(void *);
static int32_t (*alloc)(uint64_t *, size_t), (*up)(uint64_t, const void *, size_t), (*down)(void *, uint64_t, size_t);
static int32_t (*stream_create)(void **, uint32_t), (*stream_synchronize)(void *), (*stream_destroy)(void *);
static int32_t (*capture_begin)(void *, int32_t), (*capture_end)(void *, void **), (*instantiate)(void **, void *, unsigned long long);
static int32_t (*graph_launch)(void *, void *);
static int32_t (*host_alloc)(void **, size_t, uint32_t);

static void open_driver(void) {
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW);
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
    LOAD(host_alloc, "cuMemHostAlloc");
}

/* ---- one case: tensors of one batch, and what must come out ---- */

typedef struct place {
    int32_t type;
    uint64_t data[4]; /* of x, y, z, s */
} place;

static int64_t shapes[4][2];
static const size_t columns[] = {3, 4, 4, 1};
static DLTensor tensors[4];
static const DLTensor *inputs[] = {&tensors[0], &tensors[1]};
static DLTensor *outputs[] = {&tensors[2], &tensors[3]};
static float values[4][2 * 4 * MOST + 1], got[2 * 4 * MOST + 1];
static int salt;

static size_t bytes_of(int i) { return (size_t)(i == 3 ? shapes[3][0] : shapes[i][0] * shapes[i][1]) * 4; }

static void copy_in(const place *p, int i, const void *from) {
    if (p->type == kDLCUDA) CHECK(up(p->data[i], from, bytes_of(i)) == 0);
    else memcpy((void *)p->data[i], from, bytes_of(i));
}

/* Puts new inputs at the place, garbage into the outputs, and works out what must come. */
static void prepare(const place *p, int64_t batch) {
    float marker = batch <= 4 ? 0 : 1000, total = 0;
    salt++;
    for (int i = 0; i < 4; i++) {
        shapes[i][0] = i == 3 ? 2 * batch + 1 : batch;
        shapes[i][1] = (int64_t)columns[i];
        tensors[i] = (DLTensor){.data = (void *)p->data[i], .device = {p->type, 0}, .ndim = i == 3 ? 1 : 2, .dtype = {kDLFloat, 32, 1}, .shape = shapes[i]};
    }
    for (int64_t i = 0; i < batch * 3; i++) values[0][i] = (float)((i + salt) % 5);
    for (int64_t i = 0; i < batch * 4; i++) values[1][i] = (float)((i * 7 + salt) % 16);
    /* w[k][j] = k + j, bias[j] = 10 j; all sums are exact. */
    for (int64_t b = 0; b < batch; b++)
        for (int j = 0; j < 4; j++) {
            float sum = marker;
            for (int k = 0; k < 3; k++) sum += values[0][b * 3 + k] * (float)(k + j);
            values[2][b * 4 + j] = sum + values[1][b * 4 + j] + (float)(10 * j);
            total += values[2][b * 4 + j];
        }
    for (int64_t i = 0; i < 2 * batch + 1; i++) values[3][i] = (float)i * total;
    memset(got, 0xff, sizeof got);
    copy_in(p, 0, values[0]);
    copy_in(p, 1, values[1]);
    copy_in(p, 2, got);
    copy_in(p, 3, got);
}

static int right(const place *p) {
    for (int i = 2; i < 4; i++) {
        if (p->type == kDLCUDA) CHECK(down(got, p->data[i], bytes_of(i)) == 0);
        else memcpy(got, (void *)p->data[i], bytes_of(i));
        if (memcmp(got, values[i], bytes_of(i)) != 0) return 0;
    }
    return 1;
}

static int32_t run(aotfarm_session *s) { return api->run(s, inputs, 2, outputs, 2); }

/* Runs at this batch and place, and checks what comes. */
static void good(aotfarm_session *s, const place *p, int64_t batch) {
    prepare(p, batch);
    CHECK(run(s) == AOTFARM_OK);
    CHECK(right(p));
}

static place host_place(void) {
    place p = {.type = kDLCPU};
    for (int i = 0; i < 4; i++) p.data[i] = (uint64_t)calloc(1, 4096) + 4; /* of odd alignment */
    return p;
}

static place device_place(uint64_t offset) {
    place p = {.type = kDLCUDA};
    for (int i = 0; i < 4; i++) {
        CHECK(alloc(&p.data[i], 8192) == 0);
        p.data[i] += offset;
    }
    return p;
}

static aotfarm_session *make(void *stream) {
    aotfarm_options o = {.struct_size = sizeof o, .stream = stream};
    aotfarm_session *s = NULL;
    CHECK(api->session_create(&o, &s) == AOTFARM_OK && s != NULL);
    return s;
}

/* ---- tests ---- */

/* Before anything else: the driver is opened with the first session that succeeds. */
static void test_hosts_that_cannot(void) {
    aotfarm_session *s;
    aotfarm_options o = {.struct_size = sizeof o};
    if (fake == NULL) return;
    fake->devices = 0;
    FAILS(api->session_create(&o, &s), AOTFARM_ERROR_UNSUPPORTED, "this artifact is made for cuda-sm_90, and this host has no NVIDIA GPU");
    fake->devices = 2, fake->sm = 80;
    FAILS(api->session_create(&o, &s), AOTFARM_ERROR_UNSUPPORTED,
          "this artifact is made for cuda-sm_90 (compute capability 9.0), and GPU 0 (Fake 0) has compute capability 8.0");
    fake->sm = 90, fake->version = 11080;
    FAILS(api->session_create(&o, &s), AOTFARM_ERROR_UNSUPPORTED,
          "the NVIDIA driver is too old: it is for CUDA 13.0, and cannot load the kernels of this artifact for cuda-sm_90");
    fake->version = 13000, fake->memory = 100;
    FAILS(api->session_create(&o, &s), AOTFARM_ERROR_MEMORY,
          "GPU 0 (Fake 0) cannot hold the weights: they take 1280 bytes, and 100 of 85899345920 are free: CUDA_ERROR_OUT_OF_MEMORY (out of memory)");
    fake->memory = 0, o.device = 2;
    FAILS(api->session_create(&o, &s), AOTFARM_ERROR_ARGUMENT, "options.device is 2, but this host has 2 GPUs: 0..1");
    o.device = 0, o.may_write = 2;
    FAILS(api->session_create(&o, &s), AOTFARM_ERROR_ARGUMENT, "options.may_write is 2, but must be 0 or 1");
    CHECK(s == NULL && fake->live == 0);
}

static void test_sizes_and_places(aotfarm_session *s, const place *host, const place *device, const place *odd) {
    static const int64_t batches[] = {1, 64, 3, 4, 5, 16, 1, 31, 2};
    /* Up and down: the arena grows, and must keep its halo clean. */
    for (int i = 0; i < 9; i++) {
        good(s, host, batches[i]);
        good(s, device, batches[i]);
        good(s, odd, batches[i]);
    }
    /* An older caller's options end before `device`. */
    aotfarm_options o = {.struct_size = offsetof(aotfarm_options, device), .device = 99};
    aotfarm_session *older;
    CHECK(api->session_create(&o, &older) == AOTFARM_OK);
    good(older, device, 7);
    api->session_destroy(older);
    /* Pinned memory of the caller. */
    place pinned = {.type = kDLCUDAHost};
    for (int i = 0; i < 4; i++) CHECK(host_alloc((void **)&pinned.data[i], 8192, 0) == 0);
    good(s, &pinned, 9);
    /* Inputs on the GPU and outputs not. */
    prepare(device, 9);
    float z[36], sums[19];
    tensors[2].data = z, tensors[3].data = sums;
    tensors[2].device.device_type = tensors[3].device.device_type = kDLCPU;
    CHECK(run(s) == AOTFARM_OK && memcmp(z, values[2], sizeof z) == 0 && memcmp(sums, values[3], sizeof sums) == 0);
    /* The times of the steps. */
    double seconds[3] = {-1, -1, -1};
    prepare(device, 64);
    CHECK(api->run_timed(s, inputs, 2, outputs, 2, seconds, 3) == AOTFARM_OK && right(device));
    for (int i = 0; i < 3; i++) CHECK(seconds[i] >= 0 && seconds[i] < 1);
}

typedef struct watched {
    uint32_t next;
    int64_t batch;
    float z[4 * MOST], sums[2 * MOST + 1];
} watched;

/* Three steps with a result each, of which the last two are the outputs. */
static void watch(void *context, const aotfarm_result *result) {
    watched *w = context;
    CHECK(result->step == w->next++ && result->output == 0 && result->n_dims > 0);
    CHECK(result->dims[0] == w->batch || result->dims[0] == 2 * w->batch + 1);
    if (result->step == 0) return;
    CHECK(result->bytes == bytes_of(result->step == 1 ? 2 : 3));
    memcpy(result->step == 1 ? w->z : w->sums, result->data, result->bytes);
}

static void test_watched(aotfarm_session *s, const place *device) {
    watched w = {.batch = 9};
    prepare(device, 9);
    CHECK(api->run_watched(s, inputs, 2, outputs, 2, watch, &w) == AOTFARM_OK && right(device) && w.next == 3);
    CHECK(memcmp(w.z, values[2], bytes_of(2)) == 0 && memcmp(w.sums, values[3], bytes_of(3)) == 0);
}

static void test_graphs(aotfarm_session *s, const place *device, const place *other) {
    if (fake == NULL) return;
    good(s, device, 20);
    struct fake_cuda before = *fake;
#define COUNTS(l, c, g, u) \
    CHECK(fake->launches - before.launches == (l) && fake->captures - before.captures == (c) && \
          fake->graph_launches - before.graph_launches == (g) && fake->node_updates - before.node_updates == (u))
    good(s, device, 20);
    COUNTS(0, 0, 1, 0);
    CHECK(fake->allocations == before.allocations && fake->copies == before.copies && fake->waits == before.waits + 1);
    /* Another z is written by the second kernel and read by the third. */
    place moved = *device;
    moved.data[2] = other->data[2];
    good(s, &moved, 20);
    COUNTS(0, 0, 2, 2);
    good(s, &moved, 20);
    COUNTS(0, 0, 3, 2);
    good(s, other, 20);
    COUNTS(0, 0, 4, 5);
    /* New sizes are captured once: three launches, of which all but the first overlap, and the last is a cluster. */
    good(s, device, 21);
    COUNTS(3, 1, 5, 5);
    CHECK(fake->overlaps - before.overlaps == 2 && fake->clusters - before.clusters == 1);
    /* The sizes that were not used for the longest time make room: 32 others were, since 20. */
    for (int64_t batch = 22; batch < 54; batch++) good(s, device, batch);
    before = *fake;
    good(s, device, 53);
    good(s, device, 22);
    COUNTS(0, 0, 2, 0);
    good(s, device, 20);
    COUNTS(3, 1, 3, 0);
    /* Without graphs the kernels are launched one by one. */
    fake->refuse_capture = 1;
    before = *fake;
    good(s, device, 60);
    good(s, device, 60);
    good(s, other, 60);
    COUNTS(9, 0, 0, 0);
    fake->refuse_capture = 0;
    /* Waiting: for a mark that comes late, without marks, and for one that never comes. */
    fake->slow_writes = 3;
    good(s, device, 53);
    CHECK(fake->slow_writes == 0);
    fake->refuse_writes = 1;
    good(s, device, 53);
    fake->refuse_writes = 0, fake->slow_writes = 1, fake->fail = 1;
    prepare(device, 53);
    FAILS(run(s), AOTFARM_ERROR_SYSTEM, "the run failed on GPU 0 (Fake 0): CUDA_ERROR_OTHER (other)");
    fake->slow_writes = 0, fake->fail = 0;
    good(s, device, 53);
}

static void test_stream(const place *host, const place *device, const place *odd) {
    void *stream, *graph, *exec;
    CHECK(stream_create(&stream, 1) == 0);
    aotfarm_session *s = make(stream);
    prepare(device, 9);
    CHECK(run(s) == AOTFARM_OK && run(s) == AOTFARM_OK);
    int waited = fake ? fake->waits : 0;
    CHECK(run(s) == AOTFARM_OK);
    if (fake) CHECK(fake->waits == waited); /* it returns when the work is in the stream */
    CHECK(stream_synchronize(stream) == 0 && right(device));
    prepare(odd, 9);
    CHECK(run(s) == AOTFARM_OK && stream_synchronize(stream) == 0 && right(odd));
    good(s, host, 9);

    /* In a capture of the caller's: the kernels become a part of it. */
    CHECK(capture_begin(stream, 2) == 0);
    prepare(device, 9);
    CHECK(run(s) == AOTFARM_OK);
    double seconds[3];
    FAILS(api->run_timed(s, inputs, 2, outputs, 2, seconds, 3), AOTFARM_ERROR_ARGUMENT, "steps cannot be timed");
    prepare(host, 9);
    FAILS(run(s), AOTFARM_ERROR_ARGUMENT, "the stream is being captured: only tensors on the GPU can be used");
    prepare(device, 40);
    FAILS(run(s), AOTFARM_ERROR_BUSY, "the stream is being captured, and a run at these sizes must allocate memory: run it once before");
    CHECK(capture_end(stream, &graph) == 0 && instantiate(&exec, graph, 0) == 0);
    prepare(device, 9);
    CHECK(graph_launch(exec, stream) == 0 && stream_synchronize(stream) == 0 && right(device));
    good(s, host, 40);
    api->session_destroy(s);
    CHECK(stream_destroy(stream) == 0);
}

static void test_errors(aotfarm_session *s, const place *device) {
    prepare(device, 3);
    tensors[1].device.device_id = 1;
    FAILS(run(s), AOTFARM_ERROR_ARGUMENT,
          "input `y`: lies on GPU 1, but the session is of GPU 0: copy it, or make the session with options.device = 1");
    tensors[1].device = (DLDevice){7, 0};
    FAILS(run(s), AOTFARM_ERROR_ARGUMENT,
          "input `y`: lies on a device of DLPack type 7, but this artifact takes memory of the host (1) and of CUDA GPUs (2)");
    prepare(device, 3);
    tensors[2].data = NULL;
    FAILS(run(s), AOTFARM_ERROR_ARGUMENT, "output `z`: the data pointer is null");
    prepare(device, 3);
    tensors[2].data = tensors[0].data;
    FAILS(run(s), AOTFARM_ERROR_ARGUMENT, "output `z`: its memory overlaps input `x`");
    prepare(device, 3);
    shapes[0][0] = 65;
    FAILS(run(s), AOTFARM_ERROR_ARGUMENT, "input `x`: dimension 0 (batch) is 65, outside 1..64 of this artifact");
    good(s, device, 3);
    int64_t sizes[3];
    tensors[0].device.device_id = 1; /* shapes do not depend on the device */
    CHECK(api->output_shapes(inputs, 2, sizes, 3) == AOTFARM_OK && sizes[2] == 7);
    if (fake == NULL) return;
    /* Memory for larger sizes is refused: smaller ones go on. */
    aotfarm_session *fresh = make(NULL);
    good(fresh, device, 2);
    fake->memory = 5000;
    prepare(device, 64);
    FAILS(run(fresh), AOTFARM_ERROR_MEMORY, "GPU 0 (Fake 0) cannot hold the working memory: it takes ");
    fake->memory = 0;
    good(fresh, device, 2);
    good(fresh, device, 64);
    api->session_destroy(fresh);
}

static void test_fork(aotfarm_session *s, const place *device) {
    good(s, device, 3);
    pid_t child = fork();
    if (child == 0) {
        aotfarm_session *own;
        int ok = run(s) == AOTFARM_ERROR_BUSY && strstr(api->last_error(), "fork()") != NULL;
        ok = ok && api->session_create(NULL, &own) == AOTFARM_ERROR_UNSUPPORTED && strstr(api->last_error(), "fork()") != NULL;
        api->session_destroy(s);
        _exit(ok ? 0 : 1);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    good(s, device, 3);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* Microseconds of a call, for people: all of it, and until it returns on the caller's stream. */
static void show_times(const place *host, const place *device, const place *other) {
    enum { RUNS = 2000 };
    void *stream;
    CHECK(stream_create(&stream, 1) == 0);
    aotfarm_session *own = make(NULL), *theirs = make(stream);
    prepare(device, 8);
    for (int i = 0; i < 100; i++) CHECK(run(own) == AOTFARM_OK && run(theirs) == AOTFARM_OK);
    CHECK(stream_synchronize(stream) == 0);
    double start = now();
    for (int i = 0; i < RUNS; i++) CHECK(run(own) == AOTFARM_OK);
    double synchronous = (now() - start) / RUNS, submit = 0;
    for (int i = 0; i < RUNS; i++) {
        double before = now();
        CHECK(run(theirs) == AOTFARM_OK);
        submit += now() - before;
        CHECK(stream_synchronize(stream) == 0);
    }
    start = now();
    for (int i = 0; i < RUNS; i++) CHECK(run(theirs) == AOTFARM_OK);
    CHECK(stream_synchronize(stream) == 0);
    double pipelined = (now() - start) / RUNS;
    start = now();
    for (int i = 0; i < RUNS; i++) {
        tensors[2].data = (void *)(i % 2 ? device : other)->data[2];
        CHECK(run(own) == AOTFARM_OK);
    }
    double moving = (now() - start) / RUNS;
    prepare(host, 8);
    for (int i = 0; i < 10; i++) CHECK(run(own) == AOTFARM_OK);
    start = now();
    for (int i = 0; i < RUNS; i++) CHECK(run(own) == AOTFARM_OK);
    double on_host = (now() - start) / RUNS;
    printf("us a call: synchronous %.2f, submission %.2f, pipelined %.2f, with another output each time %.2f, host tensors %.2f\n", synchronous,
           submit / RUNS, pipelined, moving, on_host);
    api->session_destroy(own);
    api->session_destroy(theirs);
    CHECK(stream_destroy(stream) == 0);
}

int main(int argc, char **argv) {
    void *so = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    CHECK(so != NULL);
    aotfarm_model_fn *entry;
    *(void **)&entry = dlsym(so, "aotfarm_model");
    CHECK(entry != NULL);
    api = entry(AOTFARM_ABI_VERSION);
    CHECK(api != NULL && api->struct_size == sizeof *api && strcmp(api->target, "cuda-sm_90") == 0 && api->n_steps == 3);
    open_driver();
    test_hosts_that_cannot();

    void *context;
    CHECK(init(0) == 0 && retain(&context, fake ? 10 : 0) == 0 && set_current(context) == 0);
    place host = host_place(), device = device_place(0), other = device_place(0), odd = device_place(4);
    int live = fake ? fake->live : 0, modules = fake ? fake->modules : 0;
    aotfarm_session *s = make(NULL), *second = make(NULL);
    test_sizes_and_places(s, &host, &device, &odd);
    if (fake) CHECK(fake->modules == modules + 4); /* two sessions, one set of kernels */
    good(second, &device, 5);
    api->session_destroy(second);
    test_watched(s, &device);
    test_graphs(s, &device, &other);
    test_stream(&host, &device, &odd);
    test_errors(s, &device);
    test_fork(s, &device);
    show_times(&host, &device, &other);
    api->session_destroy(s);
    /* All is given back, but for what this test made: four pinned tensors, a graph and what can be launched of it. */
    if (fake) CHECK(fake->live == live + 6);
    dlclose(so);
    return 0;
}
