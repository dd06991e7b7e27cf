/* Observations that cannot be used, episodes, and a policy that is started again without being loaded. */
#include "support.h"

#include <math.h>

static struct robot robot;
static pi0_stats stats = {.struct_size = sizeof stats};

static unsigned events(uint32_t kind)
{
    pi0_event event = {.struct_size = sizeof event};
    unsigned count = 0;
    while (pi0_runtime_next_event(robot.runtime, 0, &event) == PI0_OK) {
        CHECK(event.kind != PI0_EVENT_GAVE_UP && event.kind != PI0_EVENT_ENGINE_ERROR);
        CHECK(event.kind != PI0_EVENT_OBSERVATION_REFUSED || strlen(event.message) > 0);
        count += event.kind == kind;
    }
    return count;
}

/* Fills the slot rightly, then publishes it with one thing wrong. */
static void look_wrongly(int what)
{
    float state[MAX_VALUES] = {0};
    uint8_t *pixels = NULL;
    for (uint32_t camera = 0; camera < robot.info.cameras; camera++)
        CHECK_STATUS(pi0_observation_writer_frame(robot.writer, camera, WIDTH, HEIGHT, &pixels), PI0_OK);
    state[0] = what == 0 ? NAN : what == 1 ? -INFINITY : 0;
    CHECK_STATUS(pi0_observation_writer_set_state(robot.writer, state, robot.info.state_dim), PI0_OK);
    if (what == 2)
        CHECK_STATUS(pi0_observation_writer_clear_frame(robot.writer, 0), PI0_OK);
    if (what == 3)
        /* Too narrow to be a picture. */
        CHECK_STATUS(pi0_observation_writer_frame(robot.writer, 1, 1, 3000, &pixels), PI0_OK);
    CHECK_STATUS(pi0_observation_writer_publish(robot.writer, pi0_now_ns(), NULL), PI0_OK);
}

static pi0_status read_now(void)
{
    float action[MAX_VALUES];
    const pi0_status status = pi0_controller_read(robot.controller, action, robot.info.action_dim, NULL);
    CHECK(status >= 0);
    return status;
}

static void wait_refused(uint64_t count)
{
    for (int i = 0; i < 60000; i++) {
        CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
        if (stats.observations_unusable >= count)
            return;
        sleep_ms(1);
    }
    CHECK(!"refused within a minute");
}

static void bad_observations(void)
{
    uint64_t refused = 0;
    until_moving(&robot);
    for (int what = 0; what < 4; what++) {
        events(0);
        look_wrongly(what);
        wait_refused(++refused);
        /* Nothing for long enough that ten tries would have been the end: told once, held by age. */
        sleep_ms(what == 0 ? 1600 : 50);
        CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
        CHECK(stats.observations_unusable == refused && stats.errors == 0);
        CHECK(events(PI0_EVENT_OBSERVATION_REFUSED) == 1);
        CHECK(what != 0 || read_now() == PI0_HOLD);
        until_moving(&robot);
    }
    /* What the writer itself refuses changes nothing either. */
    uint8_t *pixels = NULL;
    CHECK_STATUS(pi0_observation_writer_frame(robot.writer, 0, WIDTH + 1, HEIGHT + 1, &pixels), PI0_ERR_SIZE);
    CHECK_STATUS(pi0_observation_writer_publish(robot.writer, pi0_now_ns() + 1000000000000u, NULL), PI0_ERR_FUTURE);
    CHECK_STATUS(pi0_observation_writer_publish(robot.writer, 1, NULL), PI0_ERR_ORDER);
    /* Many of them, one after the other, and one good one. */
    for (int i = 0; i < 100; i++) {
        look_wrongly(i % 4);
        wait_refused(++refused);
    }
    until_moving(&robot);
    CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
    CHECK(stats.phase == PI0_PHASE_READY && stats.errors == 0 && stats.observations_unusable == refused);
}

static void episodes(void)
{
    float action[MAX_VALUES] = {[0] = 7};
    pi0_reading reading = {.struct_size = sizeof reading};
    for (int i = 0; i < 20; i++) {
        until_moving(&robot);
        CHECK_STATUS(look(&robot, 1), PI0_OK);
        CHECK_STATUS(pi0_runtime_begin_episode(robot.runtime), PI0_OK);
        for (int wait = 0; wait < 10; wait++) {
            action[0] = 7;
            CHECK_STATUS(pi0_controller_read(robot.controller, action, robot.info.action_dim, &reading), PI0_EMPTY);
            CHECK(reading.has_action == 0 && reading.chunk == 0 && action[0] == 7);
            sleep_ms(1);
        }
    }
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    pi0_runtime_config config;
    pi0_thread_config thread;
    pi0_error error;
    test_config(&config, &thread);
    config.event_capacity = 4096;
    robot = start(argv[1], &config);
    for (int life = 0; life < 3; life++) {
        if (life == 0)
            bad_observations();
        episodes();
        pi0_policy *policy = NULL, *again = NULL;
        CHECK_STATUS(pi0_runtime_take_policy(robot.runtime, &policy, &error), PI0_OK);
        CHECK_STATUS(pi0_runtime_take_policy(robot.runtime, &again, &error), PI0_ERR_STATE);
        CHECK(strstr(error.message, "load it anew"));
        CHECK(read_now() == PI0_EMPTY || read_now() == PI0_HOLD);
        CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
        CHECK(stats.phase == PI0_PHASE_STOPPED);
        release(&robot);
        CHECK_STATUS(pi0_runtime_start(policy, &config, &robot.runtime, &robot.writer, &robot.controller, &error),
                     PI0_OK);
        CHECK_STATUS(pi0_policy_free(policy), PI0_ERR_HANDLE);
        CHECK(read_now() == PI0_EMPTY);
    }
    until_moving(&robot);
    release(&robot);
    return 0;
}
