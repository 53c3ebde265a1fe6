// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/rdma/nic.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "src/core/errors.hpp"

namespace mori::io::rdma {
namespace {

void non_blocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

/// NUMA node of the first page; -1 if it was never touched, or unknown.
int node_of(uint64_t address) {
  void* page = reinterpret_cast<void*>(address & ~uint64_t(4095));
  int node = -1;
  if (::syscall(SYS_move_pages, 0, 1UL, &page, nullptr, &node, 0) != 0) return -1;
  return node < 0 ? -1 : node;
}

}  // namespace

Nic::Nic(std::shared_ptr<const verbs::Library> library, const std::string& name, uint8_t index,
         const Config& config)
    : library_(std::move(library)),
      name_(name),
      who_("rdma: " + name),
      index_(index),
      wished_gid_(config.gid_index) {
  try {
    open(config);
  } catch (...) {
    release();
    throw;
  }
}

Nic::~Nic() { release(); }

void Nic::fail(const std::string& what) const { throw core::TransportError(who_ + ": " + what); }

void Nic::release() {
  if (pad_ != nullptr) v().dereg_mr(pad_);
  if (passive_cq_ != nullptr) v().destroy_cq(passive_cq_);
  if (channel_ != nullptr) v().destroy_comp_channel(channel_);
  if (pd_ != nullptr) v().dealloc_pd(pd_);
  if (context_ != nullptr) v().close_device(context_);
}

void Nic::open(const Config& config) {
  context_ = verbs::open_device(v(), name_, who_);
  if (v().query_device(context_, &limits_) != 0) fail("does not tell its limits");
  port_ = verbs::choose_port(opened(), limits_, {config.port, config.gid_index, config.mtu});
  gid_index_ = port_.gid_index;
  pd_ = v().alloc_pd(context_);
  channel_ = v().create_comp_channel(context_);
  passive_cq_ = v().create_cq(context_, 16, nullptr, nullptr, 0);
  if (pd_ == nullptr || channel_ == nullptr || passive_cq_ == nullptr) {
    fail(std::string("no protection domain, channel or completion queue: ") + std::strerror(errno));
  }
  non_blocking(channel_->fd);
  non_blocking(context_->async_fd);
  pad_ = v().reg_mr(pd_, pad_bytes_.data(), sizeof pad_bytes_, verbs::kLocalWrite | verbs::kRemoteWrite);
  if (pad_ == nullptr) {
    fail(std::string("cannot register 64 bytes: ") + std::strerror(errno) +
         " (is the limit of locked memory, ulimit -l, too low?)");
  }
}

Address Nic::address() {
  std::lock_guard lock(address_mutex_);
  if (dead) fail("the NIC failed");
  verbs::PortAttr attr{};
  if (v().query_port(context_, port_.number, &attr) != 0 || attr.state != verbs::kPortActive) {
    fail("its port is down");
  }
  verbs::Gid same{};
  const verbs::Gid& known = port_.address.gid;
  if (v().query_gid(context_, port_.number, gid_index_, &same) != 0 || same.words[0] != known.words[0] ||
      same.words[1] != known.words[1]) {
    verbs::choose_gid(opened(), attr, wished_gid_, port_);
    gid_index_ = port_.gid_index;  // at once: others connect with it meanwhile
  }
  port_.address.lid = attr.lid;
  return port_.address;
}

verbs::Port Nic::end(const Address& address) const {
  return {.number = port(), .gid_index = gid_index(), .max_message = max_message(), .address = address};
}

verbs::Registrar Nic::registrar() const {
  return {v(), pd_, verbs::kLocalWrite | verbs::kRemoteWrite | verbs::kRemoteRead, name_};
}

// ---- all of them ---------------------------------------------------------------------------------------

Nics::Nics(const Config& config) : config_(config) {
  library_ = verbs::load(config.library, &reason_);
  if (library_ == nullptr) return;
  int count = 0;
  verbs::Device** list = library_->get_device_list(&count);
  for (int i = 0; list != nullptr && i < count; ++i) names_.push_back(library_->get_device_name(list[i]));
  if (list != nullptr) library_->free_device_list(list);
  if (names_.empty()) {
    reason_ = "no RDMA device (docs/io_rdma.md has a list of what to look at)";
    return;
  }
  topology_ = config.topology ? *config.topology : core::read_topology();
  if (config.devices.empty()) return;
  std::vector<std::string> named;
  for (const std::string& wished : config.devices) {
    if (std::find(names_.begin(), names_.end(), wished) != names_.end()) named.push_back(wished);
  }
  if (named.empty()) {
    reason_ = "none of the named devices exists; this machine has:";
    for (const std::string& name : names_) reason_ += " " + name;
  }
  names_ = named;
}

std::vector<std::string> Nics::order(const Region& region) const {
  std::vector<std::string> ranked;
  try {
    if (region.location == Location::gpu) {
      const std::string bus = verbs::gpu_bus_id(region.device);
      for (size_t g = 0; g < topology_.gpus.size(); ++g) {
        if (bus.empty() ? g != size_t(region.device) : topology_.gpus[g].pci != bus) continue;
        const std::string own = core::assign_nics(topology_, config_.devices)[g];
        ranked = core::pick_nics(topology_, g, config_.devices);
        if (const auto at = std::find(ranked.begin(), ranked.end(), own); at != ranked.end()) {
          std::rotate(ranked.begin(), at, at + 1);
        }
      }
    }
    if (ranked.empty()) {
      ranked = core::pick_nics_for_numa(topology_, node_of(region.address), config_.devices);
    }
  } catch (const core::ConfigError&) {
    ranked = config_.devices;  // sysfs is hidden: the user's order
  }
  std::erase_if(ranked, [&](const std::string& name) {
    return std::find(names_.begin(), names_.end(), name) == names_.end();
  });
  return ranked.empty() ? names_ : ranked;
}

double Nics::rate(const std::string& name, bool* software) const {
  for (const core::Nic& nic : topology_.nics) {
    if (nic.name != name) continue;
    *software = nic.pci.empty();
    double best = 0;
    for (const core::NicPort& port : nic.ports) best = std::max(best, port.gbit_per_s);
    return best;
  }
  *software = false;
  return 0;
}

Nic* Nics::get(const std::string& name, std::string* why) {
  std::lock_guard lock(mutex_);
  for (std::unique_ptr<Nic>& slot : open_) {
    if (slot != nullptr && slot->name() == name) return slot.get();
    if (slot != nullptr) continue;
    try {
      slot = std::make_unique<Nic>(library_, name, uint8_t(&slot - open_.data()), config_);
      return slot.get();
    } catch (const core::TransportError& error) {
      *why = error.what();
      return nullptr;
    }
  }
  *why = "rdma: one engine uses at most " + std::to_string(kMaxNics) + " NICs";
  return nullptr;
}

Nic* Nics::at(size_t index) const {
  std::lock_guard lock(mutex_);
  return index < open_.size() ? open_[index].get() : nullptr;
}

std::vector<Nic*> Nics::open() const {
  std::lock_guard lock(mutex_);
  std::vector<Nic*> all;
  for (const std::unique_ptr<Nic>& slot : open_) {
    if (slot != nullptr) all.push_back(slot.get());
  }
  return all;
}

int affinity(const Address& mine, const Address& theirs) {
  if (mine.layer != theirs.layer) return -1;
  int bits = 0;
  for (size_t i = 0; i < sizeof mine.gid.raw; ++i) {
    const uint8_t differ = mine.gid.raw[i] ^ theirs.gid.raw[i];
    if (differ != 0) return bits + std::countl_zero(differ);
    bits += 8;
  }
  return bits;
}

}  // namespace mori::io::rdma
