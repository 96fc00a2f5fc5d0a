/* What the kernels on tensor cores by mma.sync share: asynchronous copies, fragments, partial sums of several blocks and groups of
 * warps, outputs in runs of eight channels.
 *
 * Operands lie in shared memory as rows of k, in chunks of 16 bytes. In bytes the fragments of 16-bit types (16 deep) and of tf32
 * (8 deep) are the same: 32 bytes are a step. Four fragments of 8 columns make a group of 32 channels; column c of fragment j stands for
 * channel c / 2 * 8 + 2 j + c % 2. So a thread ends up with eight neighbouring channels of a pixel, a unit, and stores them as they
 * are. */

AOTK_INLINE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* Copies 16 bytes, or zeros. */
AOTK_INLINE void copy_async(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
AOTK_INLINE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> AOTK_INLINE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

AOTK_INLINE void load_fragments(uint32_t (&r)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

#define MULTIPLY_ADD(type, instruction)                                                                                        \
    AOTK_INLINE void multiply_add(type, float(&d)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1) {                       \
        asm("mma.sync.aligned." instruction ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"             \
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                   \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                                   \
    }
MULTIPLY_ADD(aotk_bf16, "m16n8k16.row.col.f32.bf16.bf16")
MULTIPLY_ADD(aotk_f16, "m16n8k16.row.col.f32.f16.f16")
MULTIPLY_ADD(float, "m16n8k8.row.col.f32.tf32.tf32")

/* What is mixed into the place of a row's chunks, by xor, so that ldmatrix meets no bank twice. The eight rows that it reads
 * together differ in these bits: rows of a are neighbours, rows of b the columns of a fragment. The mixes of rows that have no bit in
 * common may be combined. */
template <int CHUNKS> AOTK_INLINE constexpr int mix_a(int row) { return (CHUNKS == 4 ? row >> 1 & 3 : row & 7) * 16; }
template <int CHUNKS> AOTK_INLINE constexpr int mix_b(int row) {
    return (CHUNKS == 4 ? row >> 3 & 3 : (row >> 2 & 6) | (row & 1)) * 16;
}

/* The operands of a step: MT fragments of 16 pixels, NG groups of 32 channels. */
template <int MT, int NG> struct fragments {
    uint32_t a[MT][4], b[2 * NG][4];

    /* Loads group j of b; `at` is this lane's row of the first, rows are row_bytes apart. */
    AOTK_INLINE void load_b(uint32_t at, int row_bytes) {
#pragma unroll
        for (int j = 0; j < 2 * NG; j++) load_fragments(b[j], at + (j / 2 * 32 + j % 2 * 4) * row_bytes);
    }
};

/* The sums of a warp. */
template <typename T, int MT, int NG> struct warp_sums {
    float at[MT][4 * NG][4] = {};

    AOTK_INLINE void add(const fragments<MT, NG> &f) {
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < 4 * NG; j++) multiply_add(T(), at[i][j], f.a[i], f.b[j / 2][j % 2 * 2], f.b[j / 2][j % 2 * 2 + 1]);
    }

    /* Adds STEPS steps, each loaded while the one before is multiplied; calls `meanwhile` as soon as there is something to multiply. */
    template <int STEPS, typename Load, typename Meanwhile> AOTK_INLINE void add_steps(const Load &load, const Meanwhile &meanwhile) {
        fragments<MT, NG> f[2];
        load(f[0], 0);
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            if (s + 1 < STEPS) load(f[(s + 1) % 2], s + 1);
            add(f[s % 2]);
            if (s == 0) meanwhile();
        }
    }

    /* Channel i of a unit: there are two rows of NG units in a fragment. */
    AOTK_INLINE float value(int unit, int i) const { return at[unit / NG / 2][unit % NG * 4 + i / 2][unit / NG % 2 * 2 + i % 2]; }
};

/* The meeting of partial sums in shared memory: SPLIT blocks of a cluster with WK groups of LANES threads each hold sums of the same
 * UNITS. The blocks and in these the groups complete the units in turn, at most OWN each, and add what they are sent in the order of
 * the parts. Between blocks a memory barrier counts the bytes that arrive. */
template <int SPLIT, int WK, int UNITS, int LANES> struct partial_sums {
    static constexpr int PARTS = SPLIT * WK, OWN = (UNITS + PARTS - 1) / PARTS;
    /* [unit of a block][half][part][lane of the group], four floats each. */
    static constexpr int HALF = PARTS * LANES * 16, BYTES = PARTS > 1 ? (UNITS + SPLIT - 1) / SPLIT * 2 * HALF : 0;
    static constexpr bool ALL = UNITS % PARTS == 0; /* each completes OWN */

    /* The unit that group `group` of block `rank` completes as number i; beyond the last one if there is none. */
    AOTK_INLINE static int unit(int rank, int group, int i) { return (i * WK + group) * SPLIT + rank; }

    /* To be called at the start: no block is sent to before it has begun. */
    AOTK_INLINE static void begin(uint64_t &barrier, int rank) {
        if constexpr (SPLIT > 1) {
            if (threadIdx.x == 0)
                asm volatile("mbarrier.init.shared.b64 [%0], 1;\n"
                             "fence.mbarrier_init.release.cluster;\n"
                             "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
                             "r"((UNITS - rank + SPLIT - 1) / SPLIT * 2 * HALF)
                             : "memory");
            asm volatile("barrier.cluster.arrive;" ::: "memory");
        }
    }

    /* Sends all units to where they are completed, and waits for all that are sent here. */
    template <typename Sums>
    AOTK_INLINE static void exchange(const char *memory, const uint64_t &barrier, int rank, int group, const Sums &sums) {
        if constexpr (SPLIT > 1) asm volatile("barrier.cluster.wait;" ::: "memory");
        if constexpr (PARTS > 1) {
            const uint32_t mine = shared_address(memory) + ((rank * WK + group) * LANES + threadIdx.x % LANES) * 16;
#pragma unroll
            for (int unit = 0; unit < UNITS; unit++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int i = half * 4;
                    const float x = sums.value(unit, i), y = sums.value(unit, i + 1), z = sums.value(unit, i + 2), w = sums.value(unit, i + 3);
                    const uint32_t to = mine + (unit / SPLIT * 2 + half) * HALF;
                    if constexpr (SPLIT > 1)
                        asm volatile("{ .reg .b32 to, at;\n"
                                     "mapa.shared::cluster.u32 to, %0, %2;\n"
                                     "mapa.shared::cluster.u32 at, %1, %2;\n"
                                     "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [to], {%3, %4, %5, %6}, [at]; }" ::"r"(to),
                                     "r"(shared_address(&barrier)), "r"(unit % SPLIT), "f"(x), "f"(y), "f"(z), "f"(w)
                                     : "memory");
                    else
                        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
                }
        }
        if constexpr (SPLIT > 1)
            asm volatile("{ .reg .pred done;\n"
                         "again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], 0;\n"
                         "@!done bra again; }" ::"r"(shared_address(&barrier))
                         : "memory");
        else
            __syncthreads();
    }

    /* The complete unit i of those of group `group`. */
    AOTK_INLINE static void complete(const char *memory, int group, int i, float (&x)[8]) {
        const float4 *parts = (const float4 *)(memory + (i * WK + group) * 2 * HALF) + threadIdx.x % LANES;
#pragma unroll
        for (int j = 0; j < 8; j += 4) {
            float4 v = parts[j / 4 * PARTS * LANES];
#pragma unroll
            for (int part = 1; part < PARTS; part++) {
                const float4 w = parts[(j / 4 * PARTS + part) * LANES];
                v.x += w.x, v.y += w.y, v.z += w.z, v.w += w.w;
            }
            x[j] = v.x, x[j + 1] = v.y, x[j + 2] = v.z, x[j + 3] = v.w;
        }
    }
};

/* Eight neighbouring channels, as they lie in memory. */
template <typename T> struct __align__(16) eight {
    T at[8];
};

/* STRIDE: elements from one pixel to the next, when a multiple of 8 eights are aligned. CHANNELS: in all; `o`: the first one. */
template <int STRIDE, int CHANNELS, typename T> AOTK_INLINE eight<T> load_eight(const T *from, int o) {
    if (STRIDE % 8 == 0) return *(const eight<T> *)from;
    eight<T> v;
#pragma unroll
    for (int i = 0; i < 8; i++) v.at[i] = from[o + i < CHANNELS ? i : 0];
    return v;
}
template <int STRIDE, int CHANNELS, typename T> AOTK_INLINE void store_eight(T *to, int o, const float (&x)[8]) {
    eight<T> v;
#pragma unroll
    for (int i = 0; i < 8; i++) aotk_store(&v.at[i], x[i]);
    if (STRIDE % 8 == 0 && CHANNELS % 8 == 0) {
        *(eight<T> *)to = v;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (o + i < CHANNELS) to[i] = v.at[i];
    }
}

/* To the nearest number of tf32. */
AOTK_INLINE float round_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}
