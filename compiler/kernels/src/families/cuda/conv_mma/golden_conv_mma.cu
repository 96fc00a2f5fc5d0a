/* conv_mma@1 bk=64 bm=32 bn=32 split=5 stages=2 wk=1 wm=2 wn=1 for cuda-sm_90, from cuda/conv_mma.cu.j2 */
#define AOTK_SYMBOL aot_bf16_conv_mma_bias_relu__bk64_bm32_bn32_split5_stages2_wk1_wm2_wn1__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Convolution as an implicit matrix product on tensor cores: out[m][o] = Σ_k a[m][k] b[o][k], where m counts the output pixels, k the
 * taps and channels, and row m of a is gathered from the image. A plain matrix product is the 1x1 case on 1x1 images.
 * A second convolution that is added lengthens k.
 *
 * A block makes a tile of BM pixels by BN channels from its share of k, BK at a time, through STAGES buffers. WM x WN warps share a
 * tile and WK such groups share the k of each buffer; SPLIT blocks of a cluster share all of k. */
typedef aotk_bf16 element;
typedef aotk_bf16 result;

#define OUT_H 12
#define OUT_W 12
#define OUT_C 32
#define OUT_STRIDE 32 /* elements from one pixel to the next */

#define BM 32
#define BN 32
#define BK 64
#define STAGES 2
#define WM 2
#define WN 1
#define WK 1
#define SPLIT 5
#define THREADS (32 * WM * WN * WK)
#define MT (BM / WM / 16)
#define NG (BN / WN / 32)
#define UNITS (2 * MT * NG)
#define BLOCKS (THREADS >= 256 && MT * NG <= 4 ? 2 : 1) /* at least, on a multiprocessor */
typedef partial_sums<SPLIT, WK, UNITS, 32 * WM * WN> partials;

#define ROW (BK * (int)sizeof(element))
#define CHUNK (16 / (int)sizeof(element))
#define CHUNKS (ROW / 16)
#define ROWS_AT_ONCE (THREADS / CHUNKS) /* rows of a buffer that the block copies with one chunk a thread */
#define A_BYTES (BM * ROW)
#define STAGE_BYTES ((BM + BN) * ROW)
#define BLOCKS_K (source0::ROUNDS)
#define MOST_K ((BLOCKS_K + SPLIT - 1) / SPLIT) /* of a block */
/* Units whose residuals are loaded together; when these are all, before the products. */
#define TOGETHER (partials::OWN <= 4 ? partials::OWN : 2 * NG)

/* What is summed: an image and its filters. */
struct source0 {
    static constexpr int INPUT = 0, WEIGHT = 0;
    static constexpr int H = 12, W = 12, C = 32; /* as stored: a multiple of 8 */
    static constexpr int KERNEL_W = 3, TAPS = 3 * KERNEL_W, K = TAPS * C, ROUNDS = (K + BK - 1) / BK;
    static constexpr int SH = 1, SW = 1, DH = 1, DW = 1, PH = 1, PW = 1;
};

/* What a thread works on: pixel m and its channels from o on are the first of its units. */
struct place {
    int rows, m, o;

    AOTK_INLINE int unit_m(int unit) const { return m + unit / NG * 8; }
    AOTK_INLINE int unit_o(int unit) const { return o + unit % NG * 32; }
    AOTK_INLINE bool valid(int unit) const {
        return (partials::ALL || unit < UNITS) && unit_m(unit) < rows && (OUT_C % BN == 0 || unit_o(unit) < OUT_C);
    }
    AOTK_INLINE int64_t at(int unit) const { return (int64_t)unit_m(unit) * OUT_STRIDE + unit_o(unit); }
};

/* Where a unit goes (nowhere if it lies outside), and its residuals. */
struct operands {
    int64_t at;
    int o;
    bool valid;

    AOTK_INLINE void locate(const place &p, int unit) { at = p.at(unit), o = p.unit_o(unit), valid = p.valid(unit); }
    AOTK_INLINE void load(const aotk_call &call) {
    }
};

/* Applies the fused steps to a unit and stores it. The biases are those of its channels. */
AOTK_INLINE void finish(const aotk_call &call, const operands &with, const float *bias, float (&sum)[8]) {
    const eight<float> biases1 = *(const eight<float> *)(bias + 0 * BN);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float x = sum[i];
        const float bias1 = biases1.at[i];
        sum[i] = s_relu(s_add(x, bias1));
    }
    if (with.valid) store_eight<OUT_STRIDE, OUT_C>((result *)AOTK_OUT(0) + with.at, with.o, sum);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    extern __shared__ __align__(256) char memory[]; /* STAGES buffers, each a then b; the partial sums; the biases */
    const uint32_t buffers = shared_address(memory);
    __shared__ uint64_t arrived;
    char *const sent = memory + STAGES * STAGE_BYTES;
    float *const biases = (float *)(sent + partials::BYTES);

    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int warp_m = warp % WM, warp_n = warp / WM % WN, warp_k = warp / (WM * WN);
    const int rank = blockIdx.x % SPLIT, tile = blockIdx.x / SPLIT;
    const int tiles_n = (OUT_C + BN - 1) / BN;
    const int tile_m = tile / tiles_n * BM, tile_o = tile % tiles_n * BN;
    const int rows = (int)(AOTK_DIM(0)) * (OUT_H * OUT_W);
    const int from_k = rank * BLOCKS_K / SPLIT, count_k = (rank + 1) * BLOCKS_K / SPLIT - from_k;
    partials::begin(arrived, rank);

    /* This thread copies chunk `chunk` of rows first, first + ROWS_AT_ONCE, … */
    const int chunk = thread % CHUNKS, first = thread / CHUNKS;
    const uint32_t to_a = buffers + first * ROW + (chunk * 16 ^ mix_a<CHUNKS>(first));
    const uint32_t to_b = buffers + A_BYTES + first * ROW + (chunk * 16 ^ mix_b<CHUNKS>(first));

    const auto load_b0 = [&](int stage, int block) {
        typedef source0 in;
        const int k = block * BK + chunk * CHUNK;
        const element *const from = (const element *)AOTK_WEIGHT(in::WEIGHT) + (int64_t)(tile_o + first) * in::K + k;
#pragma unroll
        for (int row = 0; row < BN; row += ROWS_AT_ONCE)
            if (BN % ROWS_AT_ONCE == 0 || first + row < BN)
                copy_async((to_b + stage * STAGE_BYTES ^ mix_b<CHUNKS>(row)) + row * ROW, from + row * in::K,
                           (in::K % BK == 0 || k < in::K) && (OUT_C % BN == 0 || tile_o + first + row < OUT_C));
    };
    const auto load_b = [&](int stage, int block) {
        block += from_k;
        load_b0(stage, block);
    };
#pragma unroll 1
    for (int s = 0; s < STAGES - 1 && s < count_k; s++) load_b(s, s);
    if (thread < BN / 4)
        copy_async(shared_address(biases) + 0 * BN * 4 + thread * 16, (const float *)AOTK_WEIGHT(1) + tile_o + thread * 4,
                   tile_o + thread * 4 < OUT_C);

    /* Of each row: where its first tap lies, and a bit for each tap that lies inside the image. */
    const element *from_a[(BM + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE];
    uint32_t inside[(BM + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE];
    const auto find_rows0 = [&] {
        typedef source0 in;
#pragma unroll
        for (int row = 0, i = 0; row < BM; row += ROWS_AT_ONCE, i++) {
            const int m = tile_m + first + row, pixel = m % (OUT_H * OUT_W), n = m / (OUT_H * OUT_W);
            const int y = pixel / OUT_W * in::SH - in::PH, x = pixel % OUT_W * in::SW - in::PW;
            from_a[i] = (const element *)AOTK_IN(in::INPUT) + ((int64_t)(n * in::H + y) * in::W + x) * in::C + chunk * CHUNK;
            inside[i] = 0;
#pragma unroll
            for (int tap = 0; tap < in::TAPS; tap++) {
                const int tap_y = y + tap / in::KERNEL_W * in::DH, tap_x = x + tap % in::KERNEL_W * in::DW;
                if (m < rows && (unsigned)tap_y < in::H && (unsigned)tap_x < in::W) inside[i] |= 1ull << tap;
            }
        }
    };
    const auto load_a0 = [&](int stage, int block) {
        typedef source0 in;
        const int start = block * BK, k = start + chunk * CHUNK;
        /* A row of the buffer is one tap's, or its chunks find their own. */
        const int tap = (in::C % BK == 0 ? start : k) / in::C;
        const int offset = (tap / in::KERNEL_W * (in::DH * in::W) + tap % in::KERNEL_W * in::DW - tap) * in::C + start;
#pragma unroll
        for (int row = 0, i = 0; row < BM; row += ROWS_AT_ONCE, i++)
            if (BM % ROWS_AT_ONCE == 0 || first + row < BM)
                copy_async((to_a + stage * STAGE_BYTES ^ mix_a<CHUNKS>(row)) + row * ROW, from_a[i] + offset,
                           (in::K % BK == 0 || k < in::K) && (inside[i] >> tap & 1));
    };
    const auto load_a = [&](int stage, int block) {
        block += from_k;
        load_a0(stage, block);
    };
        find_rows0();
    /* This lane's rows and chunks for ldmatrix. The groups of warps take the steps in turn. */
    const int row_a = warp_m * (16 * MT) + lane % 16, row_b = warp_n * (32 * NG) + lane % 8 / 2 * 8 + lane / 16 * 2 + lane % 2;
    const uint32_t lane_a = buffers + row_a * ROW + ((lane / 16 * 16 + warp_k * 32) ^ mix_a<CHUNKS>(row_a));
    const uint32_t lane_b = buffers + A_BYTES + row_b * ROW + ((lane / 8 % 2 * 16 + warp_k * 32) ^ mix_b<CHUNKS>(row_b));

    /* What this thread completes. */
    const place p = {rows, tile_m + warp_m * (16 * MT) + lane / 4, tile_o + warp_n * (32 * NG) + lane % 4 * 8};
    operands with[TOGETHER];
    const auto locate = [&](int from) {
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) with[i].locate(p, partials::unit(rank, warp_k, from + i));
    };
    const auto load_operands = [&] {
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) with[i].load(call);
    };
    if (TOGETHER == partials::OWN) locate(0);

    aotk_wait();
    aotk_release();
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < count_k) load_a(s, s);
        copy_commit();
    }

    if (TOGETHER == partials::OWN) load_operands();

    warp_sums<element, MT, NG> sums;
    int stage = 0, free = STAGES - 1;
#pragma unroll 1
    for (int block = 0; block < count_k; block++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        const auto load = [&](fragments<MT, NG> &f, int step) {
#pragma unroll
            for (int i = 0; i < MT; i++) load_fragments(f.a[i], (lane_a + stage * STAGE_BYTES ^ step * (32 * WK)) + i * (16 * ROW));
            f.load_b(lane_b + stage * STAGE_BYTES ^ step * (32 * WK), ROW);
        };
        sums.add_steps<ROW / 32 / WK>(load, [&] {
            if (MOST_K >= STAGES && block + STAGES - 1 < count_k) {
                load_a(free, block + STAGES - 1);
                load_b(free, block + STAGES - 1);
            }
            copy_commit();
        });
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        free = free + 1 == STAGES ? 0 : free + 1;
    }
    copy_wait<0>();

    partials::exchange(sent, arrived, rank, warp_k, sums);
#pragma unroll
    for (int from = 0; from < partials::OWN; from += TOGETHER) {
        if (TOGETHER != partials::OWN) locate(from), load_operands();
#pragma unroll
        for (int i = from; i < from + TOGETHER && i < partials::OWN; i++) {
            if (!partials::ALL && partials::unit(rank, warp_k, i) >= UNITS) continue;
            float x[8];
            if constexpr (partials::PARTS > 1) {
                partials::complete(sent, warp_k, i, x);
            } else {
#pragma unroll
                for (int j = 0; j < 8; j++) x[j] = sums.value(i, j);
            }
            finish(call, with[i - from], biases + with[i - from].o - tile_o, x);
        }
    }
}
