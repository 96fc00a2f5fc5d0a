/* What the kernels that multiply two activations by mma.sync share, besides mma.cuh: tiles of row-major matrices in shared memory.
 *
 * Neither operand is packed, so nothing is known of its alignment but what its sizes say, and either may lie with k along its rows or
 * along its columns. Column c of fragment j of the result is column 8 j + c of the warp's: ldmatrix transposes eight neighbours. */

/* Bytes from one row of a tile to the next: an odd number of chunks, so that the eight rows that ldmatrix reads together lie in
 * different banks. */
AOTK_INLINE constexpr int pitch(int bytes) { return (bytes / 16 | 1) * 16; }

AOTK_INLINE uint32_t word_of(aotk_bf16 x) { return x.bits; }
AOTK_INLINE uint32_t word_of(aotk_f16 x) { return x.bits; }
AOTK_INLINE uint32_t word_of(float x) { return __float_as_uint(x); }

AOTK_INLINE void store_words(uint32_t to, const uint32_t (&r)[4]) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}

/* Copies ROWS x COLUMNS elements of a matrix to rows of PITCH bytes, with zeros where it has none: from `from` on there are `rows` rows,
 * `stride` elements apart, and `columns` columns. `whole`: they are whole chunks of aligned memory, which are copied asynchronously. */
template <int ROWS, int COLUMNS, int PITCH, int THREADS, typename T>
AOTK_INLINE void copy_tile(uint32_t to, const T *from, int64_t stride, int rows, int columns, bool whole) {
    constexpr int CHUNK = 16 / sizeof(T), CHUNKS = COLUMNS / CHUNK;
    if (whole) {
#pragma unroll
        for (int i = 0; i < ROWS * CHUNKS; i += THREADS) {
            const int at = i + threadIdx.x, row = at / CHUNKS, column = at % CHUNKS * CHUNK;
            if (ROWS * CHUNKS % THREADS != 0 && at >= ROWS * CHUNKS) break;
            const bool valid = row < rows && column < columns;
            copy_async(to + row * PITCH + at % CHUNKS * 16, from + (valid ? row * stride + column : 0), valid);
        }
    } else {
#pragma unroll 1
        for (int at = threadIdx.x; at < ROWS * CHUNKS; at += THREADS) {
            const int row = at / CHUNKS, column = at % CHUNKS * CHUNK;
            uint32_t words[4] = {};
#pragma unroll
            for (int i = 0; i < CHUNK; i++)
                if (row < rows && column + i < columns)
                    words[i * sizeof(T) / 4] |= word_of(from[row * stride + column + i]) << i * sizeof(T) % 4 * 8;
            store_words(to + row * PITCH + at % CHUNKS * 16, words);
        }
    }
}

/* Four 8x8 matrices of 16-bit elements whose rows are the rows of k: transposed to what mma.sync takes as b. */
AOTK_INLINE void load_transposed(uint32_t (&r)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
AOTK_INLINE uint32_t load_word(uint32_t at) {
    uint32_t word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(at) : "memory");
    return word;
}

/* Makes operands of f32 the nearest ones of tf32; the tensor cores would cut them off. */
template <int N> AOTK_INLINE void round_operands(uint32_t (&r)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) r[i] = __float_as_uint(round_tf32(__uint_as_float(r[i])));
}

/* Two neighbours, at a place that is aligned to both. */
AOTK_INLINE void store_pair(float *to, float x, float y) { *(float2 *)to = make_float2(x, y); }
template <typename T> AOTK_INLINE void store_pair(T *to, float x, float y) { *(uint32_t *)to = aotk_pack(T(), x, y); }
