// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Offsets and sizes as Python gives them: a one-dimensional array of integers (numpy or anything with a
// buffer), a list or tuple of ints, an int, a Strided, or a list of those. Arrays of 64-bit integers are read
// in place.
#pragma once
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/io/engine.hpp"
#include "src/io/errors.hpp"

namespace mori::io {

namespace py = pybind11;

/// `count` offsets, the first at `start`, each `stride` after the one before.
struct Strided {
  int64_t start = 0;
  int64_t stride = 0;
  int64_t count = 0;
};

class Integers {
 public:
  Integers(const char* name, py::handle source) : name_(name) { read(source); }
  ~Integers() {
    if (buffer_.obj) PyBuffer_Release(&buffer_);
  }
  Integers(const Integers&) = delete;
  Integers& operator=(const Integers&) = delete;

  std::span<const int64_t> span() const {
    return in_place_.data() ? in_place_ : std::span<const int64_t>(own_);
  }

 private:
  void read(py::handle source) {
    PyObject* object = source.ptr();
    if (PyLong_Check(object)) return append(source);
    if (PyList_Check(object) || PyTuple_Check(object)) {
      PyObject** items = PySequence_Fast_ITEMS(object);
      const auto count = PySequence_Fast_GET_SIZE(object);
      own_.reserve(size_t(count));
      for (Py_ssize_t i = 0; i < count; ++i) append(items[i]);
      return;
    }
    if (PyObject_CheckBuffer(object)) return from_buffer(source);
    if (PyObject_HasAttrString(object, "__array__")) {  // a torch tensor
      const py::object array = source.attr("__array__")();
      if (PyObject_CheckBuffer(array.ptr())) return from_buffer(array);
    }
    append(source);
  }

  void append(py::handle item) {
    if (!PyLong_Check(item.ptr()) && py::isinstance<Strided>(item)) {
      const auto& s = item.cast<const Strided&>();
      own_.reserve(own_.size() + size_t(s.count));
      for (int64_t i = 0; i < s.count; ++i) own_.push_back(s.start + i * s.stride);
      return;
    }
    const long long value = PyLong_AsLongLong(item.ptr());  // takes whatever has __index__
    if (value == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      refuse(std::string(py::str(py::type::handle_of(item).attr("__name__"))) + " " +
             std::string(py::repr(item)));
    }
    own_.push_back(value);
  }

  void from_buffer(py::handle array) {
    if (PyObject_GetBuffer(array.ptr(), &buffer_, PyBUF_FORMAT | PyBUF_STRIDED) != 0) {
      PyErr_Clear();
      buffer_ = {};
      refuse("an object without a readable buffer");
    }
    const char* format = buffer_.format ? buffer_.format : "B";
    if (*format == '@' || *format == '=' || *format == '<') ++format;
    const bool integers = *format && !format[1] && std::strchr("bBhHiIlLqQ", *format);
    if (!integers) refuse(std::string("an array of format '") + (buffer_.format ? buffer_.format : "") + "'");
    if (buffer_.ndim != 1) refuse("an array of " + std::to_string(buffer_.ndim) + " dimensions");
    const bool is_signed = *format >= 'a';
    const size_t count = size_t(buffer_.shape[0]);
    const auto* at = static_cast<const char*>(buffer_.buf);
    const Py_ssize_t stride = buffer_.strides ? buffer_.strides[0] : buffer_.itemsize;
    if (is_signed && buffer_.itemsize == 8 && stride == 8 && count > 0) {
      in_place_ = {reinterpret_cast<const int64_t*>(at), count};
      return;
    }
    own_.resize(count);
    for (size_t i = 0; i < count; ++i, at += stride) own_[i] = load(at, is_signed);
  }

  int64_t load(const char* at, bool is_signed) {
    const auto as = [&]<class T>(T value) {
      std::memcpy(&value, at, sizeof value);
      if constexpr (std::is_unsigned_v<T> && sizeof(T) == 8)
        if (value > uint64_t(INT64_MAX)) refuse("the value " + std::to_string(value));
      return int64_t(value);
    };
    switch (buffer_.itemsize) {
      case 1:
        return is_signed ? as(int8_t{}) : as(uint8_t{});
      case 2:
        return is_signed ? as(int16_t{}) : as(uint16_t{});
      case 4:
        return is_signed ? as(int32_t{}) : as(uint32_t{});
      default:
        return is_signed ? as(int64_t{}) : as(uint64_t{});
    }
  }

  [[noreturn]] void refuse(const std::string& got) {
    if (buffer_.obj) PyBuffer_Release(&buffer_);
    buffer_ = {};
    throw core::ConfigError(
        std::string(name_) + " got " + got +
        "; it takes a one-dimensional integer array, a list of ints, an int or a Strided");
  }

  const char* name_;
  Py_buffer buffer_{};
  std::vector<int64_t> own_;
  std::span<const int64_t> in_place_;
};

/// None = the engine's default, 0 = none.
inline std::optional<Deadline> deadline_after(const py::object& seconds, const char* name = "deadline_s") {
  if (seconds.is_none()) return std::nullopt;
  const double s = seconds.cast<double>();
  if (!(s >= 0))
    throw core::ConfigError(std::string(name) + "=" + std::to_string(s) + " must not be negative");
  if (s == 0 || s > 1e9) return Deadline::max();
  return Clock::now() + std::chrono::nanoseconds(int64_t(s * 1e9));
}

/// -1 (or any negative number) waits without a deadline, 0 looks once.
inline Deadline deadline_of_ms(int64_t timeout_ms) {
  if (timeout_ms < 0 || timeout_ms > int64_t(1e12)) return Deadline::max();
  return timeout_ms == 0 ? Deadline::min() : Clock::now() + std::chrono::milliseconds(timeout_ms);
}

}  // namespace mori::io
