/* matmul_naive@1 for cpu-x86_64-v3, from cpu/matmul_naive.c.j2 */
#define AOTK_SYMBOL aot_f32_matmul_naive_bias__x86v3_DIGEST
#define AOTK_PACK aot_f32_matmul_naive_bias__x86v3_DIGEST_pack
/* end of the headers */
/* A matrix product, sixteen neighbouring columns at a time, summed in double. */
enum { W = 16 };

void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t batch = (((int64_t)1)), m = c->dim[0], n = ((int64_t)40), k = ((int64_t)24);
    const float *restrict const a = (const float *)c->in[0];
    const float *restrict const b = (const float *)c->weight[0];
    float *restrict const out = (float *)c->out[0];
    const float *restrict const bias1 = (const float *)c->weight[1];
    const int64_t groups = (n + W - 1) / W;
    int64_t unit, last;
    aotk_share(c, batch * m * groups, &unit, &last);
    for (; unit < last; unit++) {
        const int64_t row = unit / groups, n0 = unit % groups * W, width = n - n0 < W ? n - n0 : W;
        const float *const a_row = a + row * k;
        const float *const b_matrix = b + row / m * k * n;
        double sum[W] = {0};
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < width; j++)
                sum[j] += (double)a_row[p] * (double)b_matrix[(n0 + j) * k + p];
        for (int64_t j = 0; j < width; j++) {
            const int64_t column = n0 + j, at = row * n + column;
            const float x = (float)sum[j];
            (void)column;
            out[at] = s_add(x, bias1[column]);
        }
    }
}
