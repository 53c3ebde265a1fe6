// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/registry.hpp"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "src/io/threads.hpp"

namespace mori::io {
namespace {

constexpr size_t kPinningThreads = 4;

void random_bytes(void* to, size_t bytes) {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = getrandom(at, bytes, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw core::TransportError("getrandom failed");
    }
    at += got;
    bytes -= size_t(got);
  }
}

void attach_in_parallel(const std::vector<std::pair<std::shared_ptr<Pin>, Backend*>>& work) {
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i; (i = next.fetch_add(1)) < work.size();) work[i].first->attachment(*work[i].second);
  };
  std::vector<std::thread> helpers;
  const size_t threads =
      std::min({kPinningThreads, work.size(), size_t(std::thread::hardware_concurrency())});
  for (size_t i = 1; i < threads; ++i) helpers.push_back(start_thread("mori-io-pin", run));
  run();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace

RegionKey random_key() {
  RegionKey key;
  random_bytes(key.data(), key.size());
  return key;
}

uint64_t random_word() {
  uint64_t word = 0;
  while (word == 0) random_bytes(&word, sizeof word);
  return word;
}

bool same_key(const RegionKey& a, const RegionKey& b) {
  uint8_t differ = 0;
  for (size_t i = 0; i < a.size(); ++i) differ |= uint8_t(a[i] ^ b[i]);
  return differ == 0;
}

Pin::~Pin() {
  if (region.fd >= 0) ::close(region.fd);
}

std::optional<std::string> Pin::attachment(Backend& backend) {
  const std::lock_guard lock(mutex_);
  const auto found = attachments_.find(&backend);
  if (found != attachments_.end()) return found->second;
  std::optional<std::string> bytes;
  try {
    bytes = backend.attach(region);
  } catch (const std::exception& error) {
    notes_[std::string(backend.name())] = error.what();
  }
  return attachments_[&backend] = std::move(bytes);
}

void Pin::detach(Backend& backend) {
  {
    const std::lock_guard lock(mutex_);
    if (attachments_.erase(&backend) == 0) return;
  }
  backend.detach(region);
}

std::map<std::string, std::string> Pin::notes() const {
  const std::lock_guard lock(mutex_);
  return notes_;
}

std::shared_ptr<const Region> Pin::lease(const std::shared_ptr<Pin>& pin) {
  {
    const std::lock_guard lock(pin->mutex_);
    ++pin->leases_;
  }
  return {&pin->region, [pin](const Region*) {
            const std::lock_guard lock(pin->mutex_);
            if (--pin->leases_ == 0) pin->returned_.notify_all();
          }};
}

bool Pin::wait_for_leases(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return returned_.wait_until(lock, deadline, [this] { return leases_ == 0; });
}

std::vector<LocalMemoryPtr> Registry::add(std::vector<Region> regions,
                                          const std::vector<Backend*>& backends) {
  std::vector<LocalMemoryPtr> added;
  std::vector<std::pair<std::shared_ptr<Pin>, Backend*>> work;
  {
    const std::lock_guard lock(mutex_);
    for (Region& region : regions) {
      auto memory = std::make_shared<LocalMemory>();
      memory->id = next_id_++;
      memory->key = random_key();
      memory->bytes = region.bytes;
      Shared* shared = nullptr;
      if (region.location != Location::file) {
        // The nearest pins that begin at or before it; a few steps, since pins of one kind rarely nest.
        int steps = 8;
        for (auto at = by_address_.upper_bound(region.address); at != by_address_.begin() && steps-- > 0;) {
          Shared& candidate = pins_.at((--at)->second);
          const Region& whole = candidate.pin->region;
          if (whole.location == region.location && whole.device == region.device &&
              region.address - whole.address <= whole.bytes &&
              region.bytes <= whole.bytes - (region.address - whole.address)) {
            shared = &candidate;
            memory->offset = region.address - whole.address;
            break;
          }
        }
      }
      if (!shared) {
        region.id = memory->id;
        region.key = random_key();
        auto pin = std::make_shared<Pin>(std::move(region));
        shared = &pins_[pin->region.id];
        shared->pin = pin;
        if (pin->region.location != Location::file) by_address_.emplace(pin->region.address, pin->region.id);
        for (Backend* backend : backends) work.emplace_back(pin, backend);
      }
      ++shared->users;
      memory->pin = shared->pin;
      memories_.emplace(memory->id, memory);
      added.push_back(std::move(memory));
    }
  }
  attach_in_parallel(work);
  return added;
}

void Registry::attach_all(const std::vector<Backend*>& backends) {
  std::vector<std::pair<std::shared_ptr<Pin>, Backend*>> work;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, shared] : pins_)
      for (Backend* backend : backends) work.emplace_back(shared.pin, backend);
  }
  attach_in_parallel(work);
}

LocalMemoryPtr Registry::find(uint64_t id) const {
  const std::lock_guard lock(mutex_);
  const auto found = memories_.find(id);
  return found == memories_.end() ? nullptr : found->second;
}

std::vector<LocalMemoryPtr> Registry::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<LocalMemoryPtr> memories;
  for (const auto& [id, memory] : memories_) memories.push_back(memory);
  return memories;
}

std::shared_ptr<const Region> Registry::region(uint64_t pin_id, const RegionKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = pins_.find(pin_id);
  if (found == pins_.end() || !same_key(found->second.pin->region.key, key)) return nullptr;
  return Pin::lease(found->second.pin);
}

std::shared_ptr<Pin> Registry::remove(const LocalMemoryPtr& memory) {
  const std::lock_guard lock(mutex_);
  if (memories_.erase(memory->id) == 0) return nullptr;
  const auto shared = pins_.find(memory->pin->region.id);
  if (--shared->second.users > 0) return nullptr;
  auto pin = shared->second.pin;
  pins_.erase(shared);
  for (auto [at, end] = by_address_.equal_range(pin->region.address); at != end; ++at) {
    if (at->second == pin->region.id) {
      by_address_.erase(at);
      break;
    }
  }
  return pin;
}

}  // namespace mori::io
