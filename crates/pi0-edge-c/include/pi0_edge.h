/*
 * pi0-edge: PI0 and PI0.5 policies on robots, from C and C++.
 *
 * Open a bundle (pi0_policy_new), then either compute chunks one by one (pi0_policy_infer), or start the real-time
 * runtime (pi0_runtime_start): it computes on a thread of its own, and the control loop reads the action for now
 * (pi0_controller_read) without a lock, a system call or an allocation.
 *
 * Statuses    Every function returns one: 0 done, negative an error, positive a condition. pi0_status_str has words;
 *             functions that can fail in many ways take a pi0_error for details. Outputs are written on success only.
 * Handles     Opaque, and never followed as pointers: one that was freed, or never was one, is PI0_ERR_HANDLE. Free
 *             each by its ..._free, in any order; NULL is fine there.
 * Structures  Begin with struct_size. Settings come from their ..._default function, which sets it; for results,
 *             set it to sizeof before the call. Programs run with later libraries of the same major and minor version.
 * Memory      Buffers are the caller's; nothing that a function is given is kept, unless it says so.
 * Threads     "RT-safe: yes" functions may be called from a real-time thread: no lock, no system call, no allocation,
 *             a bounded number of steps. "Thread: control" and "Thread: sensor" functions belong to the first thread
 *             that calls them with a handle; from another they return PI0_ERR_THREAD (see ..._attach). "Thread: any,
 *             one at a time" ones return PI0_ERR_BUSY while another call with the handle is going on.
 * Times       Nanoseconds on CLOCK_MONOTONIC (pi0_now_ns).
 * Processes   Signals are left to the program's threads. At exit, threads are ended before ONNX Runtime goes. In the
 *             child of a fork every call is PI0_ERR_FORKED. dlclose leaves the library in place.
 *
 * Written by scripts/header.sh from crates/pi0-edge-c/src; do not edit.
 */

#ifndef PI0_EDGE_H
#define PI0_EDGE_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; that of the running library is pi0_version(). */
#define PI0_VERSION "0.1.0"
#define PI0_VERSION_MAJOR 0
#define PI0_VERSION_MINOR 1
#define PI0_VERSION_PATCH 0

/**
 * Bytes of an error's text, the final NUL included.
 */
#define PI0_ERROR_SIZE 1024

/**
 * Graphs run on the CPU.
 */
#define PI0_PROVIDER_CPU 0

/**
 * Graphs run on ONNX Runtime's CUDA kernels, on an NVIDIA GPU.
 */
#define PI0_PROVIDER_CUDA 1

/**
 * Graphs run on engines that TensorRT built ahead of time, on an NVIDIA GPU.
 */
#define PI0_PROVIDER_TENSORRT 2

/**
 * Tensors that the host and the graphs both touch are where it suits the provider.
 */
#define PI0_DEVICE_MEMORY_AUTO 0

/**
 * Such tensors are on each side, with copies between them.
 */
#define PI0_DEVICE_MEMORY_SEPARATE 1

/**
 * Such tensors are in one place that both see, for boards where both have the same DRAM, such as a Jetson.
 */
#define PI0_DEVICE_MEMORY_UNIFIED 2

/**
 * Every byte of the bundle is hashed and compared before it is used.
 */
#define PI0_VERIFY_FULL 0

/**
 * Only presence, kind and size of the bundle's files are looked at.
 */
#define PI0_VERIFY_SIZE 1

/**
 * Every byte of what changed since it was last found in order is hashed and compared. What was found is kept in the user's
 * cache directory.
 */
#define PI0_VERIFY_CHANGED 2

/**
 * Each graph's weights the way that suits it.
 */
#define PI0_WEIGHTS_AUTO 0

/**
 * All weights mapped: nothing to do at load, pages shared between processes and evictable.
 */
#define PI0_WEIGHTS_MAPPED 1

/**
 * All weights packed: anonymous memory of the weights' size, read in full at load.
 */
#define PI0_WEIGHTS_PACKED 2

/**
 * The bundle is a PI0 policy.
 */
#define PI0_KIND_PI0 0

/**
 * The bundle is a PI0.5 policy.
 */
#define PI0_KIND_PI05 1

/**
 * Each row of a chunk stands for a whole action period.
 */
#define PI0_INTERPOLATION_NONE 0

/**
 * The action moves evenly from one row to the next.
 */
#define PI0_INTERPOLATION_LINEAR 1

/**
 * A new chunk takes over at the row that is due: as many rows in as were executed since its observation.
 */
#define PI0_SPLICE_TIME 0

/**
 * A new chunk takes over at the row, of those due, that follows on the last action most closely. For actions that are
 * positions.
 */
#define PI0_SPLICE_COMMAND 1

/**
 * A new chunk takes over at the row, of those due, for which it expects the robot to be where it was measured to be. For
 * actions that are positions, and programs that call `pi0_controller_set_state` before each read.
 */
#define PI0_SPLICE_STATE 2

/**
 * A new chunk takes over at its row 0, whenever it comes.
 */
#define PI0_SPLICE_ARRIVAL 3

/**
 * When there is nothing valid to follow, the last action is held.
 */
#define PI0_UNDERRUN_HOLD 0

/**
 * Motion slows down evenly over `ramp_ns` and comes to rest on the plan.
 */
#define PI0_UNDERRUN_RAMP 1

/**
 * The plan is followed to its end, however old; the program decides by status and flags.
 */
#define PI0_UNDERRUN_FLAG_ONLY 2

/**
 * The next chunk is begun when `replan_remaining` rows of the one being executed are left, or fewer.
 */
#define PI0_REPLAN_REMAINING 0

/**
 * The next chunk is begun when `replan_period_ns` have passed since the last was. 0: always.
 */
#define PI0_REPLAN_PERIOD 1

/**
 * Go on without a real-time right that is missing, and report it.
 */
#define PI0_REALTIME_TRY 0

/**
 * Fail with `PI0_ERR_REALTIME_DENIED` if a real-time right is missing.
 */
#define PI0_REALTIME_ENFORCE 1

/**
 * Ask for nothing.
 */
#define PI0_REALTIME_OFF 2

/**
 * No memory is locked in particular.
 */
#define PI0_LOCK_OFF 0

/**
 * Every page of the process stays in RAM once it has been touched.
 */
#define PI0_LOCK_ON_FAULT 1

/**
 * All memory of the process stays in RAM, now and later, used or not: for a full-size policy twice as much.
 */
#define PI0_LOCK_ALL 2

/**
 * Guidance is 1 for rows executed while the chunk is computed, 0 after.
 */
#define PI0_RTC_ZEROS 0

/**
 * Guidance is 1 for every row up to the execution horizon.
 */
#define PI0_RTC_ONES 1

/**
 * Guidance falls linearly to 0 at the execution horizon.
 */
#define PI0_RTC_LINEAR 2

/**
 * Guidance falls exponentially to 0 at the execution horizon.
 */
#define PI0_RTC_EXP 3

/**
 * R, G, B.
 */
#define PI0_PIXELS_RGB 0

/**
 * B, G, R.
 */
#define PI0_PIXELS_BGR 1

/**
 * R, G, B and a byte that is left out.
 */
#define PI0_PIXELS_RGBA 2

/**
 * B, G, R and a byte that is left out.
 */
#define PI0_PIXELS_BGRA 3

/**
 * One byte that is R, G and B.
 */
#define PI0_PIXELS_GREY 4

/**
 * Y, Cb, Y, Cr for two pixels, also called YUY2. The width is even.
 */
#define PI0_PIXELS_YUYV 5

/**
 * Cb, Y, Cr, Y for two pixels. The width is even.
 */
#define PI0_PIXELS_UYVY 6

/**
 * A plane of Y, and one of half as many rows with Cb, Cr for two by two pixels. Width and height are even.
 */
#define PI0_PIXELS_NV12 7

/**
 * ITU-R BT.601, Y from 16 to 235 and Cb, Cr from 16 to 240: USB cameras, unless they say otherwise.
 */
#define PI0_YUV_BT601_LIMITED 0

/**
 * ITU-R BT.601, all from 0 to 255: JPEG.
 */
#define PI0_YUV_BT601_FULL 1

/**
 * ITU-R BT.709, Y from 16 to 235 and Cb, Cr from 16 to 240: video of 720 rows and more.
 */
#define PI0_YUV_BT709_LIMITED 2

/**
 * ITU-R BT.709, all from 0 to 255.
 */
#define PI0_YUV_BT709_FULL 3

/**
 * The first read from a chunk.
 */
#define PI0_FLAG_NEW_CHUNK 1

/**
 * The chunk was used up before the next one came.
 */
#define PI0_FLAG_UNDERRUN 2

/**
 * At least one joint was kept from moving further than its step limit.
 */
#define PI0_FLAG_CLAMPED 4

/**
 * The step limit tripped: held until the trip is cleared.
 */
#define PI0_FLAG_TRIPPED 8

/**
 * Motion is coming to rest along the plan.
 */
#define PI0_FLAG_RAMPING 16

/**
 * Control ticks were missed since the read before.
 */
#define PI0_FLAG_MISSED_TICKS 32

/**
 * This control tick was read before; the action is the same.
 */
#define PI0_FLAG_REPEATED 64

/**
 * Inference has been in one step for longer than the watchdog allows.
 */
#define PI0_FLAG_HUNG 128

/**
 * Inference has given up or ended.
 */
#define PI0_FLAG_STOPPED 256

/**
 * A chunk took over by time, because `splice` is `PI0_SPLICE_STATE` and no state was handed in for this tick.
 */
#define PI0_FLAG_UNMEASURED 512

/**
 * A chunk was published. `number` counts the rows that guided it, `duration_ns` is from begin to publication.
 */
#define PI0_EVENT_CHUNK 1

/**
 * A chunk was not published, for the reason in `message`. `number` is the place of the bad value, row by row.
 */
#define PI0_EVENT_REJECTED 2

/**
 * A chunk was dropped because it was not finished in time. `number` counts the denoise steps that had been done.
 */
#define PI0_EVENT_DEADLINE_MISS 3

/**
 * Inference failed and is tried again. `number` counts the errors in a row.
 */
#define PI0_EVENT_ENGINE_ERROR 4

/**
 * A prompt, step count, limit or RTC setting was refused; everything is as before it.
 */
#define PI0_EVENT_COMMAND_FAILED 5

/**
 * Inference has given up: `PI0_HOLD` until its policy is started again, see `pi0_runtime_take_policy`.
 */
#define PI0_EVENT_GAVE_UP 6

/**
 * Inference has not come back from one step for `duration_ns`: `PI0_HOLD`.
 */
#define PI0_EVENT_HUNG 7

/**
 * Inference that counted as hung has come back.
 */
#define PI0_EVENT_RECOVERED 8

/**
 * The step limit tripped: `PI0_HOLD` until cleared.
 */
#define PI0_EVENT_TRIPPED 9

/**
 * The flight record was written to the file in `message`.
 */
#define PI0_EVENT_FLIGHT_RECORD 10

/**
 * The flight record could not be written, for the reason in `message`.
 */
#define PI0_EVENT_FLIGHT_RECORD_FAILED 11

/**
 * The policy cannot use an observation, for the reason in `message`: a value that is not finite, a camera that is
 * missing, a prompt that is too long for the state. It is not tried again; the next one is.
 */
#define PI0_EVENT_OBSERVATION_REFUSED 12

/**
 * Bytes of an event's text, the final NUL included.
 */
#define PI0_EVENT_MESSAGE_SIZE 512

/**
 * A figure that too few values were recorded for.
 */
#define PI0_UNKNOWN UINT64_MAX

/**
 * Setting itself up and warming the policy up.
 */
#define PI0_PHASE_STARTING 0

/**
 * Computing chunks, or waiting for a reason to.
 */
#define PI0_PHASE_READY 1

/**
 * Inference gave up after an error it could not get over.
 */
#define PI0_PHASE_FAILED 2

/**
 * Inference has ended.
 */
#define PI0_PHASE_STOPPED 3

/**
 * Nothing is logged.
 */
#define PI0_LOG_OFF 0

/**
 * Something failed.
 */
#define PI0_LOG_ERROR 1

/**
 * Something is not as it should be, and work goes on.
 */
#define PI0_LOG_WARN 2

/**
 * And what happens in large.
 */
#define PI0_LOG_INFO 3

/**
 * And what happens in detail.
 */
#define PI0_LOG_DEBUG 4

/**
 * Everything.
 */
#define PI0_LOG_TRACE 5

/**
 * The control loop's side of a runtime. It belongs to the first thread that calls with it.
 */
typedef struct pi0_controller pi0_controller;

/**
 * The sensor side of a runtime. It belongs to the first thread that calls with it.
 */
typedef struct pi0_observation_writer pi0_observation_writer;

/**
 * A policy: an opened bundle, ready to compute chunks.
 */
typedef struct pi0_policy pi0_policy;

/**
 * A running runtime, for its owner. Its functions may be called from several threads at once.
 */
typedef struct pi0_runtime pi0_runtime;

/**
 * The outcome of a call: 0 is success, negative is an error, positive is a condition. Numbers never change their
 * meaning and are never used again.
 */
typedef int32_t pi0_status;

/**
 * The settings that a policy is opened with. Fill it by `pi0_policy_options_default`.
 */
typedef struct pi0_policy_options {
    /**
     * `sizeof(pi0_policy_options)`.
     */
    size_t struct_size;
    /**
     * ONNX Runtime's library. NULL: `ORT_DYLIB_PATH` if it is set, else beside this library and the program, then
     * where packages install it, then the system's library path. What is named must work.
     */
    const char *ort_library;
    /**
     * The directory of the TensorRT engines that were built ahead of time. NULL: where `pi0-edge engines` puts them.
     */
    const char *engine_cache;
    /**
     * `PI0_PROVIDER_...`: what computes the graphs. If it cannot, opening fails and says why.
     */
    uint32_t provider;
    /**
     * The GPU, as CUDA counts them from 0. The CPU provider has no use for it.
     */
    uint32_t gpu;
    /**
     * `PI0_DEVICE_MEMORY_...`
     */
    uint32_t device_memory;
    /**
     * 1: never capture CUDA graphs.
     */
    uint32_t no_cuda_graphs;
    /**
     * Threads of one operator, the calling thread included. 0: one per available core.
     */
    uint32_t threads;
    /**
     * `PI0_VERIFY_...`
     */
    uint32_t verify;
    /**
     * `PI0_WEIGHTS_...`
     */
    uint32_t weights;
    /**
     * 1: worker threads sleep instead of spin while they wait for their part of an operator, and the calling thread
     * while it waits for a GPU. Slower by some per cent, but a control loop on the same cores keeps them.
     */
    uint32_t no_spin;
} pi0_policy_options;

/**
 * An error in words: what, where, and what to do. Owned by the caller; written only by a call that fails.
 */
typedef struct pi0_error {
    /**
     * UTF-8, ends with a NUL; what does not fit is cut off.
     */
    char message[PI0_ERROR_SIZE];
} pi0_error;

/**
 * The sizes and counts of a policy.
 */
typedef struct pi0_info {
    /**
     * `sizeof(pi0_info)`; set it before the call.
     */
    size_t struct_size;
    /**
     * `PI0_KIND_...`
     */
    uint32_t kind;
    /**
     * Cameras the policy knows, required or not.
     */
    uint32_t cameras;
    /**
     * Values of a state, in robot units.
     */
    uint32_t state_dim;
    /**
     * Values of an action, in robot units.
     */
    uint32_t action_dim;
    /**
     * Values of an action as the model computes it; noise has this width.
     */
    uint32_t padded_action_dim;
    /**
     * Actions of a chunk.
     */
    uint32_t action_horizon;
    /**
     * Denoise steps unless others are asked for.
     */
    uint32_t num_steps;
    /**
     * Most denoise steps there can be.
     */
    uint32_t max_num_steps;
} pi0_info;

/**
 * One camera's image: RGB, 8 bits a channel, rows from the top, `height * width * 3` bytes without gaps.
 *
 * This structure is an array's element and never changes.
 */
typedef struct pi0_image {
    /**
     * The policy's name of the camera, or the robot's where the bundle renames it.
     */
    const char *camera;
    /**
     * The pixels.
     */
    const uint8_t *rgb;
    /**
     * Pixels in a row, 1 to 16384.
     */
    uint32_t width;
    /**
     * Rows, 1 to 16384.
     */
    uint32_t height;
} pi0_image;

/**
 * The robot's knowledge at one moment. Borrows everything for as long as the call takes.
 */
typedef struct pi0_observation {
    /**
     * `sizeof(pi0_observation)`.
     */
    size_t struct_size;
    /**
     * `image_count` images, in any order. Cameras that are absent are left out.
     */
    const struct pi0_image *images;
    /**
     * Their number.
     */
    size_t image_count;
    /**
     * The state in robot units: `state_dim` values.
     */
    const float *state;
    /**
     * Their number.
     */
    size_t state_len;
    /**
     * The task, UTF-8. NULL or empty for the bundle's default.
     */
    const char *prompt;
} pi0_observation;

/**
 * Guided real-time chunking, under lerobot's names. Fill it by `pi0_rtc_config_default`.
 */
typedef struct pi0_rtc_config {
    /**
     * `sizeof(pi0_rtc_config)`.
     */
    size_t struct_size;
    /**
     * `PI0_RTC_...`: how guidance falls over the rows.
     */
    uint32_t schedule;
    /**
     * The row where guidance ends, 1 to `action_horizon`.
     */
    uint32_t execution_horizon;
    /**
     * Upper bound of the guidance weight, from 0.
     */
    double max_guidance_weight;
} pi0_rtc_config;

/**
 * The options of one inference. Fill it by `pi0_infer_options_default`.
 */
typedef struct pi0_infer_options {
    /**
     * `sizeof(pi0_infer_options)`.
     */
    size_t struct_size;
    /**
     * Seed of the noise. The same seed gives the same noise on every machine.
     */
    uint64_t seed;
    /**
     * The noise itself instead: `action_horizon * padded_action_dim` values. NULL for noise from the seed.
     */
    const float *noise;
    /**
     * Their number.
     */
    size_t noise_len;
    /**
     * Guided real-time chunking: the rest of the chunk being executed, in robot units, its first row due at the
     * observation's capture: 1 to `action_horizon` rows of `action_dim` values. NULL for a chunk on its own.
     */
    const float *previous;
    /**
     * Number of values.
     */
    size_t previous_len;
    /**
     * The settings of that guidance. NULL for the defaults.
     */
    const struct pi0_rtc_config *rtc;
    /**
     * Rows that will have been executed by the time the chunk is used.
     */
    uint32_t inference_delay;
    /**
     * Denoise steps, 1 to `max_num_steps`. 0 for the bundle's default.
     */
    uint32_t num_steps;
} pi0_infer_options;

/**
 * Times of the last chunk of `pi0_policy_infer` by stage, in nanoseconds.
 */
typedef struct pi0_timing {
    /**
     * `sizeof(pi0_timing)`; set it before the call.
     */
    size_t struct_size;
    /**
     * Frames resized and normalised, state normalised, prompt tokenised.
     */
    uint64_t preprocess_ns;
    /**
     * The vision encoder over the present cameras.
     */
    uint64_t vision_ns;
    /**
     * The prefill of the KV cache.
     */
    uint64_t prefix_ns;
    /**
     * All denoise steps together.
     */
    uint64_t denoise_ns;
    /**
     * From the call to the finished chunk.
     */
    uint64_t total_ns;
} pi0_timing;

/**
 * The rights and processors of the inference thread. Fill it by `pi0_thread_config_default`.
 */
typedef struct pi0_thread_config {
    /**
     * `sizeof(pi0_thread_config)`.
     */
    size_t struct_size;
    /**
     * The CPUs it may run on.
     */
    const uint32_t *cpus;
    /**
     * Their number. 0 leaves that alone.
     */
    size_t cpu_count;
    /**
     * The CPUs that the threads working for it may run on, ONNX Runtime's. They get its priority in any case.
     */
    const uint32_t *worker_cpus;
    /**
     * Their number. 0 leaves that alone.
     */
    size_t worker_cpu_count;
    /**
     * Bytes of its stack that are touched beforehand, so that they are there.
     */
    uint64_t prefault_stack;
    /**
     * `PI0_REALTIME_...`: what to do where a right is missing.
     */
    uint32_t realtime;
    /**
     * SCHED_FIFO priority, 1 to 99. 0 leaves the scheduling policy alone.
     */
    uint32_t priority;
    /**
     * `PI0_LOCK_...`: which memory of the process stays in RAM.
     */
    uint32_t lock_memory;
    /**
     * 1: memory given back to the allocator stays with the process, so that asking again does not fault.
     */
    uint32_t keep_heap;
} pi0_thread_config;

/**
 * Per-joint limits of an action, in robot units, both ends included.
 */
typedef struct pi0_limits {
    /**
     * `sizeof(pi0_limits)`.
     */
    size_t struct_size;
    /**
     * The lowest value of each joint.
     */
    const float *min;
    /**
     * The highest value of each joint.
     */
    const float *max;
    /**
     * Values in each of the two: `action_dim`.
     */
    size_t len;
} pi0_limits;

/**
 * Something that happened, off the real-time path. Kinds may be added: ignore those you do not know.
 */
typedef struct pi0_event {
    /**
     * `sizeof(pi0_event)`: set it before the call; in a callback it is the library's.
     */
    size_t struct_size;
    /**
     * `PI0_EVENT_...`
     */
    uint32_t kind;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * The number of the chunk it is about; 0 if it is about none.
     */
    uint64_t chunk;
    /**
     * See the kind.
     */
    uint64_t number;
    /**
     * See the kind.
     */
    uint64_t duration_ns;
    /**
     * UTF-8, in words for people; empty where there is nothing to add. What does not fit is cut off.
     */
    char message[PI0_EVENT_MESSAGE_SIZE];
} pi0_event;

/**
 * Gets an event, which is valid until it returns.
 */
typedef void (*pi0_event_callback)(const struct pi0_event *event, void *user);

/**
 * The settings of a runtime. Fill it by `pi0_runtime_config_default`. Everything it points to is copied by
 * `pi0_runtime_start`.
 */
typedef struct pi0_runtime_config {
    /**
     * `sizeof(pi0_runtime_config)`.
     */
    size_t struct_size;
    /**
     * The task, UTF-8. NULL for the bundle's default.
     */
    const char *prompt;
    /**
     * Seed of the noise; every chunk draws its own from it and the chunk's number.
     */
    uint64_t seed;
    /**
     * Width of the widest frame that a camera slot has room for, in pixels.
     */
    uint32_t max_frame_width;
    /**
     * Height of the highest.
     */
    uint32_t max_frame_height;
    /**
     * The control loop's period: how often actions are read.
     */
    uint64_t control_period_ns;
    /**
     * The policy's period: how far apart the rows of a chunk are.
     */
    uint64_t action_period_ns;
    /**
     * An action whose observation is older than this is `PI0_STALE`.
     */
    uint64_t max_age_ns;
    /**
     * An action whose observation is older than this is not followed any more: `PI0_HOLD`.
     */
    uint64_t hold_after_ns;
    /**
     * Time that `PI0_UNDERRUN_RAMP` takes to come to rest.
     */
    uint64_t ramp_ns;
    /**
     * `PI0_INTERPOLATION_...`: how one row turns into the next.
     */
    uint32_t interpolation;
    /**
     * `PI0_UNDERRUN_...`: what happens to motion when there is nothing valid to follow.
     */
    uint32_t on_underrun;
    /**
     * If the control loop misses more ticks than this in a row, the plan waits for it.
     */
    uint32_t max_missed_ticks;
    /**
     * After this many ticks in a row at the step limit: `PI0_HOLD` until `pi0_controller_clear_trip`. 0: never.
     */
    uint32_t trip_after;
    /**
     * The most that each joint may move from one tick to the next, in robot units; infinity: no limit. NULL for none.
     */
    const float *step_limits;
    /**
     * Values in `step_limits`: `action_dim`.
     */
    size_t step_limits_len;
    /**
     * A chunk with a value outside these is not published. NULL: values must be finite, that is all.
     */
    const struct pi0_limits *limits;
    /**
     * Real-time chunking. NULL: chunks are computed without regard to each other.
     */
    const struct pi0_rtc_config *rtc;
    /**
     * `PI0_REPLAN_...`: when the next chunk is begun.
     */
    uint32_t replan;
    /**
     * For `PI0_REPLAN_REMAINING`.
     */
    uint32_t replan_remaining;
    /**
     * For `PI0_REPLAN_PERIOD`.
     */
    uint64_t replan_period_ns;
    /**
     * RTC's inference delay is estimated from this many of the latest latencies, 1 to 64.
     */
    uint32_t delay_window;
    /**
     * Number of chunks after the start that do not count for that.
     */
    uint32_t delay_warm_up;
    /**
     * Which of those latencies is the estimate: the one that this share of them does not exceed, 0 to 1. 1: the
     * largest.
     */
    double delay_quantile;
    /**
     * The estimate until there is one.
     */
    uint64_t delay_initial_ns;
    /**
     * A chunk that is not finished this long after it was begun is dropped. 0: none is.
     */
    uint64_t deadline_ns;
    /**
     * Inference that has not come back from one step for this long counts as hung: `PI0_HOLD`.
     */
    uint64_t watchdog_ns;
    /**
     * Time from an error to the next try.
     */
    uint64_t retry_after_ns;
    /**
     * Time that `pi0_runtime_stop` waits for inference to come back before its thread is left behind.
     */
    uint64_t stop_timeout_ns;
    /**
     * After this many errors in a row inference gives up: `PI0_HOLD` until its policy is started again. An
     * observation that the policy cannot use is no such error.
     */
    uint32_t max_errors;
    /**
     * Number of events that are kept until somebody takes them, 1 to 65536; further ones are counted and lost.
     */
    uint32_t event_capacity;
    /**
     * The rights and processors of the inference thread. NULL for the defaults.
     */
    const struct pi0_thread_config *thread;
    /**
     * The file the flight record is written to when the step limit trips or inference gives up. NULL: none is.
     */
    const char *flight_record;
    /**
     * Called with each event, on a thread of its own that is neither real-time nor the program's. It must not throw
     * or unwind, and must return for `pi0_runtime_stop` to return. NULL for none.
     */
    pi0_event_callback event_callback;
    /**
     * Handed to `event_callback`.
     */
    void *event_user;
    /**
     * A file descriptor that gets each event as one line of JSON, written from a thread of its own; it stays the
     * caller's, who must not close it before `pi0_runtime_stop` has returned. -1 for none. Not together with
     * `event_callback`. Without either, `pi0_runtime_next_event` gives the events.
     */
    int32_t event_fd;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * `PI0_SPLICE_...`: the row at which a new chunk takes over.
     */
    uint32_t splice;
    /**
     * 0.
     */
    uint32_t reserved_splice;
} pi0_runtime_config;

/**
 * The real-time rights of the inference thread, as read back from the system.
 */
typedef struct pi0_realtime {
    /**
     * `sizeof(pi0_realtime)`; set it before the call.
     */
    size_t struct_size;
    /**
     * The part of the process's memory that is in RAM and locked there, in KiB.
     */
    uint64_t locked_kib;
    /**
     * Bytes of the thread's stack that were touched.
     */
    uint64_t stack_prefaulted;
    /**
     * Its priority; 0 where the scheduling policy has none.
     */
    int32_t priority;
    /**
     * 1 if memory given back to the allocator stays with the process.
     */
    uint32_t heap_kept;
    /**
     * Number of things that were asked for and not obtained.
     */
    uint32_t missing_count;
    /**
     * `PI0_REALTIME_...` as configured.
     */
    uint32_t realtime;
    /**
     * Number of threads that work for it, ONNX Runtime's.
     */
    uint32_t worker_count;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * The scheduling policy: `fifo`, `rr`, `other`, `batch`, `idle`, `deadline`, or `unknown`.
     */
    char scheduler[16];
    /**
     * Names each thing that was not obtained, with why and what to do about it; what does not fit is cut off.
     */
    char missing[1024];
} pi0_realtime;

/**
 * A distribution of durations in nanoseconds; percentiles are rounded up by at most 1/32. A figure that too few
 * values were recorded for is `PI0_UNKNOWN`: p50 needs 20 of them, p99 1000, p99.99 100000.
 *
 * This structure is part of others and never changes.
 */
typedef struct pi0_latency {
    uint64_t count;
    uint64_t min_ns;
    uint64_t mean_ns;
    uint64_t p50_ns;
    uint64_t p90_ns;
    uint64_t p99_ns;
    uint64_t p99_9_ns;
    uint64_t p99_99_ns;
    uint64_t max_ns;
} pi0_latency;

/**
 * The counts since the start.
 */
typedef struct pi0_stats {
    /**
     * `sizeof(pi0_stats)`; set it before the call.
     */
    size_t struct_size;
    /**
     * `PI0_PHASE_...`: what inference is doing.
     */
    uint32_t phase;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Time that inference has been in one step; 0 between steps.
     */
    uint64_t step_age_ns;
    /**
     * Events that were lost because nobody took them.
     */
    uint64_t events_lost;
    /**
     * Reads of the control loop.
     */
    uint64_t reads;
    /**
     * Reads of a control tick that had been read before.
     */
    uint64_t reads_repeated;
    /**
     * Reads that were `PI0_OK`.
     */
    uint64_t reads_ok;
    /**
     * Reads that were `PI0_STALE`.
     */
    uint64_t reads_stale;
    /**
     * Reads that were `PI0_HOLD`.
     */
    uint64_t reads_hold;
    /**
     * Reads that were `PI0_EMPTY`.
     */
    uint64_t reads_empty;
    /**
     * Control ticks that were not read at all.
     */
    uint64_t missed_ticks;
    /**
     * Chunks that were begun to be executed.
     */
    uint64_t chunks_executed;
    /**
     * Chunks that were used up before the next one came.
     */
    uint64_t underruns;
    /**
     * Ticks in which some joint was kept to its step limit.
     */
    uint64_t clamped;
    /**
     * Times the step limit tripped.
     */
    uint64_t trips;
    /**
     * Chunks begun.
     */
    uint64_t chunks_begun;
    /**
     * Chunks published.
     */
    uint64_t chunks_published;
    /**
     * Chunks published that the control loop never saw, because the next one came first.
     */
    uint64_t chunks_overwritten;
    /**
     * Chunks guided by the one before (RTC).
     */
    uint64_t chunks_guided;
    /**
     * Chunks not published because of NaN or infinity.
     */
    uint64_t rejected_non_finite;
    /**
     * Chunks not published because of a value out of limits.
     */
    uint64_t rejected_limits;
    /**
     * Chunks not published because they had the wrong length.
     */
    uint64_t rejected_length;
    /**
     * Errors of inference.
     */
    uint64_t errors;
    /**
     * Bugs that inference hit.
     */
    uint64_t panics;
    /**
     * Chunks dropped because they were not finished in time.
     */
    uint64_t deadline_misses;
    /**
     * Chunks dropped because of a new prompt or step count.
     */
    uint64_t abandoned;
    /**
     * Observations not used because they were too old when their turn came.
     */
    uint64_t stale_observations;
    /**
     * Observations published.
     */
    uint64_t observations_published;
    /**
     * Observations that were replaced before inference looked.
     */
    uint64_t observations_overwritten;
    /**
     * Observations refused because of their capture time.
     */
    uint64_t observations_refused;
    /**
     * Publications that cost a system call, because inference slept.
     */
    uint64_t wakes;
    /**
     * Age of the observation behind each action read.
     */
    struct pi0_latency age;
    /**
     * Everything before the first denoise step.
     */
    struct pi0_latency begin;
    /**
     * One denoise step.
     */
    struct pi0_latency step;
    /**
     * Everything after the last denoise step.
     */
    struct pi0_latency finish;
    /**
     * The finite and limit checks.
     */
    struct pi0_latency gate;
    /**
     * From begin to publication.
     */
    struct pi0_latency chunk;
    /**
     * From the observation's capture to publication.
     */
    struct pi0_latency latency;
    /**
     * Observations that the policy could not use, see `PI0_EVENT_OBSERVATION_REFUSED`.
     */
    uint64_t observations_unusable;
} pi0_stats;

/**
 * A camera's frame as its driver has it: 8 bits a value, rows from the top, each `row_bytes` after the one before. The
 * last row need not be followed by a gap. Borrows the pixels for as long as a call takes.
 *
 * Pixels that share one pair of Cb and Cr, two or four of them, each get that pair.
 */
typedef struct pi0_camera_frame {
    /**
     * `sizeof(pi0_camera_frame)`.
     */
    size_t struct_size;
    /**
     * `PI0_PIXELS_...`
     */
    uint32_t format;
    /**
     * `PI0_YUV_...`, what Y, Cb and Cr were made with; other formats have no use for it.
     */
    uint32_t yuv;
    /**
     * Pixels in a row, 1 to 16384.
     */
    uint32_t width;
    /**
     * Rows, 1 to 16384.
     */
    uint32_t height;
    /**
     * The pixels; of NV12, the plane of Y.
     */
    const uint8_t *data;
    /**
     * Bytes that are there. A frame that ends before its last row does is refused.
     */
    size_t data_size;
    /**
     * From one row to the next.
     */
    size_t row_bytes;
    /**
     * Of NV12, the plane of Cb and Cr: often `data + height * row_bytes`. NULL for other formats.
     */
    const uint8_t *chroma;
    /**
     * Bytes that are there.
     */
    size_t chroma_size;
    /**
     * From one row of it to the next.
     */
    size_t chroma_row_bytes;
} pi0_camera_frame;

/**
 * The outcome of a publication.
 */
typedef struct pi0_published {
    /**
     * `sizeof(pi0_published)`; set it before the call.
     */
    size_t struct_size;
    /**
     * 1 if the observation before this one was never looked at.
     */
    uint32_t overwrote;
    /**
     * 1 if the inference thread slept and was woken, which cost one system call.
     */
    uint32_t woke;
} pi0_published;

/**
 * Everything a read says beside the action itself.
 */
typedef struct pi0_reading {
    /**
     * `sizeof(pi0_reading)`; set it once, before the first call.
     */
    size_t struct_size;
    /**
     * Nanoseconds from the capture of the chunk's observation to now, those included that the machine slept; 0 before the
     * first chunk.
     */
    uint64_t age_ns;
    /**
     * The chunk the action comes from, from 1; 0 before the first.
     */
    uint64_t chunk;
    /**
     * The control tick, from 0 at the first read.
     */
    uint64_t tick;
    /**
     * `PI0_OK`, `PI0_STALE`, `PI0_HOLD` or `PI0_EMPTY`, as returned.
     */
    pi0_status status;
    /**
     * `PI0_FLAG_...`, any number of them.
     */
    uint32_t flags;
    /**
     * The row of the chunk that is being executed.
     */
    uint32_t row;
    /**
     * Rows of the chunk that have not begun.
     */
    uint32_t remaining;
    /**
     * Control ticks missed since the read before.
     */
    uint32_t missed;
    /**
     * 1 if an action was written; 0 while there has been neither a chunk nor a reference.
     */
    uint32_t has_action;
    /**
     * On the first action from a chunk: the largest distance of any joint from the action before to the one the
     * chunk asks for, before the step limit, in robot units. 0 otherwise.
     */
    float seam_jump;
    /**
     * 0.
     */
    uint32_t reserved;
} pi0_reading;

/**
 * Gets a log record: its level (`PI0_LOG_...`), the part it comes from, its text, and what was given as `user`.
 * Strings are UTF-8 and valid until it returns.
 */
typedef void (*pi0_log_callback)(uint32_t level, const char *target, const char *message, void *user);

/**
 * Done.
 */
#define PI0_OK 0

/**
 * There is an action, but its observation is older than `max_age_ns`; the plan is still followed.
 */
#define PI0_STALE 1

/**
 * The plan is not followed any more: the last action is held, or motion is coming to rest. Flags say why.
 */
#define PI0_HOLD 2

/**
 * There is nothing yet: no chunk to execute, or no event waiting.
 */
#define PI0_EMPTY 3

/**
 * A pointer that must not be NULL is.
 */
#define PI0_ERR_NULL -1

/**
 * The handle is not one of this kind that is alive: it was freed or taken over, or never was one.
 */
#define PI0_ERR_HANDLE -2

/**
 * Another call with this handle is going on. Nothing was done.
 */
#define PI0_ERR_BUSY -3

/**
 * The handle belongs to another thread, or the function may not be called from a callback. Nothing was done.
 */
#define PI0_ERR_THREAD -4

/**
 * Not at this time: for example, waiting for events that a callback already gets.
 */
#define PI0_ERR_STATE -5

/**
 * An argument or setting is outside its range, contradicts another one, or is not UTF-8.
 */
#define PI0_ERR_ARGUMENT -6

/**
 * A structure's `struct_size` is not that of any release up to this library's.
 */
#define PI0_ERR_STRUCT_SIZE -7

/**
 * An array or buffer does not have the size it must have.
 */
#define PI0_ERR_SIZE -8

/**
 * A bug in pi0-edge was stopped at its border. The handle is good for nothing but being freed.
 */
#define PI0_ERR_PANIC -9

/**
 * An earlier call with this handle ended in `PI0_ERR_PANIC`: all that is left is to free it.
 */
#define PI0_ERR_POISONED -10

/**
 * The process was forked, and this is the child: handles are the parent's. Open anew after `exec`.
 */
#define PI0_ERR_FORKED -11

/**
 * There are as many handles of this kind as there can be.
 */
#define PI0_ERR_LIMIT -12

/**
 * The capture time is later than now: it is from another clock than CLOCK_MONOTONIC.
 */
#define PI0_ERR_FUTURE -13

/**
 * The capture time is before that of the observation published last.
 */
#define PI0_ERR_ORDER -14

/**
 * A file or directory could not be read or written.
 */
#define PI0_ERR_IO -20

/**
 * The bundle's manifest is missing, unreadable, of an unknown version, or contradicts itself.
 */
#define PI0_ERR_MANIFEST -21

/**
 * A bundle file is missing, has the wrong size or hash, or holds what a bundle may not hold.
 */
#define PI0_ERR_INTEGRITY -22

/**
 * ONNX Runtime's shared library was not found, is too old, or is another than the one already loaded.
 */
#define PI0_ERR_LIBRARY -23

/**
 * An execution provider that was asked for could not be used.
 */
#define PI0_ERR_PROVIDER -24

/**
 * A graph could not be loaded, does not match the manifest, or failed while running.
 */
#define PI0_ERR_GRAPH -25

/**
 * The observation does not fit the bundle: camera, image, state or prompt.
 */
#define PI0_ERR_OBSERVATION -26

/**
 * A value that must be finite is NaN or infinite.
 */
#define PI0_ERR_NON_FINITE -27

/**
 * An action is outside of the bundle's limits.
 */
#define PI0_ERR_OUT_OF_LIMITS -28

/**
 * The outputs differ from the reference policy's by more than the bundle's tolerance.
 */
#define PI0_ERR_PARITY -29

/**
 * A real-time right that was insisted on (priority, CPU affinity, locked memory) is missing.
 */
#define PI0_ERR_REALTIME_DENIED -30

/**
 * The real-time runtime could not start, has given up, or is gone.
 */
#define PI0_ERR_RUNTIME -31

/**
 * TensorRT engines are missing, damaged, not the user's own, or made for something else.
 */
#define PI0_ERR_ENGINE -32

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is running, for example `"0.1.0"`. That of the header is `PI0_VERSION`; programs
 * run with any library of the same major and minor version that is not older than their header.
 *
 * RT-safe: yes. Thread: any.
 */
const char *pi0_version(void);

/**
 * The time now on CLOCK_MONOTONIC, in nanoseconds: the clock of every time in this interface.
 *
 * RT-safe: yes. Thread: any.
 */
uint64_t pi0_now_ns(void);

/**
 * A status in words: a short sentence without a full stop, in static memory. Any number is fine.
 *
 * RT-safe: yes. Thread: any.
 */
const char *pi0_status_str(pi0_status status);

/**
 * Writes the default settings. `struct_size` is `sizeof(pi0_policy_options)`.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
 */
pi0_status pi0_policy_options_default(struct pi0_policy_options *options, size_t struct_size);

/**
 * Opens a bundle: verifies it, loads ONNX Runtime and the graphs, and makes every buffer. For a full-size bundle
 * this takes seconds to minutes.
 *
 * The bundle's files are used where they are for as long as the policy lives. Once one is written to or cut off, every
 * inference fails with PI0_ERR_INTEGRITY; deleted or replaced by rename, what was verified goes on being used. So that
 * this never ends the process, the first call installs a handler for SIGBUS, which hands on what is not its own. A
 * program that installs one later must hand on as well, and no thread that infers may block SIGBUS.
 *
 * `bundle` is the directory's path. `options` may be NULL for the defaults. `error` may be NULL; it is written when
 * the call fails. Threads made here leave the signals a program handles to the program's own threads. Sets the
 * environment variable ORT_DISABLE_TELEMETRY, so no other thread should be changing the environment meanwhile.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE, PI0_ERR_LIMIT, PI0_ERR_STATE (the process is
 * exiting), PI0_ERR_FORKED, PI0_ERR_IO, PI0_ERR_MANIFEST, PI0_ERR_INTEGRITY, PI0_ERR_LIBRARY, PI0_ERR_PROVIDER,
 * PI0_ERR_GRAPH, PI0_ERR_PANIC.
 */
pi0_status pi0_policy_new(const char *bundle,
                          const struct pi0_policy_options *options,
                          struct pi0_policy **policy,
                          struct pi0_error *error);

/**
 * Frees a policy. NULL is fine.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_policy_free(struct pi0_policy *policy);

/**
 * Tells what a policy takes and gives.
 *
 * RT-safe: no. Thread: any, one at a time.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_policy_info(const struct pi0_policy *policy, struct pi0_info *info);

/**
 * The name of a camera, 0 to `cameras - 1` in the policy's order, as a NUL-terminated string in `name`, which has
 * `name_size` bytes. `required` may be NULL; it is set to 1 if no observation may be without this camera, else to 0.
 *
 * RT-safe: no. Thread: any, one at a time.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT (no such camera), PI0_ERR_SIZE (the
 * name does not fit), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_policy_camera(const struct pi0_policy *policy,
                             uint32_t camera,
                             char *name,
                             size_t name_size,
                             uint32_t *required);

/**
 * Computes one chunk from one observation, on the calling thread and ONNX Runtime's workers.
 *
 * `options` may be NULL: noise from seed 0, the bundle's number of steps, no guidance. `actions` gets
 * `action_horizon * action_dim` values in robot units, the first action first; `actions_len` must be that product.
 * `error` may be NULL. After an error the policy can be used again.
 *
 * RT-safe: no. Thread: any, one at a time.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE, PI0_ERR_SIZE,
 * PI0_ERR_OBSERVATION, PI0_ERR_NON_FINITE, PI0_ERR_OUT_OF_LIMITS, PI0_ERR_GRAPH, PI0_ERR_INTEGRITY,
 * PI0_ERR_IO, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_policy_infer(struct pi0_policy *policy,
                            const struct pi0_observation *observation,
                            const struct pi0_infer_options *options,
                            float *actions,
                            size_t actions_len,
                            struct pi0_error *error);

/**
 * Tells where the time of the last chunk went; all zero before the first.
 *
 * RT-safe: no. Thread: any, one at a time.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_policy_timing(const struct pi0_policy *policy, struct pi0_timing *timing);

/**
 * Writes the default options: noise from seed 0, the bundle's number of steps, no guidance. `struct_size` is
 * `sizeof(pi0_infer_options)`.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
 */
pi0_status pi0_infer_options_default(struct pi0_infer_options *options, size_t struct_size);

/**
 * Writes the default settings: try for SCHED_FIFO 80 on any CPU, memory locked once it is touched, 256 KiB of stack
 * touched, the heap kept. `struct_size` is `sizeof(pi0_thread_config)`.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
 */
pi0_status pi0_thread_config_default(struct pi0_thread_config *config,
                                     size_t struct_size);

/**
 * Writes the default settings: 1 kHz control, 50 Hz actions, STALE after 0.5 s, HOLD after 1 s holding the last
 * action, replanning when 25 rows remain, no RTC, no deadline, a watchdog of 1 s. `struct_size` is
 * `sizeof(pi0_runtime_config)`.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
 */
pi0_status pi0_runtime_config_default(struct pi0_runtime_config *config,
                                      size_t struct_size);

/**
 * Writes lerobot's default settings. `struct_size` is `sizeof(pi0_rtc_config)`.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE.
 */
pi0_status pi0_rtc_config_default(struct pi0_rtc_config *config, size_t struct_size);

/**
 * Starts inference on a thread of its own, and returns once the policy is warmed up there.
 *
 * Takes the policy over, whatever the outcome: its handle is one no more. `config` may be NULL for the defaults.
 * Gives three handles: `runtime` for the owner, `writer` for the thread that has the sensors, `controller` for the
 * control loop. Each is freed on its own, in any order. `error` may be NULL; it is written when the call fails.
 *
 * Threads made here leave the signals a program handles to the program's own threads. When the process exits, they
 * are ended first.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE, PI0_ERR_SIZE,
 * PI0_ERR_LIMIT, PI0_ERR_STATE (the process is exiting), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_OBSERVATION,
 * PI0_ERR_NON_FINITE, PI0_ERR_OUT_OF_LIMITS, PI0_ERR_GRAPH, PI0_ERR_INTEGRITY, PI0_ERR_IO, PI0_ERR_REALTIME_DENIED,
 * PI0_ERR_RUNTIME, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_start(struct pi0_policy *policy,
                             const struct pi0_runtime_config *config,
                             struct pi0_runtime **runtime,
                             struct pi0_observation_writer **writer,
                             struct pi0_controller **controller,
                             struct pi0_error *error);

/**
 * Stops inference and waits for its thread to end, for as long as the configuration says. From then on reads are
 * `PI0_HOLD`; events, statistics and the flight record can still be had. Stopping again does nothing. If inference
 * does not come back in time its thread is left behind, and that is `PI0_ERR_RUNTIME`. `error` may be NULL.
 *
 * Waits for an event callback that is running, which may call anything meanwhile; so the caller must hold no lock of
 * its own that the callback takes.
 *
 * RT-safe: no. Thread: any but a callback's.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_POISONED, PI0_ERR_FORKED,
 * PI0_ERR_RUNTIME, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_stop(struct pi0_runtime *runtime,
                            struct pi0_error *error);

/**
 * Stops a runtime if it is running, and frees it. NULL is fine. The writer and the controller stay and are freed on
 * their own; reads are `PI0_HOLD` from then on. Refused while another call with this handle is going on.
 *
 * RT-safe: no. Thread: any but a callback's.
 * Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_free(struct pi0_runtime *runtime);

/**
 * Tells what the policy behind a runtime takes and gives.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_info(const struct pi0_runtime *runtime, struct pi0_info *info);

/**
 * Tells what the inference thread was given of what it was to have.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_realtime(const struct pi0_runtime *runtime, struct pi0_realtime *realtime);

/**
 * From now on tells systemd how inference goes, where the program is a service of `Type=notify`: READY=1 at once,
 * WATCHDOG=1 as chunks are completed and for nothing else, what `systemctl status` shows, and STOPPING=1 when the
 * runtime is stopped. Call it once everything else the program needs is ready too. `found` may be NULL; it is set to
 * 1 if there is a systemd that wants to know (`$NOTIFY_SOCKET`), to 0 if there is none. `error` may be NULL.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT (the environment is not what
 * systemd sets), PI0_ERR_IO (nobody listens), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_notify_systemd(struct pi0_runtime *runtime,
                                      uint32_t *found,
                                      struct pi0_error *error);

/**
 * Begins a new episode: the robot was put somewhere else, or its task starts anew. The plan, what it leaves over and the
 * held action are dropped; reads are `PI0_EMPTY` from now on until there is a chunk of an observation that was captured
 * and published after this call, and that chunk is guided by none before it. What is being computed meanwhile is never
 * followed. A trip of the step limit stays until it is cleared; `pi0_controller_set_reference` may tell where the robot
 * is now.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_begin_episode(struct pi0_runtime *runtime);

/**
 * Sets the prompt (UTF-8). A chunk being computed is dropped and begun anew; the one being executed goes on until
 * the new one takes over. Whether the policy takes the prompt shows later: a `PI0_EVENT_COMMAND_FAILED` if not.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_POISONED, PI0_ERR_FORKED,
 * PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_set_prompt(struct pi0_runtime *runtime,
                                  const char *prompt);

/**
 * Sets the number of denoise steps, 1 to `max_num_steps`. A chunk being computed is dropped and begun anew. A number
 * that cannot be used shows later, as `PI0_EVENT_COMMAND_FAILED`.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_POISONED, PI0_ERR_FORKED,
 * PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_set_num_steps(struct pi0_runtime *runtime,
                                     uint32_t num_steps);

/**
 * Sets the limits chunks must keep to, from the next one finished on. NULL: values must be finite, that is all.
 * Limits that cannot be used show later, as `PI0_EVENT_COMMAND_FAILED`.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_SIZE, PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_set_limits(struct pi0_runtime *runtime,
                                  const struct pi0_limits *limits);

/**
 * Turns real-time chunking on or to other settings, or off by NULL, from the next chunk begun on. Settings that
 * cannot be used show later, as `PI0_EVENT_COMMAND_FAILED`.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_STRUCT_SIZE,
 * PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_RUNTIME (stopped, given up, or 16 commands are waiting), PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_set_rtc(struct pi0_runtime *runtime,
                               const struct pi0_rtc_config *rtc);

/**
 * Tells what was counted so far. Takes no lock that the control loop or inference could wait for.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_stats(const struct pi0_runtime *runtime, struct pi0_stats *stats);

/**
 * The next event, waiting for it for up to `timeout_ns` (0: not at all). `PI0_EMPTY`, and nothing written, if there
 * is none by then. For runtimes that were given neither a callback nor a file descriptor for events.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_EMPTY, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_STATE, PI0_ERR_STRUCT_SIZE,
 * PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_next_event(struct pi0_runtime *runtime,
                                  uint64_t timeout_ns,
                                  struct pi0_event *event);

/**
 * Writes the last control ticks and chunks to a file, as JSON: all of it or nothing. `error` may be NULL.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_ARGUMENT, PI0_ERR_POISONED, PI0_ERR_FORKED,
 * PI0_ERR_IO, PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_write_flight_record(const struct pi0_runtime *runtime,
                                           const char *path,
                                           struct pi0_error *error);

/**
 * Stops a runtime as `pi0_runtime_stop` does and gives its policy back, whether inference had given up or not: it can
 * be started again, or compute chunks one by one, without being loaded. The runtime's handle stays, for what happened
 * to be asked for, and is freed on its own. `error` may be NULL.
 *
 * RT-safe: no. Thread: any but a callback's.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_STATE (it was taken before,
 * or hit a bug and is not used again), PI0_ERR_LIMIT, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_RUNTIME,
 * PI0_ERR_PANIC.
 */
pi0_status pi0_runtime_take_policy(struct pi0_runtime *runtime,
                                   struct pi0_policy **policy,
                                   struct pi0_error *error);

/**
 * Writes a camera's frame as RGB, `height * width * 3` bytes without gaps, which `rgb_size` must be: for
 * `pi0_policy_infer`. The runtime's slots have `pi0_observation_writer_convert_frame`. `rgb` is no part of the frame;
 * `error` may be NULL.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_STRUCT_SIZE, PI0_ERR_ARGUMENT (no such format or matrix, or a plane too many),
 * PI0_ERR_SIZE (a side is 0, above 16384 or odd where it must be even, rows overlap, or a plane ends before its last row
 * does), PI0_ERR_PANIC.
 */
pi0_status pi0_camera_frame_to_rgb(const struct pi0_camera_frame *frame,
                                   uint8_t *rgb,
                                   size_t rgb_size,
                                   struct pi0_error *error);

/**
 * The number of the camera called `name`, to be used with the other functions.
 *
 * RT-safe: no. Thread: sensor.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera, or
 * not UTF-8), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_camera(struct pi0_observation_writer *writer,
                                         const char *name,
                                         uint32_t *camera);

/**
 * The pixels of a camera's frame, to be filled in place: `height * width * 3` bytes, RGB, rows from the top, without
 * gaps. The camera is present from now on. `pixels` is valid until the next `pi0_observation_writer_publish` or
 * `pi0_observation_writer_free`.
 *
 * The slot holds some earlier observation, not the last: fill all of it, and clear the cameras that are absent.
 *
 * RT-safe: yes. Thread: sensor.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera),
 * PI0_ERR_SIZE (a side is 0, or the frame is larger than the slot), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_frame(struct pi0_observation_writer *writer,
                                        uint32_t camera,
                                        uint32_t width,
                                        uint32_t height,
                                        uint8_t **pixels);

/**
 * Copies a camera's frame into its slot: RGB, rows from the top, each `row_bytes` after the one before, at least
 * `width * 3`. For drivers that have the frame in memory of their own. The camera is present from now on.
 *
 * RT-safe: yes. Thread: sensor.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera),
 * PI0_ERR_SIZE (a side is 0, the frame is larger than the slot, or rows overlap), PI0_ERR_POISONED, PI0_ERR_FORKED,
 * PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_set_frame(struct pi0_observation_writer *writer,
                                            uint32_t camera,
                                            uint32_t width,
                                            uint32_t height,
                                            const uint8_t *rgb,
                                            size_t row_bytes);

/**
 * Converts a camera's frame from the layout that its driver has it in to RGB, into its slot: no copy in between. The
 * camera is present from now on. A frame that is refused changes nothing: clear the camera, or give the next frame.
 * `error` may be NULL.
 *
 * RT-safe: yes. Thread: sensor.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_STRUCT_SIZE, PI0_ERR_ARGUMENT (no
 * such camera, format or matrix, or a plane too many), PI0_ERR_SIZE (a side is 0, above 16384 or odd where it must be
 * even, the frame is larger than the slot, rows overlap, or a plane ends before its last row does), PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_convert_frame(struct pi0_observation_writer *writer,
                                                uint32_t camera,
                                                const struct pi0_camera_frame *frame,
                                                struct pi0_error *error);

/**
 * Marks a camera as absent.
 *
 * RT-safe: yes. Thread: sensor.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_ARGUMENT (no such camera),
 * PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_clear_frame(struct pi0_observation_writer *writer,
                                              uint32_t camera);

/**
 * Copies the state into the slot: `len` values in robot units, which must be `state_dim`.
 *
 * RT-safe: yes. Thread: sensor.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_POISONED,
 * PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_set_state(struct pi0_observation_writer *writer,
                                            const float *state,
                                            size_t len);

/**
 * Hands the filled observation over. `captured_ns` is when its oldest part was captured, on CLOCK_MONOTONIC; it must
 * not be later than now nor before that of the observation published last. `published` may be NULL.
 *
 * Takes no lock and allocates nothing, but costs one system call if the inference thread sleeps.
 *
 * RT-safe: no. Thread: sensor.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_STRUCT_SIZE, PI0_ERR_FUTURE,
 * PI0_ERR_ORDER, PI0_ERR_RUNTIME (inference has ended, nobody looks any more), PI0_ERR_POISONED, PI0_ERR_FORKED,
 * PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_publish(struct pi0_observation_writer *writer,
                                          uint64_t captured_ns,
                                          struct pi0_published *published);

/**
 * Makes the calling thread the sensor thread, which the handle belongs to from now on.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_attach(struct pi0_observation_writer *writer);

/**
 * Frees the sensor side. NULL is fine.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_observation_writer_free(struct pi0_observation_writer *writer);

/**
 * Reads the action for now: call it once per control period.
 *
 * `action` gets `action_dim` values in robot units, which `action_len` must be; in `PI0_HOLD` it is the last action,
 * held. It is left alone while there has been neither a chunk nor a reference (`PI0_EMPTY`, `has_action` 0).
 * `reading` may be NULL. Takes no lock, makes no system call, allocates nothing and finishes in a bounded number of
 * steps, whatever inference is doing.
 *
 * RT-safe: yes. Thread: control.
 * Statuses: PI0_OK, PI0_STALE, PI0_HOLD, PI0_EMPTY, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD,
 * PI0_ERR_SIZE, PI0_ERR_STRUCT_SIZE, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_controller_read(struct pi0_controller *controller,
                               float *action,
                               size_t action_len,
                               struct pi0_reading *reading);

/**
 * Tells where the robot is before the first action, so that the first step is limited too; it is the action until
 * there is a chunk. `len` values in robot units, which must be `action_dim`.
 *
 * RT-safe: yes. Thread: control.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_NON_FINITE,
 * PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_controller_set_reference(struct pi0_controller *controller,
                                        const float *position,
                                        size_t len);

/**
 * Sets how far each joint may move from one tick to the next, in robot units; infinity: no limit. `len` values, which
 * must be `action_dim`.
 *
 * RT-safe: yes. Thread: control.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_ARGUMENT (a
 * limit is not positive), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_controller_set_step_limits(struct pi0_controller *controller,
                                          const float *limits,
                                          size_t len);

/**
 * Hands in the measured state for the next read, for `PI0_SPLICE_STATE`. `len` values, which must be `action_dim`: one
 * for each joint of an action, in the units of the observation's state, NaN for a joint that is not measured.
 *
 * RT-safe: yes. Thread: control.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_SIZE, PI0_ERR_NON_FINITE (a
 * value is infinite, or none is a number), PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_controller_set_state(struct pi0_controller *controller,
                                    const float *state,
                                    size_t len);

/**
 * Ends the hold that a trip of the step limit led to.
 *
 * RT-safe: yes. Thread: control.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_THREAD, PI0_ERR_POISONED, PI0_ERR_FORKED,
 * PI0_ERR_PANIC.
 */
pi0_status pi0_controller_clear_trip(struct pi0_controller *controller);

/**
 * Makes the calling thread the control thread, which the handle belongs to from now on. For loops that are set up on
 * one thread and run on another, or that are started again.
 *
 * RT-safe: yes. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_NULL, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_POISONED, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_controller_attach(struct pi0_controller *controller);

/**
 * Frees the control loop's side. NULL is fine.
 *
 * RT-safe: no. Thread: any.
 * Statuses: PI0_OK, PI0_ERR_HANDLE, PI0_ERR_BUSY, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_controller_free(struct pi0_controller *controller);

/**
 * Sends the process's log, this library's and ONNX Runtime's, to `callback`: records of `level` (`PI0_LOG_...`) and
 * graver. NULL turns it off. The callback runs on a thread of its own, one call at a time; it must not throw or
 * unwind. When this function returns, the callback before is not running and is not called again. Before the first
 * call nothing is logged.
 *
 * RT-safe: no. Thread: any but a log callback's.
 * Statuses: PI0_OK, PI0_ERR_ARGUMENT, PI0_ERR_THREAD, PI0_ERR_STATE, PI0_ERR_RUNTIME, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_log_set_callback(pi0_log_callback callback,
                                void *user,
                                uint32_t level);

/**
 * Sends the process's log to a file descriptor, one line a record: level, part, text. -1 turns it off. Lines are
 * written from a thread of their own, which never waits for the reader; what finds no room is counted and lost. The
 * descriptor stays the caller's, who must turn the log off before closing it.
 *
 * RT-safe: no. Thread: any but a log callback's.
 * Statuses: PI0_OK, PI0_ERR_ARGUMENT, PI0_ERR_THREAD, PI0_ERR_STATE, PI0_ERR_RUNTIME, PI0_ERR_FORKED, PI0_ERR_PANIC.
 */
pi0_status pi0_log_set_fd(int32_t fd,
                          uint32_t level);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PI0_EDGE_H */
