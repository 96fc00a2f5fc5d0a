/* Hand-written kernels of the link tests' model for a GPU; aotk.cuh goes before them. Each unit defines one of UNIT_LINEAR_SMALL, UNIT_LINEAR_LARGE,
 * UNIT_ADD and UNIT_SPREAD. The same in C, which checks how it is called: runtime/tests/fake_cuda.c. */

#if defined(UNIT_LINEAR_SMALL) || defined(UNIT_LINEAR_LARGE)
#ifdef UNIT_LINEAR_SMALL
#define SYMBOL test_linear_small
#define MARKER 0.0f
#else
#define SYMBOL test_linear_large
#define MARKER 1000.0f
#endif
/* h[4 + 4 b + j] = sum_k x[b][k] w[k][j] + MARKER: h has a halo of 4 elements in front. */
extern "C" __global__ void __launch_bounds__(128) SYMBOL(const __grid_constant__ aotk_call call) {
    const float *x = (const float *)AOTK_IN(0), *w = (const float *)AOTK_WEIGHT(0);
    const int64_t at = (int64_t)blockIdx.x * 128 + threadIdx.x, b = at / 4, j = at % 4;
    aotk_wait();
    if (b < AOTK_DIM(0)) {
        float sum = MARKER;
        for (int k = 0; k < 3; k++) sum += x[b * 3 + k] * w[k * 4 + j];
        ((float *)AOTK_OUT(0))[4 + at] = sum;
    }
    aotk_release();
}
#endif

#ifdef UNIT_ADD
/* z = h + y + bias, and the sum of the halo, which must be zero. */
extern "C" __global__ void __launch_bounds__(128) test_add(const __grid_constant__ aotk_call call) {
    const float *h = (const float *)AOTK_IN(0), *y = (const float *)AOTK_IN(1), *bias = (const float *)AOTK_WEIGHT(0);
    const int64_t at = (int64_t)blockIdx.x * 128 + threadIdx.x;
    const float mine = bias[at % 4];
    aotk_wait();
    if (at < 4 * AOTK_DIM(0)) ((float *)AOTK_OUT(0))[at] = h[4 + at] + y[at] + mine + h[0] + h[1] + h[2] + h[3];
    aotk_release();
}
#endif

#ifdef UNIT_SPREAD
/* s[i] = i * sum(z). Each block of a cluster of two sums one half in dynamic shared memory; the halves meet through the workspace. */
extern "C" __global__ void __launch_bounds__(128) test_spread(const __grid_constant__ aotk_call call) {
    extern __shared__ float partial[];
    const float *z = (const float *)AOTK_IN(0);
    float *s = (float *)AOTK_OUT(0), *halves = (float *)AOTK_WORKSPACE + blockIdx.x / 2 * 2;
    const int64_t n = 4 * AOTK_DIM(0);
    const int half = blockIdx.x % 2;
    aotk_wait();
    float sum = 0;
    for (int64_t i = threadIdx.x * 2 + half; i < n; i += 256) sum += z[i];
    partial[threadIdx.x + 12500] = sum; /* past 48 KiB */
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 128; i++) sum += partial[i + 12500];
        halves[half] = sum;
        __threadfence();
    }
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
    const float total = ((volatile float *)halves)[0] + ((volatile float *)halves)[1];
    const int64_t from = blockIdx.x * 128 + threadIdx.x;
    for (int64_t i = from; i < AOTK_DIM(1); i += gridDim.x * 128) s[i] = (float)i * total;
    aotk_release();
}
#endif
