/* cuda_rows@1 kept=2 lanes=32 threads=256 v=1 for cuda-sm_90, from cuda/rows.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_rows__kept2_lanes32_threads256_v1__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Normalisation of rows in float: L threads for each row, in groups of V neighbouring elements. Each thread keeps its groups of a row in
 * registers if they are at most P; else it reads them again for each pass. */
enum { T = 256, L = 32, V = 1, P = 2 };

/* The combined value of all threads of a row, in each of them. */
template <typename F> AOTK_INLINE float together(float x, F combine) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, half));
    return x;
}

/* The group of elements at a place. */
AOTK_INLINE void load(float (&e)[V], const aotk_call &call, int64_t at) {
    const aotk_vector<float, V> x = aotk_vector_load<V>((const float *)AOTK_IN(0) + at);
#pragma unroll
    for (int j = 0; j < V; j++) e[j] = aotk_float(x.at[j]);
}

template <bool KEPT> AOTK_INLINE void normalise(const aotk_call &call, int64_t row, int64_t k) {
    const auto add = [](float a, float b) { return a + b; };
    const int lane = threadIdx.x % L, groups = (int)(k / V);
    float *y = (float *)AOTK_OUT(0) + row * k;
    float kept[P > 0 ? P : 1][V];
#pragma unroll
    for (int p = 0; p < P; p++)
        if (KEPT && lane + p * L < groups) load(kept[p], call, row * k + (int64_t)(lane + p * L) * V);
    float sum = 0, squares = 0;
#pragma unroll(KEPT ? P : 1)
    for (int p = 0; KEPT ? p < P : lane + p * L < groups; p++) {
        const int g = lane + p * L;
        if (g >= groups) break;
        float fresh[V];
        float(&e)[V] = KEPT ? kept[p] : fresh;
        if (!KEPT) load(e, call, row * k + (int64_t)g * V);
#pragma unroll
        for (int j = 0; j < V; j++) sum += e[j];
    }
    const float mean = together(sum, add) / (float)k;
#pragma unroll(KEPT ? P : 1)
    for (int p = 0; KEPT ? p < P : lane + p * L < groups; p++) {
        const int g = lane + p * L;
        if (g >= groups) break;
        float fresh[V];
        float(&e)[V] = KEPT ? kept[p] : fresh;
        if (!KEPT) load(e, call, row * k + (int64_t)g * V);
#pragma unroll
        for (int j = 0; j < V; j++) squares += (e[j] - mean) * (e[j] - mean);
    }
    const float factor = 1.0f / sqrtf(together(squares, add) / (float)k + 1e-5f);
#pragma unroll(KEPT ? P : 1)
    for (int p = 0; KEPT ? p < P : lane + p * L < groups; p++) {
        const int g = lane + p * L;
        if (g >= groups) break;
        float fresh[V];
        float(&e)[V] = KEPT ? kept[p] : fresh;
        if (!KEPT) load(e, call, row * k + (int64_t)g * V);
        const aotk_vector<float, V> scale = aotk_vector_load<V>((const float *)AOTK_WEIGHT(0) + (int64_t)g * V);
        const aotk_vector<float, V> shift = aotk_vector_load<V>((const float *)AOTK_WEIGHT(1) + (int64_t)g * V);
        aotk_vector<float, V> r;
#pragma unroll
        for (int j = 0; j < V; j++)
            aotk_store(&r.at[j], (e[j] - mean) * factor * aotk_float(scale.at[j]) + aotk_float(shift.at[j]));
        aotk_vector_store(y + (int64_t)g * V, r);
    }
}

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    aotk_release();
    const int64_t row = (int64_t)blockIdx.x * (T / L) + threadIdx.x / L, k = ((int64_t)50);
    if (row >= AOTK_DIM(0)) return;
    if (k <= P * L * V)
        normalise<true>(call, row, k);
    else
        normalise<false>(call, row, k);
}
