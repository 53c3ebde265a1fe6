// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Every function of queue.hpp, called from every lane: what tests/build looks at as machine code.
#include "src/transport/ibgda/queue.hpp"

namespace mori {

struct QueueCodeArgs {
  World world;
  uint64_t queues;    ///< ibgda::Queue[]
  uint64_t requests;  ///< ibgda::Request[], one of each lane
};

MORI_KERNEL(queue_code, QueueCodeArgs, 512) {
  const uint32_t lane = block_lane();
  ibgda::Queue* queue = global<ibgda::Queue>(args.queues) + (lane & 3u);
  const ibgda::Request& request = global<const ibgda::Request>(args.requests)[lane];
  uint64_t position = ibgda::post_lanes(args.world, queue, request, (lane & 1u) != 0);
  if ((lane & 7u) != 0) position = ibgda::post(args.world, *queue, request);
  if (ibgda::wait_completed(args.world, *queue, position))
    static_cast<void>(ibgda::quiet(args.world, *queue));
}

}  // namespace mori
