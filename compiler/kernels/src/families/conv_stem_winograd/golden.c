/* conv_stem_winograd@1 mr=6 nv=2 for cpu-x86_64-v3, from cpu/conv_stem_winograd.c.j2 */
#define AOTK_SYMBOL aot_f32_conv_stem_winograd_bias_relu__mr6_nv2__x86v3_DIGEST
#define AOTK_PACK aot_f32_conv_stem_winograd_bias_relu__mr6_nv2__x86v3_DIGEST_pack
/* end of the headers */
/* Winograd convolution with stride 2 of a row-major input with few channels into a blocked image, as at the start of a network.
 *
 * Along each axis the inputs of even and of odd index are separate phases: out(y) = Σ_r Σ_a in(2 (y + a) + r - pad) w(2 a + r). Each is
 * a convolution with stride 1 of half as many taps, so that minimal filtering applies (Lavin and Gray, "Fast algorithms for convolutional
 * neural networks", 2016). A kernel of odd size has one tap less in its odd phase, where a zero takes its place: then all phases have the
 * same points and their products are summed before they are transformed back. So a sum goes over channels and four phases, with
 * 4x4 taps and tiles of 3x3 outputs. Six points, 0, ±3/4, ±3/2, ∞, keep the error of F(4,3). At infinity only the last tap counts, so
 * there the phases whose last tap is the zero are left out.
 *
 * A thread goes through its rows in strips of 3, a tile high: sorts the input rows that are new by phase and by place in a tile, so that vectors are of
 * neighbouring tiles; transforms them into V; then for each panel of output channels and some tiles multiplies into M, and transforms M into outputs.
 *
 * tune: tiles that are multiplied at once.
 * Packed weights: for each panel of 2 vectors: [position][phase of rows][phase of columns][channel][panel's lanes]; then for every fused
 * bias, and for the mask of real channels if some lanes are padding, one value for each output lane. */
#define BLOCK 8                   /* output channels that lie together */
#define IN_CHANNELS 3
#define OUT_CHANNELS 32
#define OUT_LANES ((OUT_CHANNELS + BLOCK - 1) / BLOCK * BLOCK)
#define KERNEL_H 7
#define KERNEL_W 7
#define TAPS_H 4                   /* of a phase */
#define TAPS_W 4
#define LANES AOTK_LANES
#define NV 2                       /* vectors of a panel */
#define NR (NV * LANES)
#define PANELS (OUT_LANES / NR)
#define POINTS 6                      /* along an axis; the last one is infinity */
/* The phases that a row or column of positions sums, the even ones first. */
#define PHASES_H(j) ((j) < POINTS - 1 ? 2 : 2 - KERNEL_H % 2)
#define PHASES_W(i) ((i) < POINTS - 1 ? 2 : 2 - KERNEL_W % 2)
#define SUM_W (2 * (POINTS - 1) + PHASES_W(POINTS - 1))
#define SUM_H (2 * (POINTS - 1) + PHASES_H(POINTS - 1))
#define DEPTH ((int64_t)IN_CHANNELS * SUM_H * SUM_W) /* lengths of the dot products of all positions */

/* What tap `a` of a phase counts at a point. */
static double weight_at(int point, int a, int taps) {
    static const double p = 0.75, q = 1.5, d = 0.75 * 0.75 * 0.75 * 0.75;
    const double at[5] = { 0, p, -p, q, -q }, by[5] = { 1 / (4 * d), -1 / (6 * d), -1 / (6 * d), 1 / (24 * d), 1 / (24 * d) };
    if (point == POINTS - 1) return a == taps - 1;
    double value = by[point];
    for (int k = 0; k < a; k++) value *= at[point];
    return value;
}

void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune);
void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune) {
    (void)tune;
    const float *raw = weight[0];
    float *to = packed;
    for (int64_t from = 0; from < OUT_LANES; from += NR)
        for (int j = 0; j < POINTS; j++)
            for (int i = 0; i < POINTS; i++)
                for (int y = 0; y < PHASES_H(j); y++)
                    for (int x = 0; x < PHASES_W(i); x++) {
                        double by[KERNEL_H * KERNEL_W]; /* of all taps; those of other phases stay 0 */
                        for (int k = 0; k < KERNEL_H * KERNEL_W; k++) {
                            const int h = k / KERNEL_W, w = k % KERNEL_W;
                            by[k] = h % 2 == y && w % 2 == x ? weight_at(j, h / 2, TAPS_H) * weight_at(i, w / 2, TAPS_W) : 0;
                        }
                        for (int64_t channel = 0; channel < IN_CHANNELS; channel++)
                            for (int64_t o = from; o < from + NR; o++) {
                                double sum = 0;
                                if (o < OUT_CHANNELS)
                                    for (int64_t k = 0; k < KERNEL_H * KERNEL_W; k++)
                                        sum += by[k] * raw[(o * IN_CHANNELS + channel) * (KERNEL_H * KERNEL_W) + k];
                                *to++ = (float)sum;
                            }
                    }
    for (int64_t o = 0; o < OUT_LANES; o++) *to++ = o < OUT_CHANNELS ? ((const float *)weight[1])[o] : 0;
}

#ifndef AOTK_PACK_ONLY

#define IN_H 20
#define IN_W 20
/* The convolution's result. */
#define OUT_H 10
#define OUT_W 10
#define PAD_TOP 3
#define PAD_LEFT 3
/* Outputs of a tile. */
#define TILE_H 3
#define TILE_W 3
#define TILES ((OUT_W + TILE_W - 1) / TILE_W) /* of a strip */
/* Floats for one value of each tile of a strip; and with the one after the last, which the last tile reads, and room to load it in vectors. */
#define TILE_ROW ((int64_t)8)
#define PHASE_ROW (TILE_ROW + LANES)
/* Two input rows, sorted: [phase of rows][phase of columns][channel][place in a tile][tile]. */
#define PAIR (4 * IN_CHANNELS * TILE_W * PHASE_ROW)
/* The output, in floats. */
#define OUT_ROW ((int64_t)12 * BLOCK)
#define OUT_PLANE ((int64_t)144 * BLOCK)
#define OUT_IMAGE (OUT_LANES / BLOCK * OUT_PLANE)
#define OUT_ORIGIN ((int64_t)13 * BLOCK)
/* Vector v of a pixel. */
#define VECTOR_AT(v) (((v) * LANES / BLOCK) * OUT_PLANE + (v) * LANES % BLOCK)
#define PIXEL BLOCK
#define RESULT_AT(v) VECTOR_AT(v)
/* Positions of M are a little more than a power of two apart, so that they do not compete for the same cache sets. */
#define SKEW 16
/* Floats after V that a product of more tiles than there are may read. */
#define SLACK 16

/* Input rows 2 u and 2 u + 1 of the padded image into `to`, whose columns of padding are zero already. */
static void sort_rows(const float *in, float *to, int64_t u) {
    for (int64_t phase = 0; phase < 2; phase++)
        for (int64_t channel = 0; channel < IN_CHANNELS; channel++) {
            const int64_t y = 2 * u + phase - PAD_TOP;
            float *even = to + (phase * 2 * IN_CHANNELS + channel) * (TILE_W * PHASE_ROW), *odd = even + IN_CHANNELS * TILE_W * PHASE_ROW;
            if (y < 0 || y >= IN_H) {
                for (int64_t k = 0; k < TILE_W * PHASE_ROW; k++) even[k] = odd[k] = 0;
                continue;
            }
            const float *row = in + (channel * IN_H + y) * IN_W;
            for (int64_t t = 0; t <= TILES; t++, even++, odd++) {
                const int64_t x = t * (2 * TILE_W) - PAD_LEFT;
                if (x >= 0 && x + 2 * TILE_W <= IN_W) {
                    AOTK_UNROLL
                    for (int64_t k = 0; k < TILE_W; k++) even[k * PHASE_ROW] = row[x + 2 * k], odd[k * PHASE_ROW] = row[x + 2 * k + 1];
                } else {
                    for (int64_t k = 0; k < TILE_W; k++) {
                        if (x + 2 * k >= 0 && x + 2 * k < IN_W) even[k * PHASE_ROW] = row[x + 2 * k];
                        if (x + 2 * k + 1 >= 0 && x + 2 * k + 1 < IN_W) odd[k * PHASE_ROW] = row[x + 2 * k + 1];
                    }
                }
            }
        }
}

AOTK_INLINE void transform_input(const vf *d, vf *r) {
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
    vf s1 = m[1] + m[2], s2 = m[3] + m[4], d1 = m[1] - m[2], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = v_fma(v_splat(2 * p), d2, v_splat(p) * d1);
    y[2] = v_fma(v_splat(4 * q), s2, v_splat(q) * s1);
    y[2] += m[5];
    (void)p, (void)q;
}

AOTK_INLINE void output_w(const vf *m, vf *y) {
    const float p = 0.75f, q = 0.5625f;
    vf s1 = m[1] + m[2], s2 = m[3] + m[4], d1 = m[1] - m[2], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = v_fma(v_splat(2 * p), d2, v_splat(p) * d1);
    y[2] = v_fma(v_splat(4 * q), s2, v_splat(q) * s1);
    y[2] += m[5];
    (void)p, (void)q;
}

/* The strip that begins at row u: V[position][phases and channel][tile]. `half` has room for [point][place in a tile][tile]. */
static void transform_inputs(const float *pairs, int64_t u, float *half, float *v) {
    const float *pair[POINTS];
    for (int64_t j = 0; j < POINTS; j++) pair[j] = pairs + (u + j) % POINTS * PAIR;
    for (int64_t k = 0; k < 4 * IN_CHANNELS; k++) {
        const int64_t y = k / (2 * IN_CHANNELS), x = k / IN_CHANNELS % 2, channel = k % IN_CHANNELS;
        for (int64_t place = 0; place < TILE_W; place++)
            for (int64_t t = 0; t <= TILES; t += LANES) {
                const int64_t at = place * PHASE_ROW + t;
                vf column[POINTS], done[POINTS];
                AOTK_UNROLL
                for (int j = 0; j < POINTS; j++) column[j] = v_load(pair[j] + k * (TILE_W * PHASE_ROW) + at);
                transform_input(column, done);
                AOTK_UNROLL
                for (int j = 0; j < POINTS; j++) v_store(half + j * (TILE_W * PHASE_ROW) + at, done[j]);
            }
        for (int64_t j = 0; j < POINTS; j++) {
            if (y >= PHASES_H(j)) continue;
            float *const to = v + (2 * SUM_W * IN_CHANNELS * j + y * 2 * IN_CHANNELS + x * IN_CHANNELS + channel) * TILE_ROW;
            float *const last = v + ((2 * SUM_W * j + PHASES_H(j) * 2 * (POINTS - 1) + y * PHASES_W(POINTS - 1) + x) * IN_CHANNELS + channel) * TILE_ROW;
            for (int64_t t = 0; t < TILES; t += LANES) {
                const float *from = half + j * (TILE_W * PHASE_ROW) + t;
                vf row[POINTS], done[POINTS];
                AOTK_UNROLL
                for (int i = 0; i < POINTS; i++) row[i] = v_loadu(from + i % TILE_W * PHASE_ROW + i / TILE_W);
                transform_input(row, done);
                AOTK_UNROLL
                for (int i = 0; i < POINTS - 1; i++) v_store(to + PHASES_H(j) * 2 * IN_CHANNELS * i * TILE_ROW + t, done[i]);
                if (x < PHASES_W(POINTS - 1)) v_store(last + t, done[POINTS - 1]);
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

/* 3 tiles times a panel, over `phases` times all channels. */
static __attribute__((noinline)) void product_3(const float *x, const float *w, int64_t phases, float *m) {
    vf c0_0, c0_1, c1_0, c1_1, c2_0, c2_1;
c0_0 = c0_1 = c1_0 = c1_1 = c2_0 = c2_1 = v_zero();
    for (; phases > 0; phases--) {
        AOTK_UNROLL
        for (int k = 0; k < IN_CHANNELS; k++) {
            FRESH(x);
            vf b0 = v_load(w + 0 * LANES);
            vf b1 = v_load(w + 1 * LANES);
            {
                vf a = v_splat(x[k * TILE_ROW + 0]);
                c0_0 = v_fma(a, b0, c0_0);
                c0_1 = v_fma(a, b1, c0_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 1]);
                c1_0 = v_fma(a, b0, c1_0);
                c1_1 = v_fma(a, b1, c1_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 2]);
                c2_0 = v_fma(a, b0, c2_0);
                c2_1 = v_fma(a, b1, c2_1);
            }
            w += NR;
        }
        x += IN_CHANNELS * TILE_ROW;
    }
    v_store(m + 0 * NR + 0 * LANES, c0_0);
    v_store(m + 0 * NR + 1 * LANES, c0_1);
    v_store(m + 1 * NR + 0 * LANES, c1_0);
    v_store(m + 1 * NR + 1 * LANES, c1_1);
    v_store(m + 2 * NR + 0 * LANES, c2_0);
    v_store(m + 2 * NR + 1 * LANES, c2_1);
}

/* 4 tiles times a panel, over `phases` times all channels. */
static __attribute__((noinline)) void product_4(const float *x, const float *w, int64_t phases, float *m) {
    vf c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1;
c0_0 = c0_1 = c1_0 = c1_1 = c2_0 = c2_1 = c3_0 = c3_1 = v_zero();
    for (; phases > 0; phases--) {
        AOTK_UNROLL
        for (int k = 0; k < IN_CHANNELS; k++) {
            FRESH(x);
            vf b0 = v_load(w + 0 * LANES);
            vf b1 = v_load(w + 1 * LANES);
            {
                vf a = v_splat(x[k * TILE_ROW + 0]);
                c0_0 = v_fma(a, b0, c0_0);
                c0_1 = v_fma(a, b1, c0_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 1]);
                c1_0 = v_fma(a, b0, c1_0);
                c1_1 = v_fma(a, b1, c1_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 2]);
                c2_0 = v_fma(a, b0, c2_0);
                c2_1 = v_fma(a, b1, c2_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 3]);
                c3_0 = v_fma(a, b0, c3_0);
                c3_1 = v_fma(a, b1, c3_1);
            }
            w += NR;
        }
        x += IN_CHANNELS * TILE_ROW;
    }
    v_store(m + 0 * NR + 0 * LANES, c0_0);
    v_store(m + 0 * NR + 1 * LANES, c0_1);
    v_store(m + 1 * NR + 0 * LANES, c1_0);
    v_store(m + 1 * NR + 1 * LANES, c1_1);
    v_store(m + 2 * NR + 0 * LANES, c2_0);
    v_store(m + 2 * NR + 1 * LANES, c2_1);
    v_store(m + 3 * NR + 0 * LANES, c3_0);
    v_store(m + 3 * NR + 1 * LANES, c3_1);
}

/* 5 tiles times a panel, over `phases` times all channels. */
static __attribute__((noinline)) void product_5(const float *x, const float *w, int64_t phases, float *m) {
    vf c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1;
c0_0 = c0_1 = c1_0 = c1_1 = c2_0 = c2_1 = c3_0 = c3_1 = c4_0 = c4_1 = v_zero();
    for (; phases > 0; phases--) {
        AOTK_UNROLL
        for (int k = 0; k < IN_CHANNELS; k++) {
            FRESH(x);
            vf b0 = v_load(w + 0 * LANES);
            vf b1 = v_load(w + 1 * LANES);
            {
                vf a = v_splat(x[k * TILE_ROW + 0]);
                c0_0 = v_fma(a, b0, c0_0);
                c0_1 = v_fma(a, b1, c0_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 1]);
                c1_0 = v_fma(a, b0, c1_0);
                c1_1 = v_fma(a, b1, c1_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 2]);
                c2_0 = v_fma(a, b0, c2_0);
                c2_1 = v_fma(a, b1, c2_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 3]);
                c3_0 = v_fma(a, b0, c3_0);
                c3_1 = v_fma(a, b1, c3_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 4]);
                c4_0 = v_fma(a, b0, c4_0);
                c4_1 = v_fma(a, b1, c4_1);
            }
            w += NR;
        }
        x += IN_CHANNELS * TILE_ROW;
    }
    v_store(m + 0 * NR + 0 * LANES, c0_0);
    v_store(m + 0 * NR + 1 * LANES, c0_1);
    v_store(m + 1 * NR + 0 * LANES, c1_0);
    v_store(m + 1 * NR + 1 * LANES, c1_1);
    v_store(m + 2 * NR + 0 * LANES, c2_0);
    v_store(m + 2 * NR + 1 * LANES, c2_1);
    v_store(m + 3 * NR + 0 * LANES, c3_0);
    v_store(m + 3 * NR + 1 * LANES, c3_1);
    v_store(m + 4 * NR + 0 * LANES, c4_0);
    v_store(m + 4 * NR + 1 * LANES, c4_1);
}

/* 6 tiles times a panel, over `phases` times all channels. */
static __attribute__((noinline)) void product_6(const float *x, const float *w, int64_t phases, float *m) {
    vf c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1, c5_0, c5_1;
c0_0 = c0_1 = c1_0 = c1_1 = c2_0 = c2_1 = c3_0 = c3_1 = c4_0 = c4_1 = c5_0 = c5_1 = v_zero();
    for (; phases > 0; phases--) {
        AOTK_UNROLL
        for (int k = 0; k < IN_CHANNELS; k++) {
            FRESH(x);
            vf b0 = v_load(w + 0 * LANES);
            vf b1 = v_load(w + 1 * LANES);
            {
                vf a = v_splat(x[k * TILE_ROW + 0]);
                c0_0 = v_fma(a, b0, c0_0);
                c0_1 = v_fma(a, b1, c0_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 1]);
                c1_0 = v_fma(a, b0, c1_0);
                c1_1 = v_fma(a, b1, c1_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 2]);
                c2_0 = v_fma(a, b0, c2_0);
                c2_1 = v_fma(a, b1, c2_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 3]);
                c3_0 = v_fma(a, b0, c3_0);
                c3_1 = v_fma(a, b1, c3_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 4]);
                c4_0 = v_fma(a, b0, c4_0);
                c4_1 = v_fma(a, b1, c4_1);
            }
            {
                vf a = v_splat(x[k * TILE_ROW + 5]);
                c5_0 = v_fma(a, b0, c5_0);
                c5_1 = v_fma(a, b1, c5_1);
            }
            w += NR;
        }
        x += IN_CHANNELS * TILE_ROW;
    }
    v_store(m + 0 * NR + 0 * LANES, c0_0);
    v_store(m + 0 * NR + 1 * LANES, c0_1);
    v_store(m + 1 * NR + 0 * LANES, c1_0);
    v_store(m + 1 * NR + 1 * LANES, c1_1);
    v_store(m + 2 * NR + 0 * LANES, c2_0);
    v_store(m + 2 * NR + 1 * LANES, c2_1);
    v_store(m + 3 * NR + 0 * LANES, c3_0);
    v_store(m + 3 * NR + 1 * LANES, c3_1);
    v_store(m + 4 * NR + 0 * LANES, c4_0);
    v_store(m + 4 * NR + 1 * LANES, c4_1);
    v_store(m + 5 * NR + 0 * LANES, c5_0);
    v_store(m + 5 * NR + 1 * LANES, c5_1);
}

typedef void product_fn(const float *, const float *, int64_t, float *);
/* By tiles. Where a size was left out the next larger one computes a surplus, for which V and M have room and which is never read. */
static product_fn *const products[7] = { product_3, product_3, product_3, product_3, product_4, product_5, product_6,  };

/* All positions of one panel: M[position][tile][NR] = V U for `count` tiles. */
static void multiply(const float *v, const float *w, float *m, int64_t count, int64_t apart) {
    const int64_t runs = (count + 5) / 6;
    for (int64_t p = 0; p < POINTS * POINTS; p++, m += apart) {
        const int64_t phases = PHASES_H(p / POINTS) * PHASES_W(p % POINTS);
        const float *x = v;
        float *to = m;
        int64_t left = count;
        for (int64_t run = runs; run > 0; run--) {
            const int64_t tiles = (left + run - 1) / run;
            products[tiles](x, w, phases, to);
            left -= tiles;
            x += tiles;
            to += tiles * NR;
        }
        v += phases * (IN_CHANNELS * TILE_ROW);
        w += phases * (IN_CHANNELS * NR);
    }
}

/* The fused steps of vector j of a panel. */
#define FUSED(value, where, j) (v_relu(v_add((value), v_load(lane + 0 * OUT_LANES + (j) * LANES))))
#define STORE(value, where, j) v_store(out + (where), FUSED(value, where, j))

/* Tiles [first, first + count) of a panel: M → outputs. `at`: where their rows begin in `out`; `rows` of them are wanted. */
static void transform_outputs(const aotk_call *c, float *out, const float *lane, const float *m, int64_t apart, int64_t first, int64_t count, const int64_t *at, int64_t rows) {
    (void)c, (void)lane;
    for (int64_t t = 0; t < count; t++) {
        const int64_t columns = OUT_W - (first + t) * TILE_W < TILE_W ? OUT_W - (first + t) * TILE_W : TILE_W;
        const int64_t x = (first + t) * (TILE_W * PIXEL);
        for (int64_t v = 0; v < NV; v++) {
            const float *from = m + t * NR + v * LANES;
            vf half[TILE_H][POINTS];
            AOTK_UNROLL
            for (int i = 0; i < POINTS; i++) {
                vf column[POINTS], done[TILE_H];
                AOTK_UNROLL
                for (int j = 0; j < POINTS; j++) column[j] = v_load(from + (j * POINTS + i) * apart);
                output_h(column, done);
                AOTK_UNROLL
                for (int j = 0; j < TILE_H; j++) half[j][i] = done[j];
            }
            if (rows == TILE_H && columns == TILE_W) {
                AOTK_UNROLL
                for (int j = 0; j < TILE_H; j++) {
                    vf done[TILE_W];
                    output_w(half[j], done);
                    AOTK_UNROLL
                    for (int i = 0; i < TILE_W; i++) STORE(done[i], at[j] + x + i * PIXEL + RESULT_AT(v), v);
                }
            } else {
                vf all[TILE_H * TILE_W];
                AOTK_UNROLL
                for (int j = 0; j < TILE_H; j++) output_w(half[j], all + j * TILE_W);
                for (int64_t j = 0; j < rows; j++)
                    for (int64_t i = 0; i < columns; i++) STORE(all[j * TILE_W + i], at[j] + x + i * PIXEL + RESULT_AT(v), v);
            }
        }
    }
}


void AOTK_SYMBOL(const aotk_call *c);
void AOTK_SYMBOL(const aotk_call *c) {
    int64_t begin, end;
    aotk_share(c, c->dim[0] * 10, &begin, &end);
    const int64_t most = c->tune[0] < TILES ? c->tune[0] : TILES, chunks = (TILES + most - 1) / most;
    const int64_t room = most + 1 < 3 ? 3 : most + 1, apart = room * NR + SKEW;
    float *const pairs = c->scratch, *const half = pairs + POINTS * PAIR, *const v = half + POINTS * TILE_W * PHASE_ROW;
    float *const m = v + DEPTH * TILE_ROW + SLACK;
    const float *const packed = c->packed, *const per_lane = packed + DEPTH * OUT_LANES;
    /* The padding's columns stay zero. */
    for (int64_t k = 0; k < POINTS * (PAIR + TILE_W * PHASE_ROW); k += LANES) v_store(pairs + k, v_zero());
    while (begin < end) {
        const int64_t n = begin / 10;
        int64_t y = begin % 10;
        const int64_t stop = 10 - y < end - begin ? 10 : y + end - begin;
        begin += stop - y;
        const float *const in = (const float *)c->in[0] + n * ((int64_t)IN_CHANNELS * IN_H * IN_W);
        const int64_t image = OUT_ORIGIN + n * OUT_IMAGE;
        const int64_t low = y, high = stop;
        int64_t sorted = low;
        for (int64_t row = low; row < high; row += TILE_H) {
            for (; sorted < row + POINTS; sorted++) sort_rows(in, pairs + sorted % POINTS * PAIR, sorted);
            transform_inputs(pairs, row, half, v);
            
            const int64_t real = high - row, rows = real < TILE_H ? real : TILE_H;
            for (int64_t panel = 0; panel < PANELS; panel++) {
                float *const out = (float *)c->out[0];
                int64_t at[TILE_H];
                for (int64_t j = 0; j < TILE_H; j++) at[j] = image + (row + j) * OUT_ROW + VECTOR_AT(panel * NV);
                for (int64_t chunk = 0; chunk < chunks; chunk++) {
                    const int64_t first = TILES * chunk / chunks, count = TILES * (chunk + 1) / chunks - first;
                    multiply(v + first, packed + panel * (DEPTH * NR), m, count, apart);
                    transform_outputs(c, out, per_lane + panel * NR, m, apart, first, count, at, rows);
                }
            }
        }
    }
}

#endif
