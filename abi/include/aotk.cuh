/* The CUDA kernel ABI: what every rendered CUDA kernel is called with. Opens every translation unit; includes no header of the
 * toolkit, because parsing those costs more than compiling the kernel, and so that NVRTC alone is enough to build it.
 *
 * A unit defines before this text: AOTK_SYMBOL, AOTK_INPUTS, AOTK_WEIGHTS, AOTK_OUTPUTS, AOTK_DIMS (counts), AOTK_SM, AOTK_NARROW
 * (1 where results have at most 11 bits of mantissa, so that functions may be approximate).
 * A kernel is
 *
 *     extern "C" __global__ void __launch_bounds__(THREADS) AOTK_SYMBOL(const __grid_constant__ aotk_call call) { … }
 *
 * and is launched as its candidate's `Launch` says: a grid computed from the sizes, a block of one dimension, dynamic shared memory,
 * perhaps clusters. Pointers are 256-byte aligned, but for the inputs and outputs of the model, which are the caller's: those are 16-byte
 * aligned. The workspace's contents are undefined on entry. Up to 64 bytes past the end of a buffer may be read, not written.
 *
 * Kernels follow each other by programmatic dependent launch: one may start while the one before still runs. So every thread calls
 * aotk_wait() before it touches an input, an output or the workspace for the first time; weights may be read before, as no kernel
 * writes them. aotk_release() lets the next kernel start its own prologue; call it when all that is left is to finish. */
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

#define AOTK_WORDS (AOTK_INPUTS + AOTK_WEIGHTS + AOTK_OUTPUTS + 1 + AOTK_DIMS)

/* One kernel call: pointers to inputs, weights and outputs, the workspace, the dynamic sizes. */
struct aotk_call {
    uint64_t word[AOTK_WORDS];
};

#define AOTK_IN(k) ((const void *)call.word[(k)])
#define AOTK_WEIGHT(k) ((const void *)call.word[AOTK_INPUTS + (k)])
#define AOTK_OUT(k) ((void *)call.word[AOTK_INPUTS + AOTK_WEIGHTS + (k)])
#define AOTK_WORKSPACE ((void *)call.word[AOTK_INPUTS + AOTK_WEIGHTS + AOTK_OUTPUTS])
#define AOTK_DIM(k) ((int64_t)call.word[AOTK_INPUTS + AOTK_WEIGHTS + AOTK_OUTPUTS + 1 + (k)])

#define AOTK_INLINE __device__ __forceinline__

AOTK_INLINE void aotk_wait() {
#if AOTK_SM >= 90
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

AOTK_INLINE void aotk_release() {
#if AOTK_SM >= 90
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Storage types. All arithmetic is in float (or double): a value is converted when it is loaded and when it is stored. */
struct aotk_bf16 {
    uint16_t bits;
};
struct aotk_f16 {
    uint16_t bits;
};

AOTK_INLINE float aotk_float(float x) { return x; }
AOTK_INLINE float aotk_float(aotk_bf16 x) { return __int_as_float((int32_t)x.bits << 16); }
AOTK_INLINE float aotk_float(aotk_f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

/* To the nearest, halves to even. */
AOTK_INLINE void aotk_store(float *p, float x) { *p = x; }
AOTK_INLINE void aotk_store(aotk_bf16 *p, float x) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    p->bits = bits;
}
AOTK_INLINE void aotk_store(aotk_f16 *p, float x) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    p->bits = bits;
}

/* Two floats as two elements of 16 bits in one word, the first in the low half. */
AOTK_INLINE uint32_t aotk_pack(aotk_bf16, float low, float high) {
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
AOTK_INLINE uint32_t aotk_pack(aotk_f16, float low, float high) {
    uint32_t bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
