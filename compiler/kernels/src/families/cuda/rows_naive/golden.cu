/* cuda_rows_naive@1 for cuda-sm_90, from cuda/rows_naive.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_rows_naive__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Normalisation of rows: one thread for each row, in double. */
enum { T = 32 };

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    const int64_t row = (int64_t)blockIdx.x * T + threadIdx.x, k = ((int64_t)50);
    if (row >= AOTK_DIM(0)) return;
    const float *x = (const float *)AOTK_IN(0) + row * k;
    float *y = (float *)AOTK_OUT(0) + row * k;
#define AT(i) ((double)aotk_float(x[i]))
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < k; i++) mean += AT(i);
    mean /= (double)k;
    for (int64_t i = 0; i < k; i++) variance += (AT(i) - mean) * (AT(i) - mean);
    const double factor = 1 / sqrt(variance / (double)k + 1e-5);
    const float *scale = (const float *)AOTK_WEIGHT(0);
    const float *shift = (const float *)AOTK_WEIGHT(1);
    for (int64_t i = 0; i < k; i++)
        aotk_store(y + i, (float)((AT(i) - mean) * factor * (double)aotk_float(scale[i]) + (double)aotk_float(shift[i])));
}
