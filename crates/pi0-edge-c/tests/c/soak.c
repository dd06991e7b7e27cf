/*
 * A robot to which everything happens that may: bad observations and prompts, slow callbacks, stops and starts, frozen
 * sensors, cameras that come and go, memory that goes away, a busy core. At random, all the time, from one seed.
 *
 *     soak BUNDLE [--minutes M] [--seed S]
 *
 * After every fault one good observation must bring an action of its own. No action may be older than it says, be
 * followed past its limit, or come from an observation that was bad. What the process holds must not grow.
 */
#define _GNU_SOURCE
#include "process.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { RECENT = 4096, SAMPLES = 4096 };

static const uint64_t MS = 1000000;
static const uint64_t MAX_AGE = 300 * 1000000u, HOLD_AFTER = 3000 * 1000000u;

static const char *bundle;
static struct robot robot;
static pi0_runtime_config config;
static pi0_thread_config thread_config;

/* The two threads beside the main one take turns with it. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static atomic_int ending, slow_callback_ms, busy_ms;

/* What the sensors do. */
enum { GOOD, FROZEN, NOT_A_NUMBER, INFINITE, NO_CAMERA, NARROW, OTHER_CLOCK, BACK_IN_TIME, SENSORS };
static atomic_int sensors = FROZEN;

/* When the good observations were captured. */
static uint64_t captured[RECENT];
static atomic_ulong captured_count;
/* That of the last action read. */
static atomic_ulong read_captured;

static struct {
    unsigned long reads, ok, stale, hold, empty, published, bad, refused_at_once, faults, recoveries, again, restarts,
        reopened, episodes, events, refused, gave_up, errors, records, lost;
    uint64_t worst_recovery, worst_age_ok;
} counts;

static uint64_t seed = 1;
/* Of each thread that draws. */
static _Thread_local uint64_t random_state;

static unsigned draw(unsigned below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)((random_state >> 20) % below);
}

static void on_event(const pi0_event *event, void *user)
{
    (void)user;
    counts.events++;
    counts.refused += event->kind == PI0_EVENT_OBSERVATION_REFUSED;
    counts.gave_up += event->kind == PI0_EVENT_GAVE_UP;
    counts.errors += event->kind == PI0_EVENT_ENGINE_ERROR;
    if (event->kind == PI0_EVENT_GAVE_UP || event->kind == PI0_EVENT_ENGINE_ERROR)
        fprintf(stderr, "inference: %s\n", event->message);
    sleep_ms(slow_callback_ms);
}

static void on_log(uint32_t level, const char *target, const char *message, void *user)
{
    (void)level;
    (void)target;
    (void)message;
    (void)user;
    counts.records++;
    sleep_ms(slow_callback_ms);
}

/* One observation, published as the sensors are told to. */
static void observe(int how)
{
    float state[MAX_VALUES] = {0};
    uint8_t *pixels = NULL;
    const uint32_t optional = robot.info.cameras - 1;
    for (uint32_t camera = 0; camera < robot.info.cameras; camera++) {
        /* Of another size each time; the last camera may be absent. */
        const uint32_t width = 32 + draw(WIDTH - 31), height = 32 + draw(HEIGHT - 31);
        if (camera == optional && draw(2)) {
            CHECK_STATUS(pi0_observation_writer_clear_frame(robot.writer, camera), PI0_OK);
            continue;
        }
        CHECK_STATUS(pi0_observation_writer_frame(robot.writer, camera, width, height, &pixels), PI0_OK);
        memset(pixels, (int)draw(256), (size_t)width * height * 3);
    }
    for (uint32_t i = 0; i < robot.info.state_dim; i++)
        state[i] = (float)draw(1000) / 1000;
    if (how == NOT_A_NUMBER || how == INFINITE)
        state[draw(robot.info.state_dim)] = how == INFINITE ? -INFINITY : NAN;
    CHECK_STATUS(pi0_observation_writer_set_state(robot.writer, state, robot.info.state_dim), PI0_OK);
    if (how == NO_CAMERA)
        CHECK_STATUS(pi0_observation_writer_clear_frame(robot.writer, draw(2)), PI0_OK);
    if (how == NARROW)
        CHECK_STATUS(pi0_observation_writer_frame(robot.writer, draw(2), 1, 3000, &pixels), PI0_OK);

    const uint64_t now = pi0_now_ns();
    if (how == OTHER_CLOCK || how == BACK_IN_TIME) {
        struct timespec wall;
        clock_gettime(CLOCK_REALTIME, &wall);
        const uint64_t then = how == BACK_IN_TIME ? 1 : (uint64_t)wall.tv_sec * 1000 * MS;
        const pi0_status refused = pi0_observation_writer_publish(robot.writer, then, NULL);
        /* The first one of all cannot go back. */
        CHECK(refused < 0 || how == BACK_IN_TIME);
        counts.refused_at_once += refused < 0;
        return;
    }
    const pi0_status status = pi0_observation_writer_publish(robot.writer, now, NULL);
    if (status == PI0_ERR_RUNTIME)
        return; /* It is being stopped. */
    CHECK_STATUS(status, PI0_OK);
    if (how != GOOD) {
        counts.bad++;
        return;
    }
    captured[captured_count % RECENT] = now;
    captured_count++;
    counts.published++;
}

static void *sense(void *unused)
{
    (void)unused;
    random_state = seed * 2 + 1;
    while (!ending) {
        pthread_mutex_lock(&turn);
        const int how = sensors;
        if (how != FROZEN && robot.writer) {
            CHECK_STATUS(pi0_observation_writer_attach(robot.writer), PI0_OK);
            observe(how);
        }
        pthread_mutex_unlock(&turn);
        sleep_ms(20);
    }
    return NULL;
}

/* The capture time that is `age` before some moment from `from` to `to`; 0 if no good observation has one. */
static uint64_t captured_between(uint64_t from, uint64_t to)
{
    const unsigned long count = captured_count;
    for (unsigned long i = 0; i < count && i < RECENT; i++) {
        const uint64_t at = captured[(count - 1 - i) % RECENT];
        if (at >= from && at <= to)
            return at;
    }
    return 0;
}

static void *control(void *unused)
{
    (void)unused;
    pi0_reading reading = {.struct_size = sizeof reading};
    while (!ending) {
        pthread_mutex_lock(&turn);
        if (robot.controller) {
            float action[MAX_VALUES];
            CHECK_STATUS(pi0_controller_attach(robot.controller), PI0_OK);
            const uint64_t before = pi0_now_ns();
            const pi0_status status =
                pi0_controller_read(robot.controller, action, robot.info.action_dim, &reading);
            const uint64_t after = pi0_now_ns();
            CHECK(status >= 0 && status == reading.status);
            counts.reads++;
            counts.ok += status == PI0_OK;
            counts.stale += status == PI0_STALE;
            counts.hold += status == PI0_HOLD;
            counts.empty += status == PI0_EMPTY;
            CHECK(status != PI0_OK || reading.age_ns <= MAX_AGE);
            CHECK(status != PI0_STALE || (reading.age_ns > MAX_AGE && reading.age_ns <= HOLD_AFTER));
            CHECK(status == PI0_EMPTY || reading.has_action);
            for (uint32_t i = 0; reading.has_action && i < robot.info.action_dim; i++)
                CHECK(isfinite(action[i]));
            if (status == PI0_EMPTY) {
                /* Nothing came, or what came could not be followed any more. */
                CHECK(reading.chunk == 0 || reading.age_ns > HOLD_AFTER ||
                      (reading.flags & (PI0_FLAG_STOPPED | PI0_FLAG_HUNG)) != 0);
                read_captured = 0;
            } else {
                /* As old as it says, and of a good observation. */
                const uint64_t at = captured_between(before - reading.age_ns, after - reading.age_ns);
                CHECK(at != 0);
                read_captured = at;
            }
            if (status == PI0_OK && reading.age_ns > counts.worst_age_ok)
                counts.worst_age_ok = reading.age_ns;
        }
        pthread_mutex_unlock(&turn);
        sleep_ms(2);
    }
    return NULL;
}

static void *keep_busy(void *unused)
{
    (void)unused;
    while (!ending) {
        const uint64_t until = pi0_now_ns() + (uint64_t)busy_ms * MS;
        while (!ending && pi0_now_ns() < until)
            ;
        busy_ms = 0;
        sleep_ms(5);
    }
    return NULL;
}

static void tell_sensors(int how)
{
    pthread_mutex_lock(&turn);
    sensors = how;
    pthread_mutex_unlock(&turn);
}

static pi0_stats stats_now(void)
{
    pi0_stats stats = {.struct_size = sizeof stats};
    CHECK_STATUS(pi0_runtime_stats(robot.runtime, &stats), PI0_OK);
    return stats;
}

/* One good observation, and an action of it. Another one only where the machine was away for so long that the first
 * was too old to be used. */
static void recover(void)
{
    slow_callback_ms = 0;
    tell_sensors(FROZEN);
    for (int tries = 0;; tries++) {
        CHECK(tries < 10);
        const uint64_t stale = stats_now().stale_observations;
        pthread_mutex_lock(&turn);
        CHECK_STATUS(pi0_observation_writer_attach(robot.writer), PI0_OK);
        observe(GOOD);
        const uint64_t wanted = captured[(captured_count - 1) % RECENT];
        pthread_mutex_unlock(&turn);
        int too_old = 0;
        while (read_captured != wanted && !too_old) {
            sleep_ms(1);
            const pi0_stats stats = stats_now();
            CHECK(stats.phase == PI0_PHASE_READY);
            too_old = stats.stale_observations > stale;
            CHECK(pi0_now_ns() - wanted < 60000 * MS);
        }
        if (too_old) {
            counts.again++;
            continue;
        }
        const uint64_t took = pi0_now_ns() - wanted;
        if (took > counts.worst_recovery)
            counts.worst_recovery = took;
        counts.recoveries++;
        return;
    }
}

static void start_again(pi0_policy *policy)
{
    pi0_error error = {{0}};
    pi0_rtc_config rtc;
    CHECK_STATUS(pi0_rtc_config_default(&rtc, sizeof rtc), PI0_OK);
    rtc.execution_horizon = 6;
    config.rtc = draw(2) ? &rtc : NULL;
    struct robot next = robot;
    const pi0_status status =
        pi0_runtime_start(policy, &config, &next.runtime, &next.writer, &next.controller, &error);
    if (status != PI0_OK)
        fprintf(stderr, "starting: %s\n", error.message);
    CHECK_STATUS(status, PI0_OK);
    pthread_mutex_lock(&turn);
    robot = next;
    read_captured = 0;
    pthread_mutex_unlock(&turn);
}

/* Stops, and starts again: mostly the same policy, now and then one that is loaded anew. */
static void restart(void)
{
    pi0_policy *policy = NULL;
    pi0_error error = {{0}};
    CHECK_STATUS(pi0_runtime_take_policy(robot.runtime, &policy, &error), PI0_OK);
    pthread_mutex_lock(&turn);
    const struct robot old = robot;
    robot.writer = NULL;
    robot.controller = NULL;
    pthread_mutex_unlock(&turn);
    struct robot gone = old;
    counts.lost += stats_now().events_lost;
    release(&gone);
    counts.restarts++;
    if (draw(20) == 0) {
        CHECK_STATUS(pi0_policy_free(policy), PI0_OK);
        policy = open_policy(bundle);
        counts.reopened++;
    }
    start_again(policy);
}

static void begin_episode(void)
{
    const uint64_t begun = pi0_now_ns();
    CHECK_STATUS(pi0_runtime_begin_episode(robot.runtime), PI0_OK);
    counts.episodes++;
    pthread_mutex_lock(&turn);
    /* Whatever is read from now on was seen from now on. */
    float action[MAX_VALUES];
    pi0_reading reading = {.struct_size = sizeof reading};
    CHECK_STATUS(pi0_controller_attach(robot.controller), PI0_OK);
    CHECK(pi0_controller_read(robot.controller, action, robot.info.action_dim, &reading) >= 0);
    CHECK(reading.status == PI0_EMPTY || pi0_now_ns() - reading.age_ns >= begun);
    pthread_mutex_unlock(&turn);
}

static void command(void)
{
    char text[4096];
    const float low[MAX_VALUES] = {0}, high[MAX_VALUES] = {0};
    const pi0_limits none_fits = {.struct_size = sizeof none_fits, .min = low, .max = high,
                                  .len = robot.info.action_dim};
    const unsigned length = draw(2) ? 1 + draw(16) : 1 + draw(sizeof text - 1);
    for (unsigned i = 0; i < length; i++)
        text[i] = (char)(draw(8) ? 'a' + (int)draw(26) : ' ');
    text[length] = '\0';
    pi0_status status = PI0_OK;
    switch (draw(6)) {
    case 0: status = pi0_runtime_set_prompt(robot.runtime, text); break;
    case 1: status = pi0_runtime_set_prompt(robot.runtime, draw(2) ? "\xff\xfe" : ""); break;
    case 2: status = pi0_runtime_set_num_steps(robot.runtime, 1 + draw(robot.info.max_num_steps)); break;
    case 3: status = pi0_runtime_set_num_steps(robot.runtime, draw(2) ? 0 : UINT32_MAX); break;
    case 4: status = pi0_runtime_set_limits(robot.runtime, &none_fits); break;
    default: status = pi0_runtime_set_rtc(robot.runtime, NULL); break;
    }
    CHECK(status == PI0_OK || status == PI0_ERR_ARGUMENT || status == PI0_ERR_RUNTIME);
}

/* What commands have changed, put right; there is room for so few at a time. */
static void put_right(void)
{
    pi0_status status;
    while ((status = pi0_runtime_set_limits(robot.runtime, NULL)) == PI0_ERR_RUNTIME)
        sleep_ms(1);
    CHECK_STATUS(status, PI0_OK);
    while ((status = pi0_runtime_set_num_steps(robot.runtime, robot.info.num_steps)) == PI0_ERR_RUNTIME)
        sleep_ms(1);
    CHECK_STATUS(status, PI0_OK);
    while ((status = pi0_runtime_set_prompt(robot.runtime, "pick up the cube")) == PI0_ERR_RUNTIME)
        sleep_ms(1);
    CHECK_STATUS(status, PI0_OK);
}

static void fault(void)
{
    counts.faults++;
    const unsigned kind = draw(11);
    if (kind < 5) {
        /* Half of the time, sensors that are wrong in some way. */
        tell_sensors(FROZEN + (int)draw(SENSORS - FROZEN));
        sleep_ms(draw(20) == 0 ? HOLD_AFTER / MS + 200 : draw(400));
        return;
    }
    tell_sensors(GOOD);
    switch (kind) {
    case 5:
        slow_callback_ms = (int)draw(100);
        sleep_ms(draw(300));
        break;
    case 6: restart(); break;
    case 7:
        for (unsigned n = 1 + draw(20); n > 0; n--)
            begin_episode();
        break;
    case 8:
        for (unsigned n = 1 + draw(20); n > 0; n--)
            command();
        sleep_ms(draw(100));
        put_right();
        break;
    case 9: squeeze(); break;
    default:
        busy_ms = (int)draw(300);
        sleep_ms(draw(300));
        break;
    }
}

int main(int argc, char **argv)
{
    double minutes = 0.2;
    CHECK(argc >= 2);
    bundle = argv[1];
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--minutes") == 0)
            minutes = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10) % 1000000;
        else
            CHECK(!"--minutes or --seed");
    }
    random_state = seed * 2 + 2;
    test_config(&config, &thread_config);
    config.event_callback = on_event;
    config.max_age_ns = MAX_AGE;
    config.hold_after_ns = HOLD_AFTER;
    config.control_period_ns = 2 * MS;
    config.stop_timeout_ns = 60000 * MS;
    config.watchdog_ns = 30000 * MS;
    CHECK_STATUS(pi0_log_set_callback(on_log, NULL, PI0_LOG_DEBUG), PI0_OK);
    pi0_policy *policy = open_policy(bundle);
    robot.info.struct_size = sizeof robot.info;
    CHECK_STATUS(pi0_policy_info(policy, &robot.info), PI0_OK);
    start_again(policy);

    pthread_t threads[3];
    CHECK(pthread_create(&threads[0], NULL, sense, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, control, NULL) == 0);
    CHECK(pthread_create(&threads[2], NULL, keep_busy, NULL) == 0);
    static struct sample samples[SAMPLES];
    unsigned sampled = 0;
    const uint64_t begun = pi0_now_ns(), length = (uint64_t)(minutes * 60e9), every = length / 60;
    while (pi0_now_ns() - begun < length) {
        /* Whatever hangs ends here. */
        alarm(300);
        fault();
        recover();
        if (sampled < SAMPLES && pi0_now_ns() - begun >= (sampled + 1) * every) {
            samples[sampled] = sample();
            printf("%6.1f min: %ld KiB anonymous, %u threads, %u descriptors; %lu faults, %lu recoveries\n",
                   (double)(pi0_now_ns() - begun) / 60e9, samples[sampled].anonymous_kib, samples[sampled].threads,
                   samples[sampled].descriptors, counts.faults, counts.recoveries);
            fflush(stdout);
            sampled++;
        }
    }
    ending = 1;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    counts.lost += stats_now().events_lost;
    release(&robot);
    CHECK_STATUS(pi0_log_set_callback(NULL, NULL, PI0_LOG_OFF), PI0_OK);

    printf("%lu faults, %lu recoveries by the first good observation, %lu by another one (the machine was away)\n",
           counts.faults, counts.recoveries - counts.again, counts.again);
    printf("worst recovery %.1f ms, oldest OK action %.1f ms\n", (double)counts.worst_recovery / 1e6,
           (double)counts.worst_age_ok / 1e6);
    printf("%lu reads: %lu ok, %lu stale, %lu hold, %lu empty\n", counts.reads, counts.ok, counts.stale, counts.hold,
           counts.empty);
    printf("observations: %lu good, %lu bad, %lu refused at once; %lu told as refused\n", counts.published,
           counts.bad, counts.refused_at_once, counts.refused);
    printf("%lu restarts, %lu of them loaded anew; %lu episodes; %lu events, %lu lost; %lu log records\n",
           counts.restarts, counts.reopened, counts.episodes, counts.events, counts.lost, counts.records);
    CHECK(counts.faults == counts.recoveries && counts.gave_up == 0 && counts.errors == 0);
    /* A tenth of the time to get warm; then the most of the first half against the most of the second. */
    long first = 0, second = 0;
    for (unsigned i = sampled / 10; i < sampled; i++) {
        long *most = i < sampled / 2 ? &first : &second;
        if (samples[i].anonymous_kib > *most)
            *most = samples[i].anonymous_kib;
        CHECK(samples[i].threads <= samples[sampled / 10].threads + 2);
        CHECK(samples[i].descriptors <= samples[sampled / 10].descriptors + 2);
    }
    printf("anonymous memory: %ld KiB at most in the first half, %ld KiB in the second\n", first, second);
    CHECK(second - first < 8192);
    return 0;
}
