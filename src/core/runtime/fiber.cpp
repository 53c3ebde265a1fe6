// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Stacks, the switch itself, and the calls by which the sanitizers follow it.
#include "src/core/runtime/fiber.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include "src/core/errors.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(MORI_TSAN_FIBERS)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
}
#endif

// mori_fiber_switch(void** save, void* to): pushes the registers that a call preserves, stores the stack
// pointer in *save, takes the other one, pops. Floating-point control words are left alone: kernels do not
// change them. mori_fiber_start is where a prepared stack "returns" to: it calls enter(self) from two
// preserved registers; the undefined return address ends every unwinder's walk there.
#if !defined(MORI_FIBER_UCONTEXT)
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.hidden mori_fiber_switch
.globl mori_fiber_switch
.type mori_fiber_switch,@function
mori_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mori_fiber_switch,.-mori_fiber_switch
.hidden mori_fiber_start
.globl mori_fiber_start
.type mori_fiber_start,@function
mori_fiber_start:
  .cfi_startproc
  .cfi_undefined rip
  movq %rbx, %rdi
  callq *%r12
  ud2
  .cfi_endproc
.size mori_fiber_start,.-mori_fiber_start
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.hidden mori_fiber_switch
.globl mori_fiber_switch
.type mori_fiber_switch,%function
mori_fiber_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size mori_fiber_switch,.-mori_fiber_switch
.hidden mori_fiber_start
.globl mori_fiber_start
.type mori_fiber_start,%function
mori_fiber_start:
  .cfi_startproc
  .cfi_undefined x30
  mov x0, x19
  blr x20
  brk #1
  .cfi_endproc
.size mori_fiber_start,.-mori_fiber_start
)");
#endif
extern "C" void mori_fiber_switch(void** save, void* to);
extern "C" void mori_fiber_start();
#endif

namespace mori::core {
namespace {

size_t page_bytes() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

void* allocate_fiber_stack() {
  const size_t guard = page_bytes();
  void* base = mmap(nullptr, kFiberStackBytes + guard, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base != MAP_FAILED && mprotect(base, guard, PROT_NONE) == 0) return static_cast<char*>(base) + guard;
  const std::error_code why(errno, std::generic_category());
  if (base != MAP_FAILED) munmap(base, kFiberStackBytes + guard);
  throw CapacityError("no memory for the stack of another lane (" + why.message() +
                      "); launch fewer blocks or warps that wait for each other, or raise vm.max_map_count");
}

void free_fiber_stack(void* stack) noexcept {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, kFiberStackBytes);
#endif
  munmap(static_cast<char*>(stack) - page_bytes(), kFiberStackBytes + page_bytes());
}

void Fiber::adopt_thread() {
#if defined(MORI_TSAN_FIBERS)
  tsan_ = __tsan_get_current_fiber();
#endif
#if defined(__SANITIZE_ADDRESS__)
  pthread_attr_t attributes;
  void* bottom = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &bottom, &stack_bytes_);
    pthread_attr_destroy(&attributes);
  }
  stack_bottom_ = bottom;
#endif
}

void Fiber::prepare(void* stack, void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  stack_bottom_ = stack;
  stack_bytes_ = kFiberStackBytes;
  asan_fake_stack_ = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, kFiberStackBytes);  // frames of whoever was abandoned on it
#endif
#if defined(MORI_TSAN_FIBERS)
  tsan_ = __tsan_create_fiber(0);
#endif
#if defined(MORI_FIBER_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = kFiberStackBytes;
  context_.uc_link = nullptr;
  // makecontext passes ints only: the pointer travels in two halves.
  const auto bits = reinterpret_cast<uintptr_t>(this);
  const auto trampoline = +[](unsigned high, unsigned low) {
    enter(reinterpret_cast<void*>(uintptr_t(uint64_t(high) << 32 | low)));
  };
  makecontext(&context_, reinterpret_cast<void (*)()>(trampoline), 2, unsigned(uint64_t(bits) >> 32),
              unsigned(bits));
#else
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack) + kFiberStackBytes);
  void* const start = reinterpret_cast<void*>(&mori_fiber_start);
  void* const call = reinterpret_cast<void*>(&Fiber::enter);
#if defined(__x86_64__)
  // Popped upwards: r15 r14 r13 r12 rbx rbp, return address. 16-byte alignment holds at the call.
  void** frame = top - 9;
  for (int i = 0; i < 9; ++i) frame[i] = nullptr;
  frame[3] = call;
  frame[4] = this;
  frame[6] = start;
#elif defined(__aarch64__)
  void** frame = top - 20;
  for (int i = 0; i < 20; ++i) frame[i] = nullptr;
  frame[0] = this;    // x19
  frame[1] = call;    // x20
  frame[11] = start;  // x30
#endif
  stack_pointer_ = frame;
#endif
}

void Fiber::enter(void* self) {
  Fiber* fiber = static_cast<Fiber*>(self);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  fiber->entry_(fiber->argument_);
  __builtin_unreachable();
}

void Fiber::transfer(Fiber& from, Fiber& to, [[maybe_unused]] bool last) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.asan_fake_stack_, to.stack_bottom_, to.stack_bytes_);
#endif
#if defined(MORI_TSAN_FIBERS)
  __tsan_switch_to_fiber(to.tsan_, 1);  // 1: the switch itself orders nothing
#endif
#if defined(MORI_FIBER_UCONTEXT)
  swapcontext(&from.context_, &to.context_);
#else
  mori_fiber_switch(&from.stack_pointer_, to.stack_pointer_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.asan_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::retire() noexcept {
#if defined(MORI_TSAN_FIBERS)
  if (tsan_ == nullptr) return;
  void* const home = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_, 1);
  __tsan_switch_to_fiber(home, 0);  // 0: what came before, on the fiber, is ordered before what follows
  __tsan_destroy_fiber(tsan_);
  tsan_ = nullptr;
#endif
}

}  // namespace mori::core
