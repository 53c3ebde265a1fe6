// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A libamdhip64 of two pretended gfx942 GPUs whose memory is this machine's: enough of the public interface
// to run MoRI's HIP driver table, and nothing else. It checks what it is given, and says in fake_report()
// what it was asked. FAKE_HIP_VERSION chooses the release it plays. What is queued on a stream happens
// FAKE_HIP_DELAY_US after the event behind it was recorded, when somebody asks for the event.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
  kOk = 0,
  kInvalid = 1,
  kNoMemory = 2,
  kInvalidDevice = 101,
  kNotReady = 600,
  kAlreadyEnabled = 704,
  kAlreadyRegistered = 712,
  kNotSupported = 801
};
enum { kWarp = 64, kUnits = 304, kGranularity = 2 << 20 };

static __thread int device = 0;
static __thread int last_error = 0;
static int fail(int code) { return last_error = code; }

static char report[4096];
static void note(const char* format, ...) {
  size_t used = strlen(report);
  if (used > sizeof(report) - 64) return;
  va_list list;
  va_start(list, format);
  vsnprintf(report + used, sizeof(report) - used, format, list);
  va_end(list);
}
const char* fake_report(void) { return report; }
int fake_current_device(void) { return device; }
void fake_set_current(int d) { device = d; }
int fake_last_error(void) { return last_error; }

static int version(void) {
  const char* text = getenv("FAKE_HIP_VERSION");
  return text ? atoi(text) : 71400000;
}

const char* hipGetErrorString(int code) { return code == kNoMemory ? "out of memory" : "fake error"; }
int hipGetLastError(void) {
  int code = last_error;
  last_error = 0;
  return code;
}
int hipRuntimeGetVersion(int* v) { return *v = version(), kOk; }
int hipGetDeviceCount(int* n) { return *n = getenv("FAKE_HIP_NONE") ? 0 : 2, kOk; }
int hipGetDevice(int* d) { return *d = device, kOk; }
int hipSetDevice(int d) { return d < 0 || d > 1 ? fail(kInvalidDevice) : (device = d, kOk); }
int hipDeviceGetAttribute(int* v, int id, int d) {
  if (d < 0 || d > 1) return fail(kInvalidDevice);
  switch (id) {
    case 63:
      *v = kUnits;
      break;
    case 87:
      *v = kWarp;
      break;
    case 56:
      *v = 1024;
      break;
    case 74:
      *v = 65536;
      break;
    case 89:
      *v = 1;
      break;
    case 10017:
      *v = 100000;
      break;
    default:
      return fail(kInvalid);
  }
  return kOk;
}
int hipGetDevicePropertiesR0600(char* p, int d) {
  (void)d;
  memset(p, 0, 1472);
  strcpy(p, "AMD gfx-less name");
  strcpy(p + 1160, "gfx942:sramecc+:xnack-");
  return kOk;
}
int hipDeviceGetName(char* p, int n, int d) { return snprintf(p, n, "Fake MI300X %d", d), kOk; }
int hipDeviceTotalMem(size_t* n, int d) { return (void)d, *n = (size_t)192 << 30, kOk; }
int hipDeviceGetPCIBusId(char* p, int n, int d) { return snprintf(p, n, "0000:%02X:00.0", 0xAB + d), kOk; }
int hipDeviceGetP2PAttribute(int* v, int id, int a, int b) {
  if (a == b || id < 0 || id > 2) return fail(kInvalid);
  return *v = id == 0 ? 3 : 1, kOk;
}
int hipDeviceEnablePeerAccess(int d, unsigned flags) {
  static int enabled = 0;
  if (flags != 0 || d == device) return fail(kInvalid);
  return enabled++ ? fail(kAlreadyEnabled) : kOk;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  void* base;
  size_t bytes;
  int owner, fd;
} blocks[256];
static int find(const void* p) {
  for (int i = 0; i < 256; ++i)
    if (blocks[i].base && (char*)p >= (char*)blocks[i].base &&
        (char*)p < (char*)blocks[i].base + blocks[i].bytes)
      return i;
  return -1;
}
// Memory is a memfd, so that another process can open it by its handle.
static int take(void** p, size_t n) {
  if (n > (size_t)1 << 34) return fail(kNoMemory);
  if (n == 0) n = 1;
  int fd = memfd_create("fake-gpu", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, n)) return fail(kNoMemory);
  *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (*p == MAP_FAILED) return close(fd), fail(kNoMemory);
  memset(*p, 0xEE, n);
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < 256 && blocks[i].base) ++i;
  if (i < 256) blocks[i].base = *p, blocks[i].bytes = n, blocks[i].owner = device, blocks[i].fd = fd;
  pthread_mutex_unlock(&lock);
  return i < 256 ? kOk : fail(kNoMemory);
}
int hipMalloc(void** p, size_t n) { return take(p, n); }
int hipExtMallocWithFlags(void** p, size_t n, unsigned flags) {
  note("malloc-flags=%u;", flags);
  if (flags == 3 && getenv("FAKE_HIP_NO_UNCACHED")) return fail(kInvalid);
  return take(p, n);
}
int hipFree(void* p) {
  int i = find(p);
  if (i < 0 || blocks[i].base != p) return fail(kInvalid);
  munmap(p, blocks[i].bytes);
  close(blocks[i].fd);
  blocks[i].base = NULL;
  return kOk;
}
int hipMemset(void* p, int value, size_t n) { return memset(p, value, n), kOk; }
int hipMemcpy(void* to, const void* from, size_t n, int kind) {
  return kind == 4 ? (memcpy(to, from, n), kOk) : fail(kInvalid);
}
int hipHostMalloc(void** p, size_t n, unsigned flags) {
  return note("host-flags=%x;", flags), *p = malloc(n), kOk;
}
int hipHostGetDevicePointer(void** d, void* p, unsigned flags) { return (void)flags, *d = p, kOk; }
int hipHostFree(void* p) { return free(p), kOk; }
static struct {
  char* base;
  size_t bytes;
} pinned[256];
int fake_pinned(void) {
  int n = 0;
  for (int i = 0; i < 256; ++i) n += pinned[i].base != NULL;
  return n;
}
int hipHostRegister(void* p, size_t n, unsigned flags) {
  if (flags != 3 || (uintptr_t)p % 4096 || n % 4096) return fail(kInvalid);
  int spare = -1;
  for (int i = 0; i < 256; ++i) {
    if (!pinned[i].base) spare = i;
    if (pinned[i].base && (char*)p < pinned[i].base + pinned[i].bytes && pinned[i].base < (char*)p + n)
      return fail(kAlreadyRegistered);
  }
  return spare < 0 ? fail(kNoMemory) : (pinned[spare].base = p, pinned[spare].bytes = n, kOk);
}
int hipHostUnregister(void* p) {
  for (int i = 0; i < 256; ++i)
    if (pinned[i].base == p) return pinned[i].base = NULL, kOk;
  return fail(kInvalid);
}
int hipMemGetAddressRange(void** base, size_t* n, void* p) {
  int i = find(p);
  return i < 0 ? fail(kInvalid) : (*base = blocks[i].base, *n = blocks[i].bytes, kOk);
}
int hipPointerGetAttribute(void* value, int id, void* p) {
  int i = find(p);
  if (i < 0) return fail(kInvalid);
  if (id == 9) return *(int*)value = blocks[i].owner, kOk;
  return fail(kNotSupported);  // as releases do for attribute 10, so that the caller must try
}

struct Handle {
  char bytes[64];
};
struct Content {
  int pid, fd;
  uint64_t address, bytes;
};
static void* opened[256];
int hipIpcGetMemHandle(struct Handle* h, void* p) {
  int i = find(p);
  if (i < 0 || blocks[i].base != p) return fail(kInvalid);
  struct Content c = {getpid(), blocks[i].fd, (uint64_t)p, blocks[i].bytes};
  memset(h, 0x5A, sizeof(*h));
  memcpy(h->bytes, &c, sizeof(c));
  return kOk;
}
int hipIpcOpenMemHandle(void** p, struct Handle h, unsigned flags) {
  struct Content c;
  memcpy(&c, h.bytes, sizeof(c));
  if (flags != 1 || h.bytes[63] != 0x5A) return fail(kInvalid);
  int spare = -1;
  for (int i = 0; i < 256; ++i) {
    if (opened[i] == (void*)c.address && c.pid == getpid()) return fail(kInvalid);  // a second time
    if (!opened[i]) spare = i;
  }
  *p = (void*)c.address;
  if (c.pid != getpid()) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", c.pid, c.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return fail(kInvalid);
    *p = mmap(NULL, c.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (*p == MAP_FAILED) return fail(kNoMemory);
  }
  note("ipc-open;");
  opened[spare] = *p;
  return kOk;
}
int hipIpcCloseMemHandle(void* p) {
  for (int i = 0; i < 256; ++i)
    if (opened[i] == p) return opened[i] = NULL, note("ipc-close;"), kOk;
  return fail(kInvalid);
}

// What is queued waits until its event is asked for; a kernel's table is read only then, and its shares are not:
// the real kernel is tested on the CPU (test_io_copy_kernel.py).
struct Piece {
  uint64_t to, from, bytes;
};
struct Copies {
  uint64_t pieces, shares, count, arrivals, mark, mark_value, chunk_shift;
  struct Piece inlined[32];
};
struct Op {
  struct Copies copies;
};
struct Stream {
  struct Op* ops;
  size_t begin, end;
};
struct Event {
  struct Stream* stream;
  size_t end;
  int64_t due_ns;
};
static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}
static void queue(struct Stream* s, const struct Copies* copies) {
  s->ops = realloc(s->ops, (s->end + 1) * sizeof(struct Op));
  s->ops[s->end++].copies = *copies;
}
static void run(struct Stream* s, size_t end) {
  for (; s->begin < end; ++s->begin) {
    const struct Copies* c = &s->ops[s->begin].copies;
    const struct Piece* pieces = c->count <= 32 ? c->inlined : (const struct Piece*)c->pieces;
    for (uint64_t i = 0; i < c->count; ++i)
      memcpy((void*)pieces[i].to, (const void*)pieces[i].from, pieces[i].bytes);
    if (c->mark) __atomic_store_n((uint64_t*)c->mark, c->mark_value, __ATOMIC_RELEASE);
  }
}
int hipMemcpyAsync(void* to, const void* from, size_t n, int kind, void* stream) {
  if (kind != 4 || !stream) return fail(kInvalid);
  const char* broken = getenv("FAKE_HIP_FAIL_COPY");
  if (broken && n == (size_t)atoll(broken)) return fail(kInvalid);
  struct Copies c = {.count = 1, .inlined = {{(uint64_t)to, (uint64_t)from, n}}};
  return queue(stream, &c), kOk;
}
int hipEventCreateWithFlags(void** e, unsigned flags) {
  return flags == 2 ? (*e = calloc(1, sizeof(struct Event)), kOk) : fail(kInvalid);
}
int hipEventDestroy(void* e) { return free(e), kOk; }
int hipEventRecord(struct Event* e, void* stream) {
  const char* delay = getenv("FAKE_HIP_DELAY_US");
  e->stream = stream, e->end = e->stream->end;
  e->due_ns = now_ns() + (delay ? atoll(delay) * 1000 : 0);
  return kOk;
}
int hipEventQuery(struct Event* e) {
  if (!e->stream) return kOk;
  if (now_ns() < e->due_ns) return fail(kNotReady);
  return run(e->stream, e->end), kOk;
}
int hipStreamCreateWithFlags(void** s, unsigned flags) {
  return flags == 1 ? (*s = calloc(1, sizeof(struct Stream)), kOk) : fail(kInvalid);
}
int hipStreamDestroy(void* s) { return free(((struct Stream*)s)->ops), free(s), kOk; }
int hipStreamSynchronize(void* s) { return s ? run(s, ((struct Stream*)s)->end) : (void)0, kOk; }
int hipStreamQuery(struct Stream* s) { return s->begin == s->end ? kOk : fail(kNotReady); }
int hipDeviceSynchronize(void) { return kOk; }

int hipModuleLoadData(void** m, const void* image) {
  return memcmp(image, "FAKE", 4) ? fail(200) : (*m = (void*)image, kOk);
}
int hipModuleGetFunction(void** f, void* m, const char* name) {
  (void)m;
  if (!strcmp(name, "io_copy")) return *f = (void*)0xF01, kOk;
  return strcmp(name, "fake_add") ? fail(500) : (*f = (void*)0xF00, kOk);
}
// Kernels: io_copy of the transfer engine, and one of the tests'. {uint64 address, uint64 value}: adds value
// to *address once for each lane of the grid.
int hipModuleLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void* stream, void** params, void** extra) {
  if ((f != (void*)0xF00 && f != (void*)0xF01) || params || !extra || extra[0] != (void*)1 ||
      extra[2] != (void*)2 || extra[4] != (void*)3 || gy * gz * by * bz != 1 || bx % kWarp || bx > 1024 ||
      shared > 65536)
    return fail(kInvalid);
  if (f == (void*)0xF01) {
    if (*(size_t*)extra[3] != sizeof(struct Copies) || !stream) return fail(kInvalid);
    note("copy;");
    queue(stream, extra[1]);
    // A kernel that marks its own end: nobody asks for an event, so it runs here.
    struct Stream* s = stream;
    if (((struct Copies*)extra[1])->mark) run(s, s->end);
    return kOk;
  }
  if (*(size_t*)extra[3] != 16) return fail(kInvalid);
  uint64_t args[2];
  memcpy(args, extra[1], 16);
  note("launch device=%d stream=%d;", device, stream != NULL);
  *(uint64_t*)args[0] += args[1] * gx * bx;
  return kOk;
}
int hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void* f, int threads, size_t shared) {
  return (void)f, (void)shared, *n = 2048 / threads, kOk;
}

// Mapped memory: a handle is a memfd + 1.
struct Prop {
  int type, handles, where, id;
  void* win32;
  unsigned char compression, rdma;
  unsigned short usage;
};
struct Access {
  int where, id, flags;
};
static int check(const struct Prop* p) {
  return p->type == 0x40000000 && p->handles == 1 && p->where == 1 && p->id == device;
}
int hipMemGetAllocationGranularity(size_t* n, const struct Prop* p, int option) {
  return check(p) && option == 1 ? (*n = kGranularity, kOk) : fail(kInvalid);
}
int hipMemCreate(uint64_t* h, size_t n, const struct Prop* p, unsigned long long flags) {
  if (!check(p) || flags || n % kGranularity) return fail(kInvalid);
  if (n > (size_t)1 << 34) return fail(kNoMemory);
  int fd = memfd_create("fake", MFD_CLOEXEC);
  if (ftruncate(fd, n)) return fail(kNoMemory);
  char junk = 0x77;
  if (pwrite(fd, &junk, 1, 5) != 1) return fail(kInvalid);  // fresh memory is not clean
  return *h = fd + 1, kOk;
}
int hipMemRelease(uint64_t h) { return close((int)h - 1) ? fail(kInvalid) : kOk; }
int hipMemExportToShareableHandle(int* fd, uint64_t h, int type, unsigned long long flags) {
  return type == 1 && !flags ? (*fd = dup((int)h - 1), kOk) : fail(kInvalid);
}
int hipMemImportFromShareableHandle(uint64_t* h, void* os, int type) {
  return type == 1 ? (*h = dup((int)(intptr_t)os) + 1, kOk) : fail(kInvalid);
}
int hipMemAddressReserve(void** p, size_t n, size_t alignment, void* hint, unsigned long long flags) {
  (void)hint, (void)flags;
  if (alignment != kGranularity) return fail(kInvalid);
  char* raw = mmap(NULL, n + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return fail(kNoMemory);
  char* aligned = (char*)(((uintptr_t)raw + alignment - 1) & ~(uintptr_t)(alignment - 1));
  if (aligned > raw) munmap(raw, aligned - raw);
  munmap(aligned + n, raw + alignment - aligned);
  return *p = aligned, kOk;
}
int hipMemAddressFree(void* p, size_t n) { return munmap(p, n) ? fail(kInvalid) : kOk; }
int hipMemMap(void* p, size_t n, size_t offset, uint64_t h, unsigned long long flags) {
  if (offset || flags) return fail(kInvalid);
  return mmap(p, n, PROT_NONE, MAP_SHARED | MAP_FIXED, (int)h - 1, 0) == MAP_FAILED ? fail(kInvalid) : kOk;
}
int hipMemSetAccess(void* p, size_t n, const struct Access* a, size_t count) {
  if (count != 1 || a->where != 1 || a->id != device || a->flags != 3) return fail(kInvalid);
  return mprotect(p, n, PROT_READ | PROT_WRITE) ? fail(kInvalid) : kOk;
}
int hipMemUnmap(void* p, size_t n) {
  return mmap(p, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED
             ? fail(kInvalid)
             : kOk;
}
