/*
 * A program of the first release. It is compiled against the header beside it, which is that release's and stays as it
 * is, and runs with whatever library there is. It uses every structure.
 */
#include <pi0_edge.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the first release laid out. */
typedef char sizes_are_kept[sizeof(pi0_policy_options) == 56 && sizeof(pi0_info) == 40 && sizeof(pi0_timing) == 48 &&
                                    sizeof(pi0_image) == 24 && sizeof(pi0_observation) == 48 &&
                                    sizeof(pi0_infer_options) == 64 && sizeof(pi0_rtc_config) == 24 &&
                                    sizeof(pi0_limits) == 32 && sizeof(pi0_thread_config) == 64 &&
                                    sizeof(pi0_runtime_config) == 240 && sizeof(pi0_reading) == 64 &&
                                    sizeof(pi0_published) == 16 && sizeof(pi0_event) == 552 &&
                                    sizeof(pi0_latency) == 72 && sizeof(pi0_realtime) == 1088 &&
                                    sizeof(pi0_stats) == 752 && sizeof(pi0_error) == 1024
                                ? 1
                                : -1];

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            exit(3);                                                                                         \
        }                                                                                                    \
    } while (0)

/* Whatever lies behind a structure must not be written to by a library that has a larger one. */
#define GUARDED(type)                                                                                        \
    struct {                                                                                                 \
        type value;                                                                                          \
        unsigned char guard[64];                                                                             \
    }
#define SET_GUARD(g) memset((g).guard, 0xA5, sizeof(g).guard)

static int intact(const unsigned char *guard)
{
    for (int i = 0; i < 64; i++)
        if (guard[i] != 0xA5)
            return 0;
    return 1;
}

int main(int argc, char **argv)
{
    GUARDED(pi0_policy_options) options;
    GUARDED(pi0_infer_options) infer;
    GUARDED(pi0_rtc_config) rtc;
    GUARDED(pi0_thread_config) thread;
    GUARDED(pi0_runtime_config) config;
    GUARDED(pi0_info) info;
    GUARDED(pi0_timing) timing;
    GUARDED(pi0_reading) reading;
    GUARDED(pi0_published) published;
    GUARDED(pi0_event) event;
    GUARDED(pi0_realtime) realtime;
    GUARDED(pi0_stats) stats;
    pi0_error error;
    pi0_policy *policy = NULL;
    pi0_runtime *runtime = NULL;
    pi0_observation_writer *writer = NULL;
    pi0_controller *controller = NULL;
    static uint8_t pixels[32 * 24 * 3];
    static float state[64], actions[4096], action[64], lowest[64], highest[64];

    CHECK(argc == 2);
    SET_GUARD(options), SET_GUARD(infer), SET_GUARD(rtc), SET_GUARD(thread), SET_GUARD(config), SET_GUARD(info);
    SET_GUARD(timing), SET_GUARD(reading), SET_GUARD(published), SET_GUARD(event), SET_GUARD(realtime);
    SET_GUARD(stats);

    CHECK(pi0_policy_options_default(&options.value, sizeof options.value) == PI0_OK);
    options.value.threads = 1;
    options.value.no_spin = 1;
    CHECK(pi0_policy_new(argv[1], &options.value, &policy, &error) == PI0_OK);
    info.value.struct_size = sizeof info.value;
    CHECK(pi0_policy_info(policy, &info.value) == PI0_OK);
    CHECK(info.value.action_dim <= 64 && info.value.state_dim <= 64);

    /* One chunk, guided by nothing but zeros. */
    char names[8][128];
    pi0_image images[8];
    CHECK(info.value.cameras <= 8);
    for (uint32_t camera = 0; camera < info.value.cameras; camera++) {
        CHECK(pi0_policy_camera(policy, camera, names[camera], sizeof names[camera], NULL) == PI0_OK);
        const pi0_image image = {names[camera], pixels, 32, 24};
        images[camera] = image;
    }
    const pi0_observation observation = {sizeof observation,    images,
                                         info.value.cameras,    state,
                                         info.value.state_dim,  "pick up the cube"};
    const size_t len = (size_t)info.value.action_horizon * info.value.action_dim;
    CHECK(len <= 4096);
    CHECK(pi0_infer_options_default(&infer.value, sizeof infer.value) == PI0_OK);
    CHECK(pi0_rtc_config_default(&rtc.value, sizeof rtc.value) == PI0_OK);
    rtc.value.execution_horizon = 4;
    infer.value.previous = state;
    infer.value.previous_len = info.value.action_dim;
    infer.value.rtc = &rtc.value;
    CHECK(pi0_policy_infer(policy, &observation, &infer.value, actions, len, &error) == PI0_OK);
    timing.value.struct_size = sizeof timing.value;
    CHECK(pi0_policy_timing(policy, &timing.value) == PI0_OK && timing.value.total_ns > 0);

    CHECK(pi0_thread_config_default(&thread.value, sizeof thread.value) == PI0_OK);
    thread.value.realtime = PI0_REALTIME_OFF;
    CHECK(pi0_runtime_config_default(&config.value, sizeof config.value) == PI0_OK);
    for (int i = 0; i < 64; i++)
        lowest[i] = -1e6f, highest[i] = 1e6f;
    const pi0_limits limits = {sizeof limits, lowest, highest, info.value.action_dim};
    config.value.prompt = "pick up the cube";
    config.value.max_frame_width = 32;
    config.value.max_frame_height = 24;
    config.value.thread = &thread.value;
    config.value.limits = &limits;
    config.value.rtc = &rtc.value;
    CHECK(pi0_runtime_start(policy, &config.value, &runtime, &writer, &controller, &error) == PI0_OK);

    reading.value.struct_size = sizeof reading.value;
    published.value.struct_size = sizeof published.value;
    CHECK(pi0_controller_set_reference(controller, state, info.value.action_dim) == PI0_OK);
    for (uint32_t camera = 0; camera < info.value.cameras; camera++)
        CHECK(pi0_observation_writer_set_frame(writer, camera, 32, 24, pixels, 32 * 3) == PI0_OK);
    CHECK(pi0_observation_writer_set_state(writer, state, info.value.state_dim) == PI0_OK);
    CHECK(pi0_observation_writer_publish(writer, pi0_now_ns(), &published.value) == PI0_OK);
    event.value.struct_size = sizeof event.value;
    CHECK(pi0_runtime_next_event(runtime, 60000000000u, &event.value) == PI0_OK);
    CHECK(event.value.kind == PI0_EVENT_CHUNK && event.value.chunk == 1);
    CHECK(pi0_controller_read(controller, action, info.value.action_dim, &reading.value) >= 0);
    CHECK(reading.value.has_action == 1 && reading.value.chunk == 1);
    realtime.value.struct_size = sizeof realtime.value;
    CHECK(pi0_runtime_realtime(runtime, &realtime.value) == PI0_OK && realtime.value.missing_count == 0);
    stats.value.struct_size = sizeof stats.value;
    CHECK(pi0_runtime_stats(runtime, &stats.value) == PI0_OK);
    CHECK(stats.value.reads == 1 && stats.value.chunks_published == 1 && stats.value.latency.count == 1);

    CHECK(intact(options.guard) && intact(infer.guard) && intact(rtc.guard) && intact(thread.guard));
    CHECK(intact(config.guard) && intact(info.guard) && intact(timing.guard) && intact(reading.guard));
    CHECK(intact(published.guard) && intact(event.guard) && intact(realtime.guard) && intact(stats.guard));
    CHECK(pi0_controller_free(controller) == PI0_OK);
    CHECK(pi0_observation_writer_free(writer) == PI0_OK);
    CHECK(pi0_runtime_free(runtime) == PI0_OK);
    printf("built with %s, running with %s\n", PI0_VERSION, pi0_version());
    return 0;
}
