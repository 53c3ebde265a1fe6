// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.io: the transfer engine. mori.io adds descriptors, defaults and what frameworks expect around
// it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "python/bindings/io_arguments.hpp"
#include "src/io/engine.hpp"

namespace py = pybind11;
using namespace mori::io;

void bind_io_status(py::module_& module);
void bind_io_planner(py::module_& module);
void bind_io_rdma(py::module_& module);
void bind_io_memory(py::module_& module);

namespace {

RegionKey to_key(const py::bytes& bytes) {
  const std::string text = bytes;
  RegionKey key;
  if (text.size() != key.size()) throw mori::core::ConfigError("a memory's key has 16 bytes");
  std::memcpy(key.data(), text.data(), key.size());
  return key;
}

SubmitOptions options(uint64_t uid, const py::object& deadline_s, const py::object& notify, bool announce) {
  SubmitOptions o;
  o.uid = uid;
  o.announce = announce;
  if (!deadline_s.is_none()) o.deadline = deadline_after(deadline_s);
  if (!notify.is_none()) o.notify = notify.cast<std::string>();
  if (o.notify.size() > 1u << 20)  // before the bytes move, not after
    throw mori::core::ConfigError("notify has " + std::to_string(o.notify.size()) +
                                  " bytes; at most 1048576");
  return o;
}

/// What Python holds: the session, and whether its transfers announce their uid.
struct PySession {
  std::shared_ptr<Session> session;
  std::shared_ptr<std::atomic<uint64_t>> uids;
  bool announce = false;
};

template <Op op>
std::shared_ptr<Status> one(const PySession& s, int64_t local, int64_t remote, int64_t size, uint64_t uid,
                            const py::object& deadline_s, const py::object& notify) {
  SubmitOptions o = options(uid, deadline_s, notify, s.announce);
  const py::gil_scoped_release release;
  return s.session->submit(op, {{&local, 1}, {&remote, 1}, {&size, 1}}, std::move(o));
}

template <Op op>
std::shared_ptr<Status> batch(const PySession& s, const py::object& local, const py::object& remote,
                              const py::object& sizes, uint64_t uid, const py::object& deadline_s,
                              const py::object& notify) {
  const Integers l("local_offsets", local), r("remote_offsets", remote), b("sizes", sizes);
  SubmitOptions o = options(uid, deadline_s, notify, s.announce);
  const py::gil_scoped_release release;
  return s.session->submit(op, {l.span(), r.span(), b.span()}, std::move(o));
}

std::shared_ptr<PreparedTransfer> prepare(const PySession& s, bool write, const py::object& local,
                                          const py::object& remote, const py::object& sizes) {
  const Integers l("local_offsets", local), r("remote_offsets", remote), b("sizes", sizes);
  const py::gil_scoped_release release;
  return s.session->prepare(write ? Op::write : Op::read, {l.span(), r.span(), b.span()});
}

py::list rows(const std::vector<Candidate>& candidates) {
  py::list all;
  for (const Candidate& c : candidates)
    all.append(py::make_tuple(c.backend->name(), bool(c.prepared.route), c.prepared.latency_us,
                              c.prepared.bytes_per_second, c.prepared.reason, c.failures,
                              c.avoid_until > Clock::now()));
  return all;
}

py::dict metrics(const Engine& e) {
  const Metrics& m = e.metrics();
  py::dict ended, durations, d;
  for (size_t i = 0; i < Metrics::kCodes; ++i)
    if (const uint64_t n = m.ended[i].load()) ended[status_name(StatusCode(i))] = n;
  for (size_t i = 0; i < Metrics::kBuckets; ++i)
    if (const uint64_t n = m.duration[i].load()) durations[py::int_(uint64_t(1) << i)] = n;
  d["ended"] = ended;
  d["duration_us"] = durations;
  d["duration_ns_total"] = m.duration_ns.load();
  for (const Op op : {Op::read, Op::write}) {
    const std::string name = op == Op::read ? "read_" : "write_";
    d[py::str(name + "transfers")] = m.transfers[size_t(op)].load();
    d[py::str(name + "segments")] = m.segments[size_t(op)].load();
    d[py::str(name + "bytes")] = m.bytes[size_t(op)].load();
  }
  d["reroutes"] = m.reroutes.load();
  d["resent_bytes"] = m.resent_bytes.load();
  d["notifications_sent"] = m.notifications_sent.load();
  d["notifications_received"] = m.notifications_received.load();
  d["notifications_dropped"] = m.notifications_dropped.load();
  d["memories_revoked"] = m.revoked.load();
  d["peers_lost"] = m.peers_lost.load();
  d["backend_faults"] = m.backend_faults.load();
  d["in_flight"] = e.in_flight();
  return d;
}

py::list events(const std::vector<TraceEvent>& taken) {
  static constexpr const char* kKinds[] = {"started", "carried", "attempt_ended", "ended"};
  py::list all;
  for (const TraceEvent& t : taken)
    all.append(py::make_tuple(t.ns, kKinds[size_t(t.kind)], t.transfer, t.op == Op::read ? "read" : "write",
                              t.bytes, t.segments, status_name(t.code), t.backend, t.thread));
  return all;
}

Region to_region(uint64_t address, uint64_t bytes, int32_t device, Location location, int fd,
                 std::string path) {
  Region region;
  region.address = address;
  region.bytes = bytes;
  region.device = device;
  region.location = location;
  region.fd = fd;
  region.path = std::move(path);
  return region;
}

}  // namespace

void bind_io(py::module_& module) {
  py::module_ m = module.def_submodule("io", "See mori.io.");
  bind_io_status(m);
  bind_io_planner(m);
  bind_io_rdma(m);
  bind_io_memory(m);
  const auto quietly = py::call_guard<py::gil_scoped_release>();

  py::class_<Strided>(m, "Strided", "`count` offsets: start, start + stride, ...")
      .def(py::init([](int64_t start, int64_t stride, int64_t count) {
             if (count < 0) throw mori::core::ConfigError("count=" + std::to_string(count) + " is negative");
             if (count > int64_t(1) << 32)
               throw mori::core::ConfigError("count=" + std::to_string(count) + " is more than 2**32");
             return Strided{start, stride, count};
           }),
           py::arg("start"), py::arg("stride"), py::arg("count"))
      .def_readonly("start", &Strided::start)
      .def_readonly("stride", &Strided::stride)
      .def_readonly("count", &Strided::count);

  py::class_<PreparedTransfer, std::shared_ptr<PreparedTransfer>>(m, "PreparedTransfer")
      .def_property_readonly("bytes", &PreparedTransfer::bytes)
      .def_property_readonly("segments", &PreparedTransfer::segments)
      .def(
          "post",
          [](const PreparedTransfer& p, uint64_t uid, const py::object& deadline_s,
             const py::object& notify) {
            SubmitOptions o = options(uid, deadline_s, notify, false);
            const py::gil_scoped_release release;
            return p.post(std::move(o));
          },
          py::arg("transfer_uid") = 0, py::kw_only(), py::arg("deadline_s") = py::none(),
          py::arg("notify") = py::none());

  py::class_<PySession>(m, "Session")
      .def(py::init<const PySession&>())
      .def("read", &one<Op::read>, py::arg("local_offset"), py::arg("remote_offset"), py::arg("size"),
           py::arg("transfer_uid") = 0, py::kw_only(), py::arg("deadline_s") = py::none(),
           py::arg("notify") = py::none())
      .def("write", &one<Op::write>, py::arg("local_offset"), py::arg("remote_offset"), py::arg("size"),
           py::arg("transfer_uid") = 0, py::kw_only(), py::arg("deadline_s") = py::none(),
           py::arg("notify") = py::none())
      .def("batch_read", &batch<Op::read>, py::arg("local_offsets"), py::arg("remote_offsets"),
           py::arg("sizes"), py::arg("transfer_uid") = 0, py::kw_only(), py::arg("deadline_s") = py::none(),
           py::arg("notify") = py::none())
      .def("batch_write", &batch<Op::write>, py::arg("local_offsets"), py::arg("remote_offsets"),
           py::arg("sizes"), py::arg("transfer_uid") = 0, py::kw_only(), py::arg("deadline_s") = py::none(),
           py::arg("notify") = py::none())
      .def("_prepare", &prepare)
      .def("allocate_transfer_uid", [](const PySession& s) { return s.uids->fetch_add(1); })
      .def("_alive",
           [](const PySession& s, double timeout_s) {
             const auto deadline = deadline_after(py::float_(timeout_s), "timeout_s");
             const py::gil_scoped_release release;
             return s.session->alive(*deadline);
           })
      .def("_open",
           [](const PySession& s, double timeout_s) {
             const auto deadline = deadline_after(py::float_(timeout_s), "timeout_s");
             const py::gil_scoped_release release;
             s.session->open(*deadline);
           })
      .def("_explain", [](const PySession& s, double timeout_s) {
        const auto deadline = deadline_after(py::float_(timeout_s), "timeout_s");
        std::vector<Candidate> candidates;
        {
          const py::gil_scoped_release release;
          candidates = s.session->explain(*deadline);
        }
        return rows(candidates);
      });

  // Its destructor may wait for transfers, so the GIL is given away around it.
  struct Held {
    std::unique_ptr<Engine> engine;
    std::shared_ptr<std::atomic<uint64_t>> uids = std::make_shared<std::atomic<uint64_t>>(1);
    ~Held() {
      const py::gil_scoped_release release;
      engine.reset();
    }
  };
  py::class_<Held, std::shared_ptr<Held>>(m, "Engine")
      .def(py::init([](std::string key, std::string host, uint16_t port, std::optional<std::string> secret,
                       bool allow_insecure, bool same_host, double connect_timeout_s, double close_timeout_s,
                       double transfer_timeout_s, uint32_t retries, size_t trace_events) {
             const auto ms = [](double s) { return std::chrono::milliseconds(int64_t(s * 1e3)); };
             EngineOptions o;
             o.key = std::move(key);
             o.host = std::move(host);
             o.port = port;
             o.secret = std::move(secret);
             o.allow_insecure = allow_insecure;
             o.same_host = same_host;
             o.connect_timeout = ms(connect_timeout_s);
             o.close_timeout = ms(close_timeout_s);
             o.transfer_timeout = std::chrono::nanoseconds(int64_t(transfer_timeout_s * 1e9));
             o.retries = retries;
             o.trace_events = trace_events;
             auto held = std::make_shared<Held>();
             const py::gil_scoped_release release;
             held->engine = std::make_unique<Engine>(std::move(o));
             return held;
           }),
           py::arg("key"), py::kw_only(), py::arg("host"), py::arg("port"), py::arg("secret"),
           py::arg("allow_insecure"), py::arg("same_host"), py::arg("connect_timeout_s"),
           py::arg("close_timeout_s"), py::arg("transfer_timeout_s"), py::arg("retries"),
           py::arg("trace_events"))
      .def_property_readonly("key", [](const Held& h) { return h.engine->key(); })
      .def_property_readonly("incarnation", [](const Held& h) { return h.engine->incarnation(); })
      .def_property_readonly("host", [](const Held& h) { return h.engine->host(); })
      .def_property_readonly("port", [](const Held& h) { return h.engine->port(); })
      .def_property_readonly("closed", [](const Held& h) { return h.engine->closed(); })
      .def(
          "close", [](Held& h) { h.engine->close(); }, quietly)
      .def("allocate_transfer_uid", [](const Held& h) { return h.uids->fetch_add(1); })
      .def(
          "add_backend",
          [](Held& h, const std::string& name, std::map<std::string, std::string> values) {
            h.engine->add_backend(name, BackendOptions(std::move(values)));
          },
          quietly)
      .def(
          "remove_backend", [](Held& h, const std::string& name) { h.engine->remove_backend(name); }, quietly)
      .def("backends", [](Held& h) { return h.engine->backends(); })
      .def("missing_backends", [](Held& h) { return h.engine->missing_backends(); })
      .def("register_memory",
           [](Held& h,
              const std::vector<std::tuple<uint64_t, uint64_t, int32_t, Location, int, std::string>>& specs) {
             std::vector<LocalMemoryPtr> added;
             {
               const py::gil_scoped_release release;
               std::vector<Region> regions;
               for (const auto& spec : specs) regions.push_back(std::apply(to_region, spec));
               added = h.engine->register_memory(std::move(regions));
             }
             py::list ids;
             for (const auto& a : added)
               ids.append(py::make_tuple(
                   a->id, py::bytes(reinterpret_cast<const char*>(a->key.data()), a->key.size())));
             return ids;
           })
      .def(
          "deregister_memory", [](Held& h, uint64_t id) { h.engine->deregister_memory(id); }, quietly)
      .def(
          "introduce",
          [](Held& h, std::string key, uint64_t incarnation, std::string host, uint16_t port) {
            h.engine->introduce({std::move(key), incarnation, std::move(host), port});
          },
          quietly)
      .def(
          "forget", [](Held& h, const std::string& key) { h.engine->forget(key); }, quietly)
      .def("alive",
           [](Held& h, const std::string& key, double timeout_s) {
             const auto deadline = deadline_after(py::float_(timeout_s), "timeout_s");
             const py::gil_scoped_release release;
             return h.engine->alive(key, *deadline);
           })
      .def("session",
           [](Held& h, uint64_t local_id, std::string engine, uint64_t incarnation, uint64_t id,
              const py::bytes& key, Location location, int32_t device, std::string bus_id, int32_t numa_node,
              uint64_t address, uint64_t bytes, bool announce) {
             RemoteRegion remote{std::move(engine), incarnation, id,      to_key(key), location, device,
                                 std::move(bus_id), numa_node,   address, bytes};
             return PySession{h.engine->session(local_id, remote), h.uids, announce};
           })
      .def(
          "notify",
          [](Held& h, const std::string& engine, uint64_t uid, const std::string& message) {
            h.engine->notify(engine, uid, message, Deadline::max());
          },
          quietly)
      .def("take_notifications",
           [](Held& h) {
             uint64_t dropped = 0;
             py::list all;
             for (Notification& n : h.engine->take_notifications(dropped))
               all.append(py::make_tuple(n.engine, n.uid, py::bytes(n.message)));
             return py::make_tuple(all, dropped);
           })
      .def("take_inbound", [](Held& h, const std::string& engine,
                              uint64_t uid) { return h.engine->take_inbound(engine, uid); })
      .def("metrics", [](const Held& h) { return metrics(*h.engine); })
      .def("counters", [](const Held& h) { return h.engine->counters(); })
      .def("take_trace", [](Held& h) {
        const auto [taken, lost] = h.engine->trace().take();
        return py::make_tuple(events(taken), lost);
      });
  m.def("backend_table", [] {
    py::list rows;
    for (const BackendRow& row : backend_table()) rows.append(py::make_tuple(row.name, row.automatic));
    return rows;
  });
}
