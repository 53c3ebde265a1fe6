// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The mover over TCP: this rank's requests travel to the peers' software NICs, which execute them, and theirs
// are executed here. docs/host_proxy.md.
//
//   TcpMover mover({.rank = 0, .world = 2});       listens
//   doors[r] = rank r's mover.door()               carried by the mesh
//   nic.create_queue(&queue, {.mover = &mover});   gives a number
//   mover.add_queue(number, peer);
//   mover.connect(peer, doors[peer]);              dials; before the NIC starts
#pragma once
#include <sys/epoll.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/transport/ibgda/softnic/mover.hpp"
#include "src/transport/ibgda/tcp/caller.hpp"
#include "src/transport/ibgda/tcp/guest.hpp"

namespace mori::ibgda::tcp {

struct TcpOptions {
  uint32_t rank = 0, world = 1;
  std::string address = "127.0.0.1";          ///< numeric: where to listen, and what peers dial
  std::chrono::milliseconds timeout{15'000};  ///< of connecting, and without any sign of life
};

class TcpMover final : public Mover {
 public:
  explicit TcpMover(const TcpOptions& options);

  const Door& door() const { return door_; }
  void add_queue(uint32_t queue, uint32_t peer);
  /// Once for each peer; again it does nothing. Throws TransportError.
  void connect(uint32_t peer, const Door& door);

  void open(const Regions& regions) override { regions_ = &regions; }
  Outcome submit(uint32_t queue, const Request& request) override;
  bool poll(const Finished& finished) override;
  void wait(std::chrono::microseconds time) override;
  void close() override;

  /// Why the peer was lost, naming it and its address; empty: it was not. Any thread.
  std::string trouble(uint32_t peer) const;
  /// Who was turned away, and why: the first hundred. Any thread.
  std::vector<std::string> turned_away() const;

 private:
  struct Lane {
    Caller* caller = nullptr;
    uint32_t peer = 0, lane = 0;
  };
  template <class T>
  struct Watched {
    std::unique_ptr<T> of;
    uint32_t events = 0;  ///< that epoll looks for
    bool ready = false;
  };
  enum class Kind : uint32_t { door, caller, guest };

  void note(const epoll_event& event);
  void welcome();
  bool serve_callers(const Finished& finished);
  bool serve_guests();
  template <class T>
  void watch(Watched<T>& watched, Kind kind, uint64_t index);

  TcpOptions options_;
  House house_;
  Door door_{};
  core::Fd epoll_, listener_;
  const Regions* regions_ = nullptr;
  std::vector<Lane> lanes_;               ///< by the NIC's number
  std::vector<Watched<Caller>> callers_;  ///< by rank
  std::vector<Watched<Guest>> guests_;    ///< places are used again
  std::vector<uint32_t> lanes_of_;        ///< queues of each peer
  mutable std::mutex said_;
  std::vector<std::string> troubles_;  ///< by rank
  std::vector<std::string> turned_away_;
};

}  // namespace mori::ibgda::tcp
