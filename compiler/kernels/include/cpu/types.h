/* Element types and functions beyond f32, for loop kernels; comes after simd.h. Half-precision values are computed with as floats and
 * rounded to the nearest (halves to even) when they are stored. All functions are branch-free, so that loops over them vectorise. */

AOTK_INLINE float s_from_bf16(uint16_t x) { return s_from_bits((int32_t)((uint32_t)x << 16)); }
AOTK_INLINE uint16_t s_to_bf16(float a) {
    uint32_t b = (uint32_t)s_bits(a);
    uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1)) >> 16;
    return (uint16_t)((b & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u | (b >> 16) : rounded);
}
/* The multiplication moves the exponent's bias, and makes normal numbers of subnormal ones. */
AOTK_INLINE float s_from_f16(uint16_t x) {
    uint32_t magnitude = (uint32_t)(x & 0x7fff) << 13;
    uint32_t finite = (uint32_t)s_bits(s_from_bits((int32_t)magnitude) * 0x1p112f);
    uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite;
    return s_from_bits((int32_t)(bits | (uint32_t)(x & 0x8000) << 16));
}
AOTK_INLINE uint16_t s_to_f16(float a) {
    uint32_t bits = (uint32_t)s_bits(a), b = bits & 0x7fffffffu;
    uint32_t normal = (b + 0xfffu + ((b >> 13) & 1) - 0x38000000u) >> 13;
    /* Below 2^-14: one unit in the last place of 0.5f is the smallest subnormal number. */
    uint32_t small = (uint32_t)s_bits(s_from_bits((int32_t)b) + 0.5f) - 0x3f000000u;
    uint32_t r = b < 0x38800000u ? small : normal;
    r = b >= 0x47800000u ? 0x7c00u : r;
    r = b > 0x7f800000u ? 0x7e00u : r;
    return (uint16_t)(r | ((bits >> 16) & 0x8000u));
}

/* NaN wins over everything, so that it shows in the result. */
AOTK_INLINE float s_max_nan(float a, float b) { return a > b || a != a ? a : b; }
AOTK_INLINE float s_min_nan(float a, float b) { return a < b || a != a ? a : b; }

/* double, where the C library's functions do. */
AOTK_INLINE double d_max_nan(double a, double b) { return a > b || a != a ? a : b; }
AOTK_INLINE double d_min_nan(double a, double b) { return a < b || a != a ? a : b; }
AOTK_INLINE double d_mod(double a, double b) { return a - b * __builtin_floor(a / b); }
AOTK_INLINE double d_clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
AOTK_INLINE double d_sigmoid(double x) { return 1 / (1 + __builtin_exp(-x)); }
AOTK_INLINE double d_silu(double x) { return x / (1 + __builtin_exp(-x)); }
AOTK_INLINE double d_gelu(double x) { return 0.5 * x * (1 + __builtin_erf(x * 0.70710678118654752440)); }
AOTK_INLINE double d_gelu_tanh(double x) {
    return 0.5 * x * (1 + __builtin_tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}
AOTK_INLINE double d_hardsigmoid(double x) { return d_clamp(x + 3, 0, 6) / 6; }
AOTK_INLINE double d_hardswish(double x) { return x * d_hardsigmoid(x); }
AOTK_INLINE double d_leaky_relu(double x, double slope) { return x > 0 ? x : slope * x; }
AOTK_INLINE double d_elu(double x, double alpha) { return x > 0 ? x : alpha * __builtin_expm1(x); }

/* Integers. Dividing by zero gives zero; everything wraps around. */
AOTK_INLINE int64_t i_max(int64_t a, int64_t b) { return a > b ? a : b; }
AOTK_INLINE int64_t i_min(int64_t a, int64_t b) { return a < b ? a : b; }
AOTK_INLINE int64_t i_abs(int64_t a) { return a < 0 ? (int64_t)(0 - (uint64_t)a) : a; }
AOTK_INLINE int64_t i_div(int64_t a, int64_t b) {
    return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}
AOTK_INLINE int64_t i_mod(int64_t a, int64_t b) {
    if (b == 0 || b == -1) return 0;
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
AOTK_INLINE int64_t i_floordiv(int64_t a, int64_t b) {
    int64_t q = i_div(a, b);
    return b != 0 && b != -1 && a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}
AOTK_INLINE int64_t i_pow(int64_t a, int64_t b) {
    uint64_t r = 1, x = (uint64_t)a;
    if (b < 0) return a == 1 ? 1 : a == -1 ? ((b & 1) ? -1 : 1) : 0;
    for (; b > 0; b >>= 1, x *= x)
        if (b & 1) r *= x;
    return (int64_t)r;
}
/* Toward zero, to the nearest end of the range, and NaN to zero. */
AOTK_INLINE int64_t i_from_double(double x, int64_t low, int64_t high) {
    return x != x ? 0 : x >= (double)high ? high : x <= (double)low ? low : (int64_t)x;
}
