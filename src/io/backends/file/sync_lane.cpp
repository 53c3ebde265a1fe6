// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One request at a time and thread.
#include "src/io/backends/file/sync_lane.hpp"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <thread>

#include "src/core/errors.hpp"

namespace mori::io::file {

SyncLane::SyncLane(const LaneOptions& options, size_t threads, LaneCounters& counters,
                   std::shared_ptr<DeviceChunks> device)
    : options_(options),
      counters_(counters),
      device_(std::move(device)),
      crew_("mori-file-sync", threads,
            [this](Job& job, std::span<const Segment> piece) { return carry(job, piece); }) {}

void SyncLane::Free::operator()(uint8_t* block) const { std::free(block); }

SyncLane::Block SyncLane::take_block() {
  std::lock_guard<std::mutex> guard(mutex_);
  if (!blocks_.empty()) {
    Block block = std::move(blocks_.back());
    blocks_.pop_back();
    return block;
  }
  auto* const memory = static_cast<uint8_t*>(std::aligned_alloc(4096, options_.block_bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return Block(memory);
}

int32_t SyncLane::call(Op op, FileLink& link, const Request& request) {
  const int fd = link.fd_for(request);
  const auto offset = static_cast<off_t>(request.offset);
  const int count = static_cast<int>(request.memory.size());
  (request.direct ? counters_.requests_direct : counters_.requests_buffered)
      .fetch_add(1, std::memory_order_relaxed);
  const bool phased = link.phased(op);
  if (phased) link.phases->enter(request.direct);
  const ssize_t done = op == Op::write
                           ? pwritev2(fd, request.memory.data(), count, offset, link.durable ? RWF_DSYNC : 0)
                           : preadv2(fd, request.memory.data(), count, offset, 0);
  const int32_t result = done < 0 ? -errno : static_cast<int32_t>(done);
  if (phased) link.phases->leave(request.direct);
  return options_.filter != nullptr ? options_.filter(op == Op::write, request.direct, result) : result;
}

Outcome SyncLane::carry_request(Job& job, FileLink& link, Request& request, uint8_t* local) {
  const Op op = job.op();
  Block block;
  if (request.direct && !request.aligned) {
    block = take_block();
    request.memory.assign(1, {block.get(), request.bytes});
    if (op == Op::write) request.gather(block.get(), local);
    counters_.bounced.fetch_add(1, std::memory_order_relaxed);
  } else {
    request.point_at(local);
  }
  Outcome outcome;
  for (;;) {
    const int32_t result = call(op, link, request);
    if (result == static_cast<int64_t>(request.bytes)) {
      if (block && request.direct && op == Op::read) request.scatter(block.get(), local);
      break;
    }
    const bool refused = request.direct && refuses_direct(-result);
    if (result > 0 || refused || result == -EINTR || result == -EAGAIN) {
      if (refused) link.direct_works = false;
      request.drop_front(result > 0 && !block ? static_cast<uint64_t>(result) : 0);
      request.point_at(local);
      if (block) {
        std::lock_guard<std::mutex> guard(mutex_);
        blocks_.push_back(std::move(block));
      }
      counters_.resumed.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    outcome = io_failure(job.remote(), op, request.offset, -result);
    outcome.unfinished = request.pieces;
    break;
  }
  if (block) {
    std::lock_guard<std::mutex> guard(mutex_);
    blocks_.push_back(std::move(block));
  }
  return outcome;
}

/// The file's side of some segments, whose memory starts at `local`.
Outcome SyncLane::carry_host(Job& job, FileLink& link, std::span<const Segment> piece, uint8_t* local) {
  Cutter cutter(piece, reinterpret_cast<uint64_t>(local), link.rules(options_.block_bytes));
  Request request;
  while (!cutter.at_end()) {
    cutter.next(request);
    Outcome outcome = carry_request(job, link, request, local);
    if (outcome.code != StatusCode::success) {
      cutter.abandon(outcome.unfinished);
      return outcome;
    }
  }
  return {};
}

/// One chunk between the file and the GPU.
Outcome SyncLane::carry_chunk(Job& job, FileLink& link, const Segment& part, DeviceChunks::Chunk& chunk) {
  const Segment staged{0, part.remote, part.bytes};
  try {
    if (job.op() == Op::write) chunk.fetch(part.local, part.bytes);
    Outcome outcome = carry_host(job, link, {&staged, 1}, chunk.data());
    if (job.op() == Op::read && outcome.code == StatusCode::success) chunk.store(part.local, part.bytes);
    return outcome;
  } catch (const core::Error& error) {
    return {.code = StatusCode::err_gpu_op, .message = error.what()};
  }
}

Outcome SyncLane::carry(Job& job, std::span<const Segment> piece) {
  FileLink& link = static_cast<FileLink&>(job.route());
  if (job.local().location != Location::gpu) {
    return carry_host(job, link, piece, reinterpret_cast<uint8_t*>(job.local().address));
  }
  std::unique_ptr<DeviceChunks::Chunk> chunk;
  while ((chunk = device_->take(job.local())) == nullptr) {
    std::this_thread::sleep_for(
        std::chrono::microseconds(100));  // other threads have them all, for one block
  }
  for (size_t i = 0; i < piece.size(); ++i) {
    for (uint64_t at = 0; at < piece[i].bytes; at += DeviceChunks::kBytes) {
      const uint64_t bytes = std::min(DeviceChunks::kBytes, piece[i].bytes - at);
      Outcome outcome = carry_chunk(job, link, {piece[i].local + at, piece[i].remote + at, bytes}, *chunk);
      if (outcome.code == StatusCode::success) continue;
      outcome.unfinished.assign(piece.begin() + static_cast<ptrdiff_t>(i), piece.end());
      return outcome;
    }
  }
  return {};
}

}  // namespace mori::io::file
