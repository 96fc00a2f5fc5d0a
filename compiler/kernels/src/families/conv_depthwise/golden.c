/* conv_depthwise@1 mr=5 for cpu-x86_64-v3, from cpu/conv_depthwise.c.j2 */
#define AOTK_SYMBOL aot_f32_conv_depthwise_bias_relu__mr5__x86v3_DIGEST
#define AOTK_PACK aot_f32_conv_depthwise_bias_relu__mr5__x86v3_DIGEST_pack
/* end of the headers */
/* Depthwise convolution of blocked images: every channel has its own taps. A tile is up to 5 pixels of an output row times one
 * vector of channels. The halo of the input holds the padding.
 *
 * Packed weights: [vector][tap][LANES]; then for each fused bias, and for the mask of real channels if some lanes are padding, one
 * value for each lane. */
#define BLOCK 8
#define CHANNELS 32
#define ALL_LANES ((CHANNELS + BLOCK - 1) / BLOCK * BLOCK)
#define KERNEL_H 3
#define KERNEL_W 3
#define TAPS (KERNEL_H * KERNEL_W)
#define LANES AOTK_LANES
#define VECTORS (ALL_LANES / LANES)

void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune);
void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune) {
    (void)tune;
    const float *raw = weight[0];
    float *to = packed;
    for (int64_t v = 0; v < VECTORS; v++)
        for (int64_t tap = 0; tap < TAPS; tap++)
            for (int64_t channel = v * LANES; channel < (v + 1) * LANES; channel++)
                *to++ = channel < CHANNELS ? raw[channel * TAPS + tap] : 0;
    for (int64_t channel = 0; channel < ALL_LANES; channel++) *to++ = channel < CHANNELS ? ((const float *)weight[1])[channel] : 0;
}

#ifndef AOTK_PACK_ONLY

/* Geometry in floats. The first tap of output pixel (0, 0) is at IN_ORIGIN. */
#define OUT_H 9
#define IN_COLUMN (1 * BLOCK)
#define IN_ROW ((int64_t)11 * BLOCK)
#define IN_PLANE ((int64_t)121 * BLOCK)
#define IN_ORIGIN ((int64_t)0 * BLOCK)
#define TAP_ROW ((int64_t)11 * BLOCK)
#define TAP_COLUMN (1 * BLOCK)
#define OUT_ROW ((int64_t)11 * BLOCK)
#define OUT_PLANE ((int64_t)121 * BLOCK)
#define OUT_ORIGIN ((int64_t)12 * BLOCK)

/* The fused steps and the store of one vector. */
#define STORE(value, where) \
    v_store(out + (where), v_relu(v_add((value), v_load(lane + 0 * ALL_LANES))))

AOTK_INLINE void tile_5(const aotk_call *c, const float *x, const float *w, const float *lane, int64_t at) {
    float *const out = c->out[0];
    (void)lane;
    vf s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero(), s4 = v_zero();
    AOTK_UNROLL
    for (int kh = 0; kh < KERNEL_H; kh++) {
        const float *row = x + kh * TAP_ROW;
        AOTK_UNROLL
        for (int kw = 0; kw < KERNEL_W; kw++) {
            vf tap = v_load(w + (kh * KERNEL_W + kw) * LANES);
            s0 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 0 * IN_COLUMN), s0);
            s1 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 1 * IN_COLUMN), s1);
            s2 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 2 * IN_COLUMN), s2);
            s3 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 3 * IN_COLUMN), s3);
            s4 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 4 * IN_COLUMN), s4);
        }
    }
    STORE(s0, at + 0 * BLOCK);
    STORE(s1, at + 1 * BLOCK);
    STORE(s2, at + 2 * BLOCK);
    STORE(s3, at + 3 * BLOCK);
    STORE(s4, at + 4 * BLOCK);
}

AOTK_INLINE void tile_4(const aotk_call *c, const float *x, const float *w, const float *lane, int64_t at) {
    float *const out = c->out[0];
    (void)lane;
    vf s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
    AOTK_UNROLL
    for (int kh = 0; kh < KERNEL_H; kh++) {
        const float *row = x + kh * TAP_ROW;
        AOTK_UNROLL
        for (int kw = 0; kw < KERNEL_W; kw++) {
            vf tap = v_load(w + (kh * KERNEL_W + kw) * LANES);
            s0 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 0 * IN_COLUMN), s0);
            s1 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 1 * IN_COLUMN), s1);
            s2 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 2 * IN_COLUMN), s2);
            s3 = v_fma(tap, v_load(row + kw * TAP_COLUMN + 3 * IN_COLUMN), s3);
        }
    }
    STORE(s0, at + 0 * BLOCK);
    STORE(s1, at + 1 * BLOCK);
    STORE(s2, at + 2 * BLOCK);
    STORE(s3, at + 3 * BLOCK);
}

void AOTK_SYMBOL(const aotk_call *c);
void AOTK_SYMBOL(const aotk_call *c) {
    int64_t begin, end;
    aotk_share(c, c->dim[0] * VECTORS * OUT_H, &begin, &end);
    const float *const packed = c->packed;
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t image_vector = unit / OUT_H, y = unit % OUT_H, v = image_vector % VECTORS;
        /* Blocks of all images follow one another; so do the vectors of a block's pixels. */
        const int64_t block = image_vector * LANES / BLOCK, part = image_vector * LANES % BLOCK;
        const float *x = (const float *)c->in[0] + IN_ORIGIN + block * IN_PLANE + y * IN_ROW + part;
        const float *w = packed + v * (TAPS * LANES), *lane = packed + VECTORS * (TAPS * LANES) + v * LANES;
        int64_t at = OUT_ORIGIN + block * OUT_PLANE + y * OUT_ROW + part;
        for (int64_t t = 0; t < 1; t++, x += 5 * IN_COLUMN, at += 5 * BLOCK) tile_5(c, x, w, lane, at);
        for (int64_t t = 0; t < 1; t++, x += 4 * IN_COLUMN, at += 4 * BLOCK) tile_4(c, x, w, lane, at);
    }
}

#endif
