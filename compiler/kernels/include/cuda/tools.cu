/* What a worker does to operands on the device: fill, poison, compare, look for damage. Not a candidate: its kernels take plain
 * parameters, and are launched by the worker's measuring child alone, which mirrors `lattice` and `seen`. Values are those that the same
 * spec gives on a CPU. */
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

/* Element types, in the order of the protocol. */
enum { F16, BF16, F32, F64, I8, I16, I32, I64, U8, BOOL };

/* The places that hold values: offset + Σ i_k * stride_k, in elements; `places` is the product of the sizes. */
struct lattice {
    int64_t offset, places;
    int64_t size[8], stride[8];
    int64_t rank;
};

/* What a comparison has seen. */
struct seen {
    double difference, norm;
    uint64_t unwritten, not_finite;
};

#define TOOL extern "C" __global__ void __launch_bounds__(256)
#define FIRST ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x)
#define STEP ((uint64_t)gridDim.x * blockDim.x)

/* Where the place number `n` is. */
static __device__ __forceinline__ int64_t place(const lattice &at, uint64_t n) {
    int64_t element = at.offset;
    for (int d = (int)at.rank - 1; d > 0; d--) {
        const uint64_t size = (uint64_t)at.size[d];
        /* Division of 64 bits takes several times as long, and is hardly ever needed. */
        const uint64_t rest = (n | size) >> 32 ? n / size : (uint32_t)n / (uint32_t)size;
        element += (int64_t)(n - rest * size) * at.stride[d];
        n = rest;
    }
    return at.rank > 0 ? element + (int64_t)n * at.stride[0] : element;
}

static __device__ __forceinline__ void store(void *out, int dtype, int64_t i, double value) {
    switch (dtype) {
    case F16: {
        uint16_t bits;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"((float)value));
        ((uint16_t *)out)[i] = bits;
        return;
    }
    case BF16: {
        /* To the nearest, halves to even; values are finite. */
        const uint32_t bits = __float_as_uint((float)value);
        ((uint16_t *)out)[i] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        return;
    }
    case F32: ((float *)out)[i] = (float)value; return;
    case F64: ((double *)out)[i] = value; return;
    case I8: ((int8_t *)out)[i] = (int8_t)floor(value); return;
    case I16: ((int16_t *)out)[i] = (int16_t)floor(value); return;
    case I32: ((int32_t *)out)[i] = (int32_t)floor(value); return;
    case I64: ((int64_t *)out)[i] = (int64_t)floor(value); return;
    case U8: ((uint8_t *)out)[i] = (uint8_t)floor(value); return;
    default: ((uint8_t *)out)[i] = value >= 1.0; return;
    }
}

/* Reads one element; `poison` is set when it is a float of ones only. */
static __device__ __forceinline__ double load(const void *in, int dtype, int64_t i, bool &poison) {
    poison = false;
    switch (dtype) {
    case F16: {
        const uint16_t bits = ((const uint16_t *)in)[i];
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        poison = bits == 0xFFFF;
        return value;
    }
    case BF16: {
        const uint16_t bits = ((const uint16_t *)in)[i];
        poison = bits == 0xFFFF;
        return __uint_as_float((uint32_t)bits << 16);
    }
    case F32: {
        const uint32_t bits = ((const uint32_t *)in)[i];
        poison = bits == 0xFFFFFFFFu;
        return __uint_as_float(bits);
    }
    case F64: {
        const int64_t bits = ((const int64_t *)in)[i];
        poison = bits == -1;
        return __longlong_as_double(bits);
    }
    case I8: return ((const int8_t *)in)[i];
    case I16: return ((const int16_t *)in)[i];
    case I32: return ((const int32_t *)in)[i];
    case I64: return (double)((const int64_t *)in)[i];
    default: return ((const uint8_t *)in)[i];
    }
}

static __device__ __forceinline__ uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

/* Draws value number `first + n` of SplitMix64 for each place n: normal with deviation `a` (a sum of four uniforms), or uniform over
 * [a, b). */
TOOL aotk_tools_fill(void *out, int dtype, lattice at, uint64_t seed, uint64_t first, int normal, double a, double b) {
    for (uint64_t n = FIRST; n < (uint64_t)at.places; n += STEP) {
        const uint64_t bits = mix(seed + (first + n + 1) * 0x9E3779B97F4A7C15ull);
        double value;
        if (normal) {
            int64_t sum = 0;
            for (int k = 0; k < 4; k++) sum += (int64_t)(bits >> 16 * k & 0xFFFF);
            value = (double)(sum - 131070) / 37837.2272451 * a;
        } else {
            value = a + (double)(bits >> 11) * (1.0 / 9007199254740992.0) * (b - a);
        }
        store(out, dtype, place(at, n), value);
    }
}

/* Writes `size` bytes of `byte` at each place. */
TOOL aotk_tools_poison(void *out, int size, int byte, lattice at) {
    const uint64_t pattern = 0x0101010101010101ull * (uint8_t)byte;
    for (uint64_t n = FIRST; n < (uint64_t)at.places; n += STEP) {
        const int64_t i = place(at, n);
        switch (size) {
        case 1: ((uint8_t *)out)[i] = (uint8_t)pattern; break;
        case 2: ((uint16_t *)out)[i] = (uint16_t)pattern; break;
        case 4: ((uint32_t *)out)[i] = (uint32_t)pattern; break;
        default: ((uint64_t *)out)[i] = pattern;
        }
    }
}

static __device__ __forceinline__ double sum_of_warp(double x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, d);
    return x;
}

/* Adds to `out` how `got` differs from `reference` on the lattice, and wipes those places of `got`: what is left must be zero. */
TOOL aotk_tools_compare(void *got, const void *reference, int dtype, int size, lattice at, seen *out) {
    double difference = 0, norm = 0;
    uint32_t unwritten = 0, not_finite = 0;
    for (uint64_t n = FIRST; n < (uint64_t)at.places; n += STEP) {
        const int64_t i = place(at, n);
        bool poison, other;
        const double g = load(got, dtype, i, poison), r = load(reference, dtype, i, other);
        if (poison) {
            unwritten++;
        } else if (!isfinite(g)) {
            /* Equal infinities agree; a NaN agrees with a NaN. */
            not_finite += g != r && !(isnan(g) && isnan(r));
        } else {
            difference += (g - r) * (g - r);
            norm += r * r;
        }
        switch (size) {
        case 1: ((uint8_t *)got)[i] = 0; break;
        case 2: ((uint16_t *)got)[i] = 0; break;
        case 4: ((uint32_t *)got)[i] = 0; break;
        default: ((uint64_t *)got)[i] = 0;
        }
    }
    difference = sum_of_warp(difference);
    norm = sum_of_warp(norm);
    for (int d = 16; d > 0; d /= 2) {
        unwritten += __shfl_xor_sync(0xFFFFFFFFu, unwritten, d);
        not_finite += __shfl_xor_sync(0xFFFFFFFFu, not_finite, d);
    }
    if (threadIdx.x % 32 == 0) {
        atomicAdd(&out->difference, difference);
        atomicAdd(&out->norm, norm);
        if (unwritten) atomicAdd(&out->unwritten, (uint64_t)unwritten);
        if (not_finite) atomicAdd(&out->not_finite, (uint64_t)not_finite);
    }
}

/* Adds to `sum` a checksum that any change of a word changes. `from` is aligned to 8 bytes. */
TOOL aotk_tools_checksum(const void *from, uint64_t bytes, uint64_t *sum) {
    uint64_t mine = 0;
    for (uint64_t n = FIRST; n < (bytes + 7) / 8; n += STEP) {
        uint64_t word = 0;
        if (n * 8 + 8 <= bytes)
            word = ((const uint64_t *)from)[n];
        else
            for (uint64_t k = n * 8; k < bytes; k++) word = word << 8 | ((const uint8_t *)from)[k];
        mine += mix(word ^ n * 0x9E3779B97F4A7C15ull);
    }
    for (int d = 16; d > 0; d /= 2) mine += __shfl_xor_sync(0xFFFFFFFFu, mine, d);
    if (threadIdx.x % 32 == 0) atomicAdd(sum, mine);
}

/* Lowers `first` to the number of the first byte that is not `value`. Words of 8 bytes around both ends may be read. */
TOOL aotk_tools_differs(const uint8_t *from, uint64_t bytes, int value, uint64_t *first) {
    const uint64_t skew = (uint64_t)from & 7, pattern = 0x0101010101010101ull * (uint8_t)value;
    const uint64_t *words = (const uint64_t *)(from - skew);
    for (uint64_t n = FIRST; n < (bytes + skew + 7) / 8; n += STEP) {
        if (words[n] == pattern) continue;
        for (uint64_t k = 0; k < 8; k++) {
            const uint64_t byte = n * 8 + k;
            if (byte >= skew && byte < skew + bytes && ((const uint8_t *)(words + n))[k] != (uint8_t)value) {
                atomicMin(first, byte - skew);
                break;
            }
        }
    }
}

/* Keeps the device busy for so many nanoseconds, while the host hands in what is to follow without a gap. */
TOOL aotk_tools_spin(uint64_t nanoseconds) {
    uint64_t start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
