/* pool_image@1 for cpu-x86_64-v3, from cpu/pool_image.c.j2 */
#define AOTK_SYMBOL aot_f32_pool_image__x86v3_DIGEST
#define AOTK_PACK aot_f32_pool_image__x86v3_DIGEST_pack
/* end of the headers */
/* Pooling from image to image, a block of channels at a time. Windows are cut at the borders of the picture: padding is not read. */
#define KH 3
#define KW 3
#define IN_H ((int64_t)9)
#define IN_W ((int64_t)9)
#define OUT_H ((int64_t)5)
#define OUT_W ((int64_t)5)
#define IN_ROW ((IN_W + 3) * AOTK_LANES)
#define IN_PLANE ((IN_H + 3) * (int64_t)IN_ROW)
#define OUT_ROW ((OUT_W + 2) * AOTK_LANES)
#define OUT_PLANE ((OUT_H + 2) * (int64_t)OUT_ROW)

/* The steps [*from, *to) of a window that lie inside [0, size), for the one that starts at `start`. */
AOTK_INLINE void cut(int64_t start, int64_t steps, int64_t dilation, int64_t size, int64_t *from, int64_t *to) {
    const int64_t fit = (size - start + dilation - 1) / dilation;
    *from = start < 0 ? (-start + dilation - 1) / dilation : 0;
    *to = fit < steps ? fit : steps;
}

/* The window of rows [i0, i1) and columns [j0, j1); always inlined, so that constant bounds are loops that unroll. */
AOTK_INLINE vf window(const float *x, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    vf acc = v_splat(-__builtin_inff());
    for (int64_t i = i0; i < i1; i++)
        for (int64_t j = j0; j < j1; j++) {
            const vf v = v_load(x + i * 1 * IN_ROW + j * 1 * AOTK_LANES);
            /* NaN stays: the second operand wins, unless the first is NaN already. */
            acc = v_select_bits((vi)(acc != acc), acc, v_max(acc, v));
        }
    return acc;
}

void AOTK_SYMBOL(const aotk_call *c) {
    const float *restrict const in0 = (const float *)c->in[0];
    float *restrict const out0 = (float *)c->out[0];
    int64_t unit, last;
    aotk_share(c, c->dim[0] * 3 * OUT_H, &unit, &last);
    for (; unit < last; unit++) {
        const int64_t plane = unit / OUT_H, oy = unit % OUT_H;
        const int64_t y0 = oy * 2 - 1;
        const float *const x = in0 + plane * IN_PLANE + 1 * IN_ROW + 0 * AOTK_LANES + y0 * IN_ROW;
        float *const y = out0 + plane * OUT_PLANE + (1 + oy) * OUT_ROW + 1 * AOTK_LANES;
        int64_t i0, i1;
        cut(y0, KH, 1, IN_H, &i0, &i1);
        for (int64_t ox = 0; ox < OUT_W; ox++) {
            const int64_t x0 = ox * 2 - 1;
            int64_t j0, j1;
            cut(x0, KW, 1, IN_W, &j0, &j1);
            const float *const from = x + x0 * AOTK_LANES;
            const int whole = i0 == 0 && i1 == KH && j0 == 0 && j1 == KW;
            const vf acc = whole ? window(from, 0, KH, 0, KW) : window(from, i0, i1, j0, j1);
            v_store(y + ox * AOTK_LANES, acc);
        }
    }
}
