// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Staging for programs without GPUs, so that they compile without drivers and kernels: nothing can be taken.
#include "src/io/backends/p2p/staging.hpp"

namespace mori::core {
CopyQueue::~CopyQueue() = default;
}  // namespace mori::core

namespace mori::io {

struct Staging::Buffer {};

namespace p2p {
Worker::~Worker() = default;
std::shared_ptr<core::Device> Gpus::open(int) { throw core::ConfigError("this program has no GPUs"); }
}  // namespace p2p

Staging::Staging(const P2pOptions& options) : options_(options), gpus_(options) {}
Staging::~Staging() = default;
Staging::Chunk Staging::take(const Region&) { return {}; }
Staging::Chunk::~Chunk() = default;
void Staging::Chunk::swap(Chunk&) noexcept {}
uint8_t* Staging::Chunk::data() const { return nullptr; }
void Staging::Chunk::queue(std::span<const Segment>, bool) {}
bool Staging::Chunk::ready() { return true; }

}  // namespace mori::io
