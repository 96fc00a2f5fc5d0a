/* Loads an artifact and runs it on inputs of ones.
 *
 *     cc -I abi/include -o run docs/examples/run.c -ldl
 *     ./run resnet18.so 2        # every symbolic dimension is 2
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "aotfarm.h"

static int64_t elements(const DLTensor *t) {
    int64_t n = 1;
    for (int32_t k = 0; k < t->ndim; k++) n *= t->shape[k];
    return n;
}

/* Memory for the tensor's elements, a multiple of the alignment that is fastest. */
static void *allocate(const DLTensor *t) {
    size_t bytes = (size_t)elements(t) * t->dtype.bits / 8;
    void *data = aligned_alloc(64, (bytes + 64 + 63) / 64 * 64);
    if (data == NULL) exit((perror("aligned_alloc"), 1));
    return data;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s ARTIFACT.so SIZE\n", argv[0]);
        return 2;
    }
    int64_t symbolic = strtoll(argv[2], NULL, 10);
    void *so = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    aotfarm_model_fn *entry = NULL;
    if (so != NULL) *(void **)&entry = dlsym(so, "aotfarm_model");
    const aotfarm_api *api = entry != NULL ? entry(AOTFARM_ABI_VERSION) : NULL;
    if (api == NULL) {
        fprintf(stderr, "%s: %s\n", argv[1], so == NULL ? dlerror() : "not an artifact of this ABI version");
        return 1;
    }
    printf("%s, %" PRIu32 " steps\n", api->target, api->n_steps);

    DLTensor *inputs = calloc(api->n_inputs + 1, sizeof *inputs), *outputs = calloc(api->n_outputs + 1, sizeof *outputs);
    const DLTensor **in = calloc(api->n_inputs + 1, sizeof *in);
    DLTensor **out = calloc(api->n_outputs + 1, sizeof *out);
    uint32_t dims = 0;
    for (uint32_t i = 0; i < api->n_inputs; i++) {
        const aotfarm_port *port = &api->inputs[i];
        DLTensor *t = &inputs[i];
        *t = (DLTensor){.device = {kDLCPU, 0}, .ndim = port->ndim, .dtype = port->dtype};
        t->shape = calloc((size_t)port->ndim + 1, sizeof *t->shape);
        for (int32_t k = 0; k < port->ndim; k++) t->shape[k] = port->shape[k] < 0 ? symbolic : port->shape[k];
        in[i] = t;
    }
    for (uint32_t i = 0; i < api->n_outputs; i++) dims += (uint32_t)api->outputs[i].ndim;
    int64_t *sizes = calloc((size_t)dims + 1, sizeof *sizes);
    if (api->output_shapes(in, api->n_inputs, sizes, dims) != AOTFARM_OK) {
        fprintf(stderr, "error: %s\n", api->last_error());
        return 1;
    }
    for (uint32_t i = 0; i < api->n_inputs; i++) {
        inputs[i].data = allocate(&inputs[i]);
        if (inputs[i].dtype.code == kDLFloat && inputs[i].dtype.bits == 32)
            for (int64_t k = 0; k < elements(&inputs[i]); k++) ((float *)inputs[i].data)[k] = 1;
        else
            for (int64_t k = 0; k < elements(&inputs[i]) * inputs[i].dtype.bits / 8; k++) ((char *)inputs[i].data)[k] = 0;
    }
    for (uint32_t i = 0; i < api->n_outputs; i++) {
        outputs[i] = (DLTensor){.device = {kDLCPU, 0}, .ndim = api->outputs[i].ndim, .dtype = api->outputs[i].dtype, .shape = sizes};
        sizes += api->outputs[i].ndim;
        outputs[i].data = allocate(&outputs[i]);
        out[i] = &outputs[i];
    }

    aotfarm_options options = {.struct_size = sizeof options, .threads = 2};
    aotfarm_session *session;
    if (api->session_create(&options, &session) != AOTFARM_OK ||
        api->run(session, in, api->n_inputs, out, api->n_outputs) != AOTFARM_OK) {
        fprintf(stderr, "error: %s\n", api->last_error());
        return 1;
    }
    for (uint32_t i = 0; i < api->n_outputs; i++) {
        printf("%s [", api->outputs[i].name);
        for (int32_t k = 0; k < outputs[i].ndim; k++) printf("%s%" PRId64, k ? ", " : "", outputs[i].shape[k]);
        printf("]");
        if (outputs[i].dtype.code == kDLFloat && outputs[i].dtype.bits == 32)
            for (int64_t k = 0; k < elements(&outputs[i]) && k < 5; k++) printf(" %g", ((float *)outputs[i].data)[k]);
        printf("\n");
    }
    api->session_destroy(session);
    dlclose(so);
    return 0;
}
