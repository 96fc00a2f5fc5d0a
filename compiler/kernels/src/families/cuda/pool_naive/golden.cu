/* cuda_pool_naive@1 for cuda-sm_90, from cuda/pool_naive.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_pool_naive__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Pooling over operands of any layout: one thread for each element, summed in double. */
enum { T = 128 };

extern "C" __global__ void __launch_bounds__(T) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    const float *in = (const float *)AOTK_IN(0);
    const int64_t channels = ((int64_t)24), in_h = ((int64_t)9), in_w = ((int64_t)9), out_h = ((int64_t)5), out_w = ((int64_t)5);
    const int64_t at = (int64_t)blockIdx.x * T + threadIdx.x;
    if (at >= AOTK_DIM(0) * channels * out_h * out_w) return;
    /* The loop that runs fastest follows the memory of the output. */
    const int64_t c = at % channels, ox = at / channels % out_w, oy = at / channels / out_w % out_h;
    const int64_t n = at / out_w / out_h / channels;
    float acc = -__int_as_float(0x7f800000);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const int64_t y = oy * 2 + i * 1 - 1;
            const int64_t x = ox * 2 + j * 1 - 1;
            if (y < 0 || y >= in_h || x < 0 || x >= in_w) continue;
            const float value = aotk_float(in[((n * ((int64_t)9) + y) * ((int64_t)9) + x) * 24 + c]);
            acc = value > acc || value != value ? value : acc;
        }
    const int64_t y = oy, x = ox;
    const float result = acc;
    aotk_store(((float *)AOTK_OUT(0)) + ((n * ((int64_t)5) + y) * ((int64_t)5) + x) * 24 + c, result);
}
