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
#include "src/io/backends/rdma/gpu_memory.hpp"

namespace mori::io::rdma {
namespace {

using verbs::Gid;

[[noreturn]] void fail(const std::string& nic, const std::string& what) {
  throw core::TransportError("rdma: " + nic + ": " + what);
}

bool is_zero(const Gid& gid) { return gid.words[0] == 0 && gid.words[1] == 0; }

bool is_ipv4(const Gid& gid) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, kMapped, sizeof kMapped) == 0;
}

bool is_link_local(const Gid& gid) { return gid.raw[0] == 0xfe && (gid.raw[1] & 0xc0) == 0x80; }

/// Of GIDs that a RoCE port offers, the higher the better: routable and everywhere configured first.
int preference(uint32_t type, const Gid& gid) {
  if (type == verbs::kGidRoceV2) return is_ipv4(gid) ? 5 : is_link_local(gid) ? 3 : 4;
  return is_ipv4(gid) ? 2 : 1;
}

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
    : library_(std::move(library)), name_(name), index_(index), wished_gid_(config.gid_index) {
  try {
    open(config);
  } catch (...) {
    release();
    throw;
  }
}

Nic::~Nic() { release(); }

void Nic::release() {
  if (pad_ != nullptr) v().dereg_mr(pad_);
  if (passive_cq_ != nullptr) v().destroy_cq(passive_cq_);
  if (channel_ != nullptr) v().destroy_comp_channel(channel_);
  if (pd_ != nullptr) v().dealloc_pd(pd_);
  if (context_ != nullptr) v().close_device(context_);
}

void Nic::open(const Config& config) {
  int count = 0;
  verbs::Device** list = v().get_device_list(&count);
  for (int i = 0; list != nullptr && i < count; ++i) {
    if (name_ == v().get_device_name(list[i])) context_ = v().open_device(list[i]);
  }
  const int error = errno;
  if (list != nullptr) v().free_device_list(list);
  if (context_ == nullptr) fail(name_, std::string("cannot be opened: ") + std::strerror(error));
  if (v().query_device(context_, &limits_) != 0) fail(name_, "does not tell its limits");
  choose_port(config);
  pd_ = v().alloc_pd(context_);
  channel_ = v().create_comp_channel(context_);
  passive_cq_ = v().create_cq(context_, 16, nullptr, nullptr, 0);
  if (pd_ == nullptr || channel_ == nullptr || passive_cq_ == nullptr) {
    fail(name_, std::string("no protection domain, channel or completion queue: ") + std::strerror(errno));
  }
  non_blocking(channel_->fd);
  non_blocking(context_->async_fd);
  pad_ = v().reg_mr(pd_, pad_bytes_.data(), sizeof pad_bytes_, verbs::kLocalWrite | verbs::kRemoteWrite);
  if (pad_ == nullptr) {
    fail(name_, std::string("cannot register 64 bytes: ") + std::strerror(errno) +
                    " (is the limit of locked memory, ulimit -l, too low?)");
  }
}

void Nic::choose_port(const Config& config) {
  const unsigned ports = std::max<unsigned>(limits_.phys_port_cnt, 1);
  if (config.port > ports) {
    fail(name_, "port " + std::to_string(config.port) + " does not exist, it has " + std::to_string(ports));
  }
  verbs::PortAttr attr{};
  bool found = false;
  for (unsigned p = 1; p <= ports && !found; ++p) {
    if (config.port != 0 && p != config.port) continue;
    verbs::PortAttr candidate{};
    if (v().query_port(context_, uint8_t(p), &candidate) != 0) continue;
    if (config.port == 0 && candidate.state != verbs::kPortActive) continue;
    port_ = uint8_t(p);
    attr = candidate;
    found = true;
  }
  if (!found || attr.state != verbs::kPortActive) fail(name_, "no active port");
  if (attr.max_msg_sz != 0) max_message_ = std::max<uint64_t>(attr.max_msg_sz, 4096);
  choose_gid(config, attr);
  uint8_t mtu = uint8_t(std::clamp<int>(attr.active_mtu, verbs::kMtu256, verbs::kMtu4096));
  if (config.mtu != 0) mtu = std::min<uint8_t>(mtu, uint8_t(std::bit_width(config.mtu) - 8));
  address_.mtu = mtu;
  address_.layer = attr.link_layer;
  address_.lid = attr.lid;
}

uint32_t Nic::gid_type(unsigned index, const Gid& gid) const {
  if (v().query_gid_ex != nullptr) {
    verbs::GidEntry entry{};
    if (v().query_gid_ex(context_, port_, index, &entry, 0, sizeof entry) == 0) return entry.gid_type;
  }
  std::ifstream file("/sys/class/infiniband/" + name_ + "/ports/" + std::to_string(port_) +
                     "/gid_attrs/types/" + std::to_string(index));
  std::string text;
  std::getline(file, text);
  if (text.find("v2") != std::string::npos) return verbs::kGidRoceV2;
  return is_ipv4(gid) && text.empty() ? verbs::kGidRoceV2 : verbs::kGidRoceV1;
}

void Nic::choose_gid(const Config& config, const verbs::PortAttr& port) {
  const int entries = std::min(port.gid_tbl_len, 256);
  if (config.gid_index >= 0) {
    if (config.gid_index >= port.gid_tbl_len ||
        v().query_gid(context_, port_, config.gid_index, &address_.gid) != 0 || is_zero(address_.gid)) {
      fail(name_, "gid_index " + std::to_string(config.gid_index) + " is empty or does not exist");
    }
    gid_index_ = uint8_t(config.gid_index);
    return;
  }
  int best = 0, index = 0;
  Gid address{};
  for (int i = 0; i < entries; ++i) {
    Gid gid{};
    if (v().query_gid(context_, port_, i, &gid) != 0 || is_zero(gid)) continue;
    const int worth =
        port.link_layer == verbs::kLayerEthernet ? preference(gid_type(unsigned(i), gid), gid) : 1;
    if (worth <= best) continue;
    best = worth;
    index = i;
    address = gid;
  }
  if (best == 0) fail(name_, "its port has no address (GID): give its network interface an IP address");
  address_.gid = address;
  gid_index_ = uint8_t(index);  // at once: others connect with it meanwhile
}

Address Nic::address() {
  std::lock_guard lock(address_mutex_);
  if (dead) fail(name_, "the NIC failed");
  verbs::PortAttr attr{};
  if (v().query_port(context_, port_, &attr) != 0 || attr.state != verbs::kPortActive) {
    fail(name_, "its port is down");
  }
  Gid same{};
  if (v().query_gid(context_, port_, gid_index_, &same) != 0 || same.words[0] != address_.gid.words[0] ||
      same.words[1] != address_.gid.words[1]) {
    Config again;
    again.gid_index = wished_gid_;
    choose_gid(again, attr);
  }
  address_.lid = attr.lid;
  return address_;
}

verbs::Mr* Nic::register_host(uint64_t address, uint64_t bytes, std::string* why) {
  // No REMOTE_ATOMIC: nothing here needs it, and some NICs refuse memory that asks for it.
  constexpr int kAccess = verbs::kLocalWrite | verbs::kRemoteWrite | verbs::kRemoteRead;
  errno = 0;
  verbs::Mr* mr = v().reg_mr(pd_, reinterpret_cast<void*>(address), bytes, kAccess);
  if (mr == nullptr) {
    const int error = errno;
    *why = name_ + ": " + std::strerror(error);
    if (error == ENOMEM) *why += " (is the limit of locked memory, ulimit -l, too low?)";
  }
  return mr;
}

verbs::Mr* Nic::register_dmabuf(const Dmabuf& memory, uint64_t address, uint64_t bytes, std::string* why) {
  if (v().reg_dmabuf_mr == nullptr) {
    *why = name_ + ": this libibverbs knows no dma-buf";
    return nullptr;
  }
  constexpr int kAccess = verbs::kLocalWrite | verbs::kRemoteWrite | verbs::kRemoteRead;
  errno = 0;
  verbs::Mr* mr = v().reg_dmabuf_mr(pd_, memory.offset, bytes, address, memory.fd.get(), kAccess);
  if (mr == nullptr) *why = name_ + ": dma-buf refused: " + std::strerror(errno);
  return mr;
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
      const std::string bus = gpu_bus_id(region.device);
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
