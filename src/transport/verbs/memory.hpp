// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Registering memory with a NIC: host memory, a dma-buf, or GPU memory by whichever way works. Null with the
// reason, which begins with `who`.
#pragma once
#include <string>

#include "src/transport/verbs/gpu_memory.hpp"
#include "src/transport/verbs/library.hpp"

namespace mori::verbs {

struct Registrar {
  const Library& v;
  Pd* pd;
  int access;  ///< AccessFlags
  std::string who;

  Mr* host(uint64_t address, uint64_t bytes, std::string* why) const;
  Mr* dmabuf(const Dmabuf& memory, uint64_t address, uint64_t bytes, std::string* why) const;
  /// GPU memory: the dma-buf if there is one (`exported`; else `refusal` says why not), then the driver's
  /// peer memory, which takes GPU addresses like host ones. Whether either works is seen here.
  Mr* gpu(const std::optional<Dmabuf>& exported, const std::string& refusal, uint64_t address, uint64_t bytes,
          std::string* why) const;
};

}  // namespace mori::verbs
