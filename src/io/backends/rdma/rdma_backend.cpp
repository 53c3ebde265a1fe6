// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/rdma/rdma_backend.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <random>

#include "src/io/errors.hpp"

namespace mori::io::rdma {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;  ///< unless chunking: enough for the line rate, little for a rail
constexpr std::chrono::microseconds kHelp{50};
// What the engine compares backends by. Software NICs: measured on SoftRoCE, where any other way is better.
constexpr double kNicLatencyUs = 5, kSoftwareLatencyUs = 200;
constexpr double kGigabit = 1e9 / 8, kSoftwareBytesPerSecond = 0.1e9, kUnknownGbit = 25;
constexpr double kEfficiency = 0.9;

Config checked(Config config) {
  check(config);
  return config;
}

uint64_t random_epoch() {
  std::random_device device;
  return (uint64_t(device()) << 32 | device()) >> 1;
}

void refuse(const JobPtr& job, StatusCode code, std::string message, bool reroutable) {
  const auto all = job->segments();
  job->finish({code, std::move(message), reroutable, {all.begin(), all.end()}});
}

}  // namespace

void check(const Config& c) {
  const auto within = [](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return;
    throw core::ConfigError(std::string(name) + "=" + std::to_string(value) + ": allowed are " +
                            std::to_string(least) + " to " + std::to_string(most));
  };
  within("qp_per_transfer", c.qp_per_transfer, 1, kMaxQueuesPerRail);
  within("num_nics_per_transfer", c.nics_per_transfer, 1, kMaxNics);
  within("spare_nics", c.spare_nics, 0, kMaxNics);
  within("max_send_wr", c.max_send_wr, 1, 1 << 16);
  within("max_cqe_num", c.max_cqe, 32, 1 << 22);
  within("max_msg_sge", c.max_sge, 1, 32);
  within("chunk_bytes", int64_t(c.chunk_bytes), 256, int64_t(1) << 30);
  within("max_chunks_per_transfer", c.max_chunks, 1, 1 << 30);
  within("gid_index", c.gid_index, -1, 255);
  within("timeout", c.timeout, 1, 31);
  within("retry_count", c.retry_count, 0, 7);
  within("service_level", c.service_level, 0, 15);
  within("inline_bytes", c.inline_bytes, 0, 4096);
  within("window_bytes", int64_t(c.window_bytes), 4096, int64_t(1) << 40);
  if (c.post_batch_size != -1) within("post_batch_size", c.post_batch_size, 1, 1 << 16);
  if (c.mtu != 0 && (c.mtu < 256 || c.mtu > 4096 || (c.mtu & (c.mtu - 1)) != 0)) {
    throw core::ConfigError("mtu=" + std::to_string(c.mtu) + ": allowed are 256, 512, 1024, 2048, 4096");
  }
}

RdmaBackend::RdmaBackend(Config config)
    : config_(checked(std::move(config))),
      nics_(config_),
      memory_(nics_, config_),
      passive_(config_),
      next_epoch_(random_epoch()),
      wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!wake_) throw core::TransportError("rdma: no event descriptor (too many open files?)");
}

RdmaBackend::~RdmaBackend() {
  {
    Lock lock(mutex_);
    closing_ = true;
  }
  wake();
  repair_wake_.notify_all();
  changed_.notify_all();
  if (progress_.joinable()) progress_.join();
  if (repair_.joinable()) repair_.join();
  for (const auto& link : active_) {
    for (const auto& rail : link->rails) {
      if (!link->lost) link->peer.tell("rdma", encode_close(rail->epoch));
    }
    link->rails.clear();  // routes may keep the link, and outlive the NICs
  }
}

void RdmaBackend::start() {
  Lock lock(mutex_);
  if (!progress_.joinable()) progress_ = std::thread([this] { progress_loop(); });
  if (!repair_.joinable()) repair_ = std::thread([this] { repair_loop(); });
}

// ---- owner of the memory -------------------------------------------------------------------------------

std::optional<std::string> RdmaBackend::attach(const Region& region) {
  if (!nics_.reason().empty() || region.location == Location::file || region.bytes == 0) return std::nullopt;
  return memory_.attachment(region, *memory_.attach(region));
}

void RdmaBackend::detach(const Region& region) { memory_.detach(region.id); }

std::string RdmaBackend::answer(Peer& peer, std::string_view request, std::vector<Fd>&) {
  if (decode_verb(request) == Verb::close) {
    passive_.close(peer, decode_epoch(request));
    return {};
  }
  const RailEnd wished = decode_end(request);
  Nic* nic = nics_.at(wished.nic);
  if (nic == nullptr)
    throw core::TransportError("rdma: this engine has no NIC number " + std::to_string(wished.nic));
  return encode_answer(passive_.open(*nic, peer, wished));
}

void RdmaBackend::told(Peer& peer, std::string_view message) {
  if (decode_verb(message) == Verb::close) passive_.close(peer, decode_epoch(message));
}

// ---- initiator -----------------------------------------------------------------------------------------

std::shared_ptr<Link> RdmaBackend::link_to(Peer& peer) {
  Lock lock(mutex_);
  std::shared_ptr<Link>& link = links_[{peer.engine(), peer.incarnation()}];
  if (link == nullptr) {
    link = std::make_shared<Link>(peer);
    active_.push_back(link);
  }
  return link;
}

void RdmaBackend::add_candidates(Link& link, const LocalMemory& local, const Attachment& attachment) {
  std::vector<std::pair<Nic*, Address>> ends;  // asked before the lock: it takes system calls
  for (Nic* nic : local.nics()) {
    try {
      ends.emplace_back(nic, nic->address());
    } catch (const core::TransportError&) {
    }
  }
  Lock lock(mutex_);
  for (const auto& [nic, mine] : ends) {
    for (const NicCard& card : attachment.nics) {
      const int fit = affinity(mine, card.address);
      if (fit < 0) continue;
      const auto known =
          std::find_if(link.candidates.begin(), link.candidates.end(),
                       [&](const Candidate& c) { return c.nic == nic && c.card.index == card.index; });
      if (known == link.candidates.end()) {
        link.candidates.push_back({nic, card, fit, {}, {}});
      } else {
        known->card = card;
        known->affinity = fit;
      }
    }
  }
  // Among equals the order of both sides' preference stays, so rail 0 of one meets rail 0 of the other.
  std::stable_sort(link.candidates.begin(), link.candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.affinity > b.affinity; });
}

Prepared RdmaBackend::prepare(const Region& local, const RemoteRegion& remote, Peer& peer,
                              const std::string& attachment, Deadline deadline) {
  Prepared result;
  const auto no = [&](const std::string& why) {
    result.reason = why.starts_with("rdma: ") ? why : "rdma: " + why;
    return result;
  };
  if (!nics_.reason().empty()) return no(nics_.reason());
  if (local.location == Location::file || remote.location == Location::file) return no("files have no rkey");
  if (attachment.empty()) return no(peer.engine() + " has no RDMA device for this memory");
  Attachment theirs;
  std::shared_ptr<const LocalMemory> mine;
  try {
    theirs = decode_attachment(attachment);
    mine = memory_.attach(local);
  } catch (const core::Error& error) {
    return no(error.what());
  }
  if (mine->nics().empty()) return no(mine->reason());
  if (theirs.nics.empty()) return no("at " + peer.engine() + ": " + theirs.reason);
  start();
  const auto link = link_to(peer);
  add_candidates(*link, *mine, theirs);
  auto route = std::make_shared<RdmaRoute>(link, theirs);
  connect_rails(*link, deadline, mine.get(), route.get());
  Lock lock(mutex_);
  bool hardware = false;
  for (const auto& rail : link->rails) {
    if (rail->state != Rail::State::up || !route->uses(*rail, *mine)) continue;
    bool software = false;
    double gbit = nics_.rate(rail->nic.name(), &software);
    if (rail->remote.gbit_per_s > 0)
      gbit = gbit > 0 ? std::min<double>(gbit, rail->remote.gbit_per_s) : rail->remote.gbit_per_s;
    if (gbit == 0) gbit = kUnknownGbit;
    result.bytes_per_second += software ? kSoftwareBytesPerSecond : gbit * kGigabit * kEfficiency;
    hardware |= !software;
    result.route = route;
  }
  if (result.route != nullptr) {
    result.latency_us = hardware ? kNicLatencyUs : kSoftwareLatencyUs;
    return result;
  }
  if (link->candidates.empty())
    return no("no NIC of this side shares a link layer with one of " + peer.engine());
  std::string why;
  for (const Candidate& c : link->candidates) {
    if (!c.reason.empty()) why += (why.empty() ? "" : "; ") + c.reason;
  }
  return no(why.empty() ? "no rail to " + peer.engine() + " came up in time" : why);
}

void RdmaBackend::submit(JobPtr job) {
  auto& route = static_cast<RdmaRoute&>(job->route());
  Link& link = *route.link;
  if (job->segments().empty()) return job->finish({});
  if (job->stopping()) return refuse(job, StatusCode::err_cancelled, "rdma: stopped before it began", false);
  auto memory = memory_.find(job->local().id);
  if (memory == nullptr || memory->nics().empty()) {
    return refuse(job, StatusCode::err_rdma_op, "rdma: the local memory is not registered with a NIC", true);
  }
  uint64_t piece = kPieceBytes;
  if (config_.chunking) piece = std::max(config_.chunk_bytes, job->bytes() / config_.max_chunks);
  piece = std::min({piece, uint64_t(1) << 30, config_.window_bytes});
  auto owned = std::make_unique<Work>(job, std::move(memory), route, piece);
  Done done;
  {
    Lock lock(mutex_);
    if (link.lost || closing_) {
      const std::string why = link.lost ? link.reason : "rdma: the engine is closing";
      lock.unlock();
      return refuse(job, link.lost ? StatusCode::err_peer_lost : StatusCode::err_bad_state, why, false);
    }
    Work& work = *owned;
    link.works.emplace(&work, std::move(owned));
    ++*route.open_jobs;
    enqueue(link, work);
    pump(link);
    const bool waits = link.works.contains(&work) && work.under_way == 0;
    if (waits || link.up() < config_.nics_per_transfer) review(link);
    if (job->deadline() != Deadline::max()) {
      // A sleeping progress thread has set its alarm without this one.
      watch_at_ = {};
      if (job->deadline() < alarm_) wake();
    }
    done = take_done();
  }
  deliver(std::move(done));
}

bool RdmaBackend::help(Job&) {
  const auto until = Clock::now() + kHelp;
  for (;;) {
    Done done;
    bool did = false;
    {
      Lock lock(mutex_, std::try_to_lock);
      if (lock.owns_lock()) {
        if (in_flight_ == 0) return false;
        for (const auto& link : active_) did |= poll(*link);
        done = take_done();
      }
    }
    did |= !done.empty();
    deliver(std::move(done));
    if (did) return true;
    if (Clock::now() >= until) return false;
    std::this_thread::yield();
  }
}

void RdmaBackend::nudge(Job&) {
  {
    Lock lock(mutex_);
    nudged_ = true;
  }
  wake();
}

void RdmaBackend::revoke(Route& route) {
  auto& mine = static_cast<RdmaRoute&>(route);
  Link& link = *mine.link;
  Lock lock(mutex_);
  std::vector<Work*> works;
  for (const auto& entry : link.works) {
    if (&entry.first->route == &mine) works.push_back(entry.first);
  }
  for (Work* work : works) {
    stop(link, *work, StatusCode::err_not_found, "rdma: the memory was deregistered", false);
    settle(link, *work);
  }
  nudged_ = true;
  Done done = take_done();
  lock.unlock();
  deliver(std::move(done));
  wake();
  lock.lock();
  changed_.wait(lock, [&] { return closing_ || *mine.open_jobs == 0; });
}

void RdmaBackend::lost(Peer& peer) {
  passive_.drop(peer);
  Lock lock(mutex_);
  const auto at = links_.find({peer.engine(), peer.incarnation()});
  if (at == links_.end()) return;
  const std::shared_ptr<Link> link = at->second;
  links_.erase(at);
  link->lost = true;
  link->reason = "rdma: the control connection to " + peer.engine() + " is lost";
  for (const auto& rail : link->rails) fail_rail(*link, *rail, link->reason);
  request_repair(*link);
}

std::vector<std::pair<std::string, double>> RdmaBackend::counters() const {
  Lock lock(mutex_);
  size_t up = 0;
  for (const auto& link : active_) up += link->up();
  return {{"rails_up", double(up)},
          {"rails_opened", double(rails_opened_)},
          {"rails_failed", double(rails_failed_)},
          {"work_requests", double(posted_)},
          {"work_requests_in_flight", double(in_flight_)},
          {"work_requests_in_doubt", double(resent_)},
          {"written_bytes", double(written_bytes_)},
          {"read_bytes", double(read_bytes_)},
          {"queue_full", double(full_)},
          {"regions", double(memory_.count())},
          {"passive_rails", double(passive_.count())}};
}

void RdmaBackend::break_queues() {
  Lock lock(mutex_);
  for (const auto& link : active_) {
    for (const auto& rail : link->rails) rail->break_off();
  }
}

}  // namespace mori::io::rdma
