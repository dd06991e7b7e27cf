/*
 * Every function that may be called from any thread, called from an event callback and a log callback at once, while
 * another thread stops the runtime, frees it, takes its policy back or exits, or the callback itself exits.
 *
 *     callbacks WAY BUNDLE
 */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MOST_STARTED = 32 };

static const char *bundle, *way;
static struct robot robot;
static atomic_int entered_event, entered_log, ending, rounds;
/* Runtimes that a callback started, which it may not free. */
static pi0_runtime *started[MOST_STARTED];
static atomic_int started_count;

/* What comes back depends on how far the other thread is; that something does is what counts. */
#define RETURNS(call)                                                                                        \
    do {                                                                                                     \
        const pi0_status got_ = (call);                                                                      \
        if (got_ == PI0_ERR_PANIC || got_ == PI0_ERR_POISONED || got_ == PI0_ERR_NULL) {                     \
            fprintf(stderr, "%s: %s gave %d (%s)\n", way, #call, (int)got_, pi0_status_str(got_));           \
            _Exit(3);                                                                                        \
        }                                                                                                    \
    } while (0)

static void on_log(uint32_t level, const char *target, const char *message, void *user);

static void nothing(const pi0_event *event, void *user)
{
    (void)event;
    (void)user;
}

/* A runtime of its own, with every function of its three sides. */
static void start_another(void)
{
    pi0_policy_options options;
    pi0_policy *policy = NULL;
    pi0_info info = {.struct_size = sizeof info};
    pi0_error error;
    CHECK_STATUS(pi0_policy_options_default(&options, sizeof options), PI0_OK);
    options.threads = 1;
    options.no_spin = 1;
    /* Not while the process exits. */
    if (pi0_policy_new(bundle, &options, &policy, &error) != PI0_OK)
        return;
    RETURNS(pi0_policy_info(policy, &info));

    char name[256];
    uint32_t required = 0;
    pi0_timing timing = {.struct_size = sizeof timing};
    pi0_infer_options infer;
    RETURNS(pi0_infer_options_default(&infer, sizeof infer));
    RETURNS(pi0_policy_camera(policy, 0, name, sizeof name, &required));
    static float actions[2][MAX_VALUES * 64];
    static uint8_t pixels[WIDTH * HEIGHT * 3];
    float state[MAX_VALUES] = {0};
    const pi0_image image = {.camera = name, .rgb = pixels, .width = WIDTH, .height = HEIGHT};
    const pi0_observation observation = {.struct_size = sizeof observation, .images = &image, .image_count = 1,
                                         .state = state, .state_len = info.state_dim, .prompt = "pick"};
    /* One camera is too few. */
    RETURNS(pi0_policy_infer(policy, &observation, &infer, actions[atomic_fetch_add(&rounds, 1) % 2],
                             (size_t)info.action_horizon * info.action_dim, &error));
    RETURNS(pi0_policy_timing(policy, &timing));

    pi0_runtime_config config;
    pi0_thread_config thread;
    struct robot other = {.info = info};
    test_config(&config, &thread);
    config.event_callback = nothing;
    const pi0_status status =
        pi0_runtime_start(policy, &config, &other.runtime, &other.writer, &other.controller, &error);
    CHECK_STATUS(pi0_policy_free(policy), PI0_ERR_HANDLE);
    if (status != PI0_OK)
        return;
    RETURNS(pi0_observation_writer_attach(other.writer));
    RETURNS(pi0_controller_attach(other.controller));
    RETURNS(look(&other, 1));
    const pi0_camera_frame frame = {.struct_size = sizeof frame, .width = WIDTH, .height = HEIGHT,
                                    .data = pixels, .data_size = sizeof pixels, .row_bytes = WIDTH * 3};
    RETURNS(pi0_observation_writer_convert_frame(other.writer, 0, &frame, NULL));
    RETURNS(pi0_controller_read(other.controller, state, info.action_dim, NULL));
    RETURNS(pi0_observation_writer_free(other.writer));
    RETURNS(pi0_controller_free(other.controller));
    const int place = atomic_fetch_add(&started_count, 1);
    CHECK(place < MOST_STARTED);
    started[place] = other.runtime;
}

static void everything(int in_log_callback)
{
    pi0_runtime *runtime = robot.runtime;
    pi0_info info = {.struct_size = sizeof info};
    pi0_stats stats = {.struct_size = sizeof stats};
    pi0_realtime realtime = {.struct_size = sizeof realtime};
    pi0_event event = {.struct_size = sizeof event};
    pi0_rtc_config rtc;
    pi0_error error;
    pi0_policy *policy = NULL;
    uint32_t found = 0;

    static uint8_t pixels[3];
    const pi0_camera_frame frame = {.struct_size = sizeof frame, .format = PI0_PIXELS_BGR, .width = 1, .height = 1,
                                    .data = (const uint8_t *)"bgr", .data_size = 3, .row_bytes = 3};

    RETURNS(pi0_camera_frame_to_rgb(&frame, pixels, sizeof pixels, &error));
    CHECK(pi0_version() != NULL && pi0_now_ns() > 0 && pi0_status_str(PI0_OK) != NULL);
    RETURNS(pi0_rtc_config_default(&rtc, sizeof rtc));
    rtc.execution_horizon = 4;

    RETURNS(pi0_runtime_stats(runtime, &stats));
    RETURNS(pi0_runtime_info(runtime, &info));
    RETURNS(pi0_runtime_realtime(runtime, &realtime));
    RETURNS(pi0_runtime_notify_systemd(runtime, &found, &error));
    RETURNS(pi0_runtime_begin_episode(runtime));
    RETURNS(pi0_runtime_set_prompt(runtime, "pick up the cube"));
    RETURNS(pi0_runtime_set_num_steps(runtime, 2));
    RETURNS(pi0_runtime_set_limits(runtime, NULL));
    RETURNS(pi0_runtime_set_rtc(runtime, &rtc));
    RETURNS(pi0_runtime_next_event(runtime, 1000000, &event));
    RETURNS(pi0_runtime_write_flight_record(runtime, "/nowhere/at/all", &error));
    RETURNS(pi0_controller_attach(robot.controller));
    RETURNS(pi0_observation_writer_attach(robot.writer));
    /* These wait for callbacks. */
    CHECK_STATUS(pi0_runtime_free(runtime), PI0_ERR_THREAD);
    const pi0_status stopped = pi0_runtime_stop(runtime, &error);
    CHECK(stopped == PI0_ERR_THREAD || stopped == PI0_ERR_HANDLE);
    const pi0_status taken = pi0_runtime_take_policy(runtime, &policy, &error);
    CHECK(taken == PI0_ERR_THREAD || taken == PI0_ERR_HANDLE);
    if (in_log_callback) {
        CHECK_STATUS(pi0_log_set_callback(NULL, NULL, PI0_LOG_OFF), PI0_ERR_THREAD);
        CHECK_STATUS(pi0_log_set_fd(-1, PI0_LOG_OFF), PI0_ERR_THREAD);
    } else {
        /* Waits for a log callback that is running. */
        RETURNS(pi0_log_set_fd(STDERR_FILENO, PI0_LOG_ERROR));
        RETURNS(pi0_log_set_callback(on_log, NULL, PI0_LOG_DEBUG));
    }
    start_another();
}

/* Goes on once the other thread is where it waits. */
static void at_the_end(atomic_int *entered, int in_log_callback, const char *exiting)
{
    if (atomic_fetch_add(entered, 1) > 0) {
        if (*entered <= 3)
            everything(in_log_callback);
        return;
    }
    while (!ending)
        sleep_ms(1);
    sleep_ms(30);
    everything(in_log_callback);
    if (strcmp(way, exiting) == 0)
        exit(0);
}

static void on_event(const pi0_event *event, void *user)
{
    (void)event;
    (void)user;
    at_the_end(&entered_event, 0, "exit_in_event_callback");
}

static void on_log(uint32_t level, const char *target, const char *message, void *user)
{
    (void)level;
    (void)target;
    (void)message;
    (void)user;
    /* The first records come before there is a runtime. */
    if (robot.runtime != NULL)
        at_the_end(&entered_log, 1, "exit_in_log_callback");
}

static void *stop_here(void *unused)
{
    (void)unused;
    RETURNS(pi0_runtime_stop(robot.runtime, NULL));
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    way = argv[1];
    bundle = argv[2];
    /* A deadlock ends here. */
    alarm(90);
    pi0_runtime_config config;
    pi0_thread_config thread;
    test_config(&config, &thread);
    config.event_callback = on_event;
    CHECK_STATUS(pi0_log_set_callback(on_log, NULL, PI0_LOG_DEBUG), PI0_OK);
    robot = start(bundle, &config);
    CHECK_STATUS(look(&robot, 1), PI0_OK);
    while (!entered_event)
        sleep_ms(1);
    /* Something to log. */
    CHECK_STATUS(pi0_policy_free(open_policy(bundle)), PI0_OK);
    while (!entered_log)
        sleep_ms(1);

    ending = 1;
    pi0_error error;
    pi0_policy *policy = NULL;
    pthread_t other;
    if (strcmp(way, "stop") == 0) {
        CHECK_STATUS(pi0_runtime_stop(robot.runtime, &error), PI0_OK);
    } else if (strcmp(way, "free") == 0) {
        CHECK_STATUS(pi0_runtime_free(robot.runtime), PI0_OK);
    } else if (strcmp(way, "take_policy") == 0) {
        CHECK_STATUS(pi0_runtime_take_policy(robot.runtime, &policy, &error), PI0_OK);
    } else if (strcmp(way, "exit") == 0) {
        exit(0);
    } else if (strcmp(way, "exit_while_stopping") == 0) {
        CHECK(pthread_create(&other, NULL, stop_here, NULL) == 0);
        sleep_ms(5);
        exit(0);
    } else {
        CHECK(strncmp(way, "exit_in_", 8) == 0);
        RETURNS(pi0_runtime_stop(robot.runtime, &error));
        for (;;)
            sleep_ms(1);
    }
    CHECK(entered_event > 0);
    CHECK_STATUS(pi0_log_set_callback(NULL, NULL, PI0_LOG_OFF), PI0_OK);
    if (strcmp(way, "free") != 0)
        CHECK_STATUS(pi0_runtime_free(robot.runtime), PI0_OK);
    CHECK_STATUS(pi0_policy_free(policy), PI0_OK);
    CHECK_STATUS(pi0_controller_free(robot.controller), PI0_OK);
    CHECK_STATUS(pi0_observation_writer_free(robot.writer), PI0_OK);
    for (int i = 0; i < started_count; i++)
        CHECK_STATUS(pi0_runtime_free(started[i]), PI0_OK);
    CHECK(started_count > 0);
    printf("%d runtimes were started by callbacks\n", started_count);
    return 0;
}
