/* cuda_attention_naive@1 for cuda-sm_90, from cuda/attention_naive.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_attention_naive__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Attention: a block for each row of query, in double. Every pass computes the scores anew. */
enum { T = 128 };

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    __shared__ double weights[T], parts[T / 32];
    const int64_t heads = ((int64_t)2), rows = AOTK_DIM(1), keys = AOTK_DIM(1);
    const int64_t row = blockIdx.x % rows, h = blockIdx.x / rows % heads, b = blockIdx.x / rows / heads;
    aotk_wait();
    const float *const query = (const float *)AOTK_IN(0) + ((int64_t)0) + b * AOTK_DIM(2) + h * ((int64_t)64) + row * ((int64_t)384);
    const float *const key = (const float *)AOTK_IN(1) + ((int64_t)128) + b * AOTK_DIM(2) + h * ((int64_t)64);
    const float *const value = (const float *)AOTK_IN(2) + ((int64_t)256) + b * AOTK_DIM(2) + h * ((int64_t)64);
    const double never = -(double)__int_as_float(0x7f800000);
    const auto score = [&](int64_t s) {
        double sum = 0;
        for (int e = 0; e < 64; e++) sum += (double)aotk_float(query[e * ((int64_t)1)]) * (double)aotk_float(key[s * ((int64_t)384) + e * ((int64_t)1)]);
        return sum * 0.3;
    };

    double largest = never;
    for (int64_t s = threadIdx.x; s < keys; s += T) largest = fmax(largest, score(s));
    for (int half = 16; half > 0; half /= 2) largest = fmax(largest, __shfl_xor_sync(0xffffffffu, largest, half));
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = largest;
    __syncthreads();
    for (int i = 0; i < T / 32; i++) largest = fmax(largest, parts[i]);
    /* A row that sees nothing, or only NaN. */
    if (largest == never) largest = 0;

    for (int first = 0; first < 64; first += T) {
        const int column = first + threadIdx.x;
        double mix = 0, sum = 0;
        for (int64_t from = 0; from < keys; from += T) {
            __syncthreads();
            weights[threadIdx.x] = from + threadIdx.x < keys ? exp(score(from + threadIdx.x) - largest) : 0;
            __syncthreads();
            for (int i = 0; i < T && from + i < keys; i++) {
                sum += weights[i];
                if (column < 64) mix += weights[i] * (double)aotk_float(value[(from + i) * ((int64_t)384) + column * ((int64_t)1)]);
            }
        }
        if (column < 64)
            aotk_store((float *)AOTK_OUT(0) + b * AOTK_DIM(3) + h * ((int64_t)64) + row * ((int64_t)128) + column,
                       (float)(sum == 0 ? 0 : mix / sum));
    }
}
