// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core: calls each component's bind_<component>() (python/bindings/<component>.cpp) and turns the
// C++ errors into their namesakes of python/mori/errors.py.
#include <pybind11/pybind11.h>

#include "mori/version.hpp"
#include "src/core/errors.hpp"
#include "src/io/errors.hpp"

namespace py = pybind11;

void bind_runtime(py::module_& module);
void bind_memory(py::module_& module);
void bind_topology(py::module_& module);
void bind_context(py::module_& module);
void bind_shmem(py::module_& module);
void bind_fabric(py::module_& module);
void bind_ep(py::module_& module);
void bind_ccl(py::module_& module);
void bind_io(py::module_& module);
void bind_io_bench(py::module_& module);
void bind_ibgda(py::module_& module);
void bind_nics(py::module_& module);

namespace {

void raise(const char* class_name, const std::exception& error) {
  // Imported here, not when the module is: mori.errors must not depend on the order of imports.
  const py::object type = py::module_::import("mori.errors").attr(class_name);
  PyErr_SetString(type.ptr(), error.what());
}

void translate(std::exception_ptr pointer) {
  using namespace mori::core;
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const ConfigError& error) {
    raise("ConfigError", error);
  } catch (const mori::io::Refused& error) {
    py::object value = py::module_::import("mori.errors").attr("TransportError")(error.what());
    value.attr("code") = error.code;  // a mori.io.StatusCode
    PyErr_SetObject(py::type::handle_of(value).ptr(), value.ptr());
  } catch (const mori::io::TimeoutError& error) {
    raise("TimeoutError", error);
  } catch (const mori::io::PeerLost& error) {
    raise("PeerLost", error);
  } catch (const TransportError& error) {
    raise("TransportError", error);
  } catch (const CapacityError& error) {
    raise("CapacityError", error);
  } catch (const Error& error) {
    raise("MoriError", error);
  }
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "C++ core of MoRI. Private: use the classes of mori.* instead.";
  module.attr("__version__") = mori::kVersion;
  py::register_local_exception_translator(translate);
  for (auto* bind : {bind_runtime, bind_memory, bind_topology, bind_context, bind_fabric, bind_shmem, bind_ep,
                     bind_ccl, bind_io, bind_io_bench, bind_ibgda, bind_nics})
    bind(module);
}
