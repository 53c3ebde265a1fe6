// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// process_vm_readv and process_vm_writev: the kernel copies between two address spaces, many blocks a call.
// Needs the right to trace the other process (same user; a ptrace scope or a seccomp filter may forbid it).
//
// A pid can come back as another process, and exec() replaces an address space. So 16 random bytes lie in
// the owner's memory: each read brings them along, each write is preceded by a call that reads them.
#pragma once
#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>

#include "src/io/types.hpp"

namespace mori::io::shm {

using Probe = std::array<uint8_t, 16>;

/// The system calls that may be forbidden, so that tests can forbid them.
struct System {
  ssize_t (*read)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);
  ssize_t (*write)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);
  int (*open_fd)(pid_t pid, int fd, int flags);  ///< opens what another process has open; -1 with errno
  int (*allow_tracer)(pid_t);                    ///< lets that process trace this one; -1 with errno
};
const System& real_system();

/// Another process's memory, and how to know that it is still that process.
struct Remote {
  pid_t pid = 0;
  uint64_t probe_address = 0;
  Probe probe{};
  uint64_t address = 0;  ///< of the region
};

/// 0 if the process answers with its probe; ESRCH if it is gone or is another one; else the errno of the
/// call.
int check_alive(const System& system, const Remote& remote);

/// At most kPieceSegments segments.
inline constexpr size_t kPieceSegments = 1023;  // IOV_MAX, and the probe
Outcome carry(const System& system, const Remote& remote, Op op, uint8_t* local,
              std::span<const Segment> segments);

/// In words, with the remedy: what a refused process_vm_readv means.
std::string explain_refusal(int error);

}  // namespace mori::io::shm
