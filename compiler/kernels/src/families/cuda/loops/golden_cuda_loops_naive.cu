/* cuda_loops_naive@1 for cuda-sm_90, from cuda/loops.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_loops_naive__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* A loop nest in indices of type I.
 * One thread for U elements, T apart. */
enum { T = 128, V = 1, R = 1, U = 1 };

template <typename I> AOTK_INLINE void nest(const aotk_call &call) {
    const float *const in0 = (const float *)AOTK_IN(0);
    float *const out0 = (float *)AOTK_OUT(0);
    const I total = ((I)1000);
    I at = (I)blockIdx.x * (T * U) + threadIdx.x;
#pragma unroll
    for (int u = 0; u < U; u++, at += T) {
        if (at >= total) return;
    I at_rest = at;
    const I l0 = at_rest;

        out0[l0] = s_gelu(s_add(in0[l0], 0.5f));
    }
}

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    aotk_release();
    nest<int32_t>(call);
}
