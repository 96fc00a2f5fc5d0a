/* rows_naive@1 for cpu-x86_64-v3, from cpu/rows_naive.c.j2 */
#define AOTK_SYMBOL aot_f32_rows_naive__x86v3_DIGEST
#define AOTK_PACK aot_f32_rows_naive__x86v3_DIGEST_pack
/* end of the headers */
/* Normalisation of rows, one element at a time, in double. */
void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t k = ((int64_t)50);
    const float *const in0 = (const float *)c->in[0];
    float *const out0 = (float *)c->out[0];
    const float *const scale = (const float *)c->weight[0];
    const float *const shift = (const float *)c->weight[1];
    int64_t row, last;
    aotk_share(c, (((int64_t)1) * c->dim[0]), &row, &last);
    for (; row < last; row++) {
        const float *const x = in0 + row * k;
        float *const y = out0 + row * k;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < k; i++) mean += (double)x[i];
        mean /= (double)k;
        for (int64_t i = 0; i < k; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean);
        const double factor = 1 / __builtin_sqrt(variance / (double)k + 1e-5);
        for (int64_t i = 0; i < k; i++)
            y[i] = (float)(((double)x[i] - mean) * factor * (double)scale[i] + (double)shift[i]);
    }
}
