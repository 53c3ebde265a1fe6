// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Other engines' memories, from the initiator's side: connecting, opening them, and choosing who carries the
// bytes.
//
//   RemoteEngine   one incarnation of a peer: its address, its connection
//   `- RemotePin     a range that its backends attached; the routes to it, by kind of local memory
//      `- RemoteMemory   what a descriptor names: a part of a pin
//
// Everything is found or made on first use and dropped when the connection breaks or the owner takes the
// memory back; the next use starts over, and is told if the memory is gone.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/control/control.hpp"

namespace mori::io {

/// What routes depend on beside the remote memory.
struct LocalKind {
  Location location;
  int32_t device;
  auto operator<=>(const LocalKind&) const = default;
};

/// What one backend said about a pair, or that it has not been asked.
struct Candidate {
  Backend* backend = nullptr;
  bool asked = false;
  Prepared prepared{};
  uint32_t failures = 0;
  Deadline avoid_until = Deadline::min();  ///< after a failure other backends go first for a while
};

struct RemotePin {
  RemoteRegion region;
  control::Attachments attachments;
  std::set<uint64_t>
      opened_as;  ///< ids of the memories; under the engine's mutex. None left: routes are revoked
  std::mutex mutex;
  /// With the version of the engine's list of backends that they were made for.
  std::map<LocalKind, std::pair<uint64_t, std::vector<Candidate>>> candidates;
};

/// Everything that an attempt needs, held by it.
struct Choice {
  Backend* backend = nullptr;
  std::shared_ptr<Route> route;
  std::shared_ptr<Peer> peer;
  std::shared_ptr<RemotePin> pin;
  uint64_t offset = 0;  ///< of the memory in the pin
};

class RemoteEngine;

class RemoteMemory {
 public:
  RemoteMemory(std::shared_ptr<RemoteEngine> owner, RemoteRegion what)
      : engine(std::move(owner)), region(std::move(what)) {}

  const std::shared_ptr<RemoteEngine> engine;
  const RemoteRegion region;

  struct Opened {
    std::shared_ptr<RemotePin> pin;
    std::shared_ptr<Peer> peer;
    uint64_t offset = 0;
    uint64_t generation = 0;  ///< of the engine's connection
  };

 private:
  friend class RemoteEngine;
  std::mutex mutex_;
  std::optional<Opened> opened_;
};
using RemoteMemoryPtr = std::shared_ptr<RemoteMemory>;

/// What a RemoteEngine needs from its engine.
class RemoteHost {
 public:
  virtual ~RemoteHost() = default;
  virtual std::shared_ptr<Peer> connect(const control::Address& address, Deadline deadline) = 0;
  virtual control::Attachments open(Peer& owner, uint64_t id, const RegionKey& key, uint64_t incarnation,
                                    Deadline deadline) = 0;
  /// In the order of preference.
  virtual std::vector<Backend*> backends() const = 0;
  virtual uint64_t backends_version() const = 0;  ///< not 0; another one when the list changed
};

class RemoteEngine : public std::enable_shared_from_this<RemoteEngine> {
 public:
  RemoteEngine(RemoteHost& host, control::Address address) : host_(host), address_(std::move(address)) {}

  control::Address address() const;
  void move_to(control::Address address);  ///< the same incarnation at another address

  /// Connected now, or throws (PeerLost, TimeoutError, Refused).
  std::shared_ptr<Peer> peer(Deadline deadline);
  std::shared_ptr<Peer> connected() const;  ///< null unless it is

  RemoteMemoryPtr memory(const RemoteRegion& region);

  /// The cheapest way for `bytes` that has not failed, leaving out `without`. Throws Refused, PeerLost,
  /// TimeoutError, and TransportError with every backend's reason when nothing reaches it.
  Choice choose(RemoteMemory& memory, const Region& local, uint64_t bytes,
                const std::vector<Backend*>& without, Deadline deadline);
  /// Asks all backends. Throws as choose(), but not when nothing reaches it.
  std::vector<Candidate> explain(RemoteMemory& memory, const Region& local, Deadline deadline);
  /// The route failed: others go first for a while, and this one is prepared again before it is used.
  void failed(RemotePin& pin, const Region& local, Backend& backend);

  /// Nothing is opened any more: the engine was deregistered here, or another run of it took its place.
  void retire() { retired_.store(true); }
  /// The connection broke: everything opened over it is void.
  void lost();
  /// The owner takes a memory back. Returns the routes to revoke: of its pin, if no other memory uses that.
  std::vector<std::pair<Backend*, std::shared_ptr<Route>>> revoked(uint64_t memory_id);
  /// All routes, to revoke them; everything opened is forgotten.
  std::vector<std::pair<Backend*, std::shared_ptr<Route>>> take_routes();
  /// Those of one backend; the others stay.
  std::vector<std::shared_ptr<Route>> take_routes(Backend* backend);

 private:
  RemoteMemory::Opened open(RemoteMemory& memory, Deadline deadline);
  std::vector<Candidate>& list(RemotePin& pin, const Region& local);  // under the pin's mutex

  RemoteHost& host_;
  mutable std::mutex mutex_;
  std::mutex connecting_;  ///< one connects, the others wait for it
  control::Address address_;
  std::shared_ptr<Peer> peer_;
  std::atomic<bool> retired_{false};
  std::atomic<uint64_t> generation_{1};  // of the connection; changed under mutex_
  std::atomic<uint64_t> revocations_{0};
  std::unordered_map<uint64_t, std::shared_ptr<RemotePin>> pins_;  // by the pin's id
  /// By all that a descriptor says of the range: one that lies must not change what an honest one means.
  std::map<std::tuple<uint64_t, RegionKey, uint64_t, uint64_t>, std::weak_ptr<RemoteMemory>> memories_;
  size_t prune_at_ = 64;
};

/// The entry that an owner adds to a memory's attachments: which pin it is in, and where.
struct PinNote {
  uint64_t id = 0;
  RegionKey key{};
  uint64_t address = 0;
  uint64_t bytes = 0;
  uint64_t offset = 0;
};
inline constexpr char kPinNote[] = "";  ///< its name among the attachments
std::string encode(const PinNote& note);
PinNote decode_pin_note(const std::string& bytes);  ///< throws TransportError

}  // namespace mori::io
