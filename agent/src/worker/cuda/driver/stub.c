/* A libcuda without a GPU, for tests of what is between it and us: loading, error codes, and the
 * arguments that calls are made with. Time passes by one millisecond per recorded event.
 * STUB_CUDA in the environment says how it behaves. */
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_HANDLE = 400, ILLEGAL_ADDRESS = 700 };
#define DISABLE_TIMING 2u

struct event {
    unsigned flags;
    int recorded;
    float at;
};

static float now;
static int retained;
static void *current;
static int context;

static int behaves(const char *how) {
    const char *wanted = getenv("STUB_CUDA");
    return wanted && strcmp(wanted, how) == 0;
}

int cuInit(unsigned flags) {
    if (behaves("no_device")) return NO_DEVICE;
    if (behaves("stub_library")) return 34;
    return flags ? INVALID_VALUE : 0;
}

int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal < 2 ? 0 : 101; }

int cuDevicePrimaryCtxRetain(void **out, int device) {
    (void)device;
    retained++;
    *out = &context;
    return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; retained--; return 0; }

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 18: *value = behaves("integrated"); return 0; /* INTEGRATED */
    case 38: *value = 4 << 20; return 0;               /* L2_CACHE_SIZE */
    case 115: *value = 1; return 0;                    /* MEMORY_POOLS_SUPPORTED */
    }
    return INVALID_VALUE;
}

int cuCtxGetCurrent(void **out) { *out = current; return 0; }
int cuCtxSetCurrent(void *wanted) { current = wanted; return 0; }
int cuCtxSynchronize(void) { return behaves("lost") ? ILLEGAL_ADDRESS : 0; }

int cuStreamSynchronize(void *stream) {
    if (stream) return INVALID_HANDLE; /* only the default stream is right */
    return cuCtxSynchronize();
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    *free_bytes = (size_t)6 << 30;
    *total = (size_t)8 << 30;
    return 0;
}

int cuEventCreate(struct event **out, unsigned flags) {
    *out = calloc(1, sizeof **out);
    (*out)->flags = flags;
    return 0;
}

int cuEventDestroy_v2(struct event *event) { free(event); return 0; }
int cuEventSynchronize(struct event *event) { return event->recorded ? 0 : INVALID_VALUE; }

int cuEventRecord(struct event *event, void *stream) {
    if (stream || current != &context || retained != 1) return INVALID_HANDLE;
    now += 1.0f;
    event->recorded = 1;
    event->at = now;
    return 0;
}

int cuEventElapsedTime(float *millis, struct event *start, struct event *end) {
    if ((start->flags | end->flags) & DISABLE_TIMING) return INVALID_HANDLE;
    *millis = end->at - start->at;
    return 0;
}
