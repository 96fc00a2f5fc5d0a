/* The team: threads that run one function together (SPMD), with a barrier. Part of every artifact for a CPU; follows common.c.
 *
 * A run of the model is one dispatch: every thread walks the whole plan and the barriers between the steps keep them in line.
 * Waiting spins for a short, adapted time, inside a run offers its core for a while, and then sleeps in the kernel, so that a team costs
 * nothing when idle and does not fight for cores that it does not have. Threads are never pinned. */

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Two lines of 64 bytes: adjacent-line prefetchers make pairs of lines share the fate of one. */
#define RT_LINE 128
/* Pauses before a wait sleeps: 25 to 90 microseconds on current cores, about what a sleep and a wake cost. */
#define RT_SPIN_MAX 2048u
#define RT_SPIN_MIN 16u
#define RT_SHORT_SLEEP_NS 200000
/* How long a thread inside a run, with a core of its own, goes on looking before it sleeps, and pauses between two looks in that time. Who is
 * waited for is at work, and a core that sleeps takes as long to wake as a small layer takes, on a virtual machine much longer; each
 * look offers the core to whoever needs it. */
#define RT_LINGER_NS 1000000
#define RT_LINGER_PAUSES 32u
/* How long a caller's pool may take to bring its threads, after a run that it brought all to, and after one that it did not. */
#define RT_GATHER_NS 2000000
#define RT_GATHER_SHORT_NS 50000
#define RT_THREADS_MAX 1024u

static inline int64_t rt_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A word that threads wait on until it changes. */
typedef struct rt_event {
    _Alignas(RT_LINE) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
} rt_event;

/* Moves the event to `value` and wakes who sleeps. The store and the load of `sleepers` are sequentially consistent, as are their
 * mirror images in rt_event_wait: either the waiter sees the new value or the waker sees the sleeper. */
static void rt_event_set(rt_event *e, uint32_t value) {
    atomic_store(&e->value, value);
    if (atomic_load(&e->sleepers) != 0) syscall(SYS_futex, &e->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Waits until the event is no longer `old`: spins at most *spin times, lingers for `linger_ns`, then sleeps. *spin adapts between the limits: it
 * grows when it was enough or the wait was short, and shrinks when it was long, which means that what is waited for had no core. */
static void rt_event_wait(rt_event *e, uint32_t old, uint32_t *spin, uint32_t spin_max, int64_t linger_ns) {
    uint32_t more = *spin >= spin_max / 2 ? spin_max : *spin * 2;
    for (uint32_t i = 0; i < *spin; i++) {
        if (atomic_load_explicit(&e->value, memory_order_acquire) != old) {
            *spin = more;
            return;
        }
        rt_pause();
    }
    int64_t before = rt_now_ns();
    while (linger_ns > 0 && rt_now_ns() - before < linger_ns) {
        for (uint32_t i = 0; i < RT_LINGER_PAUSES; i++) {
            if (atomic_load_explicit(&e->value, memory_order_acquire) != old) return;
            rt_pause();
        }
        sched_yield();
    }
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(&e->value) == old) syscall(SYS_futex, &e->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&e->sleepers, 1);
    if (rt_now_ns() - before < RT_SHORT_SLEEP_NS) *spin = more;
    else if (*spin > RT_SPIN_MIN) *spin -= *spin / 4;
}

typedef void rt_task(void *arg, int32_t thread, int32_t threads);

typedef struct rt_member {
    _Alignas(RT_LINE) uint32_t barrier_spin;
    uint32_t idle_spin;
    uint32_t index;
    pthread_t handle;
    struct rt_team *team;
} rt_member;

typedef struct rt_team {
    uint32_t size;    /* threads asked for */
    uint32_t present; /* threads in the current run: fewer when a caller's pool is busy */
    uint32_t started; /* own threads that exist */
    uint32_t run;     /* value of `epoch` before the current run of a caller's pool */
    uint32_t spin_max;
    int64_t linger_ns; /* in barriers */
    bool stop;
    aotfarm_parallel_fn *parallel; /* the caller's pool, if any */
    void *parallel_context;
    rt_task *task;
    void *arg;
    int64_t gather_ns;
    rt_event epoch; /* a new task, for own threads */
    rt_event phase; /* of the barrier */
    _Alignas(RT_LINE) _Atomic uint32_t arrived;
    _Alignas(RT_LINE) _Atomic uint32_t joined; /* threads of a caller's pool in this run, and RT_CLOSED */
    _Atomic uint32_t left;
    rt_member *members;
} rt_team;

#define RT_CLOSED 0x80000000u

/* The cores that the process may use; at least 1. */
static uint32_t rt_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (uint32_t)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more cores than cpu_set_t has bits */
    return online > 0 ? (uint32_t)online : 1;
}

/* A barrier of the threads of the current run. The last to arrive opens the next phase. `phase` cannot change before this
 * thread has arrived, so reading it first is safe, and no thread can pass two barriers while another is still in one. */
static void rt_barrier(void *context, int32_t thread) {
    rt_team *team = context;
    uint32_t phase = atomic_load_explicit(&team->phase.value, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->present) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        rt_event_set(&team->phase, phase + 1);
    } else {
        rt_event_wait(&team->phase, phase, &team->members[thread].barrier_spin, team->spin_max, team->linger_ns);
    }
}

static void *rt_member_main(void *context) {
    rt_member *self = context;
    rt_team *team = self->team;
    for (uint32_t epoch = 0;;) {
        rt_event_wait(&team->epoch, epoch, &self->idle_spin, team->spin_max, 0);
        epoch++;
        if (team->stop) return NULL;
        team->task(team->arg, (int32_t)self->index, (int32_t)team->present);
        rt_barrier(team, (int32_t)self->index);
    }
}

/* Runs on a thread of a caller's pool. The first to come leads: it waits a bounded time for the others and then closes the team at
 * the size it has, so a pool with fewer threads than calls cannot deadlock in a barrier. */
static void rt_pool_task(void *arg, uint32_t index) {
    rt_team *team = arg;
    (void)index;
    uint32_t joined = atomic_load(&team->joined);
    do {
        if ((joined & RT_CLOSED) || joined >= team->size) return; /* too late, or one call too many */
    } while (!atomic_compare_exchange_weak(&team->joined, &joined, joined + 1));
    if (joined == 0) {
        int64_t deadline = rt_now_ns() + team->gather_ns;
        for (uint32_t i = 0; atomic_load(&team->joined) < team->size; i++) {
            if (i % 64 == 63) {
                if (rt_now_ns() > deadline) break;
                sched_yield();
            }
            rt_pause();
        }
        team->present = atomic_fetch_or(&team->joined, RT_CLOSED) & ~RT_CLOSED;
        team->gather_ns = team->present == team->size ? RT_GATHER_NS : RT_GATHER_SHORT_NS;
        rt_event_set(&team->epoch, team->run + 1);
    } else {
        rt_event_wait(&team->epoch, team->run, &team->members[joined].idle_spin, team->spin_max, 0);
    }
    team->task(team->arg, (int32_t)joined, (int32_t)team->present);
    atomic_fetch_add(&team->left, 1);
}

/* Runs `task` on every thread of the team, the caller's included, and returns when all are done. */
static void rt_team_run(rt_team *team, rt_task *task, void *arg) {
    team->task = task;
    team->arg = arg;
    if (team->size == 1) {
        task(arg, 0, 1);
    } else if (team->parallel == NULL) {
        rt_event_set(&team->epoch, atomic_load_explicit(&team->epoch.value, memory_order_relaxed) + 1);
        task(arg, 0, (int32_t)team->present);
        rt_barrier(team, 0);
    } else {
        team->run = atomic_load(&team->epoch.value);
        atomic_store(&team->left, 0);
        atomic_store(&team->joined, 0);
        team->parallel(team->parallel_context, team->size, rt_pool_task, team);
        uint32_t joined = atomic_fetch_or(&team->joined, RT_CLOSED) & ~RT_CLOSED;
        if (joined == 0) { /* the pool did nothing */
            team->present = 1;
            task(arg, 0, 1);
        }
        while (atomic_load(&team->left) != joined) sched_yield(); /* a pool that came back too early */
    }
}

/* Ends the team's threads. `forked` says that this is the child of the process that made them: they do not exist here. */
static void rt_team_stop(rt_team *team, bool forked) {
    if (team->members != NULL && team->started > 0 && !forked) {
        team->stop = true;
        rt_event_set(&team->epoch, atomic_load(&team->epoch.value) + 1);
        for (uint32_t i = 1; i <= team->started; i++) pthread_join(team->members[i].handle, NULL);
    }
    free(team->members);
    team->members = NULL;
}

/* Makes the team; `team` is zeroed. 0, or the errno of what the system refused (then rt_team_stop frees what exists). */
static int rt_team_start(rt_team *team, uint32_t threads, aotfarm_parallel_fn *parallel, void *parallel_context) {
    team->size = team->present = threads;
    /* More threads than cores: spinning only keeps the thread that is waited for off its core. */
    bool own_cores = threads <= rt_cores();
    team->spin_max = own_cores ? RT_SPIN_MAX : RT_SPIN_MIN;
    team->linger_ns = own_cores ? RT_LINGER_NS : 0;
    team->parallel = parallel;
    team->parallel_context = parallel_context;
    team->gather_ns = RT_GATHER_NS;
    team->members = aligned_alloc(RT_LINE, threads * sizeof(rt_member));
    if (team->members == NULL) return ENOMEM;
    memset(team->members, 0, threads * sizeof(rt_member));
    for (uint32_t i = 0; i < threads; i++) {
        team->members[i].team = team;
        team->members[i].index = i;
        team->members[i].barrier_spin = team->members[i].idle_spin = team->spin_max;
    }
    if (parallel != NULL) return 0;
    /* The program's signals are not for these threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    for (uint32_t i = 1; i < threads && error == 0; i++) {
        error = pthread_create(&team->members[i].handle, NULL, rt_member_main, &team->members[i]);
        if (error == 0) team->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}
