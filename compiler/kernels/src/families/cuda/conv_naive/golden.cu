/* cuda_conv_naive@1 for cuda-sm_90, from cuda/conv_naive.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_conv_naive_bias_relu__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Plain convolution for any layouts, groups, strides and dilations: one thread for each stored element, sums in double. */
#define IN0(n, c, y, x) (((((int64_t)(n) * 3 + (c)) * 20 + (y)) * 20 + (x)))
#define OUT(n, c, y, x) (((((int64_t)(n) * 10 + (y)) * 10 + (x)) * 32 + (c)))
#define RESIDUAL(n, c, y, x) (((((int64_t)(n) * 10 + (y)) * 10 + (x)) * 32 + (c)))

/* The convolution with its fused steps at one place. */
AOTK_INLINE float element(const aotk_call &call, int64_t n, int o, int y, int x_) {
    double sum = 0;
    for (int kh = 0; kh < 7; kh++) {
        const float *in = (const float *)AOTK_IN(0);
        const float *weight = (const float *)AOTK_WEIGHT(0);
        const int row = y * 2 + kh * 1 - 3;
        if (row < 0 || row >= 20) continue;
        for (int kw = 0; kw < 7; kw++) {
            const int column = x_ * 2 + kw * 1 - 3;
            if (column < 0 || column >= 20) continue;
            for (int i = 0; i < 3; i++)
                sum += (double)aotk_float(weight[((int64_t)(o * 7 + kh) * 7 + kw) * 3 + i])
                    * (double)aotk_float(in[IN0(n, o / 32 * 3 + i, row, column)]);
        }
    }
    const float x = (float)sum;
    const float bias1 = ((const float *)AOTK_WEIGHT(1))[o];
    return s_relu(s_add(x, bias1));
}

extern "C" __global__ void __launch_bounds__(128) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    aotk_wait();
    const int64_t at = (int64_t)blockIdx.x * 128 + threadIdx.x;
    const int o = at % 32, x = at / 32 % 10, y = at / 320 % 10;
    const int64_t n = at / 3200;
    if (n >= AOTK_DIM(0)) return;
    const float result = element(call, n, o, y, x);
    aotk_store(((float *)AOTK_OUT(0)) + OUT(n, o, y, x), result);
}
