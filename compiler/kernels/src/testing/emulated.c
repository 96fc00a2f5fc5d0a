/* Runs kernels of another architecture under an emulator: what the harness of the kernel tests does itself with those of its own host.
 *
 *     emulated CASES OUTPUTS
 *
 * CASES are numbers of 64 bits and bytes after their number, in the host's order; see the writer in candidate/emulated.rs. Each case
 * runs alone and as a team of three; the outputs of both go to OUTPUTS. The first thing that is wrong ends the program with a message.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aotk.h"

enum { IN, WEIGHT, OUT, ROLES };
enum { LINE = 64, MOST = 16 /* operands, and threads */ };

static const char *label = "nothing yet";

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", label, what);
    exit(1);
}

static int64_t number(FILE *f) {
    int64_t n;
    if (fread(&n, sizeof n, 1, f) != 1) fail("the file of cases ends early");
    return n;
}

static void *bytes(FILE *f, int64_t *len) {
    *len = number(f);
    char *data = calloc((size_t)*len + 1, 1);
    if (data == NULL || fread(data, 1, (size_t)*len, f) != (size_t)*len) fail("the file of cases ends early");
    return data;
}

/* A buffer between two fences. Everything starts as 0xff, which is NaN in every floating-point type. */
typedef struct fenced {
    unsigned char *all, *start;
    size_t size, len;
} fenced;

static fenced fence(int64_t len, const void *content) {
    fenced b = {.size = ((size_t)len + LINE - 1) / LINE * LINE + 2 * LINE, .len = (size_t)len};
    b.all = aligned_alloc(LINE, b.size);
    if (b.all == NULL) fail("out of memory");
    memset(b.all, 0xff, b.size);
    b.start = b.all + LINE;
    if (content != NULL) memcpy(b.start, content, b.len);
    return b;
}

/* Frees the buffer after looking at its fences. */
static void release(fenced *b, const char *what) {
    for (size_t i = 0; i < b->size; i++)
        if ((i < LINE || i >= LINE + b->len) && b->all[i] != 0xff) fail(what);
    free(b->all);
}

static void barrier(void *team, int32_t thread) {
    (void)thread;
    pthread_barrier_wait(team);
}

typedef struct member {
    aotk_call call;
    void (*kernel)(const aotk_call *);
} member;

static void *work(void *arg) {
    member *m = arg;
    m->kernel(&m->call);
    return NULL;
}

static void run_case(FILE *f, FILE *results) {
    int64_t ignored, counts[2];
    char *library = bytes(f, &ignored), *symbol = bytes(f, &ignored), pack_name[512];
    label = bytes(f, &ignored);
    bool packs = number(f) != 0;
    int64_t packed_bytes = number(f), shared_bytes = number(f), thread_bytes = number(f);
    int64_t *tune = bytes(f, &counts[0]), *dim = bytes(f, &counts[1]);
    int64_t n = number(f), role[MOST], len[MOST];
    void *content[MOST];
    if (n > MOST) fail("too many operands");
    for (int64_t k = 0; k < n; k++) {
        role[k] = number(f);
        content[k] = bytes(f, &len[k]);
    }

    void *so = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (so == NULL) fail(dlerror());
    void (*kernel)(const aotk_call *);
    void (*pack)(const void *const *, void *, const int64_t *);
    *(void **)&kernel = dlsym(so, symbol);
    snprintf(pack_name, sizeof pack_name, "%s_pack", symbol);
    *(void **)&pack = packs ? dlsym(so, pack_name) : NULL;
    if (kernel == NULL || (packs && pack == NULL)) fail("a symbol is missing");

    static const int32_t sizes[] = {1, 3};
    for (int s = 0; s < 2; s++) {
        int32_t threads = sizes[s];
        fenced operand[MOST], scratch[MOST];
        void *pointer[ROLES][MOST];
        int count[ROLES] = {0};
        for (int64_t k = 0; k < n; k++) {
            operand[k] = fence(len[k], content[k]);
            pointer[role[k]][count[role[k]]++] = operand[k].start;
        }
        fenced packed = fence(packed_bytes, NULL), shared = fence(shared_bytes, NULL);
        if (packs) pack((const void *const *)pointer[WEIGHT], packed.start, tune);
        pthread_barrier_t team;
        pthread_barrier_init(&team, NULL, (unsigned)threads);
        member members[MOST];
        pthread_t handles[MOST];
        for (int32_t t = 0; t < threads; t++) {
            scratch[t] = fence(thread_bytes, NULL);
            members[t].kernel = kernel;
            members[t].call = (aotk_call){
                .in = (const void *const *)pointer[IN],
                .weight = packs ? NULL : (const void *const *)pointer[WEIGHT],
                .packed = packs ? packed.start : NULL,
                .out = pointer[OUT],
                .shared = shared.start,
                .scratch = scratch[t].start,
                .dim = dim,
                .tune = tune,
                .thread = t,
                .threads = threads,
                .team = &team,
                .barrier = barrier,
            };
            if (pthread_create(&handles[t], NULL, work, &members[t]) != 0) fail("cannot start a thread");
        }
        for (int32_t t = 0; t < threads; t++) pthread_join(handles[t], NULL);
        pthread_barrier_destroy(&team);
        for (int64_t k = 0; k < n; k++) {
            if (role[k] == OUT)
                fwrite(operand[k].start, 1, operand[k].len, results);
            else if (memcmp(operand[k].start, content[k], operand[k].len) != 0)
                fail("changes an input");
            release(&operand[k], "writes outside an operand");
        }
        release(&packed, "packs outside its buffer");
        release(&shared, "writes outside the team's workspace");
        for (int32_t t = 0; t < threads; t++) release(&scratch[t], "writes outside a thread's workspace");
    }
    dlclose(so);
    for (int64_t k = 0; k < n; k++) free(content[k]);
    free(library), free(symbol), free(tune), free(dim);
}

/* Says which case crashed. */
static void on_signal(int number) {
    fprintf(stderr, "%s: crashes with signal %d\n", label, number);
    _Exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    FILE *cases = fopen(argv[1], "rb"), *results = fopen(argv[2], "wb");
    if (cases == NULL || results == NULL) fail("a file cannot be opened");
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (int i = 0; i < 4; i++) signal(signals[i], on_signal);
    for (int64_t left = number(cases); left > 0; left--) run_case(cases, results);
    return fclose(results) == 0 ? 0 : 1;
}
