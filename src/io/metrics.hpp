// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What an engine counts, and the ring of events from which a trace of its transfers is drawn.
#pragma once
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "src/io/types.hpp"

namespace mori::io {

/// Counters are read without a lock while they move: each is right, a set of them is not a moment.
struct Metrics {
  using Counter = std::atomic<uint64_t>;
  static constexpr size_t kCodes = 32;
  static constexpr size_t kBuckets = 32;  ///< bucket i: up to 2^i microseconds; the last one: all above

  std::array<Counter, 2> transfers{}, segments{}, bytes{};  // by Op; bytes of transfers that succeeded
  std::array<Counter, kCodes> ended{};                      // by StatusCode
  std::array<Counter, kBuckets> duration{};
  Counter duration_ns{0};
  Counter reroutes{0}, resent_bytes{0};
  Counter notifications_sent{0}, notifications_received{0}, notifications_dropped{0};
  Counter revoked{0}, peers_lost{0};
  Counter backend_faults{
      0};  ///< a backend broke its contract: finished twice, or handed back what it never had

  static size_t bucket(uint64_t ns);
};

struct TraceEvent {
  enum class Kind : uint8_t { started, carried, attempt_ended, ended };
  uint64_t ns = 0;  ///< of the steady clock
  uint64_t transfer = 0;
  uint64_t bytes = 0;
  uint64_t segments = 0;
  Kind kind = Kind::started;
  Op op = Op::read;
  StatusCode code = StatusCode::success;
  const char* backend = "";  ///< a name of the table: lives as long as the program
  uint32_t thread = 0;
};

/// The last `capacity` events; 0 = off, which costs one branch.
class Trace {
 public:
  explicit Trace(size_t capacity) : capacity_(capacity) { ring_.reserve(capacity); }
  bool on() const { return capacity_ > 0; }
  void add(TraceEvent event);
  /// Oldest first, and how many were overwritten; the ring is empty afterwards.
  std::pair<std::vector<TraceEvent>, uint64_t> take();

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::vector<TraceEvent> ring_;
  uint64_t written_ = 0;
};

uint64_t now_ns();

}  // namespace mori::io
