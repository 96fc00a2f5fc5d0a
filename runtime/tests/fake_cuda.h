/* What fake_cuda.c counts, and what it is told. */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stddef.h>
#include <stdint.h>

struct fake_cuda {
    /* Told. */
    int32_t devices, sm, version;
    int32_t refuse_capture;
    size_t memory; /* the largest allocation that succeeds; 0: any */
    /* Counted. */
    int32_t live; /* things made and not given back */
    int32_t modules, allocations, launches, overlaps, clusters, captures, graph_launches, node_updates, copies, synchronizes;
};

#endif
