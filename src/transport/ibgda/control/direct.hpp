// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What a vendor's direct-verbs library says of a queue pair that verbs made: where its rings and registers
// are. One row for each family in direct.cpp; opened at run time, never linked.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "src/transport/ibgda/types.hpp"
#include "src/transport/verbs/library.hpp"

namespace mori::ibgda {

/// Addresses are the host's.
struct DirectView {
  uint64_t sq = 0, sq_bytes = 0;
  uint64_t cq = 0, cq_bytes = 0;
  uint64_t record = 0;     ///< two be32
  uint64_t cq_record = 0;  ///< a be32
  uint64_t doorbell = 0;
  uint32_t depth = 0;  ///< units
  uint32_t cq_depth = 0;
  uint32_t cqn = 0;
  uint32_t blueflame = 0;
  uint32_t max_inline = 0;  ///< of our encoder
};

class DirectVerbs {
 public:
  virtual ~DirectVerbs() = default;
  virtual Family family() const = 0;
  /// Throws core::TransportError for a form that kernels do not read.
  virtual DirectView view(verbs::Qp* qp, verbs::Cq* cq) const = 0;
};

/// The library for a device of this PCI vendor. `path`: instead of its usual name. Throws
/// core::TransportError: no family of this vendor, no library, too old, or a family whose library gives no
/// rings.
std::unique_ptr<DirectVerbs> open_direct(uint32_t vendor, verbs::Device* device, const std::string& who,
                                         const std::string& path = {});

/// A row for people: `mori doctor` asks.
struct DirectLibrary {
  Family family;
  const char* name;     ///< of the family
  uint32_t vendor;      ///< PCI
  const char* library;  ///< soname
  const char* symbol;   ///< that rings come from
};
const DirectLibrary* direct_libraries(size_t* count);
/// Empty, or why queues of this row cannot be made here.
std::string direct_problem(const DirectLibrary& row, const std::string& path = {});

}  // namespace mori::ibgda
