// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The cases of `mori bench shmem`, by NVSHMEM: the same shapes, rounds and bytes, timed in the same way.
// python/mori/bench/nvshmem_peer.py compiles it, starts two processes and reads what they print.
//
//   nvshmem_peer RANK RANKS ID_FILE ROOM_BYTES      cases on standard input, one a line:
//   INDEX OP SCOPE BYTES BLOCKS WARPS ROUNDS SAMPLES
//
// answers "INDEX ns ns ..." (ns of one operation, of each sample), or "wrong INDEX what".
#include <cuda_runtime.h>
#include <nvshmem.h>
#include <nvshmemx.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

namespace {

struct Args {
  char* target;     // symmetric
  char* source;     // symmetric
  uint64_t* words;  // symmetric: signals and words of latency cases
  uint64_t* times;
  uint64_t bytes, first_round;
  uint32_t rounds, samples;
  int rank, peer;
};

__device__ uint64_t nanoseconds() {
  uint64_t t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}

struct Lane {
  static __device__ bool leads() { return true; }
  static __device__ void meet() {}
  static __device__ uint32_t index() { return blockIdx.x * blockDim.x + threadIdx.x; }
  static __device__ uint32_t count() { return gridDim.x * blockDim.x; }
  static __device__ void put(void* to, const void* from, size_t n, int pe) {
    nvshmem_putmem_nbi(to, from, n, pe);
  }
  static __device__ void get(void* to, const void* from, size_t n, int pe) {
    nvshmem_getmem_nbi(to, from, n, pe);
  }
  static __device__ void put_signal(void* to, const void* from, size_t n, uint64_t* signal, uint64_t value,
                                    int pe) {
    nvshmem_putmem_signal(to, from, n, signal, value, NVSHMEM_SIGNAL_SET, pe);
  }
  static __device__ void sync() { nvshmem_team_sync(NVSHMEM_TEAM_WORLD); }
  static __device__ void barrier() { nvshmem_barrier(NVSHMEM_TEAM_WORLD); }
};

struct Warp {
  static __device__ bool leads() { return threadIdx.x % 32 == 0; }
  static __device__ void meet() { __syncwarp(); }
  static __device__ uint32_t index() { return Lane::index() / 32; }
  static __device__ uint32_t count() { return Lane::count() / 32; }
  static __device__ void put(void* to, const void* from, size_t n, int pe) {
    nvshmemx_putmem_nbi_warp(to, from, n, pe);
  }
  static __device__ void get(void* to, const void* from, size_t n, int pe) {
    nvshmemx_getmem_nbi_warp(to, from, n, pe);
  }
  static __device__ void put_signal(void* to, const void* from, size_t n, uint64_t* signal, uint64_t value,
                                    int pe) {
    nvshmemx_putmem_signal_warp(to, from, n, signal, value, NVSHMEM_SIGNAL_SET, pe);
  }
  static __device__ void sync() { nvshmemx_team_sync_warp(NVSHMEM_TEAM_WORLD); }
  static __device__ void barrier() { nvshmemx_barrier_warp(NVSHMEM_TEAM_WORLD); }
  static __device__ void broadcast(const Args& a) {
    nvshmemx_uint32_broadcast_warp(NVSHMEM_TEAM_WORLD, reinterpret_cast<uint32_t*>(a.target),
                                   reinterpret_cast<const uint32_t*>(a.source), a.bytes / 4, 0);
  }
  static __device__ void fcollect(const Args& a) {
    nvshmemx_fcollectmem_warp(NVSHMEM_TEAM_WORLD, a.target, a.source, a.bytes);
  }
  static __device__ void alltoall(const Args& a) {
    nvshmemx_alltoallmem_warp(NVSHMEM_TEAM_WORLD, a.target, a.source, a.bytes);
  }
  static __device__ void reduce(const Args& a) {
    nvshmemx_float_sum_reduce_warp(NVSHMEM_TEAM_WORLD, reinterpret_cast<float*>(a.target),
                                   reinterpret_cast<const float*>(a.source), a.bytes / 4);
  }
};

struct Block {
  static __device__ bool leads() { return threadIdx.x == 0; }
  static __device__ void meet() { __syncthreads(); }
  static __device__ uint32_t index() { return blockIdx.x; }
  static __device__ uint32_t count() { return gridDim.x; }
  static __device__ void put(void* to, const void* from, size_t n, int pe) {
    nvshmemx_putmem_nbi_block(to, from, n, pe);
  }
  static __device__ void get(void* to, const void* from, size_t n, int pe) {
    nvshmemx_getmem_nbi_block(to, from, n, pe);
  }
  static __device__ void put_signal(void* to, const void* from, size_t n, uint64_t* signal, uint64_t value,
                                    int pe) {
    nvshmemx_putmem_signal_block(to, from, n, signal, value, NVSHMEM_SIGNAL_SET, pe);
  }
  static __device__ void sync() { nvshmemx_team_sync_block(NVSHMEM_TEAM_WORLD); }
  static __device__ void barrier() { nvshmemx_barrier_block(NVSHMEM_TEAM_WORLD); }
  static __device__ void broadcast(const Args& a) {
    nvshmemx_uint32_broadcast_block(NVSHMEM_TEAM_WORLD, reinterpret_cast<uint32_t*>(a.target),
                                    reinterpret_cast<const uint32_t*>(a.source), a.bytes / 4, 0);
  }
  static __device__ void fcollect(const Args& a) {
    nvshmemx_fcollectmem_block(NVSHMEM_TEAM_WORLD, a.target, a.source, a.bytes);
  }
  static __device__ void alltoall(const Args& a) {
    nvshmemx_alltoallmem_block(NVSHMEM_TEAM_WORLD, a.target, a.source, a.bytes);
  }
  static __device__ void reduce(const Args& a) {
    nvshmemx_float_sum_reduce_block(NVSHMEM_TEAM_WORLD, reinterpret_cast<float*>(a.target),
                                    reinterpret_cast<const float*>(a.source), a.bytes / 4);
  }
};

/// times[2 * group], [2 * group + 1]: start and end.
template <class Group, bool kGet>
__global__ void move(Args a) {
  const uint64_t pieces = (a.bytes + 15) / 16, index = Group::index(), count = Group::count();
  const uint64_t begin = pieces * index / count * 16;
  const uint64_t end = min(uint64_t(a.bytes), pieces * (index + 1) / count * 16), bytes = end - begin;
  const uint64_t start = nanoseconds();
  for (uint32_t round = 0; round < a.rounds; ++round) {
    if (bytes == 0) continue;
    if (kGet) {
      Group::get(a.source + begin, a.target + begin, bytes, a.peer);
    } else {
      Group::put(a.target + begin, a.source + begin, bytes, a.peer);
    }
  }
  if (Group::leads()) nvshmem_quiet();
  Group::meet();
  if (!Group::leads()) return;
  a.times[2 * index] = start;
  a.times[2 * index + 1] = nanoseconds();
}

/// times[sample]; round(number) is one operation.
template <class Group, class Round>
__device__ void sample(const Args& a, Round round) {
  uint64_t number = a.first_round;
  for (uint32_t s = 0; s < a.samples; ++s) {
    const uint64_t start = nanoseconds();
    for (uint32_t r = 0; r < a.rounds; ++r) round(++number);
    if (Group::leads()) a.times[s] = nanoseconds() - start;
  }
}

template <class Group>
__device__ void catch_signal(uint64_t* word, uint64_t value) {
  if (Group::leads()) nvshmem_signal_wait_until(word, NVSHMEM_CMP_GE, value);
  Group::meet();
}

template <class Group>
__global__ void put_signal(Args a) {
  sample<Group>(a, [&](uint64_t number) {
    if (a.rank != 0) catch_signal<Group>(a.words, number);
    Group::put_signal(a.target, a.source, a.bytes, a.words, number, a.peer);
    if (a.rank == 0) catch_signal<Group>(a.words, number);
  });
}

__global__ void p(Args a) {
  sample<Lane>(a, [&](uint64_t number) {
    if (a.rank != 0) nvshmem_uint64_wait_until(a.words, NVSHMEM_CMP_GE, number);
    nvshmem_uint64_p(a.words, number, a.peer);
    if (a.rank == 0) nvshmem_uint64_wait_until(a.words, NVSHMEM_CMP_GE, number);
  });
}

template <bool kFetch>
__global__ void atomics(Args a) {
  uint64_t* word = reinterpret_cast<uint64_t*>(a.target);
  uint64_t sum = 0;
  const uint32_t index = Lane::index();
  const uint64_t start = nanoseconds();
  for (uint32_t round = 0; round < a.rounds; ++round) {
    if (kFetch) {
      sum += nvshmem_uint64_atomic_fetch_add(word, 1, a.peer);
    } else {
      nvshmem_uint64_atomic_add(word, 1, a.peer);
    }
  }
  nvshmem_quiet();
  a.times[2 * index] = start;
  a.times[2 * index + 1] = nanoseconds() + (sum == 1);  // the sums are used
}

enum class Meeting { sync, barrier, broadcast, fcollect, alltoall, reduce };

template <class Group, Meeting kWhich>
__global__ void meet(Args a) {
  sample<Group>(a, [&](uint64_t) {
    if constexpr (kWhich == Meeting::sync) Group::sync();
    if constexpr (kWhich == Meeting::barrier) Group::barrier();
    if constexpr (kWhich == Meeting::broadcast) Group::broadcast(a);
    if constexpr (kWhich == Meeting::fcollect) Group::fcollect(a);
    if constexpr (kWhich == Meeting::alltoall) Group::alltoall(a);
    if constexpr (kWhich == Meeting::reduce) Group::reduce(a);
  });
}

using Kernel = void (*)(Args);

template <Meeting kWhich>
Kernel meeting(const std::string& scope) {
  if (scope == "block") return meet<Block, kWhich>;
  if (scope == "warp") return meet<Warp, kWhich>;
  if constexpr (kWhich == Meeting::sync || kWhich == Meeting::barrier) return meet<Lane, kWhich>;
  return nullptr;
}

template <bool kGet>
Kernel mover(const std::string& scope) {
  return scope == "block" ? move<Block, kGet> : scope == "warp" ? move<Warp, kGet> : move<Lane, kGet>;
}

Kernel kernel_of(const std::string& op, const std::string& scope) {
  if (op == "put") return mover<false>(scope);
  if (op == "get") return mover<true>(scope);
  if (op == "p") return p;
  if (op == "put_signal")
    return scope == "block" ? put_signal<Block> : scope == "warp" ? put_signal<Warp> : put_signal<Lane>;
  if (op == "atomic_add") return atomics<false>;
  if (op == "atomic_fetch_add") return atomics<true>;
  if (op == "sync") return meeting<Meeting::sync>(scope);
  if (op == "barrier") return meeting<Meeting::barrier>(scope);
  if (op == "broadcast") return meeting<Meeting::broadcast>(scope);
  if (op == "fcollect") return meeting<Meeting::fcollect>(scope);
  if (op == "alltoall") return meeting<Meeting::alltoall>(scope);
  if (op == "reduce") return meeting<Meeting::reduce>(scope);
  return nullptr;
}

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  exit(1);
}

/// Both processes start from one id, which rank 0 leaves in a file.
void start(int rank, int ranks, const char* file) {
  nvshmemx_uniqueid_t id = NVSHMEMX_UNIQUEID_INITIALIZER;
  const std::string part = std::string(file) + ".part";
  if (rank == 0) {
    if (nvshmemx_get_uniqueid(&id) != 0) exit(3);
    FILE* out = fopen(part.c_str(), "wb");
    if (out == nullptr || fwrite(&id, sizeof id, 1, out) != 1 || fclose(out) != 0 ||
        rename(part.c_str(), file) != 0)
      exit(3);
  } else {
    FILE* in = nullptr;
    for (int tries = 0; tries < 6000 && (in = fopen(file, "rb")) == nullptr; ++tries) usleep(10000);
    if (in == nullptr || fread(&id, sizeof id, 1, in) != 1) exit(3);
    fclose(in);
  }
  nvshmemx_init_attr_t attributes = NVSHMEMX_INIT_ATTR_INITIALIZER;
  nvshmemx_set_attr_uniqueid_args(rank, ranks, &id, &attributes);
  if (nvshmemx_init_attr(NVSHMEMX_INIT_WITH_UNIQUEID, &attributes) != 0) exit(3);
}

/// Byte i of what rank r has to give.
uint8_t pattern(int rank, uint64_t i) { return uint8_t(rank * 29 + 7 * i + (i >> 8) * 3 + (i >> 16)); }

std::vector<uint8_t> contribution(const std::string& op, int rank, uint64_t bytes, int ranks) {
  std::vector<uint8_t> data(op == "alltoall" ? bytes * ranks : bytes);
  for (uint64_t i = 0; i < data.size(); ++i) data[i] = pattern(rank, i);
  if (op == "reduce") {
    for (uint64_t i = 0; i < bytes / 4; ++i) {
      const float value = float(int(pattern(rank, i)) - 128);
      memcpy(&data[4 * i], &value, 4);
    }
  }
  return data;
}

std::vector<uint8_t> expected(const std::string& op, int rank, uint64_t bytes, int ranks) {
  if (op == "broadcast") return contribution(op, 0, bytes, ranks);
  std::vector<uint8_t> out;
  if (op == "reduce") {
    out.resize(bytes);
    for (uint64_t i = 0; i < bytes / 4; ++i) {
      float sum = 0;
      for (int r = 0; r < ranks; ++r) sum += float(int(pattern(r, i)) - 128);
      memcpy(&out[4 * i], &sum, 4);
    }
    return out;
  }
  for (int r = 0; r < ranks; ++r) {
    const std::vector<uint8_t> part = contribution(op, r, bytes, ranks);
    const uint64_t at = op == "alltoall" ? rank * bytes : 0;
    out.insert(out.end(), part.begin() + at, part.begin() + at + bytes);
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const int rank = atoi(argv[1]), ranks = atoi(argv[2]);
  const size_t room = strtoull(argv[4], nullptr, 10);
  check(cudaSetDevice(rank), "cudaSetDevice");
  start(rank, ranks, argv[3]);
  Args a{};
  a.target = static_cast<char*>(nvshmem_calloc(1, room));
  a.source = static_cast<char*>(nvshmem_calloc(1, room));
  a.words = static_cast<uint64_t*>(nvshmem_calloc(16, sizeof(uint64_t)));
  if (a.target == nullptr || a.source == nullptr || a.words == nullptr) return 3;
  const size_t most = size_t(2) * 512 * 1024;
  check(cudaMalloc(reinterpret_cast<void**>(&a.times), most * sizeof(uint64_t)), "cudaMalloc");
  a.rank = rank;
  a.peer = rank == 0 ? 1 : 0;

  std::string op, scope;
  int index;
  uint32_t blocks, warps, rounds, samples;
  while (std::cin >> index >> op >> scope >> a.bytes >> blocks >> warps >> rounds >> samples) {
    const Kernel kernel = kernel_of(op, scope);
    if (kernel == nullptr) continue;
    const bool moves = op == "put" || op == "get", adds = op.rfind("atomic", 0) == 0, alone = moves || adds;
    const bool gathers = op == "broadcast" || op == "fcollect" || op == "alltoall" || op == "reduce";
    const uint32_t threads = adds && blocks * warps == 1 ? 1 : scope == "thread" && !alone ? 1 : 32 * warps;
    const uint32_t groups = adds || scope == "thread" ? blocks * threads
                            : scope == "warp"         ? blocks * warps
                                                      : blocks;
    const std::vector<uint8_t> mine = contribution(op, rank, a.bytes, ranks);
    check(cudaMemset(a.target, 0xA5, std::min(room, size_t(a.bytes) * ranks)), "cudaMemset");
    if (adds) check(cudaMemset(a.target, 0, 8), "cudaMemset");
    check(cudaMemcpy(op == "get" ? a.target : a.source, mine.data(), mine.size(), cudaMemcpyHostToDevice),
          "cudaMemcpy");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    nvshmem_barrier_all();

    std::vector<double> found;
    std::vector<uint64_t> times(alone ? 2 * groups : samples + 1);
    auto run = [&] {
      void* arguments[] = {&a};
      const int failed = nvshmemx_collective_launch(reinterpret_cast<const void*>(kernel), dim3(blocks),
                                                    dim3(threads), arguments, 0, nullptr);
      if (failed != 0) exit(4);
      check(cudaDeviceSynchronize(), op.c_str());
      check(cudaMemcpy(times.data(), a.times, times.size() * 8, cudaMemcpyDeviceToHost), "cudaMemcpy");
    };
    a.rounds = rounds;
    const uint32_t launches = alone ? samples + 2 : 1;
    const uint32_t own_rounds = a.rounds;
    for (uint32_t launch = 0; launch < launches; ++launch) {
      // A launch is collective; a rank that has nothing to move goes through it with no rounds.
      a.rounds = alone && rank != 0 ? 0 : own_rounds;
      a.samples = samples + 1;
      run();
      a.first_round += uint64_t(own_rounds) * (samples + 1);
      if (!alone || launch < 2) continue;
      uint64_t first = ~uint64_t(0), last = 0;
      for (uint32_t g = 0; g < groups; ++g) {
        first = std::min(first, times[2 * g]);
        last = std::max(last, times[2 * g + 1]);
      }
      found.push_back(double(last - first) / own_rounds);
    }
    const double operations = double(own_rounds) * (op == "p" || op == "put_signal" ? 2 : 1);
    if (!alone) {
      for (uint32_t s = 1; s <= samples; ++s) found.push_back(double(times[s]) / operations);
    }
    nvshmem_barrier_all();

    std::vector<uint8_t> wanted, seen;
    if (moves && rank == (op == "put" ? 1 : 0))
      wanted = contribution(op, op == "put" ? 0 : 1, a.bytes, ranks);
    if (op == "put_signal") wanted = contribution(op, a.peer, a.bytes, ranks);
    // OpenSHMEM before 1.5 leaves the root's own target of a broadcast alone
    if (gathers && !(op == "broadcast" && rank == 0)) wanted = expected(op, rank, a.bytes, ranks);
    if (adds && rank == 1) {
      const uint64_t sum = uint64_t(launches) * own_rounds * blocks * threads;
      wanted.resize(8);
      memcpy(wanted.data(), &sum, 8);
    }
    seen.resize(wanted.size());
    if (!wanted.empty()) {
      check(cudaMemcpy(seen.data(), op == "get" ? a.source : a.target, seen.size(), cudaMemcpyDeviceToHost),
            "cudaMemcpy");
    }
    if (seen != wanted) {
      printf("wrong %d %s of %llu bytes at rank %d\n", index, op.c_str(),
             static_cast<unsigned long long>(a.bytes), rank);
      fflush(stdout);
      return 1;
    }
    if (!alone || rank == 0) {
      printf("%d", index);
      for (double ns : found) printf(" %.3f", ns);
      printf("\n");
      fflush(stdout);  // what has been measured counts, whatever comes
    }
    nvshmem_barrier_all();
  }
  fflush(stdout);
  nvshmem_finalize();
  return 0;
}
