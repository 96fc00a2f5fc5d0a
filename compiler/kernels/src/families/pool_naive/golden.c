/* pool_naive@1 for cpu-x86_64-v3, from cpu/pool_naive.c.j2 */
#define AOTK_SYMBOL aot_f32_pool_naive__x86v3_DIGEST
#define AOTK_PACK aot_f32_pool_naive__x86v3_DIGEST_pack
/* end of the headers */
/* Pooling over operands of any layout, one element at a time, summed in double. */
void AOTK_SYMBOL(const aotk_call *c) {
    const float *restrict const in0 = (const float *)c->in[0];
    float *restrict const out0 = (float *)c->out[0];
    int64_t unit, last;
    aotk_share(c, c->dim[0] * ((int64_t)24) * ((int64_t)5), &unit, &last);
    for (; unit < last; unit++) {
        const int64_t b = unit / (((int64_t)24) * ((int64_t)5)), ch = unit / ((int64_t)5) % ((int64_t)24), oy = unit % ((int64_t)5);
        for (int64_t ox = 0; ox < ((int64_t)5); ox++) {
            float acc = -__builtin_inff();
            for (int64_t i = 0; i < 3; i++)
                for (int64_t j = 0; j < 3; j++) {
                    const int64_t y = oy * 2 + i * 1 - 1;
                    const int64_t x = ox * 2 + j * 1 - 1;
                    if (y < 0 || y >= ((int64_t)9) || x < 0 || x >= ((int64_t)9)) continue;
                    const float v = in0[(((b * ((((int64_t)24) + 7) / 8) + ch / 8) * (((int64_t)9) + 3) + y + 1) * (((int64_t)9) + 3) + x + 0) * 8 + ch % 8];
                    acc = v > acc || v != v ? v : acc;
                }
            const float result = acc;
            const int64_t y = oy, x = ox;
            out0[(((b * ((((int64_t)24) + 7) / 8) + ch / 8) * (((int64_t)5) + 2) + y + 1) * (((int64_t)5) + 2) + x + 1) * 8 + ch % 8] = result;
        }
    }
}
