// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Host memory of another process on this host. Three ways, the first that works (docs/io_shm.md):
//   own     the peer is an engine of this very process: plain copies
//   mapped  the region is sealed shared memory: it is mapped here, plain copies
//   vm      any memory: process_vm_readv / process_vm_writev, where the system permits them
// Small jobs are carried inside submit(); larger ones by one thread and whoever waits.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/backends/crew.hpp"
#include "src/io/backends/shm/copy.hpp"
#include "src/io/backends/shm/mapping.hpp"
#include "src/io/backends/shm/process_vm.hpp"

namespace mori::io::shm {

enum class Way : uint8_t { own, mapped, vm };

struct Options {
  bool map = true;                   ///< false: never map, for tests and comparisons
  bool process_vm = true;            ///< false: never use it
  uint64_t inline_bytes = 1u << 20;  ///< jobs up to this size run in submit()
  std::optional<Copy> copy;          ///< instead of choose_copy()
  const System* system = &real_system();
};

class ShmBackend : public Backend {
 public:
  explicit ShmBackend(const Host& host, Options options = {});
  ~ShmBackend() override;

  std::string_view name() const override { return "shm"; }
  std::optional<std::string> attach(const Region& region) override;
  void detach(const Region& region) override;
  std::string answer(Peer& peer, std::string_view request, std::vector<Fd>& pass) override;
  Prepared prepare(const Region& local, const RemoteRegion& remote, Peer& peer, const std::string& attachment,
                   Deadline deadline) override;
  void submit(JobPtr job) override;
  bool help(Job& job) override;
  void revoke(Route& route) override;
  void lost(Peer& peer) override;
  std::vector<std::pair<std::string, double>> counters() const override;

 private:
  class Link;  ///< the route
  std::unique_ptr<Mapping> map(const Attachment& attachment, const RemoteRegion& remote, Peer& peer,
                               Deadline deadline, std::string* why);
  bool reach(const Remote& target, Peer& peer, Deadline deadline, std::string* why);
  Outcome carry_piece(Job& job, std::span<const Segment> piece);
  void keep(const std::shared_ptr<Link>& link);

  const Host& host_;
  const Options options_;
  const std::unique_ptr<Probe> probe_;  ///< peers read it before they touch anything else
  Crew crew_;

  mutable std::mutex mutex_;              ///< of what follows
  std::map<uint64_t, Backing> backings_;  ///< by region, while it is attached
  std::vector<std::weak_ptr<Link>> links_;
  int64_t tracer_ = 0;  ///< the one pid that the system lets trace this process, if we said so
  std::string tracer_engine_;

  std::atomic<uint64_t> jobs_[3] = {}, bytes_[3] = {}, queued_ = 0;
};

}  // namespace mori::io::shm
