/* conv_patch@1 bc=32 bn=32 run=9 split=1 stages=2 th=5 ti=1 tw=6 wk=1 wm=2 wn=1 for cuda-sm_90, from cuda/conv_patch.cu.j2 */
#define AOTK_SYMBOL aot_bf16_conv_patch_bias_relu__bc32_bn32_run9_split1_stages2_th5_ti1_tw6_wk1_wm2_wn1__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Convolution on tensor cores out of patches: out[m][o] = Σ_k a[m][k] b[o][k] as in conv_mma, but the part of the image that the taps of a
 * tile read is copied once for all of them, and each tap finds its rows there.
 *
 * A block makes a tile of IMAGES x TILE_H x TILE_W pixels (rounded up to BM rows) by BN channels. It walks over k by chunks of
 * BC channels and in these over the taps, RUN at a time, through STAGES buffers of weights and PATCHES of patches. WM x WN warps share a
 * tile and WK such groups share the channels of a chunk; SPLIT blocks of a cluster share all of k.
 *
 * Pixels of a patch lie PIXEL bytes apart, which is odd in chunks of 16, so that eight neighbours meet no bank twice. With a stride
 * the columns are sorted by their remainder: the pixels of a tap are neighbours again. ROW_PIXELS makes the end of a row and the
 * beginning of the next such neighbours if it can. */
typedef aotk_bf16 element;
typedef aotk_bf16 result;

#define IN_H 12
#define IN_W 12
#define IN_C 32 /* as stored: a multiple of BC */
#define OUT_H 12
#define OUT_W 12
#define OUT_C 32
#define OUT_STRIDE 32 /* elements from one pixel to the next */
#define KERNEL_H 3
#define KERNEL_W 3
#define TAPS (KERNEL_H * KERNEL_W)
#define K (TAPS * IN_C)

#define IMAGES 1
#define TILE_H 5
#define TILE_W 6
#define PIXELS (IMAGES * TILE_H * TILE_W)
#define BN 32
#define BC 32
#define RUN 9 /* 1, or whole rows of the kernel */
#define RUNS (TAPS / RUN)
#define STAGES 2
#define PATCHES 1
#define WM 2
#define WN 1
#define WK 1
#define SPLIT 1
#define THREADS (32 * WM * WN * WK)
#define MT ((PIXELS + 16 * WM - 1) / (16 * WM))
#define NG (BN / WN / 32)
#define UNITS (2 * MT * NG)
#define BLOCKS (THREADS >= 256 && MT * NG <= 4 ? 2 : 1) /* at least, on a multiprocessor */
typedef partial_sums<SPLIT, WK, UNITS, 32 * WM * WN> partials;

#define ROW (BC * (int)sizeof(element))
#define CHUNK (16 / (int)sizeof(element))
#define CHUNKS (ROW / 16)
#define ROWS_AT_ONCE (THREADS / CHUNKS) /* rows of weights that the block copies with one chunk a thread */
#define B_BYTES (RUN * BN * ROW)
#define BLOCKS_K (IN_C / BC * RUNS)
#define MOST_K ((BLOCKS_K + SPLIT - 1) / SPLIT) /* of a block */
#define PATCH_H 7
#define PATCH_W 8
#define ROW_PIXELS 14
#define PIXEL (ROW + 16)
#define PATCH_BYTES (IMAGES * PATCH_H * ROW_PIXELS * PIXEL)
#define PATCH_CHUNKS (IMAGES * PATCH_H * PATCH_W * CHUNKS)
#define COPIES ((PATCH_CHUNKS + THREADS - 1) / THREADS)
#define COLUMN(x) ((x) % 1 * ((PATCH_W + 0) / 1) + (x) / 1) /* where column x of a patch lies */
/* Units whose residuals are loaded together; when these are all, before the products. */
#define TOGETHER (partials::OWN <= 4 ? partials::OWN : 2 * NG)

/* What a thread works on: row `row` of the tile that begins at image n and pixel (y, x), and its channels from o on, are the first of its units. */
struct place {
    int images, n, y, x, row, o;

    AOTK_INLINE int unit_row(int unit) const { return row + unit / NG * 8; }
    AOTK_INLINE int unit_n(int unit) const { return n + unit_row(unit) / (TILE_H * TILE_W); }
    AOTK_INLINE int unit_y(int unit) const { return y + unit_row(unit) / TILE_W % TILE_H; }
    AOTK_INLINE int unit_x(int unit) const { return x + unit_row(unit) % TILE_W; }
    AOTK_INLINE int unit_o(int unit) const { return o + unit % NG * 32; }
    AOTK_INLINE bool valid(int unit) const {
        return (partials::ALL || unit < UNITS) && (PIXELS % (16 * WM) == 0 || unit_row(unit) < PIXELS)
            && (IMAGES == 1 || unit_n(unit) < images) && (OUT_H % TILE_H == 0 || unit_y(unit) < OUT_H)
            && (OUT_W % TILE_W == 0 || unit_x(unit) < OUT_W) && (OUT_C % BN == 0 || unit_o(unit) < OUT_C);
    }
    AOTK_INLINE int64_t at(int unit) const {
        return ((int64_t)(unit_n(unit) * OUT_H + unit_y(unit)) * OUT_W + unit_x(unit)) * OUT_STRIDE + unit_o(unit);
    }
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
    extern __shared__ __align__(256) char memory[]; /* STAGES buffers of weights, the patches, the partial sums, the biases */
    const uint32_t buffers = shared_address(memory), patches = buffers + STAGES * B_BYTES;
    __shared__ uint64_t arrived;
    char *const sent = memory + STAGES * B_BYTES + PATCHES * PATCH_BYTES;
    float *const biases = (float *)(sent + partials::BYTES);

    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int warp_m = warp % WM, warp_n = warp / WM % WN, warp_k = warp / (WM * WN);
    const int rank = blockIdx.x % SPLIT;
    const int tiles_n = (OUT_C + BN - 1) / BN, tiles_x = (OUT_W + TILE_W - 1) / TILE_W, tiles_y = (OUT_H + TILE_H - 1) / TILE_H;
    int tile = blockIdx.x / SPLIT;
    const int tile_o = tile % tiles_n * BN;
    tile /= tiles_n;
    const int tile_x = tile % tiles_x * TILE_W, tile_y = tile / tiles_x % tiles_y * TILE_H, tile_n = tile / (tiles_x * tiles_y) * IMAGES;
    const int images = (int)(AOTK_DIM(0));
    const int from_k = rank * BLOCKS_K / SPLIT, count_k = (rank + 1) * BLOCKS_K / SPLIT - from_k;
    partials::begin(arrived, rank);

    /* This thread copies chunk `chunk` of rows first, first + ROWS_AT_ONCE, … */
    const int chunk = thread % CHUNKS, first = thread / CHUNKS;
    const uint32_t to_b = buffers + first * ROW + (chunk * 16 ^ mix_b<CHUNKS>(first));
    const element *const from_b = (const element *)AOTK_WEIGHT(0) + (int64_t)(tile_o + first) * K + chunk * CHUNK;
    const auto load_b = [&](int stage, int block) {
        const int k = (from_k + block) % RUNS * RUN * IN_C + (from_k + block) / RUNS * BC;
#pragma unroll
        for (int tap = 0; tap < RUN; tap++)
#pragma unroll
            for (int row = 0; row < BN; row += ROWS_AT_ONCE)
                if (BN % ROWS_AT_ONCE == 0 || first + row < BN)
                    copy_async((to_b + stage * B_BYTES ^ mix_b<CHUNKS>(row)) + (tap * BN + row) * ROW, from_b + row * K + tap * IN_C + k,
                               OUT_C % BN == 0 || tile_o + first + row < OUT_C);
    };
#pragma unroll 1
    for (int s = 0; s < STAGES - 1 && s < count_k; s++) load_b(s, s);
    if (thread < BN / 4)
        copy_async(shared_address(biases) + 0 * BN * 4 + thread * 16, (const float *)AOTK_WEIGHT(1) + tile_o + thread * 4,
                   tile_o + thread * 4 < OUT_C);

    /* The chunks of a patch that this thread copies: where to, and where from in the tile's images, or -1 for zeros. */
    uint32_t to_a[COPIES];
    int from_a[COPIES];
#pragma unroll
    for (int i = 0; i < COPIES; i++) {
        const int at = (i * THREADS + thread) / CHUNKS, column = at % PATCH_W, row = at / PATCH_W % PATCH_H, image = at / (PATCH_W * PATCH_H);
        const int y = tile_y * 1 - 1 + row, x = tile_x * 1 - 1 + column;
        const bool inside = (unsigned)y < IN_H && (unsigned)x < IN_W && (IMAGES == 1 || tile_n + image < images);
        from_a[i] = inside ? ((image * IN_H + y) * IN_W + x) * IN_C + chunk * CHUNK : -1;
        to_a[i] = patches + ((image * PATCH_H + row) * ROW_PIXELS + COLUMN(column)) * PIXEL + chunk * 16;
    }
    const element *const from_image = (const element *)AOTK_IN(0) + (int64_t)tile_n * (IN_H * IN_W * IN_C);
    const auto load_a = [&](int block) {
        const int at = (from_k + block) / RUNS;
        const element *const from = from_image + at * BC;
        const uint32_t to = (at - from_k / RUNS) % PATCHES * PATCH_BYTES;
#pragma unroll
        for (int i = 0; i < COPIES; i++)
            if (PATCH_CHUNKS % THREADS == 0 || i < COPIES - 1 || i * THREADS + thread < PATCH_CHUNKS)
                copy_async(to_a[i] + to, from + from_a[i], from_a[i] >= 0);
    };
    /* This lane's rows and chunks for ldmatrix. The groups of warps take the steps in turn. */
    uint32_t lane_a[MT];
#pragma unroll
    for (int i = 0; i < MT; i++) {
        int row = warp_m * (16 * MT) + i * 16 + lane % 16;
        if (PIXELS % (16 * WM) != 0 && row >= PIXELS) row = 0;
        const int x = row % TILE_W, y = row / TILE_W % TILE_H, image = row / (TILE_W * TILE_H);
        lane_a[i] = patches + ((image * PATCH_H + y * 1) * ROW_PIXELS + x) * PIXEL + lane / 16 * 16 + warp_k * 32;
    }
    const int row_b = warp_n * (32 * NG) + lane % 8 / 2 * 8 + lane / 16 * 2 + lane % 2;
    const uint32_t lane_b = buffers + row_b * ROW + ((lane / 8 % 2 * 16 + warp_k * 32) ^ mix_b<CHUNKS>(row_b));

    /* What this thread completes. */
    const place p = {images, tile_n, tile_y, tile_x, warp_m * (16 * MT) + lane / 4, tile_o + warp_n * (32 * NG) + lane % 4 * 8};
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
        if (s < count_k && (s == 0 || (from_k + s) % RUNS == 0)) load_a(s);
        copy_commit();
    }

    if (TOGETHER == partials::OWN) load_operands();

    warp_sums<element, MT, NG> sums;
    int row = from_k % RUNS * RUN / KERNEL_W, column = from_k % RUNS * RUN % KERNEL_W, patch = 0; /* the next tap */
    int stage = 0, free = STAGES - 1;
#pragma unroll 1
    for (int block = 0; block < count_k; block++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        const int steps = ROW / 32 / WK;
        const auto load = [&](fragments<MT, NG> &f, int step) {
            const int tap = step / steps, at = step % steps * (32 * WK);
            const int tap_y = (row + tap / KERNEL_W) * 1, tap_x = (RUN == 1 ? column : tap % KERNEL_W) * 1;
#pragma unroll
            for (int i = 0; i < MT; i++) load_fragments(f.a[i], lane_a[i] + patch * PATCH_BYTES + (tap_y * ROW_PIXELS + COLUMN(tap_x)) * PIXEL + at);
            f.load_b((lane_b + stage * B_BYTES ^ at) + tap * (BN * ROW), ROW);
        };
        sums.add_steps<RUN * steps>(load, [&] {
            const int next = block + STAGES - 1;
            if (MOST_K >= STAGES && next < count_k) {
                load_b(free, next);
                if ((from_k + next) % RUNS == 0) load_a(next);
            }
            copy_commit();
        });
        column += RUN % KERNEL_W;
        if (RUN >= KERNEL_W || column == KERNEL_W) column = 0, row += RUN == 1 ? 1 : RUN / KERNEL_W;
        if (row == KERNEL_H) row = 0, patch = patch + 1 == PATCHES ? 0 : patch + 1;
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
