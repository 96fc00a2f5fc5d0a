/* loops@1 for cpu-x86_64-v3, from cpu/loops.c.j2 */
#define AOTK_SYMBOL aot_f32_loops__x86v3_DIGEST
#define AOTK_PACK aot_f32_loops__x86v3_DIGEST_pack
/* end of the headers */
/* A loop nest. The outer loops, and the first of the inner ones in pieces, are one list of work that the threads share. */

void AOTK_SYMBOL(const aotk_call *c) {
    const float *restrict const in0 = (const float *)c->in[0];
    (void)in0;
    float *restrict const out0 = (float *)c->out[0];
    const int64_t pieces = (((int64_t)1000) + (int64_t)1024 - 1) / (int64_t)1024;
    int64_t unit, last_unit;
    aotk_share(c, (((int64_t)1)) * pieces, &unit, &last_unit);
    for (; unit < last_unit; unit++) {
        const int64_t begin = unit % pieces * (int64_t)1024;
        const int64_t end = begin + (int64_t)1024 < ((int64_t)1000) ? begin + (int64_t)1024 : ((int64_t)1000);
        AOTK_SIMD
        for (int64_t l0 = begin; l0 < end; l0++)
        {
            out0[l0] = s_gelu(s_add(in0[l0], 0.5f));
        }
    }
}
