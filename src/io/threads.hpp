// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Threads of the library never take the user's signals.
#pragma once
#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace mori::io {

template <class F>
std::thread start_thread(const char* name, F&& run) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited by the thread
  std::thread thread;
  try {
    thread = std::thread(std::forward<F>(run));
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread.native_handle(), name);  // at most 15 characters
  return thread;
}

}  // namespace mori::io
