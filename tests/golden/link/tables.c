extern void test_add(const aotk_call *) __attribute__((visibility("hidden")));
extern void test_linear(const aotk_call *) __attribute__((visibility("hidden")));
extern void test_spread(const aotk_call *) __attribute__((visibility("hidden")));

static void glue_values(const int64_t *s, int64_t *v) {
    (void)s, (void)v;
    v[0] = s[0];
    v[1] = 3;
    v[2] = 4;
    v[3] = (2*s[0] + 1);
    v[4] = (16*s[0] + 16);
    v[5] = 12*s[0];
    v[6] = 16*s[0];
    v[7] = (8*s[0] + 4);
}

static const aotfarm_dim glue_dims[] = {
    {"batch", 1, 32},
};
static const rt_symbol glue_symbols[] = {
    {0, 0, 1, 0},
};
static const uint32_t glue_u32[] = {
    0u, 1u,
    0u, 4294967295u,
    0u, 2u,
    3u,
    4294967295u,
    4u,
    0u,
    2u,
    2u, 1u,
    0u, 3u,
};
static const int64_t glue_i64[] = {
    -1, 3,
    -1, 4,
    -1,
    1, 16,
    8,
    0,
    1000,
};
static const uint64_t glue_u64[] = {
    256u,
};
static const char *const glue_texts[] = {
    "batch",
    "3",
    "batch",
    "4",
    "batch",
    "4",
    "2*batch + 1",
};
static const aotfarm_port glue_inputs[] = {
    {"x", {kDLFloat, 32, 1}, 2, glue_i64 + 0, glue_texts + 0},
    {"y", {kDLFloat, 32, 1}, 2, glue_i64 + 2, glue_texts + 2},
};
static const aotfarm_port glue_outputs[] = {
    {"z", {kDLFloat, 32, 1}, 2, glue_i64 + 2, glue_texts + 4},
    {"s", {kDLFloat, 32, 1}, 1, glue_i64 + 4, glue_texts + 6},
};
static const rt_port glue_input_sizes[] = {
    {glue_u32 + 0, glue_u32 + 2, NULL},
    {glue_u32 + 4, glue_u32 + 2, NULL},
};
static const rt_port glue_output_sizes[] = {
    {glue_u32 + 4, glue_u32 + 2, NULL},
    {glue_u32 + 6, glue_u32 + 7, NULL},
};
static const rt_buffer glue_buffers[] = {
    {RT_INPUT, 0, 5},
    {RT_INPUT, 1, 6},
    {RT_SLOT, 0, 4},
    {RT_OUTPUT, 0, 6},
    {RT_OUTPUT, 1, 7},
};
static const rt_slot glue_slots[] = {
    {glue_u32 + 8, 1},
};
static const rt_points glue_points[] = {
    {glue_i64 + 5, 2},
    {glue_i64 + 7, 1},
};
static const rt_kernel glue_kernels[] = {
    {test_linear, glue_i64 + 8, NULL, 0u},
    {test_linear, glue_i64 + 9, NULL, 128u},
    {test_add, NULL, glue_u64 + 0, RT_NO_PACK},
    {test_spread, NULL, NULL, RT_NO_PACK},
    {test_spread, NULL, NULL, RT_NO_PACK},
};
static const rt_segment glue_segments[] = {
    {0, 3, RT_WHOLE},
};
static const uint32_t glue_image_bytes[] = {
    RT_NONE,
    RT_NONE,
    RT_NONE,
    RT_NONE,
    RT_NONE,
};
static const rt_step glue_steps[] = {
    {glue_kernels + 0, 0, glue_u32 + 9, glue_u32 + 10, glue_u32 + 9, 1, 1, 1, 1},
    {glue_kernels + 2, 1, glue_u32 + 11, glue_u32 + 6, glue_u32 + 9, 2, 1, 1, 1},
    {glue_kernels + 3, 0, glue_u32 + 6, glue_u32 + 8, glue_u32 + 13, 1, 1, 2, 0},
};
static const char *const glue_labels[] = {
    "linear \"h\"",
    "add",
    "spread",
};
static const char glue_metadata[] =
    "{\"target\":\"cpu-x86_64-v3\",\"graph\":\"sha256:eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d\",\"c"
    "ompiler\":\"0.0.0-test\",\"precision\":\"fp32\",\"dims\":[{\"name\":\"batch\",\"min\":1,\"max\":32}],\"inputs\":[{\"name\":\"x\",\"dty"
    "pe\":\"f32\",\"dims\":[\"batch\",3]},{\"name\":\"y\",\"dtype\":\"f32\",\"dims\":[\"batch\",4]}],\"outputs\":[{\"name\":\"z\",\"dtype\":\"f"
    "32\",\"dims\":[\"batch\",4]},{\"name\":\"s\",\"dtype\":\"f32\",\"dims\":[\"2*batch + 1\"]}],\"steps\":[{\"label\":\"linear \\\"h\\\"\",\"k"
    "ernels\":{\"batch=1\":\"test@1 t00\",\"batch=16\":\"test@1 t01000\"}},{\"label\":\"add\",\"kernels\":{\"batch=8\":\"test@1 -\"}},"
    "{\"label\":\"spread\",\"kernels\":{\"batch=1\":\"test@1 -\",\"batch=16\":\"test@1 -\"}}]}";

static const aotfarm_api glue_api = {
    AOTFARM_ABI_VERSION, sizeof(aotfarm_api), glue_metadata, "cpu-x86_64-v3", 1, 2, 2, 3,
    glue_dims, glue_inputs, glue_outputs, glue_labels, RT_FUNCTIONS, 0, 0, NULL, NULL,
    rt_run_watched};

static const struct rt_model rt_model = {
    &glue_api, 8, 5, 1, 2, 9, 4,
    glue_values, glue_symbols, glue_input_sizes, glue_output_sizes, glue_buffers, glue_slots, glue_points, glue_steps,
    NULL, 0u};

static const struct rt_target rt_target = {
    3, 4096u, 1024u, glue_segments, 1, 3, glue_image_bytes};

__attribute__((visibility("default"))) const aotfarm_api *aotfarm_model(uint32_t abi_version);
const aotfarm_api *aotfarm_model(uint32_t abi_version) { return abi_version == AOTFARM_ABI_VERSION ? &glue_api : NULL; }
