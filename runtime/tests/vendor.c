/* What an artifact promises some of whose steps are calls of cuDNN and cuBLASLt. Takes the artifact of the link tests of such steps and exits with 0
 * or names the line that failed. Runs on a GPU with its libraries, or on fake_cuda.c and fake_vendor.c, whose counts then show what was asked of
 * them. With a second argument making a session must fail with that text.
 *
 * x bf16 [batch, 2, 2, 8] -> h = relu(conv(x, w) + b), 1x1; z f32 [batch, 4] = h v^T + c + y, y f32 [batch, 4];
 * u f16 [batch, 8] -> t f16 [batch, 8] = u 0 + d, which is d rounded to f16. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aotfarm.h"
#include "fake_cuda.h"

#define CHECK(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "line %d: %s (last error: %s)\n", __LINE__, #condition, api ? api->last_error() : ""); \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)

enum { MOST = 64, X, Y, U, Z, T, TENSORS };
#define AT(i) ((i) - X)

static const aotfarm_api *api;
static struct fake_cuda *fake; /* NULL on a GPU */

static int32_t (*init)(uint32_t), (*retain)(void **, int32_t), (*set_current)(void *);
static int32_t (*alloc)(uint64_t *, size_t), (*up)(uint64_t, const void *, size_t), (*down)(void *, uint64_t, size_t);
static int32_t (*stream_create)(void **, uint32_t), (*stream_synchronize)(void *), (*stream_destroy)(void *);
static int32_t (*capture_begin)(void *, int32_t), (*capture_end)(void *, void **), (*instantiate)(void **, void *, unsigned long long);
static int32_t (*graph_launch)(void *, void *);

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
}

/* ---- one case ---- */

static const size_t row_bytes[] = {2 * 2 * 8 * 2, 4 * 4, 8 * 2, 4 * 4, 8 * 2};
static int64_t shapes[TENSORS - X][4];
static DLTensor tensors[TENSORS - X];
static const DLTensor *inputs[] = {&tensors[0], &tensors[1], &tensors[2]};
static DLTensor *outputs[] = {&tensors[3], &tensors[4]};
static uint16_t x[MOST * 32], u[MOST * 8];
static float y[MOST * 4], z[MOST * 4], got[MOST * 32];
static int64_t batch;

/* d, and what is nearest to it in f16. */
static const uint16_t HALVES[8] = {0x3555, 0x7bff, 0x0002, 0xc000, 0x0000, 0x0400, 0xae66, 0x6800};

static uint16_t bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)(bits >> 16);
}

/* Puts new inputs at a place and works out what must come: small whole numbers, which all types hold. */
static void prepare(const uint64_t *place, int32_t device, int64_t n) {
    static int salt;
    batch = n;
    salt++;
    const DLDataType types[] = {{kDLBfloat, 16, 1}, {kDLFloat, 32, 1}, {kDLFloat, 16, 1}, {kDLFloat, 32, 1}, {kDLFloat, 16, 1}};
    for (int i = 0; i < TENSORS - X; i++) {
        const int64_t image[] = {n, 2, 2, 8}, rows[] = {n, i == AT(Y) || i == AT(Z) ? 4 : 8};
        memcpy(shapes[i], i == AT(X) ? image : rows, i == AT(X) ? sizeof image : sizeof rows);
        tensors[i] = (DLTensor){.data = (void *)place[i], .device = {device, 0}, .ndim = i == AT(X) ? 4 : 2, .dtype = types[i], .shape = shapes[i]};
    }
    for (int64_t i = 0; i < n * 32; i++) x[i] = bf16((float)((i * 7 + salt) % 3));
    for (int64_t i = 0; i < n * 4; i++) y[i] = (float)((i + salt) % 5);
    for (int64_t b = 0; b < n; b++)
        for (int j = 0; j < 4; j++) {
            float sum = y[b * 4 + j] + 10 * (float)j;
            for (int k = 0; k < 32; k++) {
                int o = k % 8;
                float h = (float)(o - 4); /* b[o] */
                for (int c = 0; c < 8; c++) h += (float)(((b * 32 + k / 8 * 8 + c) * 7 + salt) % 3) * (float)((o + c) % 2 ? 1 : -1);
                sum += (h > 0 ? h : 0) * (float)((j + k) % 3);
            }
            z[b * 4 + j] = sum;
        }
    const void *from[] = {x, y, u, got, got};
    memset(got, 0xff, sizeof got);
    for (int i = 0; i < TENSORS - X; i++) {
        if (device == kDLCUDA) CHECK(up(place[i], from[i], row_bytes[i] * (size_t)n) == 0);
        else memcpy((void *)place[i], from[i], row_bytes[i] * (size_t)n);
    }
}

static const void *fetch(int i) {
    if (tensors[i].device.device_type != kDLCUDA) return tensors[i].data;
    CHECK(down(got, (uint64_t)tensors[i].data, row_bytes[i] * (size_t)batch) == 0);
    return got;
}

static int right(void) {
    if (memcmp(fetch(AT(Z)), z, (size_t)batch * 16) != 0) return 0;
    const uint16_t *t = fetch(AT(T));
    for (int64_t i = 0; i < batch * 8; i++)
        if (t[i] != HALVES[i % 8]) return 0;
    return 1;
}

static int32_t run(aotfarm_session *s) { return api->run(s, inputs, 3, outputs, 2); }

static void good(aotfarm_session *s, const uint64_t *place, int32_t device, int64_t n) {
    prepare(place, device, n);
    CHECK(run(s) == AOTFARM_OK);
    CHECK(right());
}

/* ---- tests ---- */

static void test_graphs(aotfarm_session *s, const uint64_t *place, const uint64_t *other) {
    if (fake == NULL) return;
    struct fake_cuda before = *fake;
#define COUNTS(l, c, g) \
    CHECK(fake->launches - before.launches == (l) && fake->captures - before.captures == (c) && fake->graph_launches - before.graph_launches == (g))
    /* The first run at a size is not captured, since libraries load their code in it; the second is. */
    good(s, place, kDLCUDA, 20);
    COUNTS(3, 0, 0);
    good(s, place, kDLCUDA, 20);
    COUNTS(6, 1, 1);
    good(s, place, kDLCUDA, 20);
    COUNTS(6, 1, 2);
    CHECK(fake->overlaps == before.overlaps);
    /* With other tensors it is captured again. */
    good(s, other, kDLCUDA, 20);
    COUNTS(9, 2, 3);
    /* The working memory grew for 64, and not for 20 again, nor does what is known need any. */
    good(s, place, kDLCUDA, 64);
    good(s, place, kDLCUDA, 20);
    good(s, place, kDLCUDA, 64);
    int allocations = fake->allocations;
    good(s, place, kDLCUDA, 20);
    CHECK(fake->allocations == allocations);
    fake->refuse_capture = 1;
    good(s, place, kDLCUDA, 21);
    good(s, place, kDLCUDA, 21);
    fake->refuse_capture = 0;
}

static void test_stream(const uint64_t *place) {
    void *stream, *graph, *exec;
    aotfarm_options o = {.struct_size = sizeof o};
    aotfarm_session *s;
    CHECK(stream_create(&stream, 1) == 0);
    o.stream = stream;
    CHECK(api->session_create(&o, &s) == AOTFARM_OK);
    for (int i = 0; i < 3; i++) {
        prepare(place, kDLCUDA, 9);
        CHECK(run(s) == AOTFARM_OK && stream_synchronize(stream) == 0 && right());
    }
    /* In a capture of the caller's. */
    CHECK(capture_begin(stream, 2) == 0);
    prepare(place, kDLCUDA, 9);
    CHECK(run(s) == AOTFARM_OK);
    prepare(place, kDLCUDA, 10);
    CHECK(run(s) == AOTFARM_ERROR_BUSY && strstr(api->last_error(), "run it once before") != NULL);
    CHECK(capture_end(stream, &graph) == 0 && instantiate(&exec, graph, 0) == 0);
    prepare(place, kDLCUDA, 9);
    CHECK(graph_launch(exec, stream) == 0 && stream_synchronize(stream) == 0 && right());
    api->session_destroy(s);
    CHECK(stream_destroy(stream) == 0);
}

static int library_live(const char *name) {
    void *library = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
    const int *live = library ? dlsym(library, "fake_vendor_live") : NULL;
    CHECK(live != NULL);
    return *live;
}

int main(int argc, char **argv) {
    void *so = argc >= 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    CHECK(so != NULL);
    aotfarm_model_fn *entry;
    *(void **)&entry = dlsym(so, "aotfarm_model");
    CHECK(entry != NULL);
    api = entry(AOTFARM_ABI_VERSION);
    CHECK(api != NULL && api->n_steps == 3);
    open_driver();
    aotfarm_session *s, *second;
    if (argc == 3) {
        CHECK(api->session_create(NULL, &s) == AOTFARM_ERROR_UNSUPPORTED && s == NULL);
        CHECK(strstr(api->last_error(), argv[2]) != NULL);
        if (fake) CHECK(fake->live == 0);
        /* What is not the library is not kept. */
        if (strstr(argv[2], "has no") != NULL) CHECK(dlopen("libcudnn.so.9", RTLD_NOW | RTLD_NOLOAD) == NULL);
        return 0;
    }
    void *context;
    CHECK(init(0) == 0 && retain(&context, fake ? 10 : 0) == 0 && set_current(context) == 0);
    uint64_t place[TENSORS - X], other[TENSORS - X], host[TENSORS - X];
    for (int i = 0; i < TENSORS - X; i++) {
        CHECK(alloc(&place[i], row_bytes[i] * MOST + 4096) == 0 && alloc(&other[i], row_bytes[i] * MOST + 4096) == 0);
        host[i] = (uint64_t)calloc(1, row_bytes[i] * MOST);
    }
    int live = fake ? fake->live : 0;
    CHECK(api->session_create(NULL, &s) == AOTFARM_OK && api->session_create(NULL, &second) == AOTFARM_OK);
    test_graphs(s, place, other);
    /* Up and down, and more than once, so that graphs are made and used. Large sizes lack the algorithms of small ones. */
    static const int64_t batches[] = {1, 64, 3, 33, 3, 1, 64, 32, 3, 1, 64};
    for (int i = 0; i < 11; i++) {
        good(s, place, kDLCUDA, batches[i]);
        good(s, host, kDLCPU, batches[i]);
    }
    /* More sizes than a session keeps. */
    for (int64_t n = 1; n <= MOST; n++) good(s, place, kDLCUDA, n);
    good(second, place, kDLCUDA, 5);
    api->session_destroy(second);
    double seconds[3] = {-1, -1, -1};
    prepare(place, kDLCUDA, 7);
    CHECK(api->run_timed(s, inputs, 3, outputs, 2, seconds, 3) == AOTFARM_OK && right());
    for (int i = 0; i < 3; i++) CHECK(seconds[i] >= 0 && seconds[i] < 1);
    test_stream(place);
    api->session_destroy(s);
    /* All is given back, but for a graph of this test's and what can be launched of it. */
    if (fake) CHECK(fake->live == live + 2 && library_live("libcudnn.so.9") == 0 && library_live("libcublasLt.so.13") == 0);
    return 0;
}
