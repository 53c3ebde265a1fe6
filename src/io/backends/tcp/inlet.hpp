// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The owner's end of a stream: takes requests, checks each against the registry, moves the payload straight
// between the socket and the region. Runs on the I/O thread only; kill() may come from any.
//
// Two rules keep memory safe. The region is looked up again for every system call and held for that call
// only: a deregistration waits for microseconds, the rest of the frame is thrown away. And payload is
// received with recvmmsg(), which checks in the same system call that the connection was not reset: an
// initiator that cut the stream (docs/io_tcp.md, "Stopping") knows that a process which was stopped meanwhile
// writes nothing when it goes on. Linux's recv() would still hand out what had arrived before the reset.
//
// A GPU's memory is filled from, and emptied into, a pinned chunk (Stage::gpu): the region is held while the
// GPU copies.
#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "src/io/backend.hpp"
#include "src/io/backends/p2p/staging.hpp"
#include "src/io/backends/tcp/cursor.hpp"
#include "src/io/backends/tcp/frames.hpp"
#include "src/io/backends/tcp/loop.hpp"

namespace mori::io::tcp {

/// Counted by all streams of a backend.
struct Counters {
  std::atomic<uint64_t> frames_served{0}, frames_refused{0}, bytes_in{0}, bytes_out{0}, malformed{0};
  std::atomic<uint64_t> frames_sent{0}, frames_again{0}, streams_opened{0}, streams_broken{0}, streams_cut{0};
};

class Inlet final : public Source {
 public:
  Inlet(Host& host, Stream stream, Loop& loop, Staging& staging, Counters& counters, std::string from,
        uint64_t life)
      : engine(std::move(from)),
        incarnation(life),
        host_(host),
        loop_(loop),
        staging_(staging),
        counters_(counters),
        stream_(std::move(stream)) {}

  void enter(const std::shared_ptr<Inlet>& self);
  void ready(uint32_t events) override;
  /// Nothing is received any more; ends soon.
  void kill();
  bool over() const { return over_.load(std::memory_order_acquire); }

  const std::string engine;
  const uint64_t incarnation;

 private:
  enum class Stage { head, table, place, store, gpu, discard, reply };
  /// False: the socket has no more, or takes no more; or the stream is over.
  bool step();
  bool fill(size_t bytes);
  bool begin();
  bool place();
  bool place_chunk(const std::shared_ptr<const Region>& memory);
  bool store();
  bool store_chunk();
  bool wait_for_gpu();
  bool on_gpu() const { return stage_ == Stage::gpu || stage_ == Stage::place; }
  bool look_later();
  void fail_gpu(const core::Error& error);
  void send_data();
  uint64_t base(const Region& memory) const;
  bool discard();
  bool reply();
  void answer_write();
  void refuse(StatusCode code, const std::string& words);
  std::shared_ptr<const Region> region() const;
  bool stop();
  bool again_or_stop(ssize_t result);

  Host& host_;
  Loop& loop_;
  Staging& staging_;
  Counters& counters_;
  Stream stream_;
  std::weak_ptr<Inlet> self_;
  uint64_t number_ = 0;  ///< in the loop
  uint32_t events_ = 0;
  Stage stage_ = Stage::head;
  std::string in_;
  size_t have_ = 0;
  Request request_;
  uint64_t expected_ = 0;
  Cursor cursor_;
  uint64_t left_ = 0;  ///< to discard
  std::string out_;
  size_t out_sent_ = 0;
  StatusCode code_ = StatusCode::success;
  std::string words_;
  uint64_t turn_ = 0;                   ///< bytes moved since ready()
  Staging::Chunk chunk_;                ///< if the memory is a GPU's: the payload, packed
  std::shared_ptr<const Region> held_;  ///< while the GPU copies
  std::atomic<bool> dead_{false}, over_{false};
};

}  // namespace mori::io::tcp
