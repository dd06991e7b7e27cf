/*
 * Reads of a 1 kHz control loop, measured from the C side: how long they take, what they allocate, and what system
 * calls they make.
 *
 *     measured_loop BUNDLE SECONDS [plant_allocation | plant_system_call]
 *
 * Allocations: this program's malloc and its kin take the place of the C library's for everything in the process, and
 * count what the control thread asks for during a read. System calls: from its first tick on, the control thread runs
 * under a filter that lets nothing through but its own sleep. Both must find what is planted.
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

/* Initial-exec, so that looking at it allocates nothing. */
static __thread int in_read __attribute__((tls_model("initial-exec")));
static atomic_ulong allocations, system_calls;

static void count(void)
{
    if (in_read)
        atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
}

void *malloc(size_t size) { return count(), __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return count(), __libc_calloc(n, size); }
void *realloc(void *block, size_t size) { return count(), __libc_realloc(block, size); }
void *memalign(size_t alignment, size_t size) { return count(), __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return count(), __libc_memalign(alignment, size); }
int posix_memalign(void **block, size_t alignment, size_t size)
{
    count();
    *block = __libc_memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}
void free(void *block)
{
    count();
    __libc_free(block);
}

/* A system call that was not let through comes here instead. */
static void trapped(int signal)
{
    (void)signal;
    atomic_fetch_add_explicit(&system_calls, 1, memory_order_relaxed);
}

/* From now on, this thread may sleep, return from a signal handler, and nothing else. */
static void allow_sleep_only(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_nanosleep, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = trapped;
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
}

enum { PERIOD_NS = 1000000 };
enum plant { PLANT_NOTHING, PLANT_ALLOCATION, PLANT_SYSTEM_CALL };

struct loop {
    struct robot robot;
    enum plant plant;
    size_t ticks;
    uint64_t *took_ns;
    uint64_t statuses[4];
    int realtime;
    atomic_int done;
};

static void *run(void *argument)
{
    struct loop *loop = argument;
    const uint32_t joints = loop->robot.info.action_dim;
    const struct sched_param fifo = {.sched_priority = 90};
    float action[MAX_VALUES];
    pi0_reading reading = {.struct_size = sizeof reading};
    pi0_stats stats = {.struct_size = sizeof stats};
    struct timespec next;

    loop->realtime = pthread_setschedparam(pthread_self(), SCHED_FIFO, &fifo) == 0;
    CHECK_STATUS(pi0_controller_attach(loop->robot.controller), PI0_OK);
    /* What is planted later must find its memory without a system call, so that it counts as what it is. */
    CHECK_STATUS(pi0_runtime_stats(loop->robot.runtime, &stats), PI0_OK);
    clock_gettime(CLOCK_MONOTONIC, &next);
    allow_sleep_only();
    for (size_t tick = 0; tick < loop->ticks; tick++) {
        const uint64_t before = pi0_now_ns();
        in_read = 1;
        const pi0_status status = pi0_controller_read(loop->robot.controller, action, joints, &reading);
        if (loop->plant == PLANT_ALLOCATION && tick == loop->ticks / 2)
            pi0_runtime_stats(loop->robot.runtime, &stats); /* which is not RT-safe: it allocates */
        if (loop->plant == PLANT_SYSTEM_CALL && tick == loop->ticks / 2)
            syscall(SYS_getpid);
        in_read = 0;
        loop->took_ns[tick] = pi0_now_ns() - before;
        CHECK(status >= 0 && status <= PI0_EMPTY);
        loop->statuses[status]++;
        next.tv_nsec += PERIOD_NS;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    atomic_store(&loop->done, 1);
    /* Ending a thread takes system calls, which this one may not make. */
    for (;;) {
        next.tv_sec += 3600;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* "-" where fewer than ten values lie beyond. */
static void percentile(const struct loop *loop, const char *name, double share)
{
    if ((double)loop->ticks * (1 - share) < 9.999999)
        printf(", %s -", name);
    else
        printf(", %s %.2f", name, (double)loop->took_ns[(size_t)((double)loop->ticks * share)] / 1e3);
}

int main(int argc, char **argv)
{
    static struct loop loop;
    pi0_runtime_config config;
    pthread_t thread;
    CHECK(argc == 3 || argc == 4);
    if (argc == 4)
        loop.plant = strcmp(argv[3], "plant_allocation") == 0 ? PLANT_ALLOCATION : PLANT_SYSTEM_CALL;
    loop.ticks = (size_t)strtoul(argv[2], NULL, 10) * (1000000000 / PERIOD_NS);
    loop.took_ns = calloc(loop.ticks, sizeof *loop.took_ns);
    CHECK(loop.ticks > 0 && loop.took_ns);

    CHECK_STATUS(pi0_runtime_config_default(&config, sizeof config), PI0_OK);
    config.prompt = "pick up the cube";
    config.max_frame_width = WIDTH;
    config.max_frame_height = HEIGHT;
    config.control_period_ns = PERIOD_NS;
    loop.robot = start(argv[1], &config);
    until_moving(&loop.robot);
    CHECK(pthread_create(&thread, NULL, run, &loop) == 0);
    for (unsigned moment = 0; !atomic_load(&loop.done); moment++) {
        CHECK_STATUS(look(&loop.robot, moment), PI0_OK);
        sleep_ms(33);
    }

    qsort(loop.took_ns, loop.ticks, sizeof *loop.took_ns, by_value);
    printf("%zu reads at 1 kHz, %s: %lu allocations, %lu system calls; us: min %.2f", loop.ticks,
           loop.realtime ? "SCHED_FIFO 90" : "no real-time priority", (unsigned long)allocations,
           (unsigned long)system_calls, (double)loop.took_ns[0] / 1e3);
    percentile(&loop, "p50", 0.5);
    percentile(&loop, "p90", 0.9);
    percentile(&loop, "p99", 0.99);
    percentile(&loop, "p99.9", 0.999);
    printf(", max %.2f; ok %lu, stale %lu, hold %lu, empty %lu\n", (double)loop.took_ns[loop.ticks - 1] / 1e3,
           (unsigned long)loop.statuses[PI0_OK], (unsigned long)loop.statuses[PI0_STALE],
           (unsigned long)loop.statuses[PI0_HOLD], (unsigned long)loop.statuses[PI0_EMPTY]);
    CHECK_STATUS(pi0_runtime_stop(loop.robot.runtime, NULL), PI0_OK);
    fflush(stdout);
    _Exit(allocations == 0 && system_calls == 0 ? 0 : 1);
}
