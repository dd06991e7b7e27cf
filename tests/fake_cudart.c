/* A stand-in for NVIDIA's CUDA runtime, for tests on machines without it: the same functions over the host's memory.
 *
 * It is not CUDA and shows nothing about CUDA. It shows that this program finds the functions, passes what their
 * documentation asks for, reports what they report, gives back what it takes, and orders its work by the stream: what
 * is queued here really happens only when the stream is waited for, from the memory as it is then.
 *
 * With FAKE_AT_ONCE it happens at once, for the CUDA provider, which may give the memory back before it waits.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_QUEUE = 1024 };

struct work {
    int is_fill;
    void *to;
    const void *from;
    int value;
    size_t bytes;
};

static struct work queue[MAX_QUEUE];
static int copied[4];
static int fills, queued, synchronized, live_blocks, live_streams, live_events, capturing, device_set = -1, devices = 2;
static char failing[64];
static int failures_left, last_error;

/* --- for the tests --- */

/* Makes the next call of a function fail once `skip` calls of it have gone well. */
void fake_fail(const char *function, int skip) {
    snprintf(failing, sizeof failing, "%s", function);
    failures_left = skip;
}
int fake_queued(void) { return queued; }
int fake_synchronized(void) { return synchronized; }
int fake_fills(void) { return fills; }
/* Copies so far: of all kinds, from the device to the host, and from the host. */
int fake_copied(void) { return copied[1] + copied[2] + copied[3]; }
int fake_copied_back(void) { return copied[2]; }
int fake_copied_from_host(void) { return copied[1]; }
void fake_count_copy(int kind) { copied[kind & 3]++; }
int fake_live(void) { return live_blocks + live_streams + live_events; }
int fake_device(void) { return device_set; }
int fake_last_error(void) { return last_error; }
void fake_capture(int status) { capturing = status; }

static int check(const char *function) {
    if (strcmp(failing, function) == 0 && failures_left-- == 0) {
        failing[0] = 0;
        last_error = 2;
        return 2;
    }
    return 0;
}

/* --- the runtime's functions --- */

#define BEGIN(name) \
    do { \
        int failed = check(name); \
        if (failed) return failed; \
    } while (0)

const char *cudaGetErrorString(int status) {
    return status == 2 ? "out of memory" : status == 101 ? "invalid device ordinal" : "no error";
}
int cudaGetLastError(void) {
    int error = last_error;
    last_error = 0;
    return error;
}
int cudaGetDeviceCount(int *count) {
    BEGIN("cudaGetDeviceCount");
    *count = devices;
    return 0;
}
int cudaSetDevice(int device) {
    BEGIN("cudaSetDevice");
    if (device < 0 || device >= devices) return last_error = 101;
    device_set = device;
    return 0;
}
int cudaSetDeviceFlags(unsigned flags) {
    (void)flags;
    BEGIN("cudaSetDeviceFlags");
    return 0;
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    BEGIN("cudaDeviceGetAttribute");
    *value = attribute == 18 || attribute == 19;
    return 0;
}
int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    BEGIN("cudaMemGetInfo");
    *free_bytes = (size_t)(1000 - 10 * live_blocks);
    *total = 1000;
    return 0;
}
int cudaMalloc(void **ptr, size_t bytes) {
    BEGIN("cudaMalloc");
    *ptr = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(*ptr, 0xA5, bytes);
    live_blocks++;
    return 0;
}
int cudaFree(void *ptr) {
    BEGIN("cudaFree");
    free(ptr);
    live_blocks--;
    return 0;
}
int cudaHostAlloc(void **ptr, size_t bytes, unsigned flags) {
    (void)flags;
    BEGIN("cudaHostAlloc");
    *ptr = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(*ptr, 0xA5, bytes);
    live_blocks++;
    return 0;
}
int cudaFreeHost(void *ptr) {
    BEGIN("cudaFreeHost");
    free(ptr);
    live_blocks--;
    return 0;
}
int cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    (void)flags;
    BEGIN("cudaHostGetDevicePointer");
    *device = host;
    return 0;
}
static void do_work(const struct work *w) {
    if (w->is_fill) memset(w->to, w->value, w->bytes);
    else memcpy(w->to, w->from, w->bytes);
}
static int enqueue(struct work work) {
#ifdef FAKE_AT_ONCE
    do_work(&work);
#else
    if (queued == MAX_QUEUE) abort();
    queue[queued++] = work;
#endif
    return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    BEGIN("cudaMemcpyAsync");
    if (kind < 1 || kind > 3 || stream == NULL) abort();
    fake_count_copy(kind);
    return enqueue((struct work){.to = to, .from = from, .bytes = bytes});
}
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) {
    BEGIN("cudaMemsetAsync");
    if (stream == NULL) abort();
    fills++;
    return enqueue((struct work){.is_fill = 1, .to = to, .value = value, .bytes = bytes});
}
int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    BEGIN("cudaStreamCreateWithFlags");
    if (flags != 1) abort();
    *stream = malloc(1);
    live_streams++;
    return 0;
}
int cudaStreamDestroy(void *stream) {
    free(stream);
    live_streams--;
    return 0;
}
int cudaStreamSynchronize(void *stream) {
    (void)stream;
    int failed = check("cudaStreamSynchronize");
    if (failed) {
        queued = 0; /* a device that fails does nothing more of what was asked */
        return failed;
    }
    for (int i = 0; i < queued; i++) do_work(&queue[i]);
    queued = 0;
    synchronized++;
    return 0;
}
int cudaStreamBeginCapture(void *stream, int mode) {
    (void)stream;
    (void)mode;
    capturing = 1;
    return 0;
}
int cudaStreamIsCapturing(void *stream, int *status) {
    (void)stream;
    *status = capturing;
    return 0;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    (void)stream;
    int spoiled = capturing == 2;
    capturing = 0;
    *graph = spoiled ? NULL : &capturing;
    return spoiled ? (last_error = 901) : 0;
}
int cudaGraphDestroy(void *graph) {
    (void)graph;
    return 0;
}
int cudaEventCreateWithFlags(void **event, unsigned flags) {
    (void)flags;
    BEGIN("cudaEventCreateWithFlags");
    *event = malloc(1);
    live_events++;
    return 0;
}
int cudaEventRecord(void *event, void *stream) {
    (void)event;
    (void)stream;
    BEGIN("cudaEventRecord");
    return 0;
}
int cudaEventElapsedTime(float *milliseconds, void *start, void *end) {
    (void)start;
    (void)end;
    BEGIN("cudaEventElapsedTime");
    *milliseconds = 1.5f;
    return 0;
}
int cudaEventDestroy(void *event) {
    free(event);
    live_events--;
    return 0;
}
