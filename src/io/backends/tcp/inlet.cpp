// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/inlet.hpp"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace mori::io::tcp {
namespace {

constexpr size_t kIovecs = 512;
constexpr uint64_t kCallBytes = 1 << 20;  ///< about what one system call may move
constexpr uint64_t kTurnBytes = 4 << 20;  ///< then other streams have their turn
/// A chunk takes a GPU about 100 us: longer waits leave the thread to other streams.
constexpr std::chrono::microseconds kGpuSpin{200};
constexpr std::chrono::milliseconds kGpuLook{1};

}  // namespace

void Inlet::enter(const std::shared_ptr<Inlet>& self) {
  self_ = self;
  events_ = EPOLLIN;
  in_.resize(kHeadBytes);
  number_ = loop_.number();
  loop_.add(number_, self, stream_.fd.get(), events_);
}

void Inlet::kill() {
  dead_.store(true, std::memory_order_release);
  loop_.post([] {});  // it looks at the socket, which shutdown() makes ready
  ::shutdown(stream_.fd.get(), SHUT_RDWR);
}

void Inlet::ready(uint32_t) {
  if (over()) return;
  turn_ = 0;
  try {
    // No event tells that a GPU is done: step() asks to be called again, or goes on.
    while ((turn_ < kTurnBytes || on_gpu()) && step()) {
    }
  } catch (const Malformed&) {
    ++counters_.malformed;
    stop();
  } catch (const std::exception&) {
    stop();
  }
  if (over()) return;
  const uint32_t wanted = on_gpu() ? 0u : stage_ == Stage::reply ? EPOLLOUT : EPOLLIN;
  if (wanted != events_) {
    events_ = wanted;
    loop_.set(number_, stream_.fd.get(), wanted);
  }
}

bool Inlet::stop() {
  over_.store(true, std::memory_order_release);
  ::shutdown(stream_.fd.get(), SHUT_RDWR);
  loop_.remove(number_);
  return false;
}

bool Inlet::again_or_stop(ssize_t result) {
  if (result < 0 && errno == EINTR) return true;
  if (result < 0 && errno == EAGAIN) return false;
  return stop();
}

bool Inlet::step() {
  if (dead_.load(std::memory_order_acquire)) return stop();
  switch (stage_) {
    case Stage::head:
      if (!fill(kHeadBytes)) return false;
      request_ = parse_head(in_);
      in_.resize(kHeadBytes + request_.rest_bytes());
      stage_ = Stage::table;
      return true;
    case Stage::table:
      return fill(in_.size()) && begin();
    case Stage::place:
      return place();
    case Stage::store:
      return store();
    case Stage::gpu:
      return wait_for_gpu();
    case Stage::discard:
      return discard();
    case Stage::reply:
      return reply();
  }
  return false;
}

bool Inlet::fill(size_t bytes) {
  while (have_ < bytes) {
    const ssize_t got = ::recv(stream_.fd.get(), in_.data() + have_, bytes - have_, MSG_DONTWAIT);
    if (got > 0) {
      have_ += static_cast<size_t>(got);
    } else if (!again_or_stop(got)) {
      return false;
    }
  }
  return true;
}

std::shared_ptr<const Region> Inlet::region() const { return host_.region(request_.region, request_.key); }

uint64_t Inlet::base(const Region& memory) const {
  return chunk_ ? reinterpret_cast<uint64_t>(chunk_.data()) : memory.address;
}

bool Inlet::begin() {
  const std::string_view all(in_);
  parse_table(stream_.receive_key, all.substr(0, kHeadBytes), all.substr(kHeadBytes), expected_, request_);
  ++expected_;
  code_ = StatusCode::success;
  words_.clear();
  stage_ = Stage::place;
  return true;
}

/// Checks the request, and finds out where its payload goes or comes from.
bool Inlet::place() {
  const auto memory = region();
  if (!memory) {
    refuse(StatusCode::err_not_found, "no such memory is registered (any more), or the key is wrong");
  } else if (memory->location != Location::cpu && memory->location != Location::gpu) {
    refuse(StatusCode::err_invalid_args, "the memory is neither host memory nor a GPU's");
  } else {
    for (const Segment& segment : request_.segments)
      if (segment.remote > memory->bytes || segment.bytes > memory->bytes - segment.remote) {
        refuse(StatusCode::err_denied, "bytes " + std::to_string(segment.remote) + " to " +
                                           std::to_string(segment.remote + segment.bytes) +
                                           " are not inside the registered " + std::to_string(memory->bytes));
        break;
      }
  }
  cursor_ = Cursor(request_.segments, &Segment::remote, {0, 0, request_.bytes});
  if (code_ == StatusCode::success && memory->location == Location::gpu && !place_chunk(memory))
    return look_later();
  if (request_.op == Op::write) {
    left_ = request_.bytes;
    stage_ = code_ == StatusCode::success ? Stage::store : Stage::discard;
  } else if (held_) {
    stage_ = Stage::gpu;
  } else {
    send_data();
  }
  return true;
}

/// The request's payload will lie packed in a chunk. False: all chunks are out.
bool Inlet::place_chunk(const std::shared_ptr<const Region>& memory) {
  try {
    if (request_.bytes > kStagingChunkBytes) {
      refuse(StatusCode::err_invalid_args, "a request of " + std::to_string(request_.bytes) +
                                               " bytes for a GPU's memory; at most " +
                                               std::to_string(kStagingChunkBytes) + " are taken");
      return true;
    }
    chunk_ = staging_.take(*memory);
    if (!chunk_) return false;
    uint64_t packed = 0;
    for (Segment& segment : request_.segments) {
      segment.local = packed;
      packed += segment.bytes;
    }
    cursor_ = Cursor(request_.segments, &Segment::local, {0, 0, request_.bytes});
    if (request_.op == Op::read) {
      held_ = memory;
      chunk_.fetch(request_.segments);
    }
  } catch (const core::Error& error) {
    fail_gpu(error);
  }
  return true;
}

void Inlet::fail_gpu(const core::Error& error) {
  chunk_ = {};
  held_.reset();
  refuse(StatusCode::err_gpu_op, error.what());
}

/// A read's payload, or why there is none.
void Inlet::send_data() {
  if (code_ == StatusCode::success)
    out_ = encode(stream_.send_key, {ReplyKind::data, StatusCode::success, request_.number, request_.bytes});
  else
    out_ = encode(stream_.send_key, {ReplyKind::refused, code_, request_.number, words_.size()}, words_);
  out_sent_ = 0;
  if (code_ != StatusCode::success) cursor_ = {};
  stage_ = Stage::reply;
}

bool Inlet::look_later() {
  loop_.at(Clock::now() + kGpuLook, [weak = self_] {
    if (const auto self = weak.lock()) self->ready(0);
  });
  return false;
}

/// The GPU copies between the chunk and the region.
bool Inlet::wait_for_gpu() {
  try {
    const auto until = Clock::now() + kGpuSpin;
    while (!chunk_.ready()) {
      if (Clock::now() > until) return look_later();
      ::sched_yield();
    }
  } catch (const core::Error& error) {
    fail_gpu(error);
  }
  held_.reset();
  if (request_.op == Op::write) {
    answer_write();
  } else {
    send_data();
  }
  return true;
}

/// A write's payload is complete in the chunk.
bool Inlet::store_chunk() {
  // The initiator may have cut the stream while this process was stopped (docs/io_tcp.md, "Stopping").
  char unused;
  const ssize_t there = ::recv(stream_.fd.get(), &unused, 1, MSG_PEEK | MSG_DONTWAIT);
  if (there == 0 || (there < 0 && errno != EAGAIN && errno != EINTR)) return stop();
  held_ = region();
  if (!held_) {
    refuse(StatusCode::err_not_found, "the memory was deregistered during the transfer");
    answer_write();
    return true;
  }
  try {
    // Back to the places in the region.
    chunk_.store(request_.segments);
    stage_ = Stage::gpu;
  } catch (const core::Error& error) {
    fail_gpu(error);
    answer_write();
  }
  return true;
}

void Inlet::refuse(StatusCode code, const std::string& words) {
  code_ = code;
  words_ = words.substr(0, kMaxWords);
  ++counters_.frames_refused;
}

bool Inlet::store() {
  iovec pieces[kIovecs];
  const auto memory = region();
  if (!memory) {
    refuse(StatusCode::err_not_found, "the memory was deregistered during the transfer");
    left_ = cursor_.left();
    stage_ = Stage::discard;
    return true;
  }
  mmsghdr message{};
  message.msg_hdr.msg_iov = pieces;
  message.msg_hdr.msg_iovlen = cursor_.fill(base(*memory), pieces, kIovecs, kCallBytes);
  const int got = ::recvmmsg(stream_.fd.get(), &message, 1, MSG_DONTWAIT, nullptr);
  if (got <= 0 || message.msg_len == 0) return again_or_stop(got < 0 ? -1 : 0);
  turn_ += message.msg_len;
  counters_.bytes_in += message.msg_len;
  cursor_.advance(message.msg_len);
  if (cursor_.left() > 0) return true;
  if (chunk_) return store_chunk();
  answer_write();  // in the same turn: no event would announce it
  return true;
}

void Inlet::answer_write() {
  const ReplyKind kind = code_ == StatusCode::success ? ReplyKind::done : ReplyKind::refused;
  out_ = encode(stream_.send_key, {kind, code_, request_.number, words_.size()}, words_);
  out_sent_ = 0;
  cursor_ = {};
  chunk_ = {};
  stage_ = Stage::reply;
}

bool Inlet::discard() {
  while (left_ > 0) {
    char waste[16 << 10];
    const ssize_t got =
        ::recv(stream_.fd.get(), waste, std::min<uint64_t>(sizeof waste, left_), MSG_DONTWAIT);
    if (got > 0) {
      left_ -= static_cast<uint64_t>(got);
      turn_ += static_cast<uint64_t>(got);
    } else if (!again_or_stop(got)) {
      return false;
    }
    if (left_ > 0 && turn_ > kTurnBytes) return true;
  }
  answer_write();
  return true;
}

bool Inlet::reply() {
  iovec pieces[kIovecs];
  std::shared_ptr<const Region> memory;
  size_t count = 0;
  if (out_sent_ < out_.size()) pieces[count++] = {out_.data() + out_sent_, out_.size() - out_sent_};
  if (cursor_.left() > 0) {
    memory = region();
    if (!memory) return stop();  // the data that was announced cannot come any more
    count += cursor_.fill(base(*memory), pieces + count, kIovecs - count, kCallBytes);
  }
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = count;
  const ssize_t sent = ::sendmsg(stream_.fd.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return again_or_stop(sent);
  const size_t head = std::min(static_cast<size_t>(sent), out_.size() - out_sent_);
  out_sent_ += head;
  turn_ += static_cast<uint64_t>(sent);
  counters_.bytes_out += static_cast<uint64_t>(sent) - head;
  cursor_.advance(static_cast<uint64_t>(sent) - head);
  if (out_sent_ < out_.size() || cursor_.left() > 0) return true;
  ++counters_.frames_served;
  chunk_ = {};
  stage_ = Stage::head;
  have_ = 0;
  in_.resize(kHeadBytes);
  return true;
}

}  // namespace mori::io::tcp
