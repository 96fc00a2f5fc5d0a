/* A libcuda.so.1 without a GPU: "device" memory is memory of the host that only copies and kernels may touch, and the kernels of the link tests'
 * model are functions of this file. It does what is asked at once, checks it, counts it (`fake`), and refuses what a knob says (`fake` again). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_cuda.h"

struct fake_cuda fake = {.devices = 2, .sm = 90, .version = 13000};

typedef int32_t result;
typedef uint64_t address;

#define REQUIRE(condition)                                                       \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "fake_cuda.c:%d: %s\n", __LINE__, #condition);       \
            abort();                                                             \
        }                                                                        \
    } while (0)

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NO_BINARY = 209, NOT_READY = 600, ILLEGAL_ADDRESS = 700, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900 };

/* ---- memory ---- */

static struct allocation {
    char *start;
    size_t bytes;
} allocations[256];

static int on_device(address at, size_t bytes) {
    for (int i = 0; i < 256; i++) {
        const struct allocation *a = &allocations[i];
        if (a->start && (char *)at >= a->start && (char *)at + bytes <= a->start + a->bytes) return 1;
    }
    return 0;
}

result cuMemAlloc_v2(address *at, size_t bytes) {
    if (fake.memory && bytes > fake.memory) return OUT_OF_MEMORY;
    for (int i = 0; i < 256; i++)
        if (!allocations[i].start) {
            allocations[i].start = aligned_alloc(512, (bytes + 511) / 512 * 512);
            allocations[i].bytes = bytes;
            memset(allocations[i].start, 0xaa, bytes); /* nothing is zero by itself */
            *at = (address)allocations[i].start;
            fake.allocations++;
            fake.live++;
            return OK;
        }
    return OUT_OF_MEMORY;
}

result cuMemFree_v2(address at) {
    for (int i = 0; i < 256; i++)
        if (allocations[i].start == (char *)at) {
            free(allocations[i].start);
            allocations[i].start = NULL;
            fake.live--;
            return OK;
        }
    REQUIRE(!"freed what is not allocated");
    return INVALID;
}

result cuMemHostAlloc(void **at, size_t bytes, uint32_t flags) {
    (void)flags;
    *at = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    fake.live++;
    return OK;
}
result cuMemFreeHost(void *at) {
    free(at);
    fake.live--;
    return OK;
}
result cuMemGetInfo_v2(size_t *available, size_t *total) {
    *available = fake.memory;
    *total = (size_t)80 << 30;
    return OK;
}
static result copy(void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
    return OK;
}
result cuMemcpyHtoD_v2(address to, const void *from, size_t bytes) {
    REQUIRE(on_device(to, bytes));
    return copy((void *)to, from, bytes);
}
result cuMemcpyDtoH_v2(void *to, address from, size_t bytes) {
    REQUIRE(on_device(from, bytes));
    return copy(to, (void *)from, bytes);
}

/* ---- streams and graphs ---- */

typedef struct attribute {
    int32_t id, pad;
    union {
        uint32_t cluster[3];
        int32_t overlap;
        char size[64];
    } value;
} attribute;

typedef struct config {
    uint32_t grid[3], block[3], shared_bytes;
    struct stream *stream;
    const attribute *attributes;
    uint32_t n_attributes;
} config;

struct function {
    const char *name;
    int words;
    void (*run)(const uint64_t *words, const uint32_t *grid);
    uint32_t dynamic_shared;
};

typedef struct node {
    struct function *function;
    uint32_t grid[3];
    uint64_t words[16];
} node;

typedef struct graph {
    int n;
    node nodes[64];
    const node *last;
} graph;

typedef struct stream {
    uint32_t flags;
    graph *capturing;
} stream;

result cuStreamCreate(stream **s, uint32_t flags) {
    *s = calloc(1, sizeof **s);
    (*s)->flags = flags;
    fake.live++;
    return OK;
}
result cuStreamDestroy_v2(stream *s) {
    free(s);
    fake.live--;
    return OK;
}
result cuStreamSynchronize(stream *s) {
    if (s->capturing) return CAPTURE_UNSUPPORTED;
    fake.waits++;
    return OK;
}
static uint32_t *pending, pending_value; /* a write to host memory, which takes some time to get there */
result cuStreamWriteValue32_v2(stream *s, address at, uint32_t value, uint32_t flags) {
    REQUIRE(!s->capturing && flags == 0);
    if (fake.refuse_writes) return NOT_SUPPORTED;
    pending = (uint32_t *)at, pending_value = value;
    if (fake.slow_writes == 0) *pending = value;
    fake.waits++;
    return OK;
}
result cuStreamQuery(stream *s) {
    REQUIRE(!s->capturing);
    if (fake.fail) return ILLEGAL_ADDRESS;
    if (fake.slow_writes > 0 && --fake.slow_writes == 0) *pending = pending_value;
    return NOT_READY;
}
result cuStreamIsCapturing(stream *s, int32_t *state) {
    *state = s->capturing != NULL;
    return OK;
}
result cuThreadExchangeStreamCaptureMode(int32_t *mode) {
    static int32_t now;
    int32_t old = now;
    now = *mode;
    *mode = old;
    return OK;
}
result cuStreamBeginCapture_v2(stream *s, int32_t mode) {
    (void)mode;
    if (fake.refuse_capture) return CAPTURE_UNSUPPORTED;
    REQUIRE(s->flags == 1); /* a capturing stream must not depend on the default stream */
    s->capturing = calloc(1, sizeof *s->capturing);
    fake.live++;
    fake.captures++;
    return OK;
}
result cuStreamEndCapture(stream *s, graph **g) {
    *g = s->capturing;
    s->capturing = NULL;
    return OK;
}
result cuStreamGetCaptureInfo_v3(stream *s, int32_t *state, uint64_t *id, graph **g, const node *const **last, const void **edges, size_t *n) {
    *state = 1, *id = 7, *g = s->capturing, *edges = NULL;
    *last = (const node *const *)&s->capturing->last;
    *n = 1;
    return OK;
}
result cuGraphInstantiateWithFlags(graph **exec, graph *g, unsigned long long flags) {
    REQUIRE(flags == 0);
    *exec = malloc(sizeof **exec);
    memcpy(*exec, g, sizeof *g);
    fake.live++;
    return OK;
}
result cuGraphDestroy(graph *g) {
    free(g);
    fake.live--;
    return OK;
}
result cuGraphExecDestroy(graph *g) { return cuGraphDestroy(g); }

typedef struct node_params {
    struct function *function;
    uint32_t grid[3], block[3], shared_bytes;
    void **params, **extra;
    void *kernel, *context;
} node_params;

result cuGraphExecKernelNodeSetParams_v2(graph *exec, const node *named, const node_params *p) {
    /* The position of the node in the graph that it was captured in is its position in the exec. */
    int index = -1;
    for (int i = 0; i < exec->n; i++)
        if (exec->nodes[i].function == named->function && memcmp(exec->nodes[i].grid, named->grid, sizeof named->grid) == 0) index = i;
    REQUIRE(index >= 0 && p->function == named->function && memcmp(p->grid, named->grid, sizeof named->grid) == 0);
    memcpy(exec->nodes[index].words, p->params[0], (size_t)named->function->words * sizeof(uint64_t));
    fake.node_updates++;
    return OK;
}
result cuGraphLaunch(graph *exec, stream *s) {
    REQUIRE(!s->capturing);
    for (int i = 0; i < exec->n; i++) exec->nodes[i].function->run(exec->nodes[i].words, exec->nodes[i].grid);
    fake.graph_launches++;
    return OK;
}

result cuLaunchKernelEx(const config *c, struct function *f, void **params, void **extra) {
    REQUIRE(extra == NULL && c->block[1] == 1 && c->block[2] == 1 && c->shared_bytes <= (f->dynamic_shared ? f->dynamic_shared : 49152));
    node n = {.function = f};
    memcpy(n.grid, c->grid, sizeof n.grid);
    memcpy(n.words, params[0], (size_t)f->words * sizeof(uint64_t));
    for (uint32_t i = 0; i < c->n_attributes; i++) {
        const attribute *a = &c->attributes[i];
        REQUIRE(a->id == 4 || (a->id == 6 && a->value.overlap == 1));
        if (a->id == 6) fake.overlaps++;
        if (a->id == 4) {
            REQUIRE(a->value.cluster[0] == 2 && a->value.cluster[1] == 1 && a->value.cluster[2] == 1 && c->grid[0] % 2 == 0);
            fake.clusters++;
        }
    }
    fake.launches++;
    if (!c->stream->capturing) {
        f->run(n.words, n.grid);
        return OK;
    }
    graph *g = c->stream->capturing;
    REQUIRE(g->n < 64);
    g->nodes[g->n] = n;
    g->last = &g->nodes[g->n++];
    return OK;
}

/* What a library puts on a stream: nodes that no one but itself knows. */
void fake_enqueue(stream *s, void (*run)(const uint64_t *words, const uint32_t *grid), const uint64_t *words, int n);
void fake_enqueue(stream *s, void (*run)(const uint64_t *words, const uint32_t *grid), const uint64_t *words, int n) {
    static struct function libraries[8];
    struct function *f = libraries;
    while (f->run != NULL && f->run != run) f++;
    REQUIRE(f < libraries + 8 && n <= 16);
    f->name = "a library's", f->words = n, f->run = run;
    const config c = {.grid = {1, 1, 1}, .block = {1, 1, 1}, .stream = s};
    uint64_t copy[16] = {0};
    memcpy(copy, words, (size_t)n * sizeof *words);
    void *params[] = {copy};
    REQUIRE(cuLaunchKernelEx(&c, f, params, NULL) == OK);
}

/* On a stream: of copies those on the device alone are captured by this driver. */
result cuMemcpyHtoDAsync_v2(address to, const void *from, size_t bytes, stream *s) {
    REQUIRE(!s->capturing);
    fake.copies++;
    return cuMemcpyHtoD_v2(to, from, bytes);
}
result cuMemcpyDtoHAsync_v2(void *to, address from, size_t bytes, stream *s) {
    REQUIRE(!s->capturing);
    fake.copies++;
    return cuMemcpyDtoH_v2(to, from, bytes);
}
static void run_copy(const uint64_t *words, const uint32_t *grid) {
    (void)grid;
    REQUIRE(on_device(words[0], words[2]) && on_device(words[1], words[2]));
    memcpy((void *)words[0], (void *)words[1], words[2]);
}
result cuMemcpyDtoDAsync_v2(address to, address from, size_t bytes, stream *s) {
    static struct function function = {"a copy", 3, run_copy, 0};
    node n = {.function = &function, .words = {to, from, bytes}};
    fake.copies++;
    if (!s->capturing) {
        run_copy(n.words, n.grid);
        return OK;
    }
    graph *g = s->capturing;
    REQUIRE(g->n < 64);
    g->nodes[g->n] = n;
    g->last = &g->nodes[g->n++];
    return OK;
}
result cuMemsetD8Async(address at, uint8_t value, size_t bytes, stream *s) {
    REQUIRE(!s->capturing && on_device(at, bytes));
    memset((void *)at, value, bytes);
    return OK;
}

/* ---- events ---- */

typedef struct timespec event;

result cuEventCreate(event **e, uint32_t flags) {
    (void)flags;
    *e = calloc(1, sizeof **e);
    fake.live++;
    return OK;
}
result cuEventDestroy_v2(event *e) {
    free(e);
    fake.live--;
    return OK;
}
result cuEventRecord(event *e, stream *s) {
    REQUIRE(!s->capturing);
    clock_gettime(CLOCK_MONOTONIC, e);
    return OK;
}
result cuEventElapsedTime(float *ms, const event *from, const event *to) {
    *ms = (float)((double)(to->tv_sec - from->tv_sec) * 1e3 + (double)(to->tv_nsec - from->tv_nsec) * 1e-6);
    return OK;
}

/* ---- devices ---- */

static void *current;
static char contexts[8];

result cuInit(uint32_t flags) { return flags != 0 ? INVALID : fake.devices == 0 ? NO_DEVICE : OK; }
result cuDriverGetVersion(int32_t *version) {
    *version = fake.version;
    return OK;
}
result cuGetErrorName(result error, const char **name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OTHER";
    return OK;
}
result cuGetErrorString(result error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : "other";
    return OK;
}
result cuDeviceGetCount(int32_t *count) {
    *count = fake.devices;
    return OK;
}
result cuDeviceGet(int32_t *device, int32_t index) {
    *device = 10 + index;
    return OK;
}
result cuDeviceGetName(char *name, int32_t bytes, int32_t device) {
    snprintf(name, (size_t)bytes, "Fake %d", device - 10);
    return OK;
}
result cuDeviceGetAttribute(int32_t *value, int32_t attribute, int32_t device) {
    (void)device;
    *value = attribute == 75 ? fake.sm / 10 : fake.sm % 10;
    return OK;
}
result cuDevicePrimaryCtxRetain(void **context, int32_t device) {
    *context = &contexts[device - 10];
    fake.live++;
    return OK;
}
result cuDevicePrimaryCtxRelease_v2(int32_t device) {
    (void)device;
    fake.live--;
    return OK;
}
result cuCtxGetCurrent(void **context) {
    *context = current;
    return OK;
}
result cuCtxPushCurrent_v2(void *context) {
    current = context;
    return OK;
}
result cuCtxPopCurrent_v2(void **context) {
    *context = current;
    current = NULL;
    return OK;
}
result cuCtxSynchronize(void) { return OK; }

/* ---- kernels ---- */

static const void *readable(uint64_t at, size_t bytes) {
    REQUIRE(at % 16 == 0 && on_device(at, bytes));
    return (const void *)at;
}

/* The grids that the test's launches give: see `launch` in compiler/src/link/cuda_tests.rs. */
static void check_grid(const uint32_t *grid, uint64_t x) { REQUIRE(grid[0] == x && grid[1] == 1 && grid[2] == 1); }

/* words: x, w, h, workspace, batch. h[4 + 4 b + j] = sum_k x[b][k] w[k][j] + marker. */
static void linear(const uint64_t *words, float marker) {
    uint64_t batch = words[4];
    const float *x = readable(words[0], batch * 12), *w = readable(words[1], 48);
    float *h = (float *)readable(words[2], batch * 16 + 16);
    for (uint64_t b = 0; b < batch; b++)
        for (int j = 0; j < 4; j++) {
            float sum = marker;
            for (int k = 0; k < 3; k++) sum += x[b * 3 + k] * w[k * 4 + j];
            h[4 + b * 4 + j] = sum;
        }
}
static void linear_small(const uint64_t *words, const uint32_t *grid) {
    check_grid(grid, (4 * words[4] + 127) / 128);
    linear(words, 0);
}
static void linear_large(const uint64_t *words, const uint32_t *grid) {
    check_grid(grid, (4 * words[4] + 127) / 128);
    linear(words, 1000);
}

/* words: h, y, bias, z, workspace, batch. z = h + y + bias, and the sum of the halo, which must be zero. */
static void add(const uint64_t *words, const uint32_t *grid) {
    uint64_t batch = words[5];
    check_grid(grid, (4 * batch + 127) / 128);
    const float *h = readable(words[0], batch * 16 + 16), *y = readable(words[1], batch * 16), *bias = readable(words[2], 16);
    float *z = (float *)readable(words[3], batch * 16);
    for (uint64_t i = 0; i < batch * 4; i++) z[i] = h[4 + i] + y[i] + bias[i % 4] + h[0] + h[1] + h[2] + h[3];
}

/* words: z, s, workspace, batch, 2 batch + 1. s[i] = i * sum(z); the workspace is 4096 bytes of its own. */
static void spread(const uint64_t *words, const uint32_t *grid) {
    uint64_t batch = words[3], n = words[4];
    REQUIRE(n == 2 * batch + 1 && words[2] % 256 == 0);
    check_grid(grid, 2 * ((batch + 7) / 8));
    const float *z = readable(words[0], batch * 16);
    float *s = (float *)readable(words[1], n * 4), total = 0;
    memset((void *)readable(words[2], 4096), 0x77, 4096);
    for (uint64_t i = 0; i < batch * 4; i++) total += z[i];
    for (uint64_t i = 0; i < n; i++) s[i] = (float)i * total;
}

static struct function functions[] = {
    {"test_linear_small", 5, linear_small, 0},
    {"test_linear_large", 5, linear_large, 0},
    {"test_add", 6, add, 0},
    {"test_spread", 5, spread, 0},
};

result cuModuleLoadData(const void **module, const void *image) {
    REQUIRE(((const char *)image)[0] != 0);
    if (fake.version < 12000) return NO_BINARY;
    *module = image;
    fake.live++;
    fake.modules++;
    return OK;
}
result cuModuleUnload(void *module) {
    (void)module;
    fake.live--;
    return OK;
}
result cuModuleGetFunction(struct function **f, const void *module, const char *name) {
    (void)module;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0) {
            *f = &functions[i];
            return OK;
        }
    return INVALID;
}
result cuFuncSetAttribute(struct function *f, int32_t attribute, int32_t value) {
    REQUIRE(attribute == 8);
    f->dynamic_shared = (uint32_t)value;
    return OK;
}
