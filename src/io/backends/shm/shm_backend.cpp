// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Choosing a way to the peer's memory, and running jobs over it.
#include "src/io/backends/shm/shm_backend.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "src/io/errors.hpp"

namespace mori::io::shm {
namespace {

/// What is claimed at once: small enough that two carriers end together, large enough that claiming costs
/// nothing. It is also how long a cancelled job goes on: 0.05 to 0.5 ms.
Crew::Piece piece_of(const Job& job, Way way) {
  constexpr uint64_t kLeast = 512u << 10, kMost = 2u << 20;
  const uint64_t bytes = std::clamp(job.bytes() / 16 & ~uint64_t{4095}, kLeast, kMost);
  return {way == Way::vm ? kPieceSegments : 256, bytes};
}

// What is measured on a machine of 10 GB/s memory; they only order the ways among themselves and against
// other backends.
struct Estimate {
  double latency_us, bytes_per_second;
};
constexpr Estimate kEstimates[] = {{0.3, 20e9}, {0.4, 19e9}, {2.0, 9e9}};

constexpr std::string_view kAskTracer = "tracer";
constexpr std::string_view kAskFd = "fd:";

Probe random_probe() {
  Probe probe{};
  size_t have = 0;
  while (have < probe.size()) {
    const ssize_t got = getrandom(probe.data() + have, probe.size() - have, 0);
    if (got > 0) have += static_cast<size_t>(got);
    if (got < 0 && errno != EINTR) {
      throw core::TransportError("getrandom: " + std::generic_category().message(errno));
    }
  }
  return probe;
}

uint8_t* pointer(uint64_t address) { return reinterpret_cast<uint8_t*>(address); }

}  // namespace

class ShmBackend::Link : public GatedRoute {
 public:
  Way way = Way::vm;
  std::string engine;
  uint64_t incarnation = 0;
  Remote target;                     ///< vm
  std::unique_ptr<Mapping> mapping;  ///< mapped
  uint8_t* base = nullptr;           ///< own and mapped: the region's first byte, here
  bool writable = true;
};

ShmBackend::ShmBackend(const Host& host, Options options)
    : host_(host),
      options_(options),
      probe_(std::make_unique<Probe>(random_probe())),
      crew_("mori-shm", 1,
            [this](Job& job, std::span<const Segment> piece) { return carry_piece(job, piece); }) {}

ShmBackend::~ShmBackend() = default;

// ---- owner
// -------------------------------------------------------------------------------------------------

std::optional<std::string> ShmBackend::attach(const Region& region) {
  if (region.location != Location::cpu) return std::nullopt;
  Attachment attachment{.region = region.id,
                        .address = region.address,
                        .bytes = region.bytes,
                        .probe_address = reinterpret_cast<uint64_t>(probe_.get()),
                        .probe = *probe_};
  if (std::optional<Backing> backing = find_backing(region.address, region.bytes, &attachment.why)) {
    attachment.fd = backing->fd.get();
    attachment.device = backing->device;
    attachment.inode = backing->inode;
    attachment.offset = backing->offset;
    attachment.writable = backing->writable;
    std::lock_guard<std::mutex> guard(mutex_);
    const auto [place, fresh] = backings_.emplace(region.id, std::move(*backing));
    attachment.fd = place->second.fd.get();  // attached before: that descriptor stays
  }
  return attachment.pack();
}

void ShmBackend::detach(const Region& region) {
  std::lock_guard<std::mutex> guard(mutex_);
  backings_.erase(region.id);
}

std::string ShmBackend::answer(Peer& peer, std::string_view request, std::vector<Fd>& pass) {
  if (!peer.same_host()) throw core::TransportError("shm: for engines on one host");
  if (request == kAskTracer) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (tracer_ != 0 && tracer_ != peer.pid()) {
      throw core::TransportError("shm: the one process that may trace this one is " +
                                 std::to_string(tracer_) + " (engine " + tracer_engine_ + ")");
    }
    if (options_.system->allow_tracer(static_cast<pid_t>(peer.pid())) != 0) {
      throw core::TransportError("shm: PR_SET_PTRACER: " + std::generic_category().message(errno));
    }
    tracer_ = peer.pid();
    tracer_engine_ = peer.engine();
    return "ok";
  }
  uint64_t id = 0;
  RegionKey key{};
  if (request.size() != kAskFd.size() + sizeof id + key.size() || !request.starts_with(kAskFd)) {
    throw core::TransportError("shm: unknown request of " + std::to_string(request.size()) + " bytes");
  }
  memcpy(&id, request.data() + kAskFd.size(), sizeof id);
  memcpy(key.data(), request.data() + kAskFd.size() + sizeof id, key.size());
  if (host_.region(id, key) == nullptr) throw core::TransportError("shm: no such region");
  std::lock_guard<std::mutex> guard(mutex_);
  const auto found = backings_.find(id);
  if (found == backings_.end()) throw core::TransportError("shm: the region is not shared memory");
  Fd copy(fcntl(found->second.fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) throw core::TransportError("shm: dup: " + std::generic_category().message(errno));
  pass.push_back(std::move(copy));
  return "ok";
}

// ---- initiator
// ---------------------------------------------------------------------------------------------

Prepared ShmBackend::prepare(const Region& local, const RemoteRegion& remote, Peer& peer,
                             const std::string& attachment_bytes, Deadline deadline) {
  if (local.location != Location::cpu || remote.location != Location::cpu) {
    return {.reason = "copies between host memories only"};
  }
  if (!peer.same_host()) return {.reason = "the peer is not on this host, or runs as another user"};
  const std::optional<Attachment> attachment = Attachment::unpack(attachment_bytes);
  if (!attachment) return {.reason = "the peer's engine has no shm backend of this version"};
  if (attachment->address != remote.address || attachment->bytes != remote.bytes) {
    return {.reason = "the descriptor and the peer disagree about the memory's address or size"};
  }
  auto link = std::make_shared<Link>();
  link->engine = peer.engine();
  link->incarnation = peer.incarnation();
  link->target = {static_cast<pid_t>(peer.pid()), attachment->probe_address, attachment->probe,
                  remote.address};
  std::string why_not_mapped;
  std::string why_not_vm;
  if (peer.pid() == getpid()) {
    link->way = Way::own;
    link->base = pointer(remote.address);
  } else if ((link->mapping = map(*attachment, remote, peer, deadline, &why_not_mapped)) != nullptr) {
    link->way = Way::mapped;
    link->base = link->mapping->data();
    link->writable = link->mapping->writable();
  } else if (reach(link->target, peer, deadline, &why_not_vm)) {
    link->way = Way::vm;
  } else {
    return {.reason = why_not_mapped + "; " + why_not_vm};
  }
  keep(link);
  const Estimate& estimate = kEstimates[static_cast<int>(link->way)];
  return {.route = link,
          .latency_us = estimate.latency_us,
          .bytes_per_second = estimate.bytes_per_second,
          .reason = link->way == Way::vm ? "process_vm, since " + why_not_mapped : ""};
}

std::unique_ptr<Mapping> ShmBackend::map(const Attachment& attachment, const RemoteRegion& remote, Peer& peer,
                                         Deadline deadline, std::string* why) {
  if (!options_.map) {
    *why = "mapping is switched off";
    return nullptr;
  }
  if (attachment.fd < 0) {
    *why = attachment.why;
    return nullptr;
  }
  try {
    const int flags = attachment.writable ? O_RDWR : O_RDONLY;
    Fd fd(options_.system->open_fd(static_cast<pid_t>(peer.pid()), attachment.fd, flags));
    if (!fd) {  // /proc hides or forbids it: let the owner pass it
      std::string request(kAskFd);
      request.append(reinterpret_cast<const char*>(&remote.id), sizeof remote.id);
      request.append(reinterpret_cast<const char*>(remote.key.data()), remote.key.size());
      std::vector<Fd> passed;
      peer.ask(name(), request, deadline, &passed);
      if (passed.size() != 1) throw core::TransportError("the peer passed no descriptor");
      fd = std::move(passed[0]);
    }
    return std::make_unique<Mapping>(fd, attachment);
  } catch (const core::TransportError& error) {
    *why = error.what();
    return nullptr;
  }
}

bool ShmBackend::reach(const Remote& target, Peer& peer, Deadline deadline, std::string* why) {
  if (!options_.process_vm) {
    *why = "process_vm is switched off";
    return false;
  }
  int error = check_alive(*options_.system, target);
  std::string refusal;
  if (error == EPERM) {  // under yama the owner can name who may
    try {
      peer.ask(name(), kAskTracer, deadline);
      error = check_alive(*options_.system, target);
    } catch (const core::TransportError& words) {
      refusal = std::string("; ") + words.what();
    }
  }
  if (error != 0) *why = explain_refusal(error) + refusal;
  return error == 0;
}

void ShmBackend::keep(const std::shared_ptr<Link>& link) {
  std::lock_guard<std::mutex> guard(mutex_);
  std::erase_if(links_, [](const auto& weak) { return weak.expired(); });
  links_.push_back(link);
}

void ShmBackend::submit(JobPtr job) {
  Link& link = static_cast<Link&>(job->route());
  if (!link.gate.enter()) {
    job->finish(closed_outcome(link.gate.why(), all_segments(*job)));
    return;
  }
  if (job->op() == Op::write && !link.writable) {
    const std::shared_ptr<GatedRoute> alive = link.shared_from_this();
    job->finish({.code = StatusCode::err_denied,
                 .message = "the peer's memory is read-only",
                 .unfinished = all_segments(*job)});
    alive->gate.leave();
    return;
  }
  const size_t way = static_cast<size_t>(link.way);
  jobs_[way].fetch_add(1, std::memory_order_relaxed);
  bytes_[way].fetch_add(job->bytes(), std::memory_order_relaxed);
  const Crew::Piece piece = piece_of(*job, link.way);
  if (job->bytes() <= options_.inline_bytes) {
    crew_.run(*job, piece);
  } else {
    queued_.fetch_add(1, std::memory_order_relaxed);
    crew_.submit(std::move(job), piece);
  }
}

bool ShmBackend::help(Job& job) { return crew_.help(job); }

Outcome ShmBackend::carry_piece(Job& job, std::span<const Segment> piece) {
  const Link& link = static_cast<const Link&>(job.route());
  uint8_t* const local = pointer(job.local().address);
  if (link.way == Way::vm) return carry(*options_.system, link.target, job.op(), local, piece);
  copy_segments(options_.copy.value_or(choose_copy(job.bytes())), job.op(), local, link.base, piece);
  return {};
}

void ShmBackend::revoke(Route& route) {
  Link& link = static_cast<Link&>(route);
  link.gate.close(StatusCode::err_not_found);
  link.gate.drain();
  link.mapping.reset();
}

void ShmBackend::lost(Peer& peer) {
  std::vector<std::shared_ptr<Link>> ended;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    for (const auto& weak : links_) {
      auto link = weak.lock();
      if (link && link->engine == peer.engine() && link->incarnation == peer.incarnation()) {
        ended.push_back(std::move(link));
      }
    }
    if (tracer_engine_ == peer.engine()) {
      tracer_ = 0;
      tracer_engine_.clear();
    }
  }
  for (const auto& link : ended) link->gate.close(StatusCode::err_peer_lost);
}

std::vector<std::pair<std::string, double>> ShmBackend::counters() const {
  static constexpr const char* kNames[] = {"own", "mapped", "vm"};
  std::vector<std::pair<std::string, double>> all;
  for (size_t way = 0; way < 3; ++way) {
    all.emplace_back(std::string("jobs_") + kNames[way], static_cast<double>(jobs_[way].load()));
    all.emplace_back(std::string("bytes_") + kNames[way], static_cast<double>(bytes_[way].load()));
  }
  all.emplace_back("jobs_queued", static_cast<double>(queued_.load()));
  std::lock_guard<std::mutex> guard(mutex_);
  all.emplace_back("routes", static_cast<double>(std::ranges::count_if(links_, [](const auto& weak) {
                     const auto link = weak.lock();
                     return link != nullptr && !link->gate.closed();
                   })));
  all.emplace_back("attached", static_cast<double>(backings_.size()));
  return all;
}

}  // namespace mori::io::shm
