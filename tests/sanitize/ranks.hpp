// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Ranks as threads of one process, each with a CPU device, a heap and an error word: what a sanitizer needs,
// since it sees nothing between processes. Products put their kernels under it like this:
//
//   Ranks ranks(options(argc, argv), heap_bytes);
//   return ranks.run([&](Rank& rank) {
//     MyArgs args{.world = rank.world(), ...};
//     rank.launch("ep_dispatch", "ep_dispatch", {.blocks = 2, .warps = 2}, args);
//     if (wrong) rank.complain("row 3 of rank 1 differs");
//     rank.barrier();
//   });
//
// A heap is malloc'ed at its exact size, so that AddressSanitizer sees its end. run() returns the exit
// status: 0 clean, 1 when a rank complained, threw or left an error in its error word.
#pragma once
#include <barrier>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "src/core/device/world.hpp"
#include "src/core/runtime/cpu_device.hpp"

namespace mori::sanitize {

/// The command line of every program here: KERNEL_DIR LANES RANKS THREADS BLOCKS WARPS ROUNDS.
struct Options {
  std::string kernel_dir;
  uint32_t lanes = 1, ranks = 2, threads = 1, blocks = 2, warps = 2, rounds = 3;
};

inline Options options(int argc, char** argv) {
  Options o;
  if (argc > 1) o.kernel_dir = argv[1];
  uint32_t* const numbers[] = {&o.lanes, &o.ranks, &o.threads, &o.blocks, &o.warps, &o.rounds};
  for (int i = 0; i < 6 && i + 2 < argc; ++i) *numbers[i] = uint32_t(atoi(argv[i + 2]));
  return o;
}

class Ranks;

class Rank {
 public:
  uint32_t index() const { return index_; }
  core::Device& device() { return *device_; }
  const std::shared_ptr<core::Device>& shared_device() { return device_; }
  const World& world() const { return world_; }
  /// This rank's heap, and where the device-side tables say a peer's is.
  unsigned char* heap() { return reinterpret_cast<unsigned char*>(bases_[index_]); }
  const ErrorWord& error() const { return error_; }

  template <class Args>
  void launch(const char* unit, const char* name, const core::LaunchShape& shape, const Args& args,
              uint64_t stream = 0) {
    device_->launch(device_->function(unit, name, sizeof args), shape, stream, &args);
  }
  void barrier();
  void complain(const std::string& what) {
    if (++complaints_ <= 5) fprintf(stderr, "rank %u: %s\n", index_, what.c_str());
  }

 private:
  friend class Ranks;
  Ranks* group_ = nullptr;
  uint32_t index_ = 0;
  std::shared_ptr<core::Device> device_;
  std::vector<uint64_t> bases_;
  World world_{};
  ErrorWord error_{};
  int complaints_ = 0;
};

class Ranks {
 public:
  Ranks(const Options& options, size_t heap_bytes, uint64_t timeout_ns = 20'000'000'000)
      : barrier_(options.ranks), ranks_(options.ranks) {
    std::vector<uint64_t> bases;
    for (uint32_t r = 0; r < options.ranks; ++r) {
      heaps_.emplace_back(static_cast<unsigned char*>(calloc(1, heap_bytes)), free);
      bases.push_back(reinterpret_cast<uint64_t>(heaps_.back().get()));
    }
    for (uint32_t r = 0; r < options.ranks; ++r) {
      Rank& rank = ranks_[r];
      rank.group_ = this;
      rank.index_ = r;
      // Here and not in the rank's thread: ThreadSanitizer does not know the order that dlopen gives.
      rank.device_ = core::open_cpu(0, {options.kernel_dir, options.lanes, options.threads});
      rank.bases_ = bases;
      rank.world_ = {reinterpret_cast<uint64_t>(rank.bases_.data()),
                     reinterpret_cast<uint64_t>(&rank.error_),
                     timeout_ns,
                     r,
                     options.ranks,
                     0};
    }
  }

  int run(const std::function<void(Rank&)>& body) {
    std::vector<std::thread> threads;
    for (Rank& rank : ranks_) {
      threads.emplace_back([&] {
        try {
          body(rank);
        } catch (const std::exception& error) {
          rank.complain(error.what());
          barrier_.arrive_and_drop();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    int complaints = 0;
    for (Rank& rank : ranks_) {
      if (rank.error_.state != 0) {
        rank.complain("error word: wait " + std::to_string(rank.error_.wait) + " refusal " +
                      std::to_string(rank.error_.refusal) + " peer " + std::to_string(rank.error_.peer) +
                      " expected " + std::to_string(rank.error_.expected) + " seen " +
                      std::to_string(rank.error_.seen));
      }
      complaints += rank.complaints_;
    }
    return complaints != 0;
  }

 private:
  friend class Rank;
  std::barrier<> barrier_;
  std::vector<Rank> ranks_;
  std::vector<std::unique_ptr<unsigned char, void (*)(void*)>> heaps_;
};

inline void Rank::barrier() { group_->barrier_.arrive_and_wait(); }

}  // namespace mori::sanitize
