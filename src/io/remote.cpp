// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/remote.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "src/io/errors.hpp"

namespace mori::io {
namespace {

constexpr auto kAvoid = std::chrono::seconds(5);  // how long a failed route stands behind the others

const std::string& attachment_of(const RemotePin& pin, std::string_view backend) {
  static const std::string none;
  for (const auto& [name, bytes] : pin.attachments)
    if (name == backend) return bytes;
  return none;
}

void ask(Candidate& candidate, const RemotePin& pin, const Region& local, Peer& peer, Deadline deadline) {
  try {
    candidate.prepared = candidate.backend->prepare(local, pin.region, peer,
                                                    attachment_of(pin, candidate.backend->name()), deadline);
    if (!candidate.prepared.route && candidate.prepared.reason.empty())
      candidate.prepared.reason = "cannot reach it";
  } catch (const std::exception& error) {
    candidate.prepared = {};
    candidate.prepared.reason = error.what();
  }
  // A refusal holds; what ran out of time or could not connect is asked again after a while.
  candidate.asked = true;
}

void take_routes_of(RemotePin& pin, std::vector<std::pair<Backend*, std::shared_ptr<Route>>>& routes) {
  const std::lock_guard lock(pin.mutex);
  for (auto& [kind, listed] : pin.candidates)
    for (Candidate& candidate : listed.second)
      if (candidate.prepared.route)
        routes.emplace_back(candidate.backend, std::move(candidate.prepared.route));
  pin.candidates.clear();
}

double cost_us(const Prepared& p, uint64_t bytes) {
  return p.latency_us + (p.bytes_per_second > 0 ? double(bytes) / p.bytes_per_second * 1e6 : 0);
}

}  // namespace

control::Address RemoteEngine::address() const {
  const std::lock_guard lock(mutex_);
  return address_;
}

void RemoteEngine::move_to(control::Address address) {
  const std::lock_guard lock(mutex_);
  address_ = std::move(address);
}

std::shared_ptr<Peer> RemoteEngine::connected() const {
  const std::lock_guard lock(mutex_);
  return peer_;
}

std::shared_ptr<Peer> RemoteEngine::peer(Deadline deadline) {
  if (auto peer = connected()) return peer;
  const std::lock_guard connecting(connecting_);
  if (auto peer = connected()) return peer;
  const uint64_t generation = generation_.load();
  auto peer = host_.connect(address(), deadline);
  const std::lock_guard lock(mutex_);
  if (generation == generation_) peer_ = peer;  // else it broke again in between: the next use connects
  return peer;
}

RemoteMemoryPtr RemoteEngine::memory(const RemoteRegion& region) {
  const std::lock_guard lock(mutex_);
  if (memories_.size() >= prune_at_) {
    std::erase_if(memories_, [](const auto& entry) { return entry.second.expired(); });
    prune_at_ = 2 * memories_.size() + 64;
  }
  auto& known = memories_[{region.id, region.key, region.address, region.bytes}];
  auto memory = known.lock();
  if (!memory) {
    memory = std::make_shared<RemoteMemory>(shared_from_this(), region);
    known = memory;
  }
  return memory;
}

RemoteMemory::Opened RemoteEngine::open(RemoteMemory& memory, Deadline deadline) {
  if (retired_.load())
    throw Refused(StatusCode::err_bad_state,
                  "engine '" + memory.region.engine +
                      "' was deregistered here or restarted; exchange descriptors again");
  std::unique_lock opening(memory.mutex_);
  if (memory.opened_ && memory.opened_->generation == generation_.load()) return *memory.opened_;
  opening.unlock();
  auto peer = this->peer(deadline);
  opening.lock();
  const RemoteRegion& region = memory.region;
  for (int tries = 0;; ++tries) {
    const uint64_t generation = generation_.load(), revocations = revocations_.load();
    if (memory.opened_ && memory.opened_->generation == generation) return *memory.opened_;
    control::Attachments attachments;
    try {
      attachments = host_.open(*peer, region.id, region.key, region.incarnation, deadline);
    } catch (const PeerLost&) {
      if (tries > 0) throw;
      {  // it broke without anybody noticing until this use
        const std::lock_guard lock(mutex_);
        if (peer_ == peer) peer_.reset();
      }
      peer = this->peer(deadline);
      continue;
    }
    PinNote note{region.id, region.key, region.address, region.bytes, 0};
    for (const auto& [name, bytes] : attachments)
      if (name == kPinNote) note = decode_pin_note(bytes);
    if (note.offset > note.bytes || region.bytes > note.bytes - note.offset)
      throw Refused(StatusCode::err_invalid_args,
                    "the descriptor says " + std::to_string(region.bytes) + " bytes, the owner registered " +
                        std::to_string(note.bytes - std::min(note.offset, note.bytes)));
    const std::lock_guard lock(mutex_);
    // A revocation that overtook the answer may have been of this memory: the owner knows.
    if (revocations != revocations_ && tries < 100) continue;
    auto& pin = pins_[note.id];
    if (!pin) {
      pin = std::make_shared<RemotePin>();
      pin->region = region;
      pin->region.id = note.id;
      pin->region.key = note.key;
      pin->region.address = note.address;
      pin->region.bytes = note.bytes;
      pin->attachments = std::move(attachments);
    }
    pin->opened_as.insert(region.id);
    RemoteMemory::Opened opened{pin, std::move(peer), note.offset, generation};
    if (generation == generation_) memory.opened_ = opened;
    return opened;
  }
}

std::vector<Candidate>& RemoteEngine::list(RemotePin& pin, const Region& local) {
  auto& [version, candidates] = pin.candidates[{local.location, local.device}];
  const uint64_t newest = host_.backends_version();
  if (version != newest) {  // the first use, or a backend came or went
    const auto backends = host_.backends();
    version = newest;
    std::vector<Candidate> fresh;
    for (Backend* backend : backends) {
      const auto known = std::find_if(candidates.begin(), candidates.end(),
                                      [&](const Candidate& c) { return c.backend == backend; });
      fresh.push_back(known != candidates.end() ? std::move(*known) : Candidate{.backend = backend});
    }
    candidates = std::move(fresh);
  }
  return candidates;
}

Choice RemoteEngine::choose(RemoteMemory& memory, const Region& local, uint64_t bytes,
                            const std::vector<Backend*>& without, Deadline deadline) {
  const RemoteMemory::Opened opened = open(memory, deadline);
  RemotePin& pin = *opened.pin;
  const std::lock_guard lock(pin.mutex);
  auto& candidates = list(pin, local);
  const auto left_out = [&](Backend* backend) {
    return std::find(without.begin(), without.end(), backend) != without.end();
  };
  const auto now = Clock::now();
  Candidate* best = nullptr;
  // First those that have not failed of late, then the others. Later backends are asked only when those
  // before them cannot; among those that were asked the cheapest carries it.
  for (const bool avoided : {false, true}) {
    for (Candidate& candidate : candidates) {
      if (left_out(candidate.backend) || (candidate.avoid_until > now) != avoided) continue;
      if (!candidate.asked && !best) ask(candidate, pin, local, *opened.peer, deadline);
      if (!candidate.prepared.route) continue;
      if (!best || cost_us(candidate.prepared, bytes) < cost_us(best->prepared, bytes)) best = &candidate;
    }
    if (best) break;
  }
  if (best) return {best->backend, best->prepared.route, opened.peer, opened.pin, opened.offset};
  const bool nothing = std::none_of(candidates.begin(), candidates.end(),
                                    [](const Candidate& c) { return bool(c.prepared.route); });
  if (nothing) {
    // The next transfer opens it again: its owner may have made another backend since.
    const std::lock_guard opening(memory.mutex_);
    memory.opened_.reset();
    const std::lock_guard forgetting(mutex_);
    const auto known = pins_.find(pin.region.id);
    if (known != pins_.end() && known->second == opened.pin && pin.candidates.size() == 1) pins_.erase(known);
  }
  std::string reasons;
  for (Candidate& candidate : candidates) {
    if (!reasons.empty()) reasons += "; ";
    reasons += std::string(candidate.backend->name()) + ": " +
               (candidate.prepared.route ? "failed" : candidate.prepared.reason);
    if (!candidate.prepared.route) candidate.asked = false;  // asked again by the next transfer
  }
  throw core::TransportError("no backend reaches memory " + std::to_string(memory.region.id) + " of " +
                             memory.region.engine +
                             (reasons.empty() ? ": the engine has none" : ": " + reasons));
}

std::vector<Candidate> RemoteEngine::explain(RemoteMemory& memory, const Region& local, Deadline deadline) {
  const RemoteMemory::Opened opened = open(memory, deadline);
  const std::lock_guard lock(opened.pin->mutex);
  auto& candidates = list(*opened.pin, local);
  for (Candidate& candidate : candidates)
    if (!candidate.asked) ask(candidate, *opened.pin, local, *opened.peer, deadline);
  return candidates;
}

void RemoteEngine::failed(RemotePin& pin, const Region& local, Backend& backend) {
  const std::lock_guard lock(pin.mutex);
  for (Candidate& candidate : pin.candidates[{local.location, local.device}].second) {
    if (candidate.backend != &backend) continue;
    candidate.asked = false;
    candidate.prepared = {};
    ++candidate.failures;
    candidate.avoid_until = Clock::now() + kAvoid;
  }
}

void RemoteEngine::lost() {
  decltype(pins_) pins;  // routes are destroyed without the lock
  std::shared_ptr<Peer> peer;
  {
    const std::lock_guard lock(mutex_);
    ++generation_;
    pins.swap(pins_);
    peer.swap(peer_);
  }
}

std::vector<std::pair<Backend*, std::shared_ptr<Route>>> RemoteEngine::revoked(uint64_t memory_id) {
  std::vector<RemoteMemoryPtr> memories;
  std::shared_ptr<RemotePin> unused;
  {
    const std::lock_guard lock(mutex_);
    ++revocations_;
    for (auto& [name, known] : memories_)
      if (auto memory = known.lock(); memory && memory->region.id == memory_id)
        memories.push_back(std::move(memory));
    for (auto at = pins_.begin(); at != pins_.end(); ++at) {
      if (at->second->opened_as.erase(memory_id) == 0 || !at->second->opened_as.empty()) continue;
      unused = at->second;
      pins_.erase(at);
      break;
    }
  }
  for (const auto& memory : memories) {
    const std::lock_guard lock(memory->mutex_);
    memory->opened_.reset();
  }
  std::vector<std::pair<Backend*, std::shared_ptr<Route>>> routes;
  if (unused) take_routes_of(*unused, routes);
  return routes;
}

std::vector<std::pair<Backend*, std::shared_ptr<Route>>> RemoteEngine::take_routes() {
  decltype(pins_) pins;
  {
    const std::lock_guard lock(mutex_);
    ++generation_;
    pins.swap(pins_);
  }
  std::vector<std::pair<Backend*, std::shared_ptr<Route>>> routes;
  for (auto& [id, pin] : pins) take_routes_of(*pin, routes);
  return routes;
}

std::vector<std::shared_ptr<Route>> RemoteEngine::take_routes(Backend* backend) {
  std::vector<std::shared_ptr<RemotePin>> pins;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, pin] : pins_) pins.push_back(pin);
  }
  std::vector<std::shared_ptr<Route>> routes;
  for (const auto& pin : pins) {
    const std::lock_guard lock(pin->mutex);
    for (auto& [kind, listed] : pin->candidates)
      for (Candidate& candidate : listed.second)
        if (candidate.backend == backend && candidate.prepared.route)
          routes.push_back(std::exchange(candidate.prepared, {}).route);
  }
  return routes;
}

namespace {
struct PinNoteBytes {  // of one machine's engines or of machines of one byte order; the control plane has a
                       // version
  uint64_t id, address, bytes, offset;
  uint8_t key[16];
};
}  // namespace

std::string encode(const PinNote& note) {
  PinNoteBytes raw{note.id, note.address, note.bytes, note.offset, {}};
  std::memcpy(raw.key, note.key.data(), sizeof raw.key);
  return {reinterpret_cast<const char*>(&raw), sizeof raw};
}

PinNote decode_pin_note(const std::string& bytes) {
  PinNoteBytes raw;
  if (bytes.size() != sizeof raw) throw core::TransportError("the peer's answer to an open is malformed");
  std::memcpy(&raw, bytes.data(), sizeof raw);
  PinNote note{raw.id, {}, raw.address, raw.bytes, raw.offset};
  std::memcpy(note.key.data(), raw.key, sizeof raw.key);
  return note;
}

}  // namespace mori::io
