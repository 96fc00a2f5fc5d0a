/* cuda_pool_image@1 columns=1 parts=2 for cuda-sm_90, from cuda/pool_image.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_pool_image__columns1_parts2__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Max pooling of NHWC. A thread has 1 neighbouring outputs of 16 bytes of channels and loads each input that they share once. 2
 * threads share the rows of a window. */
#define VECTORS 6     /* of a pixel */
#define IN_H 9
#define IN_W 9
#define OUT_H 5
#define OUT_W 5
#define KERNEL_H 3
#define KERNEL_W 3
#define STRIDE_H 2
#define STRIDE_W 2
#define DILATION_H 1
#define DILATION_W 1
#define PAD_TOP 1
#define PAD_LEFT 1
#define COLUMNS 1
#define PARTS 2
#define ELEMENTS 4

typedef float element;
union vector {
    uint4 bits;
    element value[ELEMENTS];
    AOTK_INLINE vector() {}
};

/* NaN stays. */
AOTK_INLINE float combine(float a, float b) { return b > a || b != b ? b : a; }
#define START (-__int_as_float(0x7f800000))

extern "C" __global__ void __launch_bounds__(128) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    aotk_release();
    const int64_t work = (int64_t)blockIdx.x * (128 / PARTS) + threadIdx.x / 32 * (32 / PARTS) + threadIdx.x % (32 / PARTS);
    const int part = threadIdx.x % 32 / (32 / PARTS);
    const int v = work % VECTORS, x0 = work / VECTORS % ((OUT_W + COLUMNS - 1) / COLUMNS) * COLUMNS;
    const int64_t row = work / (VECTORS * ((OUT_W + COLUMNS - 1) / COLUMNS)), n = row / OUT_H;
    const int y = row % OUT_H;
    const bool mine = n < AOTK_DIM(0);
    const uint4 *const in = (const uint4 *)AOTK_IN(0) + n * (IN_H * IN_W * VECTORS) + v;
    float acc[COLUMNS][ELEMENTS];
#pragma unroll
    for (int k = 0; k < COLUMNS * ELEMENTS; k++) acc[k / ELEMENTS][k % ELEMENTS] = START;
    if (mine) {
#pragma unroll
        for (int i = 0; i < KERNEL_H; i += PARTS) {
            const int at = y * STRIDE_H + (i + part) * DILATION_H - PAD_TOP;
            if (at < 0 || at >= IN_H || i + part >= KERNEL_H) continue;
#pragma unroll
            for (int j = 0; j <= (COLUMNS - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W; j++) {
                const int column = x0 * STRIDE_W + j - PAD_LEFT;
                if (column < 0 || column >= IN_W) continue;
                vector from;
                from.bits = in[(at * IN_W + column) * VECTORS];
#pragma unroll
                for (int k = 0; k < COLUMNS; k++) {
                    const int tap = j - k * STRIDE_W;
                    if (tap < 0 || tap % DILATION_W || tap / DILATION_W >= KERNEL_W) continue;
#pragma unroll
                    for (int e = 0; e < ELEMENTS; e++) acc[k][e] = combine(acc[k][e], aotk_float(from.value[e]));
                }
            }
        }
    }
#pragma unroll
    for (int mask = 32 / PARTS; mask < 32; mask *= 2)
#pragma unroll
        for (int k = 0; k < COLUMNS * ELEMENTS; k++) {
            float &a = acc[k / ELEMENTS][k % ELEMENTS];
            a = combine(a, __shfl_xor_sync(~0u, a, mask));
        }
    if (!mine || part) return;
    uint4 *const out = (uint4 *)AOTK_OUT(0) + (row * OUT_W + x0) * VECTORS + v;
#pragma unroll
    for (int k = 0; k < COLUMNS; k++) {
        if (x0 + k >= OUT_W) break;
        vector to;
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) aotk_store(&to.value[e], acc[k][e]);
        out[k * VECTORS] = to.bits;
    }
}
