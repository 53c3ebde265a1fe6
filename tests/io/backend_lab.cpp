// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One backend without an engine, for ctypes (backend_lab.py): the peer, the host and the jobs are made here.
// System calls can be forbidden, cut short or slowed down by lab_faults().
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "src/io/backends/file/file_backend.hpp"
#include "src/io/backends/shm/shared_memory.hpp"
#include "src/io/backends/shm/shm_backend.hpp"
#include "src/io/errors.hpp"

using namespace mori::io;

namespace {

struct Faults {
  std::atomic<int> vm_errno{0};      // process_vm fails with this
  std::atomic<int64_t> vm_bytes{0};  // process_vm copies at most so much a call
  std::atomic<int> open_errno{0};    // opening a peer's descriptor fails with this
  std::atomic<int> needs_tracer{0};  // process_vm is EPERM until allow_tracer() was called
  std::atomic<int> vm_delay_us{0};   // before each call
  std::atomic<int64_t> tracer{0};
} faults;

ssize_t cut(decltype(&process_vm_readv) call, pid_t pid, const iovec* here, unsigned long n,
            const iovec* there, unsigned long m, unsigned long flags) {
  if (faults.vm_delay_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(faults.vm_delay_us));
  if (faults.needs_tracer && faults.tracer == 0) return errno = EPERM, -1;
  if (faults.vm_errno != 0) return errno = faults.vm_errno, -1;
  const int64_t limit = faults.vm_bytes;
  if (limit == 0) return call(pid, here, n, there, m, flags);
  std::vector<iovec> list(here, here + n);
  uint64_t left = std::max<uint64_t>(static_cast<uint64_t>(limit), 16);  // probes stay whole
  for (iovec& one : list) {
    one.iov_len = std::min<uint64_t>(one.iov_len, left);
    left -= one.iov_len;
  }
  return call(pid, list.data(), n, there, m, flags);
}

const shm::System kSystem{[](pid_t pid, const iovec* a, unsigned long n, const iovec* b, unsigned long m,
                             unsigned long f) { return cut(::process_vm_readv, pid, a, n, b, m, f); },
                          [](pid_t pid, const iovec* a, unsigned long n, const iovec* b, unsigned long m,
                             unsigned long f) { return cut(::process_vm_writev, pid, a, n, b, m, f); },
                          [](pid_t pid, int fd, int flags) {
                            return faults.open_errno != 0 ? (errno = faults.open_errno, -1)
                                                          : shm::real_system().open_fd(pid, fd, flags);
                          },
                          [](pid_t pid) {
                            faults.tracer = pid;
                            return 0;
                          }};

struct FileFaults {
  std::atomic<int> error{0};  // what every call but the first `after` ends with
  std::atomic<int> after{0};
  std::atomic<int> only_direct{0};  // the others work
  std::atomic<int64_t> most{0};     // bytes that a call claims to have moved, if it moved more
  std::atomic<int> delay_us{0};
} file_faults;

/// A short result is true: what follows was moved, too, and is moved once more.
int32_t file_result(bool, bool direct, int32_t result) {
  if (file_faults.delay_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(file_faults.delay_us));
  if (file_faults.error != 0 && (direct || !file_faults.only_direct) && file_faults.after-- <= 0) {
    return -file_faults.error;
  }
  const int64_t most = file_faults.most;
  return most > 0 && result > most ? static_cast<int32_t>(most) : result;
}

/// A "GPU" whose memory is host memory with every bit turned round, so that a copy past it is seen.
struct PretendedChunks : file::DeviceChunks {
  std::atomic<int> out{0}, failing{0};
  struct PretendedChunk : Chunk {
    PretendedChunk(PretendedChunks* o, uint64_t a) : owner(o), address(a), memory(kBytes + 64) {}
    ~PretendedChunk() override { --owner->out; }
    uint8_t* data() override { return memory.data() + 1; }  // not aligned
    void move(uint8_t* to, const uint8_t* from, uint64_t bytes) {
      if (owner->failing) throw mori::core::TransportError("the pretended GPU failed");
      for (uint64_t i = 0; i < bytes; ++i) to[i] = static_cast<uint8_t>(~from[i]);
    }
    void fetch(uint64_t offset, uint64_t bytes) override {
      move(data(), reinterpret_cast<const uint8_t*>(address + offset), bytes);
    }
    void store(uint64_t offset, uint64_t bytes) override {
      move(reinterpret_cast<uint8_t*>(address + offset), data(), bytes);
    }
    PretendedChunks* owner;
    uint64_t address;
    std::vector<uint8_t> memory;
  };
  std::unique_ptr<Chunk> take(const Region& region) override {
    if (++out > 1) return --out, nullptr;  // one is enough to make threads wait
    return std::make_unique<PretendedChunk>(this, region.address);
  }
};
const auto pretended = std::make_shared<PretendedChunks>();

struct TestHost : Host {
  std::map<uint64_t, std::shared_ptr<const Region>> regions;
  std::string key = "lab";
  std::shared_ptr<const Region> region(uint64_t id, const RegionKey& wanted) const override {
    const auto found = regions.find(id);
    return found != regions.end() && found->second->key == wanted ? found->second : nullptr;
  }
  const std::string& engine() const override { return key; }
  uint64_t incarnation() const override { return 7; }
};

struct Lab {
  TestHost host;
  std::unique_ptr<Backend> backend;
};

struct TestPeer : Peer {
  Lab* owner = nullptr;  // who answers, if anybody
  int64_t pid_ = -1;
  bool same_host_ = true;
  std::string key = "peer", where = "127.0.0.1";
  const std::string& engine() const override { return key; }
  uint64_t incarnation() const override { return 9; }
  bool same_host() const override { return same_host_; }
  int64_t pid() const override { return pid_; }
  const std::string& address() const override { return where; }
  std::string ask(std::string_view, std::string_view request, Deadline, std::vector<Fd>* fds) override {
    if (owner == nullptr) throw PeerLost("nobody answers");
    std::vector<Fd> passed;
    TestPeer asking;
    asking.pid_ = getpid();
    asking.key = "initiator";
    std::string reply = owner->backend->answer(asking, request, passed);
    if (fds != nullptr) *fds = std::move(passed);
    return reply;
  }
  bool tell(std::string_view, std::string_view) override { return false; }
  Stream open_stream(std::string_view, Deadline) override { throw PeerLost("no streams here"); }
};

struct Pair {  // a route and what belongs to it
  TestPeer peer;
  Region local;
  RemoteRegion remote;
  std::shared_ptr<Route> route;
};

struct TestJob : Job {
  Op op_{};
  std::shared_ptr<Pair> pair;
  std::vector<Segment> list;
  uint64_t total = 0;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> progress{0};
  std::mutex mutex;
  std::condition_variable done;
  int finishes = 0;
  Outcome outcome;
  Op op() const override { return op_; }
  const Region& local() const override { return pair->local; }
  const RemoteRegion& remote() const override { return pair->remote; }
  Peer& peer() const override { return pair->peer; }
  Route& route() const override { return *pair->route; }
  std::span<const Segment> segments() const override { return list; }
  uint64_t bytes() const override { return total; }
  Deadline deadline() const override { return Deadline::max(); }
  bool stopping() const override { return stop; }
  void progressed(uint64_t bytes) override { progress += bytes; }
  void finish(Outcome end) override {
    std::lock_guard<std::mutex> guard(mutex);
    ++finishes;
    outcome = std::move(end);
    done.notify_all();
  }
};

int64_t copy_out(const std::string& text, char* out, uint64_t capacity) {
  if (out != nullptr && capacity > 0) {
    const size_t part = std::min<size_t>(text.size(), capacity);
    memcpy(out, text.data(), part);
  }
  return static_cast<int64_t>(text.size());
}

Region make_region(uint64_t id, int location, uint64_t address, uint64_t bytes, int fd, const char* path) {
  Region region{.id = id,
                .location = static_cast<Location>(location),
                .address = address,
                .bytes = bytes,
                .fd = fd,
                .path = path};
  region.key.fill(static_cast<uint8_t>(id));
  return region;
}

}  // namespace

extern "C" {

void lab_faults(int vm_errno, int64_t vm_bytes, int open_errno, int needs_tracer, int vm_delay_us) {
  faults.vm_errno = vm_errno;
  faults.vm_bytes = vm_bytes;
  faults.open_errno = open_errno;
  faults.needs_tracer = needs_tracer;
  faults.vm_delay_us = vm_delay_us;
  faults.tracer = 0;
}

Lab* lab_shm(int map, int process_vm, uint64_t inline_bytes, int copy) {
  auto* lab = new Lab;
  shm::Options options{.map = map != 0,
                       .process_vm = process_vm != 0,
                       .inline_bytes = inline_bytes,
                       .copy = std::nullopt,
                       .system = &kSystem};
  if (copy >= 0) options.copy = static_cast<shm::Copy>(copy);
  lab->backend = std::make_unique<shm::ShmBackend>(lab->host, options);
  return lab;
}
Lab* lab_file(int io_uring, uint64_t threads, uint32_t depth, uint64_t block_bytes, int filter, int gpu) {
  auto* lab = new Lab;
  file::Options options{.io_uring = io_uring != 0, .threads = threads, .lane = {}, .device = nullptr};
  options.lane = {.depth = depth, .block_bytes = block_bytes, .filter = filter ? file_result : nullptr};
  if (gpu) options.device = pretended;
  lab->backend = std::make_unique<file::FileBackend>(lab->host, options);
  return lab;
}
void lab_file_faults(int error, int after, int only_direct, int64_t most, int delay_us, int gpu) {
  file_faults.error = error;
  file_faults.after = after;
  file_faults.only_direct = only_direct;
  file_faults.most = most;
  file_faults.delay_us = delay_us;
  pretended->failing = gpu;
}
/// A descriptor, or -1 with the words in `why`.
int file_open(const char* path, int64_t bytes, int writable, int direct, int durable, uint64_t* size,
              char* why, uint64_t capacity) {
  try {
    std::optional<uint64_t> wanted;
    if (bytes != -1) wanted = static_cast<uint64_t>(bytes);
    std::optional<bool> wish;
    if (direct >= 0) wish = direct != 0;
    file::Opened opened = file::open_file(path, wanted, writable != 0, wish, durable != 0);
    *size = opened.bytes;
    copy_out(opened.path + '\0', why, capacity);
    return opened.fd.release();
  } catch (const std::exception& error) {
    copy_out(std::string(error.what()) + '\0', why, capacity);
    return -1;
  }
}
int file_move(int fd, int write, uint64_t offset, uint8_t* memory, uint64_t bytes, char* why,
              uint64_t capacity) {
  try {
    write ? file::write_at(fd, offset, {memory, bytes}) : file::read_at(fd, offset, {memory, bytes});
    return 0;
  } catch (const std::exception& error) {
    copy_out(std::string(error.what()) + '\0', why, capacity);
    return -1;
  }
}
void lab_free(Lab* lab) { delete lab; }

/// The attachment's size, -1: none, -2: it threw (the words are in `out`).
int64_t lab_attach(Lab* lab, uint64_t id, int location, uint64_t address, uint64_t bytes, int fd,
                   const char* path, char* out, uint64_t capacity) {
  auto region = std::make_shared<Region>(make_region(id, location, address, bytes, fd, path));
  lab->host.regions[id] = region;
  try {
    const auto attachment = lab->backend->attach(*region);
    return attachment ? copy_out(*attachment, out, capacity) : -1;
  } catch (const std::exception& error) {
    copy_out(std::string(error.what()) + '\0', out, capacity);
    return -2;
  }
}
void lab_detach(Lab* lab, uint64_t id) {
  lab->backend->detach(*lab->host.regions.at(id));
  lab->host.regions.erase(id);
}

std::shared_ptr<Pair>* lab_prepare(Lab* lab, Lab* owner, int64_t pid, int same_host, int local_location,
                                   uint64_t local, uint64_t local_bytes, int local_fd, uint64_t id,
                                   int location, uint64_t address, uint64_t bytes, const char* attachment,
                                   uint64_t attachment_bytes, char* reason, uint64_t capacity) {
  auto pair = std::make_shared<Pair>();
  pair->peer.owner = owner;
  pair->peer.pid_ = pid;
  pair->peer.same_host_ = same_host != 0;
  pair->local = make_region(1000, local_location, local, local_bytes, local_fd, "");
  pair->remote = {.engine = "peer",
                  .incarnation = 9,
                  .id = id,
                  .location = static_cast<Location>(location),
                  .device_bus_id = "",
                  .address = address,
                  .bytes = bytes};
  pair->remote.key.fill(static_cast<uint8_t>(id));
  Prepared prepared = lab->backend->prepare(pair->local, pair->remote, pair->peer,
                                            std::string(attachment, attachment_bytes), Deadline::max());
  copy_out(prepared.reason + '\0', reason, capacity);
  pair->route = prepared.route;
  return prepared.route ? new std::shared_ptr<Pair>(std::move(pair)) : nullptr;
}
void lab_revoke(Lab* lab, std::shared_ptr<Pair>* pair) { lab->backend->revoke(*(*pair)->route); }
void lab_lost(Lab* lab, std::shared_ptr<Pair>* pair) { lab->backend->lost((*pair)->peer); }
void pair_free(std::shared_ptr<Pair>* pair) { delete pair; }

std::shared_ptr<TestJob>* lab_submit(Lab* lab, std::shared_ptr<Pair>* pair, int write,
                                     const uint64_t* segments, uint64_t count, int stopped) {
  auto job = std::make_shared<TestJob>();
  job->op_ = write ? Op::write : Op::read;
  job->pair = *pair;
  job->list.resize(count);
  if (count > 0) memcpy(static_cast<void*>(job->list.data()), segments, count * sizeof(Segment));
  for (const Segment& s : job->list) job->total += s.bytes;
  job->stop = stopped != 0;
  auto* handle = new std::shared_ptr<TestJob>(job);
  lab->backend->submit(std::move(job));
  return handle;
}
int lab_help(Lab* lab, std::shared_ptr<TestJob>* job) { return lab->backend->help(**job); }
void lab_stop(Lab* lab, std::shared_ptr<TestJob>* job) {
  (*job)->stop = true;
  lab->backend->nudge(**job);
}
/// The status code, or -1 after the time-out.
int job_wait(std::shared_ptr<TestJob>* job, double seconds) {
  TestJob& one = **job;
  std::unique_lock<std::mutex> lock(one.mutex);
  if (!one.done.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return one.finishes > 0; }))
    return -1;
  return static_cast<int>(one.outcome.code);
}
int job_finishes(std::shared_ptr<TestJob>* job) { return (*job)->finishes; }
uint64_t job_progress(std::shared_ptr<TestJob>* job) { return (*job)->progress; }
int job_reroutable(std::shared_ptr<TestJob>* job) { return (*job)->outcome.reroutable; }
int64_t job_message(std::shared_ptr<TestJob>* job, char* out, uint64_t capacity) {
  return copy_out((*job)->outcome.message, out, capacity);
}
int64_t job_unfinished(std::shared_ptr<TestJob>* job, char* out, uint64_t capacity) {
  const auto& list = (*job)->outcome.unfinished;
  return copy_out(std::string(reinterpret_cast<const char*>(list.data()), list.size() * sizeof(Segment)), out,
                  capacity);
}
void job_free(std::shared_ptr<TestJob>* job) { delete job; }

double lab_counter(Lab* lab, const char* name) {
  for (const auto& [key, value] : lab->backend->counters()) {
    if (key == name) return value;
  }
  return -1;
}

std::shared_ptr<SharedMemory>* memory_new(uint64_t bytes, int prefault, char* why, uint64_t capacity) {
  try {
    return new std::shared_ptr<SharedMemory>(SharedMemory::create(bytes, prefault != 0));
  } catch (const std::exception& error) {
    copy_out(std::string(error.what()) + '\0', why, capacity);
    return nullptr;
  }
}
uint64_t memory_address(std::shared_ptr<SharedMemory>* memory) { return (*memory)->address(); }
int memory_fd(std::shared_ptr<SharedMemory>* memory) { return (*memory)->fd(); }
void memory_free(std::shared_ptr<SharedMemory>* memory) { delete memory; }
}
