/* conv_direct@1 flat=0 mr=3 nv=4 pf=0 for cpu-x86_64-v3, from cpu/conv_direct.c.j2 */
#define AOTK_SYMBOL aot_f32_conv_direct_bias_relu__flat0_mr3_nv4_pf0__x86v3_DIGEST
#define AOTK_PACK aot_f32_conv_direct_bias_relu__flat0_mr3_nv4_pf0__x86v3_DIGEST_pack
/* end of the headers */
/* Direct convolution of blocked images: an implicit matrix product. A tile is up to 3 output pixels times up to 4 vectors of
 * output channels, kept in registers while the kernel walks over input channels and taps. The halo of the input holds
 * the padding, so there is no border code.
 *
 * Packed weights: for each group of channels and panel of 4 vectors: [input block][kh][kw][BLOCK][panel's lanes]; then for every
 * fused bias, and for the mask of real channels if some lanes are padding, one value for each output lane. */
#define BLOCK 8                   /* channels that lie together */
#define GROUPS 1
#define IN_CHANNELS 32       /* of a group */
#define OUT_CHANNELS 32     /* of a group */
#define IN_BLOCKS ((IN_CHANNELS + BLOCK - 1) / BLOCK)
#define OUT_LANES ((OUT_CHANNELS + BLOCK - 1) / BLOCK * BLOCK)
#define KERNEL_H 3
#define KERNEL_W 3
#define TAPS (KERNEL_H * KERNEL_W)
#define DEPTH ((int64_t)IN_BLOCKS * TAPS * BLOCK) /* length of the dot products */
#define LANES AOTK_LANES
#define VECTORS (OUT_LANES / LANES)         /* of a group */
#define PANEL 4                      /* vectors of a panel; the last one of a group may have fewer */
#define PANELS ((VECTORS + PANEL - 1) / PANEL)

void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune);
void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune) {
    (void)tune;
    const float *raw = weight[0];
    float *to = packed;
    for (int64_t g = 0; g < GROUPS; g++)
        for (int64_t from = 0; from < OUT_LANES; from += PANEL * LANES) {
            int64_t lanes = OUT_LANES - from < PANEL * LANES ? OUT_LANES - from : PANEL * LANES;
            for (int64_t block = 0; block < IN_BLOCKS; block++)
                for (int64_t tap = 0; tap < TAPS; tap++)
                    for (int64_t i = block * BLOCK; i < (block + 1) * BLOCK; i++)
                        for (int64_t o = from; o < from + lanes; o++)
                            *to++ = i < IN_CHANNELS && o < OUT_CHANNELS
                                        ? raw[((g * OUT_CHANNELS + o) * IN_CHANNELS + i) * TAPS + tap]
                                        : 0;
        }
    for (int64_t o = 0; o < GROUPS * OUT_LANES; o++) *to++ = o < GROUPS * OUT_CHANNELS ? ((const float *)weight[1])[o] : 0;
}

#ifndef AOTK_PACK_ONLY

/* Geometry in floats. The first tap of output pixel (0, 0) is at IN_ORIGIN. */
#define OUT_H 12
#define OUT_W 12
#define IN_COLUMN (1 * BLOCK)
#define IN_ROW ((int64_t)14 * BLOCK)
#define IN_PLANE ((int64_t)196 * BLOCK)
#define IN_IMAGE (4 * IN_PLANE)
#define IN_ORIGIN ((int64_t)0 * BLOCK)
#define TAP_ROW ((int64_t)14 * BLOCK)
#define TAP_COLUMN (1 * BLOCK)
#define OUT_ROW ((int64_t)14 * BLOCK)
#define OUT_PLANE ((int64_t)196 * BLOCK)
#define OUT_IMAGE (4 * OUT_PLANE)
#define OUT_ORIGIN ((int64_t)15 * BLOCK)
/* Vector v of a pixel. */
#define VECTOR_AT(v) (((v) * LANES / BLOCK) * OUT_PLANE + (v) * LANES % BLOCK)

/* Whether a pass over some of the input blocks is the first and the last of its outputs. */
#define FIRST 1
#define LAST 2

/* What is the same for all tiles of a panel and range of input blocks. */
typedef struct place {
    const float *weights;
    const float *per_lane; /* the packed biases and mask of the panel's lanes */
    float *out;            /* the panel's first vector of image 0 */
    int64_t blocks;
    int64_t pass;
    const char *ahead, *ahead_end; /* weights to prefetch */
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
    v_store(out + (where), v_relu(v_add((value), v_load(lane + 0 * GROUPS * OUT_LANES + (j) * LANES))))

static __attribute__((noinline)) void tile_3x4(place *p, const float *x, int64_t at) {
    float *const out = p->out;
    const float *w = p->weights;
    vf c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3;
    if (p->pass & FIRST) {
c0_0 = c0_1 = c0_2 = c0_3 = c1_0 = c1_1 = c1_2 = c1_3 = c2_0 = c2_1 = c2_2 = c2_3 = v_zero();
    } else {
        c0_0 = v_load(out + at + 0 * BLOCK + VECTOR_AT(0));
        c0_1 = v_load(out + at + 0 * BLOCK + VECTOR_AT(1));
        c0_2 = v_load(out + at + 0 * BLOCK + VECTOR_AT(2));
        c0_3 = v_load(out + at + 0 * BLOCK + VECTOR_AT(3));
        c1_0 = v_load(out + at + 1 * BLOCK + VECTOR_AT(0));
        c1_1 = v_load(out + at + 1 * BLOCK + VECTOR_AT(1));
        c1_2 = v_load(out + at + 1 * BLOCK + VECTOR_AT(2));
        c1_3 = v_load(out + at + 1 * BLOCK + VECTOR_AT(3));
        c2_0 = v_load(out + at + 2 * BLOCK + VECTOR_AT(0));
        c2_1 = v_load(out + at + 2 * BLOCK + VECTOR_AT(1));
        c2_2 = v_load(out + at + 2 * BLOCK + VECTOR_AT(2));
        c2_3 = v_load(out + at + 2 * BLOCK + VECTOR_AT(3));
    }
    int64_t here = 0;
    for (int64_t block = 0; block < p->blocks; block++) {
        int64_t row = here;
        for (int64_t kh = 0; kh < KERNEL_H; kh++) {
            int64_t tap = row;
#pragma GCC unroll 1
            for (int64_t kw = 0; kw < KERNEL_W; kw++) {
                const float *x0 = x + tap;
                AOTK_UNROLL_8
                for (int k = 0; k < BLOCK; k++) {
                    FRESH(x0);
                    vf a0 = v_splat(x0[0 * IN_COLUMN + k]);
                    vf a1 = v_splat(x0[1 * IN_COLUMN + k]);
                    vf a2 = v_splat(x0[2 * IN_COLUMN + k]);
                    vf b0 = v_load(w + 0 * LANES);
                    PIN(b0);
                    c0_0 = v_fma(a0, b0, c0_0);
                    c1_0 = v_fma(a1, b0, c1_0);
                    c2_0 = v_fma(a2, b0, c2_0);
                    vf b1 = v_load(w + 1 * LANES);
                    PIN(b1);
                    c0_1 = v_fma(a0, b1, c0_1);
                    c1_1 = v_fma(a1, b1, c1_1);
                    c2_1 = v_fma(a2, b1, c2_1);
                    vf b2 = v_load(w + 2 * LANES);
                    PIN(b2);
                    c0_2 = v_fma(a0, b2, c0_2);
                    c1_2 = v_fma(a1, b2, c1_2);
                    c2_2 = v_fma(a2, b2, c2_2);
                    vf b3 = v_load(w + 3 * LANES);
                    PIN(b3);
                    c0_3 = v_fma(a0, b3, c0_3);
                    c1_3 = v_fma(a1, b3, c1_3);
                    c2_3 = v_fma(a2, b3, c2_3);
                    w += 4 * LANES;
                }
                tap += TAP_COLUMN;
            }
            row += TAP_ROW;
        }
        here += IN_PLANE;
    }
    if (p->pass & LAST) {
        const float *lane = p->per_lane;
        (void)lane;
        STORE(c0_0, at + 0 * BLOCK + VECTOR_AT(0), 0);
        STORE(c0_1, at + 0 * BLOCK + VECTOR_AT(1), 1);
        STORE(c0_2, at + 0 * BLOCK + VECTOR_AT(2), 2);
        STORE(c0_3, at + 0 * BLOCK + VECTOR_AT(3), 3);
        STORE(c1_0, at + 1 * BLOCK + VECTOR_AT(0), 0);
        STORE(c1_1, at + 1 * BLOCK + VECTOR_AT(1), 1);
        STORE(c1_2, at + 1 * BLOCK + VECTOR_AT(2), 2);
        STORE(c1_3, at + 1 * BLOCK + VECTOR_AT(3), 3);
        STORE(c2_0, at + 2 * BLOCK + VECTOR_AT(0), 0);
        STORE(c2_1, at + 2 * BLOCK + VECTOR_AT(1), 1);
        STORE(c2_2, at + 2 * BLOCK + VECTOR_AT(2), 2);
        STORE(c2_3, at + 2 * BLOCK + VECTOR_AT(3), 3);
    } else {
        v_store(out + at + 0 * BLOCK + VECTOR_AT(0), c0_0);
        v_store(out + at + 0 * BLOCK + VECTOR_AT(1), c0_1);
        v_store(out + at + 0 * BLOCK + VECTOR_AT(2), c0_2);
        v_store(out + at + 0 * BLOCK + VECTOR_AT(3), c0_3);
        v_store(out + at + 1 * BLOCK + VECTOR_AT(0), c1_0);
        v_store(out + at + 1 * BLOCK + VECTOR_AT(1), c1_1);
        v_store(out + at + 1 * BLOCK + VECTOR_AT(2), c1_2);
        v_store(out + at + 1 * BLOCK + VECTOR_AT(3), c1_3);
        v_store(out + at + 2 * BLOCK + VECTOR_AT(0), c2_0);
        v_store(out + at + 2 * BLOCK + VECTOR_AT(1), c2_1);
        v_store(out + at + 2 * BLOCK + VECTOR_AT(2), c2_2);
        v_store(out + at + 2 * BLOCK + VECTOR_AT(3), c2_3);
    }
}


typedef void tile_fn(place *, const float *, int64_t);
static tile_fn *const tiles_4[4] = { 0, 0, 0, tile_3x4,  };

/* The pixels [from, to) of one panel and range of blocks; pixels are numbered through rows of all images. */
static void pass(place *p, tile_fn *const *tiles, const float *in, int64_t from, int64_t to) {
    int64_t n = from / OUT_H, y = from % OUT_H;
    for (int64_t r = from; r < to; r++) {
        const float *x = in + n * IN_IMAGE + y * IN_ROW;
        int64_t at = n * OUT_IMAGE + y * OUT_ROW;
        for (int64_t t = 0; t < 4; t++, x += 3 * IN_COLUMN, at += 3 * BLOCK) tiles[3](p, x, at);
        if (++y == OUT_H) y = 0, n++;
    }
}

/* tune: rows of a chunk, panels of a chunk, input blocks of a pass, split. The work is cut into chunks; a thread gets a contiguous
 * share of them, in order with panels running fastest (split 0: threads share the pixels) or slowest (1: they share the channels). */
void AOTK_SYMBOL(const aotk_call *c);
void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t total = c->dim[0] * OUT_H, channels = GROUPS * PANELS;
    int64_t across = (total + c->tune[0] - 1) / c->tune[0], along = (channels + c->tune[1] - 1) / c->tune[1];
    const int64_t depth = c->tune[2], split = c->tune[3];
    /* Chunk counts that the threads divide evenly, where there is enough work. */
    if (split == 0 && across % c->threads && total >= c->threads) across += c->threads - across % c->threads;
    if (split == 1 && along % c->threads && channels >= c->threads) along += c->threads - along % c->threads;
    if (across > total) across = total;
    if (along > channels) along = channels;
    int64_t begin, end;
    aotk_share(c, across * along, &begin, &end);
    const float *packed = c->packed;
    const float *const in = (const float *)c->in[0] + IN_ORIGIN;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t i = split == 0 ? unit / along : unit % across, j = split == 0 ? unit % along : unit / across;
        int64_t from = total * i / across, to = total * (i + 1) / across;
        for (int64_t panel = channels * j / along; panel < channels * (j + 1) / along; panel++) {
            int64_t group = panel / PANELS, vector = group * VECTORS + panel % PANELS * PANEL;
            int64_t vectors = panel % PANELS == PANELS - 1 ? VECTORS - (PANELS - 1) * PANEL : PANEL;
            (void)vectors;
            const float *weights = packed + vector * LANES * DEPTH;
            place p;
            p.per_lane = packed + GROUPS * VECTORS * LANES * DEPTH + vector * LANES;
            int64_t base = OUT_ORIGIN + VECTOR_AT(vector);
            p.out = (float *)c->out[0] + base;
            for (int64_t block = 0; block < IN_BLOCKS; block += depth) {
                p.blocks = IN_BLOCKS - block < depth ? IN_BLOCKS - block : depth;
                p.weights = weights + block * TAPS * BLOCK * vectors * LANES;
                p.ahead = (const char *)(p.weights + p.blocks * TAPS * BLOCK * vectors * LANES);
                p.ahead_end = p.ahead + p.blocks * TAPS * BLOCK * vectors * LANES * 4;
                p.pass = (block == 0 ? FIRST : 0) | (block + p.blocks == IN_BLOCKS ? LAST : 0);
                const float *x = in + (group * IN_BLOCKS + block) * IN_PLANE;
                tile_fn *const *const tiles = tiles_4;
                pass(&p, tiles, x, from, to);
            }
        }
    }
}

#endif
