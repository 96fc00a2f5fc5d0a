/* The element-wise functions of the IR on floats (s_*), in the words of cpu/simd.h, so that one printer serves both. NaN goes through
 * all of them. */
#define s_splat(x) ((float)(x))
/* Constants that have no decimal form, in the printer's words. */
#define __builtin_inff() __int_as_float(0x7f800000)
#define __builtin_nanf(text) __int_as_float(0x7fc00000)
/* max: a > b ? a : b, min: a < b ? a : b; so the second operand wins when one is NaN. */
AOTK_INLINE float s_max(float a, float b) { return a > b ? a : b; }
AOTK_INLINE float s_min(float a, float b) { return a < b ? a : b; }
AOTK_INLINE float s_add(float a, float b) { return a + b; }
AOTK_INLINE float s_sub(float a, float b) { return a - b; }
AOTK_INLINE float s_mul(float a, float b) { return a * b; }
AOTK_INLINE float s_div(float a, float b) { return a / b; }
AOTK_INLINE float s_floor(float a) { return floorf(a); }
AOTK_INLINE float s_ceil(float a) { return ceilf(a); }
/* To the nearest integer, halves to even. */
AOTK_INLINE float s_round(float a) { return rintf(a); }
AOTK_INLINE float s_floordiv(float a, float b) { return floorf(a / b); }
/* The remainder with the divisor's sign. */
AOTK_INLINE float s_mod(float a, float b) { return a - b * floorf(a / b); }
AOTK_INLINE float s_pow(float a, float b) { return powf(a, b); }
AOTK_INLINE float s_neg(float a) { return -a; }
AOTK_INLINE float s_abs(float a) { return fabsf(a); }
AOTK_INLINE float s_sqrt(float a) { return sqrtf(a); }
AOTK_INLINE float s_rsqrt(float a) { return 1.0f / sqrtf(a); }
AOTK_INLINE float s_reciprocal(float a) { return 1.0f / a; }
#if AOTK_NARROW
/* Results that are rounded to fewer bits anyway: within a few units in the last place of f32, by the special-function unit. */
AOTK_INLINE float s_exp(float a) { return __expf(a); }
AOTK_INLINE float s_ratio(float a, float b) { return __fdividef(a, b); }
#else
AOTK_INLINE float s_exp(float a) { return expf(a); }
AOTK_INLINE float s_ratio(float a, float b) { return a / b; }
#endif
AOTK_INLINE float s_log(float a) { return logf(a); }
AOTK_INLINE float s_sin(float a) { return sinf(a); }
AOTK_INLINE float s_cos(float a) { return cosf(a); }
AOTK_INLINE float s_tanh(float a) { return tanhf(a); }
AOTK_INLINE float s_erf(float a) { return erff(a); }
/* One instruction; a comparison and a selection are two. */
AOTK_INLINE float s_relu(float a) {
#if AOTK_SM >= 80
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(a));
    return y;
#else
    return s_max(0.0f, a);
#endif
}
AOTK_INLINE float s_clamp(float a, float low, float high) { return s_min(high, s_max(low, a)); }
AOTK_INLINE float s_sigmoid(float a) { return s_ratio(1.0f, 1.0f + s_exp(-a)); }
AOTK_INLINE float s_silu(float a) { return s_ratio(a, 1.0f + s_exp(-a)); }
AOTK_INLINE float s_gelu(float a) { return 0.5f * a * (1.0f + erff(a * 0.70710678118654752f)); }
AOTK_INLINE float s_gelu_tanh(float a) {
    return 0.5f * a * (1.0f + tanhf(0.79788456080286536f * (a + 0.044715f * a * a * a)));
}
AOTK_INLINE float s_hardsigmoid(float a) { return s_clamp(a + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }
AOTK_INLINE float s_hardswish(float a) { return a * s_hardsigmoid(a); }
AOTK_INLINE float s_leaky_relu(float a, float slope) { return a > 0.0f ? a : slope * a; }
AOTK_INLINE float s_elu(float a, float alpha) { return a > 0.0f ? a : alpha * expm1f(a); }
