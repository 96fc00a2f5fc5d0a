/* cuda_matmul_naive@1 for cuda-sm_90, from cuda/matmul_naive.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_matmul_naive_bias__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* A matrix product: one thread for each element, summed in double. */
enum { T = 128 };

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    const int64_t batch = 1, m = AOTK_DIM(0), n = ((int64_t)40), k = ((int64_t)24);
    const int64_t at = (int64_t)blockIdx.x * T + threadIdx.x;
    if (at >= batch * m * n) return;
    const int64_t row = at / n, column = at % n;
    const float *a = (const float *)AOTK_IN(0) + row * k;
    const float *b = (const float *)AOTK_WEIGHT(0) + row / m * k * n;
    double sum = 0;
    for (int64_t p = 0; p < k; p++)
        sum += (double)aotk_float(a[p]) * (double)aotk_float(b[column * k + p]);
    const float x = (float)sum;
    const float bias1 = ((const float *)AOTK_WEIGHT(1))[column];
    aotk_store(((float *)AOTK_OUT(0)) + at, s_add(x, bias1));
}
