// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/control/direct.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <iterator>

#include "src/core/errors.hpp"
#include "src/core/runtime/gpu_driver.hpp"
#include "src/transport/ibgda/control/mlx5dv_abi.hpp"

namespace mori::ibgda {
namespace {

constexpr DirectLibrary kLibraries[] = {
    {Family::mlx5, "mlx5", 0x15b3, "libmlx5.so.1", "mlx5dv_init_obj"},
    {Family::bnxt_re, "bnxt_re", 0x14e4, "libbnxt_re.so", "bnxt_re_dv_create_qp"},
    {Family::ionic, "ionic", 0x1dd8, "libionic.so.1", "ionic_dv_get_qp"},
};

uint64_t address(const void* p) { return reinterpret_cast<uint64_t>(p); }

class Mlx5Direct final : public DirectVerbs {
 public:
  Mlx5Direct(void* library, const char* name, verbs::Device* device, const std::string& who) : who_(who) {
    std::string why;
    core::Symbols symbols(library, name, &why);
    symbols.need(init_, "mlx5dv_init_obj");
    bool (*supported)(verbs::Device*) = nullptr;
    symbols.need(supported, "mlx5dv_is_supported");
    if (!why.empty()) fail(why);
    if (!supported(device)) fail("is no NIC that libmlx5 drives (ConnectX-4 or later)");
  }

  Family family() const override { return Family::mlx5; }

  DirectView view(verbs::Qp* qp, verbs::Cq* cq) const override {
    mlx5dv::Qp q{};
    mlx5dv::Cq c{};
    mlx5dv::Object object{};
    object.qp = {qp, &q};
    object.cq = {cq, &c};
    if (const int error = init_(&object, mlx5dv::kQp | mlx5dv::kCq); error != 0) {
      fail("mlx5dv_init_obj does not say where a queue lies: error " + std::to_string(error));
    }
    if (c.cqe_size != 64) {
      fail("its completions have " + std::to_string(c.cqe_size) +
           " bytes, kernels read 64 (is MLX5_CQE_SIZE set?)");
    }
    if (q.sq.stride != 64) {
      fail("its basic blocks have " + std::to_string(q.sq.stride) + " bytes, kernels write 64");
    }
    if ((q.sq.wqe_cnt & (q.sq.wqe_cnt - 1)) != 0 || (c.cqe_cnt & (c.cqe_cnt - 1)) != 0) {
      fail("its rings have " + std::to_string(q.sq.wqe_cnt) + " blocks and " + std::to_string(c.cqe_cnt) +
           " completions, kernels count modulo powers of two");
    }
    DirectView view;
    view.sq = address(q.sq.buf);
    view.sq_bytes = uint64_t(q.sq.wqe_cnt) * 64;
    view.cq = address(c.buf);
    view.cq_bytes = uint64_t(c.cqe_cnt) * 64;
    view.record = address(q.dbrec);
    view.cq_record = address(c.dbrec);
    view.doorbell = address(q.bf.reg);
    view.depth = q.sq.wqe_cnt;
    view.cq_depth = c.cqe_cnt;
    view.cqn = c.cqn;
    view.blueflame = q.bf.size;
    view.max_inline = 28;
    return view;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw core::TransportError(who_ + ": " + what); }

  const std::string who_;
  int (*init_)(mlx5dv::Object*, uint64_t) = nullptr;
};

const DirectLibrary* row_of(uint32_t vendor) {
  const auto* row = std::find_if(std::begin(kLibraries), std::end(kLibraries),
                                 [&](const auto& r) { return r.vendor == vendor; });
  return row == std::end(kLibraries) ? nullptr : row;
}

void* open_library(const DirectLibrary& row, const std::string& path, std::string* why) {
  const char* name = path.empty() ? row.library : path.c_str();
  void* library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* words = ::dlerror();
    *why =
        std::string("no direct-verbs library of ") + row.name + " (" +
        (row.family == Family::mlx5 ? "Debian: apt-get install ibverbs-providers" : "the vendor's package") +
        "): " + (words != nullptr ? words : name);
    return nullptr;
  }
  if (::dlsym(library, row.symbol) == nullptr) {
    *why = std::string(name) + " has no " + row.symbol +
           (row.family == Family::mlx5 ? ": it is too old"
                                       : ": distributions build it without, the vendor's has it");
    return nullptr;
  }
  return library;
}

}  // namespace

const DirectLibrary* direct_libraries(size_t* count) {
  *count = std::size(kLibraries);
  return kLibraries;
}

std::string direct_problem(const DirectLibrary& row, const std::string& path) {
  std::string why;
  if (open_library(row, path, &why) != nullptr && row.family != Family::mlx5) {
    why = std::string("queues of ") + row.name + " NICs are not made yet, though " + row.symbol + " is there";
  }
  return why;
}

std::unique_ptr<DirectVerbs> open_direct(uint32_t vendor, verbs::Device* device, const std::string& who,
                                         const std::string& path) {
  const DirectLibrary* row = row_of(vendor);
  if (row == nullptr) {
    char words[160];
    std::snprintf(
        words, sizeof words,
        ": PCI vendor 0x%04x makes none of the NICs that kernels can post to (mlx5 0x15b3, bnxt_re 0x14e4, "
        "ionic 0x1dd8)",
        vendor);
    throw core::TransportError(who + words);
  }
  if (const std::string problem = direct_problem(*row, path); !problem.empty()) {
    throw core::TransportError(who + ": " + problem);
  }
  std::string why;
  void* library = open_library(*row, path, &why);
  return std::make_unique<Mlx5Direct>(library, row->library, device, who);
}

}  // namespace mori::ibgda
