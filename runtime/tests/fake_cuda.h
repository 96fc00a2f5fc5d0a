/* What fake_cuda.c counts, and what it is told. */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stddef.h>
#include <stdint.h>

struct fake_cuda {
    /* Told. */
    int32_t devices, sm, version;
    int32_t refuse_capture, refuse_writes;
    int32_t slow_writes; /* how often a stream is asked before it is done, when it is asked at all */
    int32_t fail;        /* a stream that is asked then says that its kernel failed */
    size_t memory; /* the largest allocation that succeeds; 0: any */
    /* Counted. */
    int32_t live; /* things made and not given back */
    int32_t modules, allocations, launches, overlaps, clusters, captures, graph_launches, node_updates, copies, waits;
};

#endif
