/* cuda_conv_wgmma@1 alternate=1 blocks=1 chunks=4 images=0 patches=3 persistent=1 px=8 slice=32 split=1 stages=9 wm=1 wn=1 for cuda-sm_90, from cuda/conv_wgmma.cu.j2 */
#define AOTK_SYMBOL aot_bf16_cuda_conv_wgmma_bias_relu__alternate1_blocks1_chunks4_images0_patches3_persistent1_px8_slice32_split1_stages9_wm1_wn1__sm90_DIGEST
#define AOTK_SM 90
/* end of the headers */
/* Convolution (and matrix product, which is one of a 1x1 kernel on images of one pixel) on Hopper's warpgroup instructions.
 *
 * Output channels are the 64 rows of an instruction and pixels its columns, up to 256 in steps of 8, so that the number of tiles can
 * be made to fit the machine. Pixels are counted as *positions* in a grid with room for the padding: PITCH_W by PITCH_H for each
 * image, where the columns and rows past the output are the zeros between one image row (or image) and the next. In this grid a tap
 * of the kernel is a constant shift. So the pixels that a tile needs of some channels, its *patch*, are brought to shared memory once
 * and serve all taps, each reading from another start. With a stride the input falls into planes of equal remainder, a patch each.
 * With IMAGES a tile is that many whole images, pixel by pixel in turn, and needs no rows of zeros between them.
 *
 * Operands lie in shared memory as rows of CHUNKS times 16 bytes, swizzled by the bits of the address as the instruction expects it: a
 * row's chunks stay together, so a copied line lands in one row of the banks, and a matrix may start at any row.
 *
 * One warpgroup copies; the others multiply, together on a tile or (ALTERNATE) each on its own tile, so that one stores while the
 * other multiplies. A step is one tap of one plane of one block of channels; its weights come through a ring of STAGES, the patches
 * through one of PATCHES. A RESIDENT ring holds all weights of a tile and is filled once.
 *
 * A second convolution that is added has its own planes, and its steps follow those of the first. */
typedef aotk_bf16 element;
typedef aotk_bf16 result;

constexpr int OUT_H = 12, OUT_W = 12, OUT_CHANNELS = 32;
[[maybe_unused]] constexpr int PITCH_H = 13, PITCH_W = 13;
constexpr int CHUNKS = 4;   /* chunks of 16 bytes in a block of channels */
/* What is summed. ROWS: of a patch. */
struct sum0 {
    static constexpr int INPUT = 0, WEIGHT = 0, H = 12, W = 12, STRIDE_H = 1, STRIDE_W = 1;
    static constexpr int TAPS = 9, PLANES = 1, ROWS = 36;
    static constexpr int IN_CHUNKS = 4, BLOCKS = (IN_CHUNKS + CHUNKS - 1) / CHUNKS;
};
typedef sum0 first_sum;
typedef sum0 last_sum;
constexpr bool BRANCH = 0;   /* whether these are two */
constexpr int TAPS = 9, PLANES = 1;   /* of both */
constexpr bool PERSISTENT = 1, ALTERNATE = 1;
/* Multiplying warpgroups along the channels and pixels of a tile, and all. */
constexpr int GROUPS_O = 1, GROUPS_P = 1, GROUPS = GROUPS_O * GROUPS_P * (ALTERNATE ? 2 : 1), COPIERS = 128, THREADS = COPIERS + 128 * GROUPS;
constexpr int PIXELS = 8;   /* of a warpgroup */
[[maybe_unused]] constexpr int TILE_O = 64 * GROUPS_O, TILE_P = PIXELS * GROUPS_P;
constexpr int TILES_O = (OUT_CHANNELS + TILE_O - 1) / TILE_O;
constexpr int STAGES = 9, PATCHES = 3, SPLIT = 1;
constexpr bool RESIDENT = 1;
constexpr int RING = RESIDENT ? PATCHES : STAGES;   /* of groups of copies: a step's, or with the weights in place a patch's */

constexpr int PATCH_ROWS = 36, ROW = CHUNKS * 16;
constexpr int STAGE_BYTES = TILE_O * ROW, PATCH_BYTES = (PATCH_ROWS * ROW + 1023) / 1024 * 1024;
/* The sums go through shared memory, [pixel][channel], so many pixels at a time; with a split all, so that others can read them. */
constexpr int SLICE = SPLIT > 1 ? PIXELS : 32, SUM_PITCH = 64 + 4;
/* Slices of a tile, what a thread stores of one (or of its share of a split tile) in eights of channels, slices asked for together. */
constexpr int SLICES = (PIXELS + SLICE - 1) / SLICE, EACH = SPLIT > 1 ? (PIXELS + 16 * SPLIT - 1) / (16 * SPLIT) : SLICE / 16;
constexpr int AHEAD = SPLIT > 1 ? 1 : 4;
constexpr int PLACES_AT = 208, WEIGHTS_AT = 1024, PATCHES_AT = 37888, SUMS_AT = 47104;

static_assert(PIXELS % 8 == 0 && PIXELS <= 256 && CHUNKS % 2 == 0 && OUT_CHANNELS % 8 == 0 && first_sum::BLOCKS >= SPLIT, "");
static_assert(PERSISTENT ? SPLIT == 1 : !ALTERNATE && !RESIDENT, "");

/* A block's share of the blocks of channels, first those of the first sum. */
struct share {
    int first_begin, first_count, last_begin, count;

    AOTK_INLINE share(int rank) {
        first_begin = rank * first_sum::BLOCKS / SPLIT;
        first_count = (rank + 1) * first_sum::BLOCKS / SPLIT - first_begin;
        last_begin = rank * last_sum::BLOCKS / SPLIT;
        count = first_count + (BRANCH ? (rank + 1) * last_sum::BLOCKS / SPLIT - last_begin : 0);
    }
    AOTK_INLINE bool of_last(int block) const { return BRANCH && block >= first_count; }
    AOTK_INLINE int steps() const { return first_count * first_sum::TAPS + (count - first_count) * last_sum::TAPS; }
    /* Places in STEP of a block's first step (at the end: of the next tile's) and behind its last one. */
    AOTK_INLINE int begin(int block) const { return of_last(block) && block < count ? first_sum::TAPS : 0; }
    AOTK_INLINE int end(int block) const { return of_last(block) ? TAPS : first_sum::TAPS; }
    /* Which block of its sum's channels a block is. */
    AOTK_INLINE int of_sum(int block) const { return of_last(block) ? last_begin + block - first_count : first_begin + block; }
};
/* Steps and patches of a tile that is not split. */
constexpr int STEPS = first_sum::TAPS * first_sum::BLOCKS + (BRANCH ? last_sum::TAPS * last_sum::BLOCKS : 0);
[[maybe_unused]] constexpr int FILLS = first_sum::PLANES * first_sum::BLOCKS + (BRANCH ? last_sum::PLANES * last_sum::BLOCKS : 0);
static_assert(!RESIDENT || STAGES == STEPS, "");

/* Input pixels whose coordinates are y and x modulo the stride; the patch begins `first` positions after the tile. */
struct plane {
    int y, x, first;
};
__constant__ plane PLANE[PLANES] = {
    { 0, 0, -14 },
};
/* A tap in one word: its place in the weights, its plane, whether it is the plane's first and last, where in the patch it reads. */
struct step {
    uint32_t word;
    AOTK_INLINE int tap() const { return word & 0xff; }
    AOTK_INLINE int plane() const { return word >> 8 & 0x3f; }
    AOTK_INLINE bool opens() const { return word >> 14 & 1; }
    AOTK_INLINE bool closes() const { return word >> 15 & 1; }
    AOTK_INLINE int shift() const { return word >> 16; }
};
__constant__ step STEP[TAPS] = {
    { 0 | 0 << 8 | 1 << 14 | 0 << 15 | 0u << 16},
    { 1 | 0 << 8 | 0 << 14 | 0 << 15 | 1u << 16},
    { 2 | 0 << 8 | 0 << 14 | 0 << 15 | 2u << 16},
    { 3 | 0 << 8 | 0 << 14 | 0 << 15 | 13u << 16},
    { 4 | 0 << 8 | 0 << 14 | 0 << 15 | 14u << 16},
    { 5 | 0 << 8 | 0 << 14 | 0 << 15 | 15u << 16},
    { 6 | 0 << 8 | 0 << 14 | 0 << 15 | 26u << 16},
    { 7 | 0 << 8 | 0 << 14 | 0 << 15 | 27u << 16},
    { 8 | 0 << 8 | 0 << 14 | 1 << 15 | 28u << 16},
};

AOTK_INLINE void barrier_init(uint32_t at, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count)); }
AOTK_INLINE void barrier_arrive(uint32_t at) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory"); }
AOTK_INLINE void barrier_wait(uint32_t at, uint32_t parity) {
    asm volatile("{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra AGAIN;\n}" ::"r"(at),
                 "r"(parity)
                 : "memory");
}
AOTK_INLINE void sync_some(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
AOTK_INLINE void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/* Copies 16 bytes, of which all past the first `size` are zero. */
AOTK_INLINE void copy_chunk(uint32_t to, const void *from, int size) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(size) : "memory");
}

/* Rows of CHUNKS chunks, swizzled; eight rows after eight rows. */
AOTK_INLINE uint64_t operand(uint32_t at) {
    constexpr uint64_t SWIZZLE = CHUNKS == 8 ? 1 : CHUNKS == 4 ? 2 : 3;
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)(8 * ROW >> 4) << 32 | SWIZZLE << 62;
}
/* Where a chunk of a row lies; rows that are a multiple of 1024 bytes apart swizzle alike. */
AOTK_INLINE uint32_t swizzled(int row, int chunk) {
    const uint32_t at = row * ROW + chunk * 16;
    return at ^ (at >> 7 & (CHUNKS - 1)) << 4;
}
/* sums = a b, or sums += a b. */
AOTK_INLINE void multiply(float (&sums)[PIXELS / 2], uint64_t a, uint64_t b, int add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %6, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {"
                 "%0,%1,%2,%3}, "
                 "%4, %5, add, 1, 1, 0, 0;\n}"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "l"(a), "l"(b), "r"(add));
}

/* The pixel of a position of a tile; positions before the first image have a negative y. */
struct pixel {
    int n, y, x;
};
AOTK_INLINE pixel pixel_of(int tile, int p) {
    constexpr int LINES = 64;   /* more than a kernel reaches up */
    const int at = tile * TILE_P + p + LINES * PITCH_W, line = at / PITCH_W, y = line - LINES;
    return {y / PITCH_H, y % PITCH_H, at % PITCH_W};
}

/* Where the input of a sum lies that a plane has at a pixel, in chunks; -1 for zeros. */
template <typename in> AOTK_INLINE int place_in(const plane &p, const pixel &at, int batch) {
    const int y = at.y * in::STRIDE_H + p.y, x = at.x * in::STRIDE_W + p.x;
    const bool there = at.n < batch && at.y >= 0 && y < in::H && x < in::W;
    return there ? ((at.n * in::H + y) * in::W + x) * in::IN_CHUNKS : -1;
}

/* A place in a ring of SIZE barriers, and the parity of its round. */
template <int SIZE> struct place {
    int at;
    uint32_t parity;
    AOTK_INLINE void forward(int count) {
        parity ^= count / SIZE & 1;
        at += count % SIZE;
        if (at >= SIZE) {
            at -= SIZE;
            parity ^= 1;
        }
    }
};

/* Where a channel's sum lies among its pixel's: a gap in the middle keeps reads of eight apart in the banks. */
AOTK_INLINE int sum_column(int o) { return o + o / 32 * 4; }
/* From the sums of a thread's first four channels to those of its others. */
constexpr int HIGH = sizeof(result) == 2 ? 4 : 36;

/* What a thread stores of a pixel: eight channels in pieces of 16 bytes, 32 channels apart, so that eight threads fill whole lines. */
constexpr int PIECES = sizeof(result) / 2;
struct alignas(16) eight {
    uint32_t word[2 * sizeof(result)];
};
AOTK_INLINE float value_of(const eight &from, int i) {
    if (sizeof(result) == 4) return __uint_as_float(from.word[i]);
    /* A half of a word. */
    struct {
        uint16_t bits;
    } half = {(uint16_t)(from.word[i / 2] >> i % 2 * 16)};
    return aotk_float(*(const result *)&half);
}

/* The output's pixel at a position, counted through all images; -1 when there is none. */
AOTK_INLINE int place_of(int batch, int tile, int p) {
    const pixel at = pixel_of(tile, p);
    return at.n < batch && at.y < OUT_H && at.x < OUT_W ? (at.n * OUT_H + at.y) * OUT_W + at.x : -1;
}
/* Where a channel of it lies in memory, in bytes. */
AOTK_INLINE int64_t bytes_to(int place, int o) { return ((int64_t)place * OUT_CHANNELS + o) * sizeof(result); }
AOTK_INLINE bool is_channel(int o) { return OUT_CHANNELS % TILE_O == 0 || o < OUT_CHANNELS; }

extern __shared__ __align__(1024) unsigned char shared_bytes[];

extern "C" __global__ void __launch_bounds__(THREADS, 1) AOTK_SYMBOL(const __grid_constant__ aotk_call call) {
    const int thread = threadIdx.x;
    const int batch = AOTK_DIM(0);
    const int tiles = TILES_O * ((batch * PITCH_H * PITCH_W + TILE_P - 1) / TILE_P);
    const int rank = blockIdx.x % SPLIT;
    const share mine(rank);

    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared_bytes);
    const uint32_t full = base, empty = full + 8 * RING, patch_empty = empty + 8 * STAGES;
    const uint32_t turn = patch_empty + 8 * PATCHES;
    if (thread == 0) {
        constexpr int USERS = 4 * GROUPS_O * GROUPS_P;
        for (int i = 0; i < RING; i++) barrier_init(full + 8 * i, COPIERS);
        for (int i = 0; i < STAGES; i++) barrier_init(empty + 8 * i, USERS);
        for (int i = 0; i < PATCHES; i++) barrier_init(patch_empty + 8 * i, USERS);
        for (int i = 0; i < 2; i++) barrier_init(turn + 8 * i, 4);
    }
    __syncthreads();

    if (thread < COPIERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
        const int chunk = thread % CHUNKS, lane = thread / CHUNKS;
        constexpr int LANES = COPIERS / CHUNKS;
        int *const places = (int *)(shared_bytes + PLACES_AT);

        auto copy_weights0 = [&](int stage, int block, int tap, int tile) {
            typedef sum0 in;
            const int o = tile % TILES_O * TILE_O;
            const int at = block * CHUNKS + chunk;
            const char *const weights = (const char *)AOTK_WEIGHT(in::WEIGHT);
            const char *from = weights + ((int64_t)((o + lane) * in::TAPS + tap) * in::IN_CHUNKS + at) * 16;
            const uint32_t to = base + WEIGHTS_AT + stage * STAGE_BYTES + swizzled(lane, chunk);
#pragma unroll
            for (int i = 0; i < TILE_O; i += LANES) {
                const bool there = (TILES_O * TILE_O == OUT_CHANNELS || o + lane + i < OUT_CHANNELS) &&
                                   (in::IN_CHUNKS % CHUNKS == 0 || at < in::IN_CHUNKS);
                copy_chunk(to + i * ROW, there ? from + (int64_t)i * in::TAPS * in::IN_CHUNKS * 16 : weights, there ? 16 : 0);
            }
        };
        auto copy_patch0 = [&](int at_patch, int block, int plane) {
            typedef sum0 in;
            uint32_t to = base + PATCHES_AT + at_patch * PATCH_BYTES + swizzled(lane, chunk);
            const int at = block * CHUNKS + chunk;
#pragma unroll 4
            for (int i = lane; i < in::ROWS; i += LANES, to += LANES * ROW) {
                const int from = places[plane * PATCH_ROWS + i];
                const bool there = from >= 0 && (in::IN_CHUNKS % CHUNKS == 0 || at < in::IN_CHUNKS);
                copy_chunk(to, (const char *)AOTK_IN(in::INPUT) + (int64_t)(there ? from + at : 0) * 16, there ? 16 : 0);
            }
        };
        auto copy_weights = [&](int stage, int block, int tap, int tile) {
            copy_weights0(stage, mine.of_sum(block), tap, tile);
        };
        auto copy_patch = [&](int to, int block, int plane) {
            copy_patch0(to, mine.of_sum(block), plane);
        };
        /* Weights depend on no kernel before: the ring is filled with them while that one still runs. */
        int filled = mine.steps() < STAGES ? mine.steps() : STAGES;
        for (int i = 0, block = 0, s = 0; i < filled; i++) {
            copy_weights(i, block, STEP[s].tap(), blockIdx.x / SPLIT);
            if (++s == mine.end(block)) s = mine.begin(++block);
        }

        /* Ends a group of copies: arrives once all that this thread has copied so far is there. */
        int group = 0;
        auto group_copied = [&] {
            asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(full + 8 * group) : "memory");
            group = group + 1 == RING ? 0 : group + 1;
        };

        place<STAGES> stage = {0, 1};
        place<PATCHES> patch = {0, 1};
        step next = STEP[0];
        for (int tile = blockIdx.x / SPLIT; tile < tiles; tile += gridDim.x / SPLIT) {
            /* Where each position of the patches lies in the input. */
            if (PERSISTENT) sync_some(1, COPIERS);
            for (int i = thread; i < PLANES * PATCH_ROWS; i += COPIERS) {
                const int k = PLANES > 1 ? i / PATCH_ROWS : 0;
                const plane p = PLANE[k];
                const pixel at = pixel_of(tile / TILES_O, p.first + i % PATCH_ROWS);
                places[i] = BRANCH && k >= first_sum::PLANES ? place_in<last_sum>(p, at, batch) : place_in<first_sum>(p, at, batch);
            }
            sync_some(1, COPIERS);
            if (tile == blockIdx.x / SPLIT) {
                aotk_wait();
                aotk_release();
            }
            for (int block = 0; block < mine.count; block++) {
#pragma unroll 1
                for (int s = mine.begin(block); s < mine.end(block); s++) {
                    const step now = next;
                    next = STEP[s + 1 == mine.end(block) ? mine.begin(block + 1) : s + 1];
                    if (now.opens()) {
                        barrier_wait(patch_empty + 8 * patch.at, patch.parity);
                        copy_patch(patch.at, block, now.plane());
                        if (RESIDENT) group_copied();
                        patch.forward(1);
                    }
                    if (filled > 0) {
                        filled--;
                    } else if (!RESIDENT) {
                        barrier_wait(empty + 8 * stage.at, stage.parity);
                        copy_weights(stage.at, block, now.tap(), tile);
                    }
                    if (!RESIDENT) group_copied();
                    stage.forward(1);
                }
            }
        }
        if (SPLIT > 1) {
            cluster_sync();
            cluster_sync();
        }
        return;
    }

    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    const int group = thread / 128 - 1, member = thread % 128, warp = member / 32;
    const int group_o = group % GROUPS_O, group_p = ALTERNATE ? 0 : group / GROUPS_O;
    /* What this thread stores: eight channels of every sixteenth pixel. */
    const int row = member / 8, column = member % 8 * (8 / PIECES);
    float *const sums_at = (float *)(shared_bytes + SUMS_AT) + group * (SPLIT > 1 ? 1 : 2) * SLICE * SUM_PITCH;
    float sums[PIXELS / 2];
    place<STAGES> stage = {0, 0};
    place<PATCHES> patch = {0, 0};
    const int begin = blockIdx.x / SPLIT + (ALTERNATE ? group * gridDim.x : 0);
    place<1> round = {0, 1};
    if (ALTERNATE && group > 0) {
        stage.forward(STEPS);
        patch.forward(FILLS);
        round.forward(1);
    }

    aotk_wait();
    for (int tile = begin; tile < tiles; tile += gridDim.x / SPLIT * (ALTERNATE ? 2 : 1)) {
        int add = 0, last_stage = -1, last_patch = -1;
        step next = STEP[0];
        auto release = [&] {
            if (thread % 32 == 0) {
                if (!RESIDENT && last_stage >= 0) barrier_arrive(empty + 8 * last_stage);
                if (last_patch >= 0) barrier_arrive(patch_empty + 8 * last_patch);
            }
        };
        /* In turn, so that nobody waits for a round of a ring before the one before it is full. */
        if (ALTERNATE) barrier_wait(turn + 8 * group, round.parity);
        for (int block = 0; block < mine.count; block++) {
#pragma unroll 1
            for (int s = mine.begin(block); s < mine.end(block); s++) {
                const step now = next;
                next = STEP[s + 1 == mine.end(block) ? mine.begin(block + 1) : s + 1];
                if (!RESIDENT || now.opens()) {
                    barrier_wait(full + 8 * (RESIDENT ? patch.at : stage.at), RESIDENT ? patch.parity : stage.parity);
                    /* The copies went through the other proxy than the multiplication reads through. */
                    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
                }
                asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
                const uint32_t a = base + WEIGHTS_AT + stage.at * STAGE_BYTES + group_o * 64 * ROW;
                const uint32_t b = base + PATCHES_AT + patch.at * PATCH_BYTES + (now.shift() + group_p * PIXELS) * ROW;
#pragma unroll
                for (int k = 0; k < CHUNKS; k += 2) {
                    multiply(sums, operand(a + k * 16), operand(b + k * 16), add);
                    add = 1;
                }
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                if (!RESIDENT || last_patch >= 0) {
                    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                    release();
                }
                last_stage = stage.at;
                last_patch = now.closes() ? patch.at : -1;
                stage.forward(1);
                if (now.closes()) patch.forward(1);
            }
        }
        if (ALTERNATE) {
            if (thread % 32 == 0) barrier_arrive(turn + 8 * (1 - group));
            stage.forward(STEPS);
            patch.forward(FILLS);
            round.forward(1);
        }

        const int o = tile % TILES_O * TILE_O + group_o * 64 + column;
        float bias1_of[8];
        for (int i = 0; i < 8; i++) {
            const int at = o + i / (8 / PIECES) * 32 + i % (8 / PIECES);
            bias1_of[i] = is_channel(at) ? ((const float *)AOTK_WEIGHT(1))[at] : 0;
        }
        /* Residuals are asked for some slices before they are needed, the first ones while the last products are under way. */
        int places[AHEAD][EACH];
        auto ask = [&](int s) {
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const int p = SPLIT > 1 ? (i * SPLIT + rank) * 16 + row : s * SLICE + i * 16 + row;
                const int place = p < PIXELS ? place_of(batch, tile / TILES_O, group_p * PIXELS + p) : -1;
                places[s % AHEAD][i] = place;
            }
        };
        for (int s = 0; s < AHEAD - 1 || s == 0; s++) {
            if (s < SLICES) ask(s);
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
        for (int i = 0; i < PIXELS / 2; i++) asm volatile("" : "+f"(sums[i])::"memory");
        release();

        auto put = [&](float *to, int b) {
            float *const at = to + (b % (SLICE / 8) * 8 + thread % 4 * 2) * SUM_PITCH + sum_column(warp * 16) + thread % 32 / 4;
            at[0] = sums[4 * b];
            at[SUM_PITCH] = sums[4 * b + 1];
            at[8] = sums[4 * b + 2];
            at[SUM_PITCH + 8] = sums[4 * b + 3];
        };
        auto finish = [&](int where, const float *sum) {
            float value[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float x = sum[i];
                const float bias1 = bias1_of[i];
                value[i] = s_relu(s_add(x, bias1));
            }
            eight y;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (i % 2 == 0) y.word[i / 2] = aotk_pack(result(), value[i], value[i + 1]);
            }
            for (int j = 0; j < PIECES; j++) {
                if (where >= 0 && is_channel(o + 32 * j)) *(uint4 *)((char *)AOTK_OUT(0) + bytes_to(where, o + 32 * j)) = *(const uint4 *)&y.word[4 * j];
            }
        };
        /* The sums lie where the rings were: everybody is done with those first. */
        if (!PERSISTENT) sync_some(2, 128 * GROUPS);

#pragma unroll
        for (int s = 0; s < SLICES; s++) {
            if (s + AHEAD - 1 < SLICES) ask(s + AHEAD - 1);
            float *const half = sums_at + s % 2 * SLICE * SUM_PITCH;
#pragma unroll
            for (int b = s * SLICE / 8; b < (s + 1) * SLICE / 8; b++) {
                if (b < PIXELS / 8) put(half, b);
            }
            sync_some(3 + group, 128);
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const float *const from = half + (i * 16 + row) * SUM_PITCH + sum_column(column);
                const float4 low = *(const float4 *)from, high = *(const float4 *)(from + HIGH);
                const float sum[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
                finish(places[s % AHEAD][i], sum);
            }
        }
        if (PERSISTENT) sync_some(3 + group, 128);
    }
}
