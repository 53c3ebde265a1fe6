// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What carries bytes. A backend is a folder under backends/ and a row in the table of engine.cpp; adding one
// touches nothing else. First what the engine offers a backend (Peer, Job, Host), then what a backend
// implements.
//
//   registration  attach() -> bytes that a peer gets after it proved that it knows the region's key
//   first use     prepare(): the initiator's backend opens the peer's region with those bytes, or says why it
//   cannot per transfer  submit() -> Job::finish() exactly once, from any thread end           revoke() at
//   the initiators, then detach() at the owner
#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "src/io/fd.hpp"
#include "src/io/types.hpp"

namespace mori::io {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;  ///< Deadline::max() = none

/// A TCP socket between the two backends of a pair, both ends authenticated: for payload (tcp). The keys are
/// fresh per stream and direction, for MACs of frames that must not be forged; nothing protects other bytes.
struct Stream {
  Fd fd;  ///< non-blocking, TCP_NODELAY
  std::array<uint8_t, 16> send_key{};
  std::array<uint8_t, 16> receive_key{};
};

/// Another engine, reached over an authenticated control connection. Outlives every job to it.
/// Every call may come from any thread; ask() must not be called from answer() or told() (they run on the
/// control thread).
class Peer {
 public:
  virtual ~Peer() = default;
  virtual const std::string& engine() const = 0;  ///< its key
  virtual uint64_t incarnation() const = 0;       ///< random, another one after a restart
  /// Both run under one kernel, one pid namespace and one user: found by a probe, not by host names.
  virtual bool same_host() const = 0;
  virtual int64_t pid() const = 0;                 ///< as seen from here, verified; -1 unless same_host()
  virtual const std::string& address() const = 0;  ///< numeric IP of the control connection
  /// One message to the backend of the same name at the peer, and its answer. At most 1 MiB each way.
  /// Throws TimeoutError at the deadline, PeerLost when the connection breaks, TransportError with the peer's
  /// words when it refuses.
  /// `fds` takes the file descriptors that come with the answer (same_host() only, at most 16).
  virtual std::string ask(std::string_view backend, std::string_view request, Deadline deadline,
                          std::vector<Fd>* fds = nullptr) = 0;
  /// One message without an answer, in order with the others. False: the connection is down.
  virtual bool tell(std::string_view backend, std::string_view message) = 0;
  /// One more socket to the peer; its other end goes to accepted() of the backend of the same name there.
  /// Throws as ask().
  virtual Stream open_stream(std::string_view backend, Deadline deadline) = 0;
};

/// A transfer's share that one backend carries. The memories stay registered until finish() was called.
class Job {
 public:
  virtual ~Job() = default;
  virtual Op op() const = 0;
  virtual const Region& local() const = 0;
  virtual const RemoteRegion& remote() const = 0;
  virtual Peer& peer() const = 0;
  /// What prepare() returned for this pair.
  virtual class Route& route() const = 0;
  /// Inside both memories, no zero sizes, ascending in `remote`, neighbours merged. Of one GPU at most on
  /// each side.
  virtual std::span<const Segment> segments() const = 0;
  virtual uint64_t bytes() const = 0;
  virtual Deadline deadline() const = 0;
  /// True once the caller cancelled or the deadline passed: stop at the next chunk, make sure that nothing of
  /// it can be written any more, then finish() with what is unfinished (the engine chooses between cancelled
  /// and timed out).
  virtual bool stopping() const = 0;
  /// For progress and metrics: bytes confirmed since the last call. Optional, at most once per MiB.
  virtual void progressed(uint64_t bytes) = 0;
  /// Exactly once.
  virtual void finish(Outcome outcome) = 0;
};
using JobPtr = std::shared_ptr<Job>;

/// What a backend keeps for a pair (peer, remote region): mappings, queue pairs, keys. Shared by the pair's
/// jobs.
class Route {
 public:
  virtual ~Route() = default;
};

/// What prepare() found. Without a route, `reason` is shown to the user (`engine.explain()`).
struct Prepared {
  std::shared_ptr<Route> route{};
  /// Estimates for choosing: fixed cost of a transfer, and bytes per second.
  double latency_us = 0;
  double bytes_per_second = 0;
  std::string reason{};
};

/// What a backend may ask of its engine.
class Host {
 public:
  virtual ~Host() = default;
  /// The registered region, or null: for backends whose target side moves bytes (tcp). Holding the pointer
  /// keeps a deregistration waiting, so hold it for one frame only.
  virtual std::shared_ptr<const Region> region(uint64_t id, const RegionKey& key) const = 0;
  virtual const std::string& engine() const = 0;
  virtual uint64_t incarnation() const = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;  ///< every job is finished before
  virtual std::string_view name() const = 0;

  // ---- owner of the memory
  // -------------------------------------------------------------------------------------
  /// What an initiator needs to reach the region through this backend, or nothing when it cannot. Called at
  /// registration if eager_attach(), else when the first peer asks. Throws TransportError when something that
  /// should work fails.
  virtual std::optional<std::string> attach(const Region& region) = 0;
  /// Pinning that takes long belongs to registration, not to the first transfer.
  virtual bool eager_attach() const { return false; }
  /// No initiator uses the region any more.
  virtual void detach(const Region&) {}
  /// A message of the peer's backend (control thread: do not block). Throwing sends the words back. What is
  /// put into `pass` goes with the answer as file descriptors (same_host() only, at most 16) and is closed
  /// here.
  virtual std::string answer(Peer&, std::string_view /*request*/, std::vector<Fd>& /*pass*/) { return {}; }
  virtual void told(Peer&, std::string_view /*message*/) {}
  /// The other end of a peer's open_stream() (control thread).
  virtual void accepted(Peer&, Stream) {}

  // ---- initiator
  // -----------------------------------------------------------------------------------------------
  /// Whether and how this backend reaches `remote` with `local`'s kind of memory. `attachment` is what
  /// attach() gave at the peer, empty when it gave nothing. May block until `deadline`; never called on the
  /// control thread. Routes are cached by the engine.
  virtual Prepared prepare(const Region& local, const RemoteRegion& remote, Peer& peer,
                           const std::string& attachment, Deadline deadline) = 0;
  /// Starts a job. Does not wait for room: what does not fit is queued here. May finish it before returning
  /// when that takes less than handing it over.
  virtual void submit(JobPtr job) = 0;
  /// The calling thread waits for this job and lends itself: run it, or part of it, here. False: it cannot
  /// help.
  virtual bool help(Job&) { return false; }
  /// stopping() of the job has become true: look at it soon. Must not block.
  virtual void nudge(Job&) {}
  /// The region is going away, or its engine is: finish the jobs that use this route (reroutable = false) and
  /// forget it. Returns when nothing of it can be written any more. May block.
  virtual void revoke(Route&) {}
  /// The control connection to the peer broke or it restarted. Jobs in flight end as PeerLost unless the
  /// backend knows better.
  virtual void lost(Peer&) {}
  /// Numbers for metrics(): name -> value, monotone counters and gauges.
  virtual std::vector<std::pair<std::string, double>> counters() const { return {}; }
};

}  // namespace mori::io
