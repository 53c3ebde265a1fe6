// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A file as this process has it open, and what an owner tells about one.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "src/io/backends/crew.hpp"
#include "src/io/backends/file/request.hpp"
#include "src/io/fd.hpp"

namespace mori::io::file {

/// What the owner gives to an initiator; of one kernel, so in the machine's own byte order.
struct Attachment {
  uint64_t region = 0;
  uint64_t bytes = 0;
  uint64_t device = 0;  ///< st_dev
  uint64_t inode = 0;
  int32_t fd = -1;  ///< number in the owner's process
  bool writable = false;
  bool direct = false;   ///< O_DIRECT is wished
  bool durable = false;  ///< O_DSYNC is wished

  static Attachment of(const struct Region& region);  ///< throws core::TransportError
  std::string pack() const;
  static std::optional<Attachment> unpack(std::string_view packed);
};

/// Keeps direct and buffered writes to one file apart in time. Otherwise a buffered write, which takes whole
/// pages into the cache, could bring back what a direct write beside it has just replaced. Whoever waits for
/// the other kind stops more of its own kind from getting in, so neither starves.
class Phases {
 public:
  /// `wake` is called when one kind has ended and somebody who tried may get in.
  void set_wake(std::function<void()> wake) { wake_ = std::move(wake); }
  void enter(bool direct);
  /// `waiting` says whether this one tried before and was counted; it is kept up to date.
  bool try_enter(bool direct, bool& waiting);
  void give_up(bool direct, bool& waiting);  ///< it will not try again
  void leave(bool direct);

 private:
  bool free(bool direct) const {
    return active_[!direct] == 0 && (active_[direct] == 0 || waiting_[!direct] == 0);
  }
  std::mutex mutex_;
  std::condition_variable ended_;
  std::function<void()> wake_;
  int active_[2] = {};
  int waiting_[2] = {};
};

/// The route to a file.
class FileLink : public GatedRoute {
 public:
  /// Opens the file behind `fd` again, so that position and flags are ours. Throws core::TransportError.
  FileLink(Fd fd, const Attachment& attachment);

  std::string engine;
  uint64_t incarnation = 0;
  Fd buffered;
  Fd direct;  ///< empty where O_DIRECT is not wished or not possible
  Alignment alignment{};
  bool writable = false;
  bool durable = false;
  /// Cleared when the file system refuses a direct request after all.
  std::atomic<bool> direct_works{false};
  uint64_t device = 0, inode = 0;
  std::shared_ptr<Phases> phases = std::make_shared<Phases>();  ///< one for all links to a file
  /// Whether a request of this operation takes part in `phases`.
  bool phased(Op op) const { return op == Op::write && direct; }

  Cutter::Rules rules(uint64_t block_bytes) const {
    return {.block_bytes = block_bytes, .direct = direct_works.load(), .alignment = alignment};
  }
  int fd_for(const Request& request) const { return request.direct ? direct.get() : buffered.get(); }
};

/// What a failed call means, in words with file offset and cause. `error` 0 = the file ended.
Outcome io_failure(const RemoteRegion& file, Op op, uint64_t offset, int error);

/// The file system does not do this request directly.
bool refuses_direct(int error);

}  // namespace mori::io::file
