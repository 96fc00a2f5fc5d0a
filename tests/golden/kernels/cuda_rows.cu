/* cuda_rows@1 lanes=32 threads=256 v=2 for cuda-sm_90, from cuda/rows.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_rows__lanes32_threads256_v2__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Normalisation of rows in float: L threads for each row, in groups of V neighbouring elements.
 * Each thread keeps its P groups of a row in registers. */
enum { T = 256, L = 32, V = 2, P = 1 };

/* The combined value of all threads of a row, in each of them. */
template <typename F> AOTK_INLINE float together(float x, F combine) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, half));
    return x;
}

AOTK_INLINE void load(float (&e)[V], const float *x, int g) {
    const aotk_vector<float, V> a = aotk_vector_load<V>(x + (int64_t)g * V);
#pragma unroll
    for (int j = 0; j < V; j++) e[j] = aotk_float(a.at[j]);
}

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    aotk_release();
    const auto add = [](float a, float b) { return a + b; };
    const int64_t row = (int64_t)blockIdx.x * (T / L) + threadIdx.x / L, k = ((int64_t)50);
    if (row >= AOTK_DIM(0)) return;
    const int lane = threadIdx.x % L, groups = (int)(k / V);
    const float *x = (const float *)AOTK_IN(0) + row * k;
    float *y = (float *)AOTK_OUT(0) + row * k;
    float kept[P][V];
#pragma unroll
    for (int p = 0; p < P; p++)
        if (lane + p * L < groups) load(kept[p], x, lane + p * L);
    float sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int g = lane + p * L;
        if (g >= groups) break;
        float(&e)[V] = kept[p];

#pragma unroll
        for (int j = 0; j < V; j++) sum += e[j];
    }
    const float mean = together(sum, add) / (float)k;
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int g = lane + p * L;
        if (g >= groups) break;
        float(&e)[V] = kept[p];

#pragma unroll
        for (int j = 0; j < V; j++) squares += (e[j] - mean) * (e[j] - mean);
    }
    const float factor = 1.0f / sqrtf(together(squares, add) / (float)k + 1e-5f);
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int g = lane + p * L;
        if (g >= groups) break;
        float(&e)[V] = kept[p];

        aotk_vector<float, V> r;
        const aotk_vector<float, V> scale = aotk_vector_load<V>((const float *)AOTK_WEIGHT(0) + (int64_t)g * V);
        const aotk_vector<float, V> shift = aotk_vector_load<V>((const float *)AOTK_WEIGHT(1) + (int64_t)g * V);
#pragma unroll
        for (int j = 0; j < V; j++)
            aotk_store(&r.at[j], (e[j] - mean) * factor * aotk_float(scale.at[j]) + aotk_float(shift.at[j]));
        aotk_vector_store(y + (int64_t)g * V, r);
    }
}
