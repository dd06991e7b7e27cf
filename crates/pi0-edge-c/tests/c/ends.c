/* How a process ends, forks, and takes signals, with a runtime going on. */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* exit() in the middle of inference, with nothing stopped and nothing freed. */
static int exit_while_running(const char *bundle)
{
    struct robot robot = start_default(bundle);
    until_moving(&robot);
    CHECK_STATUS(look(&robot, 1), PI0_OK);
    exit(0);
}

static struct robot *at_exit_robot;

static void read_at_exit(void)
{
    /* Registered before the library's handler, so it runs after it: inference has ended. */
    float action[MAX_VALUES];
    pi0_stats stats = {.struct_size = sizeof stats};
    CHECK_STATUS(pi0_runtime_stats(at_exit_robot->runtime, &stats), PI0_OK);
    CHECK(stats.phase == PI0_PHASE_STOPPED);
    CHECK_STATUS(pi0_controller_read(at_exit_robot->controller, action, at_exit_robot->info.action_dim, NULL),
                 PI0_HOLD);
    puts("ended before this handler");
    fflush(stdout);
}

static int exit_order(const char *bundle)
{
    static struct robot robot;
    atexit(read_at_exit);
    robot = start_default(bundle);
    at_exit_robot = &robot;
    until_moving(&robot);
    return 0; /* main returns, which is exit too */
}

/* exit() on another thread, while the main thread reads on. */
static void *exit_here(void *unused)
{
    (void)unused;
    exit(0);
}

static int exit_on_another_thread(const char *bundle)
{
    struct robot robot = start_default(bundle);
    float action[MAX_VALUES];
    pthread_t thread;
    until_moving(&robot);
    CHECK(pthread_create(&thread, NULL, exit_here, NULL) == 0);
    for (;;)
        CHECK(pi0_controller_read(robot.controller, action, robot.info.action_dim, NULL) >= 0);
}

/* A child of fork is told so by every handle and ends by exit() without hanging; the parent goes on. */
static int fork_by(pid_t (*make)(void), const char *bundle)
{
    struct robot robot = start_default(bundle);
    until_moving(&robot);
    fflush(NULL);
    /* Nothing is being computed any more: a bare fork keeps the allocator's locks as they are. */
    sleep_ms(200);
    const pid_t child = make();
    CHECK(child >= 0);
    if (child == 0) {
        float action[MAX_VALUES];
        pi0_policy *policy = NULL;
        CHECK_STATUS(pi0_controller_read(robot.controller, action, robot.info.action_dim, NULL), PI0_ERR_FORKED);
        CHECK_STATUS(pi0_runtime_stop(robot.runtime, NULL), PI0_ERR_FORKED);
        CHECK_STATUS(pi0_runtime_free(robot.runtime), PI0_ERR_FORKED);
        CHECK_STATUS(pi0_policy_new(bundle, NULL, &policy, NULL), PI0_ERR_FORKED);
        exit(0);
    }
    int outcome = -1;
    CHECK(waitpid(child, &outcome, 0) == child);
    CHECK(WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0);
    until_moving(&robot);
    release(&robot);
    return 0;
}

static int fork_child(const char *bundle)
{
    return fork_by(fork, bundle);
}

/* Without any of the handlers that fork calls, as _Fork does it. */
static pid_t bare_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static int bare_fork_child(const char *bundle)
{
    return fork_by(bare_fork, bundle);
}

/* A program's signal handler runs on the program's threads only. */
static volatile sig_atomic_t handled, elsewhere;
static pid_t main_thread;

static void on_signal(int signal)
{
    (void)signal;
    handled++;
    if ((pid_t)syscall(SYS_gettid) != main_thread)
        elsewhere++;
}

static int signals(const char *bundle)
{
    main_thread = (pid_t)syscall(SYS_gettid);
    CHECK(signal(SIGUSR1, on_signal) != SIG_ERR);
    struct robot robot = start_default(bundle);
    until_moving(&robot);
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    for (int i = 0; i < 200; i++) {
        /* The main thread does not want it now, so the system would look for another that does. */
        pthread_sigmask(SIG_BLOCK, &block, NULL);
        kill(getpid(), SIGUSR1);
        CHECK_STATUS(look(&robot, (unsigned)i), PI0_OK);
        sleep_ms(1);
        const int before = handled;
        pthread_sigmask(SIG_UNBLOCK, &block, NULL);
        CHECK(handled == before + 1);
    }
    CHECK(elsewhere == 0);
    /* What the library asks of the caller's mask is put back. */
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    CHECK(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGINT));
    release(&robot);
    return 0;
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    static const struct {
        const char *name;
        int (*run)(const char *bundle);
    } ways[] = {
        {"exit_while_running", exit_while_running}, {"exit_order", exit_order},
        {"exit_on_another_thread", exit_on_another_thread}, {"fork_child", fork_child},
        {"bare_fork_child", bare_fork_child},
        {"signals", signals},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            return ways[i].run(argv[2]);
    return 2;
}
