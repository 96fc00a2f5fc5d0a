/* cuda_bmm_mma@1 bk=32 bm=32 bn=32 stages=2 wm=2 wn=1 for cuda-sm_90, from cuda/bmm_mma.cu.j2 */
#define AOTK_SYMBOL aot_bf16_cuda_bmm_mma_tanh__bk32_bm32_bn32_stages2_wm2_wn1__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Product of two activations on tensor cores: out[batch][m][n] = Σ_k a[batch][m][k] b[batch][n][k], of any sizes.
 *
 * A block makes a tile of BM rows by BN columns with WM x WN warps. BK of k at a time come through STAGES buffers. */
typedef aotk_bf16 element;
typedef aotk_bf16 result;

#define BM 32
#define BN 32
#define BK 32
#define STAGES 2
#define WM 2
#define WN 1
#define THREADS (32 * WM * WN)
#define MT (BM / WM / 16)
#define NT (BN / WN / 8)
#define TF32 (sizeof(element) == 4)

#define CHUNK (16 / (int)sizeof(element))
#define ROW (BK * (int)sizeof(element))
#define PITCH pitch(ROW) /* of rows of k */
#define A_BYTES (BM * PITCH)
#define STAGE_BYTES (A_BYTES + BN * PITCH)

extern "C" __global__ void __launch_bounds__(THREADS) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    extern __shared__ __align__(128) char memory[];
    const uint32_t buffers = shared_address(memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_m = warp % WM * (16 * MT), warp_n = warp / WM * (8 * NT);
    const int m = (int)AOTK_DIM(1), n = (int)AOTK_DIM(2), k = (int)AOTK_DIM(3), rounds = (k + BK - 1) / BK;
    const int64_t batch = blockIdx.x;
    const int row0 = blockIdx.y * BM, column0 = blockIdx.z * BN;
    const element *const a = (const element *)AOTK_IN(0) + (batch * m + row0) * k;
    const element *const b = (const element *)AOTK_IN(1) + (batch * n + column0) * k;
    const bool whole_a = k % CHUNK == 0, whole_b = k % CHUNK == 0;

    const auto load = [&](int stage, int round) {
        const uint32_t to = buffers + stage * STAGE_BYTES;
        const int from = round * BK;
        copy_tile<BM, BK, PITCH, THREADS>(to, a + from, k, m - row0, k - from, whole_a);
        copy_tile<BN, BK, PITCH, THREADS>(to + A_BYTES, b + from, k, n - column0, k - from, whole_b);
    };
    aotk_wait();
    aotk_release();
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < rounds) load(s, s);
        copy_commit();
    }

    /* This lane's rows and chunks for ldmatrix. */
    const uint32_t lane_a = buffers + (warp_m + lane % 16) * PITCH + lane / 16 * 16;
    const uint32_t lane_b = buffers + A_BYTES + (warp_n + lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16;
    float sums[MT][NT][4] = {};
    int stage = 0, free = STAGES - 1;
#pragma unroll 1
    for (int round = 0; round < rounds; round++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (round + STAGES - 1 < rounds) load(free, round + STAGES - 1);
        copy_commit();
#pragma unroll
        for (int step = 0; step < ROW / 32; step++) {
            uint32_t f[MT][4], g[NT / 2][4];
#pragma unroll
            for (int i = 0; i < MT; i++) {
                load_fragments(f[i], lane_a + stage * STAGE_BYTES + i * (16 * PITCH) + step * 32);
                if (TF32) round_operands(f[i]);
            }
#pragma unroll
            for (int j = 0; j < NT / 2; j++) {
                load_fragments(g[j], lane_b + stage * STAGE_BYTES + j * (16 * PITCH) + step * 32);
                if (TF32) round_operands(g[j]);
            }
#pragma unroll
            for (int i = 0; i < MT; i++)
#pragma unroll
                for (int j = 0; j < NT; j++) multiply_add(element(), sums[i][j], f[i], g[j / 2][j % 2 * 2], g[j / 2][j % 2 * 2 + 1]);
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        free = free + 1 == STAGES ? 0 : free + 1;
    }
    copy_wait<0>();

#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const int row = row0 + warp_m + i * 8 + lane / 4;
        if (row >= m) break;
#pragma unroll
        for (int j = 0; j < NT; j++) {
            const int first = column0 + warp_n + j * 8 + lane % 4 * 2;
            const int64_t from = (batch * m + row) * n + first;
            float y[2];
#pragma unroll
            for (int c = 0; c < 2; c++) {
                if (first + c >= n) continue;
                const float x = sums[i / 2][j][i % 2 * 2 + c];
                y[c] = s_tanh(x);
                if (n % 2 != 0) aotk_store((result *)AOTK_OUT(0) + from + c, y[c]);
            }
            if (n % 2 == 0 && first < n) store_pair((result *)AOTK_OUT(0) + from, y[0], y[1]);
        }
    }
}
