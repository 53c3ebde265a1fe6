// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Many threads (RANKS of the command line) use one CPU device at once: streams come and go, kernels run on
// them and on stream 0, some diverge, memory is allocated and shared.
#include <thread>
#include <vector>

#include "src/core/device/selftest.hpp"
#include "tests/sanitize/ranks.hpp"

using namespace mori;
using namespace mori::sanitize;

namespace {

void work(core::Device& device, const Options& o, uint32_t index, std::atomic<int>& wrong) {
  const core::LaunchShape shape{o.blocks, o.warps};
  for (uint32_t round = 0; round < 3 * o.rounds; ++round) {
    const uint64_t stream = index % 2 ? device.create_stream() : 0;
    const size_t row = 64, bytes = row * o.blocks * o.warps;
    const uint64_t from = device.allocate(bytes), to = device.allocate(bytes);
    device.fill(from, uint8_t(index + round), bytes);
    SelfTestArgs copy{};
    copy.in = from;
    copy.out = to;
    copy.count = row;
    device.launch(device.function("selftest", "selftest_copy", sizeof copy), shape, stream, &copy);
    device.synchronize(stream);
    for (size_t i = 0; i < bytes; ++i) wrong += reinterpret_cast<uint8_t*>(to)[i] != uint8_t(index + round);

    SelfTestArgs diverge{};
    diverge.value = 5;
    bool thrown = false;
    try {
      device.launch(device.function("selftest", "selftest_diverge", sizeof diverge), shape, stream, &diverge);
      device.synchronize(stream);
    } catch (const core::Error&) {
      thrown = true;
    }
    wrong += !thrown;

    const size_t granule = device.share_granularity();
    const uint64_t window = device.reserve(granule);
    core::Shareable memory = device.create_shareable(granule);
    device.map(window, memory);
    device.fill(window, 1, 4096);
    device.unmap(window, granule);
    device.release(memory);
    device.unreserve(window, granule);
    if (stream != 0) device.destroy_stream(stream);
    device.free(from);
    device.free(to);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const std::shared_ptr<core::Device> device = core::open_cpu(0, {o.kernel_dir, o.lanes, o.threads});
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < o.ranks; ++i) threads.emplace_back([&, i] { work(*device, o, i, wrong); });
  for (std::thread& thread : threads) thread.join();
  return wrong != 0;
}
