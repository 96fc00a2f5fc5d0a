/* conv_winograd@1 mr=3 nv=4 out=4 pf=0 for cpu-x86_64-v3, from cpu/conv_winograd.c.j2 */
#define AOTK_SYMBOL aot_f32_conv_winograd_bias_relu__mr3_nv4_out4_pf0__x86v3_DIGEST
#define AOTK_PACK aot_f32_conv_winograd_bias_relu__mr3_nv4_out4_pf0__x86v3_DIGEST_pack
/* end of the headers */
/* Winograd convolution, 3x3, of blocked images. A tile of 6x6 inputs gives 4x4 outputs: both are transformed along rows and
 * columns, and for each of the 36 positions the channels are summed by a matrix product. Work goes in chunks of tiles: transform
 * the inputs of a chunk into V; then for one group of output channels after the other multiply into M and transform M,
 * while it is in L2, into outputs.
 *
 * Stride 1: F(2,3) with points 0, ±1, ∞, and F(4,3) with points 0, ±3/4, ±3/2, ∞, which has half the rounding error of 0, ±1, ±2.
 * Stride 2: the even and the odd inputs are separate phases. Taps 0 and 2 meet the even ones as F(n,2), tap 1 the odd ones plainly.
 *
 * tune: tiles of a chunk, panels of a group, input blocks of a pass, split (0: threads share the tiles; 1: the channels).
 * Packed weights: [panel][position][input channel][panel's lanes], whatever the run-time integers; then for each fused bias, and
 * for the mask of real channels if some lanes are padding, one value for each output lane. */
#define BLOCK 8
#define IN_CHANNELS 32
#define OUT_CHANNELS 32
#define IN_BLOCKS ((IN_CHANNELS + BLOCK - 1) / BLOCK)
#define IN_LANES (IN_BLOCKS * BLOCK)
#define OUT_LANES ((OUT_CHANNELS + BLOCK - 1) / BLOCK * BLOCK)
#define LANES AOTK_LANES
#define NV 4                    /* vectors of a panel */
#define NR (NV * LANES)
#define PANELS (OUT_LANES / NR)
#define POINTS_H 6
#define POINTS_W 6
#define POINTS (POINTS_H * POINTS_W)

/* Packing goes by four output channels, in vectors that any CPU has. */
#define PACK_LANES 4
typedef double pack_vd __attribute__((vector_size(8 * PACK_LANES)));
typedef float pack_vf __attribute__((vector_size(4 * PACK_LANES)));

/* The transform of three taps g[0], g[step], g[2 step]. */
AOTK_INLINE void weight_h(const pack_vd *g, int64_t step, pack_vd *u) {
    const pack_vd a = g[0], b = g[step], c = g[2 * step];
    const double p = 0.75, q = 1.5, d = p * p * p * p, by0 = 1 / (4 * d), by1 = -1 / (6 * d), by2 = 1 / (24 * d);
    u[0] = a * by0;
    u[1] = (a + p * b + p * p * c) * by1, u[2] = (a - p * b + p * p * c) * by1;
    u[3] = (a + q * b + q * q * c) * by2, u[4] = (a - q * b + q * q * c) * by2;
    u[5] = c;
}

/* The transform of three taps g[0], g[step], g[2 step]. */
AOTK_INLINE void weight_w(const pack_vd *g, int64_t step, pack_vd *u) {
    const pack_vd a = g[0], b = g[step], c = g[2 * step];
    const double p = 0.75, q = 1.5, d = p * p * p * p, by0 = 1 / (4 * d), by1 = -1 / (6 * d), by2 = 1 / (24 * d);
    u[0] = a * by0;
    u[1] = (a + p * b + p * p * c) * by1, u[2] = (a - p * b + p * p * c) * by1;
    u[3] = (a + q * b + q * q * c) * by2, u[4] = (a - q * b + q * q * c) * by2;
    u[5] = c;
}

void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune);
void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune) {
    (void)tune;
    static const float none[9];
    float *to = packed;
    for (int64_t panel = 0; panel < PANELS; panel++, to += POINTS * IN_LANES * NR)
        for (int64_t i = 0; i < IN_LANES; i++)
            for (int64_t o = 0; o < NR; o += PACK_LANES) {
                const float *raw[PACK_LANES];
                pack_vd g[9], t[POINTS_H * 3], u[POINTS];
                for (int64_t lane = 0; lane < PACK_LANES; lane++) {
                    const int64_t channel = panel * NR + o + lane;
                    const int real = i < IN_CHANNELS && channel < OUT_CHANNELS;
                    raw[lane] = real ? (const float *)weight[0] + (channel * IN_CHANNELS + i) * 9 : none;
                }
                AOTK_UNROLL
                for (int64_t k = 0; k < 9; k++) g[k] = (pack_vd){raw[0][k], raw[1][k], raw[2][k], raw[3][k]};
                AOTK_UNROLL
                for (int64_t x = 0; x < 3; x++) {
                    pack_vd column[POINTS_H];
                    weight_h(g + x, 3, column);
                    AOTK_UNROLL
                    for (int64_t y = 0; y < POINTS_H; y++) t[y * 3 + x] = column[y];
                }
                AOTK_UNROLL
                for (int64_t y = 0; y < POINTS_H; y++) weight_w(t + y * 3, 1, u + y * POINTS_W);
                for (int64_t p = 0; p < POINTS; p++)
                    *(pack_vf *)(void *)(to + (p * IN_LANES + i) * NR + o) = __builtin_convertvector(u[p], pack_vf);
            }
    for (int64_t o = 0; o < OUT_LANES; o++) *to++ = o < OUT_CHANNELS ? ((const float *)weight[1])[o] : 0;
}

#ifndef AOTK_PACK_ONLY

/* Geometry in floats. IN_ORIGIN is the first tap of output (0, 0). */
#define OUT_H 12
#define OUT_W 12
#define TILES_H ((OUT_H + 3) / 4)
#define TILES_W ((OUT_W + 3) / 4)
#define IN_ROW ((int64_t)14 * BLOCK)
#define IN_PLANE ((int64_t)196 * BLOCK)
#define IN_IMAGE (IN_BLOCKS * IN_PLANE)
#define IN_ORIGIN ((int64_t)0 * BLOCK)
#define OUT_ROW ((int64_t)14 * BLOCK)
#define OUT_PLANE ((int64_t)196 * BLOCK)
#define OUT_IMAGE (OUT_LANES / BLOCK * OUT_PLANE)
#define OUT_ORIGIN ((int64_t)15 * BLOCK)
/* Positions of V and M are a little more than a power of two apart, so that they do not compete for the same cache sets. */
#define SKEW 16

/* Where a tile begins, and how many of its outputs exist. */
typedef struct tile {
    int64_t in, out;
    int32_t rows, columns;
} tile;

AOTK_INLINE void input_h(const vf *d, vf *r) {
    const float p = 0.75f, q = 0.5625f; /* q = p^2 */
    vf even1 = v_fma(v_splat(-4 * q), d[2], d[4]), odd1 = v_fma(v_splat(-4 * q), d[1], d[3]);
    vf even2 = v_fma(v_splat(-q), d[2], d[4]), odd2 = v_fma(v_splat(-q), d[1], d[3]);
    r[0] = v_fma(v_splat(4 * q * q), d[0], v_fma(v_splat(-5 * q), d[2], d[4]));
    r[1] = v_fma(v_splat(p), odd1, even1), r[2] = v_fma(v_splat(-p), odd1, even1);
    r[3] = v_fma(v_splat(2 * p), odd2, even2), r[4] = v_fma(v_splat(-2 * p), odd2, even2);
    r[5] = v_fma(v_splat(4 * q * q), d[1], v_fma(v_splat(-5 * q), d[3], d[5]));
}

AOTK_INLINE void input_w(const vf *d, vf *r) {
    const float p = 0.75f, q = 0.5625f; /* q = p^2 */
    vf even1 = v_fma(v_splat(-4 * q), d[2], d[4]), odd1 = v_fma(v_splat(-4 * q), d[1], d[3]);
    vf even2 = v_fma(v_splat(-q), d[2], d[4]), odd2 = v_fma(v_splat(-q), d[1], d[3]);
    r[0] = v_fma(v_splat(4 * q * q), d[0], v_fma(v_splat(-5 * q), d[2], d[4]));
    r[1] = v_fma(v_splat(p), odd1, even1), r[2] = v_fma(v_splat(-p), odd1, even1);
    r[3] = v_fma(v_splat(2 * p), odd2, even2), r[4] = v_fma(v_splat(-2 * p), odd2, even2);
    r[5] = v_fma(v_splat(4 * q * q), d[1], v_fma(v_splat(-5 * q), d[3], d[5]));
}

AOTK_INLINE void output_h(const vf *m, vf *y) {
    const float p = 0.75f, q = 0.5625f;
    vf s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = v_fma(v_splat(2 * p), d2, v_splat(p) * d1);
    y[2] = v_fma(v_splat(4 * q), s2, v_splat(q) * s1);
    y[3] = v_fma(v_splat(8 * p * q), d2, v_fma(v_splat(p * q), d1, m[5]));
}

AOTK_INLINE void output_w(const vf *m, vf *y) {
    const float p = 0.75f, q = 0.5625f;
    vf s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = v_fma(v_splat(2 * p), d2, v_splat(p) * d1);
    y[2] = v_fma(v_splat(4 * q), s2, v_splat(q) * s1);
    y[3] = v_fma(v_splat(8 * p * q), d2, v_fma(v_splat(p * q), d1, m[5]));
}

/* Input blocks [from, to) of a chunk: V[position][block][tile][BLOCK]. `wide` is the distance of blocks, `apart` of positions. */
static void transform_inputs(const float *in, float *v, const tile *tiles, int64_t count, int64_t from, int64_t to, int64_t wide, int64_t apart) {
    for (int64_t block = from; block < to; block++)
        for (int64_t t = 0; t < count; t++)
            for (int64_t lane = 0; lane < BLOCK; lane += LANES) {
                const float *x = in + tiles[t].in + block * IN_PLANE + lane;
                float *store = v + block * wide + t * BLOCK + lane;
                vf half[POINTS_H][POINTS_W];
                AOTK_UNROLL
                for (int i = 0; i < POINTS_W; i++) {
                    vf column[POINTS_H], done[POINTS_H];
                    AOTK_UNROLL
                    for (int j = 0; j < POINTS_H; j++) column[j] = v_load(x + j * IN_ROW + i * BLOCK);
                    input_h(column, done);
                    AOTK_UNROLL
                    for (int j = 0; j < POINTS_H; j++) half[j][i] = done[j];
                }
                AOTK_UNROLL
                for (int j = 0; j < POINTS_H; j++) {
                    vf done[POINTS_W];
                    input_w(half[j], done);
                    AOTK_UNROLL
                    for (int i = 0; i < POINTS_W; i++) v_store(store + (j * POINTS_W + i) * apart, done[i]);
                }
            }
}

/* The fused steps and the store of one vector. */
#define STORE(value, where) \
    v_store(out + (where), v_relu(v_add((value), v_load(lane + 0 * OUT_LANES))))

/* All vectors of a group: M[position][vector][tile][LANES] → outputs. */
static void transform_outputs(const aotk_call *c, const float *m, const float *per_lane, const tile *tiles, int64_t count, int64_t first, int64_t vectors, int64_t wide, int64_t apart) {
    float *const out = c->out[0];
    for (int64_t v = 0; v < vectors; v++) {
        const float *lane = per_lane + v * LANES;
        (void)lane;
        const int64_t base = (first + v) * LANES / BLOCK * OUT_PLANE + (first + v) * LANES % BLOCK;
        for (int64_t t = 0; t < count; t++) {
            const float *from = m + v * wide + t * LANES;
            const int64_t at = base + tiles[t].out;
            const int rows = tiles[t].rows, columns = tiles[t].columns;
            vf half[4][POINTS_W];
            AOTK_UNROLL
            for (int i = 0; i < POINTS_W; i++) {
                vf column[POINTS_H], done[4];
                AOTK_UNROLL
                for (int j = 0; j < POINTS_H; j++) column[j] = v_load(from + (j * POINTS_W + i) * apart);
                output_h(column, done);
                AOTK_UNROLL
                for (int j = 0; j < 4; j++) half[j][i] = done[j];
            }
            if (rows == 4 && columns == 4) {
                AOTK_UNROLL
                for (int j = 0; j < 4; j++) {
                    vf done[4];
                    output_w(half[j], done);
                    AOTK_UNROLL
                    for (int i = 0; i < 4; i++) STORE(done[i], at + j * OUT_ROW + i * BLOCK);
                }
            } else {
                vf all[16];
                AOTK_UNROLL
                for (int j = 0; j < 4; j++) output_w(half[j], all + j * 4);
                for (int j = 0; j < rows; j++)
                    for (int i = 0; i < columns; i++) STORE(all[j * 4 + i], at + j * OUT_ROW + i * BLOCK);
            }
        }
    }
}

/* Ends the compiler's knowledge of a pointer or vector, so that it neither merges loads across steps nor spills for it. */
#if defined(__x86_64__)
#define PIN(v) __asm__("" : "+v"(v))
#else
#define PIN(v) __asm__("" : "+w"(v))
#endif
#define FRESH(p) __asm__("" : "+r"(p))

/* 2 tiles times a panel, over `blocks` input blocks that are `deep` apart; adds to M when `more`. */
static __attribute__((noinline)) void product_2(const float *x, int64_t deep, const float *w, int64_t blocks, float *m, int64_t wide, int more, const char *ahead) {
    (void)ahead;
    vf c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3;
    if (more) {
        c0_0 = v_load(m + 0 * wide + 0 * LANES);
        c0_1 = v_load(m + 1 * wide + 0 * LANES);
        c0_2 = v_load(m + 2 * wide + 0 * LANES);
        c0_3 = v_load(m + 3 * wide + 0 * LANES);
        c1_0 = v_load(m + 0 * wide + 1 * LANES);
        c1_1 = v_load(m + 1 * wide + 1 * LANES);
        c1_2 = v_load(m + 2 * wide + 1 * LANES);
        c1_3 = v_load(m + 3 * wide + 1 * LANES);
    } else {
c0_0 = c0_1 = c0_2 = c0_3 = c1_0 = c1_1 = c1_2 = c1_3 = v_zero();
    }
    for (int64_t block = 0; block < blocks; block++) {
        const float *x0 = x + block * deep;
        AOTK_UNROLL_8
        for (int k = 0; k < BLOCK; k++) {
            FRESH(x0);
            vf a0 = v_splat(x0[0 * BLOCK + k]);
            vf a1 = v_splat(x0[1 * BLOCK + k]);
            vf b0 = v_load(w + 0 * LANES);
            PIN(b0);
            c0_0 = v_fma(a0, b0, c0_0);
            c1_0 = v_fma(a1, b0, c1_0);
            vf b1 = v_load(w + 1 * LANES);
            PIN(b1);
            c0_1 = v_fma(a0, b1, c0_1);
            c1_1 = v_fma(a1, b1, c1_1);
            vf b2 = v_load(w + 2 * LANES);
            PIN(b2);
            c0_2 = v_fma(a0, b2, c0_2);
            c1_2 = v_fma(a1, b2, c1_2);
            vf b3 = v_load(w + 3 * LANES);
            PIN(b3);
            c0_3 = v_fma(a0, b3, c0_3);
            c1_3 = v_fma(a1, b3, c1_3);
            w += NR;
        }
    }
    v_store(m + 0 * wide + 0 * LANES, c0_0);
    v_store(m + 1 * wide + 0 * LANES, c0_1);
    v_store(m + 2 * wide + 0 * LANES, c0_2);
    v_store(m + 3 * wide + 0 * LANES, c0_3);
    v_store(m + 0 * wide + 1 * LANES, c1_0);
    v_store(m + 1 * wide + 1 * LANES, c1_1);
    v_store(m + 2 * wide + 1 * LANES, c1_2);
    v_store(m + 3 * wide + 1 * LANES, c1_3);
}

/* 3 tiles times a panel, over `blocks` input blocks that are `deep` apart; adds to M when `more`. */
static __attribute__((noinline)) void product_3(const float *x, int64_t deep, const float *w, int64_t blocks, float *m, int64_t wide, int more, const char *ahead) {
    (void)ahead;
    vf c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3;
    if (more) {
        c0_0 = v_load(m + 0 * wide + 0 * LANES);
        c0_1 = v_load(m + 1 * wide + 0 * LANES);
        c0_2 = v_load(m + 2 * wide + 0 * LANES);
        c0_3 = v_load(m + 3 * wide + 0 * LANES);
        c1_0 = v_load(m + 0 * wide + 1 * LANES);
        c1_1 = v_load(m + 1 * wide + 1 * LANES);
        c1_2 = v_load(m + 2 * wide + 1 * LANES);
        c1_3 = v_load(m + 3 * wide + 1 * LANES);
        c2_0 = v_load(m + 0 * wide + 2 * LANES);
        c2_1 = v_load(m + 1 * wide + 2 * LANES);
        c2_2 = v_load(m + 2 * wide + 2 * LANES);
        c2_3 = v_load(m + 3 * wide + 2 * LANES);
    } else {
c0_0 = c0_1 = c0_2 = c0_3 = c1_0 = c1_1 = c1_2 = c1_3 = c2_0 = c2_1 = c2_2 = c2_3 = v_zero();
    }
    for (int64_t block = 0; block < blocks; block++) {
        const float *x0 = x + block * deep;
        AOTK_UNROLL_8
        for (int k = 0; k < BLOCK; k++) {
            FRESH(x0);
            vf a0 = v_splat(x0[0 * BLOCK + k]);
            vf a1 = v_splat(x0[1 * BLOCK + k]);
            vf a2 = v_splat(x0[2 * BLOCK + k]);
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
            w += NR;
        }
    }
    v_store(m + 0 * wide + 0 * LANES, c0_0);
    v_store(m + 1 * wide + 0 * LANES, c0_1);
    v_store(m + 2 * wide + 0 * LANES, c0_2);
    v_store(m + 3 * wide + 0 * LANES, c0_3);
    v_store(m + 0 * wide + 1 * LANES, c1_0);
    v_store(m + 1 * wide + 1 * LANES, c1_1);
    v_store(m + 2 * wide + 1 * LANES, c1_2);
    v_store(m + 3 * wide + 1 * LANES, c1_3);
    v_store(m + 0 * wide + 2 * LANES, c2_0);
    v_store(m + 1 * wide + 2 * LANES, c2_1);
    v_store(m + 2 * wide + 2 * LANES, c2_2);
    v_store(m + 3 * wide + 2 * LANES, c2_3);
}

typedef void product_fn(const float *, int64_t, const float *, int64_t, float *, int64_t, int, const char *);
/* By tiles. Where a size was left out the next larger one computes a surplus, for which V and M have room and which is never read. */
static product_fn *const products[4] = { product_2, product_2, product_2, product_3,  };

/* All positions of one group: M = V U. `w` is the first panel's weights. */
static void multiply(const float *v, const float *w, float *m, int64_t count, int64_t panels, int64_t deep, int64_t v_apart, int64_t wide, int64_t m_apart, int64_t depth) {
    const int64_t runs = (count + 2) / 3;
    for (int64_t p = 0; p < POINTS; p++)
        for (int64_t panel = 0; panel < panels; panel++) {
            const float *of_panel = w + (panel * POINTS + p) * ((int64_t)IN_LANES * NR);
            for (int64_t from = 0; from < IN_BLOCKS; from += depth) {
                const int64_t blocks = IN_BLOCKS - from < depth ? IN_BLOCKS - from : depth;
                const float *here = of_panel + from * (BLOCK * NR);
                const float *x = v + p * v_apart + from * deep;
                float *to = m + p * m_apart + panel * NV * wide;
                int64_t left = count;
                for (int64_t run = runs; run > 0; run--) {
                    const int64_t tiles = (left + run - 1) / run;
                    products[tiles](x, deep, here, blocks, to, wide, from > 0, 0);
                    left -= tiles;
                    x += tiles * BLOCK;
                    to += tiles * LANES;
                }
            }
        }
}

void AOTK_SYMBOL(const aotk_call *c);
void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t total = c->dim[0] * TILES_H * TILES_W, most = c->tune[0] < total ? c->tune[0] : total;
    const int64_t group_panels = c->tune[1] < PANELS ? c->tune[1] : PANELS;
    const int64_t depth = c->tune[2], by_channels = c->tune[3];
    int64_t groups = (PANELS + group_panels - 1) / group_panels;
    if (by_channels && groups % c->threads) groups += c->threads - groups % c->threads;
    if (groups > PANELS) groups = PANELS;
    const int64_t room = most + 1 < 2 ? 2 : most + 1; /* tiles that V and M have room for */
    const int64_t deep = room * BLOCK, v_apart = IN_BLOCKS * deep + SKEW;
    const int64_t wide = room * LANES, m_apart = group_panels * NV * wide + SKEW;
    float *const m = c->scratch;
    float *const v = by_channels ? c->shared : m + POINTS * m_apart;
    tile *const tiles = (tile *)(by_channels ? m + POINTS * m_apart : v + POINTS * v_apart);
    const float *const per_lane = (const float *)c->packed + (int64_t)POINTS * IN_LANES * OUT_LANES;
    const float *const in = (const float *)c->in[0] + IN_ORIGIN;

    int64_t chunks = (total + most - 1) / most, begin = 0, end;
    if (!by_channels && chunks % c->threads && total >= c->threads) chunks += c->threads - chunks % c->threads;
    if (chunks > total) chunks = total;
    end = chunks;
    if (!by_channels) aotk_share(c, chunks, &begin, &end);
    for (int64_t chunk = begin; chunk < end; chunk++) {
        const int64_t from = total * chunk / chunks, count = total * (chunk + 1) / chunks - from;
        for (int64_t t = 0; t < count; t++) {
            const int64_t n = (from + t) / (TILES_H * TILES_W), y = (from + t) / TILES_W % TILES_H, x = (from + t) % TILES_W;
            tiles[t].in = n * IN_IMAGE + y * 4 * IN_ROW + x * (4 * BLOCK);
            tiles[t].out = n * OUT_IMAGE + y * 4 * OUT_ROW + x * (4 * BLOCK) + OUT_ORIGIN;
            const int64_t rows = OUT_H - y * 4, columns = OUT_W - x * 4;
            tiles[t].rows = rows < 4 ? (int32_t)rows : 4;
            tiles[t].columns = columns < 4 ? (int32_t)columns : 4;
        }
        int64_t first_block = 0, last_block = IN_BLOCKS, first_group = 0, last_group = groups;
        if (by_channels) {
            if (chunk > begin) aotk_barrier(c); /* everybody has read the V of the chunk before */
            aotk_share(c, IN_BLOCKS, &first_block, &last_block);
            aotk_share(c, groups, &first_group, &last_group);
        }
        transform_inputs(in, v, tiles, count, first_block, last_block, deep, v_apart);
        if (by_channels) aotk_barrier(c);
        for (int64_t group = first_group; group < last_group; group++) {
            const int64_t panel = PANELS * group / groups, panels = PANELS * (group + 1) / groups - panel;
            const float *w = (const float *)c->packed + panel * ((int64_t)POINTS * IN_LANES * NR);
            multiply(v, w, m, count, panels, deep, v_apart, wide, m_apart, depth);
            transform_outputs(c, m, per_lane + panel * NR, tiles, count, panel * NV, panels * NV, wide, m_apart);
        }
    }
}

#endif
