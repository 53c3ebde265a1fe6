// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Fibers: places of execution with a stack of their own, switched by hand. The lane-accurate CPU target
// runs every lane of a warp as one. A switch costs about 15 ns (x86-64 and aarch64 assembly; other
// machines, and -DMORI_UCONTEXT, use the C library's ucontext at about ten times that).
//
// Fibers never move between threads. Two sanitizers are told about them:
//   AddressSanitizer   when this file is compiled with it: the bounds of the stack in use
//   ThreadSanitizer    with -DMORI_TSAN_FIBERS: every fiber is a thread to it. fiber.cpp and
//                      cpu_scheduler.cpp are then compiled WITHOUT -fsanitize=thread, because their own
//                      bookkeeping would be reported; all else with it (docs/memory_model.md).
#pragma once
#include <cstddef>

#if defined(MORI_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
#define MORI_FIBER_UCONTEXT 1
#include <ucontext.h>
#endif

namespace mori::core {

/// Usable bytes of a fiber's stack; a guard page lies below it.
inline constexpr size_t kFiberStackBytes = 64 << 10;

/// Lowest usable byte of a fresh stack. Throws CapacityError when the system has no mapping left.
void* allocate_fiber_stack();
void free_fiber_stack(void* stack) noexcept;

class Fiber {
 public:
  /// The calling thread's own place of execution, filled by the first switch away from it.
  void adopt_thread();
  /// The next switch to this fiber calls entry(argument) on `stack`. entry must not return. To
  /// ThreadSanitizer, what the caller did before is ordered before it.
  void prepare(void* stack, void (*entry)(void*), void* argument);
  /// Leaves `from`, which must be running, and continues `to`. Returns when somebody switches back.
  static void switch_to(Fiber& from, Fiber& to) { transfer(from, to, false); }
  /// The same for a fiber that will never be continued; does not return. Its stack is free afterwards.
  [[noreturn]] static void finish(Fiber& from, Fiber& to) {
    transfer(from, to, true);
    __builtin_unreachable();
  }
  /// Ends the fiber for ThreadSanitizer, wherever it stopped: all it did is ordered before what the caller
  /// does next. Not for the running fiber.
  void retire() noexcept;

 private:
  static void transfer(Fiber& from, Fiber& to, bool last);
  [[noreturn]] static void enter(void* self);

#if defined(MORI_FIBER_UCONTEXT)
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // What the sanitizers want kept. Always present, so that objects compiled with and without them agree.
  void* tsan_ = nullptr;
  void* asan_fake_stack_ = nullptr;
  const void* stack_bottom_ = nullptr;
  size_t stack_bytes_ = 0;
};

#if defined(MORI_TSAN_FIBERS)
inline constexpr bool kTsanFibers = true;
extern "C" {
void __tsan_acquire(void*);
void __tsan_release(void*);
}
/// Tell ThreadSanitizer that what came before a release at an address is ordered before its acquires.
inline void tsan_release(void* address) { __tsan_release(address); }
inline void tsan_acquire(void* address) { __tsan_acquire(address); }
#else
inline constexpr bool kTsanFibers = false;
inline void tsan_release(void*) {}
inline void tsan_acquire(void*) {}
#endif

}  // namespace mori::core
