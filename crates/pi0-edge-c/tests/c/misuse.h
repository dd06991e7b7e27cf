/* The world that tests/interface/misuse.rs generates wrong calls into. */
#include "support.h"

#include <pthread.h>

enum { SUCCESS = 1000, DOCUMENTED = 1001, MAX_CAMERAS = 8 };

static const char *bundle;
static struct robot robot;
static pi0_policy *policy;
/* A freed handle of each kind. */
static void *freed[4];

/* Arguments that are right, put right again before each call. */
static pi0_policy_options policy_options;
static pi0_infer_options infer_options;
static pi0_rtc_config rtc_config;
static pi0_thread_config thread_config;
static pi0_runtime_config runtime_config;
static pi0_limits limits;
static pi0_observation observation;
static pi0_image images[MAX_CAMERAS];
static pi0_info info;
static pi0_timing timing;
static pi0_stats stats;
static pi0_realtime realtime;
static pi0_event event;
static pi0_published published;
static pi0_camera_frame camera_frame;
static pi0_reading reading;
static pi0_error error;
static float values[4096], ones[4096];
static uint8_t pixels[WIDTH * HEIGHT * 3], rgb[WIDTH * HEIGHT * 3];
static uint8_t *pixels_out;
static uint32_t number;
static char text[256], camera_names[MAX_CAMERAS][256], long_text[1 << 20];
static pi0_policy *pi0_policy_out;
static pi0_runtime *pi0_runtime_out;
static pi0_observation_writer *pi0_observation_writer_out;
static pi0_controller *pi0_controller_out;

static unsigned calls, wrong;

static void expect(const char *what, pi0_status got, const pi0_status *allowed, size_t n, pi0_status wanted)
{
    int documented = 0;
    for (size_t i = 0; i < n; i++)
        documented |= allowed[i] == got;
    const int as_wanted = wanted == SUCCESS ? got >= 0 : wanted == DOCUMENTED || got == wanted;
    calls++;
    if (!documented || !as_wanted) {
        wrong++;
        fprintf(stderr, "%s: %d (%s)%s; %s\n", what, (int)got, pi0_status_str(got),
                documented ? "" : ", which is not documented", error.message);
    }
    /* What a call gave is not needed. */
    pi0_policy_free(pi0_policy_out);
    pi0_runtime_free(pi0_runtime_out);
    pi0_observation_writer_free(pi0_observation_writer_out);
    pi0_controller_free(pi0_controller_out);
    pi0_policy_out = NULL;
    pi0_runtime_out = NULL;
    pi0_observation_writer_out = NULL;
    pi0_controller_out = NULL;
}

/* Whatever the last call did, all handles are alive and all arguments right. */
static void world(void)
{
    pi0_info look = {.struct_size = sizeof look};
    pi0_stats phase = {.struct_size = sizeof phase};
    float action[MAX_VALUES];
    if (pi0_policy_info(policy, &look) != PI0_OK)
        policy = open_policy(bundle);
    const int alive = robot.runtime && pi0_runtime_stats(robot.runtime, &phase) == PI0_OK &&
                      phase.phase == PI0_PHASE_READY && pi0_controller_attach(robot.controller) == PI0_OK &&
                      pi0_observation_writer_attach(robot.writer) == PI0_OK;
    if (!alive) {
        pi0_runtime_free(robot.runtime);
        pi0_observation_writer_free(robot.writer);
        pi0_controller_free(robot.controller);
        robot = start_default(bundle);
    }
    CHECK(pi0_controller_read(robot.controller, action, robot.info.action_dim, NULL) >= 0);

    CHECK_STATUS(pi0_policy_options_default(&policy_options, sizeof policy_options), PI0_OK);
    policy_options.threads = 1;
    policy_options.no_spin = 1;
    CHECK_STATUS(pi0_infer_options_default(&infer_options, sizeof infer_options), PI0_OK);
    CHECK_STATUS(pi0_rtc_config_default(&rtc_config, sizeof rtc_config), PI0_OK);
    rtc_config.execution_horizon = 4;
    test_config(&runtime_config, &thread_config);
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) {
        values[i] = 0;
        ones[i] = 1;
    }
    limits = (pi0_limits){.struct_size = sizeof limits, .min = values, .max = ones, .len = robot.info.action_dim};
    for (uint32_t i = 0; i < robot.info.cameras; i++)
        images[i] = (pi0_image){.camera = camera_names[i], .rgb = pixels, .width = WIDTH, .height = HEIGHT};
    observation = (pi0_observation){.struct_size = sizeof observation, .images = images, .image_count = robot.info.cameras,
                                    .state = values, .state_len = robot.info.state_dim,
                                    .prompt = "pick up the cube"};
    camera_frame = (pi0_camera_frame){.struct_size = sizeof camera_frame, .width = WIDTH, .height = HEIGHT,
                                      .data = pixels, .data_size = sizeof pixels, .row_bytes = WIDTH * 3};
    info.struct_size = sizeof info;
    timing.struct_size = sizeof timing;
    stats.struct_size = sizeof stats;
    realtime.struct_size = sizeof realtime;
    event.struct_size = sizeof event;
    published.struct_size = sizeof published;
    reading.struct_size = sizeof reading;
    error.message[0] = '\0';
}

static void *own(void *unused)
{
    (void)unused;
    CHECK_STATUS(pi0_controller_attach(robot.controller), PI0_OK);
    CHECK_STATUS(pi0_observation_writer_attach(robot.writer), PI0_OK);
    return NULL;
}

/* The other thread stays, so that its number is not given to another. */
static void owned_by_another_thread(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, own, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void prepare(void)
{
    memset(long_text, 'x', sizeof long_text - 1);
    policy = open_policy(bundle);
    pi0_info cameras = {.struct_size = sizeof cameras};
    CHECK_STATUS(pi0_policy_info(policy, &cameras), PI0_OK);
    CHECK(cameras.cameras <= MAX_CAMERAS);
    for (uint32_t i = 0; i < cameras.cameras; i++)
        CHECK_STATUS(pi0_policy_camera(policy, i, camera_names[i], sizeof camera_names[i], NULL), PI0_OK);
    freed[0] = policy;
    CHECK_STATUS(pi0_policy_free(policy), PI0_OK);
    robot = start_default(bundle);
    freed[1] = robot.runtime;
    freed[2] = robot.writer;
    freed[3] = robot.controller;
    release(&robot);
    robot = (struct robot){0};
}

static int finish(void)
{
    printf("%u calls\n", calls);
    pi0_policy_free(policy);
    release(&robot);
    return wrong == 0 ? 0 : 1;
}
