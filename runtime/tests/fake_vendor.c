/* A libcudnn.so.9 and a libcublasLt.so.13 on fake_cuda.c: they compute what is described on the host, as slowly as it gets, and check that it is
 * described as their documentation says. Algorithms are numbers that small sizes have and large ones lack. */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                         \
    do {                                                                           \
        if (!(condition)) {                                                        \
            fprintf(stderr, "fake_vendor.c:%d: %s\n", __LINE__, #condition);       \
            abort();                                                               \
        }                                                                          \
    } while (0)

typedef int32_t status;
enum { OK = 0, NOT_SUPPORTED = 15, SMALL = 32 };

/* Descriptors and handles that were made and not destroyed. */
int fake_vendor_live;

typedef struct descriptor {
    char kind; /* h, t, f, c, a: cuDNN's; h, d, l, p: cuBLASLt's */
    int64_t number[9];
    void *bias;
} descriptor;

static status make(void **result, char kind) {
    descriptor *d = calloc(1, sizeof *d);
    d->kind = kind;
    *result = d;
    fake_vendor_live++;
    return OK;
}
static status destroy(void *d, char kind) {
    REQUIRE(d != NULL && ((descriptor *)d)->kind == kind);
    free(d);
    fake_vendor_live--;
    return OK;
}
static const descriptor *is(const void *d, char kind) {
    REQUIRE(d != NULL && ((const descriptor *)d)->kind == kind);
    return d;
}

static void enqueue(void *stream, void (*run)(const uint64_t *, const uint32_t *), const uint64_t *words, int n) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    REQUIRE(driver != NULL);
    void (*put)(void *, void (*)(const uint64_t *, const uint32_t *), const uint64_t *, int);
    *(void **)&put = dlsym(driver, "fake_enqueue");
    put(stream, run, words, n);
}

/* ---- elements: 0 f32, 2 f16, 9 or 14 bf16 ---- */

static float of_half(uint16_t h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    float x = exponent == 0 ? ldexpf((float)mantissa, -24) : exponent == 31 ? INFINITY : ldexpf((float)(1024 + mantissa), exponent - 25);
    return h & 0x8000 ? -x : x;
}
static float load(const void *p, int64_t i, int64_t type) {
    if (type == 0) return ((const float *)p)[i];
    uint16_t bits = ((const uint16_t *)p)[i];
    if (type == 2) return of_half(bits);
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}
/* The values of the test are exact in every type that they are stored in. */
static void store(void *p, int64_t i, int64_t type, float x) {
    if (type == 0) {
        ((float *)p)[i] = x;
    } else if (type == 2) {
        uint32_t h = 0;
        while (h < 65536 && of_half((uint16_t)h) != x) h++;
        REQUIRE(h < 65536);
        ((uint16_t *)p)[i] = (uint16_t)h;
    } else {
        uint32_t bits;
        memcpy(&bits, &x, 4);
        REQUIRE((bits & 0xffff) == 0);
        ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
    }
}

/* ---- cuDNN ---- */

status cudnnCreate(void **h) { return make(h, 'h'); }
status cudnnDestroy(void *h) { return destroy(h, 'h'); }
const char *cudnnGetErrorString(status s) { return s == 0 ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS_NOT_SUPPORTED"; }
status cudnnSetStream(void *h, void *stream) {
    ((descriptor *)(uintptr_t)is(h, 'h'))->bias = stream;
    return OK;
}
status cudnnCreateTensorDescriptor(void **d) { return make(d, 't'); }
status cudnnDestroyTensorDescriptor(void *d) { return destroy(d, 't'); }
static status set(void *d, char kind, int64_t format, int64_t type, int64_t n, int64_t c, int64_t h, int64_t w) {
    descriptor *x = (descriptor *)(uintptr_t)is(d, kind);
    REQUIRE(format == 1 && n > 0 && c > 0 && h > 0 && w > 0);
    const int64_t numbers[] = {type, n, c, h, w};
    memcpy(x->number, numbers, sizeof numbers);
    return OK;
}
status cudnnSetTensor4dDescriptor(void *d, int format, int type, int n, int c, int h, int w) { return set(d, 't', format, type, n, c, h, w); }
status cudnnCreateFilterDescriptor(void **d) { return make(d, 'f'); }
status cudnnDestroyFilterDescriptor(void *d) { return destroy(d, 'f'); }
status cudnnSetFilter4dDescriptor(void *d, int type, int format, int k, int c, int h, int w) { return set(d, 'f', format, type, k, c, h, w); }
status cudnnCreateConvolutionDescriptor(void **d) { return make(d, 'c'); }
status cudnnDestroyConvolutionDescriptor(void *d) { return destroy(d, 'c'); }
status cudnnSetConvolution2dDescriptor(void *d, int ph, int pw, int sh, int sw, int dh, int dw, int mode, int type) {
    descriptor *x = (descriptor *)(uintptr_t)is(d, 'c');
    REQUIRE(mode == 1 && type == 0);
    const int64_t numbers[] = {ph, pw, sh, sw, dh, dw};
    memcpy(x->number, numbers, sizeof numbers);
    return OK;
}
status cudnnSetConvolutionMathType(void *d, int math) {
    is(d, 'c');
    REQUIRE(math == 1); /* the test's images are in bf16 */
    return OK;
}
status cudnnCreateActivationDescriptor(void **d) { return make(d, 'a'); }
status cudnnDestroyActivationDescriptor(void *d) { return destroy(d, 'a'); }
status cudnnSetActivationDescriptor(void *d, int mode, int nan, double ceiling) {
    REQUIRE((mode == 1 || mode == 5) && nan == 0 && ceiling == 0);
    ((descriptor *)(uintptr_t)is(d, 'a'))->number[0] = mode;
    return OK;
}
/* Algorithm 1 is for all sizes, 6 for small ones. */
status cudnnGetConvolutionForwardWorkspaceSize(void *h, void *x, void *f, void *c, void *y, int algorithm, size_t *bytes) {
    is(h, 'h'), is(f, 'f'), is(c, 'c'), is(y, 't');
    int64_t n = is(x, 't')->number[1];
    if (algorithm != 1 && (algorithm != 6 || n > SMALL)) return NOT_SUPPORTED;
    *bytes = 1000 * (size_t)n;
    return OK;
}

static void conv(const uint64_t *words, const uint32_t *grid) {
    (void)grid;
    const descriptor *x = (const void *)words[0], *f = (const void *)words[1], *c = (const void *)words[2], *y = (const void *)words[3];
    const void *in = (const void *)words[4], *filter = (const void *)words[5], *z = (const void *)words[6], *bias = (const void *)words[7];
    void *out = (void *)words[8];
    const int64_t type = x->number[0], channels = x->number[2], rows = x->number[3], columns = x->number[4];
    const int64_t n_out = y->number[2], oh = y->number[3], ow = y->number[4], kh = f->number[3], kw = f->number[4];
    memset((void *)words[10], 0x77, words[11]);
    for (int64_t at = 0; at < y->number[1] * oh * ow * n_out; at++) {
        int64_t o = at % n_out, column = at / n_out % ow, row = at / n_out / ow % oh, n = at / n_out / ow / oh;
        float sum = words[9] & 1 ? load(z, at, type) : 0;
        for (int64_t i = 0; i < kh * kw * channels; i++) {
            int64_t ch = i % channels, h = row * c->number[2] - c->number[0] + i / channels / kw * c->number[4],
                    w = column * c->number[3] - c->number[1] + i / channels % kw * c->number[5];
            if (h < 0 || h >= rows || w < 0 || w >= columns) continue;
            sum += load(in, ((n * rows + h) * columns + w) * channels + ch, type) * load(filter, o * kh * kw * channels + i, type);
        }
        sum += load(bias, o, type);
        store(out, at, type, words[9] & 2 && sum < 0 ? 0 : sum);
    }
}

status cudnnConvolutionBiasActivationForward(void *h, const float *one, void *x, const void *in, void *f, const void *filter, void *c, int algorithm,
                                             void *workspace, size_t bytes, const float *scale, void *zd, const void *z, void *bd, const void *bias,
                                             void *activation, void *y, void *out) {
    void *stream = is(h, 'h')->bias;
    int64_t n = is(x, 't')->number[1];
    REQUIRE(*one == 1 && (*scale == 0 || *scale == 1) && zd == y && workspace != NULL && bytes == 1000 * (size_t)n);
    REQUIRE(algorithm == (n <= SMALL ? 6 : 1));
    REQUIRE(is(bd, 't')->number[2] == is(y, 't')->number[2] && is(bd, 't')->number[0] == is(x, 't')->number[0]);
    const uint64_t words[] = {(uint64_t)x, (uint64_t)is(f, 'f'), (uint64_t)is(c, 'c'), (uint64_t)y, (uint64_t)in, (uint64_t)filter,
                              (uint64_t)z, (uint64_t)bias, (uint64_t)out,
                              (uint64_t)(*scale == 1) | (uint64_t)(is(activation, 'a')->number[0] == 1) << 1, (uint64_t)workspace, bytes};
    enqueue(stream, conv, words, 12);
    return OK;
}

/* ---- cuBLASLt ---- */

typedef struct proposal {
    uint64_t algorithm[8];
    size_t workspace;
    status status;
    float waves;
    int32_t reserved[4];
} proposal;

status cublasLtCreate(void **h) { return make(h, 'h'); }
status cublasLtDestroy(void *h) { return destroy(h, 'h'); }
const char *cublasLtGetStatusString(status s) { return s == 0 ? "success" : "not supported"; }
status cublasLtMatmulDescCreate(void **d, int compute, int scale) {
    REQUIRE(compute == 68 && scale == 0);
    make(d, 'd');
    ((descriptor *)*d)->number[1] = 1;
    return OK;
}
status cublasLtMatmulDescDestroy(void *d) { return destroy(d, 'd'); }
/* number: transposed a, epilogue. */
status cublasLtMatmulDescSetAttribute(void *d, int attribute, const void *value, size_t bytes) {
    descriptor *x = (descriptor *)(uintptr_t)is(d, 'd');
    REQUIRE((attribute == 3 && bytes == 4 && *(const int32_t *)value == 1) || (attribute == 7 && bytes == 4) || (attribute == 8 && bytes == 8));
    if (attribute == 3) x->number[0] = 1;
    if (attribute == 7) x->number[1] = *(const int32_t *)value;
    if (attribute == 8) x->bias = *(void *const *)value;
    return OK;
}
/* number: type, rows, columns, ld, batch, stride. */
status cublasLtMatrixLayoutCreate(void **d, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    REQUIRE((type == 0 || type == 2 || type == 14) && rows > 0 && columns > 0 && (uint64_t)ld == rows);
    make(d, 'l');
    const int64_t numbers[] = {type, (int64_t)rows, (int64_t)columns, ld};
    memcpy(((descriptor *)*d)->number, numbers, sizeof numbers);
    return OK;
}
status cublasLtMatrixLayoutDestroy(void *d) { return destroy(d, 'l'); }
status cublasLtMatrixLayoutSetAttribute(void *d, int attribute, const void *value, size_t bytes) {
    descriptor *x = (descriptor *)(uintptr_t)is(d, 'l');
    REQUIRE((attribute == 5 && bytes == 4) || (attribute == 6 && bytes == 8));
    x->number[attribute - 1] = attribute == 5 ? *(const int32_t *)value : *(const int64_t *)value;
    return OK;
}
status cublasLtMatmulPreferenceCreate(void **d) { return make(d, 'p'); }
status cublasLtMatmulPreferenceDestroy(void *d) { return destroy(d, 'p'); }
status cublasLtMatmulPreferenceSetAttribute(void *d, int attribute, const void *value, size_t bytes) {
    is(d, 'p');
    REQUIRE((attribute == 1 && bytes == 8 && *(const uint64_t *)value == 32 << 20) ||
            (attribute >= 5 && attribute <= 8 && bytes == 4 && *(const uint32_t *)value == 16));
    return OK;
}
/* Three proposals for small results, one for large ones. */
status cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *out, void *preference, int room, proposal *proposals,
                                      int *found) {
    is(h, 'h'), is(d, 'd'), is(a, 'l'), is(b, 'l'), is(preference, 'p');
    REQUIRE(c == out && room == 4 && sizeof(proposal) == 96);
    *found = is(out, 'l')->number[2] <= SMALL ? 3 : 1;
    for (int i = 0; i < *found; i++) proposals[i] = (proposal){.algorithm = {100 + (uint64_t)i}, .workspace = 4096};
    return OK;
}

static void product(const uint64_t *words, const uint32_t *grid) {
    (void)grid;
    const descriptor *d = (const void *)words[0], *al = (const void *)words[1], *bl = (const void *)words[2], *cl = (const void *)words[3];
    const void *a = (const void *)words[4], *b = (const void *)words[5], *c = (const void *)words[6];
    void *out = (void *)words[7];
    const int64_t rows = cl->number[1], columns = cl->number[2], depth = bl->number[1], epilogue = d->number[1];
    REQUIRE(al->number[d->number[0] ? 2 : 1] == rows && al->number[d->number[0] ? 1 : 2] == depth && bl->number[2] == columns);
    memset((void *)words[9], 0x77, 4096);
    for (int64_t n = 0; n < cl->number[4]; n++)
        for (int64_t j = 0; j < columns; j++)
            for (int64_t i = 0; i < rows; i++) {
                int64_t at = n * cl->number[5] + j * rows + i;
                float sum = words[8] ? load(c, at, cl->number[0]) : 0;
                for (int64_t k = 0; k < depth; k++) {
                    float x = load(a, n * al->number[5] + (d->number[0] ? i * depth + k : k * rows + i), al->number[0]);
                    sum += x * load(b, n * bl->number[5] + j * depth + k, bl->number[0]);
                }
                if (epilogue & 4) sum += load(d->bias, i, cl->number[0]);
                store(out, at, cl->number[0], epilogue & 2 && sum < 0 ? 0 : sum);
            }
}

status cublasLtMatmul(void *h, void *d, const float *one, const void *a, void *al, const void *b, void *bl, const float *beta, const void *c, void *cl,
                      void *out, void *ol, const uint64_t *algorithm, void *workspace, size_t bytes, void *stream) {
    is(h, 'h');
    REQUIRE(*one == 1 && (*beta == 0 || *beta == 1) && cl == ol && workspace != NULL && bytes == 4096);
    /* The test's first product was measured with the third proposal, the other one with the first. */
    int64_t columns = is(ol, 'l')->number[2];
    REQUIRE(algorithm[0] == (is(ol, 'l')->number[0] == 0 && columns <= SMALL ? 102 : 100));
    const uint64_t words[] = {(uint64_t)is(d, 'd'), (uint64_t)is(al, 'l'), (uint64_t)is(bl, 'l'), (uint64_t)ol, (uint64_t)a, (uint64_t)b, (uint64_t)c,
                              (uint64_t)out, *beta == 1, (uint64_t)workspace};
    enqueue(stream, product, words, 10);
    return OK;
}
