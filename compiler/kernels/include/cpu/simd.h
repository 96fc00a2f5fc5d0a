/* Vectors of VLEN f32 lanes in GCC/Clang vector extensions, and the element-wise functions of the IR on vectors (v_*) and on
 * single floats (s_*). Comes after aotk.h. VLEN is the target's full register (16, 8 or 4) unless defined before.
 * Every function is branch-free, so loops over s_* vectorise too. NaN goes through all of them. Errors are relative, in units
 * in the last place (ulp) of f32, and were measured over the whole range. */
#ifndef AOTK_PACK_ONLY

#ifndef VLEN
#define VLEN AOTK_LANES
#endif

typedef float vf __attribute__((vector_size(VLEN * 4), may_alias));
typedef int32_t vi __attribute__((vector_size(VLEN * 4), may_alias));
typedef float vf_unaligned __attribute__((vector_size(VLEN * 4), aligned(4), may_alias));

/* The vector of VLEN equal lanes. (Subtracting zero is exact, and compilers make one broadcast of it.) */
#define v_splat(x) ((float)(x) - (vf){0})

AOTK_INLINE vf v_zero(void) { return (vf){0}; }
/* Aligned and unaligned load and store of VLEN floats. */
AOTK_INLINE vf v_load(const float *p) { return *(const vf *)p; }
AOTK_INLINE vf v_loadu(const float *p) { return *(const vf_unaligned *)p; }
AOTK_INLINE void v_store(float *p, vf x) { *(vf *)p = x; }
AOTK_INLINE void v_storeu(float *p, vf x) { *(vf_unaligned *)p = x; }
/* Stores the first n lanes, n ≤ VLEN. (Reading past the end of a buffer is allowed, so there is no partial load.) */
AOTK_INLINE void v_store_part(float *p, vf x, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = x[i];
}
/* 0, 1, 2, … as lane masks: all bits of lanes below n, none of the others. */
AOTK_INLINE vi v_lanes_below(int32_t n) {
    vi lane;
    for (int32_t i = 0; i < VLEN; i++) lane[i] = i;
    return (vi)(lane < (vi){0} + n);
}
/* x in the lanes of a mask, +0 elsewhere. */
AOTK_INLINE vf v_keep(vi mask, vf x) { return (vf)((vi)x & mask); }

/* The primitives that the functions below are written in, once for vectors … */
AOTK_INLINE vi v_bits(vf x) { return (vi)x; }
AOTK_INLINE vf v_from_bits(vi x) { return (vf)x; }
AOTK_INLINE vi v_isplat(int32_t x) { return (vi){0} + x; }
AOTK_INLINE vf v_select_bits(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
/* a < b ? x : y */
AOTK_INLINE vf v_if_lt(vf a, vf b, vf x, vf y) { return v_select_bits((vi)(a < b), x, y); }
/* max: a > b ? a : b, min: a < b ? a : b; so the second operand wins when one is NaN. */
#if defined(__AVX512F__) && VLEN == 16 && !defined(__clang__)
AOTK_INLINE vf v_max(vf a, vf b) { return (vf)__builtin_ia32_maxps512_mask(a, b, a, (uint16_t)-1, 4); }
AOTK_INLINE vf v_min(vf a, vf b) { return (vf)__builtin_ia32_minps512_mask(a, b, a, (uint16_t)-1, 4); }
AOTK_INLINE vf v_sqrt(vf a) { return (vf)__builtin_ia32_sqrtps512_mask(a, a, (uint16_t)-1, 4); }
AOTK_INLINE vf v_floor(vf a) { return (vf)__builtin_ia32_rndscaleps_mask(a, 9, a, (uint16_t)-1, 4); }
AOTK_INLINE vf v_ceil(vf a) { return (vf)__builtin_ia32_rndscaleps_mask(a, 10, a, (uint16_t)-1, 4); }
AOTK_INLINE vf v_round(vf a) { return (vf)__builtin_ia32_rndscaleps_mask(a, 8, a, (uint16_t)-1, 4); }
#elif defined(__AVX__) && VLEN == 8
AOTK_INLINE vf v_max(vf a, vf b) { return (vf)__builtin_ia32_maxps256(a, b); }
AOTK_INLINE vf v_min(vf a, vf b) { return (vf)__builtin_ia32_minps256(a, b); }
AOTK_INLINE vf v_sqrt(vf a) { return (vf)__builtin_ia32_sqrtps256(a); }
AOTK_INLINE vf v_floor(vf a) { return (vf)__builtin_ia32_roundps256(a, 9); }
AOTK_INLINE vf v_ceil(vf a) { return (vf)__builtin_ia32_roundps256(a, 10); }
AOTK_INLINE vf v_round(vf a) { return (vf)__builtin_ia32_roundps256(a, 8); }
#else
AOTK_INLINE vf v_max(vf a, vf b) { return v_select_bits((vi)(a > b), a, b); }
AOTK_INLINE vf v_min(vf a, vf b) { return v_select_bits((vi)(a < b), a, b); }
#define AOTK_BY_LANE(name, builtin)          \
    AOTK_INLINE vf name(vf a) {            \
        vf r;                              \
        for (int i = 0; i < VLEN; i++) r[i] = builtin(a[i]); \
        return r;                          \
    }
AOTK_BY_LANE(v_sqrt, __builtin_sqrtf)
AOTK_BY_LANE(v_floor, __builtin_floorf)
AOTK_BY_LANE(v_ceil, __builtin_ceilf)
AOTK_BY_LANE(v_round, __builtin_rintf)
#undef AOTK_BY_LANE
#endif

/* … and once for floats. */
#define s_splat(x) ((float)(x))
AOTK_INLINE int32_t s_bits(float x) {
    int32_t r;
    __builtin_memcpy(&r, &x, 4);
    return r;
}
AOTK_INLINE float s_from_bits(int32_t x) {
    float r;
    __builtin_memcpy(&r, &x, 4);
    return r;
}
AOTK_INLINE int32_t s_isplat(int32_t x) { return x; }
AOTK_INLINE float s_if_lt(float a, float b, float x, float y) { return a < b ? x : y; }
AOTK_INLINE float s_max(float a, float b) { return a > b ? a : b; }
AOTK_INLINE float s_min(float a, float b) { return a < b ? a : b; }
AOTK_INLINE float s_sqrt(float a) { return __builtin_sqrtf(a); }
AOTK_INLINE float s_floor(float a) { return __builtin_floorf(a); }
AOTK_INLINE float s_ceil(float a) { return __builtin_ceilf(a); }
/* To the nearest integer, halves to even. */
AOTK_INLINE float s_round(float a) { return __builtin_rintf(a); }

/* The functions, for T = vf, I = vi, P = v_ and for T = float, I = int32_t, P = s_. The polynomials are weighted
 * least-squares fits (minimax by reweighting) of the function named beside them. */
#define AOTK_FUNCTIONS(T, I, P)                                                                                                \
    /* a * b + c in one rounding. */                                                                                           \
    AOTK_INLINE T P##fma(T a, T b, T c) { return a * b + c; }                                                                  \
    AOTK_INLINE T P##add(T a, T b) { return a + b; }                                                                           \
    AOTK_INLINE T P##sub(T a, T b) { return a - b; }                                                                           \
    AOTK_INLINE T P##mul(T a, T b) { return a * b; }                                                                           \
    AOTK_INLINE T P##div(T a, T b) { return a / b; }                                                                           \
    AOTK_INLINE T P##floordiv(T a, T b) { return P##floor(a / b); }                                                            \
    /* The remainder with the divisor's sign. */                                                                               \
    AOTK_INLINE T P##mod(T a, T b) { return a - b * P##floor(a / b); }                                                         \
    AOTK_INLINE T P##neg(T a) { return -a; }                                                                                   \
    AOTK_INLINE T P##abs(T a) { return P##from_bits(P##bits(a) & P##isplat(0x7fffffff)); }                                     \
    /* The magnitude of a (not negative) with the sign of b. */                                                                \
    AOTK_INLINE T P##with_sign(T a, T b) { return P##from_bits(P##bits(a) | (P##bits(b) & P##isplat((int32_t)0x80000000))); }  \
    AOTK_INLINE T P##rsqrt(T a) { return P##splat(1) / P##sqrt(a); }                                                           \
    AOTK_INLINE T P##reciprocal(T a) { return P##splat(1) / a; }                                                               \
    AOTK_INLINE T P##relu(T a) { return P##max(P##splat(0), a); }                                                              \
    AOTK_INLINE T P##clamp(T a, T low, T high) { return P##min(high, P##max(low, a)); }                                        \
    AOTK_INLINE T P##leaky_relu(T a, T slope) { return P##if_lt(P##splat(0), a, a, slope * a); }                               \
    AOTK_INLINE T P##hardsigmoid(T a) { return P##clamp(a + P##splat(3), P##splat(0), P##splat(6)) * P##splat(1.0 / 6); }       \
    AOTK_INLINE T P##hardswish(T a) { return a * P##hardsigmoid(a); }                                                          \
    /* n and r with x = n ln 2 + r, |r| ≤ ln 2 / 2; then e^x = 2^n e^r, in two steps so that neither factor overflows. 1 ulp. */ \
    AOTK_INLINE T P##exp(T a) {                                                                                                \
        const T magic = P##splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */                                \
        T x = P##max(P##splat(-105), P##min(P##splat(89), a));                                                                 \
        T m = x * P##splat(1.44269504088896341) + magic;                                                                       \
        T n = m - magic;                                                                                                       \
        T r = n * P##splat(-0.693145751953125) + x;                                                                            \
        r = n * P##splat(-1.42860682030941723e-6) + r;                                                                         \
        T p = r * P##splat(1.3814467238262296e-3) + P##splat(8.368780836462975e-3); /* (e^r - 1 - r) / r^2 */                  \
        p = p * r + P##splat(4.166839271783829e-2);                                                                            \
        p = p * r + P##splat(1.6666519641876220e-1);                                                                           \
        p = p * r + P##splat(4.9999994039535522e-1);                                                                           \
        p = p * r * r + r + P##splat(1);                                                                                       \
        I k = P##bits(m) - P##bits(magic);                                                                                     \
        I half = k >> 1;                                                                                                       \
        return p * P##from_bits((half + 127) << 23) * P##from_bits((k - half + 127) << 23);                                    \
    }                                                                                                                          \
    /* Natural logarithm; -inf of 0, NaN below. 2 ulp. */                                                                      \
    AOTK_INLINE T P##log(T a) {                                                                                                \
        const T inf = P##from_bits(P##isplat(0x7f800000));                                                                     \
        T x = P##if_lt(a, P##splat(1.17549435e-38), a * P##splat(8388608), a);                                                 \
        T e = P##if_lt(a, P##splat(1.17549435e-38), P##splat(-23), P##splat(0));                                               \
        I k = (P##bits(x) - P##isplat(0x3f3504f3)) >> 23; /* x = 2^k (1 + f), 1 + f in [√½, √2) */                             \
        T n = P##from_bits(k + P##isplat(0x4b400000)) - P##splat(12582912.0f) + e; /* k to float by the same magic number */   \
        T f = P##from_bits(P##bits(x) - (k << 23)) - P##splat(1);                                                              \
        T p = f * P##splat(-7.6344996690750122e-2) + P##splat(1.27615824341774e-1); /* (ln(1 + f) - f + f^2/2) / f^3 */        \
        p = p * f + P##splat(-1.3160184025764465e-1);                                                                          \
        p = p * f + P##splat(1.42017573118209839e-1);                                                                          \
        p = p * f + P##splat(-1.6623356938362122e-1);                                                                          \
        p = p * f + P##splat(2.0001226663589478e-1);                                                                           \
        p = p * f + P##splat(-2.500081956386566e-1);                                                                           \
        p = p * f + P##splat(3.333333134651184e-1);                                                                            \
        T r = n * P##splat(-2.12194440e-4) + (p * f * f * f - P##splat(0.5) * f * f);                                          \
        r = n * P##splat(0.693359375) + (r + f);                                                                               \
        r = P##if_lt(P##splat(0), a, P##if_lt(a, inf, r, a), P##splat(0) / (a * P##splat(0)) - a * P##splat(0));               \
        return P##if_lt(P##abs(a), P##splat(1e-45), -inf, r);                                                                  \
    }                                                                                                                          \
    AOTK_INLINE T P##sigmoid(T a) { return P##splat(1) / (P##splat(1) + P##exp(-a)); }                                         \
    AOTK_INLINE T P##silu(T a) { return a / (P##splat(1) + P##exp(-a)); }                                                      \
    /* 2 ulp. */                                                                                                               \
    AOTK_INLINE T P##tanh(T a) {                                                                                               \
        T x = P##abs(a), z = a * a;                                                                                            \
        T p = z * P##splat(-5.659372545778751e-3) + P##splat(2.0599529147148132e-2); /* (tanh(x) - x) / x^3, x ≤ 0.63 */       \
        p = p * z + P##splat(-5.372802913188934e-2);                                                                           \
        p = p * z + P##splat(1.3331307470798492e-1);                                                                           \
        p = p * z + P##splat(-3.3333277702331543e-1);                                                                          \
        T small = p * z * a + a;                                                                                               \
        T large = P##with_sign(P##splat(1) - P##splat(2) / (P##exp(x + x) + P##splat(1)), a);                                  \
        return P##if_lt(x, P##splat(0.625), small, large);                                                                     \
    }                                                                                                                          \
    /* 2 ulp. */                                                                                                               \
    AOTK_INLINE T P##erf(T a) {                                                                                                \
        T z = a * a;                                                                                                           \
        T p = z * P##splat(-5.953306681476533e-4) + P##splat(4.985855892300606e-3); /* erf(x) / x - 1, x ≤ 0.93 */             \
        p = p * z + P##splat(-2.676166407763958e-2);                                                                           \
        p = p * z + P##splat(1.1281681060791016e-1);                                                                           \
        p = p * z + P##splat(-3.761247992515564e-1);                                                                           \
        p = p * z + P##splat(1.2837915122509003e-1);                                                                           \
        T small = p * a + a;                                                                                                   \
        T x = P##min(P##splat(4), P##abs(a));                                                                                  \
        T q = x * P##splat(-2.139850112143904e-4) + P##splat(3.2149560283869505e-3); /* -ln(1 - erf(x)) / x, 0.92 ≤ x ≤ 4 */   \
        q = q * x + P##splat(-2.2889966145157814e-2);                                                                          \
        q = q * x + P##splat(1.0526184737682343e-1);                                                                           \
        q = q * x + P##splat(6.357182860374451e-1);                                                                            \
        q = q * x + P##splat(1.1285144090652466);                                                                              \
        T large = P##with_sign(P##splat(1) - P##exp(-(q * x)), a);                                                             \
        return P##if_lt(P##abs(a), P##splat(0.925), small, large);                                                             \
    }                                                                                                                          \
    AOTK_INLINE T P##gelu(T a) {                                                                                               \
        T h = P##splat(0.5) * a;                                                                                               \
        return h * P##erf(a * P##splat(0.70710678118654752)) + h;                                                              \
    }                                                                                                                          \
    /* 0.5 a (1 + tanh(√(2/π) (a + 0.044715 a^3))), written with the sigmoid: 1 + tanh(u) = 2 sigmoid(2 u). */                 \
    AOTK_INLINE T P##gelu_tanh(T a) {                                                                                          \
        T u = a * (P##splat(0.0713548162726) * a * a + P##splat(1.59576912160573));                                            \
        return a / (P##splat(1) + P##exp(-u));                                                                                 \
    }                                                                                                                          \
    /* e^a - 1: the exponential's own polynomial near 0, where subtracting would cancel. */                                    \
    AOTK_INLINE T P##expm1(T a) {                                                                                              \
        T t = P##tanh(a * P##splat(0.5)); /* (e^a - 1) = 2 t / (1 - t) */                                                      \
        return P##if_lt(P##abs(a), P##splat(1), (t + t) / (P##splat(1) - t), P##exp(a) - P##splat(1));                         \
    }                                                                                                                          \
    AOTK_INLINE T P##elu(T a, T alpha) { return P##if_lt(P##splat(0), a, a, alpha * P##expm1(a)); }

AOTK_FUNCTIONS(vf, vi, v_)
AOTK_FUNCTIONS(float, int32_t, s_)
#undef AOTK_FUNCTIONS

/* Sine of x + quarters * π/2. The argument is reduced in double, which is exact enough for |x| up to about 2^30. */
AOTK_INLINE float s_sin_quarters(float x, int32_t quarters) {
    double t = (double)x * 0.63661977236758134308 + 6755399441055744.0; /* 1.5 * 2^52 */
    int64_t q;
    __builtin_memcpy(&q, &t, 8);
    double n = t - 6755399441055744.0;
    double r = (double)x - n * 1.57079632679489655800 - n * 6.12323399573676603587e-17;
    q += quarters;
    double z = r * r;
    double s = r + r * z * (-0.1666666664050341 + z * (8.333329270667156e-3 + z * (-1.9839301236625268e-4 + z * 2.7180160961946613e-6)));
    double c = 1 - 0.5 * z + z * z * (0.04166666661895113 + z * (-1.3888883453947428e-3 + z * (2.479944806117171e-5 - z * 2.7204759489641837e-7)));
    double y = (q & 1) ? c : s;
    return (float)((q & 2) ? -y : y);
}
AOTK_INLINE float s_sin(float x) { return s_sin_quarters(x, 0); }
AOTK_INLINE float s_cos(float x) { return s_sin_quarters(x, 1); }
/* a^b through the C library, which has all its special cases. */
AOTK_INLINE float s_pow(float a, float b) { return __builtin_powf(a, b); }

AOTK_INLINE vf v_sin(vf a) {
    for (int i = 0; i < VLEN; i++) a[i] = s_sin(a[i]);
    return a;
}
AOTK_INLINE vf v_cos(vf a) {
    for (int i = 0; i < VLEN; i++) a[i] = s_cos(a[i]);
    return a;
}
AOTK_INLINE vf v_pow(vf a, vf b) {
    for (int i = 0; i < VLEN; i++) a[i] = s_pow(a[i], b[i]);
    return a;
}
/* Sum and largest of the lanes. */
AOTK_INLINE float v_sum(vf a) {
    float s = 0;
    for (int i = 0; i < VLEN; i++) s += a[i];
    return s;
}
AOTK_INLINE float v_largest(vf a) {
    float m = a[0];
    for (int i = 1; i < VLEN; i++) m = m > a[i] ? m : a[i];
    return m;
}

/* Ask for the cache line of p: into all levels, or only into L2 and beyond. */
#define AOTK_PREFETCH(p) __builtin_prefetch((p), 0, 3)
#define AOTK_PREFETCH_L2(p) __builtin_prefetch((p), 0, 2)

#endif
