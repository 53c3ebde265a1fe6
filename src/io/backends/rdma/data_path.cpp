// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Posting and completions. Everything here runs under the backend's mutex, on the submitter's thread, a
// helping waiter's or the progress thread.
#include <algorithm>
#include <cstring>

#include "src/io/backends/rdma/rdma_backend.hpp"

namespace mori::io::rdma {
namespace {

constexpr int kBatch = 64;             ///< work requests per doorbell unless configured
constexpr uint32_t kSignalEvery = 32;  ///< and the last one of a batch
constexpr unsigned kQueueShift = 48;   ///< of a work request's id: queue pair, then sequence number
constexpr uint64_t kSequenceMask = (uint64_t(1) << kQueueShift) - 1;
constexpr uint64_t kTellEvery = 1 << 20;

/// The request is at fault, not the path: sending it again would fail again.
bool is_request_error(int status) {
  return status == verbs::kWcLocLen || status == verbs::kWcLocProt || status == verbs::kWcLocAccess ||
         status == verbs::kWcRemInvReq || status == verbs::kWcRemAccess;
}

std::string path_text(const Rail& rail, const Peer& peer) {
  return "rdma: " + rail.nic.name() + " -> " + rail.remote.name + " of " + peer.engine();
}

}  // namespace

void RdmaBackend::enqueue(Link& link, Work& work) {
  if (work.queued || work.stopped || work.exhausted()) return;
  work.queued = true;
  link.ready.push_back(&work);
}

// Works take turns, one batch each, so that a short one does not wait behind a long one.
void RdmaBackend::pump(Link& link) {
  size_t refused = 0;
  while (refused < link.ready.size()) {
    Work& work = *link.ready.front();
    link.ready.pop_front();
    work.queued = false;
    const bool sent = post_some(link, work);
    refused = sent ? 0 : refused + 1;
    if (work.stopped) {
      settle(link, work);
    } else {
      enqueue(link, work);
    }
  }
}

std::pair<Rail*, Queue*> RdmaBackend::choose_queue(Link& link, const Work& work) {
  std::pair<Rail*, Queue*> best{nullptr, nullptr};
  for (const auto& rail : link.rails) {
    if (rail->state != Rail::State::up || !work.route.uses(*rail, *work.local)) continue;
    for (Queue& queue : rail->queues) {
      if (queue.room() == 0 || queue.bytes >= config_.window_bytes) continue;
      if (best.second == nullptr || queue.bytes < best.second->bytes) best = {rail.get(), &queue};
    }
  }
  return best;
}

bool RdmaBackend::post_some(Link& link, Work& work) {
  const auto [rail, queue] = choose_queue(link, work);
  if (queue == nullptr) {
    ++full_;
    return false;
  }
  const size_t batch = config_.post_batch_size > 0 ? size_t(config_.post_batch_size) : size_t(kBatch);
  const uint64_t limit = std::min(work.piece_bytes(), rail->nic.max_message());
  const uint32_t lkey = work.local->on(rail->nic.index())->lkey;
  const uint32_t rkey = *work.route.keys[rail->remote.index];
  const uint64_t base = work.job->local().address;
  const uint64_t queue_bits = uint64_t(queue - rail->queues.data()) << kQueueShift;
  requests_.resize(batch);
  sges_.resize(batch * rail->max_sge);
  const uint64_t first = queue->posted;
  size_t n = 0;
  while (n < batch && queue->room() > 0 && queue->bytes < config_.window_bytes && !work.exhausted()) {
    const Range range = work.carve(limit, rail->max_sge, pieces_);
    verbs::Sge* sge = &sges_[n * rail->max_sge];
    for (size_t i = 0; i < pieces_.size(); ++i) {
      sge[i] = {base + pieces_[i].local, uint32_t(pieces_[i].bytes), lkey};
    }
    verbs::SendWr& wr = requests_[n];
    wr = {};
    wr.wr_id = queue_bits | (queue->posted & kSequenceMask);
    wr.sg_list = sge;
    wr.num_sge = int(pieces_.size());
    wr.opcode = work.write ? verbs::kWrite : verbs::kRead;
    if (work.write && work.local->host() && range.bytes <= rail->inline_bytes) {
      wr.send_flags |= verbs::kInline;
    }
    if ((n + 1) % kSignalEvery == 0) wr.send_flags |= verbs::kSignaled;
    wr.rdma.remote_addr = work.route.address + work.remote_offset(range);
    wr.rdma.rkey = rkey;
    if (n > 0) requests_[n - 1].next = &wr;
    queue->at(queue->posted++) = {&work, range};
    queue->bytes += range.bytes;
    ++n;
  }
  requests_[n - 1].send_flags |=
      verbs::kSignaled;  // so that the last one's completion says that all are done
  work.under_way += n;
  in_flight_ += n;
  posted_ += n;
  verbs::SendWr* bad = nullptr;
  const int error = verbs::post_send(queue->qp, requests_.data(), &bad);
  if (error == 0) return true;
  // Those before `bad` are under way; the others never left.
  const uint64_t kept = bad == nullptr ? 0 : uint64_t(bad - requests_.data());
  while (queue->posted > first + kept) {
    const Queue::Entry& entry = queue->at(--queue->posted);
    queue->bytes -= entry.range.bytes;
    work.again(entry.range);
    --work.under_way;
    --in_flight_;
  }
  const std::string words = path_text(*rail, link.peer) + ": posting failed: " + std::strerror(error);
  if (++work.recoveries > config_.max_recoveries) stop(link, work, StatusCode::err_rdma_op, words, true);
  fail_rail(link, *rail, words);
  return true;
}

// ---- completions ---------------------------------------------------------------------------------------

bool RdmaBackend::poll(Link& link) {
  size_t got = 0;
  for (const auto& rail : link.rails) {
    if (!rail->drained()) got += poll(link, *rail);
  }
  if (got > 0) pump(link);
  return got > 0;
}

size_t RdmaBackend::poll(Link& link, Rail& rail) {
  verbs::Wc completions[32];
  size_t total = 0;
  for (;;) {
    const int got = verbs::poll_cq(rail.cq, 32, completions);
    if (got < 0) {
      fail_rail(link, rail, path_text(rail, link.peer) + ": the completion queue failed");
      return total;
    }
    for (int i = 0; i < got; ++i) {
      const verbs::Wc& wc = completions[i];
      const uint64_t index = wc.wr_id >> kQueueShift;
      const uint64_t sequence = wc.wr_id & kSequenceMask;
      if (index >= rail.queues.size() || sequence >= rail.queues[index].posted ||
          sequence < rail.queues[index].confirmed) {
        fail_rail(link, rail, path_text(rail, link.peer) + ": a completion of nothing that was posted");
        continue;
      }
      Queue& queue = rail.queues[index];
      queue.seen = std::max(queue.seen, sequence + 1);
      if (wc.status == verbs::kWcSuccess) {
        confirm(link, queue, sequence + 1);
      } else {
        failed_completion(link, rail, queue, wc, sequence);
      }
    }
    total += size_t(got);
    if (got < 32) break;
  }
  if (rail.state == Rail::State::failed && rail.drained()) changed_.notify_all();
  return total;
}

// A queue pair completes in order: one success speaks for all before it.
void RdmaBackend::confirm(Link& link, Queue& queue, uint64_t end) {
  while (queue.confirmed < end) {
    Queue::Entry& entry = queue.at(queue.confirmed++);
    Work& work = *entry.work;
    queue.bytes -= entry.range.bytes;
    --in_flight_;
    --work.under_way;
    work.confirmed_bytes += entry.range.bytes;
    (work.write ? written_bytes_ : read_bytes_) += entry.range.bytes;
    if (work.confirmed_bytes - work.told_bytes >= kTellEvery) {
      work.job->progressed(work.confirmed_bytes - work.told_bytes);
      work.told_bytes = work.confirmed_bytes;
    }
    if (work.under_way == 0) settle(link, work);
  }
}

void RdmaBackend::failed_completion(Link& link, Rail& rail, Queue& queue, const verbs::Wc& wc,
                                    uint64_t sequence) {
  if (rail.state == Rail::State::failed) return;  // what follows the first error is its echo
  const std::string words = path_text(rail, link.peer) + ": " + verbs::status_words(wc.status) + " (status " +
                            std::to_string(wc.status) + ", vendor error " + std::to_string(wc.vendor_err) +
                            ")";
  if (is_request_error(wc.status)) {
    const bool refused = wc.status == verbs::kWcRemAccess;
    stop(link, *queue.at(sequence).work, refused ? StatusCode::err_denied : StatusCode::err_rdma_op, words,
         !refused);
  }
  fail_rail(link, rail, words);
}

void RdmaBackend::fail_rail(Link& link, Rail& rail, std::string reason) {
  if (rail.state == Rail::State::failed) return;
  rail.state = Rail::State::failed;
  rail.reason = link.broken = std::move(reason);
  ++rails_failed_;
  rail.break_off();
  request_repair(link);
}

// ---- the end of works ----------------------------------------------------------------------------------

void RdmaBackend::stop(Link& link, Work& work, StatusCode code, std::string message, bool reroutable) {
  if (work.stopped) return;
  work.stopped = true;
  work.stopped_at = Clock::now();
  work.verdict = {code, std::move(message), reroutable, {}};
  if (work.queued) {
    std::erase(link.ready, &work);
    work.queued = false;
  }
}

void RdmaBackend::settle(Link& link, Work& work) {
  if (work.under_way > 0 || work.limbo > 0 || !(work.stopped || work.exhausted())) return;
  Outcome outcome;
  if (work.stopped) {
    auto rest = work.unfinished();
    if (!rest.empty()) {
      outcome = std::move(work.verdict);
      outcome.unfinished = std::move(rest);
    }
  }
  if (work.confirmed_bytes > work.told_bytes) work.job->progressed(work.confirmed_bytes - work.told_bytes);
  if (work.queued) std::erase(link.ready, &work);
  done_.push_back({work.job, std::move(outcome), work.route.open_jobs});
  link.works.erase(&work);
  changed_.notify_all();
}

void RdmaBackend::watch(Link& link, Deadline now) {
  std::vector<Work*> all;
  for (const auto& entry : link.works) all.push_back(entry.first);
  for (Work* work : all) {
    if (!work->stopped && (now >= work->job->deadline() || work->job->stopping())) {
      stop(link, *work, StatusCode::err_cancelled,
           "rdma: stopped after " + std::to_string(work->confirmed_bytes) + " of " +
               std::to_string(work->job->bytes()) + " bytes",
           false);
      settle(link, *work);
      continue;
    }
    // What is under way ends by itself within microseconds unless its path is stuck: then it is broken off.
    if (work->stopped && !work->cut && work->under_way > 0 &&
        now >= work->stopped_at + config_.cancel_grace) {
      work->cut = true;
      for (const auto& rail : link.rails) {
        bool carries = false;
        for (Queue& queue : rail->queues) {
          for (uint64_t s = queue.confirmed; s < queue.posted && !carries; ++s) {
            carries = queue.at(s).work == work;
          }
        }
        if (!carries || rail->state == Rail::State::failed) continue;
        rail->on_purpose = true;
        fail_rail(link, *rail, path_text(*rail, link.peer) + ": broken off for a job that was stopped");
      }
    }
  }
}

void RdmaBackend::review(Link& link) {
  if (link.repairing || link.lost) return;
  const size_t up = link.up();
  if (up < config_.nics_per_transfer && Clock::now() >= link.next_attempt) return request_repair(link);
  std::vector<Work*> stranded;
  for (const auto& [work, owner] : link.works) {
    if (work->stopped || work->under_way > 0 || work->limbo > 0) continue;
    const bool served = std::any_of(link.rails.begin(), link.rails.end(), [w = work](const auto& rail) {
      return rail->state == Rail::State::up && w->route.uses(*rail, *w->local);
    });
    if (!served) stranded.push_back(work);
  }
  std::string why = link.broken;
  if (!link.reason.empty()) why += (why.empty() ? "" : "; and then: ") + link.reason;
  if (why.empty()) why = "rdma: no rail to " + link.peer.engine() + " serves this memory";
  for (Work* work : stranded) {
    stop(link, *work, StatusCode::err_rdma_op, why, true);
    settle(link, *work);
  }
}

RdmaBackend::Done RdmaBackend::take_done() { return std::exchange(done_, {}); }

void RdmaBackend::deliver(Done done) {
  if (done.empty()) return;
  for (Ended& ended : done) ended.job->finish(std::move(ended.outcome));
  Lock lock(mutex_);
  for (const Ended& ended : done) --*ended.open_jobs;
  changed_.notify_all();
}

}  // namespace mori::io::rdma
