
static void glue_values(const int64_t *s, int64_t *v) {
    (void)s, (void)v;
    v[0] = s[0];
    v[1] = 2;
    v[2] = 8;
    v[3] = 4;
    v[4] = 64*s[0];
    v[5] = 16*s[0];
}

static const aotfarm_dim glue_dims[] = {
    {"batch", 1, 64},
};
static const rt_symbol glue_symbols[] = {
    {0, 0, 1, 0},
};
static const uint32_t glue_u32[] = {
    0u, 1u, 1u, 2u,
    0u, 4294967295u, 4294967295u, 4294967295u,
    0u, 3u,
    0u, 4294967295u,
    0u, 2u,
    4u,
    0u,
    3u,
    3u, 1u,
    2u,
    5u,
};
static const int64_t glue_i64[] = {
    -1, 2, 2, 8,
    -1, 4,
    -1, 8,
    1,
};
static const uint64_t glue_u64[] = {
    0u, 512u,
    1024u, 1536u,
    2048u, 2560u,
};
static const char *const glue_texts[] = {
    "batch",
    "2",
    "2",
    "8",
    "batch",
    "4",
    "batch",
    "8",
    "batch",
    "4",
    "batch",
    "8",
};
static const aotfarm_port glue_inputs[] = {
    {"x", {kDLBfloat, 16, 1}, 4, glue_i64 + 0, glue_texts + 0},
    {"y", {kDLFloat, 32, 1}, 2, glue_i64 + 4, glue_texts + 4},
    {"u", {kDLFloat, 16, 1}, 2, glue_i64 + 6, glue_texts + 6},
};
static const aotfarm_port glue_outputs[] = {
    {"z", {kDLFloat, 32, 1}, 2, glue_i64 + 4, glue_texts + 8},
    {"t", {kDLFloat, 16, 1}, 2, glue_i64 + 6, glue_texts + 10},
};
static const rt_port glue_input_sizes[] = {
    {glue_u32 + 0, glue_u32 + 4, NULL},
    {glue_u32 + 8, glue_u32 + 10, NULL},
    {glue_u32 + 12, glue_u32 + 10, NULL},
};
static const rt_port glue_output_sizes[] = {
    {glue_u32 + 8, glue_u32 + 10, NULL},
    {glue_u32 + 12, glue_u32 + 10, NULL},
};
static const rt_buffer glue_buffers[] = {
    {RT_INPUT, 0, 4},
    {RT_INPUT, 1, 5},
    {RT_INPUT, 2, 5},
    {RT_SLOT, 0, 4},
    {RT_OUTPUT, 0, 5},
    {RT_OUTPUT, 1, 5},
};
static const rt_slot glue_slots[] = {
    {glue_u32 + 14, 1},
};
static const rt_points glue_points[] = {
    {glue_i64 + 8, 1},
};
static const unsigned char *const glue_cubins[1] __attribute__((unused));
static const rt_function glue_functions[1] __attribute__((unused));
static const rt_launch glue_launches[1] __attribute__((unused));
static const rt_conv glue_convs[] = {
    {RT_BF16, false, true, {8, 2, 2}, {8, 2, 2}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
};
static const rt_product glue_products[] = {
    {RT_BF16, RT_F32, false, true, RT_EPILOGUE_DEFAULT, {1, glue_u32 + 15, 1}, {4, NULL, 0}, {32, NULL, 0}},
    {RT_F16, RT_F16, false, true, RT_EPILOGUE_DEFAULT, {1, glue_u32 + 15, 1}, {8, NULL, 0}, {8, NULL, 0}},
};
static const rt_vendor glue_vendors[] = {
    {6, 1, RT_NONE, 1, {1, glue_u32 + 15, 1}, glue_convs + 0, NULL},
    {2, 2, 1, 1, {1, NULL, 0}, NULL, glue_products + 0},
    {0, 1, RT_NONE, 1, {1, NULL, 0}, NULL, glue_products + 1},
};
static const rt_kernel glue_kernels[] = {
    {0, NULL, glue_u64 + 0, glue_vendors + 0},
    {0, NULL, glue_u64 + 2, glue_vendors + 1},
    {0, NULL, glue_u64 + 4, glue_vendors + 2},
};
static const rt_step glue_steps[] = {
    {glue_kernels + 0, 0, glue_u32 + 15, glue_u32 + 16, glue_u32 + 15, 1, 1, 1, 2},
    {glue_kernels + 1, 0, glue_u32 + 17, glue_u32 + 14, glue_u32 + 15, 2, 1, 1, 2},
    {glue_kernels + 2, 0, glue_u32 + 19, glue_u32 + 20, glue_u32 + 15, 1, 1, 1, 2},
};
static const char *const glue_labels[] = {
    "conv",
    "product",
    "round",
};
static const char glue_metadata[] =
    "{\"target\":\"cuda-sm_90\",\"graph\":\"sha256:eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d\",\"comp"
    "iler\":\"0.0.0-test\",\"precision\":\"fp32\",\"libraries\":[\"cudnn\",\"cublaslt\"],\"dims\":[{\"name\":\"batch\",\"min\":1,\"max\":6"
    "4}],\"inputs\":[{\"name\":\"x\",\"dtype\":\"bf16\",\"dims\":[\"batch\",2,2,8]},{\"name\":\"y\",\"dtype\":\"f32\",\"dims\":[\"batch\",4]}"
    ",{\"name\":\"u\",\"dtype\":\"f16\",\"dims\":[\"batch\",8]}],\"outputs\":[{\"name\":\"z\",\"dtype\":\"f32\",\"dims\":[\"batch\",4]},{\"nam"
    "e\":\"t\",\"dtype\":\"f16\",\"dims\":[\"batch\",8]}],\"steps\":[{\"label\":\"conv\",\"kernels\":{\"batch=1\":\"cudnn@2 algorithm6\"}}"
    ",{\"label\":\"product\",\"kernels\":{\"batch=1\":\"cublaslt@1 algorithm2\"}},{\"label\":\"round\",\"kernels\":{\"batch=1\":\"cubl"
    "aslt@1 algorithm0\"}}]}";

static const aotfarm_api glue_api = {
    AOTFARM_ABI_VERSION, sizeof(aotfarm_api), glue_metadata, "cuda-sm_90", 1, 3, 2, 3,
    glue_dims, glue_inputs, glue_outputs, glue_labels, RT_FUNCTIONS, 0, 0, NULL, NULL,
    rt_run_watched};

static const struct rt_model rt_model = {
    &glue_api, 6, 6, 1, 1, 13, 3,
    glue_values, glue_symbols, glue_input_sizes, glue_output_sizes, glue_buffers, glue_slots, glue_points, glue_steps,
    NULL, 0u};

static const struct rt_target rt_target = {
    90, 0, 0, glue_cubins, glue_functions, 3072u, 0u};

__attribute__((visibility("default"))) const aotfarm_api *aotfarm_model(uint32_t abi_version);
const aotfarm_api *aotfarm_model(uint32_t abi_version) { return abi_version == AOTFARM_ABI_VERSION ? &glue_api : NULL; }
