// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Files as remote memory (docs/io_file.md): of this engine, or of another one on this host, whose descriptor
// is opened again here. Jobs run over io_uring, or in threads where that is forbidden.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/backends/file/file_link.hpp"
#include "src/io/backends/file/ring_lane.hpp"
#include "src/io/backends/file/sync_lane.hpp"

namespace mori::io::file {

struct Options {
  bool io_uring = true;
  size_t threads = 4;  ///< of the other way
  LaneOptions lane;
  std::shared_ptr<DeviceChunks> device;  ///< null: GPU memory is not for this backend
};

class FileBackend : public Backend {
 public:
  explicit FileBackend(const Host& host, Options options = {});
  ~FileBackend() override;

  std::string_view name() const override { return "file"; }
  std::optional<std::string> attach(const Region& region) override;
  std::string answer(Peer& peer, std::string_view request, std::vector<Fd>& pass) override;
  Prepared prepare(const Region& local, const RemoteRegion& remote, Peer& peer, const std::string& attachment,
                   Deadline deadline) override;
  void submit(JobPtr job) override;
  bool help(Job& job) override;
  void nudge(Job& job) override;
  void revoke(Route& route) override;
  void lost(Peer& peer) override;
  std::vector<std::pair<std::string, double>> counters() const override;

 private:
  Fd descriptor(const Attachment& attachment, const RemoteRegion& remote, Peer& peer, Deadline deadline);
  bool from_cache(Job& job, const FileLink& link);
  RingLane* ring();

  const Host& host_;
  const Options options_;
  LaneCounters lane_counters_;
  std::atomic<uint64_t> jobs_read_{0}, jobs_written_{0}, bytes_read_{0}, bytes_written_{0}, cached_{0};

  mutable std::mutex mutex_;  ///< of what follows
  std::vector<std::weak_ptr<FileLink>> links_;
  bool ring_tried_ = false;
  std::string why_no_ring_;
  std::unique_ptr<RingLane> ring_;

  SyncLane sync_;
};

}  // namespace mori::io::file
