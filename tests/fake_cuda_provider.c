/* What ONNX Runtime's CUDA provider calls besides fake_cudart.c, so that the real provider library loads, takes its
 * options, claims nodes, and goes through the motions of running a graph on a machine without a GPU. Kernels compute
 * nothing. All that is not here or there is a weak function that returns zero, made by the test from the list of what
 * the library wants.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void fake_count_copy(int kind);
int cudaMalloc(void **ptr, size_t bytes);
int cudaHostAlloc(void **ptr, size_t bytes, unsigned flags);
int cudaStreamCreateWithFlags(void **stream, unsigned flags);
int cudaEventCreateWithFlags(void **event, unsigned flags);

static int graph_launches, kernel_launches;
int fake_graph_launches(void) { return graph_launches; }
/* Kernels, and products, which are the libraries' kernels. */
int fake_kernel_launches(void) { return kernel_launches; }

int cudaGetDeviceProperties(char *properties, int device) {
    (void)device;
    memset(properties, 0, 900);
    strcpy(properties, "stand-in");
    *(size_t *)(properties + 296) = 48 << 10; /* sharedMemPerBlock */
    *(int *)(properties + 308) = 32;          /* warpSize */
    *(int *)(properties + 320) = 1024;        /* maxThreadsPerBlock */
    *(int *)(properties + 360) = 9;           /* major */
    *(int *)(properties + 384) = 132;         /* multiProcessorCount */
    return 0;
}
int cudaDriverGetVersion(int *version) { return *version = 13000, 0; }
int cudaRuntimeGetVersion(int *version) { return *version = 13000, 0; }
int cudaGetDevice(int *device) { return *device = 0; }
int cudaMallocHost(void **ptr, size_t bytes) { return cudaHostAlloc(ptr, bytes, 0); }
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    fake_count_copy(kind);
    memcpy(to, from, bytes);
    return 0;
}
int cudaMemset(void *to, int value, size_t bytes) {
    memset(to, value, bytes);
    return 0;
}
int cudaPointerGetAttributes(void *attributes, const void *ptr) {
    (void)ptr;
    memset(attributes, 0, 24);
    return 0;
}
int cudaStreamCreate(void **stream) { return cudaStreamCreateWithFlags(stream, 1); }
int cudaEventCreate(void **event) { return cudaEventCreateWithFlags(event, 0); }
const char *cudaGetErrorName(int error) {
    (void)error;
    return "stand-in";
}
void **__cudaRegisterFatBinary(void *binary) {
    static void *handle;
    (void)binary;
    return &handle;
}
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) {
    (void)graph;
    (void)flags;
    *executable = &graph_launches;
    return 0;
}
int cudaGraphLaunch(void *executable, void *stream) {
    (void)executable;
    (void)stream;
    graph_launches++;
    return 0;
}
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, int kind) {
    (void)to, (void)to_pitch, (void)from, (void)from_pitch, (void)width, (void)height;
    return fake_count_copy(kind), 0;
}
#define LAUNCH(name) \
    int name(void) { return kernel_launches++, 0; }
LAUNCH(cudaLaunchKernel)
LAUNCH(__cudaLaunchKernel)
LAUNCH(cudaLaunchKernelExC)
LAUNCH(cudaLaunchCooperativeKernel)
LAUNCH(cublasGemmEx)
LAUNCH(cublasGemmBatchedEx)
LAUNCH(cublasGemmStridedBatchedEx)
LAUNCH(cublasSgemm_v2)
LAUNCH(cublasSgemmBatched)
LAUNCH(cublasSgemmStridedBatched)
LAUNCH(cublasLtMatmul)
int cublasCreate_v2(void **handle) { return *handle = malloc(1), 0; }
int cublasLtCreate(void **handle) { return *handle = malloc(1), 0; }
int cublasGetMathMode(void *handle, int *mode) {
    (void)handle;
    return *mode = 0;
}
const char *cublasGetStatusName(int status) {
    (void)status;
    return "stand-in";
}
const char *cublasGetStatusString(int status) {
    (void)status;
    return "stand-in";
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *f, int b, size_t bytes, unsigned flags) {
    (void)f;
    (void)b;
    (void)bytes;
    (void)flags;
    return *blocks = 1, 0;
}
int cudaFuncGetAttributes(void *attributes, const void *function) {
    (void)function;
    memset(attributes, 0, 64);
    return 0;
}
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    (void)stream;
    function(data);
    return 0;
}
