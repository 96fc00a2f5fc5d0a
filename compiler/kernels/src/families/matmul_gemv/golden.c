/* matmul_gemv@1 mr=1 nb=4 pf=128 for cpu-x86_64-v3, from cpu/matmul_gemv.c.j2 */
#define AOTK_SYMBOL aot_f32_matmul_gemv_bias__mr1_nb4_pf128__x86v3_DIGEST
#define AOTK_PACK aot_f32_matmul_gemv_bias__mr1_nb4_pf128__x86v3_DIGEST_pack
/* end of the headers */
/* A product with few rows of a and raw weights b [n][k]: bound by reading b once. A thread takes NB neighbouring rows of b at a time,
 * and MR rows of a with them. */
#define MR 1
#define NB 4

void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t m = c->dim[0], n = ((int64_t)40), k = ((int64_t)24);
    const float *restrict const a = (const float *)c->in[0];
    const float *restrict const b = (const float *)c->weight[0];
    float *restrict const out = (float *)c->out[0];
    const float *restrict const bias1 = (const float *)c->weight[1];
    const int64_t whole = k / AOTK_LANES * AOTK_LANES;
    const vi rest = v_lanes_below((int32_t)(k - whole));
    int64_t group, last;
    aotk_share(c, (n + NB - 1) / NB, &group, &last);
    for (; group < last; group++) {
        /* Rows past the end are the last one once more, and are not stored. */
        const float *const b0 = b + (group * NB + 0 < n ? group * NB + 0 : n - 1) * k;
        const float *const b1 = b + (group * NB + 1 < n ? group * NB + 1 : n - 1) * k;
        const float *const b2 = b + (group * NB + 2 < n ? group * NB + 2 : n - 1) * k;
        const float *const b3 = b + (group * NB + 3 < n ? group * NB + 3 : n - 1) * k;
        for (int64_t row = 0; row < m; row += MR) {
            const float *const a0 = a + (row + 0 < m ? row + 0 : m - 1) * k;
            vf x0_0 = v_zero(), x0_1 = v_zero(), x0_2 = v_zero(), x0_3 = v_zero(); 
            for (int64_t p = 0; p < whole; p += AOTK_LANES) {
                const vf s0 = v_loadu(a0 + p);
                {
                    const vf w = v_loadu(b0 + p);
                    AOTK_PREFETCH(b0 + p + 128);
                    x0_0 += s0 * w;
                }
                {
                    const vf w = v_loadu(b1 + p);
                    AOTK_PREFETCH(b1 + p + 128);
                    x0_1 += s0 * w;
                }
                {
                    const vf w = v_loadu(b2 + p);
                    AOTK_PREFETCH(b2 + p + 128);
                    x0_2 += s0 * w;
                }
                {
                    const vf w = v_loadu(b3 + p);
                    AOTK_PREFETCH(b3 + p + 128);
                    x0_3 += s0 * w;
                }
            }
            if (whole < k) {
                const vf s0 = v_keep(rest, v_loadu(a0 + whole));
                {
                    /* What follows the row may be anything, even NaN. */
                    const vf w = v_keep(rest, v_loadu(b0 + whole));
                    x0_0 += s0 * w;
                }
                {
                    /* What follows the row may be anything, even NaN. */
                    const vf w = v_keep(rest, v_loadu(b1 + whole));
                    x0_1 += s0 * w;
                }
                {
                    /* What follows the row may be anything, even NaN. */
                    const vf w = v_keep(rest, v_loadu(b2 + whole));
                    x0_2 += s0 * w;
                }
                {
                    /* What follows the row may be anything, even NaN. */
                    const vf w = v_keep(rest, v_loadu(b3 + whole));
                    x0_3 += s0 * w;
                }
            }
            if (row + 0 < m && group * NB + 0 < n) {
                const int64_t column = group * NB + 0, at = (row + 0) * n + column;
                const float x = v_sum(x0_0);
                (void)column;
                out[at] = s_add(x, bias1[column]);
            }
            if (row + 0 < m && group * NB + 1 < n) {
                const int64_t column = group * NB + 1, at = (row + 0) * n + column;
                const float x = v_sum(x0_1);
                (void)column;
                out[at] = s_add(x, bias1[column]);
            }
            if (row + 0 < m && group * NB + 2 < n) {
                const int64_t column = group * NB + 2, at = (row + 0) * n + column;
                const float x = v_sum(x0_2);
                (void)column;
                out[at] = s_add(x, bias1[column]);
            }
            if (row + 0 < m && group * NB + 3 < n) {
                const int64_t column = group * NB + 3, at = (row + 0) * n + column;
                const float x = v_sum(x0_3);
                (void)column;
                out[at] = s_add(x, bias1[column]);
            }
        }
    }
}
