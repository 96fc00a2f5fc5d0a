/* loops_lanes@1 over=1 width=32 for cpu-x86_64-v3, from cpu/loops.c.j2 */
#define AOTK_SYMBOL aot_f32_loops_lanes__over1_width32__x86v3_DIGEST
#define AOTK_PACK aot_f32_loops_lanes__over1_width32__x86v3_DIGEST_pack
/* end of the headers */
/* A loop nest. The outer loops, and the first of the inner ones in pieces, are one list of work that the threads share. */
/* Values that are accumulated side by side. */
enum { W = 32 };

void AOTK_SYMBOL(const aotk_call *c) {
    const float *restrict const in0 = (const float *)c->in[0];
    (void)in0;
    float *restrict const out0 = (float *)c->out[0];
    const int64_t d0 = c->dim[0];
    (void)d0;
    const int64_t d1 = c->dim[1];
    (void)d1;
    const int64_t pieces = (d1 + (int64_t)64 - 1) / (int64_t)64;
    int64_t unit, last_unit;
    aotk_share(c, (((int64_t)1)) * pieces, &unit, &last_unit);
    for (; unit < last_unit; unit++) {
        const int64_t begin = unit % pieces * (int64_t)64;
        const int64_t end = begin + (int64_t)64 < d1 ? begin + (int64_t)64 : d1;
        for (int64_t l0 = begin; l0 < end; l0++)
        {
            float accs[W];
            AOTK_SIMD
            for (int64_t j = 0; j < W; j++) accs[j] = 0.0f;
            {
                int64_t block = 0;
                for (; block + W <= d0; block += W)
                    AOTK_SIMD
                    for (int64_t j = 0; j < W; j++) {
                        const int64_t r0 = block + j;
                        (void)r0;
                        const float x = (float)in0[((r0 * d1) + l0)];
                        accs[j] = accs[j] + x;
                    }
                for (int64_t j = 0; j < d0 - block; j++) {
                    const int64_t r0 = block + j;
                    (void)r0;
                    const float x = (float)in0[((r0 * d1) + l0)];
                    accs[j] = accs[j] + x;
                }
            }
            float sum = accs[0];
            for (int64_t j = 1; j < W; j++) {
                const float x = accs[j];
                sum = sum + x;
            }
            const float acc = (float)(sum / (((int64_t)1) * d0));
            (void)acc;
            out0[l0] = acc;
        }
    }
}
