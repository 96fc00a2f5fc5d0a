/* cuda_conv_stem@1 blocks=2 bn=32 chunk=7 rows=7 runs=0 split=1 tall=1 wgs=2 for cuda-sm_90, from cuda/conv_stem.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_conv_stem_bias_relu__blocks2_bn32_chunk7_rows7_runs0_split1_tall1_wgs2__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Convolution of a row-major float input with few channels into NHWC, as at the start of a network.
 *
 * A unit of work is 7 rows of the output, times one of 1 ranges of its columns. Each has a block. It copies the input of a unit
 * to shared memory, converted and with the channels of a pixel side by side, so that a row of the window is one run of elements.
 * A warp takes a strip of 16 neighbouring pixels of TALL rows; 4 warps with a strip each are a product of wgmma.
 * Its left operands are gathered from the copy into registers, a row of the input at a time and once for all the rows of the output that it is part of.
 * The right operands lie in shared memory.
 *
 * The sum runs over slots of 4 pairs of elements, one for each lane of a quad. Pairs past the end of a row of the window have zero weights, so a
 * number that is not finite also shows in the pixels just left of those that it is part of.
 */
#define CHANNELS 3
#define LANES 3                   /* of a pixel in the copy: CHANNELS, or one more so that every pixel starts with a pair */
#define OUT_CHANNELS 32
#define OUT_LANES 32
#define IN_H 20
#define IN_W 20
#define CONV_H 10
#define CONV_W 10
#define OUT_H 10
#define OUT_W 10
#define KERNEL_H 7
#define KERNEL_W 7
#define STRIDE_H 2
#define STRIDE_W 2
#define PAD_TOP 3
#define PAD_LEFT 3

#define ROWS 7
#define TALL 1                    /* rows of the convolution that a warp computes together */
#define WARPGROUPS 2
#define THREADS (128 * WARPGROUPS)
#define BN 32                        /* output channels of a block */
#define PANELS 1
#define CHUNK 7                  /* rows of the input whose left operands are loaded together */

#define BANDS ((OUT_H + ROWS - 1) / ROWS)
#define STRIPS 1                /* of a unit */
#define STRIP 16
#define CONV_ROWS ((ROWS + TALL - 1) / TALL * TALL)
#define CONV_COLUMNS (STRIPS * 16)

#define ROW_SLOTS ((KERNEL_W * LANES + 7) / 8)
#define SLOTS (KERNEL_H * ROW_SLOTS)
#define STEP_SLOTS 1
#define STEPS ((SLOTS + STEP_SLOTS - 1) / STEP_SLOTS)

/* A copy of the input: SHIFT pixels before those that are needed, so that fetches are aligned, and an element if needed so that windows begin with a pair. */
#define SHIFT 1
#define ODD (SHIFT * LANES % 2)
#define COPY_H ((CONV_ROWS - 1) * STRIDE_H + KERNEL_H)
#define COPY_QUADS ((SHIFT + (CONV_COLUMNS - 1) * STRIDE_W + (8 * ROW_SLOTS + LANES - 1) / LANES + 3) / 4)
#define PITCH (COPY_QUADS * 2 * LANES + ODD) /* in pairs */
#define COPY (COPY_H * PITCH)
#define WINDOW ((SHIFT * LANES + ODD) / 2)   /* the first window's first pair */
/* It is fetched in pieces of a row, 4 pixels for each lane of a warp. */
#define ROW_PIECES ((COPY_QUADS + 31) / 32)
#define WARPS (THREADS / 32)
#define ITERATIONS (((ROWS + TALL - 1) / TALL * STRIPS + WARPS - 1) / WARPS)

/* Elements of 16 bytes of the output. A lane of a quad holds that many neighbouring channels of every 4 * VECTOR. */
typedef float out_t;
#define VECTOR (16 / (int)sizeof(out_t))
#define GROUPS (BN / (4 * VECTOR))

typedef uint2 pair;

AOTK_INLINE uint32_t tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}
AOTK_INLINE void put_one(pair *to, int at, float x) { ((uint32_t *)to)[at] = tf32(x); }
AOTK_INLINE void put_two(pair *to, float low, float high) { *to = make_uint2(tf32(low), tf32(high)); }

/* The output channel of column n of the product, counted from the block's first. */
AOTK_INLINE int column_channel(int n) {
    const int tile = n / 8, t = n % 8 / 2, odd = n % 2;
    return tile / (VECTOR / 2) * (4 * VECTOR) + t * VECTOR + tile % (VECTOR / 2) * 2 + odd;
}

/* Weights as wgmma reads them: [16 bytes of a column][column], without swizzle. */
#define WEIGHT_WORDS (STEPS * 2 * BN * 4)

AOTK_INLINE void copy_weights(const float *from, uint32_t *to, int first) {
    const int t = threadIdx.x % 4;
    for (int n = threadIdx.x / 4; n < BN; n += THREADS / 4) {
        const int o = first + column_channel(n);
#pragma unroll
        for (int slot = 0; slot < STEPS * STEP_SLOTS; slot++) {
            float value[2] = {};
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const int at = slot % ROW_SLOTS * 8 + t * 2 + k, kw = at / LANES, c = at % LANES;
                if (slot < SLOTS && kw < KERNEL_W && c < CHANNELS && o < OUT_CHANNELS) value[k] = from[((o * KERNEL_H + slot / ROW_SLOTS) * KERNEL_W + kw) * CHANNELS + c];
            }
            to[(2 * slot * BN + n) * 4 + t] = __float_as_uint(value[0]);
            to[((2 * slot + 1) * BN + n) * 4 + t] = __float_as_uint(value[1]);
        }
    }
}

/* Where the input of a unit begins: the first row and column may lie outside of the image. */
struct source {
    const float *image;
    int y, x;
};

AOTK_INLINE void fetch(float (&value)[CHANNELS][4], const source &from, int piece) {
    const int x = from.x + (piece % ROW_PIECES * 32 + threadIdx.x % 32) * 4, row = piece / ROW_PIECES, y = from.y + row;
    const float *const p = from.image + y * IN_W + x;
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        value[c][0] = value[c][1] = value[c][2] = value[c][3] = 0;
        if (row < COPY_H && (unsigned)y < IN_H && (unsigned)x < IN_W) *(float4 *)value[c] = *(const float4 *)(p + c * (IN_H * IN_W));
    }
}

AOTK_INLINE void put(const float (&value)[CHANNELS][4], pair *to, int piece) {
    const int quad = piece % ROW_PIECES * 32 + threadIdx.x % 32, row = piece / ROW_PIECES;
    if (row >= COPY_H || quad >= COPY_QUADS) return;
    float element[4 * LANES];
#pragma unroll
    for (int i = 0; i < 4 * LANES; i++) element[i] = i % LANES < CHANNELS ? value[i % LANES][i / LANES] : 0;
    to += row * PITCH + quad * (2 * LANES);
    if (ODD) put_one(to, 1, element[0]);
#pragma unroll
    for (int i = ODD; i + 1 < 4 * LANES; i += 2) put_two(to + (i + ODD) / 2, element[i], element[i + 1]);
    if (ODD) put_one(to, 4 * LANES, element[4 * LANES - 1]);
}

AOTK_INLINE void step(float (&acc)[BN / 8][4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t weights, int first) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.eq.b32 p, %21, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k8.f32.tf32.tf32 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "{ %16, %17, %18, %19}, %20, p, 1, 1;\n}"
        : "+f"(acc[0][0]), "+f"(acc[0][1]), "+f"(acc[0][2]), "+f"(acc[0][3]), "+f"(acc[1][0]), "+f"(acc[1][1]), "+f"(acc[1][2]), "+f"(acc[1][3]), "+f"(acc[2][0]), "+f"(acc[2][1]), "+f"(acc[2][2]), "+f"(acc[2][3]), "+f"(acc[3][0]), "+f"(acc[3][1]), "+f"(acc[3][2]), "+f"(acc[3][3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(weights), "r"(first));
}

/* Waits until at most n of the groups of products are under way. */
#define AWAIT(n) asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n) : "memory")

/* Starts the products of a warp's strip; low and high are the first pairs of pixels lane / 4 and lane / 4 + 8, moved by lane % 4. Each chunk is a group of products for each row of the
 * output. When the slots do not fill the last step, it takes the next slot of the input along, so that all rows use the same pairs of registers. */
#define STRIP_H ((TALL - 1) * STRIDE_H + KERNEL_H)
AOTK_INLINE void multiply(float (&acc)[TALL][BN / 8][4], const pair *low, const pair *high, uint64_t weights) {
    pair a[STRIP_H * ROW_SLOTS + 1][2];
    a[STRIP_H * ROW_SLOTS][0] = a[STRIP_H * ROW_SLOTS][1] = pair();
#pragma unroll
    for (int from = 0; from < STRIP_H; from += CHUNK) {
        const int to = from + CHUNK < STRIP_H ? from + CHUNK : STRIP_H;
        if (from >= 2 * CHUNK) AWAIT(TALL);
#pragma unroll
        for (int i = from * ROW_SLOTS; i < to * ROW_SLOTS; i++) {
            a[i][0] = low[i / ROW_SLOTS * PITCH + i % ROW_SLOTS * 4];
            a[i][1] = high[i / ROW_SLOTS * PITCH + i % ROW_SLOTS * 4];
        }
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int tile = 0; tile < TALL; tile++) {
#pragma unroll
            for (int s = 0; s < STEPS; s++) {
                /* A step starts in the chunk that completes it. */
                const int slot = tile * STRIDE_H * ROW_SLOTS + s * STEP_SLOTS, row = (slot + STEP_SLOTS - 1) / ROW_SLOTS;
                if ((row < STRIP_H ? row : STRIP_H - 1) < from || (row < STRIP_H ? row : STRIP_H - 1) >= to) continue;
                step(acc[tile], a[slot][0].x, a[slot][1].x, a[slot][0].y, a[slot][1].y, weights + s * (2 * BN), s == 0);
            }
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        }
    }
}

/* Waits for the products of row `tile` of the strip. */
template <int tile>
AOTK_INLINE void await(float (&acc)[TALL][BN / 8][4]) {
    AWAIT(TALL - 1 - tile);
#pragma unroll
    for (int i = 0; i < BN / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) asm volatile("" : "+f"(acc[tile][i][e]));
}

/* Of one or two elements; NaN stays. */
AOTK_INLINE uint32_t larger(uint32_t a, uint32_t b) {
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(__uint_as_float(a)), "f"(__uint_as_float(b)));
    return __float_as_uint(c);
}

/* A lane's channels of one pixel, as they are stored. */
struct pixel {
    uint32_t word[GROUPS][4];
};

/* The fused steps but the last, max(0, x), which is cheaper once elements are packed. */
AOTK_INLINE pixel finish(const float (&acc)[BN / 8][4], int half, const float *bias, int t) {
    pixel result;
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
        float value[VECTOR];
#pragma unroll
        for (int v = 0; v < VECTOR; v++) {
            const float x = acc[group * (VECTOR / 2) + v / 2][2 * half + v % 2];
            const float bias1 = bias[0 * BN + group * (4 * VECTOR) + t * VECTOR + v];
            value[v] = s_add(x, bias1);
        }
#pragma unroll
        for (int w = 0; w < 4; w++) {
            result.word[group][w] = tf32(value[w]);
            result.word[group][w] = larger(result.word[group][w], 0);
        }
    }
    return result;
}

/* `to` is the pixel's channel `channel`, which is the lane's first. */
AOTK_INLINE void store(out_t *to, int channel, const pixel &from) {
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
        const int at = group * (4 * VECTOR), left = OUT_CHANNELS - channel - at;
        const uint32_t(&word)[4] = from.word[group];
        if (left >= VECTOR) {
            *(uint4 *)(to + at) = make_uint4(word[0], word[1], word[2], word[3]);
        }
    }
}


extern "C" __global__ void __launch_bounds__(THREADS, 2) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    extern __shared__ __align__(128) uint32_t shared[];
    uint32_t *const weights = shared;
    float *const bias = (float *)(weights + WEIGHT_WORDS);
    pair *const copies = (pair *)(bias + 1 * BN);

    const int block = blockIdx.x / PANELS;
    const int64_t units = (int64_t)(AOTK_DIM(0)) * (BANDS * 1);
    const int unit = block, begin = unit;
    if (unit >= units) return;

    const int first = blockIdx.x % PANELS * BN;
    copy_weights((const float *)AOTK_WEIGHT(0), weights, first);
    for (int i = threadIdx.x; i < BN; i += THREADS) bias[0 * BN + i] = first + i < OUT_CHANNELS ? ((const float *)AOTK_WEIGHT(1))[first + i] : 0;
    /* wgmma reads the weights through another proxy than the one that wrote them. */
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    /* Without swizzle: the address, the distance of the two halves of a step, that of groups of 8 columns. */
    const uint64_t weights_of_step = ((uint32_t)__cvta_generic_to_shared(weights) >> 4) | (uint64_t)BN << 16 | (uint64_t)8 << 32;

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    aotk_wait();
    aotk_release();
    /* The first row and column of the convolution that a unit computes. */
#define Y0(unit) ((unit) % BANDS * ROWS)
#define X0(unit) ((unit) / BANDS % 1 * (STRIPS * STRIP))
    const auto input = [&](int unit) {
        const float *const image = (const float *)AOTK_IN(0) + (int64_t)(unit / (BANDS * 1)) * (CHANNELS * IN_H * IN_W);
        return source{image, Y0(unit) * STRIDE_H - PAD_TOP, X0(unit) * STRIDE_W - PAD_LEFT - SHIFT};
    };
    const source start = input(begin);
    for (int piece = warp; piece < COPY_H * ROW_PIECES; piece += 4 * WARPS) {
        float value[4][CHANNELS][4];
#pragma unroll
        for (int i = 0; i < 4; i++) fetch(value[i], start, piece + i * WARPS);
#pragma unroll
        for (int i = 0; i < 4; i++) put(value[i], copies, piece + i * WARPS);
    }
    __syncthreads();

    float acc[TALL][BN / 8][4];
    {
        const int y0 = Y0(unit), x0 = X0(unit), row0 = unit % BANDS * ROWS, rows = OUT_H - row0 < ROWS ? OUT_H - row0 : ROWS;
        const pair *const copy = copies;
        out_t *const out = (out_t *)AOTK_OUT(0) + ((int64_t)(unit / (BANDS * 1)) * OUT_H + row0) * (OUT_W * OUT_LANES) + first + t * VECTOR;
        const int tiles = (rows + TALL - 1) / TALL * STRIPS;
        for (int i = 0; i < ITERATIONS; i++) {
            const bool mine = i * WARPS + warp < tiles;
            const int tile = mine ? i * WARPS + warp : 0, row = tile / STRIPS * TALL, column = tile % STRIPS * STRIP + g;
            const pair *const x = copy + WINDOW + row * (STRIDE_H * PITCH) + column * (STRIDE_W * LANES / 2) + t;
            multiply(acc, x, x + 8 * STRIDE_W * LANES / 2, weights_of_step);
            await<0>(acc);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const pixel result = finish(acc[0], half, bias, t);
                const int x = x0 + column + 8 * half;
                if (mine && row + 0 < rows && x < OUT_W) store(out + ((row + 0) * OUT_W + x) * OUT_LANES, first + t * VECTOR, result);
            }
        }
    }
}
