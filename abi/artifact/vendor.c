/* Steps that a library of NVIDIA's does, for artifacts whose job allowed it (--allow-vendor): part of those alone. Follows cuda.c, which declares
 * what it calls here, and the numbers of the libraries' interfaces, and is followed by the generated tables.
 *
 * The libraries' interfaces are declared here, as far as they are used, and opened at run time, when the first session is made. RT_VENDOR says
 * which of them the artifact needs. A call is described anew for each size, by the algorithm that was the fastest when it was measured; another
 * release of a library may not have it, and then takes one that works. Addresses on the GPU are passed as numbers, which is how pointers are passed
 * wherever there are GPUs. */

/* ---- the libraries ---- */

/* cuDNN 9, https://docs.nvidia.com/deeplearning/cudnn/backend/latest/api/cudnn-cnn-library.html */
#define RT_CUDNN_API(X)                                                                                           \
    X(create, cudnnCreate, (void **))                                                                             \
    X(destroy, cudnnDestroy, (void *))                                                                            \
    X(set_stream, cudnnSetStream, (void *, cu_stream))                                                            \
    X(tensor_create, cudnnCreateTensorDescriptor, (void **))                                                      \
    X(tensor_set, cudnnSetTensor4dDescriptor, (void *, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t))     \
    X(tensor_destroy, cudnnDestroyTensorDescriptor, (void *))                                                     \
    X(filter_create, cudnnCreateFilterDescriptor, (void **))                                                      \
    X(filter_set, cudnnSetFilter4dDescriptor, (void *, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t))     \
    X(filter_destroy, cudnnDestroyFilterDescriptor, (void *))                                                     \
    X(conv_create, cudnnCreateConvolutionDescriptor, (void **))                                                   \
    X(conv_set, cudnnSetConvolution2dDescriptor,                                                                  \
      (void *, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t))                           \
    X(conv_math, cudnnSetConvolutionMathType, (void *, int32_t))                                                  \
    X(conv_destroy, cudnnDestroyConvolutionDescriptor, (void *))                                                  \
    X(activation_create, cudnnCreateActivationDescriptor, (void **))                                              \
    X(activation_set, cudnnSetActivationDescriptor, (void *, int32_t, int32_t, double))                           \
    X(activation_destroy, cudnnDestroyActivationDescriptor, (void *))                                             \
    X(workspace, cudnnGetConvolutionForwardWorkspaceSize, (void *, void *, void *, void *, void *, int32_t, size_t *)) \
    X(forward, cudnnConvolutionBiasActivationForward,                                                             \
      (void *, const float *, void *, cu_address, void *, cu_address, void *, int32_t, cu_address, size_t, const float *, void *, \
       cu_address, void *, cu_address, void *, void *, cu_address))

/* cuBLASLt 12 and 13, https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api */
#define RT_CUBLASLT_API(X)                                                                                        \
    X(create, cublasLtCreate, (void **))                                                                          \
    X(destroy, cublasLtDestroy, (void *))                                                                         \
    X(product_create, cublasLtMatmulDescCreate, (void **, int32_t, int32_t))                                      \
    X(product_set, cublasLtMatmulDescSetAttribute, (void *, int32_t, const void *, size_t))                       \
    X(product_destroy, cublasLtMatmulDescDestroy, (void *))                                                       \
    X(matrix_create, cublasLtMatrixLayoutCreate, (void **, int32_t, uint64_t, uint64_t, int64_t))                 \
    X(matrix_set, cublasLtMatrixLayoutSetAttribute, (void *, int32_t, const void *, size_t))                      \
    X(matrix_destroy, cublasLtMatrixLayoutDestroy, (void *))                                                      \
    X(preference_create, cublasLtMatmulPreferenceCreate, (void **))                                               \
    X(preference_set, cublasLtMatmulPreferenceSetAttribute, (void *, int32_t, const void *, size_t))              \
    X(preference_destroy, cublasLtMatmulPreferenceDestroy, (void *))                                              \
    X(choose, cublasLtMatmulAlgoGetHeuristic,                                                                     \
      (void *, void *, void *, void *, void *, void *, void *, int32_t, rt_proposal *, int32_t *))                \
    X(matmul, cublasLtMatmul,                                                                                     \
      (void *, void *, const float *, cu_address, void *, cu_address, void *, const float *, cu_address, void *, cu_address, void *, \
       const uint64_t *, cu_address, size_t, cu_stream))

/* cublasLtMatmulHeuristicResult_t. */
typedef struct rt_proposal {
    uint64_t algorithm[8];
    size_t workspace;
    int32_t status;
    float waves;
    int32_t reserved[4];
} rt_proposal;

#define RT_MEMBER(name, symbol, arguments) int32_t(*name) arguments;
static struct {
    RT_CUDNN_API(RT_MEMBER)
    const char *(*text)(int32_t);
} dnn;
static struct {
    RT_CUBLASLT_API(RT_MEMBER)
    const char *(*text)(int32_t);
} blas;
#undef RT_MEMBER

/* The tables of such steps: a size is a constant times dims of the step. */
typedef struct rt_extent {
    int64_t factor;
    const uint32_t *dims;
    uint32_t n_dims;
} rt_extent;

enum { RT_F32, RT_F16, RT_BF16 };

/* NHWC images, OHWI filters. */
typedef struct rt_conv {
    uint32_t type;
    bool tf32, relu;
    int32_t input[3], output[3], kernel[2], stride[2], pad[2], dilation[2];
} rt_conv;

/* Row-major matrices; `transposed`: b is [n, k]. */
typedef struct rt_product {
    uint32_t factors, result;
    bool tf32, transposed;
    int32_t epilogue; /* without the bias */
    rt_extent m, n, k;
} rt_product;

struct rt_vendor {
    int32_t algorithm;             /* cuDNN's number of it, or its place among cuBLASLt's proposals */
    uint32_t right, residual, bias; /* which word of the call, which input, which weight; RT_NONE for none */
    rt_extent batch;
    const rt_conv *conv; /* one of the two */
    const rt_product *product;
};

/* A described call. */
struct rt_vendor_call {
    const rt_vendor *vendor;
    const rt_vendor_session *session;
    const char *step;
    cu_address bias; /* in the type of the result; 0 for none */
    void *x, *y, *filter, *operation, *activation, *bias_shape; /* descriptors: of a product a, d, b and the product itself */
    int32_t number;
    uint64_t algorithm[8];
    size_t workspace;
};

static int32_t rt_fail_library(const char *step, const char *library, int32_t status, const char *text) {
    return rt_fail(AOTFARM_ERROR_SYSTEM, "step `%s`: %s refused it: %s (%d)", step, library, text != NULL ? text : "no text", status);
}
static int32_t rt_fail_dnn(const char *step, int32_t status) { return rt_fail_library(step, "cuDNN", status, dnn.text(status)); }
static int32_t rt_fail_blas(const char *step, int32_t status) { return rt_fail_library(step, "cuBLASLt", status, blas.text(status)); }

/* A function of a library, and where its address goes. */
typedef struct rt_import {
    const char *symbol;
    void *place;
} rt_import;

#define RT_IMPORT(name, symbol, arguments) {#symbol, &RT_INTO.name},
static const rt_import rt_dnn_imports[] = {
#define RT_INTO dnn
    RT_CUDNN_API(RT_IMPORT) RT_IMPORT(text, cudnnGetErrorString, )
#undef RT_INTO
};
static const rt_import rt_blas_imports[] = {
#define RT_INTO blas
    RT_CUBLASLT_API(RT_IMPORT) RT_IMPORT(text, cublasLtGetStatusString, )
#undef RT_INTO
};
#undef RT_IMPORT

/* The libraries. */
typedef struct rt_library {
    uint32_t bit;         /* of RT_VENDOR */
    bool open;
    const char *variable; /* names the file */
    const char *names;    /* else it is the first of these, which are separated by " or " */
    const rt_import *imports;
    size_t n_imports;
} rt_library;

static rt_library rt_libraries[] = {
    {RT_CUDNN, false, "AOTFARM_CUDNN", "libcudnn.so.9", rt_dnn_imports, sizeof rt_dnn_imports / sizeof *rt_dnn_imports},
    {RT_CUBLASLT, false, "AOTFARM_CUBLASLT", "libcublasLt.so.13 or libcublasLt.so.12", rt_blas_imports,
     sizeof rt_blas_imports / sizeof *rt_blas_imports},
};

/* Loads a library's file; NULL with the text set when there is none. */
static void *rt_load_library(const rt_library *library) {
    const char *path = getenv(library->variable);
    void *handle = NULL;
    char name[64];
    if (path != NULL && *path != 0) {
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    } else {
        for (const char *at = library->names; handle == NULL && at != NULL;) {
            const char *end = strstr(at, " or ");
            snprintf(name, sizeof name, "%.*s", (int)(end != NULL ? end - at : (long)strlen(at)), at);
            handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
            at = end != NULL ? end + 4 : NULL;
        }
    }
    if (handle != NULL) return handle;
    const char *why = dlerror();
    rt_fail(AOTFARM_ERROR_UNSUPPORTED,
            "this artifact needs %s (it was submitted with --allow-vendor): %s; install it where the loader finds it, or name it in %s",
            library->names, why != NULL ? why : "it cannot be loaded", library->variable);
    return NULL;
}

/* Opens what the artifact needs, once; the lock is held. */
static int32_t rt_open_libraries(void) {
    for (size_t i = 0; i < sizeof rt_libraries / sizeof *rt_libraries; i++) {
        rt_library *library = &rt_libraries[i];
        if (!(RT_VENDOR & library->bit) || library->open) continue;
        void *handle = rt_load_library(library);
        if (handle == NULL) return AOTFARM_ERROR_UNSUPPORTED;
        for (size_t k = 0; k < library->n_imports; k++) {
            void *function = dlsym(handle, library->imports[k].symbol);
            if (function == NULL) {
                dlclose(handle);
                return rt_fail(AOTFARM_ERROR_UNSUPPORTED,
                               "this artifact needs %s (it was submitted with --allow-vendor), and the one that was found has no %s",
                               library->names, library->imports[k].symbol);
            }
            memcpy(library->imports[k].place, &function, sizeof function);
        }
        library->open = true;
    }
    return AOTFARM_OK;
}

static int32_t rt_vendor_open(rt_vendor_session *v) {
    pthread_mutex_lock(&rt_lock);
    int32_t status = rt_open_libraries(), error;
    pthread_mutex_unlock(&rt_lock);
    if (status) return status;
    if ((RT_VENDOR & RT_CUDNN) && (error = dnn.create(&v->dnn)) != 0) {
        v->dnn = NULL;
        return rt_fail(AOTFARM_ERROR_SYSTEM, "cuDNN does not start: %s", dnn.text(error));
    }
    if ((RT_VENDOR & RT_CUBLASLT) && (error = blas.create(&v->blas)) != 0) {
        v->blas = NULL;
        return rt_fail(AOTFARM_ERROR_SYSTEM, "cuBLASLt does not start: %s", blas.text(error));
    }
    return AOTFARM_OK;
}

static void rt_vendor_close(rt_vendor_session *v) {
    if (v->workspace != 0) cu.memory_free(v->workspace);
    if (v->dnn != NULL) dnn.destroy(v->dnn);
    if (v->blas != NULL) blas.destroy(v->blas);
}

/* ---- describing ---- */

static int32_t rt_extent_at(const rt_extent *extent, const char *step, const uint64_t *dims, int64_t most, int64_t *size) {
    *size = extent->factor;
    bool fits = true;
    for (uint32_t i = 0; i < extent->n_dims; i++) fits = fits && !__builtin_mul_overflow(*size, (int64_t)dims[extent->dims[i]], size);
    if (fits && *size <= most) return AOTFARM_OK;
    return rt_fail(AOTFARM_ERROR_ARGUMENT, "step `%s`: these sizes are more than NVIDIA's library can take", step);
}

/* To the nearest bfloat16, ties to even. */
static uint16_t rt_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* To the nearest IEEE half, ties to even. */
static uint16_t rt_to_f16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x477ff000) return sign | 0x7c00;
    if (bits < 0x38800000) {
        /* One that is not normal there: to add 0.5 shifts its last place to that of the sum. */
        float sum;
        memcpy(&sum, &bits, sizeof sum);
        sum += 0.5f;
        memcpy(&bits, &sum, sizeof bits);
        return sign | (uint16_t)(bits - 0x3f000000);
    }
    return sign | (uint16_t)((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13);
}

/* Puts a bias of `n` elements in f32, at this place in the weights, on the GPU in another type. */
static int32_t rt_convert_bias(aotfarm_session *s, uint64_t offset, int64_t n, uint32_t type, cu_address *result) {
    const float *bias = (const float *)(const void *)(aotfarm_weights + offset);
    size_t bytes = (size_t)n * (type == RT_F32 ? 4 : 2);
    uint16_t *half = NULL;
    if (type != RT_F32) {
        if ((half = malloc(bytes)) == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate a bias");
        for (int64_t i = 0; i < n; i++) half[i] = type == RT_F16 ? rt_to_f16(bias[i]) : rt_to_bf16(bias[i]);
    }
    int32_t status = rt_alloc(s, bytes, "a bias", result), error = 0;
    if (!status && ((error = cu.copy_up(*result, half != NULL ? (const void *)half : bias, bytes)) != 0 || (error = cu.context_synchronize()) != 0))
        status = rt_fail_cuda(error, "cannot copy a bias to GPU %d (%s)", s->gpu->index, s->gpu->name);
    free(half);
    return status;
}

static int32_t rt_dnn_type(uint32_t type) { return type == RT_F32 ? RT_DNN_FLOAT : type == RT_F16 ? RT_DNN_HALF : RT_DNN_BFLOAT16; }
static int32_t rt_blas_type(uint32_t type) { return type == RT_F32 ? RT_R_32F : type == RT_F16 ? RT_R_16F : RT_R_16BF; }

static int32_t rt_describe_conv(aotfarm_session *s, rt_vendor_call *c, const uint64_t *dims) {
    const rt_conv *conv = c->vendor->conv;
    const int32_t type = rt_dnn_type(conv->type), *in = conv->input, *out = conv->output, *kernel = conv->kernel;
    int64_t batch;
    int32_t status = rt_extent_at(&c->vendor->batch, c->step, dims, INT32_MAX, &batch), error;
    if (status) return status;
    int32_t n = (int32_t)batch;
    bool exact = conv->type == RT_F32 && !conv->tf32;
    if ((error = dnn.tensor_create(&c->x)) != 0 || (error = dnn.tensor_create(&c->y)) != 0 || (error = dnn.tensor_create(&c->bias_shape)) != 0 ||
        (error = dnn.filter_create(&c->filter)) != 0 || (error = dnn.conv_create(&c->operation)) != 0 ||
        (error = dnn.activation_create(&c->activation)) != 0 ||
        (error = dnn.tensor_set(c->x, RT_DNN_NHWC, type, n, in[0], in[1], in[2])) != 0 ||
        (error = dnn.tensor_set(c->y, RT_DNN_NHWC, type, n, out[0], out[1], out[2])) != 0 ||
        (error = dnn.tensor_set(c->bias_shape, RT_DNN_NHWC, type, 1, out[0], 1, 1)) != 0 ||
        (error = dnn.filter_set(c->filter, type, RT_DNN_NHWC, out[0], in[0], kernel[0], kernel[1])) != 0 ||
        (error = dnn.conv_set(c->operation, conv->pad[0], conv->pad[1], conv->stride[0], conv->stride[1], conv->dilation[0], conv->dilation[1],
                              RT_DNN_CROSS_CORRELATION, RT_DNN_FLOAT)) != 0 ||
        (error = dnn.conv_math(c->operation, exact ? RT_DNN_FMA_MATH : RT_DNN_TENSOR_OP_MATH)) != 0 ||
        (error = dnn.activation_set(c->activation, conv->relu ? RT_DNN_RELU : RT_DNN_IDENTITY, 0, 0)) != 0)
        return rt_fail_dnn(c->step, error);
    c->number = c->vendor->algorithm;
    if (dnn.workspace(s->vendor.dnn, c->x, c->filter, c->operation, c->y, c->number, &c->workspace) == 0) return AOTFARM_OK;
    c->number = RT_DNN_IMPLICIT_PRECOMP_GEMM;
    error = dnn.workspace(s->vendor.dnn, c->x, c->filter, c->operation, c->y, c->number, &c->workspace);
    return error == 0 ? AOTFARM_OK : rt_fail_dnn(c->step, error);
}

/* A column-major matrix of a batch. */
static int32_t rt_make_matrix(void **matrix, int32_t type, int64_t rows, int64_t columns, int32_t batch) {
    int64_t stride = rows * columns;
    int32_t error = blas.matrix_create(matrix, type, (uint64_t)rows, (uint64_t)columns, rows);
    if (error == 0) error = blas.matrix_set(*matrix, RT_MATRIX_BATCH, &batch, sizeof batch);
    if (error == 0) error = blas.matrix_set(*matrix, RT_MATRIX_STRIDE, &stride, sizeof stride);
    return error;
}

/* Row-major matrices are column-major ones transposed: what cuBLASLt computes is the transposed result, b's transposed times a's. */
static int32_t rt_describe_product(aotfarm_session *s, rt_vendor_call *c, const uint64_t *dims) {
    const rt_product *product = c->vendor->product;
    const int32_t factors = rt_blas_type(product->factors), result = rt_blas_type(product->result), transpose = RT_TRANSPOSE;
    int64_t batch, m, n, k;
    int32_t status, error, epilogue = product->epilogue, found = 0;
    if ((status = rt_extent_at(&c->vendor->batch, c->step, dims, INT32_MAX, &batch)) ||
        (status = rt_extent_at(&product->m, c->step, dims, INT32_MAX, &m)) || (status = rt_extent_at(&product->n, c->step, dims, INT32_MAX, &n)) ||
        (status = rt_extent_at(&product->k, c->step, dims, INT32_MAX, &k)))
        return status;
    /* The default is the lowest bit, which no other has. */
    if (c->bias != 0) epilogue = (epilogue & ~RT_EPILOGUE_DEFAULT) | RT_EPILOGUE_BIAS;
    error = blas.product_create(&c->operation, product->tf32 ? RT_COMPUTE_32F_FAST_TF32 : RT_COMPUTE_32F, RT_R_32F);
    if (error == 0 && product->transposed) error = blas.product_set(c->operation, RT_PRODUCT_TRANSA, &transpose, sizeof transpose);
    if (error == 0) error = blas.product_set(c->operation, RT_PRODUCT_EPILOGUE, &epilogue, sizeof epilogue);
    if (error == 0 && c->bias != 0) error = blas.product_set(c->operation, RT_PRODUCT_BIAS, &c->bias, sizeof c->bias);
    if (error == 0) error = rt_make_matrix(&c->filter, factors, product->transposed ? k : n, product->transposed ? n : k, (int32_t)batch);
    if (error == 0) error = rt_make_matrix(&c->x, factors, k, m, (int32_t)batch);
    if (error == 0) error = rt_make_matrix(&c->y, result, n, m, (int32_t)batch);
    if (error != 0) return rt_fail_blas(c->step, error);
    void *preference = NULL;
    const size_t most = RT_PROPOSAL_BYTES;
    const uint32_t align = RT_PROPOSAL_ALIGN;
    rt_proposal proposals[RT_PROPOSALS];
    error = blas.preference_create(&preference);
    if (error == 0) error = blas.preference_set(preference, RT_PREFER_WORKSPACE, &most, sizeof most);
    for (int32_t i = 0; i < 4 && error == 0; i++) error = blas.preference_set(preference, RT_PREFER_ALIGNMENT + i, &align, sizeof align);
    if (error == 0)
        error = blas.choose(s->vendor.blas, c->operation, c->filter, c->x, c->y, c->y, preference, RT_PROPOSALS, proposals, &found);
    if (preference != NULL) blas.preference_destroy(preference);
    if (error != 0) return rt_fail_blas(c->step, error);
    /* At the sizes that were measured the same proposals come; at others there may be fewer. */
    int32_t chosen = -1;
    for (int32_t i = 0; i < found && i < RT_PROPOSALS; i++)
        if (proposals[i].status == 0 && (chosen < 0 || i <= c->vendor->algorithm)) chosen = i;
    if (chosen < 0) return rt_fail(AOTFARM_ERROR_SYSTEM, "step `%s`: cuBLASLt has no algorithm for it", c->step);
    memcpy(c->algorithm, proposals[chosen].algorithm, sizeof c->algorithm);
    c->workspace = proposals[chosen].workspace;
    return AOTFARM_OK;
}

/* Frees a call and what it consists of. */
static void rt_vendor_drop(rt_vendor_call *c) {
    if (c == NULL) return;
    if (c->vendor->conv != NULL) {
        if (c->x != NULL) dnn.tensor_destroy(c->x);
        if (c->y != NULL) dnn.tensor_destroy(c->y);
        if (c->bias_shape != NULL) dnn.tensor_destroy(c->bias_shape);
        if (c->filter != NULL) dnn.filter_destroy(c->filter);
        if (c->operation != NULL) dnn.conv_destroy(c->operation);
        if (c->activation != NULL) dnn.activation_destroy(c->activation);
    } else {
        if (c->x != NULL) blas.matrix_destroy(c->x);
        if (c->y != NULL) blas.matrix_destroy(c->y);
        if (c->filter != NULL) blas.matrix_destroy(c->filter);
        if (c->operation != NULL) blas.product_destroy(c->operation);
    }
    if (c->bias != 0) cu.memory_free(c->bias);
    free(c);
}

/* Describes a step at its dims. The workspace grows to what the call needs; all graphs know the old one. */
static int32_t rt_vendor_describe(aotfarm_session *s, const rt_kernel *kernel, const char *step, const uint64_t *dims, rt_vendor_call **result) {
    const rt_vendor *vendor = kernel->vendor;
    int32_t status = AOTFARM_OK;
    if (s->capturing) return rt_fail_capturing();
    rt_vendor_call *c = *result = calloc(1, sizeof *c);
    if (c == NULL) return rt_fail(AOTFARM_ERROR_MEMORY, "cannot allocate the description of a step");
    c->vendor = vendor;
    c->session = &s->vendor;
    c->step = step;
    if (vendor->bias != RT_NONE) {
        int64_t n = vendor->conv != NULL ? vendor->conv->output[0] : 0;
        if (vendor->conv == NULL && (status = rt_extent_at(&vendor->product->n, step, dims, INT32_MAX, &n))) return status;
        uint32_t type = vendor->conv != NULL ? vendor->conv->type : vendor->product->result;
        if ((status = rt_convert_bias(s, kernel->weights[vendor->bias], n, type, &c->bias))) return status;
    }
    if ((status = vendor->conv != NULL ? rt_describe_conv(s, c, dims) : rt_describe_product(s, c, dims))) return status;
    if (c->workspace <= s->vendor.workspace_bytes) return AOTFARM_OK;
    cu.stream_synchronize(s->stream);
    for (uint32_t i = 0; i < RT_PLANS; i++)
        if (s->plans[i] != NULL) rt_drop_graph(s->plans[i]);
    if (s->vendor.workspace != 0) cu.memory_free(s->vendor.workspace);
    s->vendor.workspace = s->vendor.workspace_bytes = 0;
    if ((status = rt_alloc(s, c->workspace, "the workspace of NVIDIA's libraries", &s->vendor.workspace))) return status;
    s->vendor.workspace_bytes = c->workspace;
    return AOTFARM_OK;
}

/* ---- running ---- */

/* Puts a call on a stream; `words` are those that a kernel in its stead would get. */
static int32_t rt_vendor_run(const rt_vendor_call *c, const rt_step *step, const uint64_t *words, cu_stream stream) {
    const rt_vendor *vendor = c->vendor;
    const cu_address left = words[0], right = words[vendor->right], out = words[step->n_in + step->n_weights];
    const cu_address residual = vendor->residual != RT_NONE ? words[vendor->residual] : out;
    const float one = 1, scale = vendor->residual != RT_NONE ? 1 : 0;
    int32_t error;
    if (vendor->conv != NULL) {
        if ((error = dnn.set_stream(c->session->dnn, stream)) == 0)
            error = dnn.forward(c->session->dnn, &one, c->x, left, c->filter, right, c->operation, c->number, c->session->workspace, c->workspace, &scale,
                                c->y, residual, c->bias_shape, c->bias, c->activation, c->y, out);
        if (error != 0) rt_fail_dnn(c->step, error);
    } else {
        error = blas.matmul(c->session->blas, c->operation, &one, right, c->filter, left, c->x, &scale, residual, c->y, out, c->y, c->algorithm,
                            c->session->workspace, c->workspace, stream);
        if (error != 0) rt_fail_blas(c->step, error);
    }
    return error == 0 ? 0 : RT_LIBRARY_FAILED;
}
