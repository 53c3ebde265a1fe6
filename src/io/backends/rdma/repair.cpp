// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The repair thread. For a link with a broken rail:
//   1. the rail's queue pairs are in the error state; wait until their work is flushed, then destroy them:
//      from here on this side sends nothing of it and writes nothing into local memory
//   2. what was under way is in limbo: some of it may have arrived, some may be in the network still
//   3. ask the peer to close its end; its answer means that no packet of the rail can land there any more
//   4. only then post what was in limbo again, over another rail or a fresh one
// READs need no step 3: they write into local memory only.
#include <algorithm>

#include "src/io/backends/rdma/rdma_backend.hpp"
#include "src/io/errors.hpp"

namespace mori::io::rdma {
namespace {

constexpr std::chrono::milliseconds kFlush{200};  ///< a queue pair that does not flush is destroyed as it is
constexpr std::chrono::seconds kConnect{10};      ///< for all rails of a link together

}  // namespace

void RdmaBackend::request_repair(Link& link) {
  if (link.repairing) return;
  link.repairing = true;
  to_repair_.push_back(link.shared_from_this());
  repair_wake_.notify_all();
}

void RdmaBackend::repair_loop() {
  Lock lock(mutex_);
  for (;;) {
    repair_wake_.wait(lock, [this] { return closing_ || !to_repair_.empty(); });
    if (closing_) return;
    const std::shared_ptr<Link> link = to_repair_.front();
    to_repair_.erase(to_repair_.begin());
    repair(link, lock);
  }
}

void RdmaBackend::repair(const std::shared_ptr<Link>& link, Lock& lock) {
  const auto release = [&] {  // nothing that calls back under the mutex
    Done done = take_done();
    lock.unlock();
    deliver(std::move(done));
  };
  const auto broken = [](const std::unique_ptr<Rail>& rail) { return rail->state == Rail::State::failed; };
  bool connected = false;
  for (;;) {
    const auto at = std::find_if(link->rails.begin(), link->rails.end(), broken);
    if (at == link->rails.end()) {
      if (link->lost || connected) break;
      connected = true;
      release();
      connect_rails(*link, Clock::now() + kConnect, nullptr, nullptr);
      lock.lock();
      pump(*link);
      continue;
    }
    if (connected && !link->lost) break;  // other links wait too: this one comes again
    Rail* rail = at->get();
    const uint64_t epoch = rail->epoch;
    changed_.wait_for(lock, kFlush, [&] { return closing_ || rail->drained(); });
    const auto still =
        std::find_if(link->rails.begin(), link->rails.end(), [&](const auto& r) { return r.get() == rail; });
    std::unique_ptr<Rail> taken = std::move(*still);
    link->rails.erase(still);
    const std::vector<Limbo> limbo = dismantle(*link, *taken);
    release();
    taken.reset();  // the queue pairs are gone when this returns
    lock.lock();
    std::vector<Limbo> reads, writes;
    for (const Limbo& l : limbo) (l.work->write ? writes : reads).push_back(l);
    resolve(*link, reads, {}, StatusCode::success);
    if (link->lost) {
      resolve(*link, writes, link->reason, StatusCode::err_peer_lost);
      continue;
    }
    release();
    std::string doubt;
    StatusCode code = StatusCode::success;
    try {
      link->peer.ask("rdma", encode_close(epoch), Clock::now() + config_.quiesce);
    } catch (const TimeoutError& error) {
      doubt = "rdma: a rail broke and " + link->peer.engine() + " does not confirm its end: " + error.what();
      code = StatusCode::err_timeout;
    } catch (const PeerLost& error) {
      doubt = error.what();
      code = StatusCode::err_peer_lost;
    } catch (const std::exception&) {
      // It answered, if only to refuse: its rdma backend is gone, and the queue pairs with it.
    }
    lock.lock();
    resolve(*link, writes, doubt, code);
    pump(*link);
  }
  if (link->lost) {
    std::vector<Work*> all;
    for (const auto& entry : link->works) all.push_back(entry.first);
    for (Work* work : all) {
      stop(*link, *work, StatusCode::err_peer_lost, link->reason, false);
      settle(*link, *work);
    }
    std::erase(active_, link);
  }
  link->repairing = false;
  if (std::any_of(link->rails.begin(), link->rails.end(), broken)) {
    request_repair(*link);
  } else {
    review(*link);
  }
  release();
  lock.lock();
}

std::vector<RdmaBackend::Limbo> RdmaBackend::dismantle(Link& link, Rail& rail) {
  std::vector<Limbo> limbo;
  std::vector<Work*> touched;
  for (Queue& queue : rail.queues) {
    for (; queue.confirmed < queue.posted; ++queue.confirmed) {
      const Queue::Entry& entry = queue.at(queue.confirmed);
      --in_flight_;
      --entry.work->under_way;
      ++entry.work->limbo;
      ++resent_;
      limbo.push_back({entry.work, entry.range});
      if (touched.empty() || touched.back() != entry.work) touched.push_back(entry.work);
    }
  }
  std::sort(touched.begin(), touched.end());
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  for (Work* work : touched) {
    if (!rail.on_purpose && ++work->recoveries > config_.max_recoveries) {
      stop(link, *work, StatusCode::err_rdma_op,
           rail.reason + "; rails broke " + std::to_string(work->recoveries) + " times under this transfer",
           true);
    }
  }
  return limbo;
}

void RdmaBackend::resolve(Link& link, const std::vector<Limbo>& limbo, const std::string& doubt,
                          StatusCode code) {
  for (const auto& [work, range] : limbo) {
    if (code != StatusCode::success) stop(link, *work, code, doubt, false);
    work->again(range);
    --work->limbo;
    enqueue(link, *work);
  }
  // Apart from the loop: settling ends works, and several entries are of one.
  std::vector<Work*> works;
  for (const Limbo& l : limbo) works.push_back(l.work);
  std::sort(works.begin(), works.end());
  works.erase(std::unique(works.begin(), works.end()), works.end());
  for (Work* work : works) settle(link, *work);
}

// ---- making rails --------------------------------------------------------------------------------------

void RdmaBackend::connect_rails(Link& link, Deadline deadline, const LocalMemory* local,
                                const RdmaRoute* route) {
  Lock turn(mutex_);
  const auto mine = [&] { return !link.connecting || closing_; };
  const Deadline patience = std::min(deadline, Clock::now() + std::chrono::hours(1));
  if (!changed_.wait_until(turn, patience, mine) || closing_) return;
  link.connecting = true;
  turn.unlock();
  make_rails(link, deadline, local, route);
  turn.lock();
  link.connecting = false;
  changed_.notify_all();
}

void RdmaBackend::make_rails(Link& link, Deadline deadline, const LocalMemory* local,
                             const RdmaRoute* route) {
  for (;;) {
    Candidate candidate;
    {
      Lock lock(mutex_);
      if (link.lost || closing_) return;
      size_t up = 0;
      bool tried = false;
      for (const auto& rail : link.rails) {
        if (rail->state != Rail::State::up) continue;
        up += route == nullptr || route->uses(*rail, *local);
      }
      if (up >= config_.nics_per_transfer) return;
      const auto now = Clock::now();
      link.next_attempt = now + config_.retry_after;
      for (Candidate& c : link.candidates) {
        if (c.not_before > now || c.nic->dead) continue;
        if (route != nullptr && (!route->keys[c.card.index] || local->on(c.nic->index()) == nullptr))
          continue;
        const bool taken = std::any_of(link.rails.begin(), link.rails.end(), [&](const auto& rail) {
          return rail->state == Rail::State::up &&
                 (&rail->nic == c.nic || rail->remote.index == c.card.index);
        });
        if (taken) continue;
        c.not_before = now + config_.retry_after;
        candidate = c;
        tried = true;
        break;
      }
      if (!tried) return;
    }
    std::string reason;
    std::unique_ptr<Rail> rail;
    try {
      rail = open_rail(link, candidate, std::min(deadline, Clock::now() + config_.probe));
    } catch (const std::exception& error) {
      reason = error.what();
    }
    Lock lock(mutex_);
    for (Candidate& c : link.candidates) {
      if (c.nic == candidate.nic && c.card.index == candidate.card.index) {
        c.reason = reason;
        if (rail != nullptr) c.not_before = {};
      }
    }
    if (rail == nullptr) {
      link.reason = reason;
      continue;
    }
    if (link.lost || closing_) {
      lock.unlock();
      return;
    }
    ++rails_opened_;
    verbs::request_notify(rail->cq);  // the progress thread may be asleep
    link.rails.push_back(std::move(rail));
    pump(link);
    Done done = take_done();
    lock.unlock();
    deliver(std::move(done));
  }
}

std::unique_ptr<Rail> RdmaBackend::open_rail(Link& link, const Candidate& candidate, Deadline deadline) {
  auto rail = std::make_unique<Rail>(*candidate.nic, candidate.card, next_epoch_++, config_);
  try {
    const RailEnd theirs = decode_answer(link.peer.ask("rdma", encode_open(rail->end()), deadline));
    rail->connect(theirs, config_);
    rail->probe(theirs, deadline);
  } catch (...) {
    const uint64_t epoch = rail->epoch;
    rail.reset();
    link.peer.tell("rdma", encode_close(epoch));
    throw;
  }
  return rail;
}

}  // namespace mori::io::rdma
