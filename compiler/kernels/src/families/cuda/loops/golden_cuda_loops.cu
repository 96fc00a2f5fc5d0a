/* cuda_loops@1 threads=256 v=2 for cuda-sm_90, from cuda/loops.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_loops__threads256_v2__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* A loop nest in indices of type I.
 * One thread for V neighbouring elements. */
enum { T = 256, V = 2, R = 1, U = 1 };

template <typename I> AOTK_INLINE void nest(const aotk_call &call) {
    const float *const in0 = (const float *)AOTK_IN(0);
    float *const out0 = (float *)AOTK_OUT(0);
    const I total = ((I)500);
    const I at = (I)blockIdx.x * T + threadIdx.x;
    if (at >= total) return;
    I at_rest = at;
    const I l0 = at_rest;

    const I first = l0 * V;
    aotk_vector<float, V> y;
    {
        const I l0 = first;
        const aotk_vector<float, V> x0 = aotk_vector_load<V>(in0 + l0);
#pragma unroll
        for (int j = 0; j < V; j++) {
            const I l0 = first + j;
            y.at[j] = s_gelu(s_add(x0.at[j], 0.5f));
        }
        aotk_vector_store(out0 + l0, y);
    }
}

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    aotk_release();
    nest<int32_t>(call);
}
