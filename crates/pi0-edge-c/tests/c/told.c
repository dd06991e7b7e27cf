/* What the library tells a program: events three ways, the log two ways, statistics, the flight record. */
#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static pthread_t main_thread;
static struct robot robot;
static atomic_int chunks, refused, records, in_callback;

static void on_event(const pi0_event *event, void *user)
{
    CHECK(user == &robot);
    CHECK(!pthread_equal(pthread_self(), main_thread));
    CHECK(event->struct_size == sizeof *event);
    if (event->kind == PI0_EVENT_CHUNK) {
        CHECK(event->chunk > 0 && event->duration_ns > 0);
        chunks++;
        /* From here, most is allowed; ending what is calling is not. */
        pi0_stats stats = {.struct_size = sizeof stats};
        const pi0_status status = pi0_runtime_stats(robot.runtime, &stats);
        CHECK(status == PI0_OK || robot.runtime == NULL);
        CHECK_STATUS(pi0_runtime_stop(robot.runtime, NULL), robot.runtime ? PI0_ERR_THREAD : PI0_ERR_NULL);
    } else if (event->kind == PI0_EVENT_COMMAND_FAILED) {
        CHECK(strlen(event->message) > 0);
        refused++;
    }
}

static void by_callback(const char *bundle)
{
    pi0_runtime_config config;
    pi0_thread_config thread;
    pi0_event event = {.struct_size = sizeof event};
    test_config(&config, &thread);
    config.event_callback = on_event;
    config.event_user = &robot;
    robot = start(bundle, &config);
    CHECK_STATUS(pi0_runtime_next_event(robot.runtime, 0, &event), PI0_ERR_STATE);
    until_moving(&robot);
    /* More limits than joints: refused by the inference thread, in words. */
    const float min[2] = {0}, max[2] = {1, 1};
    const pi0_limits limits = {.struct_size = sizeof limits, .min = min, .max = max, .len = 2};
    CHECK_STATUS(pi0_runtime_set_limits(robot.runtime, &limits), PI0_OK);
    for (int i = 0; i < 5000 && !refused; i++)
        sleep_ms(1);
    CHECK_STATUS(pi0_runtime_stop(robot.runtime, NULL), PI0_OK);
    CHECK(chunks > 0 && refused == 1);
    const int told = chunks;
    sleep_ms(50);
    CHECK(chunks == told);
    release(&robot);
}

static void by_descriptor(const char *bundle)
{
    pi0_runtime_config config;
    pi0_thread_config thread;
    int ends[2];
    char text[1 << 16];
    CHECK(pipe(ends) == 0);
    test_config(&config, &thread);
    config.event_fd = ends[1];
    robot = start(bundle, &config);
    until_moving(&robot);
    CHECK_STATUS(pi0_runtime_stop(robot.runtime, NULL), PI0_OK);
    close(ends[1]);
    const ssize_t n = read(ends[0], text, sizeof text - 1);
    CHECK(n > 0 && text[n - 1] == '\n');
    text[n] = '\0';
    CHECK(strncmp(text, "{\"event\":\"chunk\",\"chunk\":1,", 27) == 0);
    fputs(text, stdout);
    close(ends[0]);
    release(&robot);

    /* A reader that has gone, and one that does not read, hold nobody up and end nothing. */
    CHECK(pipe(ends) == 0);
    config.event_fd = ends[1];
    close(ends[0]);
    robot = start(bundle, &config);
    until_moving(&robot);
    pi0_stats stats = {.struct_size = sizeof stats};
    CHECK_STATUS(pi0_runtime_stop(robot.runtime, NULL), PI0_OK);
    CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
    CHECK(stats.events_lost > 0);
    release(&robot);
    close(ends[1]);

    CHECK(pipe(ends) == 0);
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, 4096) >= 4096);
    memset(text, 'x', 4096);
    CHECK(write(ends[1], text, 4096) == 4096);
    config.event_fd = ends[1];
    robot = start(bundle, &config);
    until_moving(&robot);
    CHECK_STATUS(pi0_runtime_stop(robot.runtime, NULL), PI0_OK);
    CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
    CHECK(stats.events_lost > 0);
    release(&robot);
    close(ends[0]);
    close(ends[1]);

    pi0_policy *policy = open_policy(bundle);
    pi0_error error = {{0}};
    config.event_fd = ends[1];
    CHECK_STATUS(pi0_runtime_start(policy, &config, &robot.runtime, &robot.writer, &robot.controller, &error),
                 PI0_ERR_ARGUMENT);
    CHECK(strstr(error.message, "not a file descriptor open for writing"));
}

static void one_by_one(const char *bundle)
{
    pi0_event event = {.struct_size = sizeof event};
    pi0_stats stats = {.struct_size = sizeof stats};
    pi0_realtime realtime = {.struct_size = sizeof realtime};
    pi0_error error = {{0}};
    robot = start_default(bundle);
    CHECK_STATUS(pi0_runtime_next_event(robot.runtime, 1000000, &event), PI0_EMPTY);
    until_moving(&robot);
    CHECK_STATUS(pi0_runtime_next_event(robot.runtime, 1000000000, &event), PI0_OK);
    CHECK(event.kind == PI0_EVENT_CHUNK && event.chunk == 1);

    CHECK_STATUS(pi0_runtime_set_num_steps(robot.runtime, 2), PI0_OK);
    CHECK_STATUS(pi0_runtime_set_num_steps(robot.runtime, 0), PI0_ERR_ARGUMENT);
    CHECK_STATUS(pi0_runtime_set_prompt(robot.runtime, "open the drawer"), PI0_OK);
    CHECK_STATUS(pi0_runtime_set_prompt(robot.runtime, "\xff"), PI0_ERR_ARGUMENT);
    pi0_rtc_config rtc;
    CHECK_STATUS(pi0_rtc_config_default(&rtc, sizeof rtc), PI0_OK);
    rtc.execution_horizon = 6;
    CHECK_STATUS(pi0_runtime_set_rtc(robot.runtime, &rtc), PI0_OK);
    CHECK_STATUS(pi0_runtime_set_rtc(robot.runtime, NULL), PI0_OK);
    CHECK_STATUS(pi0_runtime_set_limits(robot.runtime, NULL), PI0_OK);

    CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
    CHECK(stats.phase == PI0_PHASE_READY && stats.chunks_published > 0 && stats.reads > 0);
    CHECK(stats.chunk.count > 0 && stats.chunk.max_ns >= stats.chunk.min_ns);
    CHECK(stats.chunk.p99_99_ns == PI0_UNKNOWN);
    CHECK_STATUS(pi0_runtime_realtime(robot.runtime, &realtime), PI0_OK);
    CHECK(realtime.realtime == PI0_REALTIME_OFF && strlen(realtime.scheduler) > 0);

    char path[] = "/tmp/pi0-flight-XXXXXX";
    const int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK_STATUS(pi0_runtime_write_flight_record(robot.runtime, path, &error), PI0_OK);
    FILE *file = fopen(path, "r");
    CHECK(file && fgetc(file) == '{');
    fclose(file);
    close(fd);
    unlink(path);
    CHECK_STATUS(pi0_runtime_write_flight_record(robot.runtime, "/nowhere/at/all", &error), PI0_ERR_IO);
    CHECK(strstr(error.message, "/nowhere/at/all"));

    /* Stopped: what happened can still be asked for; commands are refused. */
    CHECK_STATUS(pi0_runtime_stop(robot.runtime, &error), PI0_OK);
    CHECK_STATUS(pi0_runtime_stop(robot.runtime, &error), PI0_OK);
    CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
    CHECK(stats.phase == PI0_PHASE_STOPPED);
    CHECK_STATUS(pi0_runtime_set_prompt(robot.runtime, "too late"), PI0_ERR_RUNTIME);
    CHECK_STATUS(look(&robot, 1), PI0_ERR_RUNTIME);
    release(&robot);
}

static void on_record(uint32_t level, const char *target, const char *message, void *user)
{
    CHECK(user == &records && level >= PI0_LOG_ERROR && level <= PI0_LOG_DEBUG);
    CHECK(!pthread_equal(pthread_self(), main_thread));
    CHECK(strlen(target) > 0 && strlen(message) > 0);
    CHECK(in_callback++ == 0);
    CHECK_STATUS(pi0_log_set_callback(NULL, NULL, PI0_LOG_OFF), PI0_ERR_THREAD);
    records++;
    in_callback--;
}

static void the_log(const char *bundle)
{
    int ends[2];
    char text[1 << 16];
    CHECK_STATUS(pi0_log_set_callback(on_record, &records, 17), PI0_ERR_ARGUMENT);
    CHECK_STATUS(pi0_log_set_callback(on_record, &records, PI0_LOG_DEBUG), PI0_OK);
    CHECK_STATUS(pi0_policy_free(open_policy(bundle)), PI0_OK);
    CHECK(pipe(ends) == 0);
    /* All that was logged before goes to the callback, before this returns. */
    CHECK_STATUS(pi0_log_set_fd(ends[1], PI0_LOG_DEBUG), PI0_OK);
    const int told = records;
    CHECK(told > 0);
    CHECK_STATUS(pi0_policy_free(open_policy(bundle)), PI0_OK);
    CHECK_STATUS(pi0_log_set_fd(-1, PI0_LOG_OFF), PI0_OK);
    CHECK(records == told);
    close(ends[1]);
    const ssize_t n = read(ends[0], text, sizeof text - 1);
    CHECK(n > 0 && text[n - 1] == '\n');
    text[n] = '\0';
    /* The bundle that was verified before is told first, in detail. */
    CHECK(strstr(text, "INFO pi0_edge::ffi::policy: opened ") != NULL);
    printf("%d records by callback, %d bytes by descriptor\n", told, (int)n);
    close(ends[0]);
    CHECK_STATUS(pi0_log_set_fd(ends[1], PI0_LOG_DEBUG), PI0_ERR_ARGUMENT);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    main_thread = pthread_self();
    /* First, so that ONNX Runtime's start is in the log. */
    the_log(argv[1]);
    by_callback(argv[1]);
    by_descriptor(argv[1]);
    one_by_one(argv[1]);
    return 0;
}
