// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The memories that an engine registered, from their owner's side. Each registration has an id and a key of
// its own. Registrations inside a range that is registered already share that range's *pin*: what the
// backends attach and peers map is the pin, so a thousand tensors of one allocation cost one pinning and one
// route.
#pragma once
#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/control/control.hpp"

namespace mori::io {

/// A range as the backends know it, and what they said about it.
class Pin {
 public:
  explicit Pin(Region what) : region(std::move(what)) {}
  ~Pin();  ///< closes the file
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

  const Region region;

  /// What `backend` gives to peers; asked once. A failure of the backend is kept as "no", with its words in
  /// notes().
  std::optional<std::string> attachment(Backend& backend);
  void detach(Backend& backend);
  std::map<std::string, std::string> notes() const;

  /// For Host::region(): alive until dropped, and counted.
  static std::shared_ptr<const Region> lease(const std::shared_ptr<Pin>& pin);
  bool wait_for_leases(Deadline deadline);

 private:
  mutable std::mutex mutex_;
  std::condition_variable returned_;
  size_t leases_ = 0;
  std::map<const Backend*, std::optional<std::string>> attachments_;
  std::map<std::string, std::string> notes_;
};

/// One registration: `bytes` bytes of a pin, from `offset`.
struct LocalMemory {
  uint64_t id = 0;
  RegionKey key{};
  std::shared_ptr<Pin> pin;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::atomic<bool> closing{false};  ///< deregistration began: no transfer may start
};
using LocalMemoryPtr = std::shared_ptr<LocalMemory>;

class Registry {
 public:
  /// `backends` are those that want to attach at registration. Pins several regions at a time.
  std::vector<LocalMemoryPtr> add(std::vector<Region> regions, const std::vector<Backend*>& backends);
  /// A backend that came later attaches what is there.
  void attach_all(const std::vector<Backend*>& backends);

  LocalMemoryPtr find(uint64_t id) const;
  std::vector<LocalMemoryPtr> all() const;
  /// The pin with this id and key, for backends; null if there is none.
  std::shared_ptr<const Region> region(uint64_t pin_id, const RegionKey& key) const;

  /// Takes the registration out: nobody finds it afterwards. Returns the pin if no other registration shares
  /// it. Registrations that lie in the range of a departing pin that others share keep it.
  std::shared_ptr<Pin> remove(const LocalMemoryPtr& memory);

 private:
  mutable std::mutex mutex_;
  uint64_t next_id_ = 1;
  std::unordered_map<uint64_t, LocalMemoryPtr> memories_;
  struct Shared {
    std::shared_ptr<Pin> pin;
    size_t users = 0;
  };
  std::unordered_map<uint64_t, Shared> pins_;     // by id
  std::multimap<uint64_t, uint64_t> by_address_;  // start of a pin that is no file -> its id
};

RegionKey random_key();
uint64_t random_word();  ///< never 0
/// Compares all bytes whatever they are: the time says nothing about the key.
bool same_key(const RegionKey& a, const RegionKey& b);

}  // namespace mori::io
