// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/verbs/memory.hpp"

#include <cerrno>
#include <cstring>

namespace mori::verbs {

Mr* Registrar::host(uint64_t address, uint64_t bytes, std::string* why) const {
  errno = 0;
  Mr* mr = v.reg_mr(pd, reinterpret_cast<void*>(address), bytes, access);
  if (mr == nullptr) {
    const int error = errno;
    *why = who + ": " + std::strerror(error);
    if (error == ENOMEM) *why += " (is the limit of locked memory, ulimit -l, too low?)";
  }
  return mr;
}

Mr* Registrar::dmabuf(const Dmabuf& memory, uint64_t address, uint64_t bytes, std::string* why) const {
  if (v.reg_dmabuf_mr == nullptr) {
    *why = who + ": this libibverbs knows no dma-buf";
    return nullptr;
  }
  errno = 0;
  Mr* mr = v.reg_dmabuf_mr(pd, memory.offset, bytes, address, memory.fd.get(), access);
  if (mr == nullptr) *why = who + ": dma-buf refused: " + std::strerror(errno);
  return mr;
}

Mr* Registrar::gpu(const std::optional<Dmabuf>& exported, const std::string& refusal, uint64_t address,
                   uint64_t bytes, std::string* why) const {
  std::string first = refusal, second;
  if (exported) {
    if (Mr* mr = dmabuf(*exported, address, bytes, &first)) return mr;
  }
  if (Mr* mr = host(address, bytes, &second)) return mr;
  *why = "GPU memory: " + first + "; as peer memory: " + second;
  return nullptr;
}

}  // namespace mori::verbs
