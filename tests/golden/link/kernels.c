/* Hand-written kernels of the link tests' model; aotk.h goes before them. Each unit defines one of UNIT_LINEAR, UNIT_ADD and UNIT_SPREAD. */

#ifdef UNIT_LINEAR
/* h[4 + 4 b + j] = sum_k x[b][k] w[k][j] + tune[0]: h has a halo of 4 elements in front. Packed: w transposed. */
void test_linear_pack(const void *const *weight, void *packed, const int64_t *tune) {
    const float *w = weight[0];
    float *p = packed;
    (void)tune;
    for (int k = 0; k < 3; k++)
        for (int j = 0; j < 4; j++) p[j * 3 + k] = w[k * 4 + j];
}

#ifndef AOTK_PACK_ONLY
void test_linear(const aotk_call *c) {
    const float *x = c->in[0], *p = c->packed;
    float *h = c->out[0];
    int64_t from, to;
    if (c->weight) __builtin_trap(); /* a kernel that packs sees no raw weights */
    aotk_share(c, c->dim[0], &from, &to);
    for (int64_t b = from; b < to; b++)
        for (int j = 0; j < 4; j++) {
            float sum = c->tune[0];
            for (int k = 0; k < 3; k++) sum += x[b * 3 + k] * p[j * 3 + k];
            h[4 + b * 4 + j] = sum;
        }
}
#endif
#endif

#ifdef UNIT_ADD
/* z = h + y + bias, and the sum of the halo, which must be zero. */
void test_add(const aotk_call *c) {
    const float *h = c->in[0], *y = c->in[1], *bias = c->weight[0];
    float *z = c->out[0];
    int64_t from, to;
    if (c->packed) __builtin_trap();
    aotk_share(c, c->dim[0], &from, &to);
    for (int64_t i = from * 4; i < to * 4; i++) z[i] = h[4 + i] + y[i] + bias[i % 4] + h[0] + h[1] + h[2] + h[3];
}
#endif

#ifdef UNIT_SPREAD
/* s[i] = i * sum(z). Uses both workspaces and a barrier inside the kernel. */
void test_spread(const aotk_call *c) {
    const float *z = c->in[0];
    float *s = c->out[0], *partial = c->shared, total = 0;
    int32_t *mine = c->scratch;
    int64_t from, to;
    for (int i = 0; i < 256; i++) mine[i] = c->thread;
    aotk_share(c, c->dim[0] * 4, &from, &to);
    partial[c->thread] = 0;
    for (int64_t i = from; i < to; i++) partial[c->thread] += z[i];
    aotk_barrier(c);
    for (int i = 0; i < 256; i++)
        if (mine[i] != c->thread) __builtin_trap(); /* somebody else's scratch */
    for (int i = 0; i < c->threads; i++) total += partial[i];
    aotk_share(c, c->dim[1], &from, &to);
    for (int64_t i = from; i < to; i++) s[i] = (float)i * total;
}
#endif
