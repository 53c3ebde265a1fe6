// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// All rails from this engine to one peer, and the works that wait for room on them. Guarded by the backend's
// mutex.
#pragma once
#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/io/backends/rdma/rail.hpp"

namespace mori::io::rdma {

/// A pair of NICs that a rail could join. Tried in the order of affinity.
struct Candidate {
  Nic* nic = nullptr;
  NicCard card;
  int affinity = 0;
  Deadline not_before{};  ///< after a failure
  std::string reason;     ///< of the last failure
};

struct Link : std::enable_shared_from_this<Link> {
  explicit Link(Peer& to) : peer(to) {}

  Peer& peer;
  bool connecting = false;  ///< a thread makes rails: one at a time
  std::vector<Candidate> candidates;
  std::vector<std::unique_ptr<Rail>> rails;
  std::unordered_map<Work*, std::unique_ptr<Work>> works;
  std::deque<Work*> ready;  ///< have something to post
  bool lost = false;        ///< for good: a peer that comes back gets another link
  bool repairing = false;
  Deadline next_attempt{};  ///< when a missing rail may be tried again
  std::string broken;       ///< why the last rail failed
  std::string reason;       ///< why none came in its place

  size_t up() const {
    size_t n = 0;
    for (const auto& rail : rails) n += rail->state == Rail::State::up;
    return n;
  }
};

class RdmaRoute final : public Route {
 public:
  RdmaRoute(std::shared_ptr<Link> to, const Attachment& attachment)
      : link(std::move(to)), address(attachment.address) {
    for (const NicCard& card : attachment.nics) keys[card.index] = card.rkey;
  }
  const std::shared_ptr<Link> link;
  const uint64_t address;
  std::array<std::optional<uint32_t>, kMaxNics> keys;  ///< by the owner's number of its NIC

  /// Jobs whose finish() has not returned; guarded by the backend's mutex.
  const std::shared_ptr<uint64_t> open_jobs = std::make_shared<uint64_t>(0);

  bool uses(const Rail& rail, const LocalMemory& local) const {
    return keys[rail.remote.index] && local.on(rail.nic.index()) != nullptr;
  }
};

}  // namespace mori::io::rdma
