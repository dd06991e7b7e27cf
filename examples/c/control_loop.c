/*
 * A 1 kHz control loop on a simulated arm.
 *
 *     cc -std=c11 control_loop.c $(pkg-config --cflags --libs pi0_edge) -pthread -o control_loop
 *     ./control_loop BUNDLE [SECONDS]
 *
 * As a service it is started without arguments and finds $BUNDLE in its environment (pi0-edge@.service).
 *
 * The main thread waits for the end. A sensor thread looks at the world at 30 Hz and publishes observations. The
 * control thread reads an action every millisecond, whatever inference is doing, and moves the arm. SIGINT and SIGTERM
 * end it cleanly. With the right to real-time priority (root, or rtprio in limits.conf) the control thread runs at
 * SCHED_FIFO 90, above inference, which asks for 80; without, everything runs all the same and says so.
 */
#define _GNU_SOURCE
#include <pi0_edge.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PERIOD_NS = 1000000, SENSOR_PERIOD_NS = 33333333, WIDTH = 320, HEIGHT = 240, MAX_JOINTS = 32 };

static atomic_bool ending;

/* What the threads share: the arm, as its encoders would report it. */
struct arm {
    pi0_info info;
    _Atomic float joints[MAX_JOINTS];
};

struct sensors {
    struct arm *arm;
    pi0_observation_writer *writer;
};

struct control {
    struct arm *arm;
    pi0_controller *controller;
    uint64_t ticks, statuses[PI0_EMPTY + 1];
    uint64_t late_max_ns, read_max_ns;
    int realtime;
    pi0_status error;
};

static void sleep_until(struct timespec *next, long period_ns)
{
    next->tv_nsec += period_ns;
    if (next->tv_nsec >= 1000000000) {
        next->tv_nsec -= 1000000000;
        next->tv_sec++;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL) == EINTR)
        ;
}

static void *sense(void *argument)
{
    struct sensors *sensors = argument;
    const pi0_info *info = &sensors->arm->info;
    float state[MAX_JOINTS] = {0};
    struct timespec next;

    clock_gettime(CLOCK_MONOTONIC, &next);
    for (unsigned frame = 0; !atomic_load(&ending); frame++) {
        /* The time of the oldest part of what follows: a driver would have stamped it. */
        const uint64_t captured_ns = pi0_now_ns();
        for (uint32_t camera = 0; camera < info->cameras; camera++) {
            uint8_t *pixels;
            if (pi0_observation_writer_frame(sensors->writer, camera, WIDTH, HEIGHT, &pixels) == PI0_OK)
                memset(pixels, (int)(frame % 256), (size_t)WIDTH * HEIGHT * 3);
        }
        for (uint32_t joint = 0; joint < info->state_dim; joint++)
            state[joint] = joint < info->action_dim ? atomic_load(&sensors->arm->joints[joint]) : 0.0f;
        pi0_observation_writer_set_state(sensors->writer, state, info->state_dim);
        pi0_status status = pi0_observation_writer_publish(sensors->writer, captured_ns, NULL);
        if (status < 0)
            fprintf(stderr, "observation not taken: %s\n", pi0_status_str(status));
        sleep_until(&next, SENSOR_PERIOD_NS);
    }
    return NULL;
}

static void *run_control(void *argument)
{
    struct control *control = argument;
    const uint32_t joints = control->arm->info.action_dim;
    const struct sched_param fifo = {.sched_priority = 90};
    float action[MAX_JOINTS] = {0};
    pi0_reading reading = {.struct_size = sizeof reading};
    struct timespec next;

    control->realtime = pthread_setschedparam(pthread_self(), SCHED_FIFO, &fifo) == 0;
    /* Where the arm is, so that the first step is limited too. */
    pi0_controller_set_reference(control->controller, action, joints);

    clock_gettime(CLOCK_MONOTONIC, &next);
    while (!atomic_load_explicit(&ending, memory_order_relaxed)) {
        const uint64_t before = pi0_now_ns();
        const uint64_t due = (uint64_t)next.tv_sec * 1000000000u + (uint64_t)next.tv_nsec;
        const pi0_status status = pi0_controller_read(control->controller, action, joints, &reading);
        const uint64_t took = pi0_now_ns() - before;
        /* Negative is an error; a library newer than this program may know more statuses. */
        if (status < 0 || status > PI0_EMPTY) {
            control->error = status;
            break;
        }
        control->ticks++;
        control->statuses[status]++;
        if (took > control->read_max_ns)
            control->read_max_ns = took;
        if (before > due && before - due > control->late_max_ns)
            control->late_max_ns = before - due;

        /* Fresh actions are followed. On STALE this arm holds, without waiting for the library to say HOLD, in which
         * case `action` is held already. A real one would slow down. */
        if (status == PI0_OK)
            for (uint32_t joint = 0; joint < joints; joint++)
                atomic_store_explicit(&control->arm->joints[joint], action[joint], memory_order_relaxed);
        sleep_until(&next, PERIOD_NS);
    }
    return NULL;
}

static void on_event(const pi0_event *event, void *user)
{
    (void)user;
    if (event->kind != PI0_EVENT_CHUNK)
        fprintf(stderr, "event %u: %s\n", (unsigned)event->kind, event->message);
}

static void report(pi0_runtime *runtime, const struct control *control)
{
    pi0_stats stats = {.struct_size = sizeof stats};
    pi0_realtime realtime = {.struct_size = sizeof realtime};

    if (pi0_runtime_realtime(runtime, &realtime) == PI0_OK)
        printf("inference thread: %s %d%s%s\n", realtime.scheduler, (int)realtime.priority,
               realtime.missing_count ? "; missing: " : "", realtime.missing);
    printf("control thread: %s, %llu ticks, latest wake-up %.1f us, longest read %.2f us\n",
           control->realtime ? "SCHED_FIFO 90" : "no real-time priority", (unsigned long long)control->ticks,
           (double)control->late_max_ns / 1e3, (double)control->read_max_ns / 1e3);
    printf("ok %llu, stale %llu, hold %llu, empty %llu\n", (unsigned long long)control->statuses[PI0_OK],
           (unsigned long long)control->statuses[PI0_STALE], (unsigned long long)control->statuses[PI0_HOLD],
           (unsigned long long)control->statuses[PI0_EMPTY]);
    if (pi0_runtime_stats(runtime, &stats) == PI0_OK)
        printf("chunks: %llu published, %llu executed, %llu underruns; missed ticks: %llu\n",
               (unsigned long long)stats.chunks_published, (unsigned long long)stats.chunks_executed,
               (unsigned long long)stats.underruns, (unsigned long long)stats.missed_ticks);
}

/* Until a signal comes or the time is over. */
static void wait_for_the_end(const sigset_t *signals, long seconds)
{
    const struct timespec time = {.tv_sec = seconds};
    int signal;
    do
        signal = seconds > 0 ? sigtimedwait(signals, NULL, &time) : sigwaitinfo(signals, NULL);
    while (signal < 0 && errno == EINTR);
    if (signal > 0)
        fprintf(stderr, "signal %d: stopping\n", signal);
}

int main(int argc, char **argv)
{
    struct arm arm = {.info = {.struct_size = sizeof arm.info}};
    struct sensors sensors = {.arm = &arm};
    struct control control = {.arm = &arm};
    pi0_policy *policy = NULL;
    pi0_runtime *runtime = NULL;
    pi0_policy_options options;
    pi0_runtime_config config;
    pi0_error error = {{0}};
    pthread_t sensor_thread, control_thread;
    sigset_t signals;
    const char *bundle = argc > 1 ? argv[1] : getenv("BUNDLE");

    if (!bundle || argc > 3) {
        fprintf(stderr, "usage: %s BUNDLE [SECONDS]\n", argv[0]);
        return 2;
    }
    /* Before any thread is made, so that all of them leave these signals to the main thread. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    pi0_policy_options_default(&options, sizeof options);
    options.threads = 1;
    options.no_spin = 1;
    pi0_status status = pi0_policy_new(bundle, &options, &policy, &error);
    if (status == PI0_OK)
        status = pi0_policy_info(policy, &arm.info);
    if (status == PI0_OK && (arm.info.action_dim > MAX_JOINTS || arm.info.state_dim > MAX_JOINTS))
        status = PI0_ERR_SIZE;
    if (status == PI0_OK) {
        pi0_runtime_config_default(&config, sizeof config);
        config.prompt = "pick up the cube";
        config.control_period_ns = PERIOD_NS;
        config.event_callback = on_event;
        status = pi0_runtime_start(policy, &config, &runtime, &sensors.writer, &control.controller, &error);
    }
    if (status != PI0_OK) {
        fprintf(stderr, "%s: %s: %s\n", bundle, pi0_status_str(status), error.message);
        pi0_policy_free(policy); /* Started or not: a handle that was taken over is refused, not used. */
        return EXIT_FAILURE;
    }

    pthread_create(&sensor_thread, NULL, sense, &sensors);
    pthread_create(&control_thread, NULL, run_control, &control);
    /* As a service of Type=notify: READY=1 now, WATCHDOG=1 as chunks are completed. Elsewhere it does nothing. */
    if (pi0_runtime_notify_systemd(runtime, NULL, &error) < 0)
        fprintf(stderr, "systemd: %s\n", error.message);
    wait_for_the_end(&signals, argc > 2 ? strtol(argv[2], NULL, 10) : 0);

    atomic_store(&ending, true);
    pthread_join(control_thread, NULL);
    pthread_join(sensor_thread, NULL);
    status = pi0_runtime_stop(runtime, &error);
    if (status < 0)
        fprintf(stderr, "stopping: %s: %s\n", pi0_status_str(status), error.message);
    report(runtime, &control);
    if (control.error)
        fprintf(stderr, "the control loop broke off: %s\n", pi0_status_str(control.error));
    pi0_controller_free(control.controller);
    pi0_observation_writer_free(sensors.writer);
    pi0_runtime_free(runtime);
    return status == PI0_OK && !control.error ? EXIT_SUCCESS : EXIT_FAILURE;
}
