/* What the test programs share: a runtime on a small bundle, and a check that says where it failed. */
#ifndef PI0_TEST_SUPPORT_H
#define PI0_TEST_SUPPORT_H

#include <pi0_edge.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            _Exit(3);                                                                                        \
        }                                                                                                    \
    } while (0)

#define CHECK_STATUS(call, wanted)                                                                           \
    do {                                                                                                     \
        const pi0_status got_ = (call);                                                                      \
        if (got_ != (wanted)) {                                                                              \
            fprintf(stderr, "%s:%d: %s gave %d (%s)\n", __FILE__, __LINE__, #call, (int)got_,                \
                    pi0_status_str(got_));                                                                   \
            _Exit(3);                                                                                        \
        }                                                                                                    \
    } while (0)

enum { WIDTH = 64, HEIGHT = 48, MAX_VALUES = 64 };

struct robot {
    pi0_info info;
    pi0_runtime *runtime;
    pi0_observation_writer *writer;
    pi0_controller *controller;
};

static inline pi0_policy *open_policy(const char *bundle)
{
    pi0_policy_options options;
    pi0_policy *policy = NULL;
    pi0_error error = {{0}};
    CHECK_STATUS(pi0_policy_options_default(&options, sizeof options), PI0_OK);
    options.threads = 1;
    options.no_spin = 1;
    const pi0_status status = pi0_policy_new(bundle, &options, &policy, &error);
    if (status != PI0_OK)
        fprintf(stderr, "%s: %s\n", bundle, error.message);
    CHECK_STATUS(status, PI0_OK);
    return policy;
}

/* Settings for tests: small frames, no real-time rights asked for. */
static inline void test_config(pi0_runtime_config *config, pi0_thread_config *thread)
{
    CHECK_STATUS(pi0_runtime_config_default(config, sizeof *config), PI0_OK);
    CHECK_STATUS(pi0_thread_config_default(thread, sizeof *thread), PI0_OK);
    thread->realtime = PI0_REALTIME_OFF;
    config->thread = thread;
    config->prompt = "pick up the cube";
    config->max_frame_width = WIDTH;
    config->max_frame_height = HEIGHT;
}

static inline struct robot start(const char *bundle, const pi0_runtime_config *config)
{
    struct robot robot = {.info = {.struct_size = sizeof robot.info}};
    pi0_error error = {{0}};
    pi0_policy *policy = open_policy(bundle);
    CHECK_STATUS(pi0_policy_info(policy, &robot.info), PI0_OK);
    CHECK(robot.info.action_dim <= MAX_VALUES && robot.info.state_dim <= MAX_VALUES);
    const pi0_status status =
        pi0_runtime_start(policy, config, &robot.runtime, &robot.writer, &robot.controller, &error);
    if (status != PI0_OK)
        fprintf(stderr, "starting: %s\n", error.message);
    CHECK_STATUS(status, PI0_OK);
    return robot;
}

static inline struct robot start_default(const char *bundle)
{
    pi0_runtime_config config;
    pi0_thread_config thread;
    test_config(&config, &thread);
    return start(bundle, &config);
}

static inline pi0_status look(struct robot *robot, unsigned moment)
{
    float state[MAX_VALUES] = {0};
    for (uint32_t camera = 0; camera < robot->info.cameras; camera++) {
        uint8_t *pixels = NULL;
        const pi0_status status =
            pi0_observation_writer_frame(robot->writer, camera, WIDTH, HEIGHT, &pixels);
        if (status < 0)
            return status;
        memset(pixels, (int)(moment % 256), (size_t)WIDTH * HEIGHT * 3);
    }
    const pi0_status status = pi0_observation_writer_set_state(robot->writer, state, robot->info.state_dim);
    return status < 0 ? status : pi0_observation_writer_publish(robot->writer, pi0_now_ns(), NULL);
}

static inline void sleep_ms(long ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Observes and reads until there is an action from a chunk. */
static inline void until_moving(struct robot *robot)
{
    float action[MAX_VALUES];
    for (unsigned i = 0; i < 60000; i++) {
        if (i % 20 == 0)
            CHECK_STATUS(look(robot, i), PI0_OK);
        const pi0_status status =
            pi0_controller_read(robot->controller, action, robot->info.action_dim, NULL);
        CHECK(status >= 0);
        if (status == PI0_OK)
            return;
        sleep_ms(1);
    }
    CHECK(!"an action within a minute");
}

static inline void release(struct robot *robot)
{
    CHECK_STATUS(pi0_controller_free(robot->controller), PI0_OK);
    CHECK_STATUS(pi0_observation_writer_free(robot->writer), PI0_OK);
    CHECK_STATUS(pi0_runtime_free(robot->runtime), PI0_OK);
}

#endif
