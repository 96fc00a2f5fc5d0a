/* matmul_gemm@1 mr=1 nv=8 pf=0 for cpu-x86_64-v3, from cpu/matmul_gemm.c.j2 */
#define AOTK_SYMBOL aot_f32_matmul_gemm_bias__mr1_nv8_pf0__x86v3_DIGEST
#define AOTK_PACK aot_f32_matmul_gemm_bias__mr1_nv8_pf0__x86v3_DIGEST_pack
/* end of the headers */
/* A matrix product over panels of b: [panel][k][NR], zero past column n. The micro-kernel keeps MR x NV vectors of the result in
 * registers. A unit of work is a block of rows and panels; depth is taken in blocks too, with the sums kept in the output in between.
 * tune: rows of a block, panels of a block, depth of a block. */
#define MR 1
#define NV 8
#define NR (NV * AOTK_LANES)
#define DEPTH ((int64_t)24)
#define COLUMNS ((int64_t)40)
#define PANELS ((COLUMNS + NR - 1) / NR)

/* The panels, then every bias, zero past the last column. */
void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune) {
    const float *b = (const float *)weight[0];
    float *to = (float *)packed;
    (void)tune;
    for (int64_t n0 = 0; n0 < PANELS * NR; n0 += NR)
        for (int64_t p = 0; p < DEPTH; p++)
            for (int64_t j = n0; j < n0 + NR; j++) *to++ = j < COLUMNS ? b[(j) * DEPTH + p] : 0;
    for (int64_t j = 0; j < PANELS * NR; j++) *to++ = j < COLUMNS ? ((const float *)weight[1])[j] : 0;
}

#ifndef AOTK_PACK_ONLY

void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t batch = (((int64_t)1)), m = c->dim[0], n = ((int64_t)40), k = ((int64_t)24);
    const int64_t block_rows = c->tune[0], block_panels = c->tune[1], block_depth = c->tune[2];
    const int64_t panels = (n + NR - 1) / NR;
    const int64_t row_blocks = (m + block_rows - 1) / block_rows, panel_blocks = (panels + block_panels - 1) / block_panels;
    const float *restrict const a = (const float *)c->in[0];
    float *restrict const out = (float *)c->out[0];
    const float *restrict const b = (const float *)c->packed;
    const float *restrict const bias1 = (const float *)(const float *)c->packed + PANELS * NR * (DEPTH + 0);
    int64_t unit, last_unit;
    aotk_share(c, batch * panel_blocks * row_blocks, &unit, &last_unit);
    for (; unit < last_unit; unit++) {
        const int64_t matrix = unit / (panel_blocks * row_blocks), within = unit % (panel_blocks * row_blocks);
        const int64_t row0 = within % row_blocks * block_rows, panel0 = within / row_blocks * block_panels;
        const int64_t row1 = row0 + block_rows < m ? row0 + block_rows : m;
        const int64_t panel1 = panel0 + block_panels < panels ? panel0 + block_panels : panels;
        const float *const a_matrix = a + matrix * m * k;
        for (int64_t k0 = 0; k0 < k; k0 += block_depth) {
            const int64_t depth = k - k0 < block_depth ? k - k0 : block_depth;
            const int done = k0 + depth == k;
            for (int64_t panel = panel0; panel < panel1; panel++) {
                const int64_t n0 = panel * NR;
                for (int64_t row = row0; row < row1; row += MR) {
                    const float *bp = b + ((matrix * panels + panel) * k + k0) * NR;
                    /* Rows past the end are the last one once more, and are not stored. */
                    const int64_t at0 = ((row + 0 < row1 ? row + 0 : row1 - 1) + matrix * m) * n + n0;
                    const float *const a0 = a_matrix + (row + 0 < row1 ? row + 0 : row1 - 1) * k + k0;
                    vf x0_0 = v_zero(), x0_1 = v_zero(), x0_2 = v_zero(), x0_3 = v_zero(), x0_4 = v_zero(), x0_5 = v_zero(), x0_6 = v_zero(), x0_7 = v_zero(); 
                    if (k0 > 0) {
                        if (n0 + 0 * AOTK_LANES < n) {
                            x0_0 = v_loadu(out + at0 + 0 * AOTK_LANES);
                        }
                        if (n0 + 1 * AOTK_LANES < n) {
                            x0_1 = v_loadu(out + at0 + 1 * AOTK_LANES);
                        }
                        if (n0 + 2 * AOTK_LANES < n) {
                            x0_2 = v_loadu(out + at0 + 2 * AOTK_LANES);
                        }
                        if (n0 + 3 * AOTK_LANES < n) {
                            x0_3 = v_loadu(out + at0 + 3 * AOTK_LANES);
                        }
                        if (n0 + 4 * AOTK_LANES < n) {
                            x0_4 = v_loadu(out + at0 + 4 * AOTK_LANES);
                        }
                        if (n0 + 5 * AOTK_LANES < n) {
                            x0_5 = v_loadu(out + at0 + 5 * AOTK_LANES);
                        }
                        if (n0 + 6 * AOTK_LANES < n) {
                            x0_6 = v_loadu(out + at0 + 6 * AOTK_LANES);
                        }
                        if (n0 + 7 * AOTK_LANES < n) {
                            x0_7 = v_loadu(out + at0 + 7 * AOTK_LANES);
                        }
                    }
                    for (int64_t p = 0; p < depth; p++) {
                        const vf b0 = v_load(bp + 0 * AOTK_LANES);
                        const vf b1 = v_load(bp + 1 * AOTK_LANES);
                        const vf b2 = v_load(bp + 2 * AOTK_LANES);
                        const vf b3 = v_load(bp + 3 * AOTK_LANES);
                        const vf b4 = v_load(bp + 4 * AOTK_LANES);
                        const vf b5 = v_load(bp + 5 * AOTK_LANES);
                        const vf b6 = v_load(bp + 6 * AOTK_LANES);
                        const vf b7 = v_load(bp + 7 * AOTK_LANES);
                        bp += NR;
                        {
                            const vf s = v_splat(a0[p]);
                            x0_0 += s * b0;
                            x0_1 += s * b1;
                            x0_2 += s * b2;
                            x0_3 += s * b3;
                            x0_4 += s * b4;
                            x0_5 += s * b5;
                            x0_6 += s * b6;
                            x0_7 += s * b7;
                        }
                    }
                    if (n0 + 0 * AOTK_LANES < n) {
                        const int64_t column = n0 + 0 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 0 * AOTK_LANES;
                                const vf x = x0_0;
                                (void)at;
                                x0_0 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 0 * AOTK_LANES, x0_0);
                            else v_store_part(out + at0 + 0 * AOTK_LANES, x0_0, width);
                        }
                    }
                    if (n0 + 1 * AOTK_LANES < n) {
                        const int64_t column = n0 + 1 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 1 * AOTK_LANES;
                                const vf x = x0_1;
                                (void)at;
                                x0_1 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 1 * AOTK_LANES, x0_1);
                            else v_store_part(out + at0 + 1 * AOTK_LANES, x0_1, width);
                        }
                    }
                    if (n0 + 2 * AOTK_LANES < n) {
                        const int64_t column = n0 + 2 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 2 * AOTK_LANES;
                                const vf x = x0_2;
                                (void)at;
                                x0_2 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 2 * AOTK_LANES, x0_2);
                            else v_store_part(out + at0 + 2 * AOTK_LANES, x0_2, width);
                        }
                    }
                    if (n0 + 3 * AOTK_LANES < n) {
                        const int64_t column = n0 + 3 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 3 * AOTK_LANES;
                                const vf x = x0_3;
                                (void)at;
                                x0_3 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 3 * AOTK_LANES, x0_3);
                            else v_store_part(out + at0 + 3 * AOTK_LANES, x0_3, width);
                        }
                    }
                    if (n0 + 4 * AOTK_LANES < n) {
                        const int64_t column = n0 + 4 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 4 * AOTK_LANES;
                                const vf x = x0_4;
                                (void)at;
                                x0_4 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 4 * AOTK_LANES, x0_4);
                            else v_store_part(out + at0 + 4 * AOTK_LANES, x0_4, width);
                        }
                    }
                    if (n0 + 5 * AOTK_LANES < n) {
                        const int64_t column = n0 + 5 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 5 * AOTK_LANES;
                                const vf x = x0_5;
                                (void)at;
                                x0_5 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 5 * AOTK_LANES, x0_5);
                            else v_store_part(out + at0 + 5 * AOTK_LANES, x0_5, width);
                        }
                    }
                    if (n0 + 6 * AOTK_LANES < n) {
                        const int64_t column = n0 + 6 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 6 * AOTK_LANES;
                                const vf x = x0_6;
                                (void)at;
                                x0_6 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 6 * AOTK_LANES, x0_6);
                            else v_store_part(out + at0 + 6 * AOTK_LANES, x0_6, width);
                        }
                    }
                    if (n0 + 7 * AOTK_LANES < n) {
                        const int64_t column = n0 + 7 * AOTK_LANES, width = n - column;
                        (void)column;
                        if (done) {
                            {
                                const int64_t at = at0 + 7 * AOTK_LANES;
                                const vf x = x0_7;
                                (void)at;
                                x0_7 = v_add(x, v_loadu(bias1 + column));
                            }
                        }
                        if (row + 0 < row1) {
                            if (width >= AOTK_LANES) v_storeu(out + at0 + 7 * AOTK_LANES, x0_7);
                            else v_store_part(out + at0 + 7 * AOTK_LANES, x0_7, width);
                        }
                    }
                }
            }
        }
    }
}
#endif
