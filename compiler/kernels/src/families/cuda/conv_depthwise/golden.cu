/* cuda_conv_depthwise@1 columns=1 vectors=4 for cuda-sm_90, from cuda/conv_depthwise.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_conv_depthwise_bias_relu__columns1_vectors4__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Depthwise convolution of NHWC. A thread has 1 neighbouring outputs of 16 bytes of channels and loads each input that they share once. A block has
 * 4 such vectors of channels, whose weights it keeps in shared memory. */
#define CHANNELS 32
#define ALL_VECTORS 8 /* of a pixel */
#define VECTORS 4              /* of a block */
#define PARTS ((ALL_VECTORS + VECTORS - 1) / VECTORS)
#define THREADS 128
#define IN_H 9
#define IN_W 9
#define OUT_H 9
#define OUT_W 9
#define KERNEL_H 3
#define KERNEL_W 3
#define STRIDE_H 1
#define STRIDE_W 1
#define DILATION_H 1
#define DILATION_W 1
#define PAD_TOP 1
#define PAD_LEFT 1
#define COLUMNS 1
#define GROUPS ((OUT_W + COLUMNS - 1) / COLUMNS)
#define ELEMENTS 4

typedef float element;
union vector {
    uint4 bits;
    element value[ELEMENTS];
    AOTK_INLINE vector() {}
};

extern "C" __global__ void __launch_bounds__(THREADS) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    __shared__ __align__(16) float weights[KERNEL_H * KERNEL_W][VECTORS * ELEMENTS];
    const int part = blockIdx.x % PARTS;
    for (int i = threadIdx.x; i < VECTORS * ELEMENTS * KERNEL_H * KERNEL_W; i += THREADS) {
        const int channel = i / (KERNEL_H * KERNEL_W), tap = i % (KERNEL_H * KERNEL_W), o = part * (VECTORS * ELEMENTS) + channel;
        weights[tap][channel] = o < CHANNELS ? aotk_float(((const float *)AOTK_WEIGHT(0))[o * (KERNEL_H * KERNEL_W) + tap]) : 0;
    }
    __syncthreads();
    aotk_wait();
    aotk_release();
    const int local = threadIdx.x % VECTORS, v = part * VECTORS + local;
    const int64_t work = (int64_t)(blockIdx.x / PARTS) * (THREADS / VECTORS) + threadIdx.x / VECTORS, row = work / GROUPS, n = row / OUT_H;
    const int x0 = work % GROUPS * COLUMNS, y = row % OUT_H;
    if (v >= ALL_VECTORS || n >= AOTK_DIM(0)) return;

    float acc[COLUMNS][ELEMENTS] = {};
    const uint4 *const in = (const uint4 *)AOTK_IN(0) + n * (IN_H * IN_W * ALL_VECTORS) + v;
#pragma unroll 3
    for (int i = 0; i < KERNEL_H; i++) {
        const int at = y * STRIDE_H + i * DILATION_H - PAD_TOP;
        if (at < 0 || at >= IN_H) continue;
#pragma unroll
        for (int j = 0; j <= (COLUMNS - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W; j++) {
            const int column = x0 * STRIDE_W + j - PAD_LEFT;
            vector from;
            from.bits = make_uint4(0, 0, 0, 0);
            if (column >= 0 && column < IN_W) from.bits = in[(at * IN_W + column) * ALL_VECTORS];
#pragma unroll
            for (int k = 0; k < COLUMNS; k++) {
                const int tap = j - k * STRIDE_W;
                if (tap < 0 || tap % DILATION_W || tap / DILATION_W >= KERNEL_W) continue;
#pragma unroll
                for (int e = 0; e < ELEMENTS; e++) acc[k][e] += aotk_float(from.value[e]) * weights[i * KERNEL_W + tap / DILATION_W][local * ELEMENTS + e];
            }
        }
    }

#pragma unroll
    for (int k = 0; k < COLUMNS; k++) {
        if (x0 + k >= OUT_W) break;
        const int64_t at = (row * OUT_W + x0 + k) * ALL_VECTORS + v;
        vector to;
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) {
            const float x = acc[k][e];
            const float bias1 = ((const float *)AOTK_WEIGHT(1))[v * ELEMENTS + e];
            const float result = s_relu(s_add(x, bias1));
            aotk_store(&to.value[e], result);
        }
        ((uint4 *)AOTK_OUT(0))[at] = to.bits;
    }
}
