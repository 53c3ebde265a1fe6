// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What two rdma backends tell each other over the control connection: what a region's owner gives to an
// initiator (Attachment), and how a rail is opened and closed. Little-endian, a version byte first, every
// count bounded; decoding throws core::TransportError for anything else. docs/io_rdma.md has the protocol.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/transport/verbs/port.hpp"

namespace mori::io::rdma {

inline constexpr size_t kMaxNics = 16;  ///< of one engine
inline constexpr size_t kMaxQueuesPerRail = 32;
inline constexpr size_t kMaxWords = 512;  ///< of a name or a reason

using verbs::Address;

/// A NIC that a region is registered with.
struct NicCard {
  uint8_t index = 0;  ///< the owner's number for it
  uint32_t rkey = 0;
  uint32_t gbit_per_s = 0;
  Address address;
  std::string name;
  bool operator==(const NicCard&) const = default;
};

struct Attachment {
  uint64_t address = 0;  ///< of the region's first byte, as rkeys count
  std::vector<NicCard> nics;
  std::string reason;  ///< why there are none, or fewer than wished
  bool operator==(const Attachment&) const = default;
};

struct QueueEnd {
  uint32_t number = 0;
  uint32_t psn = 0;
  bool operator==(const QueueEnd&) const = default;
};

/// One end of a rail. In a request `nic` is the answerer's number of the NIC to use.
struct RailEnd {
  uint64_t epoch = 0;
  uint8_t nic = 0;
  uint8_t read_depth = 0;  ///< READs in flight per queue pair: wished, then granted
  Address address;
  uint64_t pad = 0;  ///< answer only: 8 bytes that the first write over the rail may overwrite
  uint32_t pad_rkey = 0;
  std::vector<QueueEnd> queues;
  bool operator==(const RailEnd&) const = default;
};

enum class Verb : uint8_t { open = 1, close = 2 };

std::string encode(const Attachment& attachment);
Attachment decode_attachment(std::string_view bytes);

std::string encode_open(const RailEnd& end);
std::string encode_close(uint64_t epoch);
/// Reads the version and verb; the rest is for the functions below.
Verb decode_verb(std::string_view& bytes);
RailEnd decode_end(std::string_view bytes);
uint64_t decode_epoch(std::string_view bytes);
std::string encode_answer(const RailEnd& end);
RailEnd decode_answer(std::string_view bytes);

}  // namespace mori::io::rdma
