/* Drives the team of CPU artifacts (team.c) under ThreadSanitizer: parallel dispatches and barriers, a caller's pool
 * whose threads come late, too often or not at all, and teams that end. What tasks share is plain memory, so a barrier
 * or a dispatch that orders too little is a race that the sanitizer reports, and most often a wrong sum as well.
 * Usage: team_race ROUNDS. Exits with 1 when a task saw a wrong value. */

#include "../include/aotfarm.h"

/* As in common.c, which team.c follows. */
static inline void rt_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

#include "../artifact/team.c"

#include <stdio.h>

#define MOST 8
#define STEPS 6

static _Atomic int wrong;

/* A small model: in every step each thread writes its own cell from all of the step before. */
typedef struct model {
    rt_team *team;
    int64_t cell[STEPS + 1][MOST];
    int64_t input;
    int32_t ran; /* threads of this run, as thread 0 sees it */
} model;

static void walk(void *arg, int32_t thread, int32_t threads) {
    model *m = arg;
    m->cell[0][thread] = m->input;
    if (thread == 0) m->ran = threads;
    for (int step = 1; step <= STEPS; step++) {
        if (threads > 1) rt_barrier(m->team, thread);
        int64_t sum = 0;
        for (int32_t k = 0; k < threads; k++) sum += m->cell[step - 1][k];
        m->cell[step][thread] = sum / threads + 1;
    }
}

/* One run: the caller writes the input and reads every cell, without any other synchronisation. */
static void dispatch(rt_team *team, model *m, int64_t input) {
    m->team = team;
    m->input = input;
    m->ran = 0;
    rt_team_run(team, walk, m);
    if (m->ran < 1 || m->ran > (int32_t)team->size) wrong = 1;
    for (int32_t k = 0; k < m->ran; k++)
        if (m->cell[STEPS][k] != input + STEPS) wrong = 1;
}

static rt_team *start(uint32_t threads, aotfarm_parallel_fn *parallel, void *context) {
    rt_team *team = aligned_alloc(RT_LINE, (sizeof *team + RT_LINE - 1) / RT_LINE * RT_LINE);
    memset(team, 0, sizeof *team);
    if (rt_team_start(team, threads, parallel, context) != 0) {
        fprintf(stderr, "cannot start a team of %u\n", threads);
        exit(2);
    }
    return team;
}

static void end(rt_team *team) {
    rt_team_stop(team, false);
    free(team);
}

/* ---- a caller's pool ---- */

typedef struct call {
    void (*task)(void *, uint32_t);
    void *arg;
    uint32_t index;
    unsigned delay_us;
} call;

/* How a pool brings `n` calls. A thread of its own for each call shares nothing with the others but what team.c does. */
typedef struct pool {
    uint32_t absent;   /* calls that are never made */
    uint32_t extra;    /* calls more than asked for */
    unsigned delay_us; /* of the last call */
    bool early;        /* it returns before its calls do */
    call calls[2 * MOST];
    pthread_t threads[2 * MOST];
    uint32_t running;
} pool;

static void *make(void *context) {
    call *c = context;
    if (c->delay_us) usleep(c->delay_us);
    c->task(c->arg, c->index);
    return NULL;
}

static void gather(pool *p) {
    for (uint32_t i = 0; i < p->running; i++) pthread_join(p->threads[i], NULL);
    p->running = 0;
}

static void parallel(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    pool *p = context;
    if (p->early) gather(p); /* the calls of the run before, which may be under way still */
    uint32_t calls = (n > p->absent ? n - p->absent : 0) + p->extra;
    for (uint32_t i = 0; i < calls; i++) {
        p->calls[i] = (call){task, arg, i, i + 1 == calls ? p->delay_us : 0};
        if (pthread_create(&p->threads[i], NULL, make, &p->calls[i]) != 0) exit(2);
    }
    p->running = calls;
    if (!p->early) gather(p);
}

/* Calls from the run before meet those of this one: the pool neither waits for them nor for these. */
typedef struct stale {
    pool pools[2];
    uint32_t turn;
} stale;

static void parallel_stale(void *context, uint32_t n, void (*task)(void *, uint32_t), void *arg) {
    stale *s = context;
    pool *p = &s->pools[s->turn++ % 2];
    p->early = true;
    parallel(p, n, task, arg);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 100;
    model m;
    for (uint32_t threads = 1; threads <= MOST; threads += threads < 3 ? 1 : 2) {
        /* Runs that follow each other at once, and after their threads have gone to sleep. */
        rt_team *team = start(threads, NULL, NULL);
        for (int i = 0; i < rounds; i++) dispatch(team, &m, i);
        usleep(20000);
        for (int i = 0; i < 3; i++) dispatch(team, &m, -i);
        end(team);
        /* Teams that end before or while their threads begin to wait. */
        for (int i = 0; i < rounds / 10 + 1; i++) {
            team = start(threads, NULL, NULL);
            if (i % 2) dispatch(team, &m, i);
            end(team);
        }
    }
    const pool kinds[] = {
        {0},
        {.absent = 1},
        {.absent = MOST},
        {.extra = 3},
        {.delay_us = 300},
        {.delay_us = 4000},
        {.early = true},
        {.early = true, .extra = 2, .delay_us = 300},
    };
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        for (uint32_t threads = 2; threads <= 4; threads += 2) {
            pool p = kinds[kind];
            rt_team *team = start(threads, parallel, &p);
            for (int i = 0; i < rounds / 10 + 1; i++) dispatch(team, &m, i);
            gather(&p);
            end(team);
        }
    }
    for (uint32_t threads = 2; threads <= 4; threads += 2) {
        stale s = {.pools = {{.delay_us = 500}, {.extra = 1, .delay_us = 100}}};
        rt_team *team = start(threads, parallel_stale, &s);
        for (int i = 0; i < rounds / 4 + 1; i++) dispatch(team, &m, i);
        gather(&s.pools[0]);
        gather(&s.pools[1]);
        end(team);
    }
    if (wrong) fprintf(stderr, "a task saw a wrong value\n");
    return wrong != 0;
}
