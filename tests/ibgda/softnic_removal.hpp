// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A region that is removed while its bytes are copied: removal waits, so what is written there later is
// copied by nobody. The copy is held by a page that may not be written: the fault's handler lets it go on
// once the region is removed, or, where removal waits as it should, after a while.
#pragma once
#include <signal.h>
#include <sys/mman.h>

#include <atomic>

#include "tests/ibgda/softnic_bench.hpp"

namespace removal {

inline constexpr uint64_t kBytes = 1 << 16, kPage = 4096;
inline unsigned char* target = nullptr;
inline std::atomic<bool> copying{false}, removed{false};

inline void sleep_ms(long ms) {
  const timespec pause{0, ms * 1'000'000};
  nanosleep(&pause, nullptr);
}

inline void hold(int, siginfo_t*, void*) {
  copying = true;
  for (int i = 0; i < 50 && !removed; ++i) sleep_ms(2);
  mprotect(target + kBytes / 2, kPage, PROT_READ | PROT_WRITE);
}

inline void check(Family family) {
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return complain("no memory to copy into");
  target = static_cast<unsigned char*>(memory);
  mprotect(target + kBytes / 2, kPage, PROT_NONE);
  copying = removed = false;
  struct sigaction action{}, before{};
  action.sa_sigaction = hold;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
  {
    std::vector<unsigned char> from(kBytes, 1);
    Bench b(family);
    b.nic.connect(&b.queue, {Bench::kThere, kBytes, b.rkey, Bench::address(target)});
    const uint32_t key = b.nic.add_region(Bench::address(from.data()), kBytes).local;
    Request r = b.write(uint32_t(kBytes));
    r.lkey = key;
    r.local = Bench::address(from.data());
    b.nic.start();
    b.post(r);
    for (int i = 0; i < 5000 && !copying; ++i) sleep_ms(2);
    b.nic.remove_region(key);
    std::memset(from.data(), 2, kBytes);
    removed = true;
    Completion c;
    if (!b.wait(c) || c.failed) complain("a copy that had begun failed");
    b.nic.stop();
    if (!copying) complain("the copy was not held");
    if (std::memchr(target, 2, kBytes) != nullptr) complain("a region was removed and still copied from");
    b.post(r);
    b.nic.start();
    if (!b.wait(c) || c.status != status_of(family, Fault::local_protection))
      complain("a region that was removed may still be read");
  }
  sigaction(SIGSEGV, &before, nullptr);
  munmap(memory, kBytes);
}

}  // namespace removal
