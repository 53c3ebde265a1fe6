// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What travels between two software NICs: docs/host_proxy.md, "The protocol of tcp". Numbers are
// little-endian, as on all processors that MoRI runs on.
#pragma once
#include <array>
#include <cstdint>
#include <type_traits>

namespace mori::ibgda::tcp {

inline constexpr uint64_t kMagic = 0x0131'4349'4e49'524dull;  // "MRINIC1", version 1
inline constexpr uint32_t kLanes = 64;                        ///< queues of a connection

using Secret = std::array<unsigned char, 16>;

/// Where a NIC listens and what opens its door. Travels over the mesh.
struct Door {
  char host[46];  ///< numeric, 0-terminated
  uint16_t port;
  Secret secret;
};

/// The first bytes of both sides. Each says the secret of the other one's door.
struct Hello {
  uint64_t magic = kMagic;
  uint32_t rank = 0;  ///< of who says it
  uint32_t world = 0;
  Secret secret{};
};

/// In front of a request; behind it come Operands (atomics) or `length` bytes (writes).
struct RequestHead {
  uint8_t op;    ///< Op
  uint8_t lane;  ///< which of the connection's queues
  uint16_t zero;
  uint32_t length;
  uint64_t remote;
  uint32_t rkey;
  uint32_t zero_too;
};
struct Operands {
  uint64_t value, compare, value_mask, compare_mask;
};

enum class Answer : uint8_t {
  done = 1,  ///< the next `count` requests, all writes, are done
  data = 2,  ///< of the next, a read: `count` bytes follow
  word = 3,  ///< of the next, an atomic
  no = 4,    ///< to the next: `fault`
};
struct AnswerHead {
  Answer kind;
  uint8_t fault;  ///< Fault
  uint16_t zero;
  uint32_t count;
  uint64_t word;
};

static_assert(sizeof(Door) == 64 && sizeof(Hello) == 32 && sizeof(RequestHead) == 24 &&
              sizeof(Operands) == 32 && sizeof(AnswerHead) == 16);

}  // namespace mori::ibgda::tcp
