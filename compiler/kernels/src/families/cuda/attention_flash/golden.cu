/* cuda_attention_flash@1 bk=32 mt=1 stages=2 warps=2 for cuda-sm_90, from cuda/attention_flash.cu.j2 */
#define AOTK_SYMBOL aot_bf16_cuda_attention_flash__bk32_mt1_stages2_warps2__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Attention in one pass over the keys, on tensor cores: scores never leave the registers, and what is summed so far is scaled anew
 * when a larger score turns up (Dao, FlashAttention-2, 2023).
 *
 * A block takes BQ rows of query, MT fragments of 16 for each of its WARPS. BK rows of key and value at a time come through STAGES
 * buffers. */
typedef aotk_bf16 element;
typedef aotk_bf16 result;

#define WIDTH 64   /* columns of query and key */
#define VALUES 64 /* columns of value */
#define WARPS 2
#define MT 1
#define BK 32
#define STAGES 2
#define THREADS (32 * WARPS)
#define BQ (16 * MT * WARPS)
#define TF32 (sizeof(element) == 4)

#define CHUNK (16 / (int)sizeof(element))
#define DEPTH (32 / (int)sizeof(element)) /* of one mma.sync */
#define STEPS ((WIDTH + DEPTH - 1) / DEPTH)
#define VALUE_PAIRS ((VALUES + 15) / 16) /* of fragments */
#define PITCH pitch(STEPS * 32)
#define PITCH_V pitch(VALUE_PAIRS * 16 * (int)sizeof(element))
#define Q_BYTES (BQ * PITCH)
#define K_BYTES (BK * PITCH)
#define STAGE_BYTES (K_BYTES + BK * PITCH_V)
#define KEPT (STEPS * MT <= 8) /* the rows of query stay in registers */

AOTK_INLINE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

extern "C" __global__ void __launch_bounds__(THREADS) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    extern __shared__ __align__(128) char memory[];
    const uint32_t to_q = shared_address(memory), buffers = to_q + Q_BYTES;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int rows = (int)AOTK_DIM(1), keys = (int)AOTK_DIM(1);
    const int64_t b = blockIdx.x / ((int64_t)2), h = blockIdx.x % ((int64_t)2);
    const int row0 = blockIdx.y * BQ, count = (keys + BK - 1) / BK;
    const element *const q = (const element *)AOTK_IN(0) + ((int64_t)0) + b * AOTK_DIM(2) + h * ((int64_t)64) + row0 * ((int64_t)384);
    const element *const k = (const element *)AOTK_IN(1) + ((int64_t)128) + b * AOTK_DIM(2) + h * ((int64_t)64);
    const element *const v = (const element *)AOTK_IN(2) + ((int64_t)256) + b * AOTK_DIM(2) + h * ((int64_t)64);
    const auto whole = [](int64_t offset, int64_t batch, int64_t head, int64_t row) { return (offset | batch | head | row) % CHUNK == 0; };
    const bool whole_q = whole(((int64_t)0), AOTK_DIM(2), ((int64_t)64), ((int64_t)384));
    const bool whole_k = whole(((int64_t)128), AOTK_DIM(2), ((int64_t)64), ((int64_t)384));
    const bool whole_v = whole(((int64_t)256), AOTK_DIM(2), ((int64_t)64), ((int64_t)384));

    const auto load = [&](int stage, int block) {
        const uint32_t to = buffers + stage * STAGE_BYTES;
        const int from = block * BK;
        copy_tile<BK, STEPS * DEPTH, PITCH, THREADS>(to, k + from * ((int64_t)384), ((int64_t)384), keys - from, WIDTH, whole_k);
        copy_tile<BK, VALUE_PAIRS * 16, PITCH_V, THREADS>(to + K_BYTES, v + from * ((int64_t)384), ((int64_t)384), keys - from, VALUES, whole_v);
    };
    aotk_wait();
    aotk_release();
    copy_tile<BQ, STEPS * DEPTH, PITCH, THREADS>(to_q, q, ((int64_t)384), rows - row0, WIDTH, whole_q);
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < count) load(s, s);
        copy_commit();
    }

    /* This lane's rows and chunks for ldmatrix. */
    const uint32_t lane_q = to_q + (warp * (16 * MT) + lane % 16) * PITCH + lane / 16 * 16;
    const uint32_t lane_k = buffers + (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16;
    /* In tf32 the keys of a step are taken as 0, 2, 4, 6, 1, 3, 5, 7: so this thread has the weights that it multiplies. */
    const uint32_t lane_v =
        buffers + K_BYTES + (TF32 ? lane % 4 * 2 * PITCH_V + lane / 4 * 4 : lane % 16 * PITCH_V + lane / 16 * 16);
    const auto load_q = [&](uint32_t (&f)[MT][4], int step) {
#pragma unroll
        for (int i = 0; i < MT; i++) {
            load_fragments(f[i], lane_q + i * (16 * PITCH) + step * 32);
            if (TF32) round_operands(f[i]);
        }
    };
    uint32_t kept[KEPT ? STEPS : 1][MT][4];

    const float never = -__int_as_float(0x7f800000);
    const float scale = 0.43280852f; /* scores are powers of 2 */
    /* Of rows lane / 4 and lane / 4 + 8 of each fragment: the largest score, this thread's share of the sum of weights, and the mix. */
    float largest[MT][2], total[MT][2] = {}, mix[MT][2 * VALUE_PAIRS][4] = {};
#pragma unroll
    for (int i = 0; i < MT; i++) largest[i][0] = largest[i][1] = never;
    int stage = 0, free = STAGES - 1;
#pragma unroll 1
    for (int block = 0; block < count; block++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (block + STAGES - 1 < count) load(free, block + STAGES - 1);
        copy_commit();
        if (KEPT && block == 0) {
#pragma unroll
            for (int step = 0; step < STEPS; step++) load_q(kept[step], step);
        }

        float score[MT][BK / 8][4] = {};
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t fresh[MT][4];
            if (!KEPT) load_q(fresh, step);
            uint32_t(&f)[MT][4] = KEPT ? kept[step] : fresh;
#pragma unroll
            for (int j = 0; j < BK / 16; j++) {
                uint32_t g[4];
                load_fragments(g, lane_k + stage * STAGE_BYTES + j * (16 * PITCH) + step * 32);
                if (TF32) round_operands(g);
#pragma unroll
                for (int i = 0; i < MT; i++) {
                    multiply_add(element(), score[i][2 * j], f[i], g[0], g[1]);
                    multiply_add(element(), score[i][2 * j + 1], f[i], g[2], g[3]);
                }
            }
        }

        const int key0 = block * BK + lane % 4 * 2, first = row0 + warp * (16 * MT);
        const bool edge = (block + 1) * BK > keys;
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) {
            const int row = first + i * 8 + lane / 4, half = i % 2 * 2;
            float(&x)[BK / 8][4] = score[i / 2];
            float &most = largest[i / 2][i % 2], before = most;
#pragma unroll
            for (int j = 0; j < BK / 4; j++) {
                const int key = key0 + j / 2 * 8 + j % 2;
                float &at = x[j / 2][half + j % 2];
                at *= scale;
                if (edge && (key >= keys)) at = never;
                most = fmaxf(most, at);
            }
            /* The four lanes that share a row. */
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            /* A row that sees nothing yet, or only NaN. */
            const float base = most == never ? 0.0f : most, factor = exp2_fast(before - base);
            float sum = 0;
#pragma unroll
            for (int j = 0; j < BK / 4; j++) {
                float &at = x[j / 2][half + j % 2];
                at = exp2_fast(at - base);
                sum += at;
            }
            total[i / 2][i % 2] = total[i / 2][i % 2] * factor + sum;
#pragma unroll
            for (int j = 0; j < 2 * VALUE_PAIRS; j++) mix[i / 2][j][half] *= factor, mix[i / 2][j][half + 1] *= factor;
        }

#pragma unroll
        for (int step = 0; step < BK / DEPTH; step++) {
            uint32_t f[MT][4];
#pragma unroll
            for (int i = 0; i < MT; i++) {
                /* The sums of one product lie in the threads as the operands of the next. */
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float *const x = &score[i][2 * step + j / 2][j % 2 * 2];
                    f[i][j] = aotk_pack(element(), x[0], x[1]);
                }
            }
#pragma unroll
            for (int j = 0; j < VALUE_PAIRS; j++) {
                const uint32_t at = lane_v + stage * STAGE_BYTES + step * DEPTH * PITCH_V + j * (16 * (int)sizeof(element));
                uint32_t g[4];
                if (TF32) {
#pragma unroll
                    for (int i = 0; i < 4; i++) g[i] = load_word(at + i % 2 * PITCH_V + i / 2 * 32);
                    round_operands(g);
                } else {
                    load_transposed(g, at);
                }
#pragma unroll
                for (int i = 0; i < MT; i++) {
                    multiply_add(element(), mix[i][2 * j], f[i], g[0], g[1]);
                    multiply_add(element(), mix[i][2 * j + 1], f[i], g[2], g[3]);
                }
            }
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        free = free + 1 == STAGES ? 0 : free + 1;
    }
    copy_wait<0>();

#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        float sum = total[i / 2][i % 2];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const float inverse = sum == 0 ? 0.0f : 1.0f / sum;
        const int row = row0 + warp * (16 * MT) + i * 8 + lane / 4;
        result *const to = (result *)AOTK_OUT(0) + b * AOTK_DIM(3) + h * ((int64_t)64) + row * ((int64_t)128) + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < VALUES / 8; j++)
            if (row < rows) store_pair(to + j * 8, mix[i / 2][j][i % 2 * 2] * inverse, mix[i / 2][j][i % 2 * 2 + 1] * inverse);
    }
}
