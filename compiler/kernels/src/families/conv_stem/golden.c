/* conv_stem@1 mr=5 nv=2 for cpu-x86_64-v3, from cpu/conv_stem.c.j2 */
#define AOTK_SYMBOL aot_f32_conv_stem_bias_relu__mr5_nv2__x86v3_DIGEST
#define AOTK_PACK aot_f32_conv_stem_bias_relu__mr5_nv2__x86v3_DIGEST_pack
/* end of the headers */
/* Convolution of a row-major input with few channels into a blocked image, as at the start of a network. A thread copies the input rows of
 * a few output rows into its scratch, with the padding around them; then a tile of up to 5 pixels times up to 2 vectors of output
 * channels is kept in registers while the kernel walks over channels and taps.
 *
 * tune: output rows of a copy.
 * Packed weights: for each panel of 2 vectors: [channel][kh][kw][panel's lanes]; then for every fused bias, and for the mask of real
 * channels if some lanes are padding, one value for each output lane. */
#define BLOCK 8                   /* output channels that lie together */
#define IN_CHANNELS 3
#define OUT_CHANNELS 32
#define OUT_LANES ((OUT_CHANNELS + BLOCK - 1) / BLOCK * BLOCK)
#define KERNEL_H 7
#define KERNEL_W 7
#define TAPS (KERNEL_H * KERNEL_W)
#define DEPTH ((int64_t)IN_CHANNELS * TAPS) /* length of the dot products */
#define LANES AOTK_LANES
#define VECTORS (OUT_LANES / LANES)
#define PANEL 2                      /* vectors of a panel; the last one may have fewer */
#define PANELS ((VECTORS + PANEL - 1) / PANEL)

void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune);
void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune) {
    (void)tune;
    const float *raw = weight[0];
    float *to = packed;
    for (int64_t from = 0; from < OUT_LANES; from += PANEL * LANES) {
        const int64_t end = from + PANEL * LANES < OUT_LANES ? from + PANEL * LANES : OUT_LANES;
        for (int64_t k = 0; k < DEPTH; k++)
            for (int64_t o = from; o < end; o++) *to++ = o < OUT_CHANNELS ? raw[o * DEPTH + k] : 0;
    }
    for (int64_t o = 0; o < OUT_LANES; o++) *to++ = o < OUT_CHANNELS ? ((const float *)weight[1])[o] : 0;
}

#ifndef AOTK_PACK_ONLY

#define IN_H 20
#define IN_W 20
/* The convolution's result. */
#define OUT_H 10
#define OUT_W 10
#define STRIDE_H 2
#define STRIDE_W 2
#define DILATION_H 1
#define DILATION_W 1
#define PAD_TOP 3
#define PAD_LEFT 3
#define SPAN_H ((KERNEL_H - 1) * DILATION_H + 1)
#define SPAN_W ((KERNEL_W - 1) * DILATION_W + 1)
/* A row of the copy: all that the taps of an output row touch. */
#define COPY_W ((OUT_W - 1) * STRIDE_W + SPAN_W)
/* The output, in floats. */
#define OUT_ROW ((int64_t)12 * BLOCK)
#define OUT_PLANE ((int64_t)144 * BLOCK)
#define OUT_IMAGE (OUT_LANES / BLOCK * OUT_PLANE)
#define OUT_ORIGIN ((int64_t)13 * BLOCK)
/* Vector v of a pixel. */
#define VECTOR_AT(v) (((v) * LANES / BLOCK) * OUT_PLANE + (v) * LANES % BLOCK)
#define PIXEL BLOCK
#define RESULT_AT(v) VECTOR_AT(v)

/* Rows [from, from + rows) of the padded image into copy[channel][row][COPY_W]. */
static void copy_rows(const float *in, float *copy, int64_t from, int64_t rows) {
    const int64_t most = COPY_W - PAD_LEFT, width = most < 0 ? 0 : IN_W < most ? IN_W : most;
    for (int64_t channel = 0; channel < IN_CHANNELS; channel++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t y = from + r - PAD_TOP;
            float *to = copy + (channel * rows + r) * COPY_W;
            int64_t x = 0;
            if (y >= 0 && y < IN_H) {
                const float *row = in + (channel * IN_H + y) * IN_W;
                for (; x < PAD_LEFT && x < COPY_W; x++) to[x] = 0;
                for (int64_t i = 0; i < width; i++) to[x + i] = row[i];
                x += width;
            }
            for (; x < COPY_W; x++) to[x] = 0;
        }
}

/* What is the same for all tiles of a panel. */
typedef struct place {
    const float *weights;
    const float *per_lane;  /* the packed biases and mask of the panel's lanes */
    float *out;             /* the panel's first vector of image 0 */
    int64_t plane;          /* floats of a channel of the copy */
} place;

/* Ends the compiler's knowledge of a pointer or vector, so that it neither merges loads across steps nor spills for it. */
#if defined(__x86_64__)
#define PIN(v) __asm__("" : "+v"(v))
#else
#define PIN(v) __asm__("" : "+w"(v))
#endif
#define FRESH(p) __asm__("" : "+r"(p))

/* The fused steps and the store of one vector. */
#define STORE(value, where, j) \
    v_store(out + (where), v_relu(v_add((value), v_load(lane + 0 * OUT_LANES + (j) * LANES))))

static __attribute__((noinline)) void tile_5x2(const place *p, const float *x, int64_t at) {
    float *const out = p->out;
    const float *w = p->weights, *lane = p->per_lane;
    (void)lane;
    vf c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1;
c0_0 = c0_1 = c1_0 = c1_1 = c2_0 = c2_1 = c3_0 = c3_1 = c4_0 = c4_1 = v_zero();
    for (int64_t channel = 0; channel < IN_CHANNELS; channel++) {
        for (int64_t kh = 0; kh < KERNEL_H; kh++) {
            const float *x0 = x + channel * p->plane + kh * (DILATION_H * COPY_W);
            AOTK_UNROLL
            for (int kw = 0; kw < KERNEL_W; kw++) {
                FRESH(x0);
                vf b0 = v_load(w + 0 * LANES);
                vf b1 = v_load(w + 1 * LANES);
                {
                    vf a = v_splat(x0[0 * STRIDE_W + kw * DILATION_W]);
                    c0_0 = v_fma(a, b0, c0_0);
                    c0_1 = v_fma(a, b1, c0_1);
                }
                {
                    vf a = v_splat(x0[1 * STRIDE_W + kw * DILATION_W]);
                    c1_0 = v_fma(a, b0, c1_0);
                    c1_1 = v_fma(a, b1, c1_1);
                }
                {
                    vf a = v_splat(x0[2 * STRIDE_W + kw * DILATION_W]);
                    c2_0 = v_fma(a, b0, c2_0);
                    c2_1 = v_fma(a, b1, c2_1);
                }
                {
                    vf a = v_splat(x0[3 * STRIDE_W + kw * DILATION_W]);
                    c3_0 = v_fma(a, b0, c3_0);
                    c3_1 = v_fma(a, b1, c3_1);
                }
                {
                    vf a = v_splat(x0[4 * STRIDE_W + kw * DILATION_W]);
                    c4_0 = v_fma(a, b0, c4_0);
                    c4_1 = v_fma(a, b1, c4_1);
                }
                w += 2 * LANES;
            }
        }
    }
    STORE(c0_0, at + 0 * PIXEL + RESULT_AT(0), 0);
    STORE(c0_1, at + 0 * PIXEL + RESULT_AT(1), 1);
    STORE(c1_0, at + 1 * PIXEL + RESULT_AT(0), 0);
    STORE(c1_1, at + 1 * PIXEL + RESULT_AT(1), 1);
    STORE(c2_0, at + 2 * PIXEL + RESULT_AT(0), 0);
    STORE(c2_1, at + 2 * PIXEL + RESULT_AT(1), 1);
    STORE(c3_0, at + 3 * PIXEL + RESULT_AT(0), 0);
    STORE(c3_1, at + 3 * PIXEL + RESULT_AT(1), 1);
    STORE(c4_0, at + 4 * PIXEL + RESULT_AT(0), 0);
    STORE(c4_1, at + 4 * PIXEL + RESULT_AT(1), 1);
}

/* Output rows of one panel of 2 vectors. */
static void rows_2(const place *p, const float *copy, int64_t at, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) {
        const float *x = copy + r * (STRIDE_H * COPY_W);
        int64_t to = at + r * OUT_ROW;
        for (int64_t t = 0; t < 2; t++, x += 5 * STRIDE_W, to += 5 * BLOCK) tile_5x2(p, x, to);
    }
}

void AOTK_SYMBOL(const aotk_call *c);
void AOTK_SYMBOL(const aotk_call *c) {
    int64_t begin, end;
    aotk_share(c, c->dim[0] * OUT_H, &begin, &end);
    float *const copy = c->scratch;
    const float *const packed = c->packed;
    while (begin < end) {
        const int64_t n = begin / OUT_H, y = begin % OUT_H;
        int64_t rows = OUT_H - y < end - begin ? OUT_H - y : end - begin;
        if (rows > c->tune[0]) rows = c->tune[0];
        const int64_t copied = (rows - 1) * STRIDE_H + SPAN_H;
        copy_rows((const float *)c->in[0] + n * ((int64_t)IN_CHANNELS * IN_H * IN_W), copy, y * STRIDE_H, copied);
        for (int64_t panel = 0; panel < PANELS; panel++) {
            const int64_t vector = panel * PANEL, base = VECTOR_AT(vector);
            place p = { .weights = packed + vector * LANES * DEPTH, .per_lane = packed + OUT_LANES * DEPTH + vector * LANES, .out = (float *)c->out[0] + base, .plane = copied * COPY_W };
            const int64_t at = OUT_ORIGIN + n * OUT_IMAGE + y * OUT_ROW;
            rows_2(&p, copy, at, rows);
        }
        begin += rows;
    }
}

#endif
