/* What the C ABI promises of inputs that are indices. Takes the artifact of the link tests' model with states (see state.c), whose u [2, 4] is of i32
 * within -4..3 here, for a CPU or a GPU, and exits with 0 or names the line that failed. A GPU is reached through fake_cuda.c. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aotfarm.h"

#define CHECK(condition)                                                                                   \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "line %d: %s (last error: %s)\n", __LINE__, #condition, api ? api->last_error() : ""); \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)
#define FAILS(call, status, text) CHECK((call) == (status) && strcmp(api->last_error(), text) == 0)

static const aotfarm_api *api;

static int64_t x_shape[] = {2, 3}, u_shape[] = {2, 4}, s_shape[] = {5};
static _Alignas(64) float x_data[6] = {1, 2, 3, 4, 5, 6}, s_data[5];
static _Alignas(64) char u_data[64];
static DLTensor x = {.data = x_data, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 32, 1}, .shape = x_shape};
static DLTensor u = {.data = u_data, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLInt, 32, 1}, .shape = u_shape};
static DLTensor s = {.data = s_data, .device = {kDLCPU, 0}, .ndim = 1, .dtype = {kDLFloat, 32, 1}, .shape = s_shape};
static const DLTensor *inputs[] = {&x, &u};
static DLTensor *outputs[] = {&s};

/* A run whose `u` holds `number` at `at`, and zeros. */
static int32_t run(aotfarm_session *session, int at, int32_t number) {
    memset(u_data, 0, sizeof u_data);
    memcpy(u_data + u.byte_offset + 4 * (size_t)at, &number, sizeof number);
    return api->run(session, inputs, 2, outputs, 1);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    void *library = dlopen(argv[1], RTLD_NOW);
    CHECK(library != NULL);
    aotfarm_model_fn *model = (aotfarm_model_fn *)dlsym(library, "aotfarm_model");
    CHECK(model != NULL && (api = model(AOTFARM_ABI_VERSION)) != NULL);
    int on_gpu = strncmp(api->target, "cuda", 4) == 0;
    aotfarm_options options = {.struct_size = sizeof options, .threads = on_gpu ? 0 : 2, .may_write = 1};
    aotfarm_session *session;
    CHECK(api->session_create(&options, &session) == 0);

    float first[5], second[5];
    CHECK(run(session, 0, 3) == 0);
    memcpy(first, s_data, sizeof first);
    CHECK(run(session, 7, -4) == 0);
    memcpy(second, s_data, sizeof second);
    CHECK(memcmp(first, second, sizeof first) != 0);

    /* What fails leaves the state as it was, and the outputs, and what it would have written. */
    CHECK(api->session_reset(session) == 0 && run(session, 0, 0) == 0);
    CHECK(memcmp(first, s_data, sizeof first) == 0);
    for (uint64_t offset = 0; offset < 4; offset++) {
        u.byte_offset = offset;
        /* Of pinned memory a GPU knows only when its turn comes. */
        for (int type = kDLCPU; type <= (on_gpu ? kDLCPU : kDLCUDAHost); type += kDLCUDAHost - kDLCPU) {
            u.device.device_type = type;
            FAILS(run(session, 0, 4), AOTFARM_ERROR_ARGUMENT, "input `u`: element [0, 0] is 4, outside -4..3, the table that it picks from");
            FAILS(run(session, 7, -5), AOTFARM_ERROR_ARGUMENT, "input `u`: element [1, 3] is -5, outside -4..3, the table that it picks from");
            FAILS(run(session, 6, INT32_MIN), AOTFARM_ERROR_ARGUMENT,
                  "input `u`: element [1, 2] is -2147483648, outside -4..3, the table that it picks from");
            CHECK(memcmp(first, s_data, sizeof first) == 0);
            int32_t number;
            memcpy(&number, u_data + offset + 24, sizeof number);
            CHECK(number == INT32_MIN);
        }
    }
    u.byte_offset = 0;
    u.device.device_type = kDLCPU;
    CHECK(run(session, 0, 0) == 0);
    CHECK(memcmp(second, s_data, sizeof second) == 0);
    api->session_destroy(session);
    return 0;
}
