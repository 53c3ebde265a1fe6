// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Who carries out what the software NIC has read from an entry and checked: a mover executes requests at the
// peer. `shm` (shm_mover.hpp) is load and store into memory that is mapped here; others are asynchronous and
// reach other hosts. docs/host_proxy.md.
//
//   outcome = mover.submit(queue, request);     done, with its fault; or pending; or no room yet
//   mover.poll(finished);                       finished(queue, fault), in the queue's order
//
// All calls are the NIC's, one at a time: regions stay as they are during a call, and may change between two.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>

#include "src/transport/ibgda/softnic/fault.hpp"
#include "src/transport/ibgda/softnic/regions.hpp"

namespace mori::ibgda {

struct Outcome {
  enum class State : uint32_t {
    done,  ///< the request is over: refused with `fault`, or executed while nothing of its queue is pending
    pending,  ///< poll() will tell
    busy,     ///< nothing was taken: submit it again later
  };
  State state = State::done;
  Fault fault = Fault::none;
};

class Mover {
 public:
  using Finished = std::function<void(uint32_t queue, Fault fault)>;

  virtual ~Mover() = default;
  /// Before the first submit(). `regions`: this rank's memory, which peers' requests and answers touch; a
  /// mover asks it anew whenever it touches memory later than in submit().
  virtual void open(const Regions& regions) = 0;

  /// Executes the request behind all that were submitted for this queue before. The NIC has found entry and
  /// local memory good; the remote side is the mover's to check. An inline payload (`local` of a request with
  /// kInline) is gone after the call.
  virtual Outcome submit(uint32_t queue, const Request& request) = 0;
  /// Goes on with what is pending. Whether there was something to do. After its first fault nothing more is
  /// reported of a queue, and nothing more is submitted to it.
  virtual bool poll(const Finished& finished) = 0;
  /// Until there may be something to do, or the time is over. Called without the NIC's lock.
  virtual void wait(std::chrono::microseconds time) = 0;
  /// The last call: says goodbye to the peers.
  virtual void close() = 0;
};

}  // namespace mori::ibgda
