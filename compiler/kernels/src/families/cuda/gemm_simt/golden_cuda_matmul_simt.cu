/* cuda_matmul_simt@1 bk=16 bm=64 bn=64 stages=3 tm=4 tn=4 for cuda-sm_90, from cuda/gemm_simt.cu.j2 */
#define AOTK_SYMBOL aot_f32_cuda_matmul_simt_bias__bk16_bm64_bn64_stages3_tm4_tn4__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Product of f32 on the plain cores, nothing rounded in between. A block has BM rows (of a) by BN columns of the output, a thread TM by TN of
 * them. Both operands run along K in memory; STAGES pieces of BK of it are under way to shared memory by cp.async. */
#define BM 64
#define BN 64
#define BK 16
#define TM 4
#define TN 4
#define STAGES 3
#define COLUMNS 40
#define DEPTH 24                  /* of the sums */
#define STEPS ((DEPTH + BK - 1) / BK)
#define THREADS_M (BM / TM)
#define THREADS_N (BN / TN)
#define THREADS (THREADS_M * THREADS_N)
#define QUADS (BK / 4)
#define A_QUADS (BM * QUADS / THREADS)     /* that a thread copies of a step */
#define B_QUADS (BN * QUADS / THREADS)
#define PITCH (BK + 4)                     /* so that 8 rows have their quads in different banks */
#define PANELS ((COLUMNS + BN - 1) / BN)

AOTK_INLINE void copy_quad(float *to, const float *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

extern "C" __global__ void __launch_bounds__(THREADS) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    extern __shared__ __align__(16) float shared[];
    float(*const a_tile)[BM][PITCH] = (float(*)[BM][PITCH])shared;
    float(*const b_tile)[BN][PITCH] = (float(*)[BN][PITCH])(shared + STAGES * BM * PITCH);
    const int column0 = blockIdx.x % PANELS * BN;
    const int64_t row0 = (int64_t)(blockIdx.x / PANELS) * BM, rows = AOTK_DIM(0);
    const float *const a = (const float *)AOTK_IN(0), *const b = (const float *)AOTK_WEIGHT(0);
    aotk_wait();
    aotk_release();

    /* The rows of a that a thread copies from. */
    const float *from[A_QUADS];
    bool inside[A_QUADS];
#pragma unroll
    for (int i = 0; i < A_QUADS; i++) {
        const int at = i * THREADS + threadIdx.x;
        const int64_t row = row0 + at / QUADS;
        from[i] = a + row * DEPTH + at % QUADS * 4;
        inside[i] = row < rows;
    }
    const auto copy = [&](int step) {
        const int stage = step % STAGES;
#pragma unroll
        for (int i = 0; i < A_QUADS; i++) {
            const int at = i * THREADS + threadIdx.x;
            float *const to = &a_tile[stage][at / QUADS][at % QUADS * 4];
            const bool valid = inside[i] && step * BK + at % QUADS * 4 < DEPTH;
            copy_quad(to, valid ? from[i] + step * BK : a, valid);
        }
#pragma unroll
        for (int i = 0; i < B_QUADS; i++) {
            const int at = i * THREADS + threadIdx.x, column = column0 + at / QUADS, k = step * BK + at % QUADS * 4;
            const bool valid = column < COLUMNS && k < DEPTH;
            copy_quad(&b_tile[stage][at / QUADS][at % QUADS * 4], valid ? b + (int64_t)column * DEPTH + k : b, valid);
        }
    };

#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < STEPS) copy(step);
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    const int thread_m = threadIdx.x / THREADS_N, thread_n = threadIdx.x % THREADS_N;
    float acc[TM][TN] = {};
    for (int step = 0; step < STEPS; step++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        if (step + STAGES - 1 < STEPS) copy(step + STAGES - 1);
        asm volatile("cp.async.commit_group;" ::: "memory");
        const int stage = step % STAGES;
#pragma unroll
        for (int k = 0; k < BK; k += 4) {
            float4 x[TM];
#pragma unroll
            for (int i = 0; i < TM; i++) x[i] = *(const float4 *)&a_tile[stage][thread_m + i * THREADS_M][k];
#pragma unroll
            for (int j = 0; j < TN; j++) {
                const float4 y = *(const float4 *)&b_tile[stage][thread_n + j * THREADS_N][k];
#pragma unroll
                for (int i = 0; i < TM; i++) {
                    acc[i][j] = fmaf(x[i].x, y.x, acc[i][j]);
                    acc[i][j] = fmaf(x[i].y, y.y, acc[i][j]);
                    acc[i][j] = fmaf(x[i].z, y.z, acc[i][j]);
                    acc[i][j] = fmaf(x[i].w, y.w, acc[i][j]);
                }
            }
        }
    }

#pragma unroll
    for (int j = 0; j < TN; j++) {
        const int column = column0 + thread_n + j * THREADS_N;
        if (column >= COLUMNS) continue;
        const float bias1 = ((const float *)AOTK_WEIGHT(1))[column];
#pragma unroll
        for (int i = 0; i < TM; i++) {
            const int64_t row = row0 + thread_m + i * THREADS_M, at = row * 40 + column;
            if (row >= rows) continue;
            const float x = acc[i][j];
            aotk_store(((float *)AOTK_OUT(0)) + at, s_add(x, bias1));
        }
    }
}
