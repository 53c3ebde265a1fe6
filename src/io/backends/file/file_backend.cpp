// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Reaching a file, and choosing who carries a job.
#include "src/io/backends/file/file_backend.hpp"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "src/io/errors.hpp"

namespace mori::io::file {
namespace {

constexpr std::string_view kAskFd = "fd:";
/// Reads up to here are tried at once from the page cache.
constexpr uint64_t kCachedBytes = 256u << 10;
constexpr size_t kCachedSegments = 64;

std::string last_error() { return std::generic_category().message(errno); }

}  // namespace

FileBackend::FileBackend(const Host& host, Options options)
    : host_(host),
      options_(std::move(options)),
      sync_(options_.lane, options_.threads, lane_counters_, options_.device) {
  if (options_.lane.depth == 0 || options_.lane.block_bytes == 0 || options_.lane.block_bytes % 4096 != 0) {
    throw core::ConfigError("file: depth=" + std::to_string(options_.lane.depth) +
                            " must be positive, block_bytes=" + std::to_string(options_.lane.block_bytes) +
                            " a positive multiple of 4096");
  }
}

FileBackend::~FileBackend() = default;

std::optional<std::string> FileBackend::attach(const Region& region) {
  if (region.location != Location::file) return std::nullopt;
  return Attachment::of(region).pack();
}

std::string FileBackend::answer(Peer& peer, std::string_view request, std::vector<Fd>& pass) {
  uint64_t id = 0;
  RegionKey key{};
  if (!peer.same_host()) throw core::TransportError("file: for engines on one host");
  if (request.size() != kAskFd.size() + sizeof id + key.size() || !request.starts_with(kAskFd)) {
    throw core::TransportError("file: unknown request of " + std::to_string(request.size()) + " bytes");
  }
  memcpy(&id, request.data() + kAskFd.size(), sizeof id);
  memcpy(key.data(), request.data() + kAskFd.size() + sizeof id, key.size());
  const auto region = host_.region(id, key);
  if (region == nullptr || region->location != Location::file) {
    throw core::TransportError("file: no such region");
  }
  Fd copy(fcntl(region->fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) throw core::TransportError("file: dup: " + last_error());
  pass.push_back(std::move(copy));
  return "ok";
}

Fd FileBackend::descriptor(const Attachment& attachment, const RemoteRegion& remote, Peer& peer,
                           Deadline deadline) {
  const std::string path = "/proc/" + std::to_string(peer.pid()) + "/fd/" + std::to_string(attachment.fd);
  Fd fd(open(path.c_str(), (attachment.writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK));
  if (fd) return fd;
  std::string request(kAskFd);  // /proc hides or forbids it: let the owner pass it
  request.append(reinterpret_cast<const char*>(&remote.id), sizeof remote.id);
  request.append(reinterpret_cast<const char*>(remote.key.data()), remote.key.size());
  std::vector<Fd> passed;
  peer.ask(name(), request, deadline, &passed);
  if (passed.size() != 1) throw core::TransportError("the owner passed no descriptor");
  return std::move(passed[0]);
}

RingLane* FileBackend::ring() {
  std::lock_guard<std::mutex> guard(mutex_);
  if (!ring_tried_) {
    ring_tried_ = true;
    if (options_.io_uring) {
      ring_ = RingLane::make(options_.lane, lane_counters_, &why_no_ring_);
    } else {
      why_no_ring_ = "io_uring is switched off";
    }
  }
  return ring_.get();
}

Prepared FileBackend::prepare(const Region& local, const RemoteRegion& remote, Peer& peer,
                              const std::string& attachment_bytes, Deadline deadline) {
  if (remote.location != Location::file) {
    return {.reason = local.location == Location::file ? "a file is reached as the remote side of a transfer"
                                                       : "the remote memory is not a file"};
  }
  if (local.location != Location::cpu && !(local.location == Location::gpu && options_.device != nullptr)) {
    return {.reason = "the local memory is not one that files are copied to here"};
  }
  if (!peer.same_host()) return {.reason = "the file's engine is not on this host, or runs as another user"};
  const std::optional<Attachment> attachment = Attachment::unpack(attachment_bytes);
  if (!attachment || attachment->bytes != remote.bytes) {
    return {.reason = "the file's engine has no file backend of this version"};
  }
  std::shared_ptr<FileLink> link;
  try {
    link = std::make_shared<FileLink>(descriptor(*attachment, remote, peer, deadline), *attachment);
  } catch (const core::TransportError& error) {
    return {.reason = error.what()};
  }
  link->engine = peer.engine();
  link->incarnation = peer.incarnation();
  RingLane* const by_ring = ring();
  if (by_ring) link->phases->set_wake([by_ring] { by_ring->nudge(); });
  std::lock_guard<std::mutex> guard(mutex_);
  std::erase_if(links_, [](const auto& weak) { return weak.expired(); });
  for (const auto& weak : links_) {
    const auto other = weak.lock();
    if (other && other->device == link->device && other->inode == link->inode) link->phases = other->phases;
  }
  links_.push_back(link);
  return {.route = link,
          .latency_us = 20,
          .bytes_per_second = 2e9,
          .reason = std::string(link->direct ? "O_DIRECT" : "page cache") +
                    (by_ring ? ", io_uring" : ", threads, since " + why_no_ring_)};
}

void FileBackend::submit(JobPtr job) {
  FileLink& link = static_cast<FileLink&>(job->route());
  if (!link.gate.enter()) {
    job->finish(closed_outcome(link.gate.why(), all_segments(*job)));
    return;
  }
  const std::shared_ptr<GatedRoute> alive = link.shared_from_this();
  if (job->op() == Op::write && !link.writable) {
    job->finish({.code = StatusCode::err_denied,
                 .message = "file region " + std::to_string(job->remote().id) + " is read-only",
                 .unfinished = all_segments(*job)});
    link.gate.leave();
    return;
  }
  const bool write = job->op() == Op::write;
  (write ? jobs_written_ : jobs_read_).fetch_add(1, std::memory_order_relaxed);
  (write ? bytes_written_ : bytes_read_).fetch_add(job->bytes(), std::memory_order_relaxed);
  if (from_cache(*job, link)) {
    cached_.fetch_add(1, std::memory_order_relaxed);
    job->finish({});
    link.gate.leave();
  } else if (RingLane* const lane = job->local().location == Location::cpu ? ring() : nullptr) {
    lane->submit(std::move(job));
  } else {
    sync_.submit(std::move(job));
  }
}

/// A small read whose pages are all in memory costs less than waking a thread.
bool FileBackend::from_cache(Job& job, const FileLink& link) {
  if (job.op() != Op::read || link.direct || job.bytes() > kCachedBytes ||
      job.segments().size() > kCachedSegments || job.local().location != Location::cpu || job.stopping() ||
      options_.lane.filter != nullptr) {
    return false;
  }
  uint8_t* const local = reinterpret_cast<uint8_t*>(job.local().address);
  return std::ranges::all_of(job.segments(), [&](const Segment& s) {
    const iovec memory{local + s.local, s.bytes};
    return preadv2(link.buffered.get(), &memory, 1, static_cast<off_t>(s.remote), RWF_NOWAIT) ==
           static_cast<ssize_t>(s.bytes);
  });
}

bool FileBackend::help(Job& job) { return sync_.help(job); }

void FileBackend::nudge(Job&) {
  std::lock_guard<std::mutex> guard(mutex_);
  if (ring_ != nullptr) ring_->nudge();
}

void FileBackend::revoke(Route& route) {
  FileLink& link = static_cast<FileLink&>(route);
  link.gate.close(StatusCode::err_not_found);
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (ring_ != nullptr) ring_->nudge();
  }
  link.gate.drain();
  link.buffered.reset();
  link.direct.reset();
}

void FileBackend::lost(Peer& peer) {
  std::lock_guard<std::mutex> guard(mutex_);
  for (const auto& weak : links_) {
    const auto link = weak.lock();
    if (link && link->engine == peer.engine() && link->incarnation == peer.incarnation()) {
      link->gate.close(StatusCode::err_peer_lost);
    }
  }
  if (ring_ != nullptr) ring_->nudge();
}

std::vector<std::pair<std::string, double>> FileBackend::counters() const {
  const auto number = [](const std::atomic<uint64_t>& counter) {
    return static_cast<double>(counter.load());
  };
  std::lock_guard<std::mutex> guard(mutex_);
  return {{"jobs_read", number(jobs_read_)},
          {"jobs_written", number(jobs_written_)},
          {"bytes_read", number(bytes_read_)},
          {"bytes_written", number(bytes_written_)},
          {"jobs_from_cache", number(cached_)},
          {"requests_direct", number(lane_counters_.requests_direct)},
          {"requests_buffered", number(lane_counters_.requests_buffered)},
          {"requests_bounced", number(lane_counters_.bounced)},
          {"requests_resumed", number(lane_counters_.resumed)},
          {"io_uring", ring_ != nullptr ? 1.0 : 0.0}};
}

}  // namespace mori::io::file
