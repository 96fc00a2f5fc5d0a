/* conv_naive@1 for cpu-x86_64-v3, from cpu/conv_naive.c.j2 */
#define AOTK_SYMBOL aot_f32_conv_naive_bias_relu__x86v3_DIGEST
#define AOTK_PACK aot_f32_conv_naive_bias_relu__x86v3_DIGEST_pack
/* end of the headers */
/* Plain convolution for any layouts, groups, strides and dilations: sums in double, one output row at a time. */
#define IN(n, c, y, x) ((((n) * ((int64_t)3) + (c)) * ((int64_t)20) + (y)) * ((int64_t)20) + (x))
#define OUT(n, c, y, x) (((((n) * ((((int64_t)32) + 7) / 8) + (c) / 8) * (((int64_t)10) + 2) + (y) + 1) * (((int64_t)10) + 2) + (x) + 1) * 8 + (c) % 8)
/* Results that are computed at once. */
#define STRIP 64

/* The range [*from, *to) of positions x of a strip that starts at `first` for which first + x is an output whose tap at
 * `offset` lies in the input: 0 ≤ (first + x) * stride + offset < size. */
static inline void inside(int64_t first, int64_t count, int64_t stride, int64_t offset, int64_t size, int64_t *from, int64_t *to) {
    int64_t start = first * stride + offset, low = start < 0 ? (-start + stride - 1) / stride : 0;
    int64_t high = size - start <= 0 ? 0 : (size - start + stride - 1) / stride;
    *from = low < count ? low : count;
    *to = high < count ? high : count;
}

/* Results of image n and channel o: row y, columns [first, first + count). */
static void convolve(const aotk_call *c, int64_t n, int64_t o, int64_t y, int64_t first, int64_t count, float *result) {
    const int64_t in_h = ((int64_t)20), in_w = ((int64_t)20);
    const int64_t group_out = 32, group_in = 3;
    const float *in = c->in[0], *weight = c->weight[0];
    double sum[STRIP] = {0};
    for (int64_t i = 0; i < group_in; i++)
        for (int64_t kh = 0; kh < 7; kh++) {
            const int64_t row = y * 2 + kh * 1 - 3, channel = o / group_out * group_in + i;
            if (row < 0 || row >= in_h) continue;
            for (int64_t kw = 0; kw < 7; kw++) {
                const double w = weight[((o * group_in + i) * 7 + kh) * 7 + kw];
                const int64_t offset = kw * 1 - 3;
                int64_t from, to;
                inside(first, count, 2, offset, in_w, &from, &to);
                for (int64_t x = from; x < to; x++) sum[x] += w * in[IN(n, channel, row, (first + x) * 2 + offset)];
            }
        }
    for (int64_t x = 0; x < count; x++) {
        const float value = (float)sum[x];
        result[x] = s_relu(s_add(value, ((const float *)c->weight[1])[o]));
    }
}

void AOTK_SYMBOL(const aotk_call *c);
void AOTK_SYMBOL(const aotk_call *c) {
    const int64_t out_h = ((int64_t)10), out_w = ((int64_t)10), out_channels = 32;
    float *out = c->out[0], result[STRIP];
    int64_t begin, end;
    aotk_share(c, c->dim[0] * out_channels * out_h, &begin, &end);
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t n = unit / (out_channels * out_h), o = unit / out_h % out_channels, y = unit % out_h;
        for (int64_t first = 0; first < out_w; first += STRIP) {
            const int64_t count = out_w - first < STRIP ? out_w - first : STRIP;
            convolve(c, n, o, y, first, count, result);
            for (int64_t x = 0; x < count; x++) out[OUT(n, o, y, first + x)] = result[x];
        }
    }
}
