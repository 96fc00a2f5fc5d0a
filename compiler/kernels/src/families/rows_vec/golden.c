/* rows_vec@1 u=2 for cpu-x86_64-v3, from cpu/rows_vec.c.j2 */
#define AOTK_SYMBOL aot_f32_rows_vec__u2__x86v3_DIGEST
#define AOTK_PACK aot_f32_rows_vec__u2__x86v3_DIGEST_pack
/* end of the headers */
/* Normalisation of rows in vectors: U of them side by side in the sums, then one by one, then the rest of the row. */
enum { L = AOTK_LANES, U = 2 };

AOTK_INLINE float total(const vf acc[U]) {
    vf sum = acc[0];
    AOTK_UNROLL
    for (int u = 1; u < U; u++) sum += acc[u];
    return v_sum(sum);
}

void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t k = ((int64_t)50);
    const float *const in0 = (const float *)c->in[0];
    float *const out0 = (float *)c->out[0];
    const float *const scale = (const float *)c->weight[0];
    const float *const shift = (const float *)c->weight[1];
    const int64_t unrolled = k / (U * L) * (U * L), whole = k / L * L, rest = k - whole;
    const vi inside = v_lanes_below((int32_t)rest);
    int64_t row, last;
    aotk_share(c, (((int64_t)1) * c->dim[0]), &row, &last);
    for (; row < last; row++) {
        const float *const x = in0 + row * k;
        float *const y = out0 + row * k;
        vf acc[U];
        int64_t i;
        AOTK_UNROLL
        for (int u = 0; u < U; u++) acc[u] = v_zero();
        for (i = 0; i < unrolled; i += U * L)
            AOTK_UNROLL
            for (int u = 0; u < U; u++) acc[u] += v_loadu(x + i + u * L);
        for (; i < whole; i += L) acc[0] += v_loadu(x + i);
        if (rest > 0) acc[0] += v_keep(inside, v_loadu(x + whole));
        const vf mean = v_splat(total(acc) / (float)k);

        AOTK_UNROLL
        for (int u = 0; u < U; u++) acc[u] = v_zero();
        for (i = 0; i < unrolled; i += U * L)
            AOTK_UNROLL
            for (int u = 0; u < U; u++) {
                const vf d = v_loadu(x + i + u * L) - mean;
                acc[u] += d * d;
            }
        for (; i < whole; i += L) {
            const vf d = v_loadu(x + i) - mean;
            acc[0] += d * d;
        }
        if (rest > 0) {
            const vf d = v_keep(inside, v_loadu(x + whole) - mean);
            acc[0] += d * d;
        }
        const vf factor = v_splat(1.0f / __builtin_sqrtf(total(acc) / (float)k + 1e-5f));
        for (i = 0; i < whole; i += L)
            v_storeu(y + i, (v_loadu(x + i) - mean) * factor * v_loadu(scale + i) + v_loadu(shift + i));
        if (rest > 0)
            v_store_part(y + i, (v_loadu(x + i) - mean) * factor * v_loadu(scale + i) + v_loadu(shift + i), rest);
    }
}
