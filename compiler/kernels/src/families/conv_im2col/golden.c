/* conv_im2col@1 mr=5 nv=2 for cpu-x86_64-v3, from cpu/conv_im2col.c.j2 */
#define AOTK_SYMBOL aot_f32_conv_im2col_bias_relu__mr5_nv2__x86v3_DIGEST
#define AOTK_PACK aot_f32_conv_im2col_bias_relu__mr5_nv2__x86v3_DIGEST_pack
/* end of the headers */
/* Convolution into a row-major output, for any input layout, groups and sizes. The patches of some neighbouring output pixels of an
 * image are gathered into a panel [channel][kh][kw][pixel] in the thread's scratch; then a tile of up to 5 output channels times 2
 * vectors of pixels is kept in registers while the kernel walks over the panel.
 *
 * tune: vectors of pixels of a panel, divided by 2.
 * Packed weights: for each group, in turns of up to 5 output channels: [channel][kh][kw][output channel]; then the fused biases. */
#define GROUPS 1
#define GROUP_IN 32
#define GROUP_OUT 20
#define KERNEL_H 1
#define KERNEL_W 1
#define DEPTH ((int64_t)GROUP_IN * KERNEL_H * KERNEL_W) /* length of the dot products */

void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune);
void AOTK_PACK(const void *const *weight, void *packed, const int64_t *tune) {
    (void)tune;
    const float *raw = weight[0];
    float *to = packed;
    for (int64_t g = 0; g < GROUPS; g++) {
        int64_t o = g * GROUP_OUT;
        for (int64_t t = 0; t < 4; t++, o += 5)
            for (int64_t k = 0; k < DEPTH; k++)
                for (int64_t i = 0; i < 5; i++) *to++ = raw[(o + i) * DEPTH + k];
    }
    for (int64_t o = 0; o < GROUPS * GROUP_OUT; o++) *to++ = ((const float *)weight[1])[o];
}

#ifndef AOTK_PACK_ONLY

#define LANES AOTK_LANES
#define STEP (2 * LANES) /* pixels of a tile */
#define IN(n, c, y, x) ((((n) * ((int64_t)32) + (c)) * ((int64_t)5) + (y)) * ((int64_t)5) + (x))

/* Patches of the output pixels [from, from + count) of image n, for the input channels from `first` on. `room` pixels lie together; those
 * past count become zero. */
static void gather(const aotk_call *c, float *restrict to, int64_t n, int64_t first, int64_t from, int64_t count, int64_t room) {
    const float *in = c->in[0];
    const int64_t in_h = ((int64_t)5), in_w = ((int64_t)5), out_w = ((int64_t)5);
    for (int64_t i = first; i < first + GROUP_IN; i++)
        for (int64_t kh = 0; kh < KERNEL_H; kh++)
            for (int64_t kw = 0; kw < KERNEL_W; kw++, to += room) {
                const int64_t offset = kw * 1 - 0;
                int64_t done = 0, y = from / out_w, x = from % out_w;
                while (done < count) {
                    /* The rest of an output row, as much of it as is wanted. */
                    const int64_t left = count - done, segment = out_w - x < left ? out_w - x : left;
                    const int64_t row = y * 1 + kh * 1 - 0, start = x * 1 + offset;
                    int64_t low = start < 0 ? (-start + 0) / 1 : 0;
                    int64_t high = in_w - start <= 0 ? 0 : (in_w - start + 0) / 1;
                    if (row < 0 || row >= in_h) high = 0;
                    if (high > segment) high = segment;
                    if (low > high) low = high;
                    float *const place = to + done;
                    for (int64_t k = 0; k < low; k++) place[k] = 0;
                    for (int64_t k = low; k < high; k++) place[k] = in[IN(n, i, row, start + k * 1)];
                    for (int64_t k = high; k < segment; k++) place[k] = 0;
                    done += segment;
                    x = 0;
                    y++;
                }
                for (; done < room; done++) to[done] = 0;
            }
}

/* Ends the compiler's knowledge of a pointer, so that it does not merge loads across steps and spill for it. */
#define FRESH(p) __asm__("" : "+r"(p))

/* The fused steps and the store of a vector of `left` pixels, or fewer than a whole one. */
#define STORE(value, where, channel, left)                                  \
    do {                                                                    \
        const int64_t at_ = (where);                                        \
        const vf done_ = v_relu(v_add((value), v_splat(bias[0 * GROUPS * GROUP_OUT + (channel)])));                                    \
        if ((left) >= LANES) v_storeu(out + at_, done_);                    \
        else if ((left) > 0) v_store_part(out + at_, done_, (left));        \
    } while (0)

/* 5 output channels from `channel` on, of which pixel `at` of the first is the tile's first; `count` pixels exist. */
static __attribute__((noinline)) void tile_5(const aotk_call *c, const float *panel, int64_t room, const float *w, const float *bias, int64_t at, int64_t size, int64_t channel, int64_t count) {
    float *const out = c->out[0];
    (void)bias, (void)channel;
    vf c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1;
c0_0 = c0_1 = c1_0 = c1_1 = c2_0 = c2_1 = c3_0 = c3_1 = c4_0 = c4_1 = v_zero();
#pragma GCC unroll 4
    for (int64_t k = 0; k < DEPTH; k++) {
        FRESH(w);
        vf b0 = v_load(panel + 0 * LANES);
        vf b1 = v_load(panel + 1 * LANES);
        {
            vf a = v_splat(w[0]);
            c0_0 = v_fma(a, b0, c0_0);
            c0_1 = v_fma(a, b1, c0_1);
        }
        {
            vf a = v_splat(w[1]);
            c1_0 = v_fma(a, b0, c1_0);
            c1_1 = v_fma(a, b1, c1_1);
        }
        {
            vf a = v_splat(w[2]);
            c2_0 = v_fma(a, b0, c2_0);
            c2_1 = v_fma(a, b1, c2_1);
        }
        {
            vf a = v_splat(w[3]);
            c3_0 = v_fma(a, b0, c3_0);
            c3_1 = v_fma(a, b1, c3_1);
        }
        {
            vf a = v_splat(w[4]);
            c4_0 = v_fma(a, b0, c4_0);
            c4_1 = v_fma(a, b1, c4_1);
        }
        w += 5;
        panel += room;
    }
    STORE(c0_0, at + 0 * size + 0 * LANES, channel + 0, count - 0 * LANES);
    STORE(c0_1, at + 0 * size + 1 * LANES, channel + 0, count - 1 * LANES);
    STORE(c1_0, at + 1 * size + 0 * LANES, channel + 1, count - 0 * LANES);
    STORE(c1_1, at + 1 * size + 1 * LANES, channel + 1, count - 1 * LANES);
    STORE(c2_0, at + 2 * size + 0 * LANES, channel + 2, count - 0 * LANES);
    STORE(c2_1, at + 2 * size + 1 * LANES, channel + 2, count - 1 * LANES);
    STORE(c3_0, at + 3 * size + 0 * LANES, channel + 3, count - 0 * LANES);
    STORE(c3_1, at + 3 * size + 1 * LANES, channel + 3, count - 1 * LANES);
    STORE(c4_0, at + 4 * size + 0 * LANES, channel + 4, count - 0 * LANES);
    STORE(c4_1, at + 4 * size + 1 * LANES, channel + 4, count - 1 * LANES);
}

void AOTK_SYMBOL(const aotk_call *c);
void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t size = ((int64_t)5) * ((int64_t)5); /* pixels of an image */
    const int64_t most = c->tune[0] * STEP;
    const int64_t chunks = (size + most - 1) / most;
    float *const panel = c->scratch;
    const float *const bias = (const float *)c->packed + GROUPS * GROUP_OUT * DEPTH;
    int64_t begin, end;
    aotk_share(c, c->dim[0] * GROUPS * chunks, &begin, &end);
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t n = unit / (GROUPS * chunks), g = unit / chunks % GROUPS;
        const int64_t from = size * (unit % chunks) / chunks, count = size * (unit % chunks + 1) / chunks - from;
        const int64_t room = (count + STEP - 1) / STEP * STEP;
        gather(c, panel, n, g * GROUP_IN, from, count, room);
        const float *w = (const float *)c->packed + g * GROUP_OUT * DEPTH;
        int64_t channel = g * GROUP_OUT;
        for (int64_t t = 0; t < 4; t++, channel += 5, w += 5 * DEPTH)
            for (int64_t p = 0; p < count; p += STEP)
                tile_5(c, panel + p, room, w, bias, (n * (GROUPS * GROUP_OUT) + channel) * size + from + p, size, channel, count - p);
    }
}

#endif
