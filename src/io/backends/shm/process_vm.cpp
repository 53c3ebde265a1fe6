// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Filling iovecs, and what partial and failed calls mean.
#include "src/io/backends/shm/process_vm.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <vector>

namespace mori::io::shm {
namespace {

int open_proc_fd(pid_t pid, int fd, int flags) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
  return open(path.c_str(), flags | O_CLOEXEC);
}

int allow_tracer(pid_t pid) { return prctl(PR_SET_PTRACER, pid, 0, 0, 0); }

/// Appends a range, joined with the one before where they touch.
void append(std::vector<iovec>& list, uint8_t* base, uint64_t bytes) {
  if (!list.empty() && static_cast<uint8_t*>(list.back().iov_base) + list.back().iov_len == base) {
    list.back().iov_len += bytes;
  } else {
    list.push_back({base, bytes});
  }
}

/// Removes the first `bytes` from a list of segments.
void drop_front(std::vector<Segment>& segments, uint64_t bytes) {
  size_t whole = 0;
  while (whole < segments.size() && bytes >= segments[whole].bytes) bytes -= segments[whole++].bytes;
  segments.erase(segments.begin(), segments.begin() + static_cast<ptrdiff_t>(whole));
  if (bytes > 0) {
    Segment& first = segments.front();
    first = {first.local + bytes, first.remote + bytes, first.bytes - bytes};
  }
}

Outcome failure(int error, const Remote& remote, std::vector<Segment> unfinished) {
  Outcome outcome{.unfinished = std::move(unfinished)};
  const std::string who = "process " + std::to_string(remote.pid);
  switch (error) {
    case ESRCH:
      outcome.code = StatusCode::err_peer_lost;
      outcome.message = who + " of the peer is gone";
      break;
    case EFAULT:
      outcome.code = StatusCode::err_not_found;
      outcome.message = who + ": part of the registered memory, there or here, is not mapped for this access";
      break;
    default:
      outcome.code = StatusCode::err_transport;
      outcome.message = who + ": process_vm: " + std::generic_category().message(error);
      outcome.reroutable = true;
  }
  return outcome;
}

}  // namespace

const System& real_system() {
  static constexpr System system{::process_vm_readv, ::process_vm_writev, open_proc_fd, allow_tracer};
  return system;
}

int check_alive(const System& system, const Remote& remote) {
  Probe seen{};
  const iovec here{seen.data(), seen.size()};
  const iovec there{reinterpret_cast<void*>(remote.probe_address), seen.size()};
  const ssize_t got = system.read(remote.pid, &here, 1, &there, 1, 0);
  if (got < 0 && errno != EFAULT) return errno;
  return got == static_cast<ssize_t>(seen.size()) && seen == remote.probe ? 0 : ESRCH;
}

Outcome carry(const System& system, const Remote& remote, Op op, uint8_t* local,
              std::span<const Segment> segments) {
  std::vector<iovec> here;
  std::vector<iovec> there;
  here.reserve(segments.size() + 1);
  there.reserve(segments.size() + 1);
  std::vector<Segment> rest;  // empty until a call was partial
  uint8_t* const base = reinterpret_cast<uint8_t*>(remote.address);
  for (;;) {
    const std::span<const Segment> left = rest.empty() ? segments : std::span<const Segment>(rest);
    // A read brings the probe along, in front of the bytes; a write must know before it begins.
    Probe seen{};
    const uint64_t extra = op == Op::read ? seen.size() : 0;
    here.clear();
    there.clear();
    int error = 0;
    if (op == Op::read) {
      here.push_back({seen.data(), seen.size()});
      there.push_back({reinterpret_cast<void*>(remote.probe_address), seen.size()});
    } else {
      error = check_alive(system, remote);
    }
    if (error != 0) return failure(error, remote, {left.begin(), left.end()});
    uint64_t bytes = extra;
    for (const Segment& s : left) {
      append(here, local + s.local, s.bytes);
      append(there, base + s.remote, s.bytes);
      bytes += s.bytes;
    }
    const auto call = op == Op::write ? system.write : system.read;
    const ssize_t done = call(remote.pid, here.data(), here.size(), there.data(), there.size(), 0);
    if (done < 0) {
      error = errno;
      if (error == EFAULT && op == Op::read && check_alive(system, remote) != 0) error = ESRCH;
    } else if (op == Op::read && seen != remote.probe) {
      error = ESRCH;
    }
    if (error != 0) return failure(error, remote, {left.begin(), left.end()});
    if (done == static_cast<ssize_t>(bytes)) return {};
    if (rest.empty()) rest.assign(segments.begin(), segments.end());
    const uint64_t moved = static_cast<uint64_t>(done) - std::min(extra, static_cast<uint64_t>(done));
    if (moved == 0) return failure(EFAULT, remote, std::move(rest));
    drop_front(rest, moved);
  }
}

std::string explain_refusal(int error) {
  const std::string why = std::generic_category().message(error);
  if (error == ENOSYS) return "process_vm_readv does not exist here (" + why + ")";
  if (error == EPERM || error == EACCES) {
    return "process_vm_readv is not permitted (" + why +
           "): kernel.yama.ptrace_scope or the container's seccomp profile forbids it";
  }
  if (error == ESRCH) return "the peer's process did not answer the probe";
  return "process_vm_readv fails: " + why;
}

}  // namespace mori::io::shm
