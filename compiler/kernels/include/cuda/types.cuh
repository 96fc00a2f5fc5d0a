/* Element types and functions beyond f32, index arithmetic and vectors, for loop kernels; comes after math.cuh. The words are those of
 * cpu/types.h, so that one printer serves both. Half-precision values are computed with as floats and rounded to the nearest (halves to
 * even) when they are stored. */

AOTK_INLINE float s_from_bf16(aotk_bf16 x) { return aotk_float(x); }
AOTK_INLINE float s_from_f16(aotk_f16 x) { return aotk_float(x); }
AOTK_INLINE aotk_bf16 s_to_bf16(float a) {
    aotk_bf16 r;
    aotk_store(&r, a);
    return r;
}
AOTK_INLINE aotk_f16 s_to_f16(float a) {
    aotk_f16 r;
    aotk_store(&r, a);
    return r;
}

/* NaN wins over everything, so that it shows in the result. */
AOTK_INLINE float s_max_nan(float a, float b) { return a > b || a != a ? a : b; }
AOTK_INLINE float s_min_nan(float a, float b) { return a < b || a != a ? a : b; }

/* double, where the device's own functions do. */
#define __builtin_inf() __longlong_as_double(0x7ff0000000000000ll)
#define __builtin_nan(text) __longlong_as_double(0x7ff8000000000000ll)
#define __builtin_fabs fabs
#define __builtin_exp exp
#define __builtin_expm1 expm1
#define __builtin_log log
#define __builtin_sqrt sqrt
#define __builtin_sin sin
#define __builtin_cos cos
#define __builtin_tanh tanh
#define __builtin_erf erf
#define __builtin_pow pow
#define __builtin_floor floor
#define __builtin_ceil ceil
#define __builtin_rint rint
AOTK_INLINE double d_max_nan(double a, double b) { return a > b || a != a ? a : b; }
AOTK_INLINE double d_min_nan(double a, double b) { return a < b || a != a ? a : b; }
AOTK_INLINE double d_mod(double a, double b) { return a - b * floor(a / b); }
AOTK_INLINE double d_clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
AOTK_INLINE double d_sigmoid(double x) { return 1 / (1 + exp(-x)); }
AOTK_INLINE double d_silu(double x) { return x / (1 + exp(-x)); }
AOTK_INLINE double d_gelu(double x) { return 0.5 * x * (1 + erf(x * 0.70710678118654752440)); }
AOTK_INLINE double d_gelu_tanh(double x) {
    return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}
AOTK_INLINE double d_hardsigmoid(double x) { return d_clamp(x + 3, 0, 6) / 6; }
AOTK_INLINE double d_hardswish(double x) { return x * d_hardsigmoid(x); }
AOTK_INLINE double d_leaky_relu(double x, double slope) { return x > 0 ? x : slope * x; }
AOTK_INLINE double d_elu(double x, double alpha) { return x > 0 ? x : alpha * expm1(x); }

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

/* Indices of type I, int32_t or int64_t. Divisors are positive; x_div and x_rem are for numbers that are not negative, x_floordiv and
 * x_mod for all. */
template <typename I> struct x_unsigned;
template <> struct x_unsigned<int32_t> {
    typedef uint32_t type;
};
template <> struct x_unsigned<int64_t> {
    typedef uint64_t type;
};
template <typename I> AOTK_INLINE I x_div(I a, I b) {
    typedef typename x_unsigned<I>::type U;
    return (I)((U)a / (U)b);
}
template <typename I> AOTK_INLINE I x_rem(I a, I b) {
    typedef typename x_unsigned<I>::type U;
    return (I)((U)a % (U)b);
}
template <typename I> AOTK_INLINE I x_floordiv(I a, I b) {
    const I q = a / b;
    return a % b < 0 ? q - 1 : q;
}
template <typename I> AOTK_INLINE I x_mod(I a, I b) {
    const I r = a % b;
    return r < 0 ? r + b : r;
}
/* 0 ≤ x < limit. */
AOTK_INLINE bool x_below(int64_t x, int64_t limit) { return (uint64_t)x < (uint64_t)limit; }

/* N neighbouring elements, which one access moves where they fill at most 16 bytes. */
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) aotk_vector {
    T at[N];
};
template <int N, typename T> AOTK_INLINE aotk_vector<T, N> aotk_vector_load(const T *p) {
    return *(const aotk_vector<T, N> *)p;
}
template <int N, typename T> AOTK_INLINE void aotk_vector_store(T *p, const aotk_vector<T, N> &x) {
    *(aotk_vector<T, N> *)p = x;
}
